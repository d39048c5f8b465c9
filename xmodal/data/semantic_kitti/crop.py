"""Crop SemanticKITTI to the field of view of the camera: only the points in the picture, with their labels, are kept.

The copy has the layout of the original. Every point of it has a pixel, so that predictions of pixels are predictions of
all points, and training reads fewer bytes. Pictures, calibration, poses and times are linked or copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xmodal.data.prepare import Content, Item, Prepared, prepare_items
from xmodal.data.semantic_kitti.files import (
    CALIBRATION,
    CLOUDS,
    IMAGES,
    LABELS,
    Frame,
    image_size,
    inspect,
    parse_sequences,
    read_cloud,
    read_words,
)
from xmodal.data.semantic_kitti.projection import to_camera
from xmodal.errors import InputError, did_you_mean
from xmodal.files import written_whole

# Part of the stamp of every prepared frame: increase it when `cut_frame` returns other values for the same files.
VERSION = 1
COPIED = (CALIBRATION, "poses.txt", "times.txt")


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    sequences: str = "",
    images: Literal["link", "copy"] = "link",
    x_min: float = 0.0,
    behind: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write clouds and labels with only the points that are in the camera picture.

    Args:
        raw: folder of SemanticKITTI.
        root: folder to write; run again with the same folder to continue an interrupted preparation.
        workers: worker processes; 0: work in this process.
        sequences: sequences to crop, as in 0-10; empty: all.
        images: link (a hard link, or a copy if the file system has none) or copy.
        x_min: only points farther in front of the scanner than this are kept, in metres.
        behind: keep points behind the camera, which the projection mirrors into the picture, as the authors' code does.
        progress: called with (frames done, frames in total).
    """
    raw, root = Path(raw), Path(root)
    if images not in ("link", "copy"):
        raise InputError(f"images is '{images}'. {did_you_mean(images, ('link', 'copy'))}")
    if root.exists() and raw.exists() and os.path.samefile(raw, root):
        raise InputError(f"{root} is the folder of the raw files. Name another one to write to.")
    contents = inspect(raw, parse_sequences(sequences, "sequences") or None)
    contents.report.stop_on_errors()
    frames = [frame for part in contents.frames.values() for frame in part]
    if not frames:
        raise InputError(f"{raw} has none of the sequences {sequences}. Name others, or leave them out.")
    rules: dict[str, Any] = {"x_min": x_min, "behind": behind}
    items = [
        Item(
            f"{frame.sequence:02d}_{frame.name}",
            tuple(str(path) for path in (frame.cloud, frame.image, frame.labels) if path is not None),
            {
                **rules,
                "sequence": f"{frame.sequence:02d}",
                "name": frame.name,
                "matrix": contents.matrices[frame.sequence].tolist(),
            },
        )
        for frame in frames
    ]
    prepared = prepare_items(items, cut_frame, root, workers=workers, version=str(VERSION), progress=progress)
    done = set(prepared.names)
    for frame, item in zip(frames, items, strict=True):
        if item.name in done:
            _transfer(frame.image, _folder(root, frame) / IMAGES / frame.image.name, link=images == "link")
    for number, part in contents.frames.items():
        for name in COPIED:
            source = part[0].cloud.parents[1] / name
            if source.is_file():
                _transfer(source, root / "sequences" / f"{number:02d}" / name, link=False)
    return prepared


def _folder(root: Path, frame: Frame) -> Path:
    return root / "sequences" / f"{frame.sequence:02d}"


def cut_frame(item: Item) -> dict[str, NDArray[Any] | Content]:
    """The bytes of the cropped cloud and labels of a frame."""
    cloud, image, *labels = map(Path, item.sources)
    points = read_cloud(cloud)
    height, width = image_size(image)
    facts = item.facts
    _, keep, _ = to_camera(
        points,
        np.array(facts["matrix"]),
        height=height,
        width=width,
        x_min=facts["x_min"],
        behind=facts["behind"],
    )
    if not keep.any():
        raise InputError(f"No point of {cloud} is in its picture.")
    folder, name = f"sequences/{facts['sequence']}", facts["name"]
    contents: dict[str, NDArray[Any] | Content] = {
        f"{folder}/{CLOUDS}": Content(".bin", points[keep].astype("<f4").tobytes(), name)
    }
    for path in labels:
        words = read_words(path, len(points))
        contents[f"{folder}/{LABELS}"] = Content(".label", words[keep].astype("<u4").tobytes(), name)
    return contents


def _transfer(source: Path, target: Path, *, link: bool) -> None:
    """Link or copy a file unless the target is up to date."""
    if target.exists():
        old, new = target.stat(), source.stat()
        # copy2 keeps the time, and a link has it: size and time tell whether the source has changed.
        if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
            return
    if link and _try_link(source, target):
        return
    with written_whole(target) as partial:
        shutil.copy2(source, partial)


def _try_link(source: Path, target: Path) -> bool:
    """Create a hard link, and return whether the file system allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part-link")
    try:
        partial.unlink(missing_ok=True)
        os.link(source, partial)
    except OSError:
        return False
    # os.link does not overwrite: a link under another name replaces an old target without a moment without file.
    os.replace(partial, target)
    return True

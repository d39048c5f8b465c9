"""SemanticKITTI cut to what the camera sees: clouds and labels hold the points that lie in the picture, nothing else.

The copy has the form of the original. Each stored point has a pixel, so predictions of pixels are predictions of all
points, and training reads fewer bytes. Pictures, calibration, poses and times are linked or copied.
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

VERSION = 1  # of what the work makes of the same files and rules
BESIDE = (CALIBRATION, "poses.txt", "times.txt")


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
    """Cut clouds and labels to the points that lie in the camera's picture.

    Args:
        raw: folder of SemanticKITTI.
        root: folder to write; run again with the same one to go on.
        workers: processes; 0: this one.
        sequences: numbers of those to cut, as in 0-10; empty: all.
        images: link (a hard link, or a copy where the file system has none) or copy.
        x_min: points lie farther in front of the scanner than this, in metres.
        behind: keep points behind the camera that the division mirrors into the picture, as the published code does.
        progress: is told (frames so far, frames in all).
    """
    raw, root = Path(raw), Path(root)
    if images not in ("link", "copy"):
        raise InputError(f"images is '{images}'. {did_you_mean(images, ('link', 'copy'))}")
    if root.exists() and raw.exists() and os.path.samefile(raw, root):
        raise InputError(f"{root} is the folder of the raw files. Name another one to write to.")
    contents = inspect(raw, parse_sequences(sequences, "sequences") or None)
    contents.report.stop_on_errors()
    frames = [frame for found in contents.frames.values() for frame in found]
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
    there = set(prepared.names)
    for frame, item in zip(frames, items, strict=True):
        if item.name in there:
            _bring(frame.image, _folder(root, frame) / IMAGES / frame.image.name, link=images == "link")
    for number, found in contents.frames.items():
        for name in BESIDE:
            source = found[0].cloud.parents[1] / name
            if source.is_file():
                _bring(source, root / "sequences" / f"{number:02d}" / name, link=False)
    return prepared


def _folder(root: Path, frame: Frame) -> Path:
    return root / "sequences" / f"{frame.sequence:02d}"


def cut_frame(item: Item) -> dict[str, NDArray[Any] | Content]:
    """The bytes of a cut cloud and its cut labels."""
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
        raise InputError(f"No point of {cloud} lies in its picture.")
    folder, name = f"sequences/{facts['sequence']}", facts["name"]
    made: dict[str, NDArray[Any] | Content] = {
        f"{folder}/{CLOUDS}": Content(".bin", points[keep].astype("<f4").tobytes(), name)
    }
    for path in labels:
        words = read_words(path, len(points))
        made[f"{folder}/{LABELS}"] = Content(".label", words[keep].astype("<u4").tobytes(), name)
    return made


def _bring(source: Path, target: Path, *, link: bool) -> None:
    """A file of the raw folder in the new one: linked where that is possible, copied else; not again if it is there."""
    if target.exists():
        mine, theirs = target.stat(), source.stat()
        if (mine.st_size, mine.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns):
            return
    if link and _linked(source, target):
        return
    with written_whole(target) as beside:
        shutil.copy2(source, beside)


def _linked(source: Path, target: Path) -> bool:
    """Whether both are now one file; some file systems have no second names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part-link")
    try:
        beside.unlink(missing_ok=True)
        os.link(source, beside)
    except OSError:
        return False
    os.replace(beside, target)
    return True

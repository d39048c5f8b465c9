"""Everything that is wrong with a folder of NYU Depth V2, raw or prepared.

Of prepared frames every header is looked at, and the numbers of at most 50 frames of a folder, evenly spread: classes,
whether blocks follow from voxels, whether numbers are finite. Where the raw files lie in the same folder (``depthbin``)
or beside it, positions are computed again and compared: those of the published files are known not to agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.nyu.dataset import NyuSettings, few, inspect, strange_class
from xmodal.data.nyu.files import (
    KINDS,
    PARTS,
    RAW_FOLDER,
    SKIPPED,
    compare_positions,
    grid_of,
    missing_halves,
    packed_files,
    packed_parts,
    raw_frames,
    raw_parts,
)
from xmodal.data.nyu.frames import SUFFIX, FrameFile, network_order, told_axes
from xmodal.data.nyu.raw import read_colours, read_depth, read_room
from xmodal.data.nyu.voxels import FAINT, coarse_labels, coarse_tsdf
from xmodal.data.report import Report
from xmodal.errors import InputError
from xmodal.files import read_json

DECODED = 50  # frames of a folder whose numbers are all read


def check(root: Path) -> Report | None:
    """What is wrong with raw or prepared files; None if there are neither."""
    report = Report()
    packed = packed_parts(root) if root.is_dir() else {}
    raw = raw_parts(root) if root.is_dir() else {}
    if packed:
        _check_packed(root, packed, report)
    elif raw:
        _check_raw(root, raw, report)
    else:
        return None
    return report


def _spread(paths: Sequence[Any]) -> list[Any]:
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), DECODED)).round().astype(int))
    return [paths[place] for place in places.tolist()]


def _each(things: Sequence[Any], look: Callable[[Any], object], report: Report) -> None:
    """Look at some things and tell the first problems."""
    problems: list[str] = []
    for thing in things:
        try:
            look(thing)
        except InputError as error:
            problems += error.problems
    report.errors += few(problems)


# ---- raw


def _check_raw(root: Path, parts: dict[str, Path], report: Report) -> None:
    try:
        grid = grid_of(root)
    except InputError as error:
        report.errors += error.problems
        return
    report.errors += missing_halves(root, parts)
    for part, folder in parts.items():
        frames, lacking = raw_frames(folder)
        if not frames:
            report.errors.append(f"{folder} holds no frame with depth, room and colours.")
        report.errors += few([f"{part}/{name}: {reason}." for name, reason in lacking])
        chosen = _spread(frames) if frames else []
        _each(chosen, lambda frame: read_depth(frame.depth, grid=grid), report)
        _each(chosen, lambda frame: read_room(frame.room, grid=grid), report)
        _each(chosen, lambda frame: read_colours(frame.colours, grid=grid), report)
    if not report.errors:
        there = {part: raw_frames(folder)[0] for part, folder in parts.items()}
        _twice({part: {frame.name: _content(frame.room) for frame in some} for part, some in there.items()}, report)
        report.warnings.append(f"Raw files: xmodal data prepare nyu {root} ROOT makes what the loader reads.")


# ---- prepared


def _check_packed(root: Path, parts: dict[str, Path], report: Report) -> None:
    for kind in KINDS:
        if any(part in parts for part in (f"{kind}train", f"{kind}test")):
            settings = NyuSettings(modalities=("depth", "rgb", "tsdf"), cad=kind == "NYUCAD")
            inspect(root, settings, report)
    if report.errors:
        return
    for part, folder in parts.items():
        _each(_spread(packed_files(folder)), look_inside, report)
        _compare(root, part, folder, report)
    _left_out(root, report)
    if not report.errors:
        _twice({part: _voxels(packed_files(folder)) for part, folder in parts.items()}, report)


def _voxels(files: Sequence[Path]) -> dict[str, object]:
    return {path.name.removesuffix(SUFFIX): FrameFile(path).checksum("target_hr") for path in files}


def _left_out(root: Path, report: Report) -> None:
    """Say how many frames could not be prepared."""
    path = root / SKIPPED
    skipped = read_json(path).get("skipped") if path.is_file() else None
    if isinstance(skipped, list) and skipped:
        some = "1 frame was" if len(skipped) == 1 else f"{len(skipped)} frames were"
        report.warnings.append(f"{some} left out when this was prepared. The reasons stand in {path}.")


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _twice(found: Mapping[str, Mapping[str, object]], report: Report) -> None:
    """Warn of frames that are in both halves, by name or by their voxels: test figures would be too good.

    Args:
        found: folder → name of a frame → what its voxels are known by.
        report: receives the warnings.
    """
    for kind in KINDS:
        train, test = (found.get(f"{kind}{split}", {}) for split in ("train", "test"))
        known = {content: name for name, content in train.items()}
        pairs = [(name if name in train else known.get(content), name) for name, content in test.items()]
        both = [f"{name} (there {other})" if other != name else name for other, name in pairs if other is not None]
        if both:
            some = "1 frame" if len(both) == 1 else f"{len(both)} frames"
            report.warnings.append(
                f"{some} of {kind}test, {both[0]} the first, in {kind}train as well: test figures would be too "
                "good. Remove what is there twice from one of the two."
            )


def look_inside(path: Path) -> None:
    """Refuse a frame whose numbers do not fit together."""
    file = FrameFile(path)
    found = file.arrays(["rgb", "depth", "tsdf_hr", "tsdf_lr", "target_hr", "target_lr", "position"])
    problems = []
    for name in ("rgb", "depth", "tsdf_hr", "tsdf_lr"):
        if not np.isfinite(found[name]).all():
            problems.append(f"{path} has numbers in {name} that are not finite. Prepare it again.")
    for name in ("target_hr", "target_lr"):
        problem = strange_class(path, name, found[name])
        problems += [problem] if problem else []
    if not np.isin(np.asarray(found["tsdf_lr"], np.float32), np.array([1, FAINT, -FAINT], np.float32)).all():
        problems.append(f"{path} has other values in tsdf_lr than 1, {FAINT} and -{FAINT}. Prepare it again.")
    low, high = int(found["position"].min()), int(found["position"].max())
    if low < -1 or high >= found["target_hr"].size:
        problems.append(
            f"{path} has positions from {low} to {high}: -1 to {found['target_hr'].size - 1} were expected. Prepare it "
            "again, or give --repair-positions."
        )
    if not problems:
        problems += _blocks(path, found)
    if problems:
        raise InputError(problems)


def _blocks(path: Path, found: dict[str, Any]) -> list[str]:
    """Whether blocks follow from voxels."""
    problems = []
    if not np.array_equal(coarse_labels(np.asarray(found["target_hr"], np.uint8)), found["target_lr"]):
        problems.append(f"{path}: target_lr does not follow from target_hr. Prepare it again.")
    axes = told_axes(path) or "XHY"
    sharp = network_order(found["tsdf_hr"], axes)[0].transpose(2, 1, 0)
    if not np.isclose(coarse_tsdf(np.ascontiguousarray(sharp, np.float32)), found["tsdf_lr"], atol=1e-6).all():
        problems.append(f"{path}: tsdf_lr does not follow from tsdf_hr. Prepare it again.")
    return problems


def _compare(root: Path, part: str, folder: Path, report: Report) -> None:
    """Compare positions to those of the raw files, where they are found."""
    assert part in PARTS
    raw = next((place for place in (root, root.parent) if (place / RAW_FOLDER / part).is_dir()), None)
    if raw is None:
        return
    grid = grid_of(raw)
    frames = {frame.name: frame for frame in raw_frames(raw / RAW_FOLDER / part)[0]}
    chosen = [path for path in _spread(packed_files(folder)) if path.name.removesuffix(SUFFIX) in frames]
    wrong: list[tuple[str, int]] = []

    def look(path: Path) -> None:
        rule = "correct" if FrameFile(path).arrays(["position"])["position"].min() < 0 else "reference"
        differing = compare_positions(path, frames[path.name.removesuffix(SUFFIX)], grid, rule=rule)
        if differing:
            wrong.append((path.name, differing))

    _each(chosen, look, report)
    if wrong:
        report.errors.append(
            f"{folder.name}: the positions of {len(wrong)} of {len(chosen)} frames are not those of their raw files, "
            f"{wrong[0][0]} in {wrong[0][1]} pixels for one. xmodal data prepare nyu {raw} {root} --repair-positions "
            "writes them again."
        )

"""Checking a folder of NYU Depth V2, raw or prepared.

All headers of prepared frames are checked, and the values of at most 50 frames per folder, evenly spread: classes,
non-finite values, and whether blocks agree with voxels. If the raw files are in the same folder (``depthbin``) or in
the one above, positions are computed again and compared, since those of the published files are known to be wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.nyu.dataset import NyuSettings, few, has_colours, inspect, invalid_class
from xmodal.data.nyu.files import (
    KINDS,
    PARTS,
    RAW_FOLDER,
    SKIPPED,
    coloured,
    compare_positions,
    grid_of,
    missing_halves,
    packed_files,
    packed_parts,
    raw_frames,
    raw_parts,
)
from xmodal.data.nyu.frames import SUFFIX, FrameFile, network_order, resolve_axes
from xmodal.data.nyu.raw import read_colours, read_depth, read_room
from xmodal.data.nyu.voxels import FAINT, coarse_labels, coarse_tsdf
from xmodal.data.report import Report
from xmodal.errors import InputError
from xmodal.files import read_json

# Frames of a folder whose arrays are all read: for all 1,449 frames at full size that would take long.
DECODED = 50


def check(root: Path) -> Report | None:
    """Check raw or prepared files; None if there are neither."""
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


def _sample(paths: Sequence[Any]) -> list[Any]:
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), DECODED)).round().astype(int))
    return [paths[place] for place in places.tolist()]


def _collect(items: Sequence[Any], test: Callable[[Any], object], report: Report) -> None:
    """Call a test for each item and report the first problems."""
    problems: list[str] = []
    for item in items:
        try:
            test(item)
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
    colours = coloured(parts)
    for part, folder in parts.items():
        frames, incomplete = raw_frames(folder, colours=colours)
        if not frames:
            what = "depth, room and colours" if colours else "depth and room"
            report.errors.append(f"{folder} holds no frame with {what}.")
        report.errors += few([f"{part}/{name}: {reason}." for name, reason in incomplete])
        chosen = _sample(frames) if frames else []
        _collect(chosen, lambda frame: read_depth(frame.depth, grid=grid), report)
        _collect(chosen, lambda frame: read_room(frame.room, grid=grid), report)
        if colours:
            _collect(chosen, lambda frame: read_colours(frame.colours, grid=grid), report)
    if not report.errors:
        complete = {part: raw_frames(folder, colours=colours)[0] for part, folder in parts.items()}
        digests = {part: {frame.name: _digest(frame.room) for frame in frames} for part, frames in complete.items()}
        _warn_of_duplicates(digests, report)
        if not colours:
            report.warnings.append(
                "There are no pictures with colours: only networks that read depth alone can use it."
            )
        report.warnings.append(f"Raw files. Prepare them for training: xmodal data prepare nyu {root} ROOT.")


# ---- prepared


def _check_packed(root: Path, parts: dict[str, Path], report: Report) -> None:
    for kind in KINDS:
        if any(part in parts for part in (f"{kind}train", f"{kind}test")):
            colours = ("rgb",) * any(has_colours(folder) for part, folder in parts.items() if part.startswith(kind))
            settings = NyuSettings(modalities=("depth", *colours, "tsdf"), cad=kind == "NYUCAD")
            inspect(root, settings, report)
    if report.errors:
        return
    for part, folder in parts.items():
        _collect(_sample(packed_files(folder)), check_frame, report)
        _compare_positions(root, part, folder, report)
    _warn_of_skipped(root, report)
    if not report.errors:
        _warn_of_duplicates({part: _fingerprints(packed_files(folder)) for part, folder in parts.items()}, report)


def _fingerprints(files: Sequence[Path]) -> dict[str, object]:
    return {path.name.removesuffix(SUFFIX): FrameFile(path).checksum("target_hr") for path in files}


def _warn_of_skipped(root: Path, report: Report) -> None:
    """Warn of frames that could not be prepared."""
    path = root / SKIPPED
    skipped = read_json(path).get("skipped") if path.is_file() else None
    if isinstance(skipped, list) and skipped:
        number = "1 frame was" if len(skipped) == 1 else f"{len(skipped)} frames were"
        report.warnings.append(f"{number} skipped when the folder was prepared. See the reasons in {path}.")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _warn_of_duplicates(fingerprints: Mapping[str, Mapping[str, object]], report: Report) -> None:
    """Warn of frames that are in both training and test, by name or by voxels, since test scores would be too good.

    Args:
        fingerprints: folder → name of a frame → a value that identifies its voxels.
        report: receives the warnings.
    """
    for kind in KINDS:
        train, test = (fingerprints.get(f"{kind}{split}", {}) for split in ("train", "test"))
        train_names = {fingerprint: name for name, fingerprint in train.items()}
        duplicates = []
        for name, fingerprint in test.items():
            train_name = name if name in train else train_names.get(fingerprint)
            if train_name is not None:
                duplicates.append(name if train_name == name else f"{name} (there {train_name})")
        if duplicates:
            number = "1 frame" if len(duplicates) == 1 else f"{len(duplicates)} frames"
            report.warnings.append(
                f"{number} of {kind}test, {duplicates[0]} the first, in {kind}train as well: test scores would be too "
                "good. Remove the duplicates from one of the two folders."
            )


def check_frame(path: Path) -> None:
    """Raise an `InputError` if the arrays of a frame are invalid or inconsistent."""
    file = FrameFile(path)
    colours = ["rgb"] * ("rgb" in file.names())
    arrays = file.arrays([*colours, "depth", "tsdf_hr", "tsdf_lr", "target_hr", "target_lr", "position"])
    problems = []
    for name in (*colours, "depth", "tsdf_hr", "tsdf_lr"):
        if not np.isfinite(arrays[name]).all():
            problems.append(f"{path} has non-finite values in {name}. Prepare it again.")
    for name in ("target_hr", "target_lr"):
        problem = invalid_class(path, name, arrays[name])
        problems += [problem] if problem else []
    if not np.isin(np.asarray(arrays["tsdf_lr"], np.float32), np.array([1, FAINT, -FAINT], np.float32)).all():
        problems.append(f"{path} has other values in tsdf_lr than 1, {FAINT} and -{FAINT}. Prepare it again.")
    low, high = int(arrays["position"].min()), int(arrays["position"].max())
    if low < -1 or high >= arrays["target_hr"].size:
        problems.append(
            f"{path} has positions from {low} to {high}: -1 to {arrays['target_hr'].size - 1} were expected. Prepare "
            "it again, or use --repair-positions."
        )
    # Only for valid arrays: otherwise each of these problems would be reported a second time.
    if not problems:
        problems += _blocks(path, arrays)
    if problems:
        raise InputError(problems)


def _blocks(path: Path, arrays: dict[str, Any]) -> list[str]:
    """Problems if the arrays of blocks do not follow from those of voxels."""
    problems = []
    if not np.array_equal(coarse_labels(np.asarray(arrays["target_hr"], np.uint8)), arrays["target_lr"]):
        problems.append(f"{path}: target_lr does not follow from target_hr. Prepare it again.")
    axes = resolve_axes(path) or "XHY"
    volume = network_order(arrays["tsdf_hr"], axes)[0].transpose(2, 1, 0)
    if not np.isclose(coarse_tsdf(np.ascontiguousarray(volume, np.float32)), arrays["tsdf_lr"], atol=1e-6).all():
        problems.append(f"{path}: tsdf_lr does not follow from tsdf_hr. Prepare it again.")
    return problems


def _compare_positions(root: Path, part: str, folder: Path, report: Report) -> None:
    """Compare positions with those computed from the raw files, if these are there."""
    assert part in PARTS
    raw = next((place for place in (root, root.parent) if (place / RAW_FOLDER / part).is_dir()), None)
    if raw is None:
        return
    grid = grid_of(raw)
    frames = {frame.name: frame for frame in raw_frames(raw / RAW_FOLDER / part, colours=False)[0]}
    chosen = [path for path in _sample(packed_files(folder)) if path.name.removesuffix(SUFFIX) in frames]
    wrong: list[tuple[str, int]] = []

    def compare(path: Path) -> None:
        # Only the correct rule writes -1. A frame without any such pixel is the same by both rules.
        rule = "correct" if FrameFile(path).arrays(["position"])["position"].min() < 0 else "reference"
        differing = compare_positions(path, frames[path.name.removesuffix(SUFFIX)], grid, rule=rule)
        if differing:
            wrong.append((path.name, differing))

    _collect(chosen, compare, report)
    if wrong:
        report.errors.append(
            f"{folder.name}: the positions of {len(wrong)} of {len(chosen)} frames differ from those of their raw "
            f"files, the first {wrong[0][0]} in {wrong[0][1]} pixels. Repair them: xmodal data prepare nyu {raw} "
            f"{root} --repair-positions."
        )

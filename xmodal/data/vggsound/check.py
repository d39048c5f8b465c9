"""Everything that is wrong with a folder of VGGSound, down to the last number of its clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.report import Report
from xmodal.data.vggsound.clips import read_frames, read_waveform, stored_frames
from xmodal.data.vggsound.contents import Contents, Row, few, inspect_prepared, inspect_raw, is_prepared
from xmodal.data.vggsound.lists import LISTS, find_lists, read_lists
from xmodal.errors import InputError

DECODED = 200  # clips of a folder whose numbers and pixels are all read


def check(root: Path) -> Report | None:
    """What is wrong with a prepared folder or with raw clips; None if it is neither."""
    if is_prepared(root):
        contents = inspect_prepared(root)
    elif any((root / name).is_file() for name in LISTS) and _has_clips(root):
        contents = inspect_raw(root)
        if not contents.report.errors:
            note = (
                f"{len(contents.rows)} raw clips: xmodal data prepare vggsound {root} ROOT makes them faster to read."
            )
            contents.report.warnings.append(note)
    else:
        return None
    if not contents.report.errors:
        _look_inside(contents)
    return contents.report


def _has_clips(root: Path) -> bool:
    try:
        return bool(read_lists(find_lists(root)).clips)
    except InputError:
        return False


def _look_inside(contents: Contents) -> None:
    """Read clips to the last number: all, or so many that are evenly spread over a large folder."""
    rows = contents.rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), DECODED)).round().astype(int))
    shares = [0.25, 1 - 0.5 / contents.frames]
    for part, look in (("sound", _hear(contents)), ("frames", _see(contents, shares))):
        problems = []
        for place in chosen.tolist():
            try:
                look(rows[place])
            except InputError as error:
                problems += error.problems
        contents.report.errors += few(problems, f"the {part}")
    if len(chosen) < len(rows):
        contents.report.warnings.append(f"{len(chosen)} of {len(rows)} clips were read to their end, evenly spread.")


def _hear(contents: Contents) -> Callable[[Row], Any]:
    return lambda row: read_waveform(row.audio, seconds=contents.seconds)


def _see(contents: Contents, shares: Sequence[float]) -> Callable[[Row], None]:
    def look(row: Row) -> None:
        if contents.prepared and stored_frames(row.video) != (contents.frames, contents.size):
            found, side = stored_frames(row.video)
            raise InputError(
                f"{row.video.name} holds {found} frames of {side}x{side}, the first clip {contents.frames} of "
                f"{contents.size}x{contents.size}: one for all was expected."
            )
        read_frames(row.video, shares, size=contents.size, seconds=contents.seconds)

    return look

"""Checking a folder of VGGSound, including the samples and pixels of its clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xmodal.data.report import Report
from xmodal.data.vggsound.clips import read_frames, read_waveform, stored_frames
from xmodal.data.vggsound.contents import Contents, Row, few, inspect_prepared, inspect_raw, is_prepared
from xmodal.data.vggsound.lists import LISTS, find_lists, read_lists
from xmodal.errors import InputError

# Decoding costs about as much as preparing: of the 200,000 clips of VGGSound, 200 are read completely.
DECODED = 200


def check(root: Path) -> Report | None:
    """Check a prepared folder or a folder of raw clips; None if it is neither."""
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
        _decode(contents)
    return contents.report


def _has_clips(root: Path) -> bool:
    # train.csv and test.csv are common names: only a list that parses marks a folder of VGGSound.
    try:
        return bool(read_lists(find_lists(root)).clips)
    except InputError:
        return False


def _decode(contents: Contents) -> None:
    """Read sound and frames of all clips, or of a sample that is spread evenly over a large folder."""
    rows = contents.rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), DECODED)).round().astype(int))
    # A video that is cut off still opens: reading its last frame proves that it is complete.
    shares = [0.25, 1 - 0.5 / contents.frames]
    sound_problems: list[str] = []
    frame_problems: list[str] = []
    for row in (rows[number] for number in chosen.tolist()):
        try:
            read_waveform(row.audio, seconds=contents.seconds)
        except InputError as error:
            sound_problems += error.problems
        try:
            _read_frames(row, contents, shares)
        except InputError as error:
            frame_problems += error.problems
    contents.report.errors += [*few(sound_problems, "the sound"), *few(frame_problems, "the frames")]
    if len(chosen) < len(rows):
        contents.report.warnings.append(f"{len(chosen)} of {len(rows)} clips, evenly spread, were read to their end.")


def _read_frames(row: Row, contents: Contents, shares: Sequence[float]) -> None:
    if contents.prepared and stored_frames(row.video) != (contents.frames, contents.size):
        count, side = stored_frames(row.video)
        raise InputError(
            f"{row.video.name} holds {count} frames of {side}x{side}, the first clip {contents.frames} of "
            f"{contents.size}x{contents.size}: the same for all clips was expected."
        )
    read_frames(row.video, shares, size=contents.size, seconds=contents.seconds)

"""Which clips a folder of VGGSound holds, prepared or raw, and what is wrong with it as far as names tell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.report import Report
from xmodal.data.vggsound.clips import PICTURES, stored_frames
from xmodal.data.vggsound.files import FACTS, LABELS, SOUND, TALL, TENSOR, WAVEFORM
from xmodal.data.vggsound.lists import (
    SPLITS,
    choose_classes,
    find_lists,
    match_files,
    of_classes,
    read_lists,
    token_of,
)
from xmodal.errors import InputError
from xmodal.files import parse_json, read_json

NAMED = 3  # problems of one kind that are told one by one; the others are counted
SOUNDS = {WAVEFORM: (".npy",), SOUND: (".wav", ".flac")}
SIGHTS = {TALL: PICTURES, TENSOR: (".npy",)}
NOMINAL = (10.0, 32, 256)  # seconds, frames, size


@dataclass(frozen=True)
class Row:
    """One clip.

    Attributes:
        split: ``train`` or ``test``.
        audio: file with the sound.
        video: file with the frames; the same one for raw clips.
        label: its class.
        source: the video it was cut from, or the clip itself where its name does not say.
    """

    split: str
    audio: Path
    video: Path
    label: int
    source: str


@dataclass
class Contents:
    """What was found; complete when the report holds no error.

    Attributes:
        report: errors and warnings.
        prepared: whether `prepare` or the authors' code made the files; False: raw clips.
        rows: the clips, in the order of their files' names.
        class_names: in the order of their numbers.
        seconds: that a clip lasts.
        frames: that are stored of each clip; of raw clips the nominal number.
        size: of the frames' sides, likewise.
    """

    report: Report
    prepared: bool = True
    rows: list[Row] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    seconds: float = NOMINAL[0]
    frames: int = NOMINAL[1]
    size: int = NOMINAL[2]


def is_prepared(root: Path) -> bool:
    """Whether a folder has one of the folders that `prepare` writes."""
    return (root / LABELS).exists() or any(
        (root / split / part).is_dir() for split in SPLITS for part in (*SOUNDS, *SIGHTS)
    )


def few(problems: Sequence[str], where: str) -> list[str]:
    """The first problems, and how many more there are."""
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return [*problems[:NAMED], *more]


# ---- prepared


def inspect_prepared(root: Path, *, labels: Path | None = None, classes: str = "") -> Contents:
    """Find out which clips are there; what is in them is read later.

    Args:
        root: the folder.
        labels: file with the number of each class; None: label.json in the folder.
        classes: those to take, see `choose_classes`; their numbers are counted anew.
    """
    contents = Contents(Report())
    report = contents.report
    facts = _read_facts(root, report)
    numbers = _read_labels(labels or root / LABELS, report)
    if report.errors:
        return contents
    names = {token_of(name): name for name in map(str, facts.get("classes", []))}
    chosen = choose_classes([names.get(token, token) for token in numbers], classes)
    ordered = sorted(numbers, key=lambda token: numbers[token])
    kept = [token for token in ordered if names.get(token, token) in set(chosen)]
    contents.class_names = [names.get(token, token) for token in kept]
    contents.seconds = float(facts.get("seconds", NOMINAL[0]))
    places = {token: place for place, token in enumerate(kept)}
    left_out: list[str] = []
    for split in SPLITS:
        for stem, (audio, video) in _pairs(root / split, left_out).items():
            parts = stem.split("_")
            token = parts[-2] if len(parts) > 1 else ""
            if token not in numbers:
                left_out.append(f"{split}/{video.parent.name}/{video.name}: the class '{token}' is not in {LABELS}.")
            elif token in places:
                contents.rows.append(Row(split, audio, video, places[token], "_".join(parts[:-2]) or stem))
    if left_out:
        report.warnings += [f"{len(left_out)} clips of {root} are left out.", *few(left_out, str(root))]
    _check_rows(root, contents)
    if contents.rows:
        try:
            contents.frames, contents.size = stored_frames(contents.rows[0].video)
        except InputError as error:
            report.errors += error.problems
    if (root / ".prepared").is_dir() and not facts:
        report.errors.append(f"{root / FACTS} is missing: the preparation of this folder was stopped. Run it again.")
    return contents


def _read_facts(root: Path, report: Report) -> dict[str, Any]:
    """What `prepare` wrote; empty for files of the authors' code."""
    if not (root / FACTS).is_file():
        return {}
    try:
        facts = read_json(root / FACTS)
        names, seconds = facts.get("classes"), facts.get("seconds")
        if not isinstance(names, list) or not isinstance(seconds, float | int) or not 0.1 <= seconds <= 3600:
            raise InputError(f"{root / FACTS} is damaged: classes and seconds were expected. Prepare the folder again.")
    except InputError as error:
        report.errors += error.problems
        return {}
    return facts


def _read_labels(path: Path, report: Report) -> dict[str, int]:
    """Class token → number, in the order of the numbers."""
    if not path.is_file():
        report.errors.append(
            f"{path} is missing. Expected: {LABELS} with the number of each class, and train and test with "
            f"{TALL}/<clip>.jpg and {WAVEFORM}/<clip>.npy or {SOUND}/<clip>.wav each. A preparation that was stopped "
            "writes it when it is run again."
        )
        return {}
    try:
        found = parse_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        report.errors.append(
            f"{path} is no text ({error.reason}): JSON with the number of each class was expected, as in {LABELS}."
        )
        return {}
    except InputError as error:
        report.errors += error.problems
        return {}
    wrong = [token for token, number in found.items() if not isinstance(number, int) or isinstance(number, bool)]
    if wrong or sorted(found.values()) != list(range(len(found))) or len(found) < 2:
        report.errors.append(
            f"{path} was expected to number two or more classes, each once, from 0 without gaps"
            f"{f', and {wrong[0]!r} is {found[wrong[0]]!r}' if wrong else ''}."
        )
        return {}
    return dict(sorted(found.items(), key=lambda pair: int(pair[1])))


def _pairs(folder: Path, left_out: list[str]) -> dict[str, tuple[Path, Path]]:
    """Name of a clip → its sound and its frames, of a split, in the order of the file names."""
    heard, seen = (_files(folder, kinds) for kinds in (SOUNDS, SIGHTS))
    for stem in sorted(heard.keys() ^ seen.keys()):
        there, lacks = (heard[stem], "there are no frames") if stem in heard else (seen[stem], "there is no sound")
        left_out.append(f"{folder.name}/{there.parent.name}/{there.name}: {lacks} of this clip.")
    return {stem: (heard[stem], seen[stem]) for stem in sorted(heard.keys() & seen.keys())}


def _files(folder: Path, kinds: dict[str, tuple[str, ...]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part, suffixes in kinds.items():
        if (folder / part).is_dir():
            with os.scandir(folder / part) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
            for name in sorted(names):
                stem, dot, suffix = name.rpartition(".")
                if dot + suffix.lower() in suffixes:
                    found.setdefault(stem, folder / part / name)
    return found


def _check_rows(root: Path, contents: Contents) -> None:
    """Splits without clips, classes without clips, videos in both splits."""
    report = contents.report
    for split in SPLITS:
        mine = [row for row in contents.rows if row.split == split]
        if not mine:
            report.errors.append(f"{root} has no clip for the split {split} with both sound and frames.")
            continue
        counts = np.bincount([row.label for row in mine], minlength=len(contents.class_names))
        absent = [contents.class_names[place] for place in np.flatnonzero(counts == 0)]
        if absent:
            told = f"{absent[0]}{f' and {len(absent) - 1} more' if len(absent) > 1 else ''}"
            report.warnings.append(f"No clip of the split {split} is of the class {told}.")
    train, test = ({row.source for row in contents.rows if row.split == split} for split in SPLITS)
    if train & test:
        report.warnings.append(f"{len(train & test)} videos have clips in both splits, {min(train & test)} among them.")


# ---- raw


def inspect_raw(
    root: Path, *, listing: Path | None = None, classes: str = "", most: int = 0, probe: bool = True
) -> Contents:
    """Find the clips that lists name.

    Args:
        root: folder with the clips.
        listing: the list; None: the one in the folder.
        classes: those to take, see `choose_classes`.
        most: clips of each class and split; 0: all.
        probe: look at the beginning of each file, and leave out what can't be read.
    """
    contents = Contents(Report(), prepared=False)
    try:
        listed = read_lists(find_lists(root, listing))
        contents.class_names = choose_classes((clip.label for clip in listed.clips), classes)
    except InputError as error:
        contents.report.errors += error.problems
        return contents
    clips = of_classes(listed.clips, contents.class_names, most)
    files, missing, spare = match_files(root, clips)
    unread = _probed(files) if probe else {}
    numbers = {name: number for number, name in enumerate(contents.class_names)}
    for clip in sorted(clips, key=lambda clip: clip.name):
        if clip.stem in files and clip.stem not in unread:
            path = files[clip.stem]
            contents.rows.append(Row(clip.split, path, path, numbers[clip.label], clip.video))
    for what, problems in (
        ("lines of the lists are left out", [f"{where}: {reason}." for where, reason in listed.refused]),
        (f"of {len(clips)} listed clips are missing", [f"{stem}: {reason}." for stem, reason in missing]),
        (f"of {len(clips)} listed clips can't be read and are left out", list(unread.values())),
    ):
        if problems:
            contents.report.warnings += [f"{len(problems)} {what}.", *few(problems, str(root))]
    if spare and not classes and not most:
        contents.report.warnings.append(f"{spare} files are in no list.")
    _check_rows(root, contents)
    return contents


def _probed(files: dict[str, Path]) -> dict[str, str]:
    """Stem → sentence, of the files that have no pictures or no sound, or are no videos."""
    from xmodal.data.media.video import look_at

    unread = {}
    for stem, path in sorted(files.items()):
        try:
            look_at(path)
        except InputError as error:
            unread[stem] = " ".join(error.problems)
    return unread

"""The clips of a prepared folder or a folder of raw clips of VGGSound, listed without decoding them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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

# Problems of one kind that are listed; the rest are counted.
NAMED = 3
# Folder → suffixes. If a clip is in both folders, the first one is used.
SOUNDS = {WAVEFORM: (".npy",), SOUND: (".wav", ".flac")}
SIGHTS = {TALL: PICTURES, TENSOR: (".npy",)}
# The file that numbers the classes, under the names that the authors' code gives it. The first that exists is read.
LABEL_FILES = (LABELS, "label_tiny.json")
# Seconds, frames and size of the clips that the authors' code reads.
NOMINAL = (10.0, 32, 256)


@dataclass(frozen=True)
class Row:
    """A clip.

    Attributes:
        split: ``train`` or ``test``.
        audio: file with the sound.
        video: file with the frames; for raw clips the same file.
        label: index of its class.
        source: id of the video that it was cut from; if its name does not contain it, the name of the clip.
    """

    split: str
    audio: Path
    video: Path
    label: int
    source: str


@dataclass
class Contents:
    """The contents of a folder; complete if the report holds no error.

    Attributes:
        report: errors and warnings.
        prepared: True for files in the layout that `prepare` writes, False for raw clips.
        rows: the clips, in the order of their file names.
        class_names: the classes, in the order of their indices.
        seconds: length of a clip.
        frames: number of stored frames of each clip; for raw clips the nominal number.
        size: width and height of the frames; for raw clips the nominal size.
    """

    report: Report
    prepared: bool = True
    rows: list[Row] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    seconds: float = NOMINAL[0]
    frames: int = NOMINAL[1]
    size: int = NOMINAL[2]


def is_prepared(root: Path) -> bool:
    """Whether a folder has the file of the labels or a subfolder that `prepare` writes."""
    return any((root / name).exists() for name in LABEL_FILES) or any(
        (split_folder(root, split) / part).is_dir() for split in SPLITS for part in (*SOUNDS, *SIGHTS)
    )


def split_folder(root: Path, split: str) -> Path:
    """The subfolder of a split; upper and lower case count as the same, as in Train."""
    exact = root / split
    if exact.is_dir() or not root.is_dir():
        return exact
    alike = sorted(path for path in root.iterdir() if path.name.lower() == split and path.is_dir())
    if len(alike) > 1:
        names = ", ".join(path.name for path in alike)
        raise InputError(f"{root} has several folders for the split {split}: {names}. Rename all but one.")
    return alike[0] if alike else exact


def few(problems: Sequence[str], where: str) -> list[str]:
    """The first problems, and the number of further ones."""
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return [*problems[:NAMED], *more]


# ---- prepared


def inspect_prepared(
    root: Path | None, *, parts: Mapping[str, Path] | None = None, labels: Path | None = None, classes: str = ""
) -> Contents:
    """List the clips of a prepared folder; only the header of the first picture is read.

    Args:
        root: the folder; None: all its parts are named.
        parts: split → folder, in place of a subfolder of the root.
        labels: file with the index of each class; None: `LABEL_FILES` in the folder, or in the parts or above them.
        classes: classes to keep, see `choose_classes`; they get new indices from 0.
    """
    parts = dict(parts or {})
    folders = {split: parts[split] if root is None else parts.get(split, split_folder(root, split)) for split in SPLITS}
    contents = Contents(Report())
    report = contents.report
    report.errors += [
        f"There is no folder {folders[split]}, named for the split {split}. Expected: one with {TALL}/<clip>.jpg and "
        f"{WAVEFORM}/<clip>.npy or {SOUND}/<clip>.wav."
        for split in parts
        if not folders[split].is_dir()
    ]
    facts = {} if root is None else _read_facts(root, report)
    named = labels or _find_labels(root, parts, report)
    indices = _read_labels(named, report)
    if report.errors:
        return contents
    names = {token_of(name): name for name in map(str, facts.get("classes", []))}
    chosen = choose_classes([names.get(token, token) for token in indices], classes)
    ordered = sorted(indices, key=lambda token: indices[token])
    kept = [token for token in ordered if names.get(token, token) in set(chosen)]
    contents.class_names = [names.get(token, token) for token in kept]
    contents.seconds = float(facts.get("seconds", NOMINAL[0]))
    new_indices = {token: index for index, token in enumerate(kept)}
    skipped: list[str] = []
    for split in SPLITS:
        for stem, (audio, video) in _pairs(folders[split], skipped).items():
            pieces = stem.split("_")
            token = pieces[-2] if len(pieces) > 1 else ""
            if token not in indices:
                skipped.append(f"{split}/{video.parent.name}/{video.name}: the class '{token}' is not in {named.name}.")
            elif token in new_indices:
                # The id of a video may contain underscores itself: everything before the class belongs to it.
                contents.rows.append(Row(split, audio, video, new_indices[token], "_".join(pieces[:-2]) or stem))
    if skipped:
        where = " and ".join(map(str, folders.values())) if root is None else str(root)
        report.warnings += [f"{len(skipped)} clips of {where} are skipped.", *few(skipped, where)]
    _check_rows(folders, contents)
    if contents.rows:
        try:
            contents.frames, contents.size = stored_frames(contents.rows[0].video)
        except InputError as error:
            report.errors += error.problems
    if root is not None and (root / ".prepared").is_dir() and not facts:
        report.errors.append(
            f"{root / FACTS} is missing: the preparation of this folder was interrupted. Run it again."
        )
    return contents


def _read_facts(root: Path, report: Report) -> dict[str, Any]:
    """The file that `prepare` writes last; empty if files of the authors' code have none."""
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


def _find_labels(root: Path | None, parts: Mapping[str, Path], report: Report) -> Path:
    """The file of the labels: in the root, or in a folder of a split or above it."""
    # Separate folders have no root in common; their labels lie beside the clips, or beside the folders.
    places = [*([] if root is None else [root]), *(place for part in parts.values() for place in (part, part.parent))]
    found = [place / name for place in dict.fromkeys(places) for name in LABEL_FILES if (place / name).is_file()]
    if not found:
        return places[0] / LABEL_FILES[0]
    others = [path for path in found[1:] if path.name != found[0].name]
    if others:
        report.warnings.append(f"{found[0]} numbers the classes, and not {others[0]}: --vggsound.labels names another.")
    return found[0]


def _read_labels(path: Path, report: Report) -> dict[str, int]:
    """Class token → index, in the order of the indices."""
    if not path.is_file():
        report.errors.append(
            f"{path} is missing. Expected: {' or '.join(LABEL_FILES)} with the number of each class, and train and "
            f"test with {TALL}/<clip>.jpg and {WAVEFORM}/<clip>.npy or {SOUND}/<clip>.wav each. An interrupted "
            "preparation writes it when it is run again."
        )
        return {}
    try:
        indices = parse_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        report.errors.append(
            f"{path} is not text ({error.reason}): JSON with the number of each class was expected, as in {LABELS}."
        )
        return {}
    except InputError as error:
        report.errors += error.problems
        return {}
    # True and False are integers in Python, and would pass for 1 and 0.
    wrong = [token for token, number in indices.items() if not isinstance(number, int) or isinstance(number, bool)]
    if wrong or sorted(indices.values()) != list(range(len(indices))) or len(indices) < 2:
        report.errors.append(
            f"{path} was expected to number two or more classes, each once, from 0 without gaps"
            f"{f', and {wrong[0]!r} is {indices[wrong[0]]!r}' if wrong else ''}."
        )
        return {}
    return dict(sorted(indices.items(), key=lambda pair: int(pair[1])))


def _pairs(folder: Path, skipped: list[str]) -> dict[str, tuple[Path, Path]]:
    """Name of a clip → its sound and its frames, for the clips of a split in the order of their names."""
    sounds, pictures = (_files(folder, kinds) for kinds in (SOUNDS, SIGHTS))
    for stem in sorted(sounds.keys() ^ pictures.keys()):
        reason = "there are no frames" if stem in sounds else "there is no sound"
        file = sounds.get(stem) or pictures[stem]
        skipped.append(f"{folder.name}/{file.parent.name}/{file.name}: {reason} of this clip.")
    return {stem: (sounds[stem], pictures[stem]) for stem in sorted(sounds.keys() & pictures.keys())}


def _files(folder: Path, kinds: dict[str, tuple[str, ...]]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for part, suffixes in kinds.items():
        if (folder / part).is_dir():
            with os.scandir(folder / part) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
            for name in sorted(names):
                stem, dot, suffix = name.rpartition(".")
                if dot + suffix.lower() in suffixes:
                    files.setdefault(stem, folder / part / name)
    return files


def _check_rows(folders: Mapping[str, Path], contents: Contents) -> None:
    """Report splits without clips, classes without clips, and videos with clips in both splits."""
    report = contents.report
    for split in SPLITS:
        rows = [row for row in contents.rows if row.split == split]
        if not rows:
            report.errors.append(f"{folders[split]} has no clip for the split {split} with both sound and frames.")
            continue
        counts = np.bincount([row.label for row in rows], minlength=len(contents.class_names))
        missing = [contents.class_names[place] for place in np.flatnonzero(counts == 0)]
        if missing:
            examples = f"{missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
            report.warnings.append(f"No clip of the split {split} is of the class {examples}.")
    train, test = ({row.source for row in contents.rows if row.split == split} for split in SPLITS)
    if train & test:
        report.warnings.append(f"{len(train & test)} videos have clips in both splits, {min(train & test)} among them.")


# ---- raw


def inspect_raw(
    root: Path, *, listing: Path | None = None, classes: str = "", most: int = 0, probe: bool = True
) -> Contents:
    """Find the files of listed clips.

    Args:
        root: folder with the clips.
        listing: the list; None: see `find_lists`.
        classes: classes to keep, see `choose_classes`.
        most: maximum number of clips of each class and split; 0: all.
        probe: read the header of each file, and skip files that cannot be read.
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
    unreadable = _probed(files) if probe else {}
    numbers = {name: number for number, name in enumerate(contents.class_names)}
    # By the names of prepared files, so that a prepared folder and its raw clips give the same rows.
    for clip in sorted(clips, key=lambda clip: clip.name):
        if clip.stem in files and clip.stem not in unreadable:
            path = files[clip.stem]
            contents.rows.append(Row(clip.split, path, path, numbers[clip.label], clip.video))
    for heading, problems in (
        ("lines of the lists are skipped", [f"{where}: {reason}." for where, reason in listed.refused]),
        (f"of {len(clips)} listed clips are missing", [f"{stem}: {reason}." for stem, reason in missing]),
        (f"of {len(clips)} listed clips cannot be read and are skipped", list(unreadable.values())),
    ):
        if problems:
            contents.report.warnings += [f"{len(problems)} {heading}.", *few(problems, str(root))]
    if spare and not classes and not most:
        contents.report.warnings.append(f"{spare} files are in no list.")
    _check_rows(dict.fromkeys(SPLITS, root), contents)
    return contents


def _probed(files: dict[str, Path]) -> dict[str, str]:
    """Stem → problem, of files that are not videos or have no pictures or no sound."""
    from xmodal.data.media.video import look_at

    problems = {}
    for stem, path in sorted(files.items()):
        try:
            look_at(path)
        except InputError as error:
            problems[stem] = " ".join(error.problems)
    return problems

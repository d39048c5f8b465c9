"""Reading the lists of a prepared RAVDESS folder and checking all files that they name.

A folder without pictures is one of sound alone: nothing is asked of the pictures that its lists name, and a line may
leave them out. Names may have folders in front (``Actor_01/x.npy``), which make different clips of equal file names.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmodal.data.columns import read_header
from xmodal.data.ravdess.files import AUDIO, FACTS, FILES, IMAGE, LISTS
from xmodal.data.ravdess.names import EMOTIONS, actor_of, find_pairs
from xmodal.data.report import Report
from xmodal.errors import InputError

# Problems of one kind that are listed; the rest are counted. A missing folder would otherwise print a thousand lines.
NAMED = 3
SUFFIXES = {AUDIO: (".npy",), IMAGE: (".png", ".jpg", ".jpeg")}
# Pillow raises any of these for damaged files, even SyntaxError (for a broken PNG chunk).
DAMAGED = (OSError, ValueError, SyntaxError)


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        name: of the clip: that of its features in the list, with folders and without suffix.
        audio: path of the features.
        image: path of the picture; None in a folder of sound alone.
        label: the emotion, counted from 0.
    """

    name: str
    audio: Path
    image: Path | None
    label: int


@dataclass
class Contents:
    """The contents of a prepared folder; complete if the report holds no error.

    Attributes:
        report: errors and warnings.
        rows: split → its rows.
        headers: split → whether its list begins with a header line.
        audio: shape of the features of a clip.
        image: height and width of the pictures; empty in a folder of sound alone.
    """

    report: Report
    rows: dict[str, list[Row]] = field(default_factory=dict)
    headers: dict[str, bool] = field(default_factory=dict)
    audio: tuple[int, ...] = ()
    image: tuple[int, ...] = ()


def check(root: Path) -> Report | None:
    """Check a prepared folder, including all values and pixels, or a folder of recordings; None if it is neither."""
    if any((root / part).exists() for part in (LISTS, AUDIO, IMAGE)):
        return inspect(root, thorough=True).report
    return _check_recordings(root) if any(root.glob("Actor_*")) else None


def _check_recordings(root: Path) -> Report:
    """Report files that `prepare` would skip because of their names; the media are not opened here."""
    pairs, refused = find_pairs(root, "both")
    problems = [f"{name}: {reason}." for name, reason in refused]
    note = f"{len(pairs)} clips of recordings. Prepare them: xmodal data prepare ravdess {root} ROOT."
    if not pairs:
        pairs, refused = find_pairs(root, "both", sound_alone=True)
        if pairs and not any(root.rglob("*.mp4")):
            note = f"{len(pairs)} clips of sound. Prepare them: xmodal data prepare ravdess {root} ROOT --sound-alone."
            return Report([], [note, *_few([f"{name}: {reason}." for name, reason in refused], str(root))])
        return Report([f"{root} holds no clip with sound and picture.", *_few(problems, str(root))], [])
    return Report([], [note, *_few(problems, str(root))])


def inspect(root: Path, *, header: str = "auto", thorough: bool = False, allow_overlap: bool = False) -> Contents:
    """Read the lists and check every file that they name.

    Args:
        root: the folder.
        header: whether the lists begin with a header line: ``auto`` detects it, ``yes`` and ``no`` set it.
        thorough: read all values and pixels, not only the header of each file.
        allow_overlap: a clip in several lists is a warning and no error.
    """
    contents = Contents(Report())
    report = contents.report
    if sound_alone := not (root / IMAGE).is_dir() and (root / AUDIO).is_dir():
        report.warnings.append(f"There is no folder {IMAGE}: the sound alone is read.")
    for split, name in FILES.items():
        path = root / LISTS / name
        if not path.is_file():
            report.errors.append(
                f"{path} is missing. Expected: {LISTS}/{', '.join(FILES.values())}, {AUDIO}/<name>.npy and "
                f"{IMAGE}/<name>.png or .jpg. An interrupted preparation writes the lists when it is run again."
            )
            continue
        problems: list[str] = []
        contents.rows[split], contents.headers[split] = _read_list(root, path, header, sound_alone, problems)
        report.errors += _few(problems, name)
    _check_splits(contents, allow_overlap)
    _check_files(contents, thorough=thorough)
    # With an unreadable list, every file that it names would be reported as unlisted.
    if not report.errors:
        _check_rest(root, contents)
    return contents


def _few(problems: list[str], where: str) -> list[str]:
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return problems[:NAMED] + more


def _read_list(root: Path, path: Path, header: str, sound_alone: bool, problems: list[str]) -> tuple[list[Row], bool]:
    """The rows of a list, and whether a header line was dropped."""
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark, which would become part of the first file name.
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path.name} is not comma-separated text ({error}).")
        return [], False
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if any(cell.strip() for cell in line)]
    has_header = bool(numbered) and (_is_header(numbered[0][1]) if header == "auto" else header == "yes")
    rows = []
    for number, line in numbered[has_header:]:
        row = _read_row(root, f"{path.name} line {number}", line, sound_alone, problems)
        if row is not None:
            rows.append(row)
    if not rows and not problems:
        problems.append(f"{path.name} lists no samples. Expected lines: audio file, image file, label.")
    return rows, has_header


def _is_header(line: list[str]) -> bool:
    """Whether the cell of the label is not a whole number and the ones before it are not names of data files."""
    # Both conditions: a sample with a broken label must be reported, not dropped as a header.
    suffixes = {suffix for endings in SUFFIXES.values() for suffix in endings}
    # lists of sound alone may have two columns
    *names, label = line[:3]
    return bool(names) and not _is_whole(label) and not any(Path(cell).suffix.lower() in suffixes for cell in names)


def _is_whole(text: str) -> bool:
    # float instead of int: tables written by pandas hold labels such as "3.0".
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _read_row(root: Path, where: str, line: list[str], sound_alone: bool, problems: list[str]) -> Row | None:
    cells = [cell.strip() for cell in line]
    if sound_alone and len(cells) == 2:
        cells.insert(1, "")
    if len(cells) < 3:
        problems.append(f"{where} has {len(cells)} cells: audio file, image file and label were expected.")
        return None
    if not _is_whole(cells[2]) or not 0 <= float(cells[2]) < len(EMOTIONS):
        problems.append(f"{where} has the label '{cells[2]}': 0 to {len(EMOTIONS) - 1} were expected.")
        return None
    # Both before the return, so that a line with two missing files reports both.
    audio = _find(root / AUDIO, cells[0], where, problems)
    image = None if sound_alone else _find(root / IMAGE, cells[1], where, problems)
    if audio is None or (image is None and not sound_alone):
        return None
    clip = audio.relative_to(root / AUDIO).with_suffix("").as_posix()
    return Row(clip, audio, image, int(float(cells[2])))


def _find(folder: Path, name: str, where: str, problems: list[str]) -> Path | None:
    """The file of a name that may come without suffix; None and a problem if it does not exist."""
    # A list from elsewhere must not reach outside its folder; a NUL byte would make is_file() raise.
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        problems.append(f"{where} names '{name}': a file in {folder.name}, without .., was expected.")
        return None
    suffixes = SUFFIXES[folder.name]
    has_suffix = Path(name).suffix.lower() in suffixes
    for path in [folder / name] if has_suffix else [folder / f"{name}{suffix}" for suffix in suffixes]:
        if path.is_file():
            return path
    problems.append(f"{where} names {folder.name}/{name}{'' if has_suffix else suffixes[0]}, which is missing.")
    return None


def _check_splits(contents: Contents, allow_overlap: bool) -> None:
    """Report clips and actors that are in several splits, and classes that a split does not contain."""
    report, duplicates = contents.report, list[str]()
    split_of_clip: dict[str, str] = {}
    splits_of_actor: dict[int, set[str]] = {}
    for split, rows in contents.rows.items():
        for row in rows:
            first_split = split_of_clip.setdefault(row.name, split)
            if first_split != split:
                duplicates.append(f"{row.name} is in {FILES[first_split]} and in {FILES[split]}")
            splits_of_actor.setdefault(actor_of(row.name), set()).add(split)
        if len({row.name for row in rows}) < len(rows):
            report.warnings.append(f"{FILES[split]} lists some clips several times.")
        absent = [name for label, name in enumerate(EMOTIONS) if all(row.label != label for row in rows)]
        if rows and absent:
            report.warnings.append(f"No clip of {FILES[split]} is {', '.join(absent)}.")
    if duplicates and allow_overlap:
        report.warnings.append(
            f"{len(duplicates)} clips are in several lists ({duplicates[0]}): scores on them are too high."
        )
    elif duplicates:
        advice = "keep it in only one, or accept this with --ravdess.allow-overlap."
        report.errors += _few([f"{duplicate}: {advice}" for duplicate in duplicates], "the lists")
    shared = sorted(actor for actor, splits in splits_of_actor.items() if actor and len(splits) > 1)
    if shared:
        report.warnings.append(
            f"{len(shared)} of {len(splits_of_actor.keys() - {0})} actors are in several splits: test scores are "
            "measured on faces and voices that may also occur in training."
        )


def _check_files(contents: Contents, *, thorough: bool) -> None:
    report = contents.report
    every = [row for rows in contents.rows.values() for row in rows]
    whole: list[Path] = []
    contents.audio = _usual_shape(
        {row.audio for row in every}, AUDIO, lambda path: _look_at_audio(path, thorough, whole), report
    )
    pictures = {row.image for row in every if row.image is not None}
    contents.image = _usual_shape(pictures, IMAGE, lambda path: _look_at_image(path, thorough), report)
    if whole:
        report.warnings.append(
            f"{len(whole)} files in {AUDIO} hold integers, {whole[0].name} among them: they are read as float32, and "
            "their values stay as they are."
        )


def _usual_shape(
    paths: set[Path], part: str, look: Callable[[Path], tuple[int, ...]], report: Report
) -> tuple[int, ...]:
    """The shape of the first file; the report gets what is wrong with the others."""
    problems, shapes = [], {}
    for path in sorted(paths):
        try:
            shapes[path] = look(path)
        except InputError as error:
            problems += error.problems
    first, usual = next(iter(shapes.items()), (Path(), ()))
    problems += [
        f"{part}/{path.name} has the shape {shape}, {first.name} has {usual}: the same for all was expected."
        for path, shape in shapes.items()
        if shape != usual
    ]
    report.errors += _few(problems, part)
    return usual


def _look_at_audio(path: Path, thorough: bool, whole: list[Path]) -> tuple[int, ...]:
    """The shape of the features of a clip; a file of integers is added to ``whole``."""
    shape, dtype = read_header(path)
    where = f"{AUDIO}/{path.name}"
    if len(shape) != 2 or not all(shape):
        raise InputError(f"{where} has the shape {shape}: coefficients and frames were expected, as in (40, 256).")
    if dtype.kind not in "fiu":
        raise InputError(f"{where} holds {dtype} numbers: float32 was expected.")
    if dtype.kind in "iu":
        whole.append(path)
    if thorough and not np.isfinite(np.load(path, allow_pickle=False)).all():
        raise InputError(f"{where} holds non-finite values. Compute its features again, or remove the clip.")
    return shape


def _look_at_image(path: Path, thorough: bool) -> tuple[int, ...]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if thorough:
                picture.load()
            return picture.height, picture.width
    except DAMAGED as error:
        raise InputError(f"{IMAGE}/{path.name} cannot be read as a picture ({error}).") from None


def _check_rest(root: Path, contents: Contents) -> None:
    """Warn of files that no list names, and of an interrupted preparation."""
    every = [row for rows in contents.rows.values() for row in rows]
    used: Mapping[str, set[Path | None]] = {AUDIO: {row.audio for row in every}, IMAGE: {row.image for row in every}}
    for part, files in used.items():
        present = {path for path in (root / part).rglob("*") if path.suffix.lower() in SUFFIXES[part]}
        spare = sorted(path.name for path in present - files if not path.name.startswith("."))
        if spare:
            contents.report.warnings.append(f"{len(spare)} files in {part} are in no list, {spare[0]} among them.")
    # `prepare` deletes FACTS first and writes it last, while .prepared exists from the first clip on.
    if (root / ".prepared").is_dir() and not (root / FACTS).exists():
        contents.report.warnings.append(
            f"{FACTS} is missing: the preparation of this folder was interrupted. Run it again."
        )

"""The lists of a prepared RAVDESS folder, and everything that is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmodal.data.columns import read_header
from xmodal.data.ravdess.files import AUDIO, FACTS, FILES, IMAGE, LISTS
from xmodal.data.ravdess.names import EMOTIONS, actor_of, find_pairs
from xmodal.data.report import Report
from xmodal.errors import InputError

NAMED = 3  # problems of one kind that are told one by one; the others are counted
SUFFIXES = {AUDIO: (".npy",), IMAGE: (".png", ".jpg", ".jpeg")}
DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are none of its own


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        audio: file of the features.
        image: file of the picture.
        label: the emotion, from 0.
    """

    audio: Path
    image: Path
    label: int


@dataclass
class Contents:
    """What was found in a folder; complete when the report holds no error.

    Attributes:
        report: errors and warnings.
        rows: split → its rows.
        headers: split → whether its list begins with a header line.
        audio: shape of the features.
        image: height and width of the pictures.
    """

    report: Report
    rows: dict[str, list[Row]] = field(default_factory=dict)
    headers: dict[str, bool] = field(default_factory=dict)
    audio: tuple[int, ...] = ()
    image: tuple[int, ...] = ()


def check(root: Path) -> Report | None:
    """What is wrong with a prepared folder, down to the last number, or with recordings; None if it is neither."""
    if any((root / part).exists() for part in (LISTS, AUDIO, IMAGE)):
        return inspect(root, thorough=True).report
    return _check_recordings(root) if any(root.glob("Actor_*")) else None


def _check_recordings(root: Path) -> Report:
    """What `prepare` would leave out for its name; the files themselves are opened by it."""
    pairs, refused = find_pairs(root, "both")
    problems = [f"{name}: {reason}." for name, reason in refused]
    note = f"{len(pairs)} clips of recordings: xmodal data prepare ravdess {root} ROOT makes them ready."
    if not pairs:
        return Report([f"{root} holds no clip with sound and picture.", *_few(problems, str(root))], [])
    return Report([], [note, *_few(problems, str(root))])


def inspect(root: Path, *, header: str = "auto", thorough: bool = False) -> Contents:
    """Read the lists and look at every file that they name.

    Args:
        root: the folder.
        header: whether the lists begin with a header line: ``auto`` looks, ``yes`` and ``no`` tell.
        thorough: read all numbers and pixels, not just what stands at the beginning of a file.
    """
    contents = Contents(Report())
    report = contents.report
    for split, name in FILES.items():
        path = root / LISTS / name
        if not path.is_file():
            report.errors.append(
                f"{path} is missing. Expected: {LISTS}/{', '.join(FILES.values())}, {AUDIO}/<name>.npy and "
                f"{IMAGE}/<name>.png or .jpg. A preparation that was stopped writes the lists when it is run again."
            )
            continue
        problems: list[str] = []
        contents.rows[split], contents.headers[split] = _read_list(root, path, header, problems)
        report.errors += _few(problems, name)
    _check_splits(contents)
    _check_files(contents, thorough=thorough)
    if not report.errors:
        _check_rest(root, contents)
    return contents


def _few(problems: list[str], where: str) -> list[str]:
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return problems[:NAMED] + more


def _read_list(root: Path, path: Path, header: str, problems: list[str]) -> tuple[list[Row], bool]:
    """The rows of a list and whether a header line was left out."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path.name} is no list of comma-separated text ({error}).")
        return [], False
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if any(cell.strip() for cell in line)]
    begins = bool(numbered) and (_is_header(numbered[0][1]) if header == "auto" else header == "yes")
    rows = []
    for number, line in numbered[begins:]:
        row = _read_row(root, f"{path.name} line {number}", line, problems)
        if row is not None:
            rows.append(row)
    if not rows and not problems:
        problems.append(f"{path.name} names no samples. Expected lines: audio file, image file, label.")
    return rows, begins


def _is_header(line: list[str]) -> bool:
    """Whether the third cell is no number, and the first two are no files."""
    known = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
    return len(line) > 2 and not _is_whole(line[2]) and not any(Path(cell).suffix.lower() in known for cell in line[:2])


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _read_row(root: Path, where: str, line: list[str], problems: list[str]) -> Row | None:
    cells = [cell.strip() for cell in line]
    if len(cells) < 3:
        problems.append(f"{where} has {len(cells)} cells: audio file, image file and label were expected.")
        return None
    if not _is_whole(cells[2]) or not 0 <= float(cells[2]) < len(EMOTIONS):
        problems.append(f"{where} has the label '{cells[2]}': 0 to {len(EMOTIONS) - 1} were expected.")
        return None
    found = [_find(root / part, name, where, problems) for part, name in zip((AUDIO, IMAGE), cells, strict=False)]
    audio, image = found
    return None if audio is None or image is None else Row(audio, image, int(float(cells[2])))


def _find(folder: Path, name: str, where: str, problems: list[str]) -> Path | None:
    """The file of a name, which may lack its suffix."""
    if not name or Path(name).name != name or "\0" in name:
        problems.append(f"{where} names '{name}': a file in {folder.name}, without folders, was expected.")
        return None
    suffixes = SUFFIXES[folder.name]
    known = Path(name).suffix.lower() in suffixes
    for path in [folder / name] if known else [folder / f"{name}{suffix}" for suffix in suffixes]:
        if path.is_file():
            return path
    problems.append(f"{where} names {folder.name}/{name}{'' if known else suffixes[0]}, which is missing.")
    return None


def _check_splits(contents: Contents) -> None:
    """Clips and actors that are in several splits, classes that are in none."""
    report, twice = contents.report, list[str]()
    seen: dict[str, str] = {}
    people: dict[int, set[str]] = {}
    for split, rows in contents.rows.items():
        for row in rows:
            before = seen.setdefault(row.audio.name, split)
            if before != split:
                twice.append(f"{row.audio.name} is in {FILES[before]} and in {FILES[split]}: one of them was expected.")
            people.setdefault(actor_of(row.audio.stem), set()).add(split)
        if len({row.audio.name for row in rows}) < len(rows):
            report.warnings.append(f"{FILES[split]} names some clips several times.")
        absent = [name for label, name in enumerate(EMOTIONS) if all(row.label != label for row in rows)]
        if rows and absent:
            report.warnings.append(f"No clip of {FILES[split]} is {', '.join(absent)}.")
    report.errors += _few(twice, "the lists")
    shared = sorted(actor for actor, splits in people.items() if actor and len(splits) > 1)
    if shared:
        report.warnings.append(
            f"{len(shared)} of {len(people.keys() - {0})} actors are in several splits: test figures are about known "
            "faces and voices."
        )


def _check_files(contents: Contents, *, thorough: bool) -> None:
    report = contents.report
    every = [row for rows in contents.rows.values() for row in rows]
    for paths, look, part in (
        ({row.audio for row in every}, _look_at_audio, AUDIO),
        ({row.image for row in every}, _look_at_image, IMAGE),
    ):
        problems, shapes = [], {}
        for path in sorted(paths):
            try:
                shapes[path] = look(path, thorough)
            except InputError as error:
                problems += error.problems
        first, usual = next(iter(shapes.items()), (Path(), ()))
        problems += [
            f"{part}/{path.name} has the shape {shape}, {first.name} has {usual}: one for all was expected."
            for path, shape in shapes.items()
            if shape != usual
        ]
        report.errors += _few(problems, part)
        if part == AUDIO:
            contents.audio = usual
        else:
            contents.image = usual


def _look_at_audio(path: Path, thorough: bool) -> tuple[int, ...]:
    shape, dtype = read_header(path)
    where = f"{AUDIO}/{path.name}"
    if len(shape) != 2 or not all(shape):
        raise InputError(f"{where} has the shape {shape}: coefficients and frames were expected, as in (40, 256).")
    if dtype.kind != "f":
        raise InputError(f"{where} holds {dtype} numbers: float32 was expected.")
    if thorough and not np.isfinite(np.load(path, allow_pickle=False)).all():
        raise InputError(f"{where} holds numbers that are not finite.")
    return shape


def _look_at_image(path: Path, thorough: bool) -> tuple[int, ...]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if thorough:
                picture.load()
            return picture.height, picture.width
    except DAMAGED as error:
        raise InputError(f"{IMAGE}/{path.name} is no picture that can be read ({error}).") from None


def _check_rest(root: Path, contents: Contents) -> None:
    """Files that no list names."""
    every = [row for rows in contents.rows.values() for row in rows]
    used: Mapping[str, set[Path]] = {AUDIO: {row.audio for row in every}, IMAGE: {row.image for row in every}}
    for part, files in used.items():
        there = {path for path in (root / part).iterdir() if path.suffix.lower() in SUFFIXES[part]}
        spare = sorted(path.name for path in there - files if not path.name.startswith("."))
        if spare:
            contents.report.warnings.append(f"{len(spare)} files in {part} are in no list, {spare[0]} among them.")
    if (root / ".prepared").is_dir() and not (root / FACTS).exists():
        contents.report.warnings.append(
            f"{FACTS} is missing: the preparation of this folder was stopped. Run it again."
        )

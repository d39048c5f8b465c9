"""The lists of VGGSound: parsing them, choosing classes, and matching lines to files.

| list | line | split |
|---|---|---|
| vggsound.csv | video id, start second, label, split | the fourth cell |
| train.csv, test.csv | <video id>_<start second, six digits>.mp4, label | the name of the list |

A label that contains a comma is quoted; a header line and lines that begin with # are skipped. A clip is a file
<video id>_<start second, six digits>.mp4, in the given folder or any subfolder.

Chen et al.: VGGSound: a large-scale audio-visual dataset, ICASSP 2020, arXiv 2004.14368.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xmodal.errors import InputError, did_you_mean

SPLITS = ("train", "test")
LISTS = ("vggsound.csv", *(f"{split}.csv" for split in SPLITS))
# Containers that download tools write. If a clip exists in several, the first of this list is used.
SUFFIXES = (".mp4", ".mkv", ".webm", ".m4v", ".mov")
# The id of a video at YouTube. It may contain - and _, so that file names cannot be split at every _.
ID = r"[0-9A-Za-z_-]{11}"
# Names of columns in header lines, in lower case.
COLUMNS = {
    *("id", "video", "video id", "youtube id", "ytid", "youtube", "file", "filename", "file name", "name", "path"),
    *("start", "start second", "start seconds", "start time", "second", "seconds", "time", "label", "labels", "class"),
    *("class name", "category", "split", "set", "subset", "train test split", "train test"),
}
FORMS = "video id, start second, label and split, or file name and label, were expected; labels with a comma are quoted"


@dataclass(frozen=True, order=True)
class Clip:
    """A line of a list.

    Attributes:
        video: id at YouTube, 11 characters.
        start: second of the video at which the clip begins.
        label: the class name.
        split: ``train`` or ``test``.
    """

    video: str
    start: int
    label: str
    split: str

    @property
    def stem(self) -> str:
        """Name of the raw file, without suffix."""
        return f"{self.video}_{self.start:06d}"

    @property
    def name(self) -> str:
        """Name of the prepared files: the class is the second to last part, where the authors' code reads it.

        Example:
            >>> Clip("---g-f_I2yQ", 1, "people marching", "test").name
            '---g-f_I2yQ_people-marching_000001'
        """
        return f"{self.video}_{token_of(self.label)}_{self.start:06d}"


@dataclass
class Listing:
    """The contents of one or more lists.

    Attributes:
        clips: the clips, in the order of the lists.
        refused: (where, reason) of the lines that cannot be used.
    """

    clips: list[Clip] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def token_of(label: str) -> str:
    """A label as a word without underscores, since the authors' code splits file names at underscores.

    Example:
        >>> token_of("bee, wasp, etc. buzzing"), token_of("police car (siren)")
        ('bee-wasp-etc-buzzing', 'police-car-siren')
    """
    return re.sub(r"[^0-9A-Za-z]+", "-", label).strip("-")


def find_lists(raw: Path, listing: Path | None = None) -> list[Path]:
    """The lists to read: ``listing``; vggsound.csv; train.csv and test.csv; or the only .csv of the folder."""
    if listing is not None:
        if not listing.is_file():
            raise InputError(f"The list {listing} is not a file. Name a .csv: {FORMS}.")
        return [listing]
    if (raw / LISTS[0]).is_file():
        return [raw / LISTS[0]]
    parts = [raw / name for name in LISTS[1:] if (raw / name).is_file()]
    if parts:
        return parts
    candidates = sorted(raw.glob("*.csv"))
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates[:3]) or "none"
        raise InputError(f"{raw} holds no {', '.join(LISTS[:2])} or {LISTS[2]} (.csv files: {names}). Name the list.")
    return candidates


def read_lists(paths: Sequence[Path]) -> Listing:
    """The clips of some lists; of a clip that is listed twice, the first line counts."""
    listing, first_of = Listing(), dict[str, Clip]()
    for path in paths:
        splits = [split for split in SPLITS if split in path.stem.lower()]
        lines = _lines(path)
        for number, line in lines[bool(lines) and _is_header(lines[0][1]) :]:
            where = f"{path.name} line {number}"
            try:
                clip = parse(_cells(line), splits[0] if len(splits) == 1 else "")
            except ValueError as error:
                listing.refused.append((where, f"{error}"))
                continue
            first = first_of.setdefault(clip.stem, clip)
            if first is clip:
                listing.clips.append(clip)
            else:
                listing.refused.append((where, _duplicate(first, clip)))
    if not listing.clips:
        names = ", ".join(path.name for path in paths)
        example = "".join(f" {where}: {reason}." for where, reason in listing.refused[:1])
        raise InputError(f"{names}: no line names a clip. {FORMS.capitalize()}.{example}")
    return listing


def _duplicate(first: Clip, other: Clip) -> str:
    differences = [
        f", as {name} '{getattr(first, name)}'"
        for name in ("label", "split")
        if getattr(first, name) != getattr(other, name)
    ]
    return f"{other.stem} is listed before{''.join(differences)}"


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines that are neither empty nor comments."""
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark, which would become part of the first video id.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not comma-separated text ({error}).") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    # Not splitlines(), which also splits at control characters inside of labels and shifts the line numbers.
    lines = enumerate((line.strip() for line in text.split("\n")), start=1)
    return [(number, line) for number, line in lines if line.strip(", ") and not line.lstrip('"').startswith("#")]


def _cells(line: str) -> list[str]:
    """The cells of a line. Raises a ``ValueError`` if its quotes are unbalanced."""
    # Line by line and strict: over a whole file, a stray quote would swallow all lines up to the next quote.
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except csv.Error as error:
        raise ValueError(f"its quotes are unbalanced ({error}): {FORMS}") from None


def _is_header(line: str) -> bool:
    """Whether every cell is the name of a column; a malformed first line must be reported, not taken for a header."""
    words = [re.sub(r"[^a-z]+", " ", cell.lower()).strip() for cell in line.split(",")]
    return len(words) > 1 and COLUMNS.issuperset(words)


def parse(cells: Sequence[str], split: str = "") -> Clip:
    """The clip of a line. Raises a ``ValueError`` if the line is malformed.

    Args:
        cells: the cells of the line.
        split: the split of a line of two cells, which does not contain it.

    Example:
        >>> parse(["glLQrEijrKg_000300.mp4", "playing hammond organ"], "test")
        Clip(video='glLQrEijrKg', start=300, label='playing hammond organ', split='test')
    """
    if len(cells) == 4:
        video, start, label, split = cells
    elif len(cells) == 2:
        video, _, start = Path(cells[0]).stem.rpartition("_")
        label = cells[1]
        if not split:
            raise ValueError("the split is not known: a list of file names was expected to be called train or test")
    else:
        raise ValueError(f"it has {len(cells)} cells: {FORMS}")
    if not re.fullmatch(ID, video):
        raise ValueError(f"the video id is '{video}': 11 letters, digits, - and _ were expected")
    # Some tools write the column of seconds as floats: 49.0 is accepted, 49.5 is not.
    second = re.fullmatch(r"([0-9]{1,6})(?:\.0*)?", start)
    if not second:
        raise ValueError(f"the start is '{start}': whole seconds were expected")
    if not token_of(label):
        raise ValueError("it has no label" if not label else f"the label is '{label}': a word was expected")
    if split not in SPLITS:
        raise ValueError(f"the split is '{split}': train or test was expected")
    return Clip(video, int(second[1]), label, split)


def choose_classes(labels: Iterable[str], classes: str = "") -> list[str]:
    """The class names in alphabetical order, which is the order of the class indices.

    Args:
        labels: the labels of all clips.
        classes: a file with a class name at the beginning of each line, such as stat.csv; a number, to take the first
            in alphabetical order; or empty, to take all.
    """
    names = sorted(set(labels))
    if not classes:
        return names
    if classes.isdecimal():
        if not 2 <= int(classes) <= len(names):
            raise InputError(
                f"classes is {classes}: 2 to {len(names)} were expected, the number of classes in the lists."
            )
        return names[: int(classes)]
    if not Path(classes).is_file():
        raise InputError(f"classes is '{classes}': a number, or a file with a class on each line, was expected.")
    chosen = _names(Path(classes))
    unknown = [name for name in chosen if name not in set(names)]
    if unknown:
        more = f" {len(unknown) - 1} more names are in no list either." if len(unknown) > 1 else ""
        raise InputError(f"{classes}: no clip has the label '{unknown[0]}'. {did_you_mean(unknown[0], names)}{more}")
    if len(chosen) < 2:
        raise InputError(f"{classes} names {len(chosen)} classes: two or more were expected.")
    return sorted(chosen)


def _names(path: Path) -> dict[str, None]:
    """The first cells of all lines, in their order and without repetitions."""
    names, problems = dict[str, None](), []
    for number, line in _lines(path):
        try:
            names.setdefault(_cells(line)[0])
        except ValueError as error:
            problems.append(f"{path.name} line {number}: {error}.")
    if problems:
        raise InputError(problems)
    return {name: None for name in names if name}


def of_classes(clips: Sequence[Clip], classes: Sequence[str], most: int = 0) -> list[Clip]:
    """The clips of the given classes; the first ``most`` of each class and split, or all if it is 0."""
    chosen, counts, kept = set(classes), dict[tuple[str, str], int](), []
    for clip in clips:
        if clip.label in chosen:
            key = (clip.label, clip.split)
            counts[key] = counts.get(key, 0) + 1
            if not most or counts[key] <= most:
                kept.append(clip)
    return kept


def refuse_alike(classes: Sequence[str]) -> None:
    """Raise an `InputError` if two class names have the same `token_of`."""
    tokens: dict[str, str] = {}
    for name in classes:
        other = tokens.setdefault(token_of(name), name)
        if other != name:
            raise InputError(f"The classes '{other}' and '{name}' would both be called {token_of(name)}. Rename one.")


def match_files(raw: Path, clips: Iterable[Clip]) -> tuple[dict[str, Path], list[tuple[str, str]], int]:
    """Stem → file of the clips that exist, (name, reason) of missing clips, and the number of files without a clip."""
    files: dict[str, Path] = {}
    media = [path for path in raw.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    for path in sorted(media, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
        files.setdefault(path.stem, path)
    stems = {clip.stem for clip in clips}
    missing = [(stem, f"there is no {stem}.mp4") for stem in sorted(stems - files.keys())]
    return {stem: files[stem] for stem in stems & files.keys()}, missing, len(files.keys() - stems)

"""The lists of VGGSound, which classes of them to take, and which file belongs to which line.

| list | line | split |
|---|---|---|
| vggsound.csv | video id, start second, label, split | as it says |
| train.csv, test.csv | <video id>_<start second, six digits>.mp4, label | the name of the list |

A label that contains a comma is quoted; lines that begin with # and a header line are left out. A clip is a file
<video id>_<start second, six digits>.mp4, in any folder below the one that is given.

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
SUFFIXES = (".mp4", ".mkv", ".webm", ".m4v", ".mov")
ID = r"[0-9A-Za-z_-]{11}"
COLUMNS = {  # of header lines, in small letters
    *("id", "video", "video id", "youtube id", "ytid", "youtube", "file", "filename", "file name", "name", "path"),
    *("start", "start second", "start seconds", "start time", "second", "seconds", "time", "label", "labels", "class"),
    *("class name", "category", "split", "set", "subset", "train test split", "train test"),
}
FORMS = "video id, start second, label and split, or file name and label, were expected; labels with a comma are quoted"


@dataclass(frozen=True, order=True)
class Clip:
    """One line of a list.

    Attributes:
        video: id at YouTube, 11 characters.
        start: second of the video at which the clip begins.
        label: what is heard and seen.
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
        """Name of the prepared files: the class is the last part but one, as the authors' code expects it.

        Example:
            >>> Clip("---g-f_I2yQ", 1, "people marching", "test").name
            '---g-f_I2yQ_people-marching_000001'
        """
        return f"{self.video}_{token_of(self.label)}_{self.start:06d}"


@dataclass
class Listing:
    """What lists say.

    Attributes:
        clips: in the order of the lists.
        refused: (where, reason) of the lines that can't be used.
    """

    clips: list[Clip] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def token_of(label: str) -> str:
    """A label as one word without underscores.

    Example:
        >>> token_of("bee, wasp, etc. buzzing"), token_of("police car (siren)")
        ('bee-wasp-etc-buzzing', 'police-car-siren')
    """
    return re.sub(r"[^0-9A-Za-z]+", "-", label).strip("-")


def find_lists(raw: Path, listing: Path | None = None) -> list[Path]:
    """The lists of a folder: the one that is named, vggsound.csv, train.csv and test.csv, or the only .csv there is."""
    if listing is not None:
        if not listing.is_file():
            raise InputError(f"The list {listing} is no file: a .csv with {FORMS}.")
        return [listing]
    if (raw / LISTS[0]).is_file():
        return [raw / LISTS[0]]
    parts = [raw / name for name in LISTS[1:] if (raw / name).is_file()]
    if parts:
        return parts
    every = sorted(raw.glob("*.csv"))
    if len(every) != 1:
        found = ", ".join(path.name for path in every[:3]) or "none"
        raise InputError(f"{raw} holds no {', '.join(LISTS[:2])} or {LISTS[2]} (.csv files: {found}). Name the list.")
    return every


def read_lists(paths: Sequence[Path]) -> Listing:
    """The clips of some lists; a clip that is listed twice is taken as its first line says."""
    found, seen = Listing(), dict[str, Clip]()
    for path in paths:
        named = [split for split in SPLITS if split in path.stem.lower()]
        lines = _lines(path)
        for number, line in lines[bool(lines) and _is_header(lines[0][1]) :]:
            where = f"{path.name} line {number}"
            try:
                clip = parse(_cells(line), named[0] if len(named) == 1 else "")
            except ValueError as error:
                found.refused.append((where, f"{error}"))
                continue
            before = seen.setdefault(clip.stem, clip)
            if before is clip:
                found.clips.append(clip)
            else:
                found.refused.append((where, _twice(before, clip)))
    if not found.clips:
        names, first = ", ".join(path.name for path in paths), found.refused[:1]
        told = f" {first[0][0]}: {first[0][1]}." if first else ""
        raise InputError(f"{names}: no line names a clip. {FORMS.capitalize()}.{told}")
    return found


def _twice(before: Clip, clip: Clip) -> str:
    other = [f"as {kind} '{one}'" for kind, one, two in _facts(before, clip) if one != two]
    return f"{clip.stem} is listed before{f', {chr(44).join(other)}' if other else ''}"


def _facts(one: Clip, two: Clip) -> tuple[tuple[str, str, str], ...]:
    return (("label", one.label, two.label), ("split", one.split, two.split))


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines that are neither empty, nor comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no list of comma-separated text ({error}).") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    lines = enumerate((line.strip() for line in text.split("\n")), start=1)
    return [(number, line) for number, line in lines if line.strip(", ") and not line.lstrip('"').startswith("#")]


def _cells(line: str) -> list[str]:
    """The cells of a line; a ``ValueError`` where it ends inside of one, which would take the next lines with it."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except csv.Error as error:
        raise ValueError(f"its quotes or commas can't be told apart ({error}): {FORMS}") from None


def _is_header(line: str) -> bool:
    """Whether every cell is the name of a column."""
    words = [re.sub(r"[^a-z]+", " ", cell.lower()).strip() for cell in line.split(",")]
    return len(words) > 1 and COLUMNS.issuperset(words)


def parse(cells: Sequence[str], split: str = "") -> Clip:
    """The clip of a line; a ``ValueError`` says what is wrong with it.

    Args:
        cells: of the line.
        split: of lines that don't say it.

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
    second = re.fullmatch(r"([0-9]{1,6})(?:\.0*)?", start)
    if not second:
        raise ValueError(f"the start is '{start}': whole seconds were expected")
    if not token_of(label):
        raise ValueError("it has no label" if not label else f"the label is '{label}': a word was expected")
    if split not in SPLITS:
        raise ValueError(f"the split is '{split}': train or test was expected")
    return Clip(video, int(second[1]), label, split)


def choose_classes(labels: Iterable[str], classes: str = "") -> list[str]:
    """Class names in their order, which numbers them.

    Args:
        labels: those of all clips.
        classes: a file with a name at the beginning of each line (stat.csv, for one); how many, in the order of their
            names; or empty, all.
    """
    known = sorted(set(labels))
    if not classes:
        return known
    if classes.isdecimal():
        if not 2 <= int(classes) <= len(known):
            raise InputError(
                f"{classes} classes were asked for: 2 to {len(known)}, which the lists have, were expected."
            )
        return known[: int(classes)]
    if not Path(classes).is_file():
        raise InputError(f"classes is '{classes}': a number, or a file with a class on each line, was expected.")
    wanted = _names(Path(classes))
    unknown = [name for name in wanted if name not in set(known)]
    if unknown:
        more = f" {len(unknown) - 1} more names are in no list either." if len(unknown) > 1 else ""
        raise InputError(f"{classes}: no clip has the label '{unknown[0]}'. {did_you_mean(unknown[0], known)}{more}")
    if len(wanted) < 2:
        raise InputError(f"{classes} names {len(wanted)} classes: two or more were expected.")
    return sorted(wanted)


def _names(path: Path) -> dict[str, None]:
    """What stands at the beginning of each line, once and in their order."""
    found, problems = dict[str, None](), []
    for number, line in _lines(path):
        try:
            found.setdefault(_cells(line)[0])
        except ValueError as error:
            problems.append(f"{path.name} line {number}: {error}.")
    if problems:
        raise InputError(problems)
    return {name: None for name in found if name}


def of_classes(clips: Sequence[Clip], classes: Sequence[str], most: int = 0) -> list[Clip]:
    """The clips of some classes; ``most`` of each class and split, 0: all."""
    wanted, counts, found = set(classes), dict[tuple[str, str], int](), []
    for clip in clips:
        if clip.label in wanted:
            key = (clip.label, clip.split)
            counts[key] = counts.get(key, 0) + 1
            if not most or counts[key] <= most:
                found.append(clip)
    return found


def refuse_alike(classes: Sequence[str]) -> None:
    """Raise an `InputError` where two class names would be one in file names."""
    tokens: dict[str, str] = {}
    for name in classes:
        other = tokens.setdefault(token_of(name), name)
        if other != name:
            raise InputError(f"The classes '{other}' and '{name}' would both be called {token_of(name)}. Rename one.")


def match_files(raw: Path, clips: Iterable[Clip]) -> tuple[dict[str, Path], list[tuple[str, str]], int]:
    """Stem → file of the clips that are there, (name, reason) of the others, and how many files no clip asks for."""
    files: dict[str, Path] = {}
    here = [path for path in raw.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    for path in sorted(here, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
        files.setdefault(path.stem, path)
    wanted = {clip.stem for clip in clips}
    missing = [(stem, f"there is no {stem}.mp4") for stem in sorted(wanted - files.keys())]
    return {stem: files[stem] for stem in wanted & files.keys()}, missing, len(files.keys() - wanted)

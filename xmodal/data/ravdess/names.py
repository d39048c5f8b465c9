"""What the file names of RAVDESS say, and which files of a folder belong to one clip.

03-01-06-01-02-01-12.wav is modality - vocal channel - emotion - intensity - statement - repetition - actor:

| field | values |
|---|---|
| modality | 01 sound and picture (mp4), 02 picture alone (mp4), 03 sound alone (wav) |
| vocal channel | 01 speech, 02 song |
| emotion | 01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgust, 08 surprised |
| intensity | 01 normal, 02 strong; neutral is never strong |
| statement | 01 "Kids are talking by the door", 02 "Dogs are sitting by the door" |
| repetition | 01, 02 |
| actor | 01 to 24; odd numbers are men, even ones women |

Files of one clip share all fields but the first. Livingstone and Russo: The Ryerson Audio-Visual Database of Emotional
Speech and Song, PLoS ONE 2018, doi 10.1371/journal.pone.0196391.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ACTORS = 24
VOCAL = ("speech", "song")
LARGEST = {
    "modality": 3,
    "vocal channel": 2,
    "emotion": 8,
    "intensity": 2,
    "statement": 2,
    "repetition": 2,
    "actor": ACTORS,
}


@dataclass(frozen=True, order=True)
class Clip:
    """One recording, whatever it was recorded with.

    Attributes:
        vocal: 1 speech, 2 song.
        emotion: 1 to 8.
        intensity: 1 normal, 2 strong.
        statement: 1 or 2.
        repetition: 1 or 2.
        actor: 1 to 24.
    """

    vocal: int
    emotion: int
    intensity: int
    statement: int
    repetition: int
    actor: int

    @property
    def name(self) -> str:
        """The six shared fields as they are written in file names."""
        fields = (self.vocal, self.emotion, self.intensity, self.statement, self.repetition, self.actor)
        return "-".join(f"{field:02d}" for field in fields)

    @property
    def label(self) -> int:
        """The emotion, counted from 0."""
        return self.emotion - 1


@dataclass(frozen=True)
class Pair:
    """A clip with its files.

    Attributes:
        clip: what the names say.
        sound: the wav file.
        picture: the mp4 file; the one with sound where there are both.
    """

    clip: Clip
    sound: Path
    picture: Path


def parse(name: str) -> tuple[int, Clip]:
    """Modality and clip of a file name without suffix; a ``ValueError`` says what is wrong with it.

    Example:
        >>> parse("03-01-06-01-02-01-12")
        (3, Clip(vocal=1, emotion=6, intensity=1, statement=2, repetition=1, actor=12))
    """
    fields = name.split("-")
    if len(fields) != len(LARGEST) or not all(re.fullmatch("[0-9]{2}", field) for field in fields):
        raise ValueError("the name was expected to have seven fields of two digits, as in 03-01-06-01-02-01-12")
    numbers = [int(field) for field in fields]
    for (what, largest), number in zip(LARGEST.items(), numbers, strict=True):
        if not 1 <= number <= largest:
            raise ValueError(f"the {what} is {number:02d}: 01 to {largest:02d} were expected")
    modality, clip = numbers[0], Clip(*numbers[1:])
    if clip.emotion == 1 and clip.intensity == 2:
        raise ValueError("the emotion is 01 and the intensity is 02: there is no strong neutral")
    return modality, clip


def actor_of(name: str) -> int:
    """The actor in the name of a clip or file, 0 where it has another form.

    Example:
        >>> actor_of("01-06-01-02-01-12"), actor_of("03-01-06-01-02-01-07"), actor_of("speech")
        (12, 7, 0)
    """
    found = re.fullmatch(r"(?:[0-9]{2}-){5,6}([0-9]{2})", name)
    return int(found[1]) if found else 0


def find_pairs(raw: Path, vocal: str = "speech") -> tuple[list[Pair], list[tuple[str, str]]]:
    """The clips of which there are sound and pictures, wherever they lie in a folder; and (name, reason) of the rest.

    Args:
        raw: searched with all of its folders.
        vocal: ``speech``, ``song`` or ``both``; the others are no problem, and left out.
    """
    paths = (path for path in raw.rglob("*") if path.suffix.lower() in (".wav", ".mp4"))
    return pair_files((path for path in paths if not path.name.startswith(".")), vocal)


def pair_files(paths: Iterable[Path], vocal: str = "speech") -> tuple[list[Pair], list[tuple[str, str]]]:
    """`find_pairs` for files that were found already."""
    files: dict[Clip, dict[int, Path]] = {}
    problems: list[tuple[str, str]] = []
    for path in sorted(paths):
        try:
            modality, clip = parse(path.stem)
            if (modality == 3) != (path.suffix.lower() == ".wav"):
                raise ValueError("files of modality 03 were expected to be wav, those of 01 and 02 mp4")
        except ValueError as error:
            problems.append((path.name, f"{error}"))
            continue
        if vocal in ("both", VOCAL[clip.vocal - 1]):
            there = files.setdefault(clip, {})
            if modality in there:
                problems.append((path.name, f"there is another file of this name, {there[modality]}, which is used"))
            there.setdefault(modality, path)
    pairs = []
    for clip, there in sorted(files.items()):
        picture = there.get(1, there.get(2))
        if picture is not None and 3 in there:
            pairs.append(Pair(clip, there[3], picture))
        else:
            lacks = f"no 03-{clip.name}.wav" if picture else f"no 01-{clip.name}.mp4 and no 02-{clip.name}.mp4"
            problems.append((clip.name, f"unpaired: there is {lacks}"))
    return pairs, sorted(problems)

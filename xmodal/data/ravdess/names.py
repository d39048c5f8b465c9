"""File names of RAVDESS: parsing them, and pairing the sound and the video of each clip.

03-01-06-01-02-01-12.wav is modality - vocal channel - emotion - intensity - statement - repetition - actor:

| field | values |
|---|---|
| modality | 01 video with sound (mp4), 02 video without sound (mp4), 03 sound only (wav) |
| vocal channel | 01 speech, 02 song |
| emotion | 01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgust, 08 surprised |
| intensity | 01 normal, 02 strong; neutral has no strong version |
| statement | 01 "Kids are talking by the door", 02 "Dogs are sitting by the door" |
| repetition | 01, 02 |
| actor | 01 to 24; odd numbers are men, even numbers women |

Files of the same clip share all fields but the first.

Livingstone and Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS ONE 2018,
doi 10.1371/journal.pone.0196391.
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
    """A clip of the archive: the six fields that its sound and video files share.

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
        """The six shared fields, written as in file names."""
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
        clip: the fields in the file names.
        sound: the wav file.
        picture: the mp4 file; if both exist, the one with a sound track; None: of sound alone.
    """

    clip: Clip
    sound: Path
    picture: Path | None


def parse(name: str) -> tuple[int, Clip]:
    """Modality and clip of a file name without suffix. Raises a ``ValueError`` if the name is malformed.

    Example:
        >>> parse("03-01-06-01-02-01-12")
        (3, Clip(vocal=1, emotion=6, intensity=1, statement=2, repetition=1, actor=12))
    """
    fields = name.split("-")
    # [0-9] and not \d, which also matches digits of other scripts; int() would read them.
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
    """The actor in the name of a clip or file, or of a folder in front of it; 0 if neither is named as in the archive.

    Example:
        >>> actor_of("01-06-01-02-01-12"), actor_of("03-01-06-01-02-01-07"), actor_of("Actor_04/speech"), actor_of("x")
        (12, 7, 4, 0)
    """
    *folders, file = name.split("/")
    matches = [re.fullmatch(r"(?:[0-9]{2}-){5,6}([0-9]{2})", file)]
    matches += [re.fullmatch(r"Actor_([0-9]{2})", folder) for folder in reversed(folders)]
    return next((int(match[1]) for match in matches if match), 0)


def find_pairs(
    raw: Path, vocal: str = "speech", *, sound_alone: bool = False
) -> tuple[list[Pair], list[tuple[str, str]]]:
    """Clips that have both sound and video anywhere below a folder, and (name, reason) for every unusable file.

    Args:
        raw: folder, searched recursively.
        vocal: ``speech``, ``song`` or ``both``; clips of the other vocal channel are skipped without a report.
        sound_alone: the sound of every clip, whether or not there is a video of it.
    """
    # Archives that were packed on macOS hold a "._" twin of every file, with the same suffix and no media inside.
    paths = (path for path in raw.rglob("*") if path.suffix.lower() in (".wav", ".mp4"))
    visible = (path for path in paths if not path.name.startswith("."))
    return pair_files(visible, vocal, sound_alone=sound_alone)


def pair_files(
    paths: Iterable[Path], vocal: str = "speech", *, sound_alone: bool = False
) -> tuple[list[Pair], list[tuple[str, str]]]:
    """`find_pairs` for a given list of files."""
    files: dict[Clip, dict[int, Path]] = {}
    problems: list[tuple[str, str]] = []
    # The order of rglob depends on the file system; sorted, the same duplicate is used everywhere.
    for path in sorted(paths):
        try:
            modality, clip = parse(path.stem)
            if (modality == 3) != (path.suffix.lower() == ".wav"):
                raise ValueError("files of modality 03 were expected to be wav, those of 01 and 02 mp4")
        except ValueError as error:
            problems.append((path.name, f"{error}"))
            continue
        if vocal in ("both", VOCAL[clip.vocal - 1]):
            recorded = files.setdefault(clip, {})
            if modality in recorded:
                problems.append((path.name, f"there is another file of this name, {recorded[modality]}, which is used"))
            recorded.setdefault(modality, path)
    pairs = []
    for clip, recorded in sorted(files.items()):
        # The same video with (01) and without (02) a sound track: either has the frames.
        picture = recorded.get(1, recorded.get(2))
        if sound_alone and 3 in recorded:
            pairs.append(Pair(clip, recorded[3], None))
        elif sound_alone:
            problems.append((clip.name, f"there is no 03-{clip.name}.wav"))
        elif picture is not None and 3 in recorded:
            pairs.append(Pair(clip, recorded[3], picture))
        else:
            missing = f"no 03-{clip.name}.wav" if picture else f"no 01-{clip.name}.mp4 and no 02-{clip.name}.mp4"
            problems.append((clip.name, f"unpaired: there is {missing}"))
    return pairs, sorted(problems)

"""Clips in the form of VGGSound that nobody filmed: tones and noises, balls and stripes, and cues with a known truth.

A class is a few bits. As in `data.ravdess.synthetic`, each is the sign of a sum of decisive features, of three kinds:
what sound and picture both show (z⁰), what the sound alone shows (zᵃ) and what the picture alone shows (zᵛ):

    bit_s = [w⁰ z⁰_s > 0],  s = 1 … S,      last bit = [w (zᵃ + zᵛ / 2) > 0],         z ~ N(0, 1), all independent

    shown in the sound     w⁰ z⁰ / 2 + σ ε,   w zᵃ + σ ε
    shown in the picture   w⁰ z⁰ + σ ε,       w zᵛ / 2 + σ ε                          ε ~ N(0, 1), each its own

| symbol | argument | meaning |
|---|---|---|
| 2^(S + 1) | ``classes`` | how many: 4 or 8 |
| w⁰ | ``shared`` | strength of what both show; 0: neither shows anything of the other, nor of the first S bits |
| w | ``specific`` | strength of what one of them shows |
| σ | ``noise`` | deviation of what is shown from what decides |

A teacher that hears uses both kinds: zᵃ decides its last bit (right in 85 % of the clips without noise) and z⁰ the
others. A student that sees can learn those from it. The last one it can't: whoever knows zᵃ knows nothing of zᵛ. By
counts α = β = 1 / (S + 1) and γ = S / (S + 2); without shared cues γ = 0. Every clip of every class shows features of
all kinds, and they are independent of one another: else their being there would be shared information. Clips are drawn
with their class given: where the sign of a sum is wrong, its features change sign.

A feature is shown by a balance, so that nothing else about a clip tells it. In the sound, z⁰ is the loudness of one
tone against another (of different pitch, with their harmonics), zᵃ that of one hiss against another (which lie at
different frequencies, and come and go at different rates). In the picture, z⁰ is the size of one ball against that of
another (of different colours), zᵛ the contrast of stripes in one direction against those in another. How balls move
and stripes drift, and all phases, are drawn for each clip.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.prepare import in_processes
from xmodal.data.vggsound.files import ClipSettings, prepare
from xmodal.data.vggsound.lists import LISTS, SPLITS, Clip
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json, write_text, written_whole

CLASSES = (
    "bird chirping, tweeting",
    "church bell ringing",
    "dog barking",
    "engine accelerating, revving, vroom",
    "fire crackling",
    "goose honking",
    "hammering nails",
    "ice cracking",
)
NUMBERS = (4, 8)  # of classes
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
RATE = 44_100
FULL = 1.5  # a feature of this size is shown as far as can be
LOUD = 24.0  # decibels between the smallest and the largest feature
PITCHES = (220.0, 1400.0)  # hertz, of the first and the last tone
RATES, BANDS = (3.0, 9.0), (3200.0, 5600.0)  # hertz: how often the first and the last hiss come, and where they lie
CONTRAST = 16.0  # of the stripes, in steps of grey
FAINT = 0.5  # what is shown of zᵛ, and of z⁰ in the sound
Cues = dict[str, NDArray[np.float64]]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Design:
    """The numbers of the equation above, and of the clips.

    Attributes:
        classes: how many.
        shared: w⁰.
        specific: w.
        noise: σ.
        seconds: length of a clip.
        size: of the picture's sides.
        seed: of everything.
    """

    classes: int
    shared: float
    specific: float
    noise: float
    seconds: float
    size: int
    seed: int

    @property
    def bits(self) -> int:
        """S, those that shared features decide; there is one more."""
        return self.classes.bit_length() - 2


def make(
    root: str | Path,
    *,
    format: str = "raw",
    seed: int = 0,
    classes: int = 4,
    clips: int = 20,
    test_clips: int = 8,
    seconds: float = 2.0,
    size: int = 64,
    shared: float = 1.5,
    specific: float = 1.5,
    noise: float = 0.2,
    workers: int = 0,
) -> Path:
    """Write clips with their list, vggsound.csv, and the truth about them as truth.json.

    Args:
        root: a folder that is empty or does not exist.
        format: raw, the clips; prepared: sound and frames of them as well, 8 of half the size.
        seed: of everything.
        classes: how many, 4 or 8.
        clips: of each class for training.
        test_clips: of each class for testing.
        seconds: length of a clip.
        size: of the picture's sides, an even number of pixels.
        shared: strength of the cues that sound and picture both show; 0: none.
        specific: strength of the cues that one of them shows.
        noise: deviation of a cue as it is shown.
        workers: processes; 0: this one.
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    root, raw = Path(root), Path(root) / "raw" if format == "prepared" else Path(root)
    _refuse(root, format, classes=classes, clips=clips, test_clips=test_clips, seconds=seconds, size=size)
    for package in (soundfile_module, av_module):
        package()
    design = Design(classes, shared, specific, noise, seconds, size, seed)
    listed = list_clips(design, {"train": clips, "test": test_clips})
    cues = {
        clip.stem: found
        for (clip, *_), found in in_processes(write_synthetic_clip, [(*c, raw, design) for c in listed], workers)
    }
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(
        (clip.video, clip.start, clip.label, clip.split) for clip, _ in listed
    )
    write_text(raw / LISTS[0], written.getvalue())
    write_json(
        raw / "truth.json",
        {
            "weights": {"shared": shared, "specific": specific, "noise": noise},
            "decisive": {
                "shared": design.bits * (shared > 0),
                "audio": int(specific > 0),
                "video": int(specific > 0),
            },
            "classes": list(CLASSES[:classes]),
            "cues": {name: cues[name] for name in sorted(cues)},
        },
    )
    if format == "prepared":
        prepare(raw, root, workers=workers, settings=ClipSettings(seconds=seconds, frames=8, size=size // 2))
    return root


def _refuse(root: Path, format: str, *, size: int, seconds: float, **counts: int) -> None:
    problems = []
    if format not in ("raw", "prepared"):
        problems.append(f"There is no format '{format}'. {did_you_mean(format, ('raw', 'prepared'))}")
    limits: dict[str, tuple[float, float, float]] = {
        "clips": (counts["clips"], 2, 10_000),
        "test_clips": (counts["test_clips"], 1, 10_000),
        "seconds": (seconds, 1.0, 60),
        "size": (size, 32, 512),
    }
    for what, (value, least, most) in limits.items():
        if not least <= value <= most:
            problems.append(f"{what} is {value}: {least} to {most} were expected.")
    if counts["classes"] not in NUMBERS:
        problems.append(f"classes is {counts['classes']}: {' or '.join(map(str, NUMBERS))} were expected.")
    if size % 2:
        problems.append(f"size is {size}: an even number was expected.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} is there already: an empty or new folder was expected. Choose another one.")
    if problems:
        raise InputError(problems)


def list_clips(design: Design, counts: dict[str, int]) -> list[tuple[Clip, int]]:
    """So many clips of each split and class, with a number each: names that nobody has given before."""
    random = np.random.default_rng([design.seed, 1])
    wanted = [(split, name) for split in SPLITS for name in CLASSES[: design.classes] for _ in range(counts[split])]
    found = []
    for number, (split, name) in enumerate(wanted):
        video = "".join(LETTERS[random.integers(len(LETTERS), size=11)])
        found.append((Clip(video, int(random.integers(600)), name, split), number))
    return found


def write_synthetic_clip(job: tuple[Clip, int, Path, Design]) -> dict[str, list[float]]:
    """Write a clip; its features, as they decide."""
    from xmodal.data.media.sound import Sound
    from xmodal.data.media.video import write_clip

    clip, number, raw, design = job
    random = np.random.default_rng([design.seed, 2, number])
    cues = draw_cues(CLASSES.index(clip.label), design, random)
    heard, seen = (
        {kind: scale * cues[kind] + design.noise * random.normal(size=len(cues[kind])) for kind, scale in parts}
        for parts in ((("shared", FAINT), ("audio", 1.0)), (("shared", 1.0), ("video", 1.0)))
    )
    waveform = sound_of(heard, design.seconds, random)
    with written_whole(raw / f"{clip.stem}.mp4") as beside:
        write_clip(beside, frames_of(seen, design, random), Sound(waveform, RATE))
    return {kind: [float(value) for value in values] for kind, values in cues.items()}


def draw_cues(label: int, design: Design, random: np.random.Generator) -> Cues:
    """What decides a class, times its weight: (S,) shared, (1,) audio, (1,) video."""
    signs = np.array([1 if label >> place & 1 else -1 for place in range(design.bits, -1, -1)])
    shared = signs[:-1] * np.abs(random.normal(size=design.bits))
    own = np.array([1.0, FAINT]) * random.normal(size=2)
    own *= signs[-1] * (1 if own.sum() > 0 else -1)
    return {"shared": design.shared * shared, "audio": design.specific * own[:1], "video": design.specific * own[1:]}


def _shown(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two signs of each feature, from -1 to 1: as one grows the other shrinks."""
    found = np.clip(cues / FULL, -1.0, 1.0)
    return np.concatenate([found, -found])


def sound_of(cues: Cues, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a clip, (samples,)."""
    samples = round(seconds * RATE)
    time = np.arange(samples) / RATE
    total = 0.01 * random.normal(size=samples)
    tones, hisses = _shown(cues["shared"]), _shown(cues["audio"])
    for pitch, loud in zip(np.geomspace(*PITCHES, len(tones)).tolist(), tones, strict=True):
        turns = pitch * random.uniform(0.98, 1.02) * time + random.uniform()
        total += 10 ** (LOUD / 40 * loud) * _tone(turns, pitch)
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 1.0)
    each = np.geomspace(*RATES, len(hisses)), np.geomspace(*BANDS, len(hisses))
    for rate, band, loud in zip(*each, hisses, strict=True):
        shape = np.exp(-((np.log2(frequency / band) / 0.2) ** 2))
        hiss = np.fft.irfft(np.fft.rfft(random.normal(size=samples)) * shape, samples)
        beat = np.sin(np.pi * (rate * time + random.uniform())) ** 4
        total += 10 ** (LOUD / 40 * loud) * hiss / hiss.std() * beat
    return np.asarray(0.5 * 10 ** (random.uniform(-9, 0) / 20) * total / np.abs(total).max(), np.float32)


def _tone(turns: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """A tone with all harmonics below 2.4 kHz; ``turns`` counts its periods."""
    harmonics = np.arange(1, max(2, int(2400 / pitch)) + 1)
    points = 8192
    period = np.sin(2 * np.pi * harmonics[:, None] * np.arange(points + 1) / points).sum(axis=0)
    found: NDArray[np.float64] = np.interp(turns % 1.0, np.linspace(0, 1, points + 1), period)
    found *= np.sqrt(2 / len(harmonics))
    return found


def frames_of(cues: Cues, design: Design, random: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a clip."""
    from xmodal.data.media.video import FRAME_RATE

    sizes, clear = _shown(cues["shared"]), _shown(cues["video"])
    size, count, ways = design.size, len(sizes), len(clear)
    side = int(np.ceil(np.sqrt(count)))
    cell = size / side
    places = np.stack(np.divmod(random.permutation(side * side)[:count], side), axis=1) * cell + cell / 2
    radius = cell * (0.28 + 0.22 * sizes)
    phase, speed = random.uniform(0, 2 * np.pi, (2, count)), random.uniform(0.4, 1.2, (2, count))
    contrast = CONTRAST * (1 + 0.9 * clear)
    drift, start = random.uniform(-1, 1, ways), random.uniform(0, 2 * np.pi, ways)
    y, x = np.mgrid[:size, :size] / size
    angle = np.pi / 4 + np.pi * np.arange(ways)[:, None, None] / ways
    waves = 2 * np.pi * 8 * (np.cos(angle) * x + np.sin(angle) * y)
    stripes = np.concatenate([np.sin(waves), np.cos(waves)])
    colours = _colours(count)
    for number in range(round(design.seconds * FRAME_RATE)):
        now = number / float(FRAME_RATE)
        turn = start + 2 * np.pi * drift * now
        weights = np.concatenate([contrast * np.cos(turn), contrast * np.sin(turn)])  # of sin(waves + turn)
        picture = 110 + np.tensordot(weights, stripes, axes=1)[..., None].repeat(3, axis=2)
        for which in range(count):
            moved = places[which] + 0.1 * cell * np.sin(2 * np.pi * speed[:, which] * now + phase[:, which])
            distance = np.hypot(y * size - moved[0], x * size - moved[1])
            cover = np.clip(radius[which] + 0.5 - distance, 0, 1)[..., None]
            picture += cover * (colours[which] - picture)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _colours(count: int) -> NDArray[np.float64]:
    """So many colours, evenly around the circle of hues."""
    hue = np.arange(count)[:, None] / count + np.array([0, 1 / 3, 2 / 3])
    found: NDArray[Any] = 255 * np.clip(2 * np.abs(2 * (hue % 1) - 1) - 0.5, 0, 1)
    return found

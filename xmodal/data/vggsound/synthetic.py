"""Synthetic clips in the format of VGGSound: tones and noise, balls and stripes, and features that are known exactly.

A class is a few bits. As in `data.ravdess.synthetic`, each bit is the sign of a sum of decisive features, of three
kinds: those in both sound and picture (z⁰), in the sound only (zᵃ) and in the picture only (zᵛ):

    bit_s = [w⁰ z⁰_s > 0],  s = 1 … S,      last bit = [w (zᵃ + zᵛ / 2) > 0],         z ~ N(0, 1), all independent

    shown in the sound     w⁰ z⁰ / 2 + σ ε,   w zᵃ + σ ε
    shown in the picture   w⁰ z⁰ + σ ε,       w zᵛ / 2 + σ ε                          ε ~ N(0, 1), all independent

| symbol | argument | meaning |
|---|---|---|
| 2^(S + 1) | ``classes`` | number of classes: 4 or 8 |
| w⁰ | ``shared`` | strength of the features of both modalities; 0: no shared information, first S bits invisible |
| w | ``specific`` | strength of the features of a single modality |
| σ | ``noise`` | standard deviation of the noise between decisive and shown features |

An audio teacher uses both kinds: it predicts the last bit from zᵃ (right for 85 % of the clips without noise) and the
others from z⁰. A video student can learn these others from it. It cannot learn the last bit, because zᵃ says nothing
about zᵛ. By counts α = β = 1 / (S + 1) and γ = S / (S + 2); without shared features γ = 0. Every clip of every class
shows features of all kinds, and they are independent of each other: otherwise the presence of a kind would itself be
shared information. Clips are drawn given their class: if the sign of a sum does not match the bit, its features change
sign.

A feature is shown as a balance between two signals, so that nothing else in a clip depends on it. In the sound, z⁰ is
the loudness of one tone against another (different pitches, with harmonics), zᵃ that of one hiss against another (in
different bands, with different rates of repetition). In the picture, z⁰ is the size of one ball against another (of
different colours), zᵛ the contrast of stripes in one direction against stripes in another. The movement of balls and
stripes, and all phases, are drawn for each clip.
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
# Two or three bits: with a single bit nothing would be shared, and for four bits the eight names do not suffice.
NUMBERS = (4, 8)
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
RATE = 44_100
# Features are clipped to ± FULL before they are shown.
FULL = 1.5
# Level between the smallest and the largest feature, in decibels.
LOUD = 24.0
# First and last pitch of the tones, in hertz. Their harmonics end at 2.8 kHz, below the bands of the hisses.
PITCHES = (220.0, 1400.0)
# Rates at which the first and the last hiss repeat, and the centres of their bands, in hertz; all below 8 kHz, where
# sound at 16 kHz ends.
RATES, BANDS = (3.0, 9.0), (3200.0, 5600.0)
# Mean contrast of the stripes, in grey levels.
CONTRAST = 16.0
# The factor 1/2 of the equations above: of z⁰ in the sound, and of zᵛ.
FAINT = 0.5
Cues = dict[str, NDArray[np.float64]]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Design:
    """The parameters of the equations above, and of the clips.

    Attributes:
        classes: number of classes.
        shared: w⁰.
        specific: w.
        noise: σ.
        seconds: length of a clip.
        size: width and height of the picture.
        seed: seed of all random draws.
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
        """S, the number of bits that shared features decide; specific features decide one more."""
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
    """Write clips, their list vggsound.csv, and their decisive features as truth.json.

    Args:
        root: a folder that is empty or does not exist.
        format: raw: clips only; prepared: also their sound, and 8 frames of half the size.
        seed: seed of all random draws.
        classes: number of classes, 4 or 8.
        clips: training clips of each class.
        test_clips: test clips of each class.
        seconds: length of a clip.
        size: width and height of the picture, an even number of pixels.
        shared: strength of the features that both sound and picture show; 0: none.
        specific: strength of the features that only one modality shows.
        noise: standard deviation of the noise on a feature as it is shown.
        workers: worker processes; 0: work in this process.
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    root, raw = Path(root), Path(root) / "raw" if format == "prepared" else Path(root)
    _refuse(root, format, classes=classes, clips=clips, test_clips=test_clips, seconds=seconds, size=size)
    # A missing package must stop here, with one message, and not in the middle of the work.
    for package in (soundfile_module, av_module):
        package()
    design = Design(classes, shared, specific, noise, seconds, size, seed)
    listed = list_clips(design, {"train": clips, "test": test_clips})
    jobs = [(clip, number, raw, design) for clip, number in listed]
    cues = {clip.stem: drawn for (clip, *_), drawn in in_processes(write_synthetic_clip, jobs, workers)}
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        (clip.video, clip.start, clip.label, clip.split) for clip, _ in listed
    )
    write_text(raw / LISTS[0], buffer.getvalue())
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
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            problems.append(f"{name} is {value}: {least} to {most} were expected.")
    if counts["classes"] not in NUMBERS:
        problems.append(f"classes is {counts['classes']}: {' or '.join(map(str, NUMBERS))} were expected.")
    if size % 2:
        problems.append(f"size is {size}: an even number was expected.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    if problems:
        raise InputError(problems)


def list_clips(design: Design, counts: dict[str, int]) -> list[tuple[Clip, int]]:
    """The given number of clips of each split and class, each with a running number; their video ids are random."""
    random = np.random.default_rng([design.seed, 1])
    planned = [(split, name) for split in SPLITS for name in CLASSES[: design.classes] for _ in range(counts[split])]
    clips = []
    for number, (split, name) in enumerate(planned):
        video = "".join(LETTERS[random.integers(len(LETTERS), size=11)])
        clips.append((Clip(video, int(random.integers(600)), name, split), number))
    return clips


def write_synthetic_clip(job: tuple[Clip, int, Path, Design]) -> dict[str, list[float]]:
    """Write a clip and return its decisive features."""
    from xmodal.data.media.sound import Sound
    from xmodal.data.media.video import write_clip

    clip, number, raw, design = job
    # Seeded by the clip, not by a shared generator: the files do not depend on the number of workers.
    random = np.random.default_rng([design.seed, 2, number])
    cues = draw_cues(CLASSES.index(clip.label), design, random)
    sound_cues, video_cues = (
        {kind: scale * cues[kind] + design.noise * random.normal(size=len(cues[kind])) for kind, scale in parts}
        for parts in ((("shared", FAINT), ("audio", 1.0)), (("shared", 1.0), ("video", 1.0)))
    )
    waveform = sound_of(sound_cues, design.seconds, random)
    with written_whole(raw / f"{clip.stem}.mp4") as partial:
        write_clip(partial, frames_of(video_cues, design, random), Sound(waveform, RATE))
    return {kind: [float(value) for value in values] for kind, values in cues.items()}


def draw_cues(label: int, design: Design, random: np.random.Generator) -> Cues:
    """The decisive features of a class, times their weights: (S,) shared, (1,) audio, (1,) video."""
    signs = np.array([1 if label >> bit & 1 else -1 for bit in range(design.bits, -1, -1)])
    shared = signs[:-1] * np.abs(random.normal(size=design.bits))
    specific = np.array([1.0, FAINT]) * random.normal(size=2)
    specific *= signs[-1] * (1 if specific.sum() > 0 else -1)
    audio, video = design.specific * specific[:1], design.specific * specific[1:]
    return {"shared": design.shared * shared, "audio": audio, "video": video}


def _shown(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each feature and its negative, from -1 to 1: the levels of the two signals whose balance shows it."""
    features = np.clip(cues / FULL, -1.0, 1.0)
    return np.concatenate([features, -features])


def sound_of(cues: Cues, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a clip, (samples,)."""
    samples = round(seconds * RATE)
    time = np.arange(samples) / RATE
    total = 0.01 * random.normal(size=samples)
    tones, hisses = _shown(cues["shared"]), _shown(cues["audio"])
    for pitch, loud in zip(np.geomspace(*PITCHES, len(tones)).tolist(), tones, strict=True):
        turns = pitch * random.uniform(0.98, 1.02) * time + random.uniform()
        total += 10 ** (LOUD / 40 * loud) * _tone(turns, pitch)
    # At least 1 Hz: the logarithm below is taken of every frequency, also of 0.
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 1.0)
    each = np.geomspace(*RATES, len(hisses)), np.geomspace(*BANDS, len(hisses))
    for rate, band, loud in zip(*each, hisses, strict=True):
        shape = np.exp(-((np.log2(frequency / band) / 0.2) ** 2))
        hiss = np.fft.irfft(np.fft.rfft(random.normal(size=samples)) * shape, samples)
        beat = np.sin(np.pi * (rate * time + random.uniform())) ** 4
        total += 10 ** (LOUD / 40 * loud) * hiss / hiss.std() * beat
    # A random overall level, so that only the balance between tones carries information, not the loudness.
    return np.asarray(0.5 * 10 ** (random.uniform(-9, 0) / 20) * total / np.abs(total).max(), np.float32)


def _tone(turns: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """A tone with its harmonics up to 2.4 kHz, at least two; ``turns`` counts its periods."""
    harmonics = np.arange(1, max(2, int(2400 / pitch)) + 1)
    points = 8192
    period = np.sin(2 * np.pi * harmonics[:, None] * np.arange(points + 1) / points).sum(axis=0)
    samples: NDArray[np.float64] = np.interp(turns % 1.0, np.linspace(0, 1, points + 1), period)
    samples *= np.sqrt(2 / len(harmonics))
    return samples


def frames_of(cues: Cues, design: Design, random: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a clip: stripes in the background, balls in front."""
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
    # sin(waves + turn) = cos(turn) sin(waves) + sin(turn) cos(waves): the sines of the picture are computed only once.
    stripes = np.concatenate([np.sin(waves), np.cos(waves)])
    colours = _colours(count)
    for number in range(round(design.seconds * FRAME_RATE)):
        now = number / float(FRAME_RATE)
        turn = start + 2 * np.pi * drift * now
        weights = np.concatenate([contrast * np.cos(turn), contrast * np.sin(turn)])
        picture = 110 + np.tensordot(weights, stripes, axes=1)[..., None].repeat(3, axis=2)
        for which in range(count):
            moved = places[which] + 0.1 * cell * np.sin(2 * np.pi * speed[:, which] * now + phase[:, which])
            distance = np.hypot(y * size - moved[0], x * size - moved[1])
            # Half a pixel more, and clipped: an edge that is one pixel soft instead of jagged.
            cover = np.clip(radius[which] + 0.5 - distance, 0, 1)[..., None]
            picture += cover * (colours[which] - picture)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _colours(count: int) -> NDArray[np.float64]:
    """The given number of colours, evenly spaced in hue."""
    hue = np.arange(count)[:, None] / count + np.array([0, 1 / 3, 2 / 3])
    colours: NDArray[Any] = 255 * np.clip(2 * np.abs(2 * (hue % 1) - 1) - 0.5, 0, 1)
    return colours

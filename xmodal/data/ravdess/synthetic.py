"""Synthetic recordings in the format of RAVDESS: tones for voices, drawn faces, and features that are known exactly.

An emotion from 0 to 7 has three bits. As in the Gaussian pairs, each bit is the sign of a sum of decisive features, of
three kinds: two in both sound and picture (z⁰), one in the sound only (zᵃ) and one in the picture only (zᵛ):

    bit₁ = [w⁰ z⁰₁ > 0],  bit₂ = [w⁰ z⁰₂ > 0],  bit₃ = [w (zᵃ + zᵛ / 2) > 0],      z ~ N(0, 1), all independent

    shown in the sound     w⁰ z⁰ / 2 + σ ε,   w zᵃ + σ ε
    shown in the picture   w⁰ z⁰ + σ ε,       w zᵛ / 2 + σ ε                       ε ~ N(0, 1), all independent

| symbol | argument | meaning |
|---|---|---|
| w⁰ | ``shared`` | strength of the features of both modalities; 0: no shared information, first two bits invisible |
| w | ``specific`` | strength of the features of a single modality |
| σ | ``noise`` | standard deviation of the noise between decisive and shown features |

An audio teacher needs both kinds: it predicts the third bit from zᵃ (right for 85 % of the clips without noise) and the
first two from z⁰. An image student can learn the first two bits from it. It cannot learn the third, because zᵃ says
nothing about zᵛ. By counts α = β = 1/3 and γ = 1/2; without shared features γ = 0. The kinds are independent over the
clips of all emotions, and they have to be. Suppose that the specific features decided only between certain emotions:
their presence in the sound would reveal that a clip has one of these emotions, and so would their presence in the
picture. That would be shared information.

Two properties let Algorithm 1 separate the kinds. They decide different bits, so they move the logits in different
directions and a network has a reason to keep them in different channels; a sum of both, as in the linear study, would
be a single channel. And the shared features are strong in the picture and weak in the sound: a channel gets a high
saliency if the student's outputs follow it at least as much as the teacher's.

A clip has six syllables. In each, the share of bright tones in the voice (2.5 kHz against 0.5 kHz) shows one feature,
in the order z⁰₁, z⁰₂, zᵃ, twice. In the picture z⁰₁ bends the mouth and colours the cheeks, z⁰₂ raises brows, lids and
hands, and zᵛ is the brightness of the background. Actors differ in pitch, loudness, skin, hair and position; the
statement changes the melody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.prepare import in_processes
from xmodal.data.ravdess.files import FeatureSettings, prepare
from xmodal.data.ravdess.names import ACTORS, EMOTIONS, Clip
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json, written_whole

# Sampling rate of the archive's wav files.
RATE = 48_000
# A tenth of the archive's 720 x 1280 pixels.
HEIGHT, WIDTH = 72, 128
# Pillow draws without smoothing: faces are drawn at this multiple of the size and averaged down.
LARGER = 3
# Features are clipped to ± FULL before they are shown.
FULL = 2.5
# Level of bright over dark tones for a feature of size FULL, in decibels.
BRIGHT = 28.0
# The factor 1/2 of the equations above: of z⁰ in the sound, and of zᵛ.
FAINT = 0.5
SMALL = FeatureSettings(hop=1024, frames=32, height=16, width=32)
Cues = dict[str, NDArray[np.float64]]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Design:
    """The parameters of the equations above.

    Attributes:
        shared: w⁰.
        specific: w.
        noise: σ.
        seconds: length of a clip, within 10 %.
        seed: seed of all random draws.
    """

    shared: float
    specific: float
    noise: float
    seconds: float
    seed: int


def make(
    root: str | Path,
    *,
    format: str = "raw",
    seed: int = 0,
    actors: int = ACTORS,
    clips: int = 2,
    seconds: float = 1.2,
    shared: float = 1.0,
    specific: float = 1.0,
    noise: float = 0.2,
    workers: int = 0,
) -> Path:
    """Write wav and mp4 files as in RAVDESS, and the decisive features of every clip as ``truth.json``.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``: recordings only; ``prepared``: also small features (40x32) and pictures (16x32) of them.
        seed: seed of all random draws.
        actors: number of actors, 3 to 24.
        clips: clips of each actor and emotion, 1 to 4.
        seconds: length of a clip, within 10 %.
        shared: strength of the features that both sound and picture show; 0: none.
        specific: strength of the features that only one modality shows.
        noise: standard deviation of the noise on a feature as it is shown.
        workers: worker processes; 0: work in this process.
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    root, raw = Path(root), Path(root) / "raw" if format == "prepared" else Path(root)
    _refuse(root, format, actors=actors, clips=clips, seconds=seconds)
    # A missing package must stop here, with one message, and not in the middle of the work.
    for package in (soundfile_module, av_module):
        package()
    design = Design(shared, specific, noise, seconds, seed)
    jobs = [(clip, raw, design) for clip in list_clips(actors, clips)]
    cues = {clip.name: cues for (clip, _, _), cues in in_processes(write_recording, jobs, workers)}
    write_json(
        raw / "truth.json",
        {
            "weights": {"shared": shared, "specific": specific, "noise": noise},
            "decisive": {"shared": 2 * (shared > 0), "audio": int(specific > 0), "image": int(specific > 0)},
            "cues": {name: cues[name] for name in sorted(cues)},
        },
    )
    if format == "prepared":
        prepare(raw, root, workers=workers, seed=seed, settings=SMALL)
    return root


def _refuse(root: Path, format: str, *, actors: int, clips: int, seconds: float) -> None:
    problems = []
    if format not in ("raw", "prepared"):
        problems.append(f"There is no format '{format}'. {did_you_mean(format, ('raw', 'prepared'))}")
    for name, value, least, most in (
        ("actors", actors, 3, ACTORS),
        ("clips", clips, 1, 4),
        ("seconds", seconds, 0.6, 60),
    ):
        if not least <= value <= most:
            problems.append(f"{name} is {value}: {least} to {most} were expected.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    if problems:
        raise InputError(problems)


def list_clips(actors: int, clips: int) -> list[Clip]:
    """The given number of clips of each actor and emotion; all of them exist in the archive too."""
    return [
        Clip(1, emotion, intensity, statement, repetition, actor)
        for actor in range(1, actors + 1)
        for emotion in range(1, len(EMOTIONS) + 1)
        for intensity, repetition, statement in itertools.islice(
            itertools.product((1,) if emotion == 1 else (1, 2), (1, 2), (1, 2)), clips
        )
    ]


def write_recording(job: tuple[Clip, Path, Design]) -> dict[str, list[float]]:
    """Write the wav and the mp4 file of a clip and return its decisive features."""
    from xmodal.data.media.sound import Sound, soundfile_module
    from xmodal.data.media.video import write_clip

    clip, raw, design = job
    # Seeded by the clip, not by a shared generator: the files do not depend on workers or on which clips are written.
    random = np.random.default_rng([design.seed, clip.actor, *(int(part) for part in clip.name.split("-"))])
    cues = draw_cues(clip.label, design, random)
    sound_cues, image_cues = (show(cues, kind, design, random) for kind in ("audio", "image"))
    seconds = design.seconds * random.uniform(0.9, 1.1)
    waveform = speak(clip, sound_cues, seconds, random)
    folder = raw / f"Actor_{clip.actor:02d}"
    with written_whole(folder / f"03-{clip.name}.wav") as partial:
        soundfile_module().write(partial, waveform, RATE, subtype="PCM_16")
    with written_whole(folder / f"01-{clip.name}.mp4") as partial:
        write_clip(partial, act(clip, image_cues, seconds, random), Sound(waveform, RATE))
    return {kind: [float(value) for value in values] for kind, values in cues.items()}


def draw_cues(label: int, design: Design, random: np.random.Generator) -> Cues:
    """The decisive features of an emotion, times their weights: (2,) shared, (1,) audio, (1,) image.

    They are drawn given the emotion: if the sign of a sum does not match the bit, its features change sign.
    """
    signs = np.array([1 if label >> bit & 1 else -1 for bit in (2, 1, 0)])
    shared = signs[:2] * np.abs(random.normal(size=2))
    specific = np.array([1.0, FAINT]) * random.normal(size=2)
    specific *= signs[2] * (1 if specific.sum() > 0 else -1)
    return {
        "shared": design.shared * shared,
        "audio": design.specific * specific[:1],
        "image": design.specific * specific[1:],
    }


def show(cues: Cues, modality: str, design: Design, random: np.random.Generator) -> NDArray[np.float64]:
    """The three features that a modality shows, with noise, scaled to [-1, 1]."""
    shared = cues["shared"] * (FAINT if modality == "audio" else 1.0)
    shown = np.concatenate([shared, cues[modality]]) + design.noise * random.normal(size=3)
    return np.clip(shown / FULL, -1.0, 1.0)


def speak(clip: Clip, shown: NDArray[np.float64], seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a clip, (samples,)."""
    # Not seeded by design.seed: an actor keeps voice and face in every data set, as a person does.
    of_actor = np.random.default_rng([clip.actor, 1])
    pitch = (115.0 if clip.actor % 2 else 205.0) * of_actor.uniform(0.88, 1.14)
    time = np.arange(round(seconds * RATE)) / RATE
    place = 6 * time / seconds
    syllable = np.minimum(place.astype(int), 5)
    melody = 1 + 0.06 * np.cos(np.pi * place * (0.5 if clip.statement == 1 else 1.0))
    turns = np.cumsum(pitch * melody) / RATE
    dark, bright = (_tones(turns, pitch, centre) for centre in (500.0, 2500.0))
    gain = 10 ** (BRIGHT / 40 * np.tile(shown, 2))[syllable]
    envelope = 0.1 + 0.9 * np.sin(np.pi * (place - syllable)) ** 2
    voice = envelope * (dark / gain + bright * gain)
    voice *= 0.25 * 10 ** (of_actor.uniform(-3, 3) / 20) / np.abs(voice).max()
    return np.asarray(voice + 0.002 * random.normal(size=len(time)), np.float32)


def _tones(turns: NDArray[np.float64], pitch: float, centre: float) -> NDArray[np.float64]:
    """A voice whose harmonics are centred at a frequency; ``turns`` counts the periods of its pitch."""
    harmonic = np.arange(1, int(7000 / pitch))
    strength = np.exp(-((np.log2(pitch * harmonic / centre)) ** 2) / (2 * 0.5**2))
    points = 8192
    spectrum = np.zeros(points // 2 + 1, complex)
    spectrum[harmonic] = -0.5j * points * strength / np.sqrt((strength**2).sum())
    # Σ strength · sin(2π harmonic · t) over a whole period by one inverse FFT, instead of a sum of sines per sample.
    period = np.fft.irfft(spectrum)
    samples: NDArray[np.float64] = np.interp(turns % 1.0, np.linspace(0, 1, points + 1), np.append(period, period[0]))
    return samples


def act(clip: Clip, shown: NDArray[np.float64], seconds: float, random: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a clip: a neutral face that moves to its expression, holds it, and moves back."""
    from xmodal.data.media.video import FRAME_RATE

    count = round(seconds * FRAME_RATE)
    steps = [draw_face(clip.actor, *(share * shown)) for share in (0.0, 0.5, 1.0)]
    for number in range(count):
        share = (number + 0.5) / count
        step = 2 if 0.25 < share < 0.75 else 1 if 0.12 < share < 0.88 else 0
        sway = round(1.5 * np.sin(2 * np.pi * share + clip.actor))
        noise = random.integers(-6, 7, (HEIGHT // 4, WIDTH // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
        yield np.clip(np.roll(steps[step], sway, axis=1).astype(int) + noise, 0, 255).astype(np.uint8)


def draw_face(actor: int, mood: float, alarm: float, light: float) -> Pixels:
    """A face of (72, 128, 3) pixels; the three features are from -1 to 1."""
    from PIL import Image, ImageDraw

    of_actor = np.random.default_rng([actor, 2])
    size = LARGER
    skin = np.array([235, 195, 165]) * of_actor.uniform(0.55, 1.0)
    wall = 120 + 50 * light + of_actor.uniform(-8, 8, 3)
    picture = Image.new("RGB", (WIDTH * size, HEIGHT * size), _colour(wall))
    draw = ImageDraw.Draw(picture)
    x, y = 64 + of_actor.uniform(-3, 3), 36 + of_actor.uniform(-1.5, 1.5)
    scale = of_actor.uniform(0.95, 1.05) * size

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * size + scale * a, y * size + scale * b) for a, b in points]

    draw.ellipse(at((-31, -38), (31, 20)), fill=_colour(np.array([70, 50, 40]) * of_actor.uniform(0.3, 1.6)))  # hair
    draw.ellipse(at((-28, -31), (28, 36)), fill=_colour(skin))
    for side in (-1, 1):
        up = 30 - 28 * alarm
        draw.ellipse(at((47 * side - 12, up), (47 * side + 12, up + 60)), fill=_colour(0.95 * skin))
    cheek = np.clip(skin + np.array([25, -60, -60]) * mood, 0, 255)
    for side in (-1, 1):
        draw.ellipse(at((17 * side - 10, 2), (17 * side + 10, 19)), fill=_colour(cheek))
        opening = 4.5 + 3.5 * alarm
        draw.ellipse(at((12 * side - 7, -7 - opening), (12 * side + 7, -7 + opening)), fill=(245, 245, 245))
        pupil = min(3.2, opening)
        draw.ellipse(at((12 * side - 3.2, -7 - pupil), (12 * side + 3.2, -7 + pupil)), fill=(25, 25, 25))
        inner, outer = -19 - 5 * alarm, -19 + 5 * alarm
        draw.line(at((4 * side, inner), (21 * side, outer)), fill=(30, 20, 15), width=3 * size)
    across = np.linspace(-1, 1, 13)
    bend = [(15 * place, 22 + 8 * mood * (0.5 - place**2)) for place in across.tolist()]
    draw.line(at(*bend), fill=(150, 30, 40), width=4 * size, joint="curve")
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.uint8)


def _colour(values: NDArray[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue

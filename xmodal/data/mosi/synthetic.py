r"""A made trimodal set in the layout of MOSI: one score seen three times, clearly in one modality, faintly in two.

Per modality m there are directions $u_m, v_m$ and three nuisance directions $W_m$, all N(0, 1) / √width. A sample has a
score s = clip(1.4 N(0, 1), -3, 3), rounded to 0.2; a length ℓ, uniform from half of the steps to all of them; an
envelope $\eta_t = 0.5 + 0.5 |N(0, 1)|$; and three nuisance factors g ~ N(0, 1):

$$x_m[t] = \eta_t (s u_m + 0.5 (|s| - 1) v_m) + \sigma_m g W_m + \sigma_m N(0, I), \qquad 0 for t ≥ ℓ$$

σ is ``sigma`` in the dominant modality and ``other_sigma`` in the others; training labels are s + N(0, ``noise``²)
clipped to ±3, all others s itself. Score, length and nuisance factors are common to the modalities of a sample, and so
is the envelope of those with equal numbers of steps. All of it is drawn from one ``numpy.random.RandomState(seed)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xmodal.names import SPLITS

MODALITIES = ("text", "vision", "audio")
NAMED = 10  # clips of one video, in the ids
Floats = NDArray[np.float64]
Count = Annotated[int, Field(ge=1)]


class MadeSettings(BaseModel):
    """Options of the made set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dominant: Literal["text", "audio", "vision"] = Field(
        "text", description="the modality that shows the score clearly"
    )
    unaligned: bool = Field(
        False, description="vision has twice as many steps as text, and audio one and a half times as many"
    )
    noise: float = Field(0.0, ge=0, description="standard deviation of the noise on training labels")
    sigma: float = Field(0.6, ge=0, description="strength of noise and nuisance in the dominant modality")
    other_sigma: float = Field(2.2, ge=0, description="strength of noise and nuisance in the other modalities")
    samples: tuple[Count, Count, Count] = Field(
        (256, 96, 192), description="number of samples for training, validation and testing"
    )
    steps: int = Field(20, ge=1, description="number of steps of text; of all modalities if they are aligned")
    widths: tuple[Count, Count, Count] = Field((24, 12, 5), description="number of features of text, vision and audio")


def steps_of(settings: MadeSettings) -> dict[str, int]:
    """Modality → number of steps."""
    text = settings.steps
    return (
        {"text": text, "vision": 2 * text, "audio": (3 * text + 1) // 2}
        if settings.unaligned
        else dict.fromkeys(MODALITIES, text)
    )


def draw(settings: MadeSettings, seed: int) -> dict[str, dict[str, Any]]:
    """Split → key → array, as the published files hold them.

    Example:
        >>> made = draw(MadeSettings(samples=(4, 2, 2), steps=6), 0)
        >>> made["train"]["audio"].shape, made["test"]["text_bert"].shape, made["valid"]["id"].tolist()
        ((4, 6, 5), (2, 3, 6), ['vid000$_$4', 'vid000$_$5'])
    """
    random = np.random.RandomState(seed)
    widths = dict(zip(MODALITIES, settings.widths, strict=True))
    directions = {name: random.standard_normal((5, width)) / np.sqrt(width) for name, width in widths.items()}
    made, first = {}, 0
    for split, count in zip(SPLITS, settings.samples, strict=True):
        made[split] = _split(settings, random, directions, count, first, noisy=split == "train")
        first += count
    return made


def _split(
    settings: MadeSettings,
    random: np.random.RandomState,
    directions: Mapping[str, Floats],
    count: int,
    first: int,
    *,
    noisy: bool,
) -> dict[str, Any]:
    steps = steps_of(settings)
    score = np.round(np.clip(1.4 * random.standard_normal(count), -3, 3) * 5) / 5
    length = random.randint((settings.steps + 1) // 2, settings.steps + 1, count)
    nuisance = random.standard_normal((count, 3))
    envelopes = {
        size: 0.5 + 0.5 * np.abs(random.standard_normal((count, size))) for size in dict.fromkeys(steps.values())
    }
    found: dict[str, Any] = {}
    for name, size in steps.items():
        sigma = settings.sigma if name == settings.dominant else settings.other_sigma
        lengths = np.maximum(1, length * size // settings.steps)
        signal = see(score, directions[name], envelopes[size], nuisance, sigma)
        signal += sigma * random.standard_normal(signal.shape)
        signal[np.arange(size) >= lengths[:, None]] = 0
        found[name] = signal.astype(np.float32)
        if name != "text":
            found[f"{name}_lengths"] = lengths.tolist()
    here = np.arange(settings.steps) < length[:, None]
    words = random.randint(1000, 2000, here.shape) * here
    label = np.clip(score + settings.noise * random.standard_normal(count), -3, 3) if noisy else score
    sign = np.sign(label).astype(np.int64) + 1
    numbers = np.arange(first, first + count)
    return {
        "raw_text": np.array([f"sample {number}" for number in numbers], dtype=object),
        "id": np.array([f"vid{number // NAMED:03d}$_${number % NAMED}" for number in numbers], dtype=object),
        **{name: found[name] for name in ("text", "audio", "vision")},
        "text_bert": np.stack([words, here, np.zeros_like(words)], axis=1).astype(np.int64),
        "annotations": np.array(["Negative", "Neutral", "Positive"], dtype=object)[sign],
        "classification_labels": sign,
        "regression_labels": label.astype(np.float32),
        **{f"{name}_lengths": found[f"{name}_lengths"] for name in ("audio", "vision")},
    }


def see(score: Floats, directions: Floats, envelope: Floats, nuisance: Floats, sigma: float) -> Floats:
    """What a modality shows of each score before noise and padding: (samples, steps, width).

    Args:
        score: (samples,).
        directions: (5, width): u, v and the three of W.
        envelope: (samples, steps).
        nuisance: (samples, 3).
        sigma: strength of the nuisance.
    """
    signal = np.outer(score, directions[0]) + np.outer(0.5 * (np.abs(score) - 1), directions[1])
    seen: Floats = envelope[:, :, None] * signal[:, None] + (sigma * nuisance @ directions[2:])[:, None]
    return seen

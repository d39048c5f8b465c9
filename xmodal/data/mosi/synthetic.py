r"""A synthetic trimodal set in the layout of MOSI: a score that one modality shows clearly and two show faintly.

Each modality m has directions $u_m, v_m$ and three nuisance directions $W_m$, all N(0, 1) / √width. A sample has a
score s = clip(1.4 N(0, 1), -3, 3), rounded to 0.2; a length ℓ, uniform from half of the steps to all of them; an
envelope $\eta_t = 0.5 + 0.5 |N(0, 1)|$; and three nuisance factors g ~ N(0, 1):

$$x_m[t] = \eta_t (s u_m + 0.5 (|s| - 1) v_m) + \sigma_m g W_m + \sigma_m N(0, I), \qquad 0 for t ≥ ℓ$$

σ is ``sigma`` in the dominant modality and ``other_sigma`` in the others. Training labels are s + N(0, ``noise``²)
clipped to ±3; validation and test labels are s. The modalities of a sample share score, length and nuisance factors,
and the envelope if they have equal numbers of steps. All draws come from a single ``numpy.random.RandomState(seed)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xmodal.names import SPLITS

MODALITIES = ("text", "vision", "audio")
# Samples per video in the ids vidNNN$_$k, the form of the published ids: video, "$_$", segment.
NAMED = 10
Floats = NDArray[np.float64]
Count = Annotated[int, Field(ge=1)]


class SyntheticSettings(BaseModel):
    """Options of the synthetic set."""

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


def steps_of(settings: SyntheticSettings) -> dict[str, int]:
    """Modality → number of steps."""
    text = settings.steps
    return (
        {"text": text, "vision": 2 * text, "audio": (3 * text + 1) // 2}
        if settings.unaligned
        else dict.fromkeys(MODALITIES, text)
    )


def draw(settings: SyntheticSettings, seed: int) -> dict[str, dict[str, Any]]:
    """Split → key → array, as in the published files.

    Example:
        >>> splits = draw(SyntheticSettings(samples=(4, 2, 2), steps=6), 0)
        >>> splits["train"]["audio"].shape, splits["test"]["text_bert"].shape, splits["valid"]["id"].tolist()
        ((4, 6, 5), (2, 3, 6), ['vid000$_$4', 'vid000$_$5'])
    """
    # RandomState and not default_rng: its stream is frozen, so a seed gives the same set with every version of NumPy.
    random = np.random.RandomState(seed)
    widths = dict(zip(MODALITIES, settings.widths, strict=True))
    directions = {name: random.standard_normal((5, width)) / np.sqrt(width) for name, width in widths.items()}
    splits, first = {}, 0
    for split, count in zip(SPLITS, settings.samples, strict=True):
        splits[split] = _split(settings, random, directions, count, first, noisy=split == "train")
        first += count
    return splits


def _split(
    settings: SyntheticSettings,
    random: np.random.RandomState,
    directions: Mapping[str, Floats],
    count: int,
    first: int,
    *,
    noisy: bool,
) -> dict[str, Any]:
    steps = steps_of(settings)
    # The order of the draws below defines the set of a seed: moving a line changes the data.
    score = np.round(np.clip(1.4 * random.standard_normal(count), -3, 3) * 5) / 5
    length = random.randint((settings.steps + 1) // 2, settings.steps + 1, count)
    nuisance = random.standard_normal((count, 3))
    envelopes = {
        size: 0.5 + 0.5 * np.abs(random.standard_normal((count, size))) for size in dict.fromkeys(steps.values())
    }
    arrays: dict[str, Any] = {}
    for name, size in steps.items():
        sigma = settings.sigma if name == settings.dominant else settings.other_sigma
        lengths = np.maximum(1, length * size // settings.steps)
        signal = see(score, directions[name], envelopes[size], nuisance, sigma)
        signal += sigma * random.standard_normal(signal.shape)
        signal[np.arange(size) >= lengths[:, None]] = 0
        arrays[name] = signal.astype(np.float32)
        if name != "text":
            arrays[f"{name}_lengths"] = lengths.tolist()
    mask = np.arange(settings.steps) < length[:, None]
    # In BERT's vocabulary 0 is the id of padding, and the ids below 999 are reserved.
    words = random.randint(1000, 2000, mask.shape) * mask
    label = np.clip(score + settings.noise * random.standard_normal(count), -3, 3) if noisy else score
    sign = np.sign(label).astype(np.int64) + 1
    numbers = np.arange(first, first + count)
    return {
        "raw_text": np.array([f"sample {number}" for number in numbers], dtype=object),
        "id": np.array([f"vid{number // NAMED:03d}$_${number % NAMED}" for number in numbers], dtype=object),
        **{name: arrays[name] for name in ("text", "audio", "vision")},
        "text_bert": np.stack([words, mask, np.zeros_like(words)], axis=1).astype(np.int64),
        "annotations": np.array(["Negative", "Neutral", "Positive"], dtype=object)[sign],
        "classification_labels": sign,
        "regression_labels": label.astype(np.float32),
        **{f"{name}_lengths": arrays[f"{name}_lengths"] for name in ("audio", "vision")},
    }


def see(score: Floats, directions: Floats, envelope: Floats, nuisance: Floats, sigma: float) -> Floats:
    """The features of a modality before noise and padding, (samples, steps, width).

    Args:
        score: s, (samples,).
        directions: u, v and the three rows of W, (5, width).
        envelope: η, (samples, steps).
        nuisance: g, (samples, 3).
        sigma: strength of the nuisance.
    """
    signal = np.outer(score, directions[0]) + np.outer(0.5 * (np.abs(score) - 1), directions[1])
    shown: Floats = envelope[:, :, None] * signal[:, None] + (sigma * nuisance @ directions[2:])[:, None]
    return shown

"""Gaussian pairs with a known share of common information: who sees what, and the draws of the published experiments.

A sample has decisive features x_s ~ N(0, I). They alone make its label, by a hyperplane w: y = 1 where x_s·w > 0 (with
several classes the largest of their x_s·w_k). Each modality is a vector of N(0, 1) noise, some of whose channels are
replaced by decisive features. What both modalities see is *shared*, what only one sees is *specific* to it.

    α = specific to a / seen by a     β = specific to b / seen by b     γ = shared / seen by a or b

The published experiments are reproduced to the bit: their streams are NumPy's legacy ones, drawn in their order, and
cast from float64 to float32 afterwards. Nothing here touches the global generator.

Reference: Xue, Gao, Ren, Zhao: The Modality Focusing Hypothesis, ICLR 2023, figures 2 and 3, table 2; authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

MODALITIES = ("a", "b")  # the paper's x^a, which the teacher sees, and x^b, which the student sees
HYPERPLANE = 500  # numbers that the published code draws for its hyperplane, whatever it uses of them


@dataclass(frozen=True, slots=True)
class View:
    """What a modality sees of the decisive features.

    Attributes:
        width: channels.
        sees: decisive features, by their numbers.
        at: channels that hold them, in the same order; the published experiments put feature k into channel k.
    """

    width: int
    sees: tuple[int, ...]
    at: tuple[int, ...]

    @classmethod
    def of(cls, width: int, sees: Iterable[int], *, at: Iterable[int] | None = None) -> View:
        """A view; without ``at`` each feature has its own number as channel."""
        sees = tuple(sees)
        return cls(width, sees, sees if at is None else tuple(at))

    def __post_init__(self) -> None:
        if len(self.at) != len(self.sees) or len(set(self.at)) < len(self.at):
            raise InputError(f"{len(self.sees)} decisive features need as many channels, each its own: {self.at}.")
        if self.at and not 0 <= min(self.at) <= max(self.at) < self.width:
            raise InputError(
                f"A modality of {self.width} channels can't hold {len(self.at)} decisive features up to channel "
                f"{max(self.at)}. Make it wider, or let it see fewer."
            )


@dataclass(frozen=True, slots=True)
class Design:
    """Which decisive features there are and who sees them: the truth that a diagnosis has to find.

    Attributes:
        decisive: how many features make the label, seen or not.
        a: what modality a sees.
        b: what modality b sees.

    Example:
        >>> design = increase_gamma(4)
        >>> len(design.shared), round(design.gamma, 2), design.channels("a", "shared")
        (4, 0.25, (6, 7, 8, 9))
    """

    decisive: int
    a: View
    b: View

    @property
    def shared(self) -> tuple[int, ...]:
        """Decisive features that both modalities see."""
        return tuple(number for number in self.a.sees if number in self.b.sees)

    @property
    def alpha(self) -> float:
        """Share of a's decisive features that only a sees; 0 where it sees none."""
        return _share(len(self.a.sees) - len(self.shared), len(self.a.sees))

    @property
    def beta(self) -> float:
        """The same for b."""
        return _share(len(self.b.sees) - len(self.shared), len(self.b.sees))

    @property
    def gamma(self) -> float:
        """Share of shared features among all that are seen."""
        return _share(len(self.shared), len({*self.a.sees, *self.b.sees}))

    def view(self, modality: str) -> View:
        """What a modality sees."""
        return {"a": self.a, "b": self.b}[modality]

    def channels(self, modality: str, kind: str) -> tuple[int, ...]:
        """Channels of a modality whose decisive features are ``shared`` or ``specific``."""
        view = self.view(modality)
        shared = set(self.shared)
        return tuple(
            at for number, at in zip(view.sees, view.at, strict=True) if (number in shared) == (kind == "shared")
        )

    def described(self) -> dict[str, Any]:
        """The truth as JSON."""
        kinds = ("shared", "specific")
        return {
            "decisive": self.decisive,
            "alpha": self.alpha,
            "beta": self.beta,
            "gamma": self.gamma,
            "modalities": {
                name: {"width": self.view(name).width, **{kind: list(self.channels(name, kind)) for kind in kinds}}
                for name in MODALITIES
            },
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples of both modalities.

    Attributes:
        a: (rows, channels) float32, what the teacher sees.
        b: (rows, channels) float32, what the student sees.
        label: (rows,) int64.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def keep(self, channels: NDArray[np.int64]) -> Pairs:
        """The same samples with these channels of a, in this order; one that comes twice is there twice."""
        return Pairs(np.ascontiguousarray(self.a[:, channels]), self.b, self.label)

    def exchanged(self) -> Pairs:
        """The same samples with the two modalities in each other's place."""
        return Pairs(self.b, self.a, self.label)


@dataclass(frozen=True, slots=True)
class Noise:
    """What makes a problem harder than the published ones.

    Attributes:
        signal: modality → standard deviation of the noise added to its decisive channels.
        label: share of the labels that are drawn at random.
    """

    signal: Mapping[str, float] = field(default_factory=dict)
    label: float = 0.0


def draw(
    design: Design,
    hyperplane: NDArray[np.float64],
    rows: int,
    random: np.random.RandomState,
    *,
    order: tuple[str, ...] = ("b", "a"),
    noise: Noise | None = None,
) -> Pairs:
    """Draw samples: decisive features first, then the channels of each modality in ``order``, then any noise.

    Args:
        design: who sees what.
        hyperplane: (decisive,) for two classes, (decisive, classes) for several.
        rows: how many samples.
        random: stream to draw from; it moves on.
        order: which modality is drawn first. The published experiments differ in it.
        noise: none by default.
    """
    decisive = random.standard_normal((rows, design.decisive))
    seen = {name: random.standard_normal((rows, design.view(name).width)) for name in order}
    side = decisive @ hyperplane
    label = side.argmax(axis=1) if side.ndim > 1 else (side > 0).astype(np.int64)
    noise = noise or Noise()
    for name in MODALITIES:
        view = design.view(name)
        seen[name][:, view.at] = decisive[:, view.sees]
        if noise.signal.get(name):
            seen[name][:, view.at] += noise.signal[name] * random.standard_normal((rows, len(view.at)))
    if noise.label:
        classes = 2 if side.ndim == 1 else side.shape[1]
        label = np.where(random.random_sample(rows) < noise.label, random.randint(0, classes, rows), label)
    return Pairs(seen["a"].astype(np.float32), seen["b"].astype(np.float32), label.astype(np.int64))


# ---- the published experiments


def increase_gamma(overlap: int, *, b_width: int = 50) -> Design:
    """Experiment 1: both see ten features, ``overlap`` of them (0 to 10) the same. γ = overlap / (20 - overlap)."""
    _between("shared", overlap, 0, 10)
    return Design(20, View.of(25, range(10 - overlap, 20 - overlap)), View.of(b_width, range(10)))


def increase_alpha(specific: int) -> Design:
    """Experiment 2: b sees ten features, a those and ``specific`` (0 to 40) more. α = specific / (specific + 10)."""
    _between("a_only", specific, 0, 40)
    return Design(50, View.of(50, range(10 + specific)), View.of(50, range(10)))


def modify_gamma(specific: int, shared: int) -> Design:
    """Experiment 3: b sees ``shared`` features, a those and ``specific`` more. γ = shared / (shared + specific)."""
    _between("shared", shared, 1, 50)
    _between("a_only", specific, 0, 50 - shared)
    return Design(shared + specific, View.of(50, range(shared + specific)), View.of(50, range(shared)))


def _between(name: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise InputError(f"{name} is {number}: this published experiment takes {least} to {most}.")


def draw_sweep(design: Design, seed: int, *, train: int = 200, valid: int = 200, test: int = 1000) -> dict[str, Pairs]:
    """Samples of experiments 1 and 2 for one seed: ``train``, ``valid``, ``test``.

    The test samples come from the stream of seed + 1, as in the authors' code, so they share most of their decisive
    features with the training samples of the next seed (whose hyperplane differs). There is no validation set in that
    code; ours has a stream of its own.
    """
    random = np.random.RandomState(seed)
    hyperplane = random.standard_normal(HYPERPLANE)[: design.decisive]
    return {
        "train": draw(design, hyperplane, train, random),
        "valid": draw(design, hyperplane, valid, aside(seed)),
        "test": draw(design, hyperplane, test, np.random.RandomState(seed + 1)),
    }


def draw_removal(
    design: Design,
    seed: int,
    *,
    train: int = 200,
    valid: int = 200,
    test: int = 1000,
    random: np.random.RandomState | None = None,
) -> dict[str, Pairs]:
    """Samples of experiment 3 for one seed: ``train``, ``test``, ``again`` (a second training set) and ``valid``.

    The hyperplane is all ones.

    Args:
        design: who sees what.
        seed: of the stream.
        train: rows of either training set.
        valid: rows of the validation set, which has a stream of its own.
        test: rows of the test set.
        random: the stream itself, fresh, for callers who go on drawing from it; None: one from the seed.
    """
    random = random or np.random.RandomState(seed)
    ones = np.ones(design.decisive)
    sizes = {"train": train, "test": test, "again": train}
    found = {name: draw(design, ones, rows, random, order=("a", "b")) for name, rows in sizes.items()}
    return {**found, "valid": draw(design, ones, valid, aside(seed), order=("a", "b"))}


def aside(seed: int, number: int = 0) -> np.random.RandomState:
    """A stream that belongs to a seed and is none of those that a plain seed starts."""
    return np.random.RandomState([seed, number])


# ---- problems of one's own


def arranged(*, shared: int, a_only: int, b_only: int, unseen: int = 0, a_width: int, b_width: int) -> Design:
    """Any numbers of decisive features: in each modality the shared ones come first, then its own, then noise."""
    first, second = shared + a_only, shared + a_only + b_only
    own = [*range(shared), *range(first, second)]
    return Design(second + unseen, View.of(a_width, range(first)), View.of(b_width, own, at=range(shared + b_only)))


def counts_of(
    total: int, *, alpha: float | None = None, beta: float | None = None, gamma: float | None = None
) -> tuple[int, int, int]:
    """Shared, a-only and b-only features, ``total`` in all, for one or two of the three shares, rounded.

    Two shares fix the third: 1/γ = 1 + α/(1-α) + β/(1-β). γ alone splits the rest evenly; α or β alone lets the other
    modality see nothing of its own.

    Example:
        >>> counts_of(20, gamma=0.5), counts_of(20, alpha=0.5), counts_of(30, alpha=0.5, beta=0.5)
        ((10, 5, 5), (10, 10, 0), (10, 10, 10))
    """
    given = {name: share for name, share in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if share is not None}
    asked = f"{' and '.join(f'{name} {share:g}' for name, share in given.items())}: "
    own = [share for share in (alpha, beta) if share is not None]
    if not 1 <= len(given) <= 2:
        raise InputError(f"Give one or two of alpha, beta and gamma: the third follows. {len(given)} were given.")
    if gamma == 0 and any(share < 1 for share in own) or gamma != 0 and 1.0 in own:
        raise InputError(f"{asked}gamma is 0 where alpha and beta are 1, and only there. Change one of them.")
    odds_a, odds_b = (share / (1 - share) if share not in (None, 1.0) else 0.0 for share in (alpha, beta))
    shared = total / (1 + odds_a + odds_b) if gamma is None else total * gamma
    rest = total - shared
    a_only = rest / 2 if not own or gamma == 0 else shared * odds_a if alpha is not None else rest - shared * odds_b
    if not -1e-9 <= a_only <= rest + 1e-9:
        raise InputError(f"{asked}no numbers of features have these shares. Lower one of them.")
    whole = round(shared), round(a_only)
    return *whole, max(0, total - sum(whole))

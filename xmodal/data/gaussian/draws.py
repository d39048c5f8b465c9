"""Gaussian pairs with a known share of common information: which modality contains what, and how samples are drawn.

A sample has decisive features x_s ~ N(0, I), which alone determine its label by a hyperplane w: y = 1 where x_s·w > 0
(with several classes the largest of their x_s·w_k). Each modality is a vector of N(0, 1) noise in which some channels
are replaced by decisive features. A feature in both modalities is *shared*, a feature in one of them is *specific* to
it; the modality *sees* the features that it contains.

    α = specific to a / seen by a     β = specific to b / seen by b     γ = shared / seen by a or b

The published experiments are reproduced bit for bit: drawn from NumPy's legacy generator in the order of the authors'
code, in float64, and cast to float32 afterwards. The global generator is not touched.

Reference: Xue, Gao, Ren, Zhao: The Modality Focusing Hypothesis, ICLR 2023, figures 2 and 3, table 2; authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

# the paper's x^a, the teacher's modality, and x^b, the student's
MODALITIES = ("a", "b")
# the published code always draws a hyperplane of this length and uses its first entries; fewer draws would shift the
# generator, and every sample would differ
HYPERPLANE = 500


@dataclass(frozen=True, slots=True)
class View:
    """The decisive features in a modality.

    Attributes:
        width: number of channels.
        sees: numbers of the decisive features that it contains.
        at: channels that hold them, in the same order; the published experiments put feature k into channel k.
    """

    width: int
    sees: tuple[int, ...]
    at: tuple[int, ...]

    @classmethod
    def of(cls, width: int, sees: Iterable[int], *, at: Iterable[int] | None = None) -> View:
        """A view; without ``at``, feature k is in channel k."""
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
    """Which decisive features there are and which modality contains them: the ground truth of a diagnosis.

    Attributes:
        decisive: number of features that determine the label, whether a modality contains them or not.
        a: features in modality a.
        b: features in modality b.

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
        """Share of a's decisive features that are not in b; 0 if a contains none."""
        return _share(len(self.a.sees) - len(self.shared), len(self.a.sees))

    @property
    def beta(self) -> float:
        """Share of b's decisive features that are not in a; 0 if b contains none."""
        return _share(len(self.b.sees) - len(self.shared), len(self.b.sees))

    @property
    def gamma(self) -> float:
        """Share of the decisive features in a or b that are in both."""
        return _share(len(self.shared), len({*self.a.sees, *self.b.sees}))

    def view(self, modality: str) -> View:
        """The decisive features in a modality, by its name."""
        return {"a": self.a, "b": self.b}[modality]

    def channels(self, modality: str, kind: str) -> tuple[int, ...]:
        """Channels of a modality whose decisive features are ``shared`` or ``specific``."""
        view = self.view(modality)
        shared = set(self.shared)
        return tuple(
            at for number, at in zip(view.sees, view.at, strict=True) if (number in shared) == (kind == "shared")
        )

    def described(self) -> dict[str, Any]:
        """The design as JSON."""
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
        a: (rows, channels) float32, the teacher's modality.
        b: (rows, channels) float32, the student's modality.
        label: (rows,) int64.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def keep(self, channels: NDArray[np.int64]) -> Pairs:
        """The same samples with these channels of a, in this order, repeated where a channel is listed twice."""
        return Pairs(np.ascontiguousarray(self.a[:, channels]), self.b, self.label)

    def exchanged(self) -> Pairs:
        """The same samples with the two modalities swapped."""
        return Pairs(self.b, self.a, self.label)


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise that the published experiments do not have.

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
        design: decisive features of each modality.
        hyperplane: (decisive,) for two classes, (decisive, classes) for several.
        rows: number of samples.
        random: generator to draw from; its state advances.
        order: order in which the modalities are drawn; the published experiments differ in it.
        noise: none by default.
    """
    decisive = random.standard_normal((rows, design.decisive))
    # the channels of decisive features are drawn too and then overwritten, as in the authors' code
    channels = {name: random.standard_normal((rows, design.view(name).width)) for name in order}
    score = decisive @ hyperplane
    label = score.argmax(axis=1) if score.ndim > 1 else (score > 0).astype(np.int64)
    # noise is drawn last: the same generator without noise gives the same features
    noise = noise or Noise()
    for name in MODALITIES:
        view = design.view(name)
        channels[name][:, view.at] = decisive[:, view.sees]
        if noise.signal.get(name):
            channels[name][:, view.at] += noise.signal[name] * random.standard_normal((rows, len(view.at)))
    if noise.label:
        classes = 2 if score.ndim == 1 else score.shape[1]
        label = np.where(random.random_sample(rows) < noise.label, random.randint(0, classes, rows), label)
    return Pairs(channels["a"].astype(np.float32), channels["b"].astype(np.float32), label.astype(np.int64))


# ---- the published experiments


def increase_gamma(overlap: int, *, b_width: int = 50) -> Design:
    """Experiment 1: a and b see ten features each and share ``overlap`` (0 to 10). γ = overlap / (20 - overlap)."""
    _between("shared", overlap, 0, 10)
    return Design(20, View.of(25, range(10 - overlap, 20 - overlap)), View.of(b_width, range(10)))


def increase_alpha(specific: int) -> Design:
    """Experiment 2: b sees ten features, a the same and ``specific`` (0 to 40) more. α = specific / (specific + 10)."""
    _between("a_only", specific, 0, 40)
    return Design(50, View.of(50, range(10 + specific)), View.of(50, range(10)))


def modify_gamma(specific: int, shared: int) -> Design:
    """Experiment 3: b sees ``shared`` features, a the same and ``specific`` more. γ = shared / (shared + specific)."""
    _between("shared", shared, 1, 50)
    _between("a_only", specific, 0, 50 - shared)
    return Design(shared + specific, View.of(50, range(shared + specific)), View.of(50, range(shared)))


def _between(name: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise InputError(f"{name} is {number}: this published experiment takes {least} to {most}.")


def draw_sweep(design: Design, seed: int, *, train: int = 200, valid: int = 200, test: int = 1000) -> dict[str, Pairs]:
    """Samples of experiments 1 and 2 for one seed: ``train``, ``valid``, ``test``.

    The test samples are drawn with seed + 1, as in the authors' code, so they share most of their decisive features
    with the training samples of the next seed (whose hyperplane differs).
    """
    random = np.random.RandomState(seed)
    hyperplane = random.standard_normal(HYPERPLANE)[: design.decisive]
    return {
        "train": draw(design, hyperplane, train, random),
        # the authors' code has no validation set: a generator of its own leaves their draws unchanged
        "valid": draw(design, hyperplane, valid, separate_generator(seed)),
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
        design: decisive features of each modality.
        seed: of the generator.
        train: rows of either training set.
        valid: rows of the validation set, which has a generator of its own.
        test: rows of the test set.
        random: a fresh generator with this seed, for callers that draw from it afterwards; None: a new one.
    """
    random = random or np.random.RandomState(seed)
    ones = np.ones(design.decisive)
    sizes = {"train": train, "test": test, "again": train}
    # this experiment draws a before b, unlike the first two
    samples = {name: draw(design, ones, rows, random, order=("a", "b")) for name, rows in sizes.items()}
    return {**samples, "valid": draw(design, ones, valid, separate_generator(seed), order=("a", "b"))}


def separate_generator(seed: int, number: int = 0) -> np.random.RandomState:
    """A generator for a seed and a number, unrelated to the generator that the seed alone starts."""
    # RandomState seeds a list of integers in another way than an integer, so no plain seed gives this generator
    return np.random.RandomState([seed, number])


# ---- other designs


def arranged(*, shared: int, a_only: int, b_only: int, unseen: int = 0, a_width: int, b_width: int) -> Design:
    """Any numbers of decisive features; a modality holds the shared ones first, then the specific ones, then noise."""
    first, second = shared + a_only, shared + a_only + b_only
    in_b = [*range(shared), *range(first, second)]
    return Design(second + unseen, View.of(a_width, range(first)), View.of(b_width, in_b, at=range(shared + b_only)))


def counts_of(
    total: int, *, alpha: float | None = None, beta: float | None = None, gamma: float | None = None
) -> tuple[int, int, int]:
    """Numbers of shared, a-only and b-only features for one or two of the three shares, rounded; ``total`` together.

    Two shares determine the third: 1/γ = 1 + α/(1-α) + β/(1-β). γ alone splits the other features evenly; with α or β
    alone, the other modality has no specific features.

    Example:
        >>> counts_of(20, gamma=0.5), counts_of(20, alpha=0.5), counts_of(30, alpha=0.5, beta=0.5)
        ((10, 5, 5), (10, 10, 0), (10, 10, 10))
    """
    shares = {name: share for name, share in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if share is not None}
    listed = f"{' and '.join(f'{name} {share:g}' for name, share in shares.items())}: "
    specific_shares = [share for share in (alpha, beta) if share is not None]
    if not 1 <= len(shares) <= 2:
        raise InputError(f"Give one or two of alpha, beta and gamma: the third follows. {len(shares)} were given.")
    if gamma == 0 and any(share < 1 for share in specific_shares) or gamma != 0 and 1.0 in specific_shares:
        raise InputError(f"{listed}gamma is 0 where alpha and beta are 1, and only there. Change one of them.")
    odds_a, odds_b = (share / (1 - share) if share not in (None, 1.0) else 0.0 for share in (alpha, beta))
    shared = total / (1 + odds_a + odds_b) if gamma is None else total * gamma
    specific = total - shared
    if not specific_shares or gamma == 0:
        a_only = specific / 2
    elif alpha is not None:
        a_only = shared * odds_a
    else:
        a_only = specific - shared * odds_b
    # shares that fit exactly may miss by a rounding error
    if not -1e-9 <= a_only <= specific + 1e-9:
        raise InputError(f"{listed}no numbers of features have these shares. Lower one of them.")
    whole = round(shared), round(a_only)
    return *whole, max(0, total - sum(whole))

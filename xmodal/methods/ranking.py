"""What is measured on finished networks before a student is taught: the saliency of channels, and their means.

Both pass over the whole training split, so methods that stand side by side and differ in what they remove share them.
"""

from __future__ import annotations

from torch import Tensor, nn

from xmodal.diagnostics.saliency import Saliency, measure_saliency
from xmodal.method import Kit
from xmodal.models.masking import layer_means


def name_of_ranking(
    networks: str, place: str, *, distance: str, disturb: str, permutations: int | str, within: int | None = None
) -> str:
    """The name under which a kit keeps a saliency.

    Example:
        >>> name_of_ranking("joint", "head", distance="mse", disturb="permute", permutations=10)
        'saliency of joint at head: mse, permute, 10'
    """
    population = "" if within is None else f" in batches of {within}"
    return f"saliency of {networks} at {place}: {distance}, {disturb}, {permutations}{population}"


def rank_channels(
    kit: Kit,
    teacher: nn.Module,
    student: nn.Module,
    place: str,
    *,
    networks: str,
    distance: str,
    disturb: str = "permute",
    permutations: int | str = "exact",
    within: int | None = None,
) -> Saliency:
    """Algorithm 1 on the training split, once for the same networks and settings.

    Args:
        kit: lends the rows, the seed, and what was found before.
        teacher: whose channels are ranked.
        student: whose answers they are ranked by.
        place: in the teacher.
        networks: which two these are, in a word.
        distance: of the answers.
        disturb: how a channel is disturbed.
        permutations: how many, or ``exact``.
        within: permute inside batches of so many rows; None: over all rows.
    """

    def measure() -> Saliency:
        return measure_saliency(
            teacher,
            student,
            kit.batches(size=within),
            place,
            distance=distance,  # type: ignore[arg-type]
            disturb=disturb,  # type: ignore[arg-type]
            permutations=permutations,
            population="all" if within is None else "batch",
            seed=kit.seed,
            ignore=kit.info.ignore,
        )

    name = name_of_ranking(
        networks, place, distance=distance, disturb=disturb, permutations=permutations, within=within
    )
    return kit.once(name, measure)


def channel_means(kit: Kit, teacher: nn.Module, place: str, *, networks: str) -> Tensor:
    """The mean of each channel over the training split, once for the same network."""
    return kit.once(f"means of {networks} at {place}", lambda: layer_means(teacher, place, kit.batches()))


def count_channels(kit: Kit, teacher: nn.Module, place: str) -> int:
    """How many channels stand at a place, from the first batch."""
    first = next(iter(kit.batches()))
    return len(layer_means(teacher, place, [first]))

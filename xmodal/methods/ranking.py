"""Measurements on finished networks before a student is taught: the saliency of channels, and their means.

Both pass over the whole training split, so methods that are compared and differ only in what they remove share them.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from xmodal.diagnostics.saliency import Saliency, measure_saliency
from xmodal.method import Kit
from xmodal.models.masking import layer_means

UNRANKED = "none"  # the form of `unranked`


def unranked(channels: int, layer: str) -> Saliency:
    """In place of a saliency where none is needed: no channel is removed, or random ones."""
    nothing = np.zeros(channels)
    return Saliency(
        place=layer,
        side="teacher",
        distance="",
        disturb="",
        population="",
        raw=nothing,
        value=nothing,
        baseline=0.0,
        deviation=nothing,
        standard_error=nothing,
        draws=None,
        exact=False,
        form=UNRANKED,
        rows=0,
        note="The channels were not ranked.",
    )


def name_of_ranking(
    networks: str, layer: str, *, distance: str, disturb: str, permutations: int | str, within: int | None = None
) -> str:
    """The name under which a kit keeps a saliency.

    Example:
        >>> name_of_ranking("joint", "head", distance="mse", disturb="permute", permutations=10)
        'saliency of joint at head: mse, permute, 10'
    """
    population = "" if within is None else f" in batches of {within}"
    return f"saliency of {networks} at {layer}: {distance}, {disturb}, {permutations}{population}"


def rank_channels(
    kit: Kit,
    teacher: nn.Module,
    student: nn.Module,
    layer: str,
    *,
    networks: str,
    distance: str,
    disturb: str = "permute",
    permutations: int | str = "exact",
    within: int | None = None,
) -> Saliency:
    """Algorithm 1 on the training split, once for the same networks and settings.

    Args:
        kit: holds the rows, the seed, and earlier measurements.
        teacher: the network whose channels are ranked.
        student: the network whose outputs the teacher's are compared with.
        layer: of the teacher.
        networks: name of the two trained networks.
        distance: of their outputs.
        disturb: how a channel is disturbed.
        permutations: how many, or ``exact``.
        within: permute inside batches of so many rows; None: over all rows.
    """

    def measure() -> Saliency:
        return measure_saliency(
            teacher,
            student,
            kit.batches(size=within),
            layer,
            distance=distance,  # type: ignore[arg-type]
            disturb=disturb,  # type: ignore[arg-type]
            permutations=permutations,
            population="all" if within is None else "batch",
            seed=kit.seed,
            ignore=kit.info.ignore,
        )

    name = name_of_ranking(
        networks, layer, distance=distance, disturb=disturb, permutations=permutations, within=within
    )
    return kit.once(name, measure)


def channel_means(kit: Kit, teacher: nn.Module, layer: str, *, networks: str) -> Tensor:
    """The mean of each channel over the training split, once for the same network."""
    return kit.once(f"means of {networks} at {layer}", lambda: layer_means(teacher, layer, kit.batches()))


def count_channels(kit: Kit, teacher: nn.Module, layer: str) -> int:
    """The number of channels of a layer, from the first batch."""
    first = next(iter(kit.batches()))
    return len(layer_means(teacher, layer, [first]))

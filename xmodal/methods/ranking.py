"""Measurements on finished networks before a student is taught: the saliency of channels, and their means.

Both pass over the whole training split, so methods that are compared and differ only in what they remove share them. A
ranking of channels keeps the features and outputs of all rows; of dense data that would be too large it keeps running
sums over batches, and it may be limited to some of the frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.diagnostics.saliency import Saliency, measure_saliency
from xmodal.diagnostics.streamed import stream_saliency
from xmodal.method import Kit
from xmodal.models.feature_layers import replacing
from xmodal.models.masking import layer_means
from xmodal.models.network import evaluating

KEPT_BYTES = 2 * 2**30  # features and outputs that a ranking keeps in memory; of more, it keeps running sums
STREAMED = 8  # frames that are exchanged with one another where sums are kept

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
    pixels: int | None = None,
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
        pixels: of dense data, the pixels or voxels to rank on, in whole frames spread over the split; None: all.
    """
    frames = None if pixels is None else max(2, math.ceil(pixels / kit.info.places))
    if kit.info.dense and (frames is not None or _kept(kit, teacher, layer) > KEPT_BYTES):
        # two at least, because a channel of a frame is exchanged with that of another
        size = max(2, min(kit.info.block(STREAMED), STREAMED))
        name = name_of_ranking(networks, layer, distance=distance, disturb=disturb, permutations=permutations)
        return kit.once(
            f"{name} streamed in batches of {size}" + ("" if frames is None else f", {frames} frames"),
            lambda: stream_saliency(
                teacher,
                student,
                kit.batches(size=size, most=frames),
                layer,
                distance=distance,
                disturb=disturb,
                permutations=permutations,
                seed=kit.seed,
                ignore=kit.info.ignore,
            ),
        )

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


def _kept(kit: Kit, teacher: nn.Module, layer: str) -> int:
    """Bytes of the features at a layer and of the outputs of both networks, for all rows of the training split."""
    sizes: list[int] = []

    def note(features: Tensor) -> Tensor:
        sizes.append(features[0].numel())
        return features

    first = next(iter(kit.batches(size=1)))
    with torch.no_grad(), evaluating(teacher), replacing(teacher, layer, note):
        teacher(first.inputs)
    values = max(sizes, default=0) + 2 * kit.info.outputs * kit.info.places
    return 4 * values * max(kit.info.rows["train"].values())


def channel_means(kit: Kit, teacher: nn.Module, layer: str, *, networks: str) -> Tensor:
    """The mean of each channel over the training split, once for the same network."""
    return kit.once(f"means of {networks} at {layer}", lambda: layer_means(teacher, layer, kit.batches()))


def count_channels(kit: Kit, teacher: nn.Module, layer: str) -> int:
    """The number of channels of a layer, from the first batch."""
    first = next(iter(kit.batches()))
    return len(layer_means(teacher, layer, [first]))

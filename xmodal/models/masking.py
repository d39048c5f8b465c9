"""Masks: let a network go on without some of its channels, as if they always said the same thing.

Used to remove the channels that a saliency calls modality-specific, or modality-general, from a trained teacher. The
network itself is not changed: `masked` is a block, and what it does ends with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.feature_layers import replacing
from xmodal.models.network import evaluating
from xmodal.types import Batch

FILLS = ("mean", "batch_mean", "zero")


@contextmanager
def masked(
    module: nn.Module, place: str, keep: Tensor, *, fill: str = "mean", values: Tensor | None = None
) -> Iterator[None]:
    """Within this block every call of ``module`` replaces the channels at a place that are not to be kept.

    Args:
        module: a network that takes a dictionary of inputs.
        place: name of a layer, or ``input:<modality>``; see `xmodal.models.feature_layers`.
        keep: (channels,) boolean; False removes.
        fill: what a removed channel says instead: ``mean``, ``values``; ``batch_mean``, its mean over the rows of the
            batch at hand, place by place of a map (published; the answer then depends on the other rows of the batch);
            ``zero``.
        values: (channels,) or (channels, …), such as `place_means` of the training split; for ``mean`` alone.

    Example:
        >>> network = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with masked(network, "0", torch.tensor([True, False]), fill="batch_mean"):
        ...     network(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[1., 3.],
                [3., 3.]])
    """
    if fill not in FILLS:
        raise InputError(f"There is no fill called '{fill}'. {did_you_mean(fill, FILLS)}")
    if (values is None) == (fill == "mean"):
        wanted = "needs values: those of place_means(…)" if fill == "mean" else "takes no values"
        raise InputError(f"The fill '{fill}' {wanted}.")
    if keep.dtype != torch.bool or keep.ndim != 1:
        raise InputError(f"keep has type {keep.dtype} and shape {tuple(keep.shape)}: expected booleans (channels,).")
    with replacing(module, place, lambda found: _filled(place, found, keep, fill, values)):
        yield


def place_means(module: nn.Module, place: str, batches: Iterable[Batch]) -> Tensor:
    """Mean over all rows of what stands at a place, (channels, …), in eval mode; modes are as before afterwards.

    Example:
        >>> batch = Batch({"sound": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, {})
        >>> from xmodal.models.network import wrap
        >>> place_means(wrap(nn.Identity(), ["sound"]), "input:sound", [batch])
        tensor([2., 3.])
    """
    sums: list[Tensor] = []
    rows: list[int] = []

    def add(found: Tensor) -> Tensor:
        sums.append(found.double().sum(dim=0))
        rows.append(len(found))
        return found

    device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    with evaluating(module), replacing(module, place, add):
        for batch in batches:
            module(batch.to(device).inputs)
    shapes = sorted({tuple(part.shape) for part in sums})
    if len(shapes) != 1:
        found = " and ".join(map(str, shapes)) or "no batch"
        raise InputError(f"Samples at '{place}' have shape {found}: expected one shape. Choose another place or fill.")
    return (torch.stack(sums).sum(dim=0) / sum(rows)).to(dtype)


def _filled(place: str, found: Tensor, keep: Tensor, fill: str, values: Tensor | None) -> Tensor:
    channels = found.shape[1]
    if len(keep) != channels:
        raise InputError(f"keep is about {len(keep)} channels, but there are {channels} at '{place}'.")
    if fill == "batch_mean":
        instead = found.mean(dim=0)
    elif values is None:
        instead = found.new_zeros(channels)
    else:
        instead = values.to(found)
    if instead.shape != found.shape[1:] and instead.shape != (channels,):
        shapes = f"(channels,) or one sample's shape, {tuple(found.shape[1:])}"
        raise InputError(f"values have shape {tuple(instead.shape)}: expected {shapes} as at '{place}'.")
    broadcast = [channels] + [1] * (found.ndim - 2)
    instead = instead if instead.shape == found.shape[1:] else instead.reshape(broadcast)
    return torch.where(keep.to(found.device).reshape(broadcast), found, instead)

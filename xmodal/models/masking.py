"""Masks: run a network with some of its channels replaced by a constant or by their batch mean.

Used to remove from a trained teacher the channels that a saliency calls modality-specific, or modality-general. The
network itself is not changed: `masked` is a context manager, and its effect ends with the block.
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
    module: nn.Module, layer: str, keep: Tensor, *, fill: str = "mean", values: Tensor | None = None
) -> Iterator[None]:
    """Within this block every call of ``module`` replaces the channels of a layer that are not kept.

    Args:
        module: a network that takes a dictionary of inputs.
        layer: name of a layer, or ``input:<modality>``; see `xmodal.models.feature_layers`.
        keep: (channels,) boolean; False removes.
        fill: replacement of a removed channel: ``mean``, the argument ``values``; ``batch_mean``, its mean over the
            rows of the current batch, computed for each pixel of a map (published; the output of a row then depends on
            the other rows of its batch); ``zero``.
        values: (channels,) or (channels, …), such as `layer_means` of the training split; for ``mean`` alone.

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
        problem = "needs values: those of layer_means(…)" if fill == "mean" else "takes no values"
        raise InputError(f"The fill '{fill}' {problem}.")
    if keep.dtype != torch.bool or keep.ndim != 1:
        raise InputError(f"keep has type {keep.dtype} and shape {tuple(keep.shape)}: expected booleans (channels,).")
    with replacing(module, layer, lambda features: _filled(layer, features, keep, fill, values)):
        yield


def layer_means(module: nn.Module, layer: str, batches: Iterable[Batch]) -> Tensor:
    """Mean of a layer's features over all rows, (channels, …), in eval mode; training modes are restored afterwards.

    Example:
        >>> batch = Batch({"sound": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, {})
        >>> from xmodal.models.network import wrap
        >>> layer_means(wrap(nn.Identity(), ["sound"]), "input:sound", [batch])
        tensor([2., 3.])
    """
    sums: list[Tensor] = []
    rows: list[int] = []

    # Sums in float64 and one division at the end: a mean of batch means would give the rows of a small last batch a
    # larger weight.
    def add(features: Tensor) -> Tensor:
        sums.append(features.double().sum(dim=0))
        rows.append(len(features))
        return features

    device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    with evaluating(module), replacing(module, layer, add):
        for batch in batches:
            module(batch.to(device).inputs)
    shapes = sorted({tuple(part.shape) for part in sums})
    if len(shapes) != 1:
        listed = " and ".join(map(str, shapes)) or "no batch"
        raise InputError(f"Samples at '{layer}' have shape {listed}: expected one shape. Choose another layer or fill.")
    return (torch.stack(sums).sum(dim=0) / sum(rows)).to(dtype)


def _filled(layer: str, features: Tensor, keep: Tensor, fill: str, values: Tensor | None) -> Tensor:
    channels = features.shape[1]
    if len(keep) != channels:
        raise InputError(f"keep has {len(keep)} channels, and '{layer}' has {channels}: expected one entry for each.")
    if fill == "batch_mean":
        filling = features.mean(dim=0)
    elif values is None:
        filling = features.new_zeros(channels)
    else:
        filling = values.to(features)
    if filling.shape != features.shape[1:] and filling.shape != (channels,):
        shapes = f"(channels,) or one sample's shape, {tuple(features.shape[1:])}"
        raise InputError(f"values have shape {tuple(filling.shape)}: expected {shapes} as at '{layer}'.")
    per_channel = [channels] + [1] * (features.ndim - 2)
    filling = filling if filling.shape == features.shape[1:] else filling.reshape(per_channel)
    # torch.where and not a product with the mask: 0 · NaN would keep a removed channel that is not finite.
    return torch.where(keep.to(features.device).reshape(per_channel), features, filling)

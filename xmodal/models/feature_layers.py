"""Feature layers: where the channels of a network are counted, and how to replace the features at that layer.

A feature layer is a layer by its name (the features are its output), or ``input:<modality>`` (the features are that
input of the network). Axis 1 of the features holds the channels: the components of vectors (rows, channels), or the
maps of pictures (rows, channels, …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.layers import layer_of
from xmodal.models.network import pick_input

INPUT = "input:"
Replace = Callable[[Tensor], Tensor]


@contextmanager
def replacing(module: nn.Module, layer: str, replace: Replace) -> Iterator[None]:
    """Within this block every call of ``module`` computes with ``replace(features)`` instead of the features.

    Hooks exist only inside the block, so a copy or an export of the module does not contain them.

    Args:
        module: a network that takes a dictionary of inputs (any network, if ``layer`` is not an input).
        layer: name of a layer, or ``input:<modality>``.
        replace: maps the features (rows, channels, …) to a tensor of the same shape.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with replacing(network, "0", torch.neg):
        ...     network(torch.ones(1, 2))
        tensor([[-1., -1.]])
    """
    if layer.startswith(INPUT):
        name = layer.removeprefix(INPUT)

        # A new dictionary, because the caller's own must not change.
        def replace_input(_: nn.Module, arguments: tuple[Mapping[str, Tensor], ...]) -> Any:
            inputs = arguments[0]
            return ({**inputs, name: replace(with_channels(layer, pick_input(inputs, name)))}, *arguments[1:])

        handle = module.register_forward_pre_hook(replace_input)
    else:

        def replace_output(_: nn.Module, arguments: Any, output: Any) -> Tensor:
            return replace(with_channels(layer, output))

        handle = layer_of(module, layer).register_forward_hook(replace_output)
    try:
        yield
    finally:
        handle.remove()


def check_layer(module: nn.Module, layer: str, inputs: Mapping[str, Tensor]) -> None:
    """Refuse a feature layer that the network does not have, with a list of those that it has."""
    if not layer.startswith(INPUT):
        layer_of(module, layer)
    elif (name := layer.removeprefix(INPUT)) not in inputs:
        raise InputError(f"There is no input called '{name}'. {did_you_mean(name, inputs)}")


def with_channels(layer: str, features: Any) -> Tensor:
    """The features of a layer, after a check that they are a tensor with channels."""
    if isinstance(features, Tensor) and features.ndim >= 2:
        return features
    arrived = f"a tensor of shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
    raise InputError(
        f"The output of '{layer}' is {arrived}: expected a tensor (rows, channels, …). Choose another layer."
    )

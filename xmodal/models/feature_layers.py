"""Places: where the channels of a network are counted, and how to replace what stands there.

A place is a layer by its name (what counts is its output), or ``input:<modality>`` (what counts is what the network
reads). Axis 1 holds the channels: numbers of vectors (rows, channels), whole maps of pictures (rows, channels, …).
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
def replacing(module: nn.Module, place: str, replace: Replace) -> Iterator[None]:
    """Within this block every call of ``module`` goes on with ``replace(found)`` where it found a tensor at the place.

    Hooks live only as long as the block: a copy or an export of the module knows nothing of them.

    Args:
        module: a network that takes a dictionary of inputs (any network, for a place that is a layer).
        place: name of a layer, or ``input:<modality>``.
        replace: maps what stands at the place (rows, channels, …) to a tensor of the same shape.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with replacing(network, "0", torch.neg):
        ...     network(torch.ones(1, 2))
        tensor([[-1., -1.]])
    """
    if place.startswith(INPUT):
        name = place.removeprefix(INPUT)

        def before(layer: nn.Module, given: tuple[Mapping[str, Tensor], ...]) -> Any:
            inputs = given[0]
            return ({**inputs, name: replace(with_channels(place, pick_input(inputs, name)))}, *given[1:])

        handle = module.register_forward_pre_hook(before)
    else:

        def after(layer: nn.Module, given: Any, out: Any) -> Tensor:
            return replace(with_channels(place, out))

        handle = layer_of(module, place).register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def check_place(module: nn.Module, place: str, inputs: Mapping[str, Tensor]) -> None:
    """Refuse a place that the network does not have, with a list of those that exist."""
    if not place.startswith(INPUT):
        layer_of(module, place)
    elif (name := place.removeprefix(INPUT)) not in inputs:
        raise InputError(f"There is no input called '{name}'. {did_you_mean(name, inputs)}")


def with_channels(place: str, found: Any) -> Tensor:
    """What stands at a place, once it is known to be a tensor with channels."""
    if isinstance(found, Tensor) and found.ndim >= 2:
        return found
    arrived = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise InputError(f"At '{place}' stands {arrived}: expected a tensor (rows, channels, …). Choose another place.")

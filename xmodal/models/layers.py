"""Layers by name: which there are, what comes out of them, and how to listen to one.

Names are those of ``module.named_modules()``, so no model has to change for its features to be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import evaluating


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within this block every call of ``module`` leaves the outputs of these layers in the dictionary.

    Hooks live only as long as the block: a copy or an export of the module knows nothing of them.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tapped(network, ["0"]) as seen:
        ...     out = network(torch.ones(1, 2))
        >>> torch.equal(seen["0"].relu(), out)
        True
    """
    seen: dict[str, Tensor] = {}
    handles = []
    for name in names:

        def remember(layer: nn.Module, given: Any, out: Any, name: str = name) -> None:
            seen[name] = out

        handles.append(layer_of(module, name).register_forward_hook(remember))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layer_of(module: nn.Module, name: str) -> nn.Module:
    """A layer by its name; a wrong name lists those that exist."""
    layers = dict(module.named_modules())
    if name not in layers or not name:
        raise InputError(f"There is no layer called '{name}'. {did_you_mean(name, [key for key in layers if key])}")
    found: nn.Module = layers[name]
    return found


def output_shapes(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Layer → shape of one sample of its output, in the order in which they run; found by one dry run."""
    names = [name for name, layer in module.named_modules() if name and not isinstance(layer, nn.ModuleDict)]
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for name in names:

        def remember(layer: nn.Module, given: Any, out: Any, name: str = name) -> None:
            if isinstance(out, Tensor) and out.ndim > 1:  # its shape alone: the maps of all layers would fill memories
                shapes[name] = tuple(out.shape[1:])

        handles.append(layer_of(module, name).register_forward_hook(remember))
    try:
        with evaluating(module):
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return shapes

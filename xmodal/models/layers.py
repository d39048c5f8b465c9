"""Layers by name: which ones a network has, the shapes of their outputs, and how to read their outputs.

Names are those of ``module.named_modules()``, so the features of any network can be used without changing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import evaluating


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within this block every call of ``module`` stores the outputs of these layers in the dictionary.

    Hooks exist only inside the block, so a copy or an export of the module does not contain them.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tapped(network, ["0"]) as outputs:
        ...     out = network(torch.ones(1, 2))
        >>> torch.equal(outputs["0"].relu(), out)
        True
    """
    outputs: dict[str, Tensor] = {}
    with _hooked(module, names, outputs.__setitem__):
        yield outputs


@contextmanager
def _hooked(module: nn.Module, names: Sequence[str], receive: Callable[[str, Any], None]) -> Iterator[None]:
    """Within this block each of these layers calls ``receive(name, output)`` after it ran."""
    handles = []
    try:
        for name in names:
            # The name is bound as a default: a closure would see the last name of the loop in every hook.
            def hook(layer: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                receive(name, output)

            handles.append(layer_of(module, name).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_of(module: nn.Module, name: str) -> nn.Module:
    """The layer of this name; an unknown name raises an error that lists all layers."""
    layers = dict(module.named_modules())
    # The empty name is the module itself, which is no layer of it.
    if name not in layers or not name:
        raise InputError(f"There is no layer called '{name}'. {did_you_mean(name, [key for key in layers if key])}")
    layer: nn.Module = layers[name]
    return layer


def output_shapes(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Layer → shape of its output for one sample, in the order in which the layers run, from one forward pass."""
    names = [name for name, layer in module.named_modules() if name and not isinstance(layer, nn.ModuleDict)]
    shapes: dict[str, tuple[int, ...]] = {}

    # Only shapes are kept: the maps of all layers together could exceed the memory.
    def remember(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1:
            shapes[name] = tuple(output.shape[1:])

    with _hooked(module, names, remember), evaluating(module):
        module(inputs)
    return shapes

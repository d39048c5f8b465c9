"""What a function does to tensors, as a list of operations; torch's own tracers do more, and take ten times as long.

The function is run once, for real. Every operation that reaches the dispatcher, beneath autograd, `vmap` and `grad`,
becomes a node of an `fx` graph whose ``meta["val"]`` is its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode


class NotRecordable(Exception):
    """Why a function can't be played back for another model."""


def trace(function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of ``function(*tensors)``, in their order.

    Example:
        >>> graph = trace(lambda a, b: [a + b, a * 2], [torch.ones(2), torch.ones(2)])
        >>> [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        ['aten.add.Tensor', 'aten.mul.Tensor']
    """
    notes = _Notes(tensors)
    with notes:
        found = list(function(*tensors))
    notes.graph.output(tuple(notes.node(tensor) for tensor in found))
    return fx.GraphModule(notes.root, notes.graph)


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what is computed within the block."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root, self.graph = torch.nn.Module(), fx.Graph()
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Tensor] = []  # a number that says which tensor it is must not be given to another one
        self.numbers: set[fx.Node] = set()  # what depends on the inputs
        for place, tensor in enumerate(tensors):
            node = self.graph.placeholder(f"input_{place}")
            self._remember(tensor, node)
            self.numbers.add(node)

    def _remember(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta["val"] = tensor
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def node(self, tensor: Tensor) -> fx.Node:
        """Where a tensor comes from; one from elsewhere becomes a constant."""
        if id(tensor) not in self.nodes:
            name = f"constant_{len(self.alive)}"
            self.root.register_buffer(name, tensor)
            self._remember(tensor, self.graph.get_attr(name))
        return self.nodes[id(tensor)]

    def _noted(self, value: Any) -> Any:
        """Arguments with nodes in place of tensors."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._noted, value))
        if isinstance(value, dict):
            return {key: self._noted(item) for key, item in value.items()}
        return value

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        node = self.graph.call_function(func, self._noted(args), self._noted(kwargs or {}))
        if self.numbers.intersection(node.all_input_nodes):
            self.numbers.add(node)
            if isinstance(found, (bool, int, float)) or torch.Tag.dynamic_output_shape in func.tags:
                raise NotRecordable(f"it looks at the numbers of a tensor ({func})")
        if isinstance(found, Tensor):
            self._remember(found, node)
        elif isinstance(found, (list, tuple)):
            node.meta["val"] = found
            for place, part in enumerate(found):
                if isinstance(part, Tensor):
                    self._part(part, node, place)
        return found

    def _part(self, tensor: Tensor, node: fx.Node, place: int) -> None:
        part = self.graph.call_function(getitem, (node, place))
        if node in self.numbers:
            self.numbers.add(part)
        self._remember(tensor, part)

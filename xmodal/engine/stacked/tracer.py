"""Tracing: the operations of a function on tensors, as a graph.

The function is run once on real tensors. Every operation that reaches torch's dispatcher, below autograd, `vmap` and
`grad`, becomes a node of an `fx` graph whose ``meta["val"]`` is its result. torch's own tracers do more, and take ten
times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode


class NotRecordable(Exception):
    """A function can't be recorded; the message says why."""


def trace(function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of ``function(*tensors)``, in order.

    Example:
        >>> graph = trace(lambda a, b: [a + b, a * 2], [torch.ones(2), torch.ones(2)])
        >>> [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        ['aten.add.Tensor', 'aten.mul.Tensor']
    """
    tracer = _Tracer(tensors)
    with tracer:
        results = list(function(*tensors))
    tracer.graph.output(tuple(tracer.node(tensor) for tensor in results))
    return fx.GraphModule(tracer.root, tracer.graph)


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation within the block."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root, self.graph = torch.nn.Module(), fx.Graph()
        self.nodes: dict[int, fx.Node] = {}  # by id of the tensor
        # Keeps all tensors alive: Python may give the id of a deleted object to a new one.
        self.alive: list[Tensor] = []
        self.dependent: set[fx.Node] = set()  # nodes whose value depends on the inputs
        for number, tensor in enumerate(tensors):
            node = self.graph.placeholder(f"input_{number}")
            self._add(tensor, node)
            self.dependent.add(node)

    def _add(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta["val"] = tensor
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def node(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor; a tensor that no recorded operation returned becomes a constant."""
        if id(tensor) not in self.nodes:
            name = f"constant_{len(self.alive)}"
            self.root.register_buffer(name, tensor)
            self._add(tensor, self.graph.get_attr(name))
        return self.nodes[id(tensor)]

    def _with_nodes(self, value: Any) -> Any:
        """Arguments with nodes in place of tensors."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._with_nodes, value))
        if isinstance(value, dict):
            return {key: self._with_nodes(item) for key, item in value.items()}
        return value

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        node = self.graph.call_function(func, self._with_nodes(args), self._with_nodes(kwargs or {}))
        if self.dependent.intersection(node.all_input_nodes):
            self.dependent.add(node)
            # A Python number computed from the inputs, or a shape that depends on their values, would be a constant of
            # the graph, which is wrong for other inputs.
            if isinstance(result, (bool, int, float)) or torch.Tag.dynamic_output_shape in func.tags:
                raise NotRecordable(f"it looks at the numbers of a tensor ({func})")
        if isinstance(result, Tensor):
            self._add(result, node)
        elif isinstance(result, (list, tuple)):
            node.meta["val"] = result
            for index, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._add_part(part, node, index)
        return result

    def _add_part(self, tensor: Tensor, node: fx.Node, index: int) -> None:
        part = self.graph.call_function(getitem, (node, index))
        if node in self.dependent:
            self.dependent.add(part)
        self._add(tensor, part)

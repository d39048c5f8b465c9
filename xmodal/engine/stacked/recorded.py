"""A function recorded once and played back: what many small steps cost beside their arithmetic disappears.

The same few operations run in every step of a stack of small models, and most of the time goes into everything around
them: transforms, modules, checks, shapes. `record` runs the function once, writes down the operations (`trace`) and
keeps them alone. Before they are played back they are tidied, without a change beyond rounding:

- operations that change nothing (``x * 1``, a view with the same shape) go;
- what is computed twice is computed once;
- products and softmaxes whose last axis is short are written sideways, because their loops run along that axis;
- what does not depend on the weights is computed once per batch, and once altogether where the batch never changes.

Around running statistics, which batch normalisation overwrites, everything stays in its place; where something is
drawn at random, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from xmodal.engine.stacked.tracer import NotRecordable, trace
from xmodal.losses.reduce import numbers_known

aten = torch.ops.aten
SHORT = 16  # a last axis up to here is written sideways on a CPU
# they write to the running statistics that they are given, although their schemas don't say so
STATISTICS = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update")
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default)
PRODUCTS = (aten.mul.Scalar, aten.mul.Tensor, aten.div.Scalar, aten.div.Tensor)


class Recorded:
    """The operations of a function of ``state`` and ``given`` tensors, split by what they depend on.

    Args:
        graph: as `record` traced it.
        states: how many of its inputs are state.
    """

    def __init__(self, graph: fx.GraphModule, states: int) -> None:
        graph.graph.eliminate_dead_code()
        for node in graph.graph.nodes:
            if node.op == "get_attr" and getattr(graph, node.target).ndim:
                raise NotRecordable(
                    "it computes with a tensor that is neither a parameter nor a buffer nor of the batch"
                )
        inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self.used = [bool(node.users) for node in inputs]
        self.bytes = _bytes(graph.graph)
        self._before: fx.GraphModule | None = None
        if any(_is_in_order(node) for node in graph.graph.nodes):
            self._after = graph
        else:
            _tidy(graph.graph, _written(graph.graph))
            self._before, self._after = _split(graph, inputs[:states])
        for part in (self._before, self._after):
            for node in part.graph.nodes if part is not None else ():
                node.meta.clear()  # the results of the trace, which nobody needs any more

    def prepare(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """All that can be computed from ``given`` alone."""
        prepared: Sequence[Tensor] = given if self._before is None else self._before.forward(*given)
        return prepared

    def __call__(self, state: Sequence[Tensor], prepared: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the function returns, from the state and what was prepared."""
        found: Sequence[Tensor] = self._after.forward(*state, *prepared)
        return found


@torch.no_grad()
def record(function: Callable[..., Sequence[Tensor]], state: Sequence[Tensor], given: Sequence[Tensor]) -> Recorded:
    """Trace ``function(*state, *given)``, which must do the same for all tensors of these shapes.

    Example:
        >>> doubled = record(lambda weight, x: [weight * (x + x)], [torch.tensor(3.0)], [torch.tensor(1.0)])
        >>> doubled([torch.tensor(5.0)], doubled.prepare([torch.tensor(1.0)]))
        (tensor(10.),)
    """
    with numbers_known():
        graph = trace(torch.func.functionalize(lambda *tensors: list(function(*tensors))), [*state, *given])
    return Recorded(graph, len(state))


def _tidy(graph: fx.Graph, kept: set[fx.Node]) -> None:
    for rewrite in (_nothing, _constant, _sideways):
        for node in list(graph.nodes):
            if node.op != "call_function" or node in kept:
                continue
            with graph.inserting_before(node):
                other = rewrite(graph, node)
            if other is not None:
                node.replace_all_uses_with(other)
                graph.erase_node(node)
    _undo_twice(graph)
    _merge(graph, kept)
    graph.eliminate_dead_code()


def _nothing(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The input of an operation that returns it as it is."""
    source, value = node.args[0] if node.args else None, node.meta.get("val")
    if not isinstance(source, fx.Node) or not isinstance(value, Tensor):
        return None
    before = source.meta.get("val")
    same = isinstance(before, Tensor) and before.shape == value.shape and before.dtype == value.dtype
    by_one = node.target in PRODUCTS and isinstance(node.args[1], (int, float)) and node.args[1] == 1
    return source if same and (by_one or node.target in VIEWS) else None


def _constant(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Ones and zeros shaped like something depend on its shape alone, which is known; views must not mind strides."""
    value: Any = node.meta.get("val")
    if node.target in (aten.ones_like.default, aten.zeros_like.default):
        number = int(node.target is aten.ones_like.default)
        options = {"dtype": value.dtype, "device": value.device}
        return _call(graph, aten.full.default, list(value.shape), number, value=value, **options)
    if node.target in (aten.view.default, aten._unsafe_view.default):
        return _call(graph, aten.reshape.default, *node.args, value=value)
    return None


def _sideways(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The same result, computed with its last two axes exchanged."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.ndim < 2 or value.device.type != "cpu" or value.shape[-1] > SHORT:
        return None
    args, turned, last = node.args, value.transpose(-1, -2), value.ndim - 1
    if node.target is aten.bmm.default and value.shape[1] > value.shape[2]:
        found = _call(graph, aten.bmm.default, _turn(graph, args[1]), _turn(graph, args[0]), value=turned)
    elif node.target in (aten._log_softmax.default, aten._softmax.default) and args[1] in (last, -1):
        found = _call(graph, node.target, _turn(graph, args[0]), last - 1, args[2], value=turned)
    elif node.target in (aten._log_softmax_backward_data.default, aten._softmax_backward_data.default) and args[2] in (
        last,
        -1,
    ):
        # contiguous here and not within the operation, so that a constant is turned once
        slope = _turn(graph, args[0])
        slope = _call(graph, aten.contiguous.default, slope, value=slope.meta["val"].contiguous())
        found = _call(graph, node.target, slope, _turn(graph, args[1]), last - 1, args[3], value=turned)
    else:
        return None
    return _turn(graph, found)


def _turn(graph: fx.Graph, node: Any) -> fx.Node:
    return _call(graph, aten.transpose.int, node, -2, -1, value=node.meta["val"].transpose(-2, -1))


def _call(graph: fx.Graph, target: Any, *args: Any, value: Tensor, **options: Any) -> fx.Node:
    node = graph.call_function(target, args, options)
    node.meta["val"] = value
    return node


def _undo_twice(graph: fx.Graph) -> None:
    """Two exchanges of the same axes are none."""

    def axes(node: fx.Node) -> set[int]:
        return {axis % node.meta["val"].ndim for axis in node.args[1:]}

    for node in graph.nodes:
        source = node.args[0] if node.target is aten.transpose.int else None
        if isinstance(source, fx.Node) and source.target is aten.transpose.int and axes(source) == axes(node):
            node.replace_all_uses_with(source.args[0])


def _merge(graph: fx.Graph, kept: set[fx.Node]) -> None:
    """What is computed twice is computed once."""
    seen: dict[tuple[Any, str, str], fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("call_function", "get_attr") and node not in kept:
            first = seen.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)


def _is_in_order(node: fx.Node) -> bool:
    """Whether a graph with this operation must be played back as it is: it draws numbers, or writes to anything."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in node.target.tags or node.target._schema.is_mutable


def _written(graph: fx.Graph) -> set[fx.Node]:
    """Running statistics that are overwritten on the way, all views of them, and every operation that sees them."""
    places: set[int] = set()
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name.split("::")[1] in STATISTICS:
            written = [arg.meta["val"] for arg in node.args[3:5] if isinstance(arg, fx.Node)]
            places.update(tensor.untyped_storage().data_ptr() for tensor in written)
    there = {
        node
        for node in graph.nodes
        if isinstance(value := node.meta.get("val"), Tensor) and value.untyped_storage().data_ptr() in places
    }
    return there | {user for node in there for user in node.users}


def _split(graph: fx.GraphModule, states: Sequence[fx.Node]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The part that does not depend on the state, and the rest, which takes what the first part leaves."""
    nodes = [node for node in graph.graph.nodes if node.op != "output"]
    moving = set(states)
    for node in nodes:
        if any(source in moving for source in node.all_input_nodes):
            moving.add(node)
    still = [node for node in nodes if node not in moving]
    passed = [node for node in still if any(user in moving or user.op == "output" for user in node.users)]
    first, second = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in still:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in passed))
    copies = {node: second.node_copy(node) for node in states}
    copies.update({node: second.placeholder(f"given_{node.name}") for node in passed})
    for node in nodes:
        if node in moving and node.op != "placeholder":
            copies[node] = second.node_copy(node, copies.__getitem__)
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    second.output(tuple(copies[node] for node in output.args[0]))
    return fx.GraphModule(graph, first), fx.GraphModule(graph, second)


def _bytes(graph: fx.Graph) -> int:
    """What is written when it is played back; a view of something else takes nothing."""
    taken: dict[int, int] = {}
    for node in graph.nodes:
        values = node.meta.get("val")
        for tensor in values if isinstance(values, (tuple, list)) else [values]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                taken.setdefault(storage.data_ptr(), storage.nbytes() if node.op == "call_function" else 0)
    return sum(taken.values())

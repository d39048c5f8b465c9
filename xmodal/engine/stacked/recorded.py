"""A function recorded once and replayed, without the overhead around its operations.

Every step of a stack of small models runs the same few operations, and most of its time is spent around them: in
transforms, modules, checks, shapes. `record` runs the function once and records its operations (`trace`), which are
then replayed alone. They are simplified first; results change by rounding at most:

- operations without effect (``x * 1``, a view of the same shape) are removed;
- what is computed twice is computed once;
- matrix products and softmaxes with a short last axis are computed transposed: CPU kernels loop along that axis;
- what does not depend on the state is computed once per batch, or only once if the batch never changes.

Operations on running statistics, which batch normalisation overwrites, keep their order; in a function that draws
random numbers all operations do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from xmodal.engine.stacked.tracer import NotRecordable, trace
from xmodal.losses.reduce import numbers_known

aten = torch.ops.aten
SHORT = 16  # last axes of up to so many entries are moved, on a CPU
# these operations overwrite running statistics that are passed to them, although their schemas don't say so
STATISTICS = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update")
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default)
PRODUCTS = (aten.mul.Scalar, aten.mul.Tensor, aten.div.Scalar, aten.div.Tensor)


class Recorded:
    """A recorded function of ``state`` and ``given`` tensors, split in two: what the state affects, and the rest.

    Args:
        graph: as `trace` returns it.
        states: number of inputs that are state; they come first.
    """

    def __init__(self, graph: fx.GraphModule, states: int) -> None:
        graph.graph.eliminate_dead_code()
        for node in graph.graph.nodes:
            # A tensor from elsewhere, such as a weight of a frozen network, may differ from model to model. Scalars are
            # taken to be numbers of the code.
            if node.op == "get_attr" and getattr(graph, node.target).ndim:
                raise NotRecordable(
                    "it computes with a tensor that is neither a parameter nor a buffer nor of the batch"
                )
        inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self.used = [bool(node.users) for node in inputs]
        self.bytes = _bytes(graph.graph)
        self._before: fx.GraphModule | None = None
        if any(_keeps_order(node) for node in graph.graph.nodes):
            self._after = graph
        else:
            _simplify(graph.graph, _around_statistics(graph.graph))
            self._before, self._after = _split(graph, inputs[:states])
        for part in (self._before, self._after):
            # results of the traced run, which would keep their memory
            for node in part.graph.nodes if part is not None else ():
                node.meta.clear()

    def prepare(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute what depends on ``given`` only."""
        prepared: Sequence[Tensor] = given if self._before is None else self._before.forward(*given)
        return prepared

    def __call__(self, state: Sequence[Tensor], prepared: Sequence[Tensor]) -> Sequence[Tensor]:
        """The function's results for a state and what `prepare` returned."""
        results: Sequence[Tensor] = self._after.forward(*state, *prepared)
        return results


@torch.no_grad()
def record(function: Callable[..., Sequence[Tensor]], state: Sequence[Tensor], given: Sequence[Tensor]) -> Recorded:
    """Record ``function(*state, *given)``, which must run the same operations for all tensors of these shapes.

    Example:
        >>> doubled = record(lambda weight, x: [weight * (x + x)], [torch.tensor(3.0)], [torch.tensor(1.0)])
        >>> doubled([torch.tensor(5.0)], doubled.prepare([torch.tensor(1.0)]))
        (tensor(10.),)
    """
    # functionalize: operations in place become operations that return new tensors, so that the graph can be changed
    with numbers_known():
        graph = trace(torch.func.functionalize(lambda *tensors: list(function(*tensors))), [*state, *given])
    return Recorded(graph, len(state))


def _simplify(graph: fx.Graph, kept: set[fx.Node]) -> None:
    for rewrite in (_without_effect, _constant, _transposed):
        for node in list(graph.nodes):
            if node.op != "call_function" or node in kept:
                continue
            with graph.inserting_before(node):
                other = rewrite(graph, node)
            if other is not None:
                node.replace_all_uses_with(other)
                graph.erase_node(node)
    _cancel_transposes(graph)
    _merge(graph, kept)
    graph.eliminate_dead_code()


def _without_effect(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The input of an operation that returns it unchanged."""
    source, value = node.args[0] if node.args else None, node.meta.get("val")
    if not isinstance(source, fx.Node) or not isinstance(value, Tensor):
        return None
    before = source.meta.get("val")
    same = isinstance(before, Tensor) and before.shape == value.shape and before.dtype == value.dtype
    by_one = node.target in PRODUCTS and isinstance(node.args[1], (int, float)) and node.args[1] == 1
    return source if same and (by_one or node.target in VIEWS) else None


def _constant(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Ones and zeros that depend on the shape of a tensor only, and views in a form that allows any strides."""
    value: Any = node.meta.get("val")
    if node.target in (aten.ones_like.default, aten.zeros_like.default):
        number = int(node.target is aten.ones_like.default)
        options = {"dtype": value.dtype, "device": value.device}
        return _call(graph, aten.full.default, list(value.shape), number, value=value, **options)
    # `view` fails on the transposed tensors that `_transposed` produces, `reshape` copies them
    if node.target in (aten.view.default, aten._unsafe_view.default):
        return _call(graph, aten.reshape.default, *node.args, value=value)
    return None


def _transposed(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The same result, computed with its last two axes exchanged and then exchanged back."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.ndim < 2 or value.device.type != "cpu" or value.shape[-1] > SHORT:
        return None
    args, turned, last = node.args, value.transpose(-1, -2), value.ndim - 1
    if node.target is aten.bmm.default and value.shape[1] > value.shape[2]:
        # (a b)ᵀ = bᵀ aᵀ
        result = _call(graph, aten.bmm.default, _turn(graph, args[1]), _turn(graph, args[0]), value=turned)
    elif node.target in (aten._log_softmax.default, aten._softmax.default) and args[1] in (last, -1):
        result = _call(graph, node.target, _turn(graph, args[0]), last - 1, args[2], value=turned)
    elif node.target in (aten._log_softmax_backward_data.default, aten._softmax_backward_data.default) and args[2] in (
        last,
        -1,
    ):
        # The kernel would copy its first argument to make it contiguous. As a separate operation the copy can be moved
        # out of the step, if the gradient does not depend on the state.
        gradient = _turn(graph, args[0])
        gradient = _call(graph, aten.contiguous.default, gradient, value=gradient.meta["val"].contiguous())
        result = _call(graph, node.target, gradient, _turn(graph, args[1]), last - 1, args[3], value=turned)
    else:
        return None
    return _turn(graph, result)


def _turn(graph: fx.Graph, node: Any) -> fx.Node:
    return _call(graph, aten.transpose.int, node, -2, -1, value=node.meta["val"].transpose(-2, -1))


def _call(graph: fx.Graph, target: Any, *args: Any, value: Tensor, **options: Any) -> fx.Node:
    node = graph.call_function(target, args, options)
    node.meta["val"] = value
    return node


def _cancel_transposes(graph: fx.Graph) -> None:
    """Remove pairs of transposes of the same axes, one after the other."""

    def axes(node: fx.Node) -> set[int]:
        return {axis % node.meta["val"].ndim for axis in node.args[1:]}

    for node in graph.nodes:
        source = node.args[0] if node.target is aten.transpose.int else None
        if isinstance(source, fx.Node) and source.target is aten.transpose.int and axes(source) == axes(node):
            node.replace_all_uses_with(source.args[0])


def _merge(graph: fx.Graph, kept: set[fx.Node]) -> None:
    """Remove operations with the same arguments as an earlier one."""
    seen: dict[tuple[Any, str, str], fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("call_function", "get_attr") and node not in kept:
            first = seen.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)


def _keeps_order(node: fx.Node) -> bool:
    """Whether a graph with this operation must not be changed: it draws random numbers, or writes to a tensor."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in node.target.tags or node.target._schema.is_mutable


def _around_statistics(graph: fx.Graph) -> set[fx.Node]:
    """Nodes of running statistics that are overwritten, of views of them, and of operations that read them."""
    addresses: set[int] = set()
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name.split("::")[1] in STATISTICS:
            written = [arg.meta["val"] for arg in node.args[3:5] if isinstance(arg, fx.Node)]
            addresses.update(tensor.untyped_storage().data_ptr() for tensor in written)
    statistics = {
        node
        for node in graph.nodes
        if isinstance(value := node.meta.get("val"), Tensor) and value.untyped_storage().data_ptr() in addresses
    }
    return statistics | {user for node in statistics for user in node.users}


def _split(graph: fx.GraphModule, states: Sequence[fx.Node]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The part that does not depend on the state, and the rest, which reads the results of the first part."""
    nodes = [node for node in graph.graph.nodes if node.op != "output"]
    dependent = set(states)
    for node in nodes:
        if any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    independent = [node for node in nodes if node not in dependent]
    passed = [node for node in independent if any(user in dependent or user.op == "output" for user in node.users)]
    first, second = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in independent:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in passed))
    copies = {node: second.node_copy(node) for node in states}
    copies.update({node: second.placeholder(f"given_{node.name}") for node in passed})
    for node in nodes:
        if node in dependent and node.op != "placeholder":
            copies[node] = second.node_copy(node, copies.__getitem__)
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    second.output(tuple(copies[node] for node in output.args[0]))
    return fx.GraphModule(graph, first), fx.GraphModule(graph, second)


def _bytes(graph: fx.Graph) -> int:
    """Memory of all results of a replay; views take none."""
    sizes: dict[int, int] = {}
    for node in graph.nodes:
        values = node.meta.get("val")
        for tensor in values if isinstance(values, (tuple, list)) else [values]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                sizes.setdefault(storage.data_ptr(), storage.nbytes() if node.op == "call_function" else 0)
    return sum(sizes.values())

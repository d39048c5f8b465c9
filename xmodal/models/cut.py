"""A network cut in two at a feature layer, so that the head runs once and the tail many times.

The network needs no special form. torch.fx records which steps run after the layer. It cannot follow Python code that
decides on values: `split` then returns None, and callers run the whole network with the features replaced
(`xmodal.models.feature_layers`). A cut is used only if it gives the outputs of the whole network on a few rows.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from xmodal.errors import InputError
from xmodal.models.feature_layers import INPUT, replacing, with_channels
from xmodal.models.layers import layer_of

Context = Mapping[fx.Node, Any]  # results of the head that the tail needs in addition to the features
SAME = (nn.Identity, nn.Dropout)  # in eval mode their output is their input
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # their output is a sum over their input channels


class Split:
    """The steps of a network: those that depend on one of them form the tail, the others the head.

    Args:
        graph: steps of a network; its only placeholder without a default is the dictionary of inputs.
        parts: name → layer or tensor that the steps refer to.
        node: the step whose result is the features.
    """

    def __init__(self, graph: fx.Graph, parts: Mapping[str, Any], node: fx.Node) -> None:
        self.graph, self.parts, self.node = graph, parts, node
        after: dict[fx.Node, None] = {}
        rows: set[fx.Node] = set()
        for step in graph.nodes:
            if any(source is node or source in after for source in step.all_input_nodes):
                after[step] = None
            if step.op == "placeholder" or rows.intersection(step.all_input_nodes):
                rows.add(step)
        self.tail_steps = list(after)
        self.head_steps = [step for step in graph.nodes if step not in after]
        needed = {source for step in self.tail_steps for source in step.all_input_nodes if source not in after}
        self._handed = [step for step in self.head_steps if step in needed and step is not node]
        self._rows = rows  # steps that depend on the inputs; others, such as weights, are the same for all rows
        self._in_place = {step for step in self.tail_steps if self._may_overwrite(step)}

    @property
    def matters(self) -> bool:
        """Whether the output of the network depends on the features."""
        return any(step.op == "output" for step in self.tail_steps)

    def head(self, inputs: Mapping[str, Tensor], *, most: int | None = None) -> tuple[Tensor, Context]:
        """Run the head: features (rows, channels, …), and the other results that the tail needs.

        Args:
            inputs: of the network.
            most: number of rows to run at a time; None: all of them.
        """
        rows = len(next(iter(inputs.values())))
        if most is None or rows <= most or any(len(value) != rows for value in inputs.values()):
            return self._head(inputs)
        starts = range(0, rows, most)
        parts = [self._head({name: value[at : at + most] for name, value in inputs.items()}) for at in starts]
        contexts = [context for _, context in parts]
        # The first part has exactly `most` rows, so a result with that length is taken to have one entry per row.
        context = {
            step: torch.cat([part[step] for part in contexts]) if self._per_row(step, value, most) else value
            for step, value in contexts[0].items()
        }
        return torch.cat([features for features, _ in parts]), context

    def _head(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Context]:
        results: dict[fx.Node, Any] = {}
        for step in self.head_steps:
            results[step] = inputs if step.op == "placeholder" else self._run(step, results)
            # A copy, because a later step of the head may change the tensor in place.
            if step is self.node:
                results[step] = with_channels(str(step.target), results[step]).clone()
        return results[self.node], {step: results[step] for step in self._handed}

    def _per_row(self, step: fx.Node, value: Any, rows: int) -> bool:
        return step in self._rows and isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows

    def tail(self, features: Tensor, context: Context, *, spend: bool = False) -> Tensor:
        """Run the tail: the outputs of the network from features.

        Args:
            features: (rows, channels, …).
            context: of the same rows.
            spend: whether layers that work in place may overwrite both; otherwise copies are made.
        """
        results = dict(context) if spend else {step: _cloned(value) for step, value in context.items()}
        results[self.node] = features if spend else features.clone()
        for step in self.tail_steps:
            if spend and step in self._in_place:
                results[step] = torch.relu_(results[step.all_input_nodes[0]])
            else:
                results[step] = self._run(step, results)
        return cast(Tensor, results[self.tail_steps[-1]])

    def pick(self, context: Context, rows: int, index: Tensor) -> Context:
        """The context of some rows, in any order, also repeated.

        Args:
            context: of ``rows`` rows.
            rows: their number.
            index: numbers of the rows to pick.
        """
        per_row = {step: self._per_row(step, value, rows) for step, value in context.items()}
        return {step: value[index] if per_row[step] else _cloned(value) for step, value in context.items()}

    def double(self) -> Split:
        """The same cut in float64. Only the layers of the tail are copied, so only the tail can be run."""
        parts = dict(self.parts)
        for step in self.tail_steps:
            if step.op == "call_module":
                parts[str(step.target)] = copy.deepcopy(self.parts[str(step.target)]).double()
        return Split(self.graph, parts, self.node)

    def first_layer(self) -> tuple[nn.Module, bool, Split] | None:
        """The linear layer or convolution with which the tail begins, if it does.

        Returns:
            The layer, whether the features are flattened to (rows, numbers) before it, and the cut behind that layer.
        """
        step, flat = self.node, False
        while len(step.users) == 1:
            step = next(iter(step.users))
            if len(step.all_input_nodes) != 1:
                return None
            if self._flattens(step):
                flat = True
                continue
            if step.op != "call_module":
                return None
            layer = self.parts[str(step.target)]
            if self._is_plain(step, WEIGHTED):
                return layer, flat, Split(self.graph, self.parts, step)
            if type(layer) not in SAME or layer.training:
                return None
        return None

    def _flattens(self, step: fx.Node) -> bool:
        if step.op == "call_module":
            layer = self.parts[str(step.target)]
            return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
        called = step.target is torch.flatten if step.op == "call_function" else step.target == "flatten"
        return called and step.args[1:] == (1,) and not step.kwargs

    def _may_overwrite(self, step: fx.Node) -> bool:
        """Whether a step is a ReLU that alone reads a tensor which nothing else holds, so that it needs no new one."""
        if not self._is_plain(step, (nn.ReLU,)) or len(step.all_input_nodes[0].users) != 1:
            return False
        source = step.all_input_nodes[0]
        return source is self.node or self._is_plain(source, WEIGHTED)

    def _is_plain(self, step: fx.Node, types: tuple[type[nn.Module], ...]) -> bool:
        """Whether a step is a layer of exactly these types, without hooks: a subclass or a hook may compute more."""
        layer = self.parts[str(step.target)] if step.op == "call_module" else None
        return type(layer) in types and not (layer._forward_hooks or layer._forward_pre_hooks)  # type: ignore[union-attr]

    def _run(self, step: fx.Node, results: Mapping[fx.Node, Any]) -> Any:
        args = fx.node.map_arg(step.args, results.__getitem__)
        keywords = fx.node.map_arg(step.kwargs, results.__getitem__)
        if step.op == "call_module":
            return self.parts[str(step.target)](*args, **keywords)
        if step.op == "call_function":
            return cast(Any, step.target)(*args, **keywords)
        if step.op == "call_method":
            return getattr(args[0], str(step.target))(*args[1:], **keywords)
        if step.op == "get_attr":
            return self.parts[str(step.target)]
        return args[0]  # the output


def split(
    module: nn.Module, layer: str, inputs: Mapping[str, Tensor], *, most: int | None = None
) -> tuple[Split, tuple[Tensor, Context]] | tuple[None, None]:
    """Cut a network in eval mode at a feature layer.

    Args:
        module: takes a dictionary of inputs.
        layer: name of a layer, or ``input:<modality>``.
        inputs: rows to run the head on; on the first two the cut is compared with the whole network.
        most: number of rows to run at a time; None: all of them. A network whose rows depend on each other is not cut.

    Returns:
        The cut, and the result of its head on the inputs; (None, None) if the network cannot be cut.

    Example:
        >>> from xmodal.models.network import wrap
        >>> network = wrap(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), ["sound"]).eval()
        >>> sound = {"sound": torch.ones(4, 2)}
        >>> cut, (features, context) = split(network, "module.1", sound)
        >>> torch.equal(cut.tail(features, context), network(sound))
        True
    """
    # First every step is recorded. If Python code somewhere decides on values, that fails, and the second attempt
    # records only the modules on the way to the layer, with all others as single steps.
    for deep in (True, False):
        try:
            cut = _traced(module, layer, tuple(inputs), deep)
            if cut is not None:
                features, context = cut.head(inputs, most=most)
                if not cut.matters or _agrees(cut, module, layer, inputs, features, context):
                    return cut, (features, context)
        except InputError:
            raise
        # torch.fx and the code that it follows may raise anything, and recorded steps may fail when they run. Nothing
        # is lost: the caller then runs the whole network.
        except Exception:
            continue
    return None, None


class _Named(nn.Module):
    """Passes a network a real dictionary, since the inputs are a proxy while steps are recorded."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        outputs: Tensor = self.network({name: inputs[name] for name in self.names})
        return outputs


class _Tracer(fx.Tracer):
    def __init__(self, layer: str, deep: bool) -> None:
        super().__init__()
        self.layer, self.deep = f"network.{layer}", deep

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == self.layer:
            return True
        if self.deep:
            return super().is_leaf_module(m, module_qualified_name)
        return module_qualified_name != "network" and not self.layer.startswith(f"{module_qualified_name}.")


def _traced(module: nn.Module, layer: str, names: tuple[str, ...], deep: bool) -> Split | None:
    root = _Named(module, names)
    graph = _Tracer(layer, deep).trace(root)
    if layer.startswith(INPUT):
        name = layer.removeprefix(INPUT)
        # `_Named` reads each input once, before the network runs; a later step of the same form is the network's own.
        steps = [step for step in graph.nodes if step.target is operator.getitem and step.args[1] == name][:1]
    else:
        # Compared by identity: a module that is shared has several names, and torch.fx records only one of them.
        target = layer_of(module, layer)
        calls = [step for step in graph.nodes if step.op == "call_module"]
        steps = [step for step in calls if root.get_submodule(str(step.target)) is target]
    # A layer that runs twice has two sets of features; there is no single place to cut.
    if len(steps) != 1:
        return None
    parts: dict[str, Any] = {}
    for step in graph.nodes:
        if step.op in ("call_module", "get_attr"):
            parts[str(step.target)] = operator.attrgetter(str(step.target))(root)
    return Split(graph, parts, steps[0])


def _agrees(
    cut: Split, module: nn.Module, layer: str, inputs: Mapping[str, Tensor], features: Tensor, context: Context
) -> bool:
    """Whether the whole network has the same features, and the same outputs after they are replaced by others."""
    rows = torch.arange(min(2, len(features)), device=features.device)
    few = {name: value[:2] for name, value in inputs.items()}
    other = -features[rows].flip(0) if features.is_floating_point() else features[rows].flip(0)
    seen: list[Tensor] = []

    def exchange(original: Tensor) -> Tensor:
        seen.append(original.clone())
        return other.clone()

    with replacing(module, layer, exchange):
        outputs = module(few)
    same = len(seen) == 1 and alike(features[rows], seen[0])
    return same and alike(cut.tail(other, cut.pick(context, len(features), rows)), outputs)


def alike(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Whether two outputs are the same tensor up to rounding in float32."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape):
        return False
    # The tolerance is relative to the largest value, since a small one may be a difference of large ones. The tiny
    # constant keeps it above zero for tensors of zeros.
    return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max() + 1e-30)))


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value

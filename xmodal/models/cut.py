"""A network cut in two at a place: the head runs once, the tail again and again.

No model has to be written for this. torch.fx writes down which layers run after the place; where Python decides on
values, which it cannot follow, `split` says so by None, and callers run the whole network with the place replaced
(`xmodal.models.feature_layers`). A cut is believed only after it gave the same answers as that on a few rows.
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

Context = Mapping[fx.Node, Any]  # what the head hands to the tail besides the features
SAME = (nn.Identity, nn.Dropout)  # say what they hear, in eval mode


class Split:
    """A network's steps, divided into those that depend on one of them, the tail, and the others, the head.

    Args:
        graph: steps of a network; its only placeholder without default is the dictionary of inputs.
        parts: name → layer or tensor that the steps name.
        node: the step whose result is the features.
    """

    def __init__(self, graph: fx.Graph, parts: Mapping[str, Any], node: fx.Node) -> None:
        self.graph, self.parts, self.node = graph, parts, node
        after: dict[fx.Node, None] = {}
        rows: set[fx.Node] = set()
        for step in graph.nodes:
            if any(given is node or given in after for given in step.all_input_nodes):
                after[step] = None
            if step.op == "placeholder" or rows.intersection(step.all_input_nodes):
                rows.add(step)
        self.tail_steps = list(after)
        self.head_steps = [step for step in graph.nodes if step not in after]
        handed = {given for step in self.tail_steps for given in step.all_input_nodes if given not in after}
        self._handed = [step for step in self.head_steps if step in handed and step is not node]
        self._rows = rows  # steps that depend on the inputs; others, such as weights, are the same for all rows

    @property
    def matters(self) -> bool:
        """Whether the answer depends on the place at all."""
        return any(step.op == "output" for step in self.tail_steps)

    def head(self, inputs: Mapping[str, Tensor], *, most: int | None = None) -> tuple[Tensor, Context]:
        """Features (rows, channels, …), and what else the tail needs.

        Args:
            inputs: of the network.
            most: rows to run at a time; None: all of them.
        """
        rows = len(next(iter(inputs.values())))
        if most is None or rows <= most or any(len(value) != rows for value in inputs.values()):
            return self._head(inputs)
        starts = range(0, rows, most)
        parts = [self._head({name: value[at : at + most] for name, value in inputs.items()}) for at in starts]
        contexts = [context for _, context in parts]
        context = {
            step: torch.cat([part[step] for part in contexts]) if self._per_row(step, value, most) else value
            for step, value in contexts[0].items()
        }
        return torch.cat([features for features, _ in parts]), context

    def _head(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Context]:
        known: dict[fx.Node, Any] = {}
        for step in self.head_steps:
            known[step] = inputs if step.op == "placeholder" else self._run(step, known)
            if step is self.node:  # a copy: what runs later may work in place
                known[step] = with_channels(str(step.target), known[step]).clone()
        return known[self.node], {step: known[step] for step in self._handed}

    def _per_row(self, step: fx.Node, value: Any, rows: int) -> bool:
        return step in self._rows and isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows

    def tail(self, features: Tensor, context: Context, *, spend: bool = False) -> Tensor:
        """Answers from features.

        Args:
            features: (rows, channels, …).
            context: of the same rows.
            spend: whether layers that work in place may do so on both; otherwise they are left as they are.
        """
        known = dict(context) if spend else {step: _cloned(value) for step, value in context.items()}
        known[self.node] = features if spend else features.clone()
        for step in self.tail_steps:
            known[step] = self._run(step, known)
        return cast(Tensor, known[self.tail_steps[-1]])

    def pick(self, context: Context, rows: int, index: Tensor) -> Context:
        """The context of some rows, in any order and number.

        Args:
            context: of ``rows`` rows.
            rows: how many those are.
            index: which of them.
        """
        mine = {step: self._per_row(step, value, rows) for step, value in context.items()}
        return {step: value[index] if mine[step] else _cloned(value) for step, value in context.items()}

    def double(self) -> Split:
        """The same in float64. Only the layers of the tail are copied, so only the tail can be run."""
        parts = dict(self.parts)
        for step in self.tail_steps:
            if step.op == "call_module":
                parts[str(step.target)] = copy.deepcopy(self.parts[str(step.target)]).double()
        return Split(self.graph, parts, self.node)

    def after_linear(self) -> tuple[nn.Linear, Split] | None:
        """The linear layer that comes first in the tail, if one does, and the split behind it."""
        step = self.node
        while len(step.users) == 1:
            step = next(iter(step.users))
            if step.op != "call_module" or len(step.all_input_nodes) != 1:
                return None
            layer = self.parts[str(step.target)]
            if type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks:
                return layer, Split(self.graph, self.parts, step)
            if type(layer) not in SAME or layer.training:
                return None
        return None

    def _run(self, step: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
        args = fx.node.map_arg(step.args, known.__getitem__)
        words = fx.node.map_arg(step.kwargs, known.__getitem__)
        if step.op == "call_module":
            return self.parts[str(step.target)](*args, **words)
        if step.op == "call_function":
            return cast(Any, step.target)(*args, **words)
        if step.op == "call_method":
            return getattr(args[0], str(step.target))(*args[1:], **words)
        if step.op == "get_attr":
            return self.parts[str(step.target)]
        return args[0]  # the output


def split(
    module: nn.Module, place: str, inputs: Mapping[str, Tensor], *, most: int | None = None
) -> tuple[Split, tuple[Tensor, Context]] | tuple[None, None]:
    """Cut a network in eval mode at a place.

    Args:
        module: takes a dictionary of inputs.
        place: name of a layer, or ``input:<modality>``.
        inputs: rows to run the head on; on the first two the cut is compared with the whole network.
        most: rows to run at a time; None: all of them. Where rows are not independent, there is no cut.

    Returns:
        The cut, and what its head makes of the inputs; two times None where the network cannot be cut.

    Example:
        >>> from xmodal.models.network import wrap
        >>> network = wrap(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), ["sound"]).eval()
        >>> sound = {"sound": torch.ones(4, 2)}
        >>> cut, (features, context) = split(network, "module.1", sound)
        >>> torch.equal(cut.tail(features, context), network(sound))
        True
    """
    for deep in (True, False):  # first every step, then only as much of the code as leads to the place
        try:
            found = _traced(module, place, tuple(inputs), deep)
            if found is not None:
                features, context = found.head(inputs, most=most)
                if not found.matters or _agrees(found, module, place, inputs, features, context):
                    return found, (features, context)
        except InputError:
            raise
        except Exception:  # torch.fx and the code it follows may raise anything; what it wrote may not even run
            continue
    return None, None


class _Named(nn.Module):
    """Gives a network a real dictionary, whatever stands for the inputs."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        answers: Tensor = self.network({name: inputs[name] for name in self.names})
        return answers


class _Tracer(fx.Tracer):
    def __init__(self, place: str, deep: bool) -> None:
        super().__init__()
        self.place, self.deep = f"network.{place}", deep

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == self.place:
            return True
        if self.deep:
            return super().is_leaf_module(m, module_qualified_name)
        return module_qualified_name != "network" and not self.place.startswith(f"{module_qualified_name}.")


def _traced(module: nn.Module, place: str, names: tuple[str, ...], deep: bool) -> Split | None:
    root = _Named(module, names)
    graph = _Tracer(place, deep).trace(root)
    if place.startswith(INPUT):
        name = place.removeprefix(INPUT)
        found = [step for step in graph.nodes if step.target is operator.getitem and step.args[1] == name][:1]
    else:
        wanted = layer_of(module, place)
        calls = [step for step in graph.nodes if step.op == "call_module"]
        found = [step for step in calls if root.get_submodule(str(step.target)) is wanted]
    if len(found) != 1:
        return None
    parts: dict[str, Any] = {}
    for step in graph.nodes:
        if step.op in ("call_module", "get_attr"):
            parts[str(step.target)] = operator.attrgetter(str(step.target))(root)
    return Split(graph, parts, found[0])


def _agrees(
    found: Split, module: nn.Module, place: str, inputs: Mapping[str, Tensor], features: Tensor, context: Context
) -> bool:
    """Whether the whole network sees the same features, and answers the same when others are put in their place."""
    rows = torch.arange(min(2, len(features)), device=features.device)
    few = {name: value[:2] for name, value in inputs.items()}
    other = -features[rows].flip(0) if features.is_floating_point() else features[rows].flip(0)
    seen: list[Tensor] = []

    def exchange(there: Tensor) -> Tensor:
        seen.append(there.clone())
        return other.clone()

    with replacing(module, place, exchange):
        answers = module(few)
    same = len(seen) == 1 and alike(features[rows], seen[0])
    return same and alike(found.tail(other, found.pick(context, len(features), rows)), answers)


def alike(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Whether two answers are the same tensor up to rounding in float32."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape):
        return False
    return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max() + 1e-30)))


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value

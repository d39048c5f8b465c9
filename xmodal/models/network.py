"""Network: an encoder per modality, fusion, head; and the ways in which a student comes to be.

inputs ──encoders──▶ embeddings ──sum or concat──▶ features ──head──▶ outputs

`build_for` picks encoders that suit the data, `student_of` takes a user's own module, `rebuild` reads a description.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xmodal.cards import load
from xmodal.errors import InputError, did_you_mean
from xmodal.models import BUILDERS, ENCODERS, NETWORKS
from xmodal.types import DataInfo, InputInfo, Student

M = TypeVar("M", bound=nn.Module)
FUSIONS = ("sum", "concat")
PREFIX = "from_"  # nn.ModuleDict refuses names of its own methods, and a modality may be called 'values'


class Network(nn.Module):
    """An encoder per modality, their fusion, and a head.

    Args:
        encoders: modality → network with an attribute ``width``.
        head: maps the fused embedding (batch, ``width``) to outputs (batch, outputs).
        fusion: ``sum`` (embeddings of unlike width pass through a linear layer to the largest) or ``concat``.
        dense: whether embeddings are maps (batch, ``width``, …, …) and there is an output for every place.
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module], head: nn.Module, *, fusion: str = "sum", dense: bool = False
    ) -> None:
        super().__init__()
        widths = {name: width_of(name, encoder) for name, encoder in encoders.items()}
        self.modalities = tuple(encoders)
        self.fusion = fusion
        self.width = fused_width(list(widths.values()), fusion)
        self.encoders = nn.ModuleDict({_key(name): encoder for name, encoder in encoders.items()})
        unlike = fusion == "sum" and len(set(widths.values())) > 1
        self.projections = nn.ModuleDict(
            {
                _key(name): nn.Conv2d(width, self.width, 1) if dense else nn.Linear(width, self.width)
                for name, width in widths.items()
                if unlike
            }
        )
        self.embedding = nn.Identity()  # a name under which the fused embedding can be tapped
        self.head = head

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The fused embedding (batch, width), or maps (batch, width, …, …)."""
        parts = [self._embed(name, inputs) for name in self.modalities]
        return torch.cat(parts, dim=1) if self.fusion == "concat" else reduce(add, parts)

    def _embed(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        embedding: Tensor = self.encoders[_key(name)](pick_input(inputs, name))
        return self.projections[_key(name)](embedding) if len(self.projections) else embedding

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, …) in, outputs (batch, outputs) or (batch, outputs, …, …) out."""
        outputs: Tensor = self.head(self.embedding(self.features(inputs)))
        return outputs


class Reads(nn.Module):
    """Lets a module that takes tensors read a dictionary of inputs.

    Args:
        module: takes one tensor when there is one modality, a dictionary of them when there are several.
        modalities: what it reads.
    """

    def __init__(self, module: nn.Module, modalities: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.modalities = tuple(modalities)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, …) in, the module's outputs out."""
        read = {name: pick_input(inputs, name) for name in self.modalities}
        outputs: Tensor = self.module(read if len(read) > 1 else read[self.modalities[0]])
        return outputs


def wrap(module: nn.Module, modalities: Sequence[str]) -> nn.Module:
    """A user's module as one that takes a dictionary; a `Network` or `Reads` takes one already."""
    return module if isinstance(module, (Network, Reads)) else Reads(module, modalities)


def pick_input(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """One input by name, or a sentence that lists those that are there."""
    if name not in inputs:
        raise InputError(f"The network reads '{name}', which is not among its inputs. {did_you_mean(name, inputs)}")
    return inputs[name]


def fused_width(widths: Sequence[int], fusion: str) -> int:
    """Size of the embedding after fusion."""
    if fusion not in FUSIONS:
        raise InputError(f"There is no fusion called '{fusion}'. {did_you_mean(fusion, FUSIONS)}")
    if not widths:
        raise InputError("A network needs at least one modality to read, and none was named.")
    return sum(widths) if fusion == "concat" else max(widths)


def build_network(
    *,
    inputs: Mapping[str, Mapping[str, Any]],
    outputs: int,
    fusion: str = "sum",
    leak: float | None = None,
    dense: bool = False,
) -> Network:
    """Build a `Network` with a linear head from JSON values.

    Args:
        inputs: modality → ``{"encoder": name, "shape": [...]}`` and numbers of that encoder's builder.
        outputs: width of the head.
        fusion: ``sum`` or ``concat``.
        leak: slope of a LeakyReLU behind the head, as one published network has it; None: there is none.
        dense: whether there is an answer for every place of maps; the head is a convolution then, of the side that the
            encoders name (``reach``).

    Example:
        >>> network = build_network(inputs={"audio": {"encoder": "linear", "shape": [8]}}, outputs=3)
        >>> tuple(network.head.weight.shape)
        (3, 8)
    """
    if not is_count(outputs):
        raise InputError(f"outputs is {outputs!r}: expected a whole number of 1 or more.")
    if not isinstance(inputs, Mapping) or not all(isinstance(asked, Mapping) for asked in inputs.values()):
        raise InputError(
            "inputs must give each modality an encoder and a shape, such as {'audio': {'encoder': 'mlp', …}}."
        )
    encoders = {name: build_encoder(name, asked) for name, asked in inputs.items()}
    width = fused_width([width_of(name, encoder) for name, encoder in encoders.items()], fusion)
    check_maps(inputs, encoders, dense)
    head: nn.Module = nn.Linear(width, outputs)
    if dense:
        reach = max(int(getattr(encoder, "reach", 1)) for encoder in encoders.values())
        head = nn.Conv2d(width, outputs, reach, padding=reach // 2)
    if leak is not None:
        head = nn.Sequential(head, nn.LeakyReLU(leak))
    return Network(encoders, head, fusion=fusion, dense=dense)


def check_maps(inputs: Mapping[str, Mapping[str, Any]], encoders: Mapping[str, nn.Module], dense: bool) -> None:
    """Refuse encoders of whole samples for dense targets, and the other way round."""
    wrong = [name for name, encoder in encoders.items() if hasattr(encoder, "reach") != dense]
    if wrong:
        says = "one embedding for a whole sample" if dense else "maps, one embedding for every place"
        asks = "there is a target for every place" if dense else "there is one target per sample"
        choose = (
            f"salsanext or one of {', '.join(n for n in ENCODERS if n.startswith('camera'))}" if dense else "another"
        )
        listed = ", ".join(f"'{inputs[name]['encoder']}' (for '{name}')" for name in wrong)
        raise InputError(f"The encoder {listed} gives {says}, and {asks}. Choose {choose}.")


def build_for(
    info: DataInfo,
    modalities: Sequence[str],
    *,
    encoder: str | Mapping[str, str] = "auto",
    width: int | None = None,
    fusion: str = "sum",
    dropout: float = 0.0,
    leak: float | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Student:
    """A fresh student that reads some modalities of a data set.

    Args:
        info: of the data.
        modalities: what it reads; it predicts the targets of the first.
        encoder: ``auto`` chooses by layout and size; or a name of `ENCODERS`, one per modality, or one of `NETWORKS`.
        width: of the embeddings; None leaves each encoder its own.
        fusion: ``sum`` or ``concat``.
        dropout: of the encoders.
        leak: slope of a LeakyReLU behind the head; None: there is none.
        numbers: further numbers of the encoders, such as ``{"channels": 8}``; every encoder must know them.
    """
    needs = info.require(tuple(modalities), "network")
    if encoder == "auto" and info.dense and len(info.target_shape) == 3:
        encoder = "ddrnet"
    if isinstance(encoder, str) and encoder in NETWORKS:
        if width is not None or dropout:
            raise InputError(f"The network '{encoder}' has one size and no dropout. Leave width and dropout out.")
        whole: Student = load(NETWORKS[encoder])(info, needs, network=encoder, **(numbers or {}))
        return whole
    given = dict(numbers or {})
    given |= {**({} if width is None else {"width": width}), **({"dropout": dropout} if dropout else {})}
    inputs = {}
    for name in needs:
        asked = encoder if isinstance(encoder, str) else encoder.get(name, "auto")
        chosen = choose_encoder(name, info.inputs[name], dense=info.dense) if asked == "auto" else asked
        known = numbers_of(name, chosen, given)
        inputs[name] = {"encoder": chosen, "shape": list(info.inputs[name].shape), **known}
    arguments: dict[str, Any] = {
        "inputs": inputs,
        "outputs": info.outputs,
        "fusion": fusion,
        **({} if leak is None else {"leak": leak}),
        **({"dense": True} if info.dense else {}),
    }
    module = build_network(**arguments)
    return checked(Student(module, needs, needs[0], "network", arguments, statistics_for(info, needs)), info)


def student_of(module: nn.Module, info: DataInfo, modalities: Sequence[str]) -> Student:
    """A user's own module as a student. It has no builder, so its file needs the module again, or is exported to ONNX.

    Args:
        module: takes one tensor when there is one modality, a dictionary when there are several; returns outputs.
        info: of the data.
        modalities: what it reads; it predicts the targets of the first.
    """
    needs = info.require(tuple(modalities), "module")
    if not needs:
        raise InputError("A student needs at least one modality to read, and none was named.")
    return checked(Student(wrap(module, needs), needs, needs[0], normalisation=statistics_for(info, needs)), info)


def rebuild(description: Mapping[str, Any]) -> Student:
    """The student of a description (``needs``, ``target``, ``builder``, ``arguments``), with fresh weights."""
    name, arguments = description["builder"], description["arguments"]
    if name not in BUILDERS:
        raise InputError(f"There is no builder of students called '{name}'. {did_you_mean(str(name), BUILDERS)}")
    builder = load(BUILDERS[name])
    try:
        inspect.signature(builder).bind(**(arguments or {}))
    except TypeError as error:
        raise InputError(f"The builder '{name}' cannot take the arguments of this description: {error}.") from error
    needs = tuple(description["needs"])
    return Student(builder(**arguments), needs, description["target"], name, dict(arguments))


def choose_encoder(name: str, info: InputInfo, *, dense: bool = False) -> str:
    """The encoder that suits an input: by layout, and for pictures by their shorter side or their dense targets."""
    if dense and info.layout == "image":
        return "salsanext"
    if info.layout == "vector" and not info.dynamic:
        return "mlp"
    if info.layout == "sequence":
        return "sequence_cnn"
    if info.layout == "image":
        if info.dynamic:  # only a network that averages over the picture reads any size
            return "audio_cnn"
        limits = {4: "mlp", 20: "image_cnn", 48: "lenet"}
        return next((encoder for limit, encoder in limits.items() if min(info.shape[1:]) < limit), "resnet18")
    raise InputError(
        f"No encoder suits '{name}' by itself (layout '{info.layout}', samples of shape {info.shape}). Name one: "
        f"{', '.join(ENCODERS)}."
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def zeros(inputs: Mapping[str, InputInfo], rows: int) -> dict[str, Tensor]:
    """Inputs of the right shapes and types that say nothing of anyone's data."""
    return {name: torch.zeros(rows, *info.shape, dtype=getattr(torch, info.dtype)) for name, info in inputs.items()}


def checked(student: Student, info: DataInfo) -> Student:
    """Two samples of zeros must come out as (2, outputs); the network has numbers of 64 bits where the data has."""
    as_precise(student.module, info)
    device = next((parameter.device for parameter in student.module.parameters()), torch.device("cpu"))
    samples = {name: tensor.to(device) for name, tensor in zeros({n: info.inputs[n] for n in student.needs}, 2).items()}
    shapes = ", ".join(f"'{name}' {tuple(tensor.shape)}" for name, tensor in samples.items())
    try:
        with evaluating(student.module), torch.random.fork_rng(devices=[]):
            outputs = student.module(samples)
    except Exception as error:  # whatever a user's module raises, it is about these inputs
        wide = " With --precision 64 it must compute in the numbers of its inputs." if info.doubled else ""
        raise InputError(f"The network cannot read two samples of zeros ({shapes}): {error}{wide}") from error
    arrived = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    wanted = (2, info.outputs)
    if not isinstance(outputs, Tensor) or (arrived[:2] if info.dense else arrived) != wanted:
        axes = "(2, {}, …)" if info.dense else "(2, {})"
        raise InputError(
            f"From two samples ({shapes}) the network makes {arrived}, but {axes.format(info.outputs)} was expected: "
            f"{info.outputs} output(s) per sample for this {info.task} data. Change the width of its last layer."
        )
    return student


def as_precise(module: M, info: DataInfo) -> M:
    """The module, with numbers of 64 bits where the data has them; where it has not, as it is."""
    return module.double() if info.doubled else module


def statistics_for(info: DataInfo, needs: Sequence[str]) -> dict[str, Any]:
    """The normalisation that a student takes along."""
    return {name: info.normalisation[name] for name in needs if name in info.normalisation}


def _key(name: str) -> str:
    if "." in name:
        raise InputError(f"A modality cannot be called '{name}': a dot separates it from what goes with it. Rename it.")
    return PREFIX + name


def width_of(name: str, encoder: nn.Module) -> int:
    """Size of an encoder's embedding, from its attribute ``width``."""
    width = getattr(encoder, "width", None)
    if not is_count(width):
        raise InputError(
            f"The encoder of '{name}' has no whole number as attribute 'width': the size of its embedding."
        )
    return int(width)  # type: ignore[arg-type]


def is_count(number: Any) -> bool:
    """Whether this is a whole number of 1 or more."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _builder(name: str, encoder: Any) -> Callable[..., nn.Module]:
    if encoder not in ENCODERS:
        raise InputError(
            f"There is no encoder called '{encoder}' (asked for '{name}'). "
            f"{did_you_mean(str(encoder), [*ENCODERS, *NETWORKS])}"
        )
    builder: Callable[..., nn.Module] = load(ENCODERS[encoder])
    return builder


def numbers_of(name: str, encoder: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of an encoder, defaults included: a file outlives a change of the defaults."""
    parameters = inspect.signature(_builder(name, encoder)).parameters
    known = {key: parameter for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"The encoder '{encoder}' (for '{name}') has no number '{key}'. {did_you_mean(key, known)}"
            )
        whole = isinstance(known[key].default, int)
        if not (is_count(value) if whole else isinstance(value, (int, float)) and 0.0 <= value < 1.0):
            expected = "a whole number of 1 or more" if whole else "a share from 0 up to (not including) 1"
            raise InputError(f"{key} of the encoder '{encoder}' (for '{name}') is {value!r}: expected {expected}.")
    return {key: given.get(key, parameter.default) for key, parameter in known.items()}


def build_encoder(name: str, asked: Mapping[str, Any]) -> nn.Module:
    """The encoder of a modality from JSON values, see `build_network`."""
    encoder, shape = asked.get("encoder"), asked.get("shape")
    builder = _builder(name, encoder)
    if not isinstance(shape, (list, tuple)) or not shape or not all(is_count(side) for side in shape):
        raise InputError(
            f"The shape of '{name}' is {shape!r}: expected the lengths of one sample's axes, such as [3, 125]."
        )
    given = {key: value for key, value in asked.items() if key not in ("encoder", "shape")}
    return builder(tuple(shape), **numbers_of(name, str(encoder), given))

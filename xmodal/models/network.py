"""Network: an encoder per modality, fusion, head; and the functions that create students.

inputs ──encoders──▶ embeddings ──sum or concat──▶ features ──head──▶ outputs

`build_for` chooses encoders that suit the data, `student_of` wraps a user's own module, `rebuild` reads a description.
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
# nn.ModuleDict refuses the names of its own methods as keys, and a modality may be called 'values'. The prefix is part
# of the parameter names in saved students.
PREFIX = "from_"


class Network(nn.Module):
    """An encoder per modality, their fusion, and a head.

    Args:
        encoders: modality → network with an attribute ``width``.
        head: maps the fused embedding (batch, ``width``) to outputs (batch, outputs).
        fusion: ``sum`` (if the widths differ, linear layers map all embeddings to the largest width) or ``concat``.
        dense: whether embeddings are maps (batch, ``width``, …, …) with an output for every pixel.
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
        differ = fusion == "sum" and len(set(widths.values())) > 1
        self.projections = nn.ModuleDict(
            {
                _key(name): nn.Conv2d(width, self.width, 1) if dense else nn.Linear(width, self.width)
                for name, width in widths.items()
                if differ
            }
        )
        # An identity gives the fused embedding a layer name under which it can be read or replaced.
        self.embedding = nn.Identity()
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
    """Wraps a module that takes a tensor, so that it takes a dictionary of inputs.

    Args:
        module: takes a tensor if there is one modality, a dictionary of tensors if there are several.
        modalities: the inputs that it reads.
    """

    def __init__(self, module: nn.Module, modalities: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.modalities = tuple(modalities)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, …) in, the module's outputs out."""
        tensors = {name: pick_input(inputs, name) for name in self.modalities}
        outputs: Tensor = self.module(tensors if len(tensors) > 1 else tensors[self.modalities[0]])
        return outputs


class StoredEmbeddings(Reads):
    """Embeddings that are an input of the data, as the layer ``embedding`` of a network without outputs.

    Args:
        name: of the input.
        width: of the embeddings.
    """

    def __init__(self, name: str, width: int) -> None:
        super().__init__(nn.Identity(), (name,))
        self.embedding, self.width = nn.Identity(), width

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The embeddings, (batch, width)."""
        embeddings: Tensor = self.embedding(super().forward(inputs))
        return embeddings


def wrap(module: nn.Module, modalities: Sequence[str]) -> nn.Module:
    """A user's module as a module that takes a dictionary; a `Network` or `Reads` is returned unchanged."""
    return module if isinstance(module, (Network, Reads)) else Reads(module, modalities)


def pick_input(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """One input by name; an unknown name raises an error that lists all inputs."""
    if name not in inputs:
        raise InputError(f"The network reads '{name}', which is not among its inputs. {did_you_mean(name, inputs)}")
    return inputs[name]


def fused_width(widths: Sequence[int], fusion: str) -> int:
    """Width of the embedding after fusion."""
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
        inputs: modality → ``{"encoder": name, "shape": [...]}`` and options of that encoder's builder.
        outputs: width of the head.
        fusion: ``sum`` or ``concat``.
        leak: slope of a LeakyReLU behind the head, as in one published network; None: no such layer.
        dense: whether there is an output for every pixel of the maps. The head is then a convolution, and its side is
            the largest ``reach`` of the encoders.

    Example:
        >>> network = build_network(inputs={"audio": {"encoder": "linear", "shape": [8]}}, outputs=3)
        >>> tuple(network.head.weight.shape)
        (3, 8)
    """
    if not is_count(outputs):
        raise InputError(f"outputs is {outputs!r}: expected a whole number of 1 or more.")
    if not isinstance(inputs, Mapping) or not all(isinstance(options, Mapping) for options in inputs.values()):
        raise InputError(
            "inputs must contain an encoder and a shape for each modality, such as {'audio': {'encoder': 'mlp', …}}."
        )
    # Encoders first, then the head: the order of the random draws, on which seeds and golden files depend.
    encoders = {name: build_encoder(name, options) for name, options in inputs.items()}
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
    """Refuse encoders of whole samples for dense targets, and encoders of maps for other targets."""
    # Only encoders that produce maps have an attribute `reach`.
    wrong = [name for name, encoder in encoders.items() if hasattr(encoder, "reach") != dense]
    if wrong:
        listed = ", ".join(f"'{inputs[name]['encoder']}' (for '{name}')" for name in wrong)
        if dense:
            cameras = ", ".join(name for name in ENCODERS if name.startswith("camera"))
            raise InputError(
                f"The encoder {listed} produces one embedding for a whole sample, and the targets have a value for "
                f"every pixel. Choose salsanext or one of {cameras}."
            )
        raise InputError(
            f"The encoder {listed} produces an embedding for every pixel, and the targets have one value per sample. "
            "Choose another."
        )


def build_for(
    info: DataInfo,
    modalities: Sequence[str],
    *,
    encoder: str | Mapping[str, str] = "auto",
    width: int | None = None,
    fusion: str = "sum",
    dropout: float = 0.0,
    leak: float | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> Student:
    """A fresh student that reads some modalities of a data set.

    Args:
        info: description of the data.
        modalities: what it reads; it predicts the targets of the first.
        encoder: ``auto`` chooses by layout and size; or a name of `ENCODERS`, one name per modality, or one of
            `NETWORKS`.
        width: of the embeddings; None: the default of each encoder.
        fusion: ``sum`` or ``concat``.
        dropout: of the encoders.
        leak: slope of a LeakyReLU behind the head; None: no such layer.
        numbers: further options of the encoders, such as ``{"channels": 8}``; every encoder must accept them.
    """
    needs = info.require(tuple(modalities), "network")
    # Targets with three axes are volumes, which only the networks for scenes predict.
    if encoder == "auto" and info.dense and len(info.target_shape) == 3:
        encoder = "ddrnet"
    if isinstance(encoder, str) and encoder in NETWORKS:
        if width is not None or dropout:
            raise InputError(f"The network '{encoder}' has one size and no dropout. Leave width and dropout out.")
        whole: Student = load(NETWORKS[encoder])(info, needs, network=encoder, **(numbers or {}))
        return whole
    options = dict(numbers or {})
    options |= {**({} if width is None else {"width": width}), **({"dropout": dropout} if dropout else {})}
    inputs = {}
    for name in needs:
        kind = encoder if isinstance(encoder, str) else encoder.get(name, "auto")
        kind = choose_encoder(name, info.inputs[name], dense=info.dense) if kind == "auto" else kind
        # a bias in front of a BatchNorm changes no output, see `small`
        encoder_options = numbers_of(name, kind, {**_biasless(name, kind), **options})
        inputs[name] = {"encoder": kind, "shape": list(info.inputs[name].shape), **encoder_options}
    # `leak` and `dense` are written only where they apply: students were saved before these two existed.
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
    """A user's own module as a student. It has no builder: loading its file needs the module, or export it to ONNX.

    Args:
        module: takes a tensor if there is one modality, a dictionary if there are several; returns outputs.
        info: description of the data.
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
    # The file may come from anywhere, so its arguments are compared with the signature before the builder runs.
    try:
        inspect.signature(builder).bind(**(arguments or {}))
    except TypeError as error:
        raise InputError(f"The builder '{name}' cannot take the arguments of this description: {error}.") from error
    needs = tuple(description["needs"])
    return Student(builder(**arguments), needs, description["target"], name, dict(arguments))


def choose_encoder(name: str, info: InputInfo, *, dense: bool = False) -> str:
    """The encoder that suits an input: by layout, and for pictures by dense targets or their shorter side."""
    if dense and info.layout == "image":
        return "salsanext"
    if info.layout == "vector" and not info.dynamic:
        return "mlp"
    if info.layout == "sequence":
        return "sequence_cnn"
    if info.layout == "image":
        # For pictures of any size only a network that averages over the picture works.
        if info.dynamic:
            return "audio_cnn"
        limits = {4: "mlp", 20: "image_cnn", 48: "lenet"}
        return next((encoder for limit, encoder in limits.items() if min(info.shape[1:]) < limit), "resnet18")
    raise InputError(
        f"No encoder is the default for '{name}' (layout '{info.layout}', samples of shape {info.shape}). Choose one: "
        f"{', '.join(ENCODERS)}."
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards the training mode of each module is restored."""
    # Each module by itself, because a frozen part of a network in training mode stays in eval mode.
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def zeros(inputs: Mapping[str, InputInfo], rows: int) -> dict[str, Tensor]:
    """Inputs of the right shapes and types, filled with zeros; an export that stores them reveals no data."""
    return {name: torch.zeros(rows, *info.shape, dtype=getattr(torch, info.dtype)) for name, info in inputs.items()}


def checked(student: Student, info: DataInfo) -> Student:
    """The student, after a check that two samples of zeros give outputs (2, outputs); in float64 if the data is."""
    as_precise(student.module, info)
    device = next((parameter.device for parameter in student.module.parameters()), torch.device("cpu"))
    # Two samples, because with one a network that drops the batch axis would pass. The random state is restored: a
    # layer may draw numbers even in eval mode, and the check must not shift later draws.
    samples = {name: tensor.to(device) for name, tensor in zeros({n: info.inputs[n] for n in student.needs}, 2).items()}
    shapes = ", ".join(f"'{name}' {tuple(tensor.shape)}" for name, tensor in samples.items())
    try:
        with evaluating(student.module), torch.random.fork_rng(devices=[]):
            outputs = student.module(samples)
    # A user's module may raise anything; whatever it is, it concerns these inputs.
    except Exception as error:
        hint = " With --precision 64 it must compute in the dtype of its inputs." if info.doubled else ""
        raise InputError(f"The network cannot read two samples of zeros ({shapes}): {error}{hint}") from error
    arrived = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if not isinstance(outputs, Tensor) or (arrived[:2] if info.dense else arrived) != (2, info.outputs):
        expected = f"(2, {info.outputs}, …)" if info.dense else f"(2, {info.outputs})"
        raise InputError(
            f"From two samples ({shapes}) the network computes {arrived}, but {expected} was expected: "
            f"{info.outputs} output(s) per sample for this {info.task} data. Change the width of its last layer."
        )
    return student


def as_precise(module: M, info: DataInfo) -> M:
    """The module in float64 if the data is in float64, otherwise unchanged."""
    return module.double() if info.doubled else module


def statistics_for(info: DataInfo, needs: Sequence[str]) -> dict[str, Any]:
    """The normalisation that belongs to a student with these inputs."""
    return {name: info.normalisation[name] for name in needs if name in info.normalisation}


def _key(name: str) -> str:
    if "." in name:
        raise InputError(
            f"A modality cannot be called '{name}': a dot separates it from an input that belongs to it. Rename it."
        )
    return PREFIX + name


def width_of(name: str, encoder: nn.Module) -> int:
    """Width of an encoder's embedding, from its attribute ``width``."""
    width = getattr(encoder, "width", None)
    if not is_count(width):
        raise InputError(
            f"The encoder of '{name}' has no whole number as attribute 'width'. Set it to the width of its embedding."
        )
    return int(width)  # type: ignore[arg-type]


def is_count(number: Any) -> bool:
    """Whether this is a whole number of 1 or more."""
    # True and False are integers in Python; in a description they are a mistake.
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _builder(name: str, encoder: Any) -> Callable[..., nn.Module]:
    if encoder not in ENCODERS:
        raise InputError(
            f"There is no encoder called '{encoder}' (for '{name}'). "
            f"{did_you_mean(str(encoder), [*ENCODERS, *NETWORKS])}"
        )
    builder: Callable[..., nn.Module] = load(ENCODERS[encoder])
    return builder


def _biasless(name: str, encoder: str) -> dict[str, bool]:
    """The option of an encoder that leaves out biases in front of BatchNorm; empty where it has no such option."""
    return {"bias": False} if "bias" in inspect.signature(_builder(name, encoder)).parameters else {}


def numbers_of(name: str, encoder: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an encoder, including the defaults, so that a saved student survives a change of the defaults."""
    parameters = inspect.signature(_builder(name, encoder)).parameters
    possible = {key: parameter for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    for key, value in options.items():
        if key not in possible:
            raise InputError(
                f"The encoder '{encoder}' (for '{name}') has no number '{key}'. {did_you_mean(key, possible)}"
            )
        expected = _refused(value, possible[key].default)
        if expected:
            raise InputError(f"{key} of the encoder '{encoder}' (for '{name}') is {value!r}: expected {expected}.")
    return {key: options.get(key, parameter.default) for key, parameter in possible.items()}


def _refused(value: Any, default: Any) -> str:
    """What an option expects, where this value is something else; empty if it fits."""
    # The default tells the type: switches, sizes (integers) and rates.
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(default, int):
        return "" if is_count(value) else "a whole number of 1 or more"
    rate = isinstance(value, (int, float)) and 0.0 <= value < 1.0
    return "" if rate else "a share from 0 up to (not including) 1"


def build_encoder(name: str, description: Mapping[str, Any]) -> nn.Module:
    """The encoder of a modality from JSON values, see `build_network`."""
    encoder, shape = description.get("encoder"), description.get("shape")
    builder = _builder(name, encoder)
    if not isinstance(shape, (list, tuple)) or not shape or not all(is_count(side) for side in shape):
        raise InputError(
            f"The shape of '{name}' is {shape!r}: expected the lengths of one sample's axes, such as [3, 125]."
        )
    options = {key: value for key, value in description.items() if key not in ("encoder", "shape")}
    return builder(tuple(shape), **numbers_of(name, str(encoder), options))

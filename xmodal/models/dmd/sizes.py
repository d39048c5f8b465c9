"""The sizes and rates of a network of DMD, as dataclasses and as JSON values, and their check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xmodal.errors import InputError, did_you_mean
from xmodal.models.dmd.sequence_transformer import SMALLEST
from xmodal.models.network import is_count

GATES = ("sigmoid", "multiply")


@dataclass(frozen=True, slots=True)
class SequenceInput:
    """The sizes of one modality, and its dropout rates.

    Attributes:
        width: features per step.
        length: number of steps.
        kernel: of the projection; the sequence becomes shorter by ``kernel - 1``.
        input_dropout: rate on single features before the projection.
        attention_dropout: rate on attention weights wherever this modality is key and value.
    """

    width: int
    length: int
    kernel: int = 1
    input_dropout: float = 0.0
    attention_dropout: float = 0.0

    @property
    def steps(self) -> int:
        """Number of steps behind the projection."""
        return self.length - self.kernel + 1


@dataclass(frozen=True, slots=True)
class DMDNumbers:
    """The sizes and rates of the network that do not belong to one modality.

    Attributes:
        width: d, of every part.
        heads: of the transformers.
        layers: of the transformers; those of the memory have three or more.
        embed_dropout: rate behind the position codes.
        relu_dropout: rate inside the transformers' feed-forward part.
        residual_dropout: rate on the transformers' branches.
        output_dropout: rate inside every head.
        causal: whether later steps are hidden from a step.
        mask_padding: use ``<modality>.lengths``: padding is not read, and the last step is the last real one.
        gate: ``sigmoid`` (σ(W h) takes the place of h, as in the authors' code) or ``multiply`` (σ(W h) h).
        outputs: width of every logit.
    """

    width: int = 50
    heads: int = 10
    layers: int = 4
    embed_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    output_dropout: float = 0.0
    causal: bool = True
    mask_padding: bool = False
    gate: str = "sigmoid"
    outputs: int = 1


def check_numbers(inputs: Mapping[str, SequenceInput], numbers: DMDNumbers) -> None:
    """Raise an `InputError` with all problems of the sizes and rates of a network."""
    problems = []
    if len(inputs) < 2:
        problems.append(f"DMD needs two modalities or more, and there is {len(inputs)}: {', '.join(inputs) or 'none'}.")
    if numbers.gate not in GATES:
        problems.append(f"There is no gate called '{numbers.gate}'. {did_you_mean(numbers.gate, GATES)}")
    counts = {"width": numbers.width, "heads": numbers.heads, "layers": numbers.layers, "outputs": numbers.outputs}
    for name, sizes in inputs.items():
        if "." in name:
            problems.append(
                f"A modality cannot be called '{name}': a dot separates it from an input that belongs to it. Rename it."
            )
        lengths = {"width": sizes.width, "length": sizes.length, "kernel": sizes.kernel}
        counts |= {f"{key} of '{name}'": value for key, value in lengths.items()}
        if is_count(sizes.length) and is_count(sizes.kernel) and sizes.length < sizes.kernel:
            problems.append(
                f"'{name}' has {sizes.length} steps and its kernel is {sizes.kernel}: a sequence must be at least as "
                "long as the kernel. Choose a smaller kernel."
            )
    problems += [
        f"{name} is {value!r}: expected a whole number of 1 or more."
        for name, value in counts.items()
        if not is_count(value)
    ]
    if is_count(numbers.width) and is_count(numbers.heads):
        if numbers.width % numbers.heads:
            problems.append(
                f"width is {numbers.width} and heads is {numbers.heads}: the width must be a multiple of the heads. "
                "Change one of them."
            )
        if numbers.width < SMALLEST:
            problems.append(f"width is {numbers.width}: expected {SMALLEST} or more, for the position codes.")
    rates = {key: value for key, value in asdict(numbers).items() if key.endswith("dropout")}
    for name, sizes in inputs.items():
        rates |= {f"{key} of '{name}'": value for key, value in asdict(sizes).items() if key.endswith("dropout")}
    problems += [
        f"{name} is {value!r}: expected a share from 0 up to (not including) 1."
        for name, value in rates.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0
    ]
    if problems:
        raise InputError(problems)


def sizes_from_json(inputs: Any, numbers: Any) -> tuple[dict[str, SequenceInput], DMDNumbers]:
    """The fields of `SequenceInput` for each modality, and those of `DMDNumbers`, as dataclasses."""
    if not isinstance(inputs, Mapping) or not isinstance(numbers, Mapping):
        raise InputError("inputs must contain the sizes of each modality, and numbers those of the network.")
    sizes = {name: _record(SequenceInput, values, f"'{name}'") for name, values in inputs.items()}
    return sizes, _record(DMDNumbers, numbers, "the network")


def _record(kind: type[Any], values: Any, owner: str) -> Any:
    fields = kind.__dataclass_fields__
    if not isinstance(values, Mapping):
        raise InputError(f"The numbers of {owner} are {values!r}: expected a dictionary with {', '.join(fields)}.")
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise InputError([f"There is no number '{key}' of {owner}. {did_you_mean(key, fields)}" for key in unknown])
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"The numbers of {owner} are not complete: {error}") from error

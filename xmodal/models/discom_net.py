"""The networks of DisCoM-KD: two encoders per modality with embeddings in three parts, and heads for all modalities.

        ┌─ invariant encoder ─▶ projection ─▶ invariant ──┐
    x ──┤                                                 ├─▶ head ─▶ outputs        (deployed: `Branches`)
        └─ specific encoder ──┬─ first half ─▶ informative┘
                              └─ second half ▶ irrelevant
    auxiliary, adversary, informative and irrelevant head: one of each for all modalities, for training (`SharedHeads`)

Embeddings have D numbers, each part has D / 2. Reference: Ienco, Dantas: DisCoM-KD, BMVC 2024, arXiv
2408.07080, figure of the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.network import (
    build_encoder,
    checked,
    evaluating,
    is_count,
    pick_input,
    statistics_for,
    width_of,
    zeros,
)
from xmodal.types import DataInfo, Student


class Parts(NamedTuple):
    """The three parts of an embedding, each (rows, D / 2).

    Attributes:
        invariant: information about the task that the modalities share.
        informative: information about the task that only this modality has.
        irrelevant: information about the modality alone; the prediction does not use it.
    """

    invariant: Tensor
    informative: Tensor
    irrelevant: Tensor


class Branches(nn.Module):
    """The network of one modality that is deployed.

    Args:
        modality: what it reads.
        invariant: encoder with an attribute ``width``, (rows, …) to (rows, D).
        specific: a second encoder of the same width.
        outputs: width of the head.
        shift: outputs are ``scale`` times the head's outputs plus ``shift``, since regression is learned in
            standardised units. Empty: the head's outputs are returned unchanged.
        scale: see ``shift``.
    """

    shift: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        modality: str,
        invariant: nn.Module,
        specific: nn.Module,
        outputs: int,
        *,
        shift: Sequence[float] = (),
        scale: Sequence[float] = (),
    ) -> None:
        super().__init__()
        width, other = width_of(modality, invariant), width_of(modality, specific)
        if width % 2 or width != other:
            raise InputError(
                f"The encoders of '{modality}' have embeddings of {width} and {other} numbers: expected the same even "
                "number, since each is split in halves. Choose an even width, or another encoder."
            )
        if bool(shift) != bool(scale):
            raise InputError("shift and scale go together: expected both of them or neither.")
        self.modality, self.part_width = modality, width // 2
        self.invariant, self.specific = invariant, specific
        self.projection = nn.Sequential(nn.Linear(width, self.part_width), nn.BatchNorm1d(self.part_width), nn.ReLU())
        self.head = nn.Linear(width, outputs)
        # Buffers, so that a saved student contains them and they move with the device.
        for name, numbers in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(list(numbers), dtype=torch.float32) if numbers else None)

    def embed(self, inputs: Mapping[str, Tensor]) -> Parts:
        """Modality → (rows, …) in, the three parts out."""
        sample = pick_input(inputs, self.modality)
        specific = self.specific(sample)
        return Parts(
            self.projection(self.invariant(sample)), specific[:, : self.part_width], specific[:, self.part_width :]
        )

    def answer(self, parts: Parts) -> Tensor:
        """The head's outputs (rows, outputs), in standardised units for regression."""
        outputs: Tensor = self.head(torch.cat([parts.invariant, parts.informative], dim=1))
        return outputs

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (rows, …) in, outputs (rows, outputs) out."""
        outputs = self.answer(self.embed(inputs))
        return outputs if self.shift is None or self.scale is None else outputs * self.scale + self.shift

    def standardised(self, target: Tensor) -> Tensor:
        """Targets in the units of `answer`."""
        return target if self.shift is None or self.scale is None else (target - self.shift) / self.scale


class SharedHeads(nn.Module):
    """Heads that all modalities share during training.

    Args:
        part_width: width of each part.
        outputs: of the auxiliary classifier, which reads invariant and informative parts.
        modalities: the number of modalities that the other heads distinguish.
        adversary_hidden: width of a hidden layer of the adversary; 0: a linear adversary, as published.
    """

    def __init__(self, part_width: int, outputs: int, modalities: int, *, adversary_hidden: int = 0) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(part_width, outputs)
        self.adversary: nn.Module = nn.Linear(part_width, modalities)
        if adversary_hidden:
            self.adversary = nn.Sequential(
                nn.Linear(part_width, adversary_hidden),
                nn.BatchNorm1d(adversary_hidden),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(adversary_hidden, modalities),
            )
        self.informative = nn.Linear(part_width, modalities)
        self.irrelevant = nn.Linear(part_width, modalities)


def build_branches(
    *,
    modality: str,
    encoder: Mapping[str, Any],
    outputs: int,
    shift: Sequence[float] = (),
    scale: Sequence[float] = (),
) -> Branches:
    """Build `Branches` from JSON values.

    Args:
        modality: its name.
        encoder: ``{"encoder": name, "shape": [...]}`` and options of that encoder's builder, for both encoders.
        outputs: width of the head.
        shift: see `Branches`.
        scale: see `Branches`.

    Example:
        >>> branches = build_branches(modality="audio", encoder={"encoder": "mlp", "shape": [8], "width": 6}, outputs=3)
        >>> [part.shape[1] for part in branches.embed({"audio": torch.zeros(2, 8)})]
        [3, 3, 3]
    """
    if not is_count(outputs) or not isinstance(encoder, Mapping):
        raise InputError(f"outputs is {outputs!r} and encoder {encoder!r}: expected a whole number and an encoder.")
    if not all(len(numbers) in (0, outputs) for numbers in (shift, scale)):
        raise InputError(f"shift and scale have {len(shift)} and {len(scale)} numbers: expected {outputs} or none.")
    # Drawn one after the other, so the two encoders start with different weights.
    invariant, specific = build_encoder(modality, encoder), build_encoder(modality, encoder)
    return Branches(modality, invariant, specific, outputs, shift=shift, scale=scale)


def branches_for(info: DataInfo, modality: str, encoder: Mapping[str, Any]) -> Student:
    """A new student of one modality.

    Args:
        info: description of the data.
        modality: what it reads and predicts the targets of.
        encoder: see `build_branches`.
    """
    arguments: dict[str, Any] = {
        "modality": modality,
        "encoder": dict(encoder),
        "outputs": info.outputs,
        **_units(info),
    }
    module = build_branches(**arguments)
    return _student(module, info, "discom", arguments)


def branches_of(invariant: nn.Module, specific: nn.Module, info: DataInfo, modality: str) -> Student:
    """A student around your own two encoders. It has no builder: loading its file needs them, or export it to ONNX.

    Args:
        invariant: takes (rows, …), returns (rows, D) with an even D, which a forward pass with zeros determines.
        specific: a second encoder; the two must be different objects.
        info: description of the data.
        modality: what it reads and predicts the targets of.
    """
    if invariant is specific:
        raise InputError(f"The two encoders of '{modality}' are one object: expected two with separate weights.")
    info.require((modality,), "module")
    for encoder in (invariant, specific):
        encoder.width = _measured_width(encoder, info, modality)  # type: ignore[assignment]
    return _student(Branches(modality, invariant, specific, info.outputs, **_units(info)), info)


def _student(
    module: Branches, info: DataInfo, builder: str | None = None, arguments: dict[str, Any] | None = None
) -> Student:
    needs = (module.modality,)
    return checked(Student(module, needs, needs[0], builder, arguments, statistics_for(info, needs)), info)


def _measured_width(encoder: nn.Module, info: DataInfo, modality: str) -> int:
    # Two samples, because with one an encoder that drops the axis of the batch would pass.
    sample = zeros({modality: info.inputs[modality]}, 2)[modality]
    try:
        with evaluating(encoder), torch.random.fork_rng(devices=[]):
            embedding = encoder(sample)
    # A user's module may raise anything; whatever it is, it concerns this input.
    except Exception as error:
        raise InputError(
            f"The encoder of '{modality}' cannot read two samples of zeros {tuple(sample.shape)}: {error}"
        ) from error
    if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != 2:
        arrived = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
        raise InputError(f"From two samples the encoder of '{modality}' computes {arrived}: expected (2, width).")
    return int(embedding.shape[1])


def _units(info: DataInfo) -> dict[str, list[float]]:
    """Mean and standard deviation of regression targets over the training rows; empty for other tasks."""
    if info.task != "regression" or not info.train_targets:
        return {}
    # Over all modalities together: the shared heads need the same units for each of them.
    targets = torch.cat(list(info.train_targets.values())).double()
    targets = targets[~targets.isnan().flatten(1).all(dim=1)]  # rows without a label
    deviation = targets.std(dim=0, correction=0)
    # A constant target has deviation 0, and standardised targets are divided by the scale.
    return {"shift": targets.mean(dim=0).tolist(), "scale": torch.where(deviation > 0, deviation, 1.0).tolist()}

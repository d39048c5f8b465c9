"""A single modality of DMD: projection, the encoder that all modalities share, and its homo head.

    x ─(encoder)─▶ features ─dropout, convolution─▶ p ─shared encoder─▶ c ─residual head─▶ logits

This part is deployed when only one modality is available; `xmodal.models.dmd.net` trains it with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.dmd.sizes import SequenceInput, check_numbers, sizes_from_json
from xmodal.models.dropout import dropout
from xmodal.models.network import pick_input


class Projection(nn.Module):
    """From one modality's input to p.

    Args:
        modality: what it reads.
        sizes: of the modality.
        width: d.
        mask_padding: read ``<modality>.lengths`` and set the steps behind these lengths to zero.
        encoder: computes the features (batch, width, time) from ``<modality>.tokens``; None: the input is the features.
    """

    def __init__(
        self,
        modality: str,
        sizes: SequenceInput,
        width: int,
        *,
        mask_padding: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.modality, self.sizes, self.mask_padding = modality, sizes, mask_padding
        self.encoder = encoder
        self.convolution = nn.Conv1d(sizes.width, width, sizes.kernel, bias=False)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the inputs that it reads."""
        read = self.modality if self.encoder is None else f"{self.modality}.tokens"
        return (read, f"{self.modality}.lengths") if self.mask_padding else (read,)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The projection p (batch, d, T'), and the number of its steps that are not padding, (batch,), or None."""
        features = pick_input(inputs, self.needs[0])
        features = self._checked(features if self.encoder is None else self.encoder(features))
        features = dropout(features, self.sizes.input_dropout, self.training)
        if not self.mask_padding:
            return self.convolution(features), None
        lengths = pick_input(inputs, self.needs[1]).long().clamp(1, self.sizes.length)
        # A sequence shorter than the kernel keeps one step, since the last step of every sequence is read.
        steps = (lengths - self.sizes.kernel + 1).clamp(min=1)
        # Zeros on both sides of the convolution: before it, so that no step mixes with padding; behind it, because
        # the position codes of the transformers recognise padding by zeros.
        projected = self.convolution(features * counting(lengths, self.sizes.length, features))
        return projected * counting(steps, self.sizes.steps, projected), steps

    def _checked(self, features: Tensor) -> Tensor:
        # A vector is a sequence of one step.
        if features.ndim == 2 and self.sizes.length == 1:
            features = features.unsqueeze(2)
        width, length = self.sizes.width, self.sizes.length
        if features.shape[1:] != (width, length):
            raise InputError(
                f"'{self.modality}' arrives as {tuple(features.shape)}: expected (batch, {width}, {length}), features "
                "before steps, the sizes that the network was built for. Give it data of this width and length."
            )
        return features


def counting(steps: Tensor, longest: int, like: Tensor) -> Tensor:
    """Ones for real steps and zeros for padding, (batch, 1, time)."""
    return (torch.arange(longest, device=steps.device) < steps.unsqueeze(1)).to(like.dtype).unsqueeze(1)


class HeadOutput(NamedTuple):
    """Outputs of a head: ``logits``, its ``hidden`` layer behind the ReLU, and the ``features`` of the last layer."""

    logits: Tensor
    hidden: Tensor
    features: Tensor


class ResidualHead(nn.Module):
    """hidden = relu(W₁ x + b₁), features = W₂ drop(hidden) + b₂ + x, logits = W features + b.

    Args:
        width: of x.
        hidden: of the layer in between.
        outputs: of the logits.
        rate: of the dropout.
    """

    def __init__(self, width: int, hidden: int, outputs: int, *, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> HeadOutput:
        """(batch, width) in."""
        hidden = F.relu(self.first(x))
        features = self.second(dropout(hidden, self.rate, self.training)) + x
        return HeadOutput(self.last(features), hidden, features)


class DMDHead(nn.Module):
    """A single modality: projection, shared encoder, homo head.

    Args:
        projection: of the modality.
        shared: the encoder that all modalities share.
        head: of the modality.
    """

    def __init__(self, projection: Projection, shared: nn.Conv1d, head: ResidualHead) -> None:
        super().__init__()
        self.projection, self.shared, self.head = projection, shared, head

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, outputs)."""
        projected, _ = self.projection(inputs)
        # Flattened with time before channels, the order of the published weights.
        logits: Tensor = self.head(self.shared(projected).transpose(1, 2).flatten(1)).logits
        return logits


def build_dmd_head(
    *, inputs: Mapping[str, Any], numbers: Mapping[str, Any], encoders: Mapping[str, Any] | None = None
) -> DMDHead:
    """Build `DMDHead` from JSON values; the arguments are those of `build_dmd` with one modality.

    Example:
        >>> sizes = {"width": 768, "length": 50, "kernel": 5}
        >>> head = build_dmd_head(inputs={"text": sizes}, numbers={"width": 50, "heads": 10})
        >>> sum(parameter.numel() for parameter in head.parameters())
        429151
    """
    sequences, network = sizes_from_json(inputs, numbers)
    if len(sequences) != 1:
        raise InputError(
            f"A head reads one modality, and {len(sequences)} were given: {', '.join(sequences) or 'none'}."
        )
    ((modality, sequence),) = sequences.items()
    # The check is written for two modalities or more, so it gets this one twice.
    check_numbers({modality: sequence, f"{modality} again": sequence}, network)
    d = network.width
    projection = Projection(
        modality, sequence, d, mask_padding=network.mask_padding, encoder=built_encoders(encoders).get(modality)
    )
    head = ResidualHead(d * sequence.steps, d, network.outputs, rate=network.output_dropout)
    return DMDHead(projection, nn.Conv1d(d, d, 1, bias=False), head)


def built_encoders(described: Mapping[str, Any] | None) -> dict[str, nn.Module]:
    """Modality → text encoder, from JSON values."""
    if not described:
        return {}
    # Imported here, because it needs the optional package transformers.
    from xmodal.models.dmd.text_encoder import build_text_encoder

    return {name: build_text_encoder(**arguments) for name, arguments in described.items()}

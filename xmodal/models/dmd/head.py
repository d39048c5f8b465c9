"""One modality of DMD by itself: projection, the encoder that all modalities share, and its homo head.

    x ─(encoder)─▶ features ─dropout, convolution─▶ p ─shared encoder─▶ c ─residual head─▶ logits

This is what deploys when one sensor is left; `xmodal.models.dmd.net` trains it with the others.
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
        mask_padding: read ``<modality>.lengths`` and set what lies behind them to zero.
        encoder: makes the features (batch, width, time) from ``<modality>.tokens``; None: they are the input.
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
        """Names of the inputs it reads."""
        read = self.modality if self.encoder is None else f"{self.modality}.tokens"
        return (read, f"{self.modality}.lengths") if self.mask_padding else (read,)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Make p (batch, d, T'), and say how many of its steps count, (batch,), or None."""
        features = pick_input(inputs, self.needs[0])
        features = self._fitting(features if self.encoder is None else self.encoder(features))
        features = dropout(features, self.sizes.input_dropout, self.training)
        if not self.mask_padding:
            return self.convolution(features), None
        lengths = pick_input(inputs, self.needs[1]).long().clamp(1, self.sizes.length)
        steps = (lengths - self.sizes.kernel + 1).clamp(min=1)
        projected = self.convolution(features * counting(lengths, self.sizes.length, features))
        return projected * counting(steps, self.sizes.steps, projected), steps

    def _fitting(self, features: Tensor) -> Tensor:
        if features.ndim == 2 and self.sizes.length == 1:
            features = features.unsqueeze(2)  # a vector is a sequence of one step
        wanted, arrived = (self.sizes.width, self.sizes.length), tuple(features.shape)
        if arrived[1:] != wanted:
            raise InputError(
                f"'{self.modality}' arrives as {arrived}: expected (batch, {wanted[0]}, {wanted[1]}), features per "
                "step before steps, as the network was built for. Give it data of this width and length."
            )
        return features


def counting(steps: Tensor, longest: int, like: Tensor) -> Tensor:
    """Ones where a step counts and zeros elsewhere, (batch, 1, time)."""
    return (torch.arange(longest, device=steps.device) < steps.unsqueeze(1)).to(like.dtype).unsqueeze(1)


class HeadOutput(NamedTuple):
    """What a head says: ``logits``, its ``hidden`` layer behind the ReLU, and the ``features`` of the last layer."""

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
    """One modality alone: projection, shared encoder, homo head.

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
    sizes, read = sizes_from_json(inputs, numbers)
    if len(sizes) != 1:
        raise InputError(f"A head reads one modality, and {len(sizes)} were given: {', '.join(sizes) or 'none'}.")
    ((modality, mine),) = sizes.items()
    check_numbers({modality: mine, f"{modality} again": mine}, read)
    d = read.width
    projection = Projection(
        modality, mine, d, mask_padding=read.mask_padding, encoder=built_encoders(encoders).get(modality)
    )
    head = ResidualHead(d * mine.steps, d, read.outputs, rate=read.output_dropout)
    return DMDHead(projection, nn.Conv1d(d, d, 1, bias=False), head)


def built_encoders(described: Mapping[str, Any] | None) -> dict[str, nn.Module]:
    """Modality → text encoder, from JSON values."""
    if not described:
        return {}
    from xmodal.models.dmd.text_encoder import build_text_encoder

    return {name: build_text_encoder(**asked) for name, asked in described.items()}

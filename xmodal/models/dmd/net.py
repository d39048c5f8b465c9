"""The network of DMD: each modality has a shared and a private part, and each private part reads the others.

    x_m ─projection─▶ p_m ─┬─ shared encoder ──▶ c_m ─┬─ homo head ─────────────▶ logits of m alone   (`DMDHead`)
                           │                          ├─ alignment ─────────────▶ c_sim_m
                           │                          └─ transformer, last step ▶ c̄_m ─┬─ common head ▶ common logits
                           └─ private encoder ─▶ s_m ─┬─ decoder of [s_m; c_m] ▶ r_m ─ private encoder ▶ s'_m
                                                      └─ read the other s, memory, last step ▶ h_m ─ hetero head
    fused logits = head([gate(h_1), …, gate(h_M), gate(c̄)])                                           (`DMDFused`)

| symbol | field of `DMDOutputs` | shape |
|---|---|---|
| p_m, r_m | ``projected``, ``rebuilt`` | (batch, d, T'_m) |
| s_m, s'_m, c_m | ``private``, ``private_again``, ``shared`` | (batch, d, T'_m) |
| c_sim_m, representation of the homo head | ``aligned``, ``homo_features`` | (batch, d) |
| h_m, representation of the hetero head | ``memory``, ``hetero_features`` | (batch, (M - 1) d) |

T'_m = T_m - k_m + 1. The order of the modalities is that of the graphs' nodes. A modality reads the others in this
order: the first one, then the rest from the last to the second; for text, vision and audio that is text, audio, vision,
as published. `DMDNet` computes everything and is trained; its parts `fused` and `alone(m)` are deployed and contain
only what they need.

Li, Wang, Cui: Decoupled Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802; read from the
authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.dmd.head import DMDHead, Projection, ResidualHead, built_encoders, counting
from xmodal.models.dmd.sequence_transformer import EncoderStack
from xmodal.models.dmd.sizes import DMDNumbers as DMDNumbers
from xmodal.models.dmd.sizes import SequenceInput as SequenceInput
from xmodal.models.dmd.sizes import check_numbers, sizes_from_json
from xmodal.models.network import PREFIX
from xmodal.types import Student

MEMORY_LAYERS = 3  # the memory has at least so many layers in the authors' code, whatever the others have


@dataclass(slots=True)
class DMDOutputs:
    """All outputs of the network for a batch; see the table above. Logits are (batch, outputs).

    Attributes:
        fused: logits from all parts.
        common: logits from the shared parts of all modalities.
        homo: modality → logits from its shared part alone.
        hetero: modality → logits from its private part after it has read the others.
        homo_features: modality → a, the hidden layer of its homo head behind the ReLU.
        hetero_features: modality → input of the last layer of its hetero head.
        memory: modality → h.
        projected: modality → p.
        rebuilt: modality → r.
        private: modality → s.
        private_again: modality → s'.
        shared: modality → c.
        aligned: modality → c_sim.
        steps: modality → number of real steps (batch,) behind the projection; None: there is no padding.
    """

    fused: Tensor
    common: Tensor
    homo: dict[str, Tensor]
    hetero: dict[str, Tensor]
    homo_features: dict[str, Tensor]
    hetero_features: dict[str, Tensor]
    memory: dict[str, Tensor]
    projected: dict[str, Tensor]
    rebuilt: dict[str, Tensor]
    private: dict[str, Tensor]
    private_again: dict[str, Tensor]
    shared: dict[str, Tensor]
    aligned: dict[str, Tensor]
    steps: dict[str, Tensor | None]


class Decoupled(NamedTuple):
    """The two parts of one modality.

    Attributes:
        projected: p.
        both: [s; c], (batch, 2 d, T').
        rows: [s, c] with time before channels, (batch, T', 2 d).
        steps: number of real steps, or None.
    """

    projected: Tensor
    both: Tensor
    rows: Tensor
    steps: Tensor | None


class DMDFused(nn.Module):
    """All modalities together: the layers that the fused logits need, and no others.

    Args:
        inputs: modality → sizes, in the order of the graphs' nodes.
        numbers: all other sizes and rates.
        encoders: modality → network that computes its features, such as a text encoder.
    """

    def __init__(
        self,
        inputs: Mapping[str, SequenceInput],
        numbers: DMDNumbers,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_numbers(inputs, numbers)
        self.inputs, self.numbers = dict(inputs), numbers
        self.modalities = tuple(inputs)
        d, count = numbers.width, len(inputs)
        encoders = encoders or {}
        self.projections = nn.ModuleDict(
            {
                PREFIX + m: Projection(m, sizes, d, mask_padding=numbers.mask_padding, encoder=encoders.get(m))
                for m, sizes in inputs.items()
            }
        )
        self.private = nn.ModuleDict({PREFIX + m: nn.Conv1d(d, d, 1, bias=False) for m in inputs})
        self.shared = nn.Conv1d(d, d, 1, bias=False)
        self.pairs = [(m, other) for m in inputs for other in read_by(m, self.modalities)]
        # As in the authors' code, dropout of attention weights is chosen by the modality that is read, and the memories
        # of all modalities use the rate of the first one.
        rates = {m: sizes.attention_dropout for m, sizes in inputs.items()}
        first = next(iter(rates.values()))
        self.common_encoders = self._stack(inputs, d, list(rates.values()))
        self.cross_encoders = self._stack(
            (f"{m} reads {other}" for m, other in self.pairs), d, [rates[other] for _, other in self.pairs]
        )
        self.memory_encoders = self._stack(inputs, (count - 1) * d, [first] * count, at_least=MEMORY_LAYERS)
        wide = {m: (count - 1) * d for m in inputs}
        self.gates = nn.ModuleDict({PREFIX + m: nn.Linear(w, w) for m, w in wide.items()})
        self.common_gate = nn.Linear(count * d, count * d)
        whole = sum(wide.values()) + count * d
        self.head = ResidualHead(whole, whole, numbers.outputs, rate=numbers.output_dropout)

    def _stack(self, members: Any, width: int, rates: Sequence[float], at_least: int = 1) -> EncoderStack:
        numbers = self.numbers
        return EncoderStack(
            members,
            width,
            heads=numbers.heads,
            layers=max(numbers.layers, at_least),
            longest=max(sizes.steps for sizes in self.inputs.values()),
            attention_dropout=rates,
            embed_dropout=numbers.embed_dropout,
            relu_dropout=numbers.relu_dropout,
            residual_dropout=numbers.residual_dropout,
            causal=numbers.causal,
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all inputs that it reads."""
        return tuple(name for m in self.modalities for name in self.projection(m).needs)

    def projection(self, modality: str) -> Projection:
        """The projection of a modality."""
        return cast(Projection, self.projections[PREFIX + modality])

    def decouple(self, inputs: Mapping[str, Tensor]) -> dict[str, Decoupled]:
        """Modality → its private and its shared part."""
        parts = {}
        for m in self.modalities:
            projected, steps = self.projection(m)(inputs)
            private = cast(nn.Conv1d, self.private[PREFIX + m])
            # One convolution for both encoders, since they read the same input.
            both = F.conv1d(projected, torch.cat([private.weight, self.shared.weight]))
            parts[m] = Decoupled(projected, both, both.transpose(1, 2).contiguous(), steps)
        return parts

    def common(self, parts: Mapping[str, Decoupled]) -> Tensor:
        """[c̄_1, …, c̄_M], (batch, M d)."""
        d = self.numbers.width
        rows = [part.rows[..., d:] for part in parts.values()]
        steps = [part.steps for part in parts.values()]
        return torch.cat(self.common_encoders(rows, query_steps=steps, last=True), dim=1)

    def memories(self, parts: Mapping[str, Decoupled]) -> dict[str, Tensor]:
        """Modality → h, (batch, (M - 1) d)."""
        d = self.numbers.width
        rows = {m: part.rows[..., :d] for m, part in parts.items()}
        read = self.cross_encoders(
            [rows[m] for m, _ in self.pairs],
            [rows[other] for _, other in self.pairs],
            query_steps=[parts[m].steps for m, _ in self.pairs],
            source_steps=[parts[other].steps for _, other in self.pairs],
        )
        joined = []
        for m, part in parts.items():
            whole = torch.cat([x for x, (reader, _) in zip(read, self.pairs, strict=True) if reader == m], dim=2)
            # Padding must be zero again, since the position codes of the memory encoder recognise padding by zeros.
            joined.append(whole if part.steps is None else whole * counting(part.steps, whole.shape[1], whole).mT)
        steps = [part.steps for part in parts.values()]
        return dict(zip(parts, self.memory_encoders(joined, query_steps=steps, last=True), strict=True))

    def fuse(self, memories: Mapping[str, Tensor], common: Tensor) -> Tensor:
        """The fused logits."""
        gated = [self._gated(self.gates[PREFIX + m], h) for m, h in memories.items()]
        logits: Tensor = self.head(torch.cat([*gated, self._gated(self.common_gate, common)], dim=1)).logits
        return logits

    def _gated(self, gate: nn.Module, x: Tensor) -> Tensor:
        # In the authors' code the sigmoid replaces the features; it does not multiply them.
        opened = torch.sigmoid(gate(x))
        return opened * x if self.numbers.gate == "multiply" else opened

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, outputs) from all modalities."""
        parts = self.decouple(inputs)
        return self.fuse(self.memories(parts), self.common(parts))


class DMDNet(nn.Module):
    """The network that is trained.

    Args:
        inputs: modality → sizes, in the order of the graphs' nodes.
        numbers: all other sizes and rates.
        encoders: modality → network that computes its features, such as a text encoder.
        as_published: contain the cosine projections too, which the authors' code computes and uses in no loss. They are
            never trained; with them the network has a parameter for every entry of a published file.

    Example:
        >>> sizes = {"text": SequenceInput(6, 8, kernel=3), "audio": SequenceInput(4, 12)}
        >>> net = DMDNet(sizes, DMDNumbers(width=8, heads=2, layers=1))
        >>> out = net({"text": torch.zeros(3, 6, 8), "audio": torch.zeros(3, 4, 12)})
        >>> out.fused.shape, out.private["text"].shape, out.memory["audio"].shape
        (torch.Size([3, 1]), torch.Size([3, 8, 6]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        inputs: Mapping[str, SequenceInput],
        numbers: DMDNumbers,
        encoders: Mapping[str, nn.Module] | None = None,
        *,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        self.fused = DMDFused(inputs, numbers, encoders)
        self.modalities, self.inputs, self.numbers = self.fused.modalities, self.fused.inputs, numbers
        d, rate, wide = numbers.width, numbers.output_dropout, (len(inputs) - 1) * numbers.width
        flat = {m: d * sizes.steps for m, sizes in inputs.items()}
        self.decoders = nn.ModuleDict({PREFIX + m: nn.Conv1d(2 * d, d, 1, bias=False) for m in inputs})
        self.alignments = nn.ModuleDict({PREFIX + m: nn.Linear(w, d) for m, w in flat.items()})
        self.homo_heads = nn.ModuleDict(
            {PREFIX + m: ResidualHead(w, d, numbers.outputs, rate=rate) for m, w in flat.items()}
        )
        self.hetero_heads = nn.ModuleDict(
            {PREFIX + m: ResidualHead(wide, wide, numbers.outputs, rate=rate) for m in inputs}
        )
        whole = len(inputs) * d
        self.common_head = ResidualHead(whole, whole, numbers.outputs, rate=rate)
        # Last, so that the random draws of all other layers do not depend on them.
        published = flat.items() if as_published else ()
        self.cosine_projections = nn.ModuleDict({PREFIX + m: nn.Linear(w, d) for m, w in published})
        self.cosine_projections.requires_grad_(False)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all inputs it reads."""
        return self.fused.needs

    def forward(self, inputs: Mapping[str, Tensor]) -> DMDOutputs:
        """All outputs, from all modalities."""
        # The two flatten orders differ, as in the published weights: the homo heads read time before channels, the
        # alignments channels before time.
        parts, d = self.fused.decouple(inputs), self.numbers.width
        homo = {m: self.homo_heads[PREFIX + m](part.rows[..., d:].flatten(1)) for m, part in parts.items()}
        rebuilt = {m: self.decoders[PREFIX + m](part.both) for m, part in parts.items()}
        again = {m: self.fused.private[PREFIX + m](r) for m, r in rebuilt.items()}
        shared = {m: part.both[:, d:] for m, part in parts.items()}
        common, memory = self.fused.common(parts), self.fused.memories(parts)
        hetero = {m: self.hetero_heads[PREFIX + m](h) for m, h in memory.items()}
        return DMDOutputs(
            fused=self.fused.fuse(memory, common),
            common=self.common_head(common).logits,
            homo={m: head.logits for m, head in homo.items()},
            hetero={m: head.logits for m, head in hetero.items()},
            homo_features={m: head.hidden for m, head in homo.items()},
            hetero_features={m: head.features for m, head in hetero.items()},
            memory=memory,
            projected={m: part.projected for m, part in parts.items()},
            rebuilt=rebuilt,
            private={m: part.both[:, :d] for m, part in parts.items()},
            private_again=again,
            shared=shared,
            aligned={m: self.alignments[PREFIX + m](c.flatten(1)) for m, c in shared.items()},
            steps={m: part.steps for m, part in parts.items()},
        )

    def cosine_projected(self, outputs: DMDOutputs) -> dict[str, Tensor]:
        """Modality → projection (batch, d) of s, which the authors' code returns; empty unless ``as_published``."""
        flat = {m: s.transpose(1, 2).flatten(1) for m, s in outputs.private.items()}
        return {m: self.cosine_projections[PREFIX + m](s) for m, s in flat.items() if len(self.cosine_projections)}

    def alone(self, modality: str) -> DMDHead:
        """The part that reads only one modality; it shares its weights with this network."""
        if modality not in self.modalities:
            raise InputError(
                f"This network has no modality called '{modality}'. {did_you_mean(modality, self.modalities)}"
            )
        head = cast(ResidualHead, self.homo_heads[PREFIX + modality])
        return DMDHead(self.fused.projection(modality), self.fused.shared, head)

    def students(self) -> dict[str, Student]:
        """The students: each modality by its name, and ``fused``; all can be rebuilt from their files."""
        students = {}
        for m in self.modalities:
            module = self.alone(m)
            students[m] = Student(module, module.projection.needs, m, "dmd_head", self._arguments((m,)))
        # A modality may be called 'fused'.
        name = "fused" if "fused" not in students else "dmd_fused"
        students[name] = Student(self.fused, self.needs, self.modalities[0], "dmd", self._arguments(self.modalities))
        return students

    def _arguments(self, modalities: Sequence[str]) -> dict[str, Any]:
        encoders = {m: self.fused.projection(m).encoder for m in modalities}
        described = {m: cast(Any, encoder).description for m, encoder in encoders.items() if encoder is not None}
        return {
            "inputs": {m: asdict(self.inputs[m]) for m in modalities},
            "numbers": asdict(self.numbers),
            "encoders": described,
        }


def read_by(modality: str, modalities: Sequence[str]) -> list[str]:
    """The other modalities in reading order: the first one, then the rest from the last to the second.

    Example:
        >>> [read_by(m, ("text", "vision", "audio")) for m in ("text", "vision", "audio")]
        [['audio', 'vision'], ['text', 'audio'], ['text', 'vision']]
    """
    order = [modalities[0], *reversed(modalities[1:])]
    return [other for other in order if other != modality]


def build_dmd(
    *, inputs: Mapping[str, Any], numbers: Mapping[str, Any], encoders: Mapping[str, Any] | None = None
) -> DMDFused:
    """Build `DMDFused` from JSON values.

    Args:
        inputs: modality → the fields of `SequenceInput`.
        numbers: the fields of `DMDNumbers`.
        encoders: modality → what `xmodal.models.dmd.text_encoder.build_text_encoder` takes.
    """
    sequences, network = sizes_from_json(inputs, numbers)
    return DMDFused(sequences, network, built_encoders(encoders))

r"""DMD: modalities that teach one another over two learned graphs, and are deployed alone or all together.

A network splits every modality into a homogeneous part, by one encoder for all, and a heterogeneous part, by an encoder
for each, and predicts from each part and from all of them. Two small graphs whose nodes are the modalities weigh for
every sample how much each modality learns from each other: one over the homogeneous heads, each of which reads its
modality alone, and one over the heterogeneous heads, which have read all modalities. There is no separate teacher.

$$L = L_{task} + \lambda_1 (L_{homo} + L_{hetero}) + \lambda_2 \left(L_{cyc} + L_{rec}\right)
      + \gamma \left(L_{mar} + L_{ort}\right)$$

| term | equation | weight |
|---|---|---|
| L_task | Σ over the 2 M + 2 heads of mean \|ŷ - y\| | ``task_weight`` 1 |
| L_homo, L_hetero | L_logit + L_repr + L_reg of each graph | ``distil_weight`` λ₁ 0.05 |
| L_logit | Σ_edges mean ω \|ŷ_j - stop(ŷ_i)\| | ``logit_weight`` 1 |
| L_repr | homo: left out; hetero: Σ_edges mean ω · mean max(0, cos(r_j, stop(r_i))) | ``representation_weight`` 10 |
| L_reg | Σ_edges (mean e - π)² | ``regularisation_weight`` 10 |
| L_rec | Σ_m MSE of the rebuilt sequence | ``reconstruction_weight`` λ₂ 0.1 |
| L_cyc | Σ_m MSE of its private part | ``cycle_weight`` λ₂ 0.1 |
| L_mar | `ordinal_margin` of the aligned homogeneous parts | ``margin_weight`` γ 0.01 |
| L_ort | Σ_m `sequence_orthogonality` of the two parts | ``orthogonality_weight`` γ 0.01 |

with ω = e + π from `GraphUnit`. Samples must be paired and have all modalities; others are left out. Deployed are, per
modality, projection, shared encoder and homogeneous head, and the fused model, which needs all modalities. Reference:
Li, Wang, Cui: Decoupled Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802. The paper's text
was not available; this file follows the authors' code, and docs/methods/dmd.md numbers the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.disentangle import sequence_orthogonality
from xmodal.losses.graph import edge_regularisation, graph_distance
from xmodal.losses.margin import ordinal_margin
from xmodal.losses.reduce import masked_mean
from xmodal.losses.task import known_targets, task_values
from xmodal.method import Kit, Method
from xmodal.methods.settings import DMDSettings, DMDTerms
from xmodal.models.dmd.graph_unit import GRAPHS, GraphUnit
from xmodal.models.dmd.net import DMDNet, DMDNumbers, DMDOutputs, SequenceInput
from xmodal.models.dmd.text_encoder import TextEncoder, load_text_encoder
from xmodal.models.network import as_precise, checked, evaluating, statistics_for
from xmodal.types import Batch, DataInfo, Step, Student

HIDDEN = {"homo": 64, "hetero": 32}  # widths of the graph units in the authors' code
KERNEL = 5  # of the projection by default; shorter sequences have one of their length


class Heads(NamedTuple):
    """Outputs of the nodes of a graph for a batch.

    Attributes:
        logits: (rows, nodes, outputs).
        representations: (rows, nodes, width).
    """

    logits: Tensor
    representations: Tensor


def heads_of(outputs: DMDOutputs, graph: str) -> Heads:
    """Outputs of the heads that are the nodes of a graph."""
    if graph == "homo":
        logits, features = outputs.homo, outputs.homo_features
    else:
        logits, features = outputs.hetero, outputs.hetero_features
    return Heads(*(torch.stack(list(each.values()), dim=1) for each in (logits, features)))


class DMD(Method):
    """Two parts per modality, eight heads for three of them, and two graphs.

    Args:
        network: a `DMDNet`; its order of the modalities is that of the graphs.
        info: of the data.
        task_weight: of L_task.
        regression_loss: ``l1`` (as published) or ``mse``, for values.
        distil_weight: λ₁; 0 leaves both graphs out, untrained.
        logit_weight: of L_logit.
        representation_weight: of L_repr.
        regularisation_weight: of L_reg.
        homo_representation: distance of L_repr in the homogeneous graph, or ``off`` (as published).
        hetero_representation: the same in the heterogeneous graph; ``min_cosine`` (as published) repels.
        homo_prior: see `GraphUnit`; and the following three.
        hetero_prior: see above.
        homo_edges: see above.
        hetero_edges: see above.
        reconstruction_weight: of L_rec.
        cycle_weight: of L_cyc.
        margin_weight: of L_mar. A term of weight 0 is left out; parts that no other term trains stay untrained.
        margin: see `ordinal_margin`.
        margin_pairs: see `ordinal_margin`.
        orthogonality_weight: of L_ort.
        orthogonality: axis of `sequence_orthogonality`.
        orthogonality_abs: |cos| in place of max(0, cos).
        round_targets: compare targets of L_mar to four decimals.
    """

    def __init__(
        self,
        network: DMDNet,
        info: DataInfo,
        *,
        task_weight: float = 1.0,
        regression_loss: str = "l1",
        distil_weight: float = 0.05,
        logit_weight: float = 1.0,
        representation_weight: float = 10.0,
        regularisation_weight: float = 10.0,
        homo_representation: str = "off",
        hetero_representation: str = "min_cosine",
        homo_prior: str = "reference",
        hetero_prior: str = "reference",
        homo_edges: Sequence[str] = (),
        hetero_edges: Sequence[str] = (),
        reconstruction_weight: float = 0.1,
        cycle_weight: float = 0.1,
        margin_weight: float = 0.01,
        margin: float = 0.15,
        margin_pairs: str = "code",
        orthogonality_weight: float = 0.01,
        orthogonality: str = "frame",
        orthogonality_abs: bool = False,
        round_targets: bool = True,
    ) -> None:
        super().__init__()
        if info.dense:
            raise InputError(
                "DMD has one output per sample, and this data has dense targets (for each pixel or voxel). Choose "
                "another method."
            )
        self.network, self._info = network, info
        self.modalities = network.modalities
        # as in the authors' code, which selects its epoch by the fused model
        self.lead = next(name for name, student in network.students().items() if student.module is network.fused)
        self.task_weight, self.regression_loss = task_weight, regression_loss
        self.distil_weight, self.logit_weight = distil_weight, logit_weight
        self.representation_weight, self.regularisation_weight = representation_weight, regularisation_weight
        self.representation = {"homo": homo_representation, "hetero": hetero_representation}
        self.reconstruction_weight, self.cycle_weight = reconstruction_weight, cycle_weight
        self.margin_weight, self.margin, self.margin_pairs = margin_weight, margin, margin_pairs
        self.orthogonality_weight, self.orthogonality = orthogonality_weight, orthogonality
        self.perp = "abs" if orthogonality_abs else "positive"
        self.decimals = 4 if round_targets else None
        priors = {"homo": (homo_prior, homo_edges), "hetero": (hetero_prior, hetero_edges)}
        self.units = nn.ModuleDict(
            {
                graph: GraphUnit(
                    self.modalities,
                    network.numbers.width * (1 if graph == "homo" else len(self.modalities) - 1),
                    outputs=info.outputs,
                    hidden=HIDDEN[graph],
                    graph=graph,
                    prior=prior,
                    given=given,
                )
                for graph, (prior, given) in priors.items()
            }
        )
        self.uses_unlabelled = any(map(self._weights_of, GRAPHS)) or any(
            weight > 0 for weight in (reconstruction_weight, cycle_weight, orthogonality_weight)
        )
        self.start: dict[str, dict[str, list[float]]] = {}
        self._freeze_unused_parts()

    def _weights_of(self, graph: str) -> dict[str, float]:
        """Weights of the terms of a graph, without those that are 0."""
        weights = {
            "logit": self.logit_weight,
            "repr": self.representation_weight if self.representation[graph] != "off" else 0.0,
            "reg": self.regularisation_weight,
        }
        return {name: self.distil_weight * weight for name, weight in weights.items() if self.distil_weight * weight}

    def _freeze_unused_parts(self) -> None:
        # with several processes, a parameter that requires a gradient and gets none stops the training
        for graph, unit in self.units.items():
            unit.requires_grad_(bool(self._weights_of(graph)))
        self.network.alignments.requires_grad_(self.margin_weight > 0)
        self.network.decoders.requires_grad_(self.reconstruction_weight + self.cycle_weight > 0)

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """All terms whose weight is not 0; the edges are logged."""
        outputs = self.network({name: batch.input(name) for name in self.network.needs})
        target, valid = self._labels(batch)
        step = Step({})
        self._learn_labels(step, outputs, target, valid)
        for graph in GRAPHS:
            if weights := self._weights_of(graph):
                self._distil(step, graph, weights, heads_of(outputs, graph), target, valid)
        self._reconstruct(step, outputs)
        self._arrange(step, outputs, target, valid)
        return step

    def _learn_labels(self, step: Step, outputs: DMDOutputs, target: Tensor, valid: Tensor | None) -> None:
        """L_task, a term for each head."""
        heads = {"task_fused": outputs.fused, "task_common": outputs.common}
        heads |= {f"task_homo_{name}": logits for name, logits in outputs.homo.items()}
        heads |= {f"task_hetero_{name}": logits for name, logits in outputs.hetero.items()}
        for name, logits in heads.items():
            loss, count = masked_mean(self._errors(logits, target), valid)
            step.losses[name] = self.task_weight * loss
            if valid is not None:
                step.counts[name] = count

    def _distil(
        self,
        step: Step,
        graph: str,
        weights: Mapping[str, float],
        heads: Heads,
        target: Tensor,
        valid: Tensor | None,
    ) -> None:
        """L_homo or L_hetero, on the rows of all processes."""
        unit: GraphUnit = self.units[graph]  # type: ignore[assignment]
        # L_reg squares a mean over the batch, so the mean of the processes' terms is not the term of all rows
        logits, representations = self.gather(heads.logits), self.gather(heads.representations)
        if self.training and unit.kind == "auto":
            unit.observe(self._node_errors(logits.detach(), self.gather(target), self._gathered(valid)))
        edges = unit(logits, representations)
        weight_of_edge = edges + unit.prior
        for name, weight in weights.items():
            if name == "logit":
                value = graph_distance(logits, weight_of_edge, unit.edges)
            elif name == "repr":
                value = graph_distance(representations, weight_of_edge, unit.edges, distance=self.representation[graph])
            else:
                value = edge_regularisation(edges, unit.prior)
            step.losses[f"{graph}_{name}"] = weight * value
            step.counts[f"{graph}_{name}"] = len(logits)
        step.logs |= edge_logs(graph, unit, edges.detach())

    def _gathered(self, valid: Tensor | None) -> Tensor | None:
        return None if valid is None else self.gather(valid)

    def _reconstruct(self, step: Step, outputs: DMDOutputs) -> None:
        """L_rec and L_cyc."""
        pairs = {
            "reconstruction": (self.reconstruction_weight, outputs.rebuilt, outputs.projected),
            "cycle": (self.cycle_weight, outputs.private, outputs.private_again),
        }
        for name, (weight, first, second) in pairs.items():
            if weight:
                distances = [masked_mean((first[m] - second[m]).square())[0] for m in self.modalities]
                step.losses[name] = weight * torch.stack(distances).sum()

    def _arrange(self, step: Step, outputs: DMDOutputs, target: Tensor, valid: Tensor | None) -> None:
        """L_mar, which compares rows of all processes, and L_ort."""
        if self.margin_weight:
            aligned = self.gather(torch.stack(list(outputs.aligned.values()), dim=1))  # (rows, modalities, width)
            count = len(self.modalities)
            values = self.gather(_as_values(target, self._info)).repeat_interleave(count, dim=0)
            mask = self._gathered(valid)
            step.losses["margin"] = self.margin_weight * ordinal_margin(
                aligned.flatten(0, 1),
                values,
                margin=self.margin,
                decimals=self.decimals,
                pairs=self.margin_pairs,
                groups=torch.arange(count, device=aligned.device).repeat(len(aligned)),
                valid=None if mask is None else mask.repeat_interleave(count),
            )
            step.counts["margin"] = len(aligned)
        if self.orthogonality_weight:
            # this form takes its cosine over the batch, so it needs the rows of all processes
            mixing = self.orthogonality == "legacy_batch"
            parts = [(outputs.private[m], outputs.shared[m]) for m in self.modalities]
            if mixing:
                parts = [(self.gather(private), self.gather(shared)) for private, shared in parts]
            cosines = [sequence_orthogonality(*pair, axis=self.orthogonality, perp=self.perp) for pair in parts]
            step.losses["orthogonality"] = self.orthogonality_weight * torch.stack(cosines).sum()
            if mixing:
                step.counts["orthogonality"] = len(parts[0][0])

    def _errors(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample."""
        if self._info.task == "regression" and self.regression_loss == "l1":
            return F.l1_loss(outputs, target.to(outputs.dtype), reduction="none").flatten(1).mean(dim=1)
        return task_values(outputs, target, task=self._info.task, ignore=self._info.ignore)

    def _node_errors(self, logits: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        """Mean loss of each node's head, (nodes,)."""
        return torch.stack([masked_mean(self._errors(head, target), valid)[0] for head in logits.unbind(dim=1)])

    def _labels(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The targets, and the mask of the rows whose target counts."""
        return known_targets(
            batch.target,
            task=self._info.task,
            valid=next(iter(batch.valid.values()), None),
            ignore=self._info.ignore,
            labelled=next(iter(batch.labelled.values()), None),
        )

    @torch.no_grad()
    def edges_of(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Graph → edges of every row, (rows, edges), in evaluation mode."""
        edges: dict[str, list[Tensor]] = {graph: [] for graph in GRAPHS}
        with evaluating(self):
            for batch in batches:
                # `build` calls this before the engine has moved the method to the device
                self.to(next(iter(batch.inputs.values())).device)
                outputs = self.network({name: batch.input(name) for name in self.network.needs})
                for graph in GRAPHS:
                    heads = heads_of(outputs, graph)
                    edges[graph].append(self.units[graph](heads.logits, heads.representations))
        return {graph: torch.cat(parts) for graph, parts in edges.items()}

    def measure_start(self, batches: Iterable[Batch]) -> None:
        """Record the edges before training, the first point of their curve in the report."""
        for graph, edges in self.edges_of(batches).items():
            self.start[graph] = {"mean": edges.mean(0).tolist(), "std": edges.std(0, correction=0).tolist()}

    def extra_state(self) -> dict[str, Any]:
        """The edges before training: a resumed method has other weights and could not measure them again."""
        return {"edges": {graph: {"start": self.start.get(graph)} for graph in GRAPHS}}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the edges before training, from `extra_state` or from the `report` of a finished run."""
        self.start = {graph: edges["start"] for graph, edges in state.get("edges", {}).items() if edges["start"]}

    def report(self) -> dict[str, Any]:
        """Of each graph the names of its edges, its present prior, and its edges before training."""
        units: Iterable[tuple[str, Any]] = self.units.items()
        return {
            "edges": {
                graph: {"names": list(unit.names), "prior": unit.prior.tolist(), "start": self.start.get(graph)}
                for graph, unit in units
            }
        }

    def reads(self) -> tuple[str, ...]:
        """The inputs of the network."""
        return tuple(self.network.needs)

    def students(self) -> dict[str, Student]:
        """Each modality by its name, and ``fused``, which needs all of them."""
        return {
            name: replace(student, normalisation=statistics_for(self._info, student.needs))
            for name, student in self.network.students().items()
        }


class OtherHead(nn.Module):
    """A head that is trained and not deployed, computed by the whole network.

    Args:
        network: with all its heads.
        kind: ``common`` or ``hetero``.
        modality: of a heterogeneous head.
    """

    def __init__(self, network: DMDNet, kind: str, modality: str = "") -> None:
        super().__init__()
        self.network, self.kind, self.modality = network, kind, modality

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, outputs)."""
        outputs: DMDOutputs = self.network(inputs)
        return outputs.common if self.kind == "common" else outputs.hetero[self.modality]


def other_students(method: DMD) -> dict[str, Student]:
    """The heads that are trained and not deployed, as students: ``common`` and ``hetero <modality>``."""
    network = method.network
    heads = {"common": OtherHead(network, "common")}
    heads |= {f"hetero {name}": OtherHead(network, "hetero", name) for name in network.modalities}
    return {name: Student(head.eval(), network.needs, network.modalities[0]) for name, head in heads.items()}


def edge_logs(graph: str, unit: GraphUnit, edges: Tensor) -> dict[str, Tensor]:
    """``edge homo text>audio`` → mean over the batch, ``… std`` → standard deviation, ``… prior`` → π."""
    # a clone: the prior ``auto`` changes in place, and logs are read at the end of the epoch
    columns = {"": edges.mean(dim=0), " std": edges.std(dim=0, correction=0), " prior": unit.prior.clone()}
    return {
        f"edge {graph} {name}{column}": value
        for column, values in columns.items()
        for name, value in zip(unit.names, values.unbind(), strict=True)
    }


def _as_values(target: Tensor, info: DataInfo) -> Tensor:
    """Targets as vectors whose summed absolute difference is their distance; different classes have distance 1."""
    if info.task == "multiclass":
        # half of a one-hot vector: two of them differ in two entries
        return (target[:, None] == torch.arange(info.classes, device=target.device)).float() / 2
    values = target if target.is_floating_point() else target.float()
    return values.reshape(len(target), -1)


def build_network(info: DataInfo, modalities: Sequence[str], settings: DMDSettings) -> DMDNet:
    """A fresh network for some modalities of a data set; widths and lengths of its inputs are those of the data."""
    names = info.require(tuple(modalities), "method dmd")
    per_modality = {"kernel": settings.kernel, "input_dropout": settings.input_dropout}
    per_modality["attention_dropout"] = settings.attention_dropout
    problems = [
        f"{key} has {len(values)} numbers for {len(names)} modalities ({', '.join(names)}): expected one for all of "
        "them or one for each."
        for key, values in per_modality.items()
        if len(values) not in (0, 1, len(names))
    ]
    if settings.mask_padding:
        absent = [f"{name}.lengths" for name in names if f"{name}.lengths" not in info.inputs]
        problems += [f"mask_padding needs the input '{name}', which this data does not have." for name in absent]
    inputs, encoders = {}, _encoders(info, names, settings)
    for position, name in enumerate(names):
        layout, shape = info.inputs[name].layout, info.inputs[name].shape
        if layout not in ("vector", "sequence") or info.inputs[name].dynamic:
            problems.append(
                f"DMD reads sequences of one length (width, steps) and vectors, and '{name}' has samples of shape "
                f"{shape} (layout '{layout}'). Leave it out by --dmd.modalities, or store it as a sequence."
            )
            continue
        width, length = shape[0], shape[1] if layout == "sequence" else 1
        if name in encoders:
            width, length = encoders[name].width, info.inputs[f"{name}.tokens"].shape[1]
        values = {key: each[position if len(each) > 1 else 0] for key, each in per_modality.items() if each}
        inputs[name] = SequenceInput(width, length, **{"kernel": min(KERNEL, length), **values})  # type: ignore[arg-type]
    if problems:
        raise InputError(problems)
    shared = {field.name for field in fields(DMDNumbers)} & set(DMDSettings.model_fields)
    numbers = DMDNumbers(**{name: getattr(settings, name) for name in shared}, outputs=info.outputs)
    return DMDNet(inputs, numbers, encoders, as_published=settings.as_published)


def _encoders(info: DataInfo, names: Sequence[str], settings: DMDSettings) -> dict[str, TextEncoder]:
    """The text encoder, for the modality whose tokens the data has."""
    if settings.text_encoder is None:
        return {}
    with_tokens = [name for name in names if f"{name}.tokens" in info.inputs]
    if not with_tokens:
        raise InputError(
            "text_encoder reads tokens, an input called MODALITY.tokens, and this data has none. Load the data with "
            "its tokens, or leave the text encoder out: then the features of the data are used."
        )
    return {with_tokens[0]: load_text_encoder(settings.text_encoder, fine_tune=settings.fine_tune)}


def build(kit: Kit, settings: DMDSettings) -> DMD:
    """A fresh network for every modality that the recipe names, and the edges before training."""
    sides = tuple(name for name in kit.info.modalities if name in (*kit.teaching, *kit.student))
    names = settings.modalities or sides
    if len(set(names)) < len(names):
        raise InputError(f"The modalities of dmd are {', '.join(names)}: expected each of them once.")
    network = build_network(kit.info, names, settings)
    terms = {name: getattr(settings, name) for name in DMDTerms.model_fields if name != "as_published"}
    method = as_precise(DMD(network, kit.info, **terms), kit.info)
    for student in method.students().values():
        checked(student, kit.info)
    method.measure_start(kit.batches("valid"))
    return method

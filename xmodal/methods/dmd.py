r"""DMD: modalities that teach one another over two learned graphs, then each deploys alone or all together.

A network splits every modality into a homogeneous part, by one encoder for all, and a heterogeneous part, by an encoder
of its own, and predicts from each part and from all of them. Two small graphs whose nodes are the modalities decide for
every sample who should listen to whom: one over the homogeneous heads, each of which sees its modality alone, and one
over the heterogeneous heads, which have seen all modalities. There is no teacher beside the students.

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

with ω = e + π from `GraphUnit`. Samples must be paired. Deployed are, per modality, projection, shared encoder and
homogeneous head, and the fused model, which needs all modalities. Reference: Li, Wang, Cui: Decoupled Multimodal
Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802. The paper's text was not at hand; this file follows the
authors' code, and docs/methods/dmd.md numbers the places where it does not.
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
from xmodal.losses.task import task_values, what_counts
from xmodal.method import Kit, Method, trainable
from xmodal.methods.settings import DMDSettings, DMDTerms
from xmodal.models.dmd.graph_unit import GRAPHS, GraphUnit
from xmodal.models.dmd.net import DMDNet, DMDNumbers, DMDOutputs, SequenceInput
from xmodal.models.dmd.text_encoder import TextEncoder, load_text_encoder
from xmodal.models.network import as_precise, checked, evaluating, statistics_for
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo, Step, Student

HIDDEN = {"homo": 64, "hetero": 32}  # widths of the graph units
KERNEL = 5  # of the projection where none is given, or as long as the sequence


class Heads(NamedTuple):
    """What the nodes of a graph say of a batch.

    Attributes:
        logits: (rows, nodes, outputs).
        representations: (rows, nodes, width).
    """

    logits: Tensor
    representations: Tensor


def heads_of(said: DMDOutputs, graph: str) -> Heads:
    """Outputs of the heads that are the nodes of a graph."""
    found = (said.homo, said.homo_features) if graph == "homo" else (said.hetero, said.hetero_features)
    return Heads(*(torch.stack(list(each.values()), dim=1) for each in found))


class DMD(Method):
    """Two parts per modality, eight heads for three of them, and two graphs.

    Args:
        network: a `DMDNet`; its order of the modalities is that of the graphs.
        info: of the data.
        task_weight: of L_task.
        regression_loss: ``l1`` (as published) or ``mse``, for values.
        distil_weight: λ₁; 0 leaves both graphs out, and they rest.
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
        margin_weight: of L_mar. A term of weight 0 is left out; what it alone trains stays as it is.
        margin: see `ordinal_margin`.
        margin_pairs: see `ordinal_margin`.
        orthogonality_weight: of L_ort.
        orthogonality: axis of `sequence_orthogonality`.
        orthogonality_abs: |cos| in place of max(0, cos).
        round_targets: count targets as equal when four decimals are.
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
            raise InputError("DMD has one output per sample, and this data has a target per place.")
        self.network, self._info = network, info
        self.modalities = network.modalities
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
        self.start: dict[str, dict[str, list[float]]] = {}
        self._rest()

    def _weights_of(self, graph: str) -> dict[str, float]:
        """Weights of the terms of a graph, without those that are 0."""
        kind = self.representation[graph]
        known = {
            "logit": self.logit_weight,
            "repr": self.representation_weight if kind != "off" else 0.0,
            "reg": self.regularisation_weight,
        }
        return {name: self.distil_weight * weight for name, weight in known.items() if self.distil_weight * weight}

    def _rest(self) -> None:
        """What no term trains must not wait for a gradient."""
        for graph, unit in self.units.items():
            unit.requires_grad_(bool(self._weights_of(graph)))
        self.network.alignments.requires_grad_(self.margin_weight > 0)
        self.network.decoders.requires_grad_(self.reconstruction_weight + self.cycle_weight > 0)

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """All terms whose weight is not 0, and the edges."""
        said = self.network({name: batch.input(name) for name in self.network.needs})
        target, valid = batch.target, self._valid(batch)
        step = Step({})
        self._learn_labels(step, said, target, valid)
        for graph in GRAPHS:
            if weights := self._weights_of(graph):
                self._distil(step, graph, weights, heads_of(said, graph), target, valid)
        self._keep_content(step, said)
        self._arrange(step, said, target, valid)
        return step

    def _learn_labels(self, step: Step, said: DMDOutputs, target: Tensor, valid: Tensor | None) -> None:
        """L_task, a term for each head."""
        outputs = {"task_fused": said.fused, "task_common": said.common}
        outputs |= {f"task_homo_{name}": logits for name, logits in said.homo.items()}
        outputs |= {f"task_hetero_{name}": logits for name, logits in said.hetero.items()}
        for name, head in outputs.items():
            loss, count = masked_mean(self._errors(head, target), valid)
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
        """L_homo or L_hetero: means over the batch are squared and multiplied, so processes see everybody's rows."""
        unit: GraphUnit = self.units[graph]  # type: ignore[assignment]
        logits, representations = self.gather(heads.logits), self.gather(heads.representations)
        if self.training and unit.kind == "auto":
            unit.observe(self._node_errors(logits.detach(), self.gather(target), self._everybody(valid)))
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

    def _everybody(self, valid: Tensor | None) -> Tensor | None:
        return None if valid is None else self.gather(valid)

    def _keep_content(self, step: Step, said: DMDOutputs) -> None:
        """L_rec and L_cyc."""
        pairs = {
            "reconstruction": (self.reconstruction_weight, said.rebuilt, said.projected),
            "cycle": (self.cycle_weight, said.private, said.private_again),
        }
        for name, (weight, found, wanted) in pairs.items():
            if weight:
                distances = [masked_mean((found[m] - wanted[m]).square())[0] for m in self.modalities]
                step.losses[name] = weight * torch.stack(distances).sum()

    def _arrange(self, step: Step, said: DMDOutputs, target: Tensor, valid: Tensor | None) -> None:
        """L_mar, which compares rows of all processes, and L_ort."""
        if self.margin_weight:
            aligned = self.gather(torch.stack(list(said.aligned.values()), dim=1))  # (rows, modalities, width)
            count = len(self.modalities)
            values = self.gather(_as_values(target, self._info)).repeat_interleave(count, dim=0)
            mask = self._everybody(valid)
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
            mixing = self.orthogonality == "legacy_batch"
            parts = [(said.private[m], said.shared[m]) for m in self.modalities]
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

    def _valid(self, batch: Batch) -> Tensor | None:
        """Which rows have a target that counts."""
        ignore = self._info.ignore if self._info.task == "multiclass" else None
        return what_counts(batch.target, valid=next(iter(batch.valid.values()), None), ignore=ignore)

    def param_groups(self) -> list[dict[str, Any]]:
        """All in one group: network and graph units."""
        return [{"params": trainable([self])}]

    @torch.no_grad()
    def edges_of(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Graph → edges of every row, (rows, edges), in evaluation mode."""
        found: dict[str, list[Tensor]] = {graph: [] for graph in GRAPHS}
        with evaluating(self):
            for batch in batches:
                self.to(next(iter(batch.inputs.values())).device)
                said = self.network({name: batch.input(name) for name in self.network.needs})
                for graph in GRAPHS:
                    heads = heads_of(said, graph)
                    found[graph].append(self.units[graph](heads.logits, heads.representations))
        return {graph: torch.cat(parts) for graph, parts in found.items()}

    def measure_start(self, batches: Iterable[Batch]) -> None:
        """Note the edges before training: the first point of their curve, which `extra_state` keeps."""
        for graph, edges in self.edges_of(batches).items():
            self.start[graph] = {"mean": edges.mean(0).tolist(), "std": edges.std(0, correction=0).tolist()}

    def extra_state(self) -> dict[str, Any]:
        """Of each graph the names of its edges, its prior as it is now, and its edges before training."""
        units: Iterable[tuple[str, Any]] = self.units.items()
        return {
            "edges": {
                graph: {"names": list(unit.names), "prior": unit.prior.tolist(), "start": self.start.get(graph)}
                for graph, unit in units
            }
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The edges before training; the prior is a buffer."""
        self.start = {graph: kept["start"] for graph, kept in state.get("edges", {}).items() if kept["start"]}

    def students(self) -> dict[str, Student]:
        """Each modality by its name, and ``fused``, which needs all of them."""
        return {
            name: replace(student, normalisation=statistics_for(self._info, student.needs))
            for name, student in self.network.students().items()
        }


class OtherHead(nn.Module):
    """One of the heads that nobody deploys, computed by the whole network.

    Args:
        network: all of it.
        kind: ``common`` or ``hetero``.
        modality: whose heterogeneous head.
    """

    def __init__(self, network: DMDNet, kind: str, modality: str = "") -> None:
        super().__init__()
        self.network, self.kind, self.modality = network, kind, modality

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, outputs)."""
        said: DMDOutputs = self.network(inputs)
        return said.common if self.kind == "common" else said.hetero[self.modality]


def other_students(method: DMD) -> dict[str, Student]:
    """The heads that are trained and not deployed, as students: ``common`` and ``hetero <modality>``."""
    network = method.network
    heads = {"common": OtherHead(network, "common")}
    heads |= {f"hetero {name}": OtherHead(network, "hetero", name) for name in network.modalities}
    return {name: Student(head.eval(), network.needs, network.modalities[0]) for name, head in heads.items()}


def edge_logs(graph: str, unit: GraphUnit, edges: Tensor) -> dict[str, Tensor]:
    """``edge homo text>audio`` → mean over the batch, ``… std`` → deviation, ``… prior`` → π."""
    columns = {"": edges.mean(dim=0), " std": edges.std(dim=0, correction=0), " prior": unit.prior.clone()}
    return {
        f"edge {graph} {name}{what}": value
        for what, values in columns.items()
        for name, value in zip(unit.names, values.unbind(), strict=True)
    }


def _as_values(target: Tensor, info: DataInfo) -> Tensor:
    """Targets as vectors whose summed absolute difference is their distance; unlike classes are 1 apart."""
    if info.task == "multiclass":
        return (target[:, None] == torch.arange(info.classes, device=target.device)).float() / 2
    values = target if target.is_floating_point() else target.float()
    return values.reshape(len(target), -1)


def build_network(info: DataInfo, modalities: Sequence[str], settings: DMDSettings) -> DMDNet:
    """A fresh network for some modalities of a data set; sizes are those of the data."""
    names = info.require(tuple(modalities), "method dmd")
    listed = {"kernel": settings.kernel, "input_dropout": settings.input_dropout}
    listed["attention_dropout"] = settings.attention_dropout
    problems = [
        f"{key} has {len(given)} numbers for {len(names)} modalities ({', '.join(names)}): expected one for all of "
        "them or one for each."
        for key, given in listed.items()
        if len(given) not in (0, 1, len(names))
    ]
    if settings.mask_padding:
        absent = [f"{name}.lengths" for name in names if f"{name}.lengths" not in info.inputs]
        problems += [f"mask_padding needs the input '{name}', which this data does not have." for name in absent]
    inputs, encoders = {}, _encoders(info, names, settings)
    for place, name in enumerate(names):
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
        own = {key: given[place if len(given) > 1 else 0] for key, given in listed.items() if given}
        inputs[name] = SequenceInput(width, length, **{"kernel": min(KERNEL, length), **own})  # type: ignore[arg-type]
    if problems:
        raise InputError(problems)
    asked = {field.name for field in fields(DMDNumbers)} & set(DMDSettings.model_fields)
    numbers = DMDNumbers(**{name: getattr(settings, name) for name in asked}, outputs=info.outputs)
    return DMDNet(inputs, numbers, encoders, as_published=settings.as_published)


def _encoders(info: DataInfo, names: Sequence[str], settings: DMDSettings) -> dict[str, TextEncoder]:
    """The text encoder, for the modality whose tokens the data has."""
    if settings.text_encoder is None:
        return {}
    found = [name for name in names if f"{name}.tokens" in info.inputs]
    if not found:
        raise InputError(
            "text_encoder reads tokens, an input called MODALITY.tokens, and this data has none. Load it with its "
            "tokens, or leave the text encoder out: then features that come with the data are used."
        )
    return {found[0]: load_text_encoder(settings.text_encoder, fine_tune=settings.fine_tune)}


def build(kit: Kit, settings: DMDSettings) -> DMD:
    """A fresh network for every modality that the recipe names, and the edges before training."""
    asked = settings.modalities or tuple(name for name in kit.info.modalities if name in (*kit.teaching, *kit.student))
    if len(set(asked)) < len(asked):
        raise InputError(f"The modalities of dmd are {', '.join(asked)}: expected each of them once.")
    with torch.random.fork_rng(devices=[]):  # fresh weights that depend on the seed alone
        torch.manual_seed(mix(kit.seed, "dmd"))
        network = build_network(kit.info, asked, settings)
        terms = {name: getattr(settings, name) for name in DMDTerms.model_fields if name != "as_published"}
        method = as_precise(DMD(network, kit.info, **terms), kit.info)
    for student in method.students().values():
        checked(student, kit.info)
    method.measure_start(kit.batches("valid"))
    return method

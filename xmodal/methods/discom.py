r"""DisCoM-KD: a student for every modality from one training, without a teacher, from data that need not be paired.

Two encoders per modality compute three parts of an embedding: task information that all modalities share (invariant,
u), task information of this one alone (informative, v), and what identifies the modality without helping the task
(irrelevant, w). All modalities share the auxiliary heads, and an adversary that must not recognise the modality of an
invariant part. No term compares row i of one modality with row i of another. In paired data, rows that lack one of the
modalities are left out; as unpaired data, each modality has all of its rows.

$$L = L_{cl} + L_{aux} + L_{adv} + L_{mod} + L_{\perp}$$

| term | equation | weight |
|---|---|---|
| L_cl | CE(head_m(u ⊕ v), y) | ``task_weight`` |
| L_aux | CE(aux(u), y) + CE(aux(v), y) | ``auxiliary_weight`` |
| L_adv | CE(adversary(reversed u), m) | ``adversarial_weight`` |
| L_mod | ½ CE(informative(v), m) + ½ CE(irrelevant(w), m) | ``modality_weight`` |
| L_⊥ | \|cos(v, w)\| + \|cos(v, u)\| | ``orthogonality_weight`` |

Each is a mean over the rows of all modalities, m is the modality of a row and y its label. Deployed are, per modality,
both encoders, the projection and the head. Reference: Ienco, Dantas: DisCoM-KD, BMVC 2024, arXiv 2408.07080. Only its
abstract and the authors' code were available; docs/methods/discom.md numbers the differences from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.adversarial import domain_loss, reversal_ramp, reverse_gradient
from xmodal.losses.disentangle import orthogonality
from xmodal.losses.reduce import masked_mean
from xmodal.losses.task import known_targets, task_values
from xmodal.method import Kit, Method
from xmodal.methods.settings import DisCoMSettings
from xmodal.models.discom_net import Branches, Parts, SharedHeads, branches_for
from xmodal.types import Batch, DataInfo, Step, Student

TERMS = ("task", "auxiliary", "adversarial", "modality", "orthogonality")
# suffix of the two terms with the targets of the authors' code: their values are not cross-entropies of the modality,
# and must not be compared with those of other runs
RELEASED = ", released targets"


class DisCoM(Method):
    """One student per modality, trained together.

    Args:
        branches: modality → student around `Branches` (`branches_for`, or `branches_of` for your own encoders), in the
            order of the modality numbers m.
        info: of the data.
        task_weight: of L_cl.
        auxiliary_weight: of L_aux.
        adversarial_weight: of L_adv.
        modality_weight: of L_mod.
        orthogonality_weight: of L_⊥. A term of weight 0 is left out; heads that no other term trains stay untrained.
        domain_targets: ``index``, or ``released`` for the targets of the authors' code (see `domain_loss`).
        perp: form of the cosine, see `orthogonality`.
        reversal: λ, strength of the reversed gradient.
        reversal_ramp: whether λ grows from 0 to its full strength during training.
        adversary_hidden: width of a hidden layer of the adversary; 0: linear, as published.
        regression_loss: ``mse`` or ``huber`` (δ = 1), both in units of the training targets' standard deviation.

    Example:
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"image": vector, "sound": vector}, "multiclass", 3, rows={}, paired=False)
        >>> mlp = {"encoder": "mlp", "shape": [4], "width": 8}
        >>> method = DisCoM({name: branches_for(info, name, mlp) for name in info.modalities}, info)
        >>> sorted(method.students())
        ['image', 'sound']
    """

    stackable = True

    def __init__(
        self,
        branches: Mapping[str, Student],
        info: DataInfo,
        *,
        task_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        modality_weight: float = 1.0,
        orthogonality_weight: float = 1.0,
        domain_targets: str = "index",
        perp: str = "abs",
        reversal: float = 1.0,
        reversal_ramp: bool = False,
        adversary_hidden: int = 0,
        regression_loss: str = "mse",
    ) -> None:
        super().__init__()
        modules = _modules(branches, domain_targets)
        if info.dense:
            raise InputError(
                "DisCoM-KD has one embedding per sample, and this data has dense targets (for each pixel or voxel). "
                "Choose another method."
            )
        if info.label_losses or info.class_weights:
            raise InputError("DisCoM-KD has a fixed loss of labels. Leave label_losses and class_weights out.")
        self.modalities = tuple(branches)
        # by number: names in a `ModuleDict` may hold no dot and must not be names of its methods
        self.branches = nn.ModuleList(modules)
        self.heads = SharedHeads(modules[0].part_width, info.outputs, len(modules), adversary_hidden=adversary_hidden)
        self._students, self._info = dict(branches), info
        weights = (task_weight, auxiliary_weight, adversarial_weight, modality_weight, orthogonality_weight)
        self.weights = dict(zip(TERMS, weights, strict=True))
        self.domain_targets, self.perp, self.regression_loss = domain_targets, perp, regression_loss
        self.reversal, self.reversal_ramp, self.strength = reversal, reversal_ramp, reversal
        self.uses_unlabelled = any(self.weights[name] for name in ("adversarial", "modality", "orthogonality"))
        self._freeze_unused_heads()

    def _freeze_unused_heads(self) -> None:
        # with several processes, a parameter that requires a gradient and gets none stops the training
        heads = self.heads
        trained: dict[str, Sequence[nn.Module]] = {
            "task": [branches.head for branches in self.branches],  # type: ignore[misc]
            "auxiliary": [heads.auxiliary],
            "adversarial": [heads.adversary],
            "modality": [heads.informative, heads.irrelevant],
        }
        for term, modules in trained.items():
            for module in modules:
                module.requires_grad_(self.weights[term] > 0)

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """All terms whose weight is not 0."""
        inputs = {name: batch.input(name) for name in self.modalities}
        targets = {name: batch.targets[name] for name in self.modalities}
        terms, counts = self.terms(inputs, targets, valid=batch.valid, labelled=batch.labelled)
        suffix = RELEASED if self.domain_targets == "released" else ""
        named = {name: f"{name}{suffix}" if name in ("adversarial", "modality") else name for name in terms}
        return Step({named[name]: self.weights[name] * value for name, value in terms.items()}, counts)

    def terms(
        self,
        inputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        *,
        valid: Mapping[str, Tensor] | None = None,
        labelled: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | int]]:
        """The terms of the objective before their weights, and the counts of the first two where there is a mask.

        With all weights 1 the objective, in a training loop of your own, is
        ``sum(method.terms(inputs, targets)[0].values())``.

        Args:
            inputs: modality → (rows, …); the modalities may have different numbers of rows.
            targets: modality → (rows, …).
            valid: modality → (rows,), which targets count; all rows count in the other terms.
            labelled: modality → (rows,), which rows have a label; the others count in the other terms alone.
        """
        parts = [branches.embed(inputs) for branches in self.each]
        labels, masks = self._labels(targets, valid or {}, labelled or {})
        terms: dict[str, Tensor] = {}
        counts: dict[str, Tensor | int] = {}
        if self.weights["task"]:
            outputs = [branches.answer(each) for branches, each in zip(self.each, parts, strict=True)]
            terms["task"], counts["task"] = self._task(outputs, labels, masks)
        if self.weights["auxiliary"]:
            invariant, rows = self._task([self.heads.auxiliary(each.invariant) for each in parts], labels, masks)
            informative, _ = self._task([self.heads.auxiliary(each.informative) for each in parts], labels, masks)
            terms["auxiliary"], counts["auxiliary"] = invariant + informative, rows
        if self.weights["adversarial"]:
            reversed_parts = [reverse_gradient(each.invariant, self.strength) for each in parts]
            terms["adversarial"] = self._domain(self.heads.adversary, reversed_parts)
        if self.weights["modality"]:
            informative = self._domain(self.heads.informative, [each.informative for each in parts])
            irrelevant = self._domain(self.heads.irrelevant, [each.irrelevant for each in parts])
            terms["modality"] = (informative + irrelevant) / 2
        if self.weights["orthogonality"]:
            terms["orthogonality"] = self._perpendicular(parts)
        return terms, counts if masks is not None else {}

    @property
    def each(self) -> list[Branches]:
        """The networks of the modalities, in the order in which the heads number them."""
        return list(self.branches)  # type: ignore[arg-type]

    def _task(
        self, outputs: Sequence[Tensor], labels: Sequence[Tensor], masks: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor | int]:
        """Mean over the rows of all modalities."""
        table, target = torch.cat(list(outputs)), torch.cat(list(labels))
        if self._info.task == "regression" and self.regression_loss == "huber":
            values = F.huber_loss(table, target.to(table.dtype), reduction="none").mean(dim=1)
        else:
            values = task_values(table, target, task=self._info.task, ignore=self._info.ignore)
        return masked_mean(values, None if masks is None else torch.cat(list(masks)))

    def _labels(
        self, targets: Mapping[str, Tensor], valid: Mapping[str, Tensor], labelled: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """The targets of each modality, in standardised units, and the masks of those that count; None: all count."""
        task, ignore = self._info.task, self._info.ignore
        known = [
            known_targets(targets[name], task=task, valid=valid.get(name), ignore=ignore, labelled=labelled.get(name))
            for name in self.modalities
        ]
        labels = [branches.standardised(target) for branches, (target, _) in zip(self.each, known, strict=True)]
        if all(mask is None for _, mask in known):
            return labels, None
        # the masks of all modalities are joined, so one without a mask needs one too
        every = [torch.ones(len(target), dtype=torch.bool, device=target.device) for target, _ in known]
        return labels, [all_rows if mask is None else mask for (_, mask), all_rows in zip(known, every, strict=True)]

    def _domain(self, head: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        """One pass of a head over the rows of all modalities, then the loss of each modality's rows."""
        # one pass, because batch normalisation in a hidden layer must see all modalities with the same statistics
        rows = [len(part) for part in parts]
        return domain_loss(head(torch.cat(list(parts))).split(rows), targets=self.domain_targets)

    def _perpendicular(self, parts: Sequence[Parts]) -> Tensor:
        invariant, informative, irrelevant = (torch.cat(list(column)) for column in zip(*parts, strict=True))
        return orthogonality(informative, irrelevant, perp=self.perp) + orthogonality(
            informative, invariant, perp=self.perp
        )

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Strength of the reversal, if it grows."""
        if self.reversal_ramp:
            self.strength = self.reversal * reversal_ramp(epoch / max(epochs, 1))

    def reads(self) -> tuple[str, ...]:
        """The modalities that have branches."""
        return tuple(self.modalities)

    def students(self) -> dict[str, Student]:
        """One per modality."""
        return dict(self._students)


def _modules(branches: Mapping[str, Student], domain_targets: str) -> list[Branches]:
    modules = [student.module for student in branches.values()]
    listed = ", ".join(branches) or "none"
    if len(modules) < 2:
        raise InputError(f"DisCoM-KD trains two modalities or more together, and was given {listed}. Name another one.")
    if domain_targets == "released" and len(modules) != 2:
        raise InputError(
            f"domain_targets 'released' is defined for two modalities, and there are {len(modules)} ({listed}). Name "
            "two, or choose 'index'."
        )
    branch_modules = [module for module in modules if isinstance(module, Branches)]
    if len(branch_modules) < len(modules):
        raise InputError("DisCoM-KD is built around Branches: make the students by branches_for or branches_of.")
    widths = {module.modality: 2 * module.part_width for module in branch_modules}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise InputError(
            f"The encoders make embeddings of different widths ({listed}), and all modalities share the same heads. "
            "Give them one width (--student-width), or encoders that have it."
        )
    return branch_modules


def build(kit: Kit, settings: DisCoMSettings) -> DisCoM:
    """Fresh branches for every modality that the recipe names, around the encoders of its students."""
    sides = tuple(name for name in kit.info.modalities if name in (*kit.teaching, *kit.student))
    names = kit.info.require(settings.modalities or sides, "method discom")
    if len(set(names)) < len(names):
        raise InputError(f"The modalities of discom are {', '.join(names)}: expected each of them once.")
    # the recipe's choice of encoders: its network is built for its description, and then discarded
    described = {name: kit.network((name,)).arguments for name in names}
    if any(arguments is None for arguments in described.values()):
        raise InputError(
            "DisCoM-KD needs two encoders per modality, and a whole network of yours was given. In Python, "
            "xmodal.models.discom_net.branches_of makes a student of two encoders of your own."
        )
    branches = {
        name: branches_for(kit.info, name, arguments["inputs"][name])
        for name, arguments in described.items()
        if arguments is not None
    }
    return DisCoM(branches, kit.info, **settings.model_dump(exclude={"modalities"}))

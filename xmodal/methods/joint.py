r"""Joint training: two networks of different modalities learn the task and to agree with one another.

It is the first step of Algorithm 1 of the modality focusing hypothesis, and of the channel mask of the non-target
divergence hypothesis: in networks that had to agree, a channel matters for the agreement exactly if it carries
information of both modalities. Training needs paired samples of both sides; the result is two networks, one per side.
Rows without a label count in D alone, and not there if it reads labels, as ncjsd does. Rows that lack a modality of
either side are left out.

$$L = L_{task}(f, y) + L_{task}(g, y) + w_{agree} \, D(g, f)$$

| symbol | argument |
|---|---|
| f | ``teacher`` |
| g | ``student`` |
| D | ``agreement``: mse of the outputs (MFH), or ncjsd, the divergence of the wrong classes (NTDH) |
| w | ``agreement_weight`` |

References: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, Algorithm 1, step 1. Chen et al.:
Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; after the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from xmodal.errors import InputError
from xmodal.losses.task import label_terms
from xmodal.method import Kit, Method
from xmodal.methods.terms import OUTPUTS, Side, build_terms, compared_places
from xmodal.types import Batch, DataInfo, Step, Student

TEACHER, STUDENT = "teacher", "student"


class Joint(Method):
    """Two networks, the task for each, and their agreement.

    Args:
        teacher: f, the network that teaches afterwards.
        student: g, a network of the modalities at deployment.
        info: of the data; must be paired.
        agreement: name of the loss D between the outputs; its gradient reaches both networks.
        agreement_weight: w.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> sorted(Joint(build_for(info, ["clear"]), build_for(info, ["faint"]), info).students())
        ['student', 'teacher']
    """

    stackable = True

    def __init__(
        self,
        teacher: Student,
        student: Student,
        info: DataInfo,
        *,
        agreement: str = "mse",
        agreement_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not info.paired:
            raise InputError(
                "Joint training compares two networks on the same samples, and this data is unpaired. Give paired data."
            )
        self.networks = {TEACHER: teacher, STUDENT: student}
        self.teacher, self.student = teacher.module, student.module
        self._info = info
        if info.dense or info.label_losses or info.class_weights or info.weighted:
            # these select rows, and a recorded step has one shape for all models
            self.stackable = False
        self.agreement_weight = agreement_weight
        sides = [Side(side.module, info, side.needs, (), role) for role, side in self.networks.items()]
        (self.agreement,) = build_terms([agreement], sides[1], sides[0], info)
        self.stackable &= not (info.labelled and self.agreement.selects_rows)
        self.unused_parameters = self.agreement.has_parameters
        self.uses_unlabelled = bool(agreement_weight) and self.agreement.uses_unlabelled

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """L = L_task(f, y) + L_task(g, y) + w D(g, f)."""
        step, outputs = Step({}), {}
        for side, network in self.networks.items():
            outputs[side] = network.module({name: batch.input(name) for name in network.needs})
            terms = label_terms(
                outputs[side],
                batch.target,
                self._info,
                valid=batch.valid.get(network.target),
                labelled=batch.labelled.get(network.target),
                row_weight=batch.weights.get(network.target),
                gather=self.gather,
            )
            for name, (loss, count) in terms.items():
                step.losses[f"{side} {name}"], step.counts[f"{side} {name}"] = loss, count
        student, teacher = {OUTPUTS: outputs[STUDENT]}, {OUTPUTS: outputs[TEACHER]}
        mask = compared_places(batch, self.networks[STUDENT].target, self._info)
        loss, count = self.agreement(student, teacher, batch, mask=mask, gather=self.gather)
        step.losses["agreement"], step.counts["agreement"] = self.agreement_weight * loss, count
        return step

    def reads(self) -> tuple[str, ...]:
        """The inputs of both networks."""
        return tuple(dict.fromkeys([*self.networks[TEACHER].needs, *self.networks[STUDENT].needs]))

    def students(self) -> dict[str, Student]:
        """Both networks, named after their sides."""
        return dict(self.networks)


def fit_joint(kit: Kit, *, agreement: str, stage: str) -> Joint:
    """Train both sides of a recipe together.

    Args:
        kit: builds the networks and trains them.
        agreement: name of the loss between them.
        stage: name under which the run is kept.
    """
    teacher = kit.network(kit.teaching, side=TEACHER)
    joint = Joint(teacher, kit.network(kit.student), kit.info, agreement=agreement)
    # the best epochs of the two sides differ, and only networks of the same epoch were trained to agree
    kit.fit(joint, stage=stage, keep="last")
    joint.eval()
    return joint

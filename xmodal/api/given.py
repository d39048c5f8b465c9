"""What a Python call was given: data in one of three forms, networks, weights, metrics and callbacks.

An argument that could have no effect is an error, all of them together, before the data is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xmodal.api import fingerprint
from xmodal.data.samples import as_array
from xmodal.engine.callbacks import check_callbacks
from xmodal.errors import InputError, listed
from xmodal.names import UNLABELLED
from xmodal.teachers.request import TeacherRequest

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.study.plan import Plan
    from xmodal.study.settings import TeacherFlags

P = TypeVar("P", bound="TeacherFlags")


@dataclass(frozen=True, kw_only=True)
class Given:
    """The arguments of `distill` and `compare` that are no settings; their meaning stands there."""

    inputs: Mapping[str, Any] | None = None
    target: Any = None
    dataset: Any = None
    data: Data | None = None
    task: str = ""
    splits: Mapping[str, Any] | None = None
    unlabelled: Mapping[str, Any] | None = None
    unlabelled_label: int | None = UNLABELLED
    groups: Any = None
    split_by_group: bool = False
    sample_weight: Any = None
    metrics: Mapping[str, Any] | None = None
    student_network: nn.Module | None = None
    teacher_network: nn.Module | None = None
    teacher_from: Any = None
    teacher_classes: Path | Sequence[str] | Mapping[str, str] | None = None
    callbacks: Sequence[object] = ()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The user's own networks by side."""
        networks = {"student": self.student_network, "teacher": self.teacher_network}
        return {side: network for side, network in networks.items() if network is not None}

    @property
    def named(self) -> dict[str, Any]:
        """What the settings record of a given teacher."""
        if self.teacher_from is None:
            return {}
        return {"teacher_from": TeacherRequest(source=self.teacher_from).label.strip("'")}

    def handed_to(self, settings: P) -> P:
        """The settings with the objects of a given teacher."""
        if self.teacher_from is None:
            return settings
        return settings.with_objects(source=self.teacher_from, classes=self.teacher_classes)

    def check(self, arguments: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        """Raise an error about arguments that contradict one another or would have no effect.

        Args:
            arguments: settings that the call takes as arguments, by name.
            training: further settings, by name.
        """
        check_callbacks(self.callbacks)
        problems = self._problems()
        if self.teacher_from is None and self.teacher_classes is not None:
            problems.append("teacher_classes names the classes of a given teacher. Give it as teacher_from.")
        repeated = sorted(({*arguments, "task", "teacher_from", "teacher_classes"}) & training.keys())
        if repeated:
            problems.append(f"training names {listed(repeated)}, which is an argument of its own. Give it there alone.")
        for side in self.modules:
            unused = [name for name in (f"{side}_encoder", f"{side}_width") if name in training]
            if unused:
                problems.append(
                    f"training names {listed(unused)}, and {side}_network is a network of your own, which has no such "
                    "setting. Leave one of them out."
                )
        for name in ("train_fraction", "augment"):
            if name in training and (self.data is not None):
                problems.append(
                    f"training names {name}, and data= was opened already. Give it to xmodal.open_data or from_arrays."
                )
        if training.get("resume") and arguments.get("out") is None:
            problems.append("training says resume, and there is no run folder to continue. Give out=.")
        if problems:
            raise InputError(problems)

    def _problems(self) -> list[str]:
        forms = {"inputs and target": self.inputs is not None or self.target is not None}
        forms |= {"dataset": self.dataset is not None, "data": self.data is not None}
        chosen = [name for name, used in forms.items() if used]
        if not chosen:
            return ["There is nothing to distil from: give inputs and target, or dataset=, or data=."]
        if len(chosen) > 1:
            return [f"The data was given as {listed(chosen)}: one of them was expected. Leave the others out."]
        if chosen == ["inputs and target"] and (self.inputs is None or self.target is None):
            missing = "inputs" if self.inputs is None else "target"
            return [f"There is nothing to distil from: {missing} is missing. Give inputs and target together."]
        problems = []
        usual = {"task": "", "splits": None, "unlabelled": None, "unlabelled_label": UNLABELLED}
        usual |= {"groups": None, "split_by_group": False}
        if self.data is not None:
            # by identity where it matters: arrays have no single truth value
            given = [name for name, value in usual.items() if not _is(getattr(self, name), value)]
            if given:
                problems.append(
                    f"data= was opened already, so {listed(given)} would have no effect. Leave it out, or give inputs "
                    "and target."
                )
        if self.dataset is not None and self.unlabelled is not None:
            problems.append("unlabelled goes with inputs. Samples of a dataset without a label have the target None.")
        return problems

    def open(self, plan: Plan, seed: int) -> Data:
        """The data of one seed, which also draws the split where none is given."""
        from xmodal.data.labels import requested
        from xmodal.data.request import DataRequest
        from xmodal.data.weights import with_row_weights
        from xmodal.metrics.further import further_metrics
        from xmodal.metrics.task import scalar_metrics
        from xmodal.study.plan import with_weights

        data = self.data if self.data is not None else self._open(plan, seed)
        if self.sample_weight is not None:
            data = with_row_weights(data, self.sample_weight, further=self._further_rows())
        if self.metrics:
            further = further_metrics(self.metrics, data.info, usual=scalar_metrics(data.info))
            data = replace(data, info=replace(data.info, further_metrics=further))
        request = DataRequest(
            # of which the fraction is done: `requested` refuses it together with hidden labels
            train_fraction=plan.train_fraction,
            labelled=plan.labelled,
            labelled_groups=plan.labelled_groups,
            valid_labels=plan.valid_labels,
            seed=seed,
        )
        return with_weights(plan, requested(data, request))

    def _further_rows(self) -> int:
        """How many rows without a label were added behind those of the target."""
        return len(next(iter(self.unlabelled.values()))) if self.unlabelled else 0

    def _open(self, plan: Plan, seed: int) -> Data:
        from xmodal.data.arrays import from_arrays, from_dataset

        choices: dict[str, Any] = {
            "splits": self.splits,
            "task": self.task,
            "train_fraction": plan.train_fraction,
            "augment": plan.augment,
            "seed": seed,
            "folds": plan.folds,
            "unlabelled_label": self.unlabelled_label,
            "groups": self.groups,
            "split_by_group": self.split_by_group,
        }
        if self.dataset is not None:
            return from_dataset(self.dataset, **choices)
        assert self.inputs is not None  # `check` was called
        return from_arrays(self.inputs, self.target, unlabelled=self.unlabelled, **choices)

    def described(self, data: Data) -> dict[str, Any]:
        """What a run folder records of these arguments, so that another call does not continue it by mistake."""
        described: dict[str, Any] = {"data": fingerprint.of_data(data)}
        if self.modules:
            described["networks"] = fingerprint.of_modules(self.modules)
        if self.sample_weight is not None:
            described["weights"] = fingerprint.of_array(self.sample_weight)
        if self.metrics:
            described["metrics"] = sorted(self.metrics)
        return described


def _is(value: Any, usual: Any) -> bool:
    return value is usual or (isinstance(value, str | int) and value == usual)


def given_weights(weights: str | Sequence[float] | None) -> Any:
    """Class weights as the settings take them: arrays become tuples."""
    if weights is None or isinstance(weights, str):
        return weights or ()
    return tuple(as_array("class_weights", weights).tolist())

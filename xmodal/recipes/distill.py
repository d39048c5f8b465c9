"""Your own data in one command: a teacher with all modalities, a student with fewer, their controls, and a report.

It trains the teacher, the no-KD control, the student and its shuffled-teacher control with one seed, and reports
whether distillation helped. One seed is no proof: `compare` repeats it. Small arrays take a minute on a CPU.

    xmodal distill my_data --teacher audio,image --student image --method kd
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from xmodal.data.options import validated
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.names import UNLABELLED
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.study.opening import open_study
from xmodal.study.plan import Comparison, open_seed
from xmodal.study.settings import PairSettings

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.types import DataInfo, Student


class Settings(PairSettings):
    """Train a teacher, a no-KD control and a distilled student, and report."""

    method: str = Field("kd", description="a method of `xmodal list methods`; its settings become flags")
    seed: int = Field(0, ge=0, description="of weights, order of batches, and the split of data without one")
    shuffled: bool = Field(True, description="run the shuffled-teacher control")

    def comparison(self) -> Comparison:
        """A comparison of one method with one seed."""
        flags = {name: getattr(self, name) for name in PairSettings.model_fields}
        return ComparisonSettings(**flags, methods=(self.method,), shuffled=self.shuffled).comparison()


@dataclass
class Distilled:
    """The result of `distill`.

    Attributes:
        student: the distilled network with its normalisation; `xmodal.export` writes it.
        result: scores of teacher, control and student, as in `result.json`.
        info: description of the data.
        folder: the run folder; None if nothing was written.
    """

    student: Student
    result: dict[str, Any]
    info: DataInfo
    folder: Path | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Name → test score of every network."""
        return {row["name"]: row["test"][self.result["metric"]] for row in self.result["rows"]}


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train, write the run folder and its page, and return the content of `result.json`."""
    from xmodal.data.targets import target_sentence
    from xmodal.study.comparison import check, summarised, train

    with open_study(settings, "distill", progress=progress) as study:
        # data, and all checks: nothing is written yet
        comparison = settings.comparison()
        data = open_seed(comparison.plan, settings.seed)
        comparison = check(comparison, data, study.fabric)
        study.start(fits=comparison.fits(few=bool(data.info.labelled)), name=f"distill-{Path(settings.data).name}")
        study.progress.say(target_sentence(data.info, data.labels_from))

        # teacher, control, student and its control; then the scores on the test split
        bench = study.bench(comparison.plan, data, settings.seed)
        notes = train(bench, comparison)
        rows = bench.score()

        # report
        result = summarised(comparison, data, rows, notes, title=f"{settings.data}: {settings.method}")
        return study.finish(result)


def distill(
    inputs: Mapping[str, Any] | None = None,
    target: Any = None,
    *,
    dataset: Any = None,
    data: Data | None = None,
    teacher: str | tuple[str, ...] = (),
    student: str | tuple[str, ...] = (),
    method: str = "kd",
    options: Mapping[str, Any] | None = None,
    task: str = "",
    epochs: int = 40,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    splits: Mapping[str, Any] | None = None,
    unlabelled: Mapping[str, Any] | None = None,
    unlabelled_label: int | None = UNLABELLED,
    groups: Any = None,
    split_by_group: bool = False,
    student_network: nn.Module | None = None,
    teacher_network: nn.Module | None = None,
    training: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    verbose: bool = False,
) -> Distilled:
    """Distil from arrays, tensors or a `torch.utils.data.Dataset`.

    Args:
        inputs: modality → array (rows, …).
        target: labels (rows,) of any type, a table of zeros and ones, or floats for regression; modality → target when
            unpaired. See `xmodal.from_arrays`.
        dataset: in place of both, samples ``(inputs, target)`` with a dictionary of inputs.
        data: in place of these, opened data (`xmodal.open_data`).
        teacher: modalities of the teacher, one name or several; default: all.
        student: modalities at deployment; default: the last one.
        method: a name of `xmodal list methods`.
        options: settings of the method, by name.
        task: kind of target; default: inferred from its values.
        epochs: for each network.
        batch_size: rows per step.
        learning_rate: of Adam.
        seed: of weights, order of batches, and split.
        splits: train, valid, test → row numbers; default: drawn 70/10/20, class by class.
        unlabelled: modality → further rows without a label, for training.
        unlabelled_label: integer in ``target`` that stands for a missing label; None: no integer does.
        groups: a value per row, such as the speaker.
        split_by_group: whether drawn splits keep each group in one split.
        student_network: your own module in place of a built one; it takes a tensor, or a dictionary of several.
        teacher_network: the same for the teacher; it is trained here.
        training: further flags of ``xmodal distill`` by name, such as ``{"optimizer": "sgd", "precision": "64"}`` or
            ``{"labelled": "30"}``.
        out: run folder; None: nothing is written.
        verbose: print the progress to standard error.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 200)
        >>> clear, faint = y[:, None] + 0.1 * random.normal(size=(200, 4)), y[:, None] + random.normal(size=(200, 4))
        >>> done = distill({"clear": clear, "faint": faint}, y, teacher="clear", student="faint", epochs=5)
        >>> done.student.needs, done.scores["teacher"] > 0.9
        (('faint',), True)
    """
    from xmodal.data.labels import requested
    from xmodal.data.request import DataRequest
    from xmodal.data.targets import target_sentence
    from xmodal.study.comparison import check, summarised, train

    # settings first: an error in them appears before the data is copied and split
    values = {
        "data": "arrays",
        "teacher": (teacher,) if isinstance(teacher, str) else teacher,
        "student": (student,) if isinstance(student, str) else student,
        "method": method,
        "options": {method: options or {}},
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "out": out,
    }
    repeated = sorted(values.keys() & (training or {}).keys())
    if repeated:
        raise InputError(
            f"training names {', '.join(repeated)}, which distill takes as an argument. Give it there alone."
        )
    settings = validated(Settings, {**(training or {}), **values}, "distill")

    with open_study(settings, "distill", progress=Progress(quiet=not verbose)) as study:
        # data, and all checks: nothing is written yet
        comparison = settings.comparison()
        choices = {"splits": splits, "task": task, "seed": seed, "unlabelled_label": unlabelled_label}
        choices |= {"groups": groups, "split_by_group": split_by_group}
        data = data or _open(inputs, target, dataset, unlabelled, choices)
        data = requested(data, DataRequest(**settings.request(), seed=seed))
        networks = {"student": student_network, "teacher": teacher_network}
        modules = {side: network for side, network in networks.items() if network is not None}
        comparison = check(comparison, data, study.fabric, modules=modules)
        study.start(fits=comparison.fits(few=bool(data.info.labelled)), write=out is not None)
        study.progress.say(target_sentence(data.info, data.labels_from))

        # teacher, control, student and its control; then the scores on the test split
        bench = study.bench(comparison.plan, data, seed, modules=modules)
        notes = train(bench, comparison)
        rows = bench.score()

        # the result, and the student in the float32 in which every student is deployed
        result = study.finish(summarised(comparison, data, rows, notes, title=method))
        (deployed,) = bench.runs[method if method != "supervised" else "no-KD"].students.values()
        if bench.info.doubled:
            deployed.module.float()
        return Distilled(deployed, result, data.info, study.out)


def _open(inputs: Any, target: Any, dataset: Any, unlabelled: Any, choices: Mapping[str, Any]) -> Data:
    from xmodal.data.arrays import from_arrays, from_dataset

    if dataset is not None:
        if unlabelled is not None:
            raise InputError("unlabelled goes with inputs. Samples of a dataset without a label have the target None.")
        return from_dataset(dataset, **choices)
    if inputs is None or target is None:
        raise InputError("There is nothing to distil from: give inputs and target, or dataset=, or data=.")
    return from_arrays(inputs, target, unlabelled=unlabelled, **choices)

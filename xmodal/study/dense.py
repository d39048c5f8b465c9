"""Shared by recipes with a class for every pixel or voxel: a teacher, a control, and a student of that teacher.

`DenseSettings` holds the flags of the three stages and of the distillation; the functions locate the teacher of another
run and make tables of classes and of the gap between the modalities.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from xmodal.engine.run.tensorboard import tensorboard_installed
from xmodal.methods import METHODS
from xmodal.study.plan import Comparison, Entry, Plan
from xmodal.study.settings import JobSettings, Names, Options, Presets, RowFlags

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from xmodal.study.bench import Bench
    from xmodal.types import Batch, Student

SHOWN = ("teacher", "control", "method")  # roles whose networks appear in the table of classes and in pictures
MASKS: dict[str, tuple[str, dict[str, Any]]] = {  # kd_mask → method and its settings
    "none": ("kd", {}),
    "pssm": ("ntdh", {"mask": "samples"}),
    "random": ("ntdh", {"mask": "channels", "remove": "random"}),
    "topk": ("ntdh", {"mask": "channels", "remove": "least"}),
}
Rows = Sequence[Mapping[str, Any]]


class DenseSettings(Presets, RowFlags, JobSettings):
    """A student alone and with a teacher, in stages."""

    until: Literal["teacher", "control", "student"] = Field(
        "student", description="the last stage to run; --resume continues after it"
    )
    kd_loss: Names = Field(
        ("kl",), min_length=1, description="losses of `xmodal list losses`, summed; none: no teacher"
    )
    kd_mask: Literal["none", "pssm", "random", "topk"] = Field(
        "none",
        description="what is masked: pssm: pixels or voxels where the teacher is wrong; random, topk: some channels",
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation loss")
    kd_temperature: float = Field(1.0, gt=0, description="temperature of the logits of teacher and student")
    kd_ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels that the masks random and topk remove")
    rank_pixels: int | None = Field(
        None,
        ge=1,
        description="pixels or voxels on which topk ranks channels, in whole frames spread over training; default: all",
    )
    gap_frames: int = Field(
        50, ge=0, description="test frames on which the gap between modalities is measured; 0: none"
    )
    metric: str = Field("", description="metric to compare; default: the one that selects the epoch")
    shuffled: bool = Field(False, description="train a student of a teacher that sees other frames, as a control")
    untrained: bool = Field(False, description="train a student of a teacher with its initial weights, as a control")
    # on by default only where it can work: the package belongs to an extra, and a default must not refuse to train
    tracking: bool = Field(
        default_factory=tensorboard_installed,
        description="write a log and TensorBoard events next to the history; on where tensorboard is installed",
    )
    options: Options = Field({}, description="options of the data")

    @field_validator("kd_loss")
    @classmethod
    def _none_is_alone(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in names and len(names) > 1:
            raise ValueError(f"kd_loss {', '.join(names)}: none stands alone. Leave out none, or the other losses.")
        return names

    def described(self) -> dict[str, Any]:
        """The settings that a resumed run must repeat; a later command may run further stages."""
        return {key: value for key, value in super().described().items() if key != "until"}

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher: one that a student learns from, or that is trained alone."""
        return self.kd_loss != ("none",) or self.until == "teacher"

    def plan(self) -> Plan:
        """Data, networks and training of both sides."""
        raise NotImplementedError

    def kd_places(self) -> dict[str, Any]:
        """Options of the method: the pixels or voxels on which the distillation loss is computed, and their weights."""
        return {}

    def comparison(self) -> Comparison:
        """Teacher, control and one student, up to the last stage to run."""
        method, options = MASKS[self.kd_mask]
        options = {
            **options,
            "loss": self.kd_loss,
            "temperature": self.kd_temperature,
            "kd_weight": self.kd_weight,
            # the labels keep their full weight: the authors' code adds the distillation term to their loss
            "task_weight": 1.0,
            **self.kd_places(),
        }
        if options.get("mask") == "channels":
            options["ratio"] = self.kd_ratio
            options |= {} if self.rank_pixels is None else {"rank_pixels": self.rank_pixels}
        name = "kd " + "+".join(self.kd_loss) + (f", {self.kd_mask}" if self.kd_mask != "none" else "")
        return Comparison(
            plan=self.plan(),
            methods=(METHODS["kd"],),
            entries=() if self.kd_loss == ("none",) else (Entry(name, method, options),),
            metric=self.metric,
            shuffled=self.shuffled,
            untrained=self.untrained,
            train_teacher=self.has_teacher,
            train_control=self.until != "teacher",
            train_students=self.until == "student",
        )


def teacher_file(path: Path, modalities: str, seed: int) -> Path | None:
    """The finished teacher in a run folder: that of the same seed, or else of the first seed; None without a teacher.

    Args:
        path: of the run folder, or of a training in it.
        modalities: the modalities of the teacher, as its folder is named.
        seed: of the student.
    """
    # the same seed first, so that each seed of a student has a teacher of its own where there are several
    folders = [path / f"seed-{seed}" / "teacher", *sorted(path.glob("seed-*/teacher")), path]
    files = (folder / "students" / modalities / "student.safetensors" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def first_frames(bench: Bench, frames: int) -> Iterator[Batch]:
    """The first test frames, one per batch."""
    from xmodal.data.loader import in_order

    # they are read for a diagnostic after the scores are final: nothing is chosen by them

    return itertools.islice(in_order(bench.data.test, batch_size=1), frames)


def classes_of(student: Student, inputs: Mapping[str, Tensor], device: torch.device | str) -> NDArray[Any]:
    """The class that a network predicts for every pixel or voxel of some frames."""
    import torch

    from xmodal.models.network import evaluating

    module = student.module.to(device)
    # frame by frame, as in scoring: a batch of whole images may not fit into memory
    with evaluating(module), torch.no_grad():
        classes = [
            module({name: inputs[name][number : number + 1] for name in student.needs}).argmax(dim=1).to(torch.uint8)
            for number in range(len(next(iter(inputs.values()))))
        ]
    return torch.cat(classes).cpu().numpy()


def measure_gap(bench: Bench, row: Mapping[str, Any], batches: Iterable[Batch]) -> dict[str, Any]:
    """Divergence of a student from the teacher.

    Args:
        bench: on which both are trained.
        row: of the student.
        batches: frames; valid pixels or voxels count.
    """
    from xmodal.diagnostics.divergence import measure_divergence
    from xmodal.study.plan import TEACHER

    teacher = bench.lead(TEACHER)
    student = bench.runs[row["name"]].students[row["student"]].module
    frames = (batch.to(bench.fabric.device) for batch in batches)
    gap = measure_divergence(student, teacher.module, frames, samples=1, ignore=bench.info.ignore)
    return {"seed": bench.seed, "name": row["name"], "ncjsd": gap.non_target_mean, "tcjsd": gap.target_mean}


def gap_table(rows: Rows, gaps: Rows, metrics: Sequence[str], *, where: str) -> dict[str, Any]:
    """A table of divergence from the teacher and gain over the control, mean over the seeds.

    Args:
        rows: of the result.
        gaps: results of `measure_gap` of all seeds.
        metrics: metrics whose gains are shown.
        where: the pixels or voxels that count, for the caption.
    """
    from xmodal.reports.numbers import number, unit
    from xmodal.study.bench import CONTROL

    scores = {(row["seed"], row["name"]): row["test"] for row in rows}
    lines = []
    for name in dict.fromkeys(gap["name"] for gap in gaps):
        seeds = [gap for gap in gaps if gap["name"] == name]
        cells = [f"{statistics.fmean(gap[key] for gap in seeds):.3f}" for key in ("ncjsd", "tcjsd")]
        pairs = [(scores[gap["seed"], name], scores[gap["seed"], CONTROL]) for gap in seeds]
        for key in metrics:
            gain = statistics.fmean(student[key] - control[key] for student, control in pairs)
            cells.append("–" if name == CONTROL else number(gain, key, signed=True))
        lines.append([name, *cells])
    gains = [f"gain, {unit(metric)}" for metric in metrics]
    return {
        "title": "Gap between the modalities",
        "header": ["student", "wrong classes (NCJSD)", "right class (TCJSD)", *gains],
        "rows": lines,
        "caption": "Jensen-Shannon divergence (in nats) between the outputs of student and teacher at "
        f"{where} of the first test frames. The hypothesis: the smaller that of the wrong classes, the more a student "
        "gains. It is measured after training, so a distilled student is closer to its teacher.",
    }


def class_table(
    rows: Rows, names: Sequence[str], *, score: str = "iou", mean: str = "", skip: int = 0, places: str = "pixels"
) -> dict[str, Any]:
    """A line per class of the test frames: intersection over union of every network, mean over the seeds.

    Args:
        rows: of the result.
        names: of the classes.
        score: the metric with a value for each class.
        mean: the metric in the last line; empty: the mean of the lines above.
        skip: number of first classes to leave out.
        places: what is classified, for the header: pixels or voxels.
    """
    runs = list(dict.fromkeys(row["name"] for row in rows if row["role"] in SHOWN))
    # rows of the confusion matrix are true classes: their sums are the same for every network
    first = rows[0]["test"]
    counts = first["confused"]["true"] if "confused" in first else [sum(line) for line in first["confusion"]]
    shown = [number for number in range(skip, len(names)) if counts[number]]
    full = max(sum(counts[skip:]), 1)

    tests = {run: [row["test"] for row in rows if row["name"] == run] for run in runs}
    columns = {
        run: [statistics.fmean(scores[score][number] for scores in seeds) for number in shown]
        for run, seeds in tests.items()
    }
    lines = [
        [
            names[number],
            f"{100 * counts[number] / full:.1f}",
            *(f"{100 * values[line]:.1f}" for values in columns.values()),
        ]
        for line, number in enumerate(shown)
    ]
    last = [
        statistics.fmean([test[mean] for test in tests[run]] if mean else values) for run, values in columns.items()
    ]
    lines.append(["mean of these", "100.0", *(f"{100 * value:.1f}" for value in last)])
    return {
        "title": "Intersection over union of each class",
        "header": ["class", f"share of {places} (%)", *(f"{run} (%)" for run in runs)],
        "rows": lines,
    }

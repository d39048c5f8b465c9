"""What recipes with a class for every pixel or voxel share: a teacher, a control, and a student that hears the teacher.

`Taught` holds the flags of the three stages and of what the student hears; the functions find the teacher of another
run and make tables of classes and of the gap between modalities.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from xmodal.flags import Flag
from xmodal.study import comparison
from xmodal.study.settings import Names, Presets

if TYPE_CHECKING:
    from xmodal.study.bench import Bench
    from xmodal.types import Batch

STAGES = ("teacher", "control", "student")
SHOWN = ("teacher", "control", "method")  # roles whose networks stand in the table of classes and in pictures
MASKS: dict[str, tuple[str, dict[str, Any]]] = {  # kd_mask → method, and what its settings are
    "none": ("kd", {}),
    "pssm": ("ntdh", {"mask": "samples"}),
    "random": ("ntdh", {"mask": "channels", "remove": "random"}),
    "topk": ("ntdh", {"mask": "channels", "remove": "least"}),
}
Rows = Sequence[Mapping[str, Any]]


class Taught(Presets, comparison.Settings):
    """A student alone and taught, in stages."""

    until: Literal["teacher", "control", "student"] = Field(
        "student", description="stop behind this stage; --resume goes on from there"
    )
    kd_loss: Names = Field(("kl",), min_length=1, description="losses of `xmodal list losses`, added; none: no teacher")
    kd_mask: Literal["none", "pssm", "random", "topk"] = Field(
        "none", description="where a teacher is not heard: pssm: at places it gets wrong; random, topk: some channels"
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the teacher's term")
    kd_temperature: float = Field(1.0, gt=0, description="softening of both sides' answers")
    kd_ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels that the masks random and topk remove")
    gap_frames: int = Field(
        50, ge=0, description="test frames on which the gap between modalities is measured; 0: none"
    )
    tracking: bool = Field(True, description="leave a log and TensorBoard events beside the history")
    # what a comparison has and these recipes fix
    methods: Annotated[tuple[str, ...], Flag(hidden=True)] = ("kd",)
    losses: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    vary: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    sweep: Annotated[str, Flag(hidden=True)] = ""
    task: Annotated[Literal["", "multiclass"], Flag(hidden=True)] = ""
    augment: Annotated[str, Flag(hidden=True)] = ""
    fusion: Annotated[Literal["sum", "concat"], Flag(hidden=True)] = "sum"

    @field_validator("kd_loss")
    @classmethod
    def _none_is_alone(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in names and len(names) > 1:
            raise ValueError(f"kd_loss {', '.join(names)}: none stands alone. Leave it out, or the others.")
        return names

    @property
    def described_kd(self) -> str:
        """The student's name in the table."""
        return "kd " + "+".join(self.kd_loss) + (f", {self.kd_mask}" if self.kd_mask != "none" else "")

    def described(self) -> dict[str, Any]:
        """What a run is replayed from: how far it goes may change."""
        return {key: value for key, value in super().described().items() if key != "until"}

    def stages(self) -> tuple[str, ...]:
        """What is trained."""
        wanted = STAGES[: STAGES.index(self.until) + 1]
        return wanted if self.asks_teacher() else tuple(name for name in wanted if name != "teacher")

    def asks_teacher(self) -> bool:
        """Whether there is a teacher: one that somebody hears, or that is asked for alone."""
        return self.kd_loss != ("none",) or self.until == "teacher"

    def where_heard(self) -> dict[str, Any]:
        """Where the teacher is heard, and how places are weighed: options of the method."""
        return {}

    def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """The student."""
        if self.kd_loss == ("none",):
            return []
        method, own = MASKS[self.kd_mask]
        options: dict[str, Any] = {
            **own,
            "loss": self.kd_loss,
            "temperature": self.kd_temperature,
            "kd_weight": self.kd_weight,
            "task_weight": 1.0,
            **self.where_heard(),
        }
        if own.get("mask") == "channels":
            options["ratio"] = self.kd_ratio
        return [(self.described_kd, method, options)]


def teacher_file(path: Path, modalities: str, seed: int) -> Path | None:
    """The finished teacher in a run folder: of the same seed, if there is one, else of the first one there.

    Args:
        path: of the run folder, or of a training in it.
        modalities: what the teacher reads, as its folder is called.
        seed: whose teacher is wanted.
    """
    tried = [path / f"seed-{seed}" / "teacher", *sorted(path.glob("seed-*/teacher")), path]
    files = (folder / "students" / modalities / "student.safetensors" for folder in tried)
    return next((file for file in files if file.is_file()), None)


def measure_gap(
    bench: Bench, rows: Rows, frames: int, narrowed: Callable[[Batch], Batch] | None = None
) -> list[dict[str, Any]]:
    """How far control and students are from the teacher on the first test frames.

    Args:
        bench: where everything is trained.
        rows: of the table; teachers are passed over.
        frames: how many.
        narrowed: the batch, of which fewer places count; None: all labelled ones.
    """
    from xmodal.data.loader import in_order
    from xmodal.diagnostics.divergence import measure_divergence
    from xmodal.study.bench import TEACHER

    if TEACHER not in bench.runs or not frames:
        return []
    (teacher,) = bench.runs[TEACHER].students.values()
    found = []
    for row in rows:
        if row["role"] == "teacher":
            continue
        student = bench.runs[row["name"]].students[row["student"]].module
        seen = itertools.islice(in_order(bench.data.test, batch_size=1), frames)
        there = map(lambda found: found.to(bench.fabric.device), map(narrowed, seen) if narrowed else seen)
        gap = measure_divergence(student, teacher.module, there, samples=1, ignore=bench.info.ignore)
        found.append({"seed": bench.seed, "name": row["name"], "ncjsd": gap.non_target_mean, "tcjsd": gap.target_mean})
    return found


def gap_table(rows: Rows, gaps: Rows, metrics: Sequence[str], *, where: str) -> dict[str, Any]:
    """Divergence from the teacher beside the gain over the control, mean over the seeds.

    Args:
        rows: of the table.
        gaps: what `measure_gap` found, of all seeds.
        metrics: whose gains are told.
        where: the places that were looked at, for the caption.
    """
    from xmodal.reports.tables import number, unit
    from xmodal.study.bench import CONTROL

    scores = {(row["seed"], row["name"]): row["test"] for row in rows}
    lines = []
    for name in dict.fromkeys(gap["name"] for gap in gaps):
        mine = [gap for gap in gaps if gap["name"] == name]
        cells = [f"{statistics.fmean(gap[key] for gap in mine):.3f}" for key in ("ncjsd", "tcjsd")]
        pairs = [(scores[gap["seed"], name], scores[gap["seed"], CONTROL]) for gap in mine]
        for key in metrics:
            gain = statistics.fmean(own[key] - alone[key] for own, alone in pairs)
            cells.append("–" if name == CONTROL else number(gain, key, signed=True))
        lines.append([name, *cells])
    gains = [f"gain, {unit(metric)}" for metric in metrics]
    return {
        "title": "Gap between the modalities",
        "header": ["student", "wrong classes (NCJSD)", "right class (TCJSD)", *gains],
        "rows": lines,
        "caption": "Divergence (Jensen and Shannon's, in nats) of what the student and the teacher say of "
        f"{where} of the first test frames. The hypothesis: the smaller that of the wrong classes, the more a student "
        "gains; here it is measured behind training, so a student that listened is nearer to its teacher.",
    }


def class_table(
    rows: Rows, names: Sequence[str], *, score: str = "iou", mean: str = "", skip: int = 0, places: str = "pixels"
) -> dict[str, Any]:
    """A line per class that the test frames show: intersection over union of every network, mean over the seeds.

    Args:
        rows: of the table.
        names: of the classes.
        score: the metric with a number for each class.
        mean: the metric in the last line; empty: the mean of the lines above.
        skip: so many first classes are left out.
        places: pixels, or voxels.
    """
    runs = list(dict.fromkeys(row["name"] for row in rows if row["role"] in SHOWN))
    counts = [sum(line) for line in rows[0]["test"]["confusion"]]
    shown = [number for number in range(skip, len(names)) if counts[number]]
    full = max(sum(counts[skip:]), 1)

    tests = {run: [row["test"] for row in rows if row["name"] == run] for run in runs}
    columns = {
        run: [statistics.fmean(test[score][number] for test in found) for number in shown]
        for run, found in tests.items()
    }
    lines = [
        [
            names[number],
            f"{100 * counts[number] / full:.1f}",
            *(f"{100 * values[at]:.1f}" for values in columns.values()),
        ]
        for at, number in enumerate(shown)
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

"""From which channels of a teacher should a student of another modality learn? The masks of NTDH on MNIST and MNIST-M.

The teacher reads noisy grey digits, the student the same digits on coloured backgrounds (or the other way round). Both
are trained jointly, to classify and to agree on the wrong classes; each channel of one layer of the teacher is set to
zero in turn, and is general if that makes the two disagree. Then students learn from that teacher without three
quarters of these channels: random ones (mode 0 of the authors' code), the specific ones, so that the general stay (mode
1), the general ones (mode 2), or none (mode -1). Expected by the hypothesis: general before random before specific.
Result of short runs of the authors' own code: random first. The table has intervals; this recipe assumes no order.

``quick`` runs on scikit-learn's digits in place of MNIST, with smaller networks and a fifth of the noise: about two
minutes on a CPU. ``published`` needs a folder of the real files and a GPU.

    xmodal run ntdh-mnist
    xmodal run ntdh-mnist --preset published --mnist.root DIR --distill kl,hint,rkd,pkt,similarity,dkd

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator

from xmodal.engine.progress import Progress
from xmodal.engine.settings import OptimizerName
from xmodal.methods import METHODS
from xmodal.study.channels import LOSSES, known_modes, measure_teachers, removal, row_name, teachers_table
from xmodal.study.drawing import drawing
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Entry, Plan, open_seed
from xmodal.study.seeds import each_seed
from xmodal.study.settings import DataFlags, JobSettings, Names, Options, Presets, Seeds, known_names

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.methods.ntdh import NTDH
    from xmodal.study.bench import Bench

HEAT_MAPS = "heat_maps.npz"
LEAK = 0.01  # negative slope of the LeakyReLU that the authors' networks apply to their logits


class Settings(Presets, DataFlags, JobSettings):
    """Students of MNIST-M taught by some channels of a teacher of MNIST, or the other way round."""

    DATA_SET: ClassVar[str] = "mnist"  # its options are flags
    PRESETS = {
        "quick": {"options": {"mnist": {"stand_in": True, "noise": 0.2}}},
        "published": {
            "epochs": 50,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "teacher_width": 256,
            "student_width": 256,
            "distill": ("similarity",),
            "threads": None,
            "options": {"mnist": {"noise": 1.0}},
        },
    }

    preset: Literal["quick", "published"] = Field("quick", description="values of the other flags")
    distill: Names = Field(("kl",), min_length=1, description=f"distillation losses: {', '.join(LOSSES)}")
    modes: Names = Field(
        ("none", "random", "general", "specific"), min_length=1, description="which channels stay; none: no mask"
    )
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels to remove")
    place: int = Field(1, ge=0, le=3, description="layer of the channels: 0 pixels, 1 and 2 hidden layers, 3 outputs")
    disturb: Literal["zero", "permute"] = Field("zero", description="how a channel is disturbed to rank it")
    kd_weight: float = Field(0.5, ge=0, description="weight of the distillation loss")
    task_weight: float = Field(0.5, ge=0, description="weight of the loss of the labels")
    as_published: bool = Field(
        False, description="as in the authors' code: LeakyReLU on the logits, and test digits select the epoch"
    )
    teacher: Names = Field(("mnist",), description="modality of the teacher")
    student: Names = Field(("mnist_m",), description="modality at deployment")
    teacher_encoder: str = Field("leaky_mlp", description="network of the teacher")
    student_encoder: str = Field("leaky_mlp", description="network of the student")
    teacher_width: int | None = Field(64, ge=1, description="second layer of the teacher, a quarter of the first")
    student_width: int | None = Field(64, ge=1, description="second layer of the student, a quarter of the first")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in both networks")
    optimizer: OptimizerName = Field("sgd", description="update rule")
    learning_rate: float = Field(0.05, gt=0, description="step size")
    epochs: int = Field(8, ge=1, description="passes over the training split, for each training")
    batch_size: int = Field(64, ge=1, description="rows per step")
    threads: int | None = Field(1, ge=1, description="CPU threads; the last bits of the results depend on it")
    seeds: Seeds = Field((0, 1, 2), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    options: Options = Field(PRESETS["quick"]["options"], description="options of the data")
    metric: str = Field("", description="metric to compare; default: the one that selects the epoch")

    @field_validator("distill")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names("loss", names, LOSSES)

    @field_validator("modes")
    @classmethod
    def _modes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_modes(names)

    def plan(self) -> Plan:
        """The authors' networks; with ``as_published`` also their activation of the logits."""
        options = dict(self.options.get("mnist", {}))
        shared = {"dropout": self.dropout, "leak": LEAK if self.as_published else None}
        return Plan(
            data="mnist",
            options={**options, "as_published": True} if self.as_published else options,
            **self.request(),
            teacher=self.teacher,
            student=self.student,
            training=self.training(),
            networks={
                "teacher": {"encoder": self.teacher_encoder, "width": self.teacher_width, **shared},
                "student": {"encoder": self.student_encoder, "width": self.student_width, **shared},
            },
        )

    def comparison(self) -> Comparison:
        """Every loss with every mode.

        There is no shuffled-teacher control: it permutes outputs that are computed once per sample, and here the noise
        of a sample is drawn again in every epoch.
        """
        from xmodal.models.mlp import layer_name

        shared = {
            "temperature": 1.0,
            "layer": layer_name(self.place, self.teacher[0]),
            "disturb": self.disturb,
            "kd_weight": self.kd_weight,
            "task_weight": self.task_weight,
            "student_layer": ("head",),
            "teacher_layer": ("head",),
        }
        entries = [
            Entry(row_name(loss, mode), "ntdh", {**shared, "loss": LOSSES[loss], **removal(mode, self.ratio)})
            for loss in self.distill
            for mode in self.modes
        ]
        return Comparison(plan=self.plan(), methods=(METHODS["ntdh"],), entries=entries, metric=self.metric)

    def heat_map_names(self) -> list[str]:
        """Names of the rows of the first loss: the channels differ between modes, not between losses."""
        return [entry.name for entry in self.comparison().entries][: len(self.modes)]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, measure each teacher, draw its heat maps, write the run folder and its page."""
    from xmodal.study.comparison import check, summarised

    with open_study(settings, "ntdh-mnist", progress=progress) as study:
        # data of the first seed, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_seed(plan, settings.seeds[0])
        comparison = check(comparison, first, study.fabric)
        study.start(fits=len(settings.seeds) * comparison.fits(few=bool(first.info.labelled)))

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison):
            rows += found["rows"]
            notes += found["notes"]

        # report
        stand_in = "" if first.source["options"]["root"] else ", stand-in digits"
        result = summarised(comparison, first, rows, notes, title=f"NTDH on MNIST and MNIST-M{stand_in}")
        result["tables"] = [teachers_table(rows, ratios=[settings.ratio], place=settings.place)]
        if (study.folder / HEAT_MAPS).is_file():
            result["heat_maps"] = described_heat_maps(settings)
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Joint training, ranking and a student for each choice of channels; then the scores and, once, the heat maps."""
    from xmodal.study.comparison import train

    bench = study.bench(comparison.plan, data, seed)
    notes = train(bench, comparison)
    rows = bench.score()
    measure_teachers(bench, rows)
    if seed == settings.seeds[0] and study.first:
        with drawing(notes, "Heat maps"):
            draw_heat_maps(bench, settings, study.folder / HEAT_MAPS)
    return {"rows": rows, "notes": notes}


def described_heat_maps(settings: Settings) -> dict[str, Any]:
    """File, title and caption of the heat maps, for the page."""
    return {
        "file": HEAT_MAPS,
        "modality": settings.teacher[0],
        "names": settings.heat_map_names(),
        "title": "Where the teacher looks",
        "caption": "Absolute gradient of the teacher's loss at each pixel, scaled from 0 to 1 in each image; "
        f"validation digits, seed {settings.seeds[0]}.",
    }


def draw_heat_maps(bench: Bench, settings: Settings, path: Path) -> None:
    """Write heat maps of the teacher of each mode, for a validation digit of every class."""
    import numpy as np

    from xmodal.diagnostics.heat_map import heat_maps, one_of_each
    from xmodal.files import written_whole

    (modality,), digits = bench.teaching, one_of_each(bench.batches("valid"))
    maps = []
    for name in settings.heat_map_names():
        with cast("NTDH", bench.runs[name].method).heard() as teacher:
            maps.append(heat_maps(teacher, digits, modality).value)
    # the pictures as they were before normalisation
    mean, std = bench.info.normalisation[modality].tensors()
    with written_whole(path) as file:
        np.savez(
            file,
            pictures=(digits.inputs[modality] * std + mean).numpy().astype(np.float32),
            labels=digits.target.numpy(),
            maps=np.stack(maps).astype(np.float32),
        )

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
    xmodal run ntdh-mnist --preset published --mnist.root DIR --until saliency --published-files --out RUN
    xmodal run ntdh-mnist --preset published --mnist.root DIR --saliency RUN --modes general

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from xmodal.engine.progress import Progress
from xmodal.engine.settings import OptimizerName
from xmodal.methods import METHODS
from xmodal.study.channels import (
    LOSSES,
    PUBLISHED_LOSSES,
    known_modes,
    measure_teachers,
    removal,
    row_name,
    teachers_table,
)
from xmodal.study.drawing import drawing
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Entry, Plan, method_settings, open_seed
from xmodal.study.seeds import each_seed
from xmodal.study.settings import DataFlags, JobSettings, Names, Options, Presets, Seeds, known_names

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.methods.ntdh import NTDH
    from xmodal.methods.settings import NTDHSettings
    from xmodal.study.bench import Bench, Earlier

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
    until: Literal["saliency", "students"] = Field(
        "students", description="the last stage; saliency: the joint training and its ranking alone, no test digits"
    )
    networks: Path | None = Field(
        None, description="run, or the authors' results folder, whose networks are ranked; None: they are trained"
    )
    saliency: Path | None = Field(None, description="the same, with networks and ranking; None: both are computed here")
    published_files: bool = Field(
        False, description="write the authors' files: two networks (.pkl) and the ranking (.npy)"
    )
    modes: Names = Field(
        ("none", "random", "general", "specific"), min_length=1, description="which channels stay; none: no mask"
    )
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels to remove")
    place: int = Field(1, ge=0, le=3, description="layer of the channels: 0 pixels, 1 and 2 hidden layers, 3 outputs")
    disturb: Literal["zero", "permute"] = Field("zero", description="how a channel is disturbed to rank it")
    kd_weight: float = Field(0.5, ge=0, description="weight of the distillation loss")
    task_weight: float = Field(0.5, ge=0, description="weight of the loss of the labels")
    as_published: bool = Field(
        False,
        description="as in the authors' code: LeakyReLU on the logits, its form of hint, and test digits select the "
        "epoch",
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

    @model_validator(mode="after")
    def _one_source(self) -> Settings:
        if self.networks is not None and self.saliency is not None:
            raise ValueError("networks and saliency both name a folder with networks: give one of the two.")
        return self

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
        losses = PUBLISHED_LOSSES if self.as_published else LOSSES
        entries = [
            Entry(row_name(loss, mode), "ntdh", {**shared, "loss": losses[loss], **removal(mode, self.ratio)})
            for loss in self.distill
            for mode in self.modes
        ]
        return Comparison(plan=self.plan(), methods=(METHODS["ntdh"],), entries=entries, metric=self.metric)

    def masks(self) -> NTDHSettings:
        """Settings of joint training and ranking, which all students share."""
        options = self.comparison().entries[0].options
        return cast("NTDHSettings", method_settings(METHODS["ntdh"], options))

    @property
    def ranks(self) -> bool:
        """Whether the ranking is used: without one, random channels can be removed, or none."""
        return self.until == "saliency" or bool({"general", "specific"} & {*self.modes})

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
        earlier = [earlier_networks(settings, seed) for seed in settings.seeds]
        comparison = check(comparison, first, study.fabric, earlier=earlier[0])
        fits = comparison.fits(few=bool(first.info.labelled)) if settings.until == "students" else 1
        study.start(fits=len(settings.seeds) * fits)

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        rankings: list[dict[str, Any]] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison):
            rows += found["rows"]
            notes += found["notes"]
            rankings += found["rankings"]

        # report
        stand_in = "" if first.source["options"]["root"] else ", stand-in digits"
        result = summarised(comparison, first, rows, notes, title=f"NTDH on MNIST and MNIST-M{stand_in}")
        if rows:
            result["tables"] = [teachers_table(rows, ratios=[settings.ratio], place=settings.place)]
        if rankings:
            result["ranking"] = described_ranking(settings, rankings)
            result["tables"] = [networks_table(rankings)]
        if (study.folder / HEAT_MAPS).is_file():
            result["heat_maps"] = described_heat_maps(settings)
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Joint training, ranking and a student for each choice of channels; then the scores and, once, the heat maps."""
    from xmodal.study.comparison import train

    bench = study.bench(comparison.plan, data, seed, earlier=earlier_networks(settings, seed))
    if settings.until == "saliency":
        return {"rows": [], **rank(bench, settings)}
    notes = train(bench, comparison)
    write_files(bench, settings)
    rows = bench.score()
    measure_teachers(bench, rows)
    if seed == settings.seeds[0] and study.first:
        with drawing(notes, "Heat maps"):
            draw_heat_maps(bench, settings, study.folder / HEAT_MAPS)
    return {"rows": rows, "notes": notes, "rankings": []}


# ---- joint training and ranking alone, and the authors' files


def earlier_networks(settings: Settings, seed: int) -> Earlier | None:
    """Networks and ranking of another run, or of the authors' results folder; None if neither is named."""
    if settings.networks is None and settings.saliency is None:
        return None
    from xmodal.recipes.ntdh_synthetic.mnist_files import read_earlier

    return read_earlier(settings, seed)


def rank(bench: Bench, settings: Settings) -> dict[str, Any]:
    """Joint training and ranking of a seed, and its files; no student is trained."""
    from xmodal.methods.joint import fit_joint
    from xmodal.methods.ntdh import joint_stage, ranking_options
    from xmodal.methods.ranking import rank_channels

    masks = settings.masks()
    joint = fit_joint(bench, agreement=masks.agreement, stage=joint_stage(masks))
    saliency = rank_channels(bench, joint.teacher, joint.student, masks.layer, **ranking_options(masks))
    accuracy = {name: scores["accuracy"] for name, scores in bench.validate(joint).items()}
    write_files(bench, settings)
    ranking = {"seed": bench.seed, "value": saliency.value.tolist(), "note": saliency.note, "accuracy": accuracy}
    return {"rankings": [ranking], "notes": [saliency.note] if saliency.note else []}


def write_files(bench: Bench, settings: Settings) -> None:
    """Write the authors' files of a seed, where they are asked for."""
    if settings.published_files and bench.folder is not None and bench.fabric.global_rank == 0:
        from xmodal.recipes.ntdh_synthetic.mnist_files import write_published

        write_published(bench, settings)


def described_ranking(settings: Settings, rankings: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the plot on the page, see `reports.ranking`."""
    masks = settings.masks()
    return {
        "place": settings.place,
        "layer": masks.layer,
        "distance": masks.agreement,
        "draws": masks.permutations if masks.disturb == "permute" else 1,
        "share": min(settings.ratio, 1 - settings.ratio),
        "seeds": rankings,
    }


def networks_table(rankings: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of the accuracies of the two networks of each joint training."""
    return {
        "title": "The two networks of the joint training",
        "header": ["seed", "teacher, accuracy (%)", "student, accuracy (%)"],
        "rows": [
            [str(seed["seed"]), *(f"{100 * seed['accuracy'][side]:.1f}" for side in ("teacher", "student"))]
            for seed in rankings
        ],
        "caption": "Validation split, weights after the last epoch.",
    }


# ---- heat maps


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

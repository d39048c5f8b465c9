"""Settings of `ntdh-mnist`: presets, masks, networks, and the authors' quirks as a flag.

Numbers and defaults are those of the authors' code: docs/recipes/ntdh.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from xmodal.engine.settings import OptimizerName
from xmodal.methods import METHODS
from xmodal.study.channels import LOSSES, PUBLISHED_LOSSES, known_modes, removal, row_name
from xmodal.study.plan import Comparison, Entry, Plan, method_settings
from xmodal.study.settings import DataFlags, JobSettings, Names, Options, Presets, Seeds, known_names

if TYPE_CHECKING:
    from xmodal.methods.settings import NTDHSettings

LEAK = 0.01  # negative slope of the LeakyReLU that the authors' networks apply to their logits


class MnistSettings(Presets, DataFlags, JobSettings):
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
    def _one_source(self) -> MnistSettings:
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

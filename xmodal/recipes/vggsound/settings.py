"""Settings of the recipe on VGGSound: stages, networks, training, removed channels, and the authors' quirks as flags.

| preset | what it sets |
|---|---|
| published | the authors: AdamW 0.001, decay 1e-5, 50 epochs, a tenth after 25, batches of 32, full networks |
| small | synthetic clips on a CPU: 0.1 million parameters, small frames, short windows, own training, float64 |

The published training is in the defaults. ``as_published`` also sets what the authors' code does and ours does not
(numbers refer to the list of differences in docs/recipes/vggsound.md); each of these is a flag of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from xmodal.engine.settings import OptimizerName, ScheduleName
from xmodal.study.plan import Plan
from xmodal.study.settings import DataFlags, JobSettings, Names, Options, Presets, Seeds, Shares, known_names

MODALITIES = ("audio", "video")
STAGES = ("teacher", "video", "saliency", "students")
REMOVE = ("least", "most", "random", "none", "index")
# The pooled channels, after which only the linear head follows: with a linear tail the mean over all permutations of a
# channel has a closed form.
PLACE = "embedding"
SMALL: dict[str, Any] = {
    "student_encoder": "video_resnet18",
    "teacher_width": 16,
    "student_width": 32,
    "ratio": (0.75,),
    "epochs": 20,
    "learning_rate": 5e-3,
    "schedule": "cosine",
    # several processes then end with the results of one: at these large steps training amplifies rounding in float32
    "precision": "64-true",
    "threads": 1,
    "options": {
        "vggsound": {
            "frames": 4,
            "size": 32,
            "window": 256,
            "hop": 256,
            "random_frames": True,
            "mirror": True,
            "valid_share": 0.2,
        }
    },
}
PUBLISHED: dict[str, Any] = {  # values that --as-published sets
    "remove": ("index",),
    "ratio": (0.5,),
    "fill": "zero",
    "keep": "last",
    "permutations": 100,
    "within": 64,
    "loss": ("kl:1",),
    "temperature": 1.0,
    "kd_weight": 1.0,
    "task_weight": 0.0,
    "batch_accuracy": True,
    "published_files": True,
    "shuffled": False,
}
# Settings that may differ between commands in one run folder: finished stages do not depend on them.
FREE = ("remove", "ratio", "start", "until", "seeds", "shuffled", "batch_accuracy", "published_files")


class VggsoundSettings(Presets, DataFlags, JobSettings):
    """A video student that learns from some channels of an audio teacher, on VGGSound."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"published": {}, "small": SMALL}
    SOURCES: ClassVar[tuple[str, ...]] = ("preset", "as_published")
    DATA_SET: ClassVar[str] = "vggsound"  # its options are flags

    preset: Literal["published", "small"] = Field("published", description="values of the other flags")
    until: Literal["teacher", "video", "saliency", "students"] = Field(
        "students", description="the last stage to run; a later command in the same folder continues after it"
    )
    start: Literal["teacher", "video", "saliency", "students"] = Field(
        "teacher", description="the first stage to run; of the earlier ones, only what a later stage needs is run"
    )
    teacher_weights: Path | None = Field(
        None, description="the authors' checkpoint of the teacher, audio_….pt; None: it is trained"
    )
    video_weights: Path | None = Field(
        None, description="the authors' checkpoint of the other network, video_….pt; None: it is trained"
    )
    saliency: Path | None = Field(
        None, description="the authors' audio_permute.npy; None: the channels are ranked here"
    )
    remove: Names = Field(
        ("least", "most", "random", "none"),
        min_length=1,
        description="removed channels, a student each: least or most salient, random, none; index: the last ones",
    )
    ratio: Shares = Field((0.5,), min_length=1, description="share of the channels to remove; several: a student each")
    fill: Literal["mean", "batch_mean", "zero"] = Field("mean", description="value in place of a removed channel")
    distance: Literal["mse", "l1"] = Field("l1", description="distance of the outputs of teacher and student")
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        "exact", description="permutations per channel; exact: the mean over all"
    )
    within: int | None = Field(None, ge=2, description="permute within batches of this size; None: over all clips")
    loss: Names = Field(("kl:1",), min_length=1, description="losses of `xmodal list losses`, summed")
    temperature: float = Field(1.0, gt=0, description="temperature of the logits of teacher and student")
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation loss")
    task_weight: float = Field(0.0, ge=0, description="weight of the loss of the labels")
    shuffled: bool = Field(True, description="train the shuffled-teacher control of the first student")
    batch_accuracy: bool = Field(False, description="add a table of accuracies as the authors' test loops print them")
    published_files: bool = Field(
        False, description="write the authors' files: audio_permute.npy, audio_….pt and video_….pt"
    )
    as_published: bool = Field(
        False, description="set every flag that follows the authors' code, also those of the data"
    )
    teacher: Names = Field(("audio",), description="modality of the teacher")
    student: Names = Field(("video",), description="modality at deployment")
    teacher_encoder: str = Field("auto", description="network of the teacher; auto: the published one of its modality")
    student_encoder: str = Field("auto", description="network of the student, such as video_resnet50")
    epochs: int = Field(50, ge=1, description="passes over the training split, for each training")
    batch_size: int = Field(32, ge=2, description="rows per step, over all processes together")
    optimizer: OptimizerName = Field("adamw", description="update rule")
    learning_rate: float = Field(1e-3, gt=0, description="step size at the start")
    weight_decay: float = Field(1e-5, ge=0, description="pull of the weights towards zero")
    schedule: ScheduleName = Field("step", description="schedule of the learning rate")
    schedule_every: int = Field(25, ge=1, description="epochs between steps, or epochs to wait (plateau)")
    teacher_width: int | None = Field(None, ge=1, description="width of the teacher's embedding")
    student_width: int | None = Field(None, ge=1, description="width of the student's embedding")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in both networks")
    seeds: Seeds = Field((0,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    options: Options = Field({}, description="options of the data")

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the preset, with those of ``as_published`` in place of some."""
        return {
            **cls.preset_values(given.get("preset", "")),
            **(PUBLISHED if given.get("as_published") is True else {}),
        }

    @field_validator("remove")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names("choice of channels", names, REMOVE)

    @field_validator("ratio")
    @classmethod
    def _shares(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        for ratio in ratios:
            if not 0 < ratio < 1:
                raise ValueError(f"ratio {ratio:g}: expected a share of the channels above 0 and below 1, as in 0.5.")
        return tuple(dict.fromkeys(ratios))

    @model_validator(mode="after")
    def _two_sides(self) -> VggsoundSettings:
        if sorted((*self.teacher, *self.student)) != sorted(MODALITIES):
            raise ValueError(
                f"teacher {', '.join(self.teacher)} and student {', '.join(self.student)}: expected audio for one of "
                "them and video for the other."
            )
        return self

    def plan(self) -> Plan:
        """The published network of each modality, unless another is named."""
        return Plan(
            data="vggsound",
            options=self.read(),
            **self.request(),
            teacher=self.teacher,
            student=self.student,
            training=self.training(),
            networks={
                "teacher": self._network(self.teacher_encoder, self.teacher_width),
                "student": self._network(self.student_encoder, self.student_width),
            },
        )

    def _network(self, encoder: str, width: int | None) -> dict[str, Any]:
        published = {name: f"vggsound_{name}" for name in MODALITIES}
        return {"encoder": published if encoder == "auto" else encoder, "width": width, "dropout": self.dropout}

    @model_validator(mode="after")
    def _in_order(self) -> VggsoundSettings:
        if STAGES.index(self.start) > STAGES.index(self.until):
            raise ValueError(f"start is {self.start} and until is {self.until}: the order is {', '.join(STAGES)}.")
        return self

    def includes(self, stage: str) -> bool:
        """Whether a stage is among those to run."""
        return STAGES.index(self.start) <= STAGES.index(stage) <= STAGES.index(self.until)

    @property
    def ranks(self) -> bool:
        """Whether the channels are ranked, which needs both networks."""
        return self.saliency is None and (self.includes("saliency") or self.includes("students"))

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher is trained or read."""
        return self.includes("teacher") or self.includes("saliency") or self.includes("students")

    @property
    def needs_video(self) -> bool:
        """Whether the video network is trained or read; one that is given has a row in the table."""
        return self.includes("video") or self.ranks or (self.includes("students") and self.video_weights is not None)

    def read(self) -> dict[str, Any]:
        """The options of the data, with that of ``as_published``."""
        options = dict(self.options.get("vggsound", {}))
        return {**options, "as_published": True} if self.as_published else options

    def students(self) -> dict[str, tuple[str, float]]:
        """Name in the table → which channels are removed, and the share of all channels.

        Example:
            >>> list(VggsoundSettings(remove=("none", "least", "most"), ratio=(0.25, 0.5)).students())
            ['none', 'least 0.25', 'least 0.5', 'most 0.25', 'most 0.5']
        """
        students: dict[str, tuple[str, float]] = {}
        for remove in self.remove:
            for ratio in (0.0,) if remove == "none" else self.ratio:
                students[student_name(remove, ratio)] = ("least" if remove == "none" else remove, ratio)
        return students


def student_name(remove: str, ratio: float) -> str:
    """The name of a student in the table."""
    return "none" if remove == "none" else f"{remove} {ratio:g}"

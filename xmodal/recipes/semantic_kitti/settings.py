"""What the recipe on SemanticKITTI can be told: published numbers, a small preset, or the authors' settings file.

| preset | networks | training | data |
|---|---|---|---|
| published | ResNet-34, SalsaNext of width 32 | 50 epochs of batches of 8, that is 4 on each of 2 devices | augmented |
| small | ResNet-10, SalsaNext of width 8 | 10 epochs of batches of 4 | as it is: a teacher is asked once |

The rate rises for an epoch and falls as a cosine; published are SGD with Nesterov's momentum for the teacher, AdamW for
the student, 0.001 for both.

``--config`` lies between the preset and the flags: its values replace the preset's, flags replace both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xmodal.engine.settings import OptimizerName, ScheduleName
from xmodal.recipes.semantic_kitti.authors_config import DATA, read_config
from xmodal.study.dense import DenseSettings
from xmodal.study.plan import Plan
from xmodal.study.settings import Seeds

TEACHER, STUDENT = "image", "lidar"
AS_PUBLISHED = {
    "kd_loss": ("kl",),
    "kd_mask": "pssm",
    "kd_temperature": 1.0,
    "kd_pixels": "all",
    "kd_reduction": "reference",
    "metric": "mean_iou_reference",
}


class Settings(DenseSettings):
    """A LiDAR network for every pixel, alone and taught by a camera network, on SemanticKITTI."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "small": {
            "epochs": 10,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "teacher_learning_rate": 3e-3,
            "teacher_optimizer": "adamw",
            "teacher_weight_decay": 0.01,
            "teacher_encoder": "camera_resnet10",
            "student_width": 8,
            "warmup": 0.5,
            "workers": 0,
            "save_seconds": 30.0,
            "threads": 1,
            "seeds": (0, 1, 2),
            "shuffled": True,
            "untrained": True,
            "options": {DATA: {"augment": False}},
        },
    }
    SOURCES: ClassVar[tuple[str, ...]] = ("preset", "config")
    DATA_SET: ClassVar[str] = DATA  # its options are flags

    preset: Literal["published", "small"] = Field("published", description="values of the other flags")
    config: Path | None = Field(
        None, description="config_server_kitti.yaml of the authors' code; flags go on top of it"
    )
    teacher_checkpoint: Path | None = Field(
        None, description="run folder with a finished teacher, or its student.safetensors; None: it is trained"
    )
    imagenet: Path | None = Field(None, description="torchvision's .pth file of the teacher's ResNet, to start from")
    imagenet_pretrained: bool = Field(False, description="refuse to start without --imagenet, as in the authors' file")
    pmf: bool = Field(False, description="train the network of both modalities (PMFNet), too")
    perception_weight: float = Field(0.5, ge=0, description="γ of PMFNet: what its streams learn from one another")
    perception_threshold: float = Field(0.7, ge=0, lt=1, description="τ of PMFNet: how sure a stream must be to guide")
    lovasz_weight: float = Field(1.0, ge=0, description="λ, weight of the Lovász loss beside the focal loss")
    kd_pixels: Literal["all", "projected", "labelled"] = Field("projected", description="where the teacher is heard")
    kd_reduction: Literal["pixel", "reference"] = Field(
        "pixel", description="mean over these pixels; reference: over all pixels and classes, as in the authors' code"
    )
    as_published: bool = Field(
        False,
        description="as the authors' code: --kd-mask pssm --kd-pixels all --kd-reduction reference, its rules for "
        "pixels, its score, and epochs chosen on the test frames",
    )
    pictures: int = Field(4, ge=0, description="test frames shown on the page")
    # training, with the published numbers as defaults
    epochs: int = Field(50, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=2, description="frames per step, over all processes together")
    optimizer: OptimizerName = Field("adamw", description="update rule of the students")
    learning_rate: float = Field(1e-3, gt=0, description="largest step size of the students")
    weight_decay: float = Field(0.01, ge=0, description="pull of the students' weights towards zero")
    teacher_epochs: int | None = Field(None, ge=1, description="passes of the teacher; None: as many")
    teacher_optimizer: OptimizerName = Field("sgd", description="update rule of the teacher")
    teacher_learning_rate: float = Field(1e-3, gt=0, description="largest step size of the teacher")
    teacher_weight_decay: float = Field(1e-5, ge=0, description="pull of the teacher's weights towards zero")
    schedule: ScheduleName = Field("cosine", description="how the rate falls")
    schedule_point: Literal["start", "end"] = Field(
        "end", description="rate of an update: as the schedule stands before it, or behind it (the last is then 0)"
    )
    warmup: float = Field(1.0, ge=0, description="epochs over which the rate rises from zero")
    workers: int = Field(4, ge=0, description="processes that load data")
    save_seconds: float = Field(300.0, gt=0, description="seconds between checkpoints, where save_every is 0")
    seeds: Seeds = Field((1,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    teacher_encoder: str = Field("camera_resnet34", description="network of the teacher")
    student_encoder: str = Field("salsanext", description="network of the students")
    student_width: int | None = Field(32, ge=1, description="channels of the students at full resolution")
    shuffled: bool = Field(False, description="train a student of a teacher that sees other frames (needs no augment)")
    teacher_width: int | None = Field(None, ge=1, description="width of the teacher; default: the published one")
    dropout: float = Field(0.0, ge=0, lt=1, description="in both networks")

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The preset, and the authors' file on top of it."""
        values = cls.preset_values(given.get("preset") or "")
        if given.get("config"):
            read = read_config(Path(given["config"])).values
            options = {**values.get("options", {}).get(DATA, {}), **read["options"][DATA]}
            values |= {**read, "options": {DATA: options}}
        return values

    @model_validator(mode="after")
    def _published(self) -> Settings:
        if self.as_published:
            options = {**self.options.get(DATA, {}), "as_published": True}
            for name, value in {**AS_PUBLISHED, "options": {**self.options, DATA: options}}.items():
                object.__setattr__(self, name, value)
        return self

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.imagenet_pretrained and self.imagenet is None and self.teacher_checkpoint is None:
            raise ValueError(
                "imagenet_pretrained is true and no file is named; nothing is downloaded. Name torchvision's weights "
                "of this ResNet with --imagenet FILE.pth, or say --no-imagenet-pretrained."
            )
        if self.imagenet is not None and self.teacher_checkpoint is not None:
            raise ValueError("a teacher of another run needs no --imagenet: leave out that or --teacher-checkpoint.")
        if self.options.get(DATA, {}).get("view") == "range":
            raise ValueError(
                "the range view shows LiDAR alone, and here a camera teaches. Take the perspective view; one network "
                "alone: xmodal compare semantic-kitti --semantic-kitti.view range --methods supervised."
            )
        return self

    def described(self) -> dict[str, Any]:
        """What a run is replayed from: a settings file stands in its own fields."""
        return {key: value for key, value in super().described().items() if key != "config"}

    def kd_places(self) -> dict[str, Any]:
        """Pixels, the mean over them, and how the mask compares."""
        mask = {"cosine": "probabilities", "detach": not self.as_published} if self.kd_mask == "pssm" else {}
        return {"pixels": self.kd_pixels, "reduction": self.kd_reduction, **mask}

    def plan(self) -> Plan:
        """The camera's network and its own optimiser on one side, LiDAR's on the other."""
        training = self.training()
        teacher = {
            "epochs": self.teacher_epochs or self.epochs,
            "optimizer": self.teacher_optimizer,
            "learning_rate": self.teacher_learning_rate,
            "weight_decay": self.teacher_weight_decay,
            "nesterov": self.teacher_optimizer == "sgd" and self.momentum > 0,
        }
        return Plan(
            data=DATA,
            options=self.options.get(DATA, {}),
            train_fraction=self.train_fraction,
            teacher=(TEACHER,),
            student=(STUDENT,),
            training=training,
            teacher_training=training.model_copy(update=teacher),
            networks={
                "teacher": {"encoder": self.teacher_encoder, "width": self.teacher_width, "dropout": self.dropout},
                "student": {"encoder": self.student_encoder, "width": self.student_width, "dropout": self.dropout},
            },
            imagenet={} if self.imagenet is None else {"teacher": self.imagenet},
        )

    def pmf_options(self) -> dict[str, Any]:
        """What the method pmf is told."""
        backbone = self.teacher_encoder if self.teacher_encoder.startswith("camera_") else "camera_resnet34"
        return {
            "lidar": STUDENT,
            "camera": TEACHER,
            "backbone": backbone,
            "width": self.student_width or 32,
            "imagenet": None if self.imagenet is None else str(self.imagenet),
            "perception_weight": self.perception_weight,
            "threshold": self.perception_threshold,
            "detach": not self.as_published,
        }


class KittiEvaluation(BaseModel):
    """How SemanticKITTI is scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["benchmark", "reference"] = Field(
        "benchmark",
        description="whether a labelled point that is called unlabeled was missed (benchmark) or forgiven (reference)",
    )
    knn: bool = Field(
        False,
        description="points take the class that their neighbours in the picture vote for, not that of their pixel",
    )
    knn_neighbours: int = Field(5, ge=1, description="how many vote")
    knn_search: int = Field(5, ge=1, description="side of the window in which they are looked for, odd")
    knn_sigma: float = Field(1.0, gt=0, description="pixels over which nearness in the picture counts")
    knn_cutoff: float = Field(1.0, ge=0, description="largest difference in range that has a vote, in metres; 0: any")
    predictions: bool = Field(True, description="write a .label file for every frame")

    @field_validator("knn_search")
    @classmethod
    def _has_a_middle(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(f"the window has a point in its middle, so its side is odd, and {side} was given")
        return side

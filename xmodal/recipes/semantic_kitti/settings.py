"""Settings of the recipe on SemanticKITTI: the published numbers, a small preset, or the authors' settings file.

| preset | networks | training | data |
|---|---|---|---|
| published | ResNet-34, SalsaNext of width 32 | 50 epochs of batches of 8, that is 4 on each of 2 devices | augmented |
| small | ResNet-10, SalsaNext of width 8 | 10 epochs of batches of 4 | as stored: teacher outputs are computed once |

The learning rate rises for an epoch and then falls as a cosine; published are SGD with Nesterov's momentum for the
teacher, AdamW for the student, 0.001 for both.

Values of ``--config`` replace those of the preset, and flags replace both.
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

LIDAR, CAMERA = "lidar", "image"
SIDES = {"camera": (CAMERA,), "lidar": (LIDAR,), "pmf": (LIDAR, CAMERA)}  # network → the modalities that it reads
AS_PUBLISHED = {  # values that --as-published sets
    "kd_loss": ("kl",),
    "kd_mask": "pssm",
    "kd_temperature": 1.0,
    "kd_pixels": "all",
    "kd_reduction": "reference",
    "metric": "mean_iou_reference",
}


class Settings(DenseSettings):
    """A LiDAR network that classifies every pixel, with and without a camera teacher, on SemanticKITTI."""

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
        None, description="config_server_kitti.yaml of the authors' code; flags replace its values"
    )
    teacher_network: Literal["camera", "lidar", "pmf"] = Field(
        "camera", description="what teaches: the camera's network, the LiDAR's, or PMFNet, which reads both"
    )
    student_network: Literal["lidar", "camera"] = Field("lidar", description="what learns and is deployed")
    teacher_checkpoint: Path | None = Field(
        None,
        description="run folder with a finished teacher, its student.safetensors, or a .pth file of the authors' code; "
        "None: it is trained",
    )
    imagenet: Path | None = Field(
        None, description="torchvision's .pth file with initial weights of the teacher's ResNet"
    )
    imagenet_pretrained: bool = Field(False, description="require --imagenet, as the authors' file does")
    pmf: bool = Field(False, description="also train the network of both modalities (PMFNet)")
    perception_weight: float = Field(0.5, ge=0, description="γ of PMFNet: weight of the loss between its streams")
    perception_threshold: float = Field(
        0.7, ge=0, lt=1, description="τ of PMFNet: confidence above which a stream guides the other"
    )
    lovasz_weight: float = Field(1.0, ge=0, description="λ, weight of the Lovász loss; the focal loss has weight 1")
    kd_pixels: Literal["all", "projected", "labelled"] = Field(
        "projected", description="pixels of the distillation loss: all, those with a point, those with a label"
    )
    kd_reduction: Literal["pixel", "reference"] = Field(
        "pixel", description="mean over these pixels; reference: over all pixels and classes, as in the authors' code"
    )
    as_published: bool = Field(
        False,
        description="as the authors' code: --kd-mask pssm --kd-pixels all --kd-reduction reference, its rules for "
        "pixels, its score, and epochs selected on the test frames",
    )
    pictures: int = Field(4, ge=0, description="number of test frames on the page")
    # fields that every recipe has, with the numbers of the authors' code as defaults
    epochs: int = Field(50, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=2, description="frames per step, over all processes together")
    optimizer: OptimizerName = Field("adamw", description="update rule of the students")
    learning_rate: float = Field(1e-3, gt=0, description="largest step size of the students")
    weight_decay: float = Field(0.01, ge=0, description="pull of the students' weights towards zero")
    teacher_epochs: int | None = Field(None, ge=1, description="epochs of the teacher; None: the same number")
    teacher_optimizer: OptimizerName = Field("sgd", description="update rule of the teacher")
    teacher_learning_rate: float = Field(1e-3, gt=0, description="largest step size of the teacher")
    teacher_weight_decay: float = Field(1e-5, ge=0, description="pull of the teacher's weights towards zero")
    schedule: ScheduleName = Field("cosine", description="schedule of the learning rate")
    schedule_point: Literal["start", "end"] = Field(
        "end", description="value of the schedule at an update: before it, or after it (the last one is then 0)"
    )
    warmup: float = Field(1.0, ge=0, description="epochs over which the rate rises from zero")
    workers: int = Field(4, ge=0, description="processes that load data")
    save_seconds: float = Field(300.0, gt=0, description="seconds between checkpoints, where save_every is 0")
    seeds: Seeds = Field((1,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    teacher_encoder: str = Field("camera_resnet34", description="network of the teacher, or of PMFNet's camera")
    student_encoder: str = Field("salsanext", description="network of the students")
    student_width: int | None = Field(32, ge=1, description="channels of the LiDAR network at full resolution")
    shuffled: bool = Field(False, description="train a student of a teacher that sees other frames (without augment)")
    teacher_width: int | None = Field(None, ge=1, description="width of the camera network; default: the published one")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in both networks")

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the preset, with those of the authors' file in place of some."""
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
                "of this ResNet with --imagenet FILE.pth, or add --no-imagenet-pretrained."
            )
        if self.imagenet is not None and self.teacher_checkpoint is not None:
            raise ValueError("a teacher of another run needs no --imagenet: leave out that or --teacher-checkpoint.")
        if self.options.get(DATA, {}).get("view") == "range":
            raise ValueError(
                "the range view contains LiDAR alone, and this recipe has two modalities. Take the perspective view; "
                "a single network: xmodal compare semantic-kitti --semantic-kitti.view range --methods supervised."
            )
        if self.teacher_network == self.student_network:
            raise ValueError(
                f"teacher and student both are the {self.student_network} network: two modalities were expected. "
                "Change --teacher-network or --student-network."
            )
        if self.imagenet is not None and self.teacher_network == "lidar":
            raise ValueError("the LiDAR's network has no ImageNet weights. Leave --imagenet out.")
        return self

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records: values of a config file are in their own fields."""
        return {key: value for key, value in super().described().items() if key != "config"}

    def kd_places(self) -> dict[str, Any]:
        """Pixels of the distillation loss, the mean over them, and how the mask compares."""
        # the authors' code passes probabilities to the cosine of the mask, and lets its gradient flow
        mask = {"cosine": "probabilities", "detach": not self.as_published} if self.kd_mask == "pssm" else {}
        return {"pixels": self.kd_pixels, "reduction": self.kd_reduction, **mask}

    def plan(self) -> Plan:
        """The teacher with its own optimiser, and the student; each reads what its network reads."""
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
            **self.request(),
            teacher=SIDES[self.teacher_network],
            student=SIDES[self.student_network],
            training=training,
            teacher_training=training.model_copy(update=teacher),
            networks={
                "teacher": self.network(self.teacher_network),
                "student": self.network(self.student_network),
            },
            imagenet={} if self.imagenet is None else {"teacher": self.imagenet},
        )

    def network(self, name: str) -> dict[str, Any]:
        """Arguments of `xmodal.models.network.build_for` for one of `SIDES`."""
        if name == "pmf":
            return {"encoder": "pmf", "numbers": {"backbone": self.backbone, "width": self.student_width or 32}}
        width = self.teacher_width if name == "camera" else self.student_width
        return {"encoder": self._encoder(name), "width": width, "dropout": self.dropout}

    def _encoder(self, name: str) -> str:
        """The encoder of ``camera`` or ``lidar``: that of its side, or else the one that reads such pictures."""
        own, other = self.teacher_encoder, self.student_encoder
        if name == self.student_network:
            own, other = other, own
        if (self.teacher_network, self.student_network) == ("camera", "lidar"):
            return own
        # on other sides the defaults, and img_backbone of the authors' file, stand under the name of the other side
        fitting = [encoder for encoder in (own, other) if encoder.startswith("camera_") == (name == "camera")]
        return fitting[0] if fitting else {"camera": "camera_resnet34", "lidar": "salsanext"}[name]

    @property
    def backbone(self) -> str:
        """The camera's network within PMFNet."""
        return self.teacher_encoder if self.teacher_encoder.startswith("camera_") else "camera_resnet34"

    def pmf_options(self) -> dict[str, Any]:
        """Options of the method pmf."""
        return {
            "lidar": LIDAR,
            "camera": CAMERA,
            "backbone": self.backbone,
            "width": self.student_width or 32,
            "imagenet": None if self.imagenet is None else str(self.imagenet),
            "perception_weight": self.perception_weight,
            "threshold": self.perception_threshold,
            "detach": not self.as_published,
        }


class KittiEvaluation(BaseModel):
    """Settings of the scoring of SemanticKITTI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["benchmark", "reference"] = Field(
        "benchmark",
        description="a labelled point predicted as unlabeled counts as missed (benchmark) or is left out (reference)",
    )
    knn: bool = Field(
        False,
        description="a point takes the class that its neighbours in the image vote for, not that of its pixel",
    )
    knn_neighbours: int = Field(5, ge=1, description="number of neighbours that vote")
    knn_search: int = Field(5, ge=1, description="side of the window of candidates, odd")
    knn_sigma: float = Field(1.0, gt=0, description="standard deviation, in pixels, of the weight of a candidate")
    knn_cutoff: float = Field(1.0, ge=0, description="largest difference in range of a voter, in metres; 0: any")
    predictions: bool = Field(True, description="write a .label file for every frame")

    @field_validator("knn_search")
    @classmethod
    def _has_a_middle(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(
                f"the window is centred on a point, so its side must be odd; {side} was given. Take {side + 1}"
            )
        return side

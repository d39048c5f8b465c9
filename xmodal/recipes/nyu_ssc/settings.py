"""Settings of the recipe on NYU Depth V2: the published numbers, or a small preset for synthetic rooms.

| preset | training | data |
|---|---|---|
| published | SGD with momentum 0.9, rate 0.01, weight decay 0.0005; 50 epochs of batches of 4 | full size |
| small | Adam at 0.005 for 6 epochs (teacher: 14), warm-up, cosine, clipped at 1; batches of 2 | synthetic tiny rooms |

The learning rate is multiplied by ``--schedule-factor`` every ``--schedule-every`` epochs. The authors' code has flags
for both (``--lr_adj_rate``, ``--lr_adj_n``), which have no effect there: it makes the schedule anew in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from xmodal.engine.settings import OptimizerName, ScheduleName
from xmodal.study.dense import DenseSettings
from xmodal.study.plan import Comparison, Plan
from xmodal.study.settings import Seeds

DATA = "nyu"
NetworkName = Literal["ddrnet_rgbd", "ddrnet_rgb", "ddrnet_depth", "palnet", "aicnet", "grfnet"]
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {  # name → network, what it reads
    "ddrnet_rgbd": ("ddrnet", ("depth", "rgb")),
    "ddrnet_rgb": ("ddrnet", ("rgb",)),
    "ddrnet_depth": ("ddrnet", ("depth",)),
    "palnet": ("palnet", ("depth", "tsdf")),
    "aicnet": ("aicnet", ("depth", "rgb")),
    "grfnet": ("grfnet", ("depth", "rgb")),
}
VOXELS = {"labelled": "labelled", "nonempty": "scored", "all": "all"}  # kd_voxels → the method's name for this mask
PICTURES = ("depth", "rgb")  # the default modalities of the data set
METRICS = {"benchmark": "mean_iou", "reference": "mean_iou_reference"}


class Settings(DenseSettings):
    """A class for every voxel of a room from depth, with and without a teacher that also reads colours."""

    DATA_SET: ClassVar[str] = DATA  # its options are flags
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "small": {
            "epochs": 6,
            "teacher_epochs": 14,
            "batch_size": 2,
            "optimizer": "adam",
            "learning_rate": 5e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup": 1.0,
            # the networks have no normalisation layers: without clipping one large step makes the teacher far worse
            "clip": 1.0,
            "workers": 0,
            "save_seconds": 30.0,
            "threads": 1,
            "seeds": (0, 1, 2),
            "shuffled": True,
            "untrained": True,
            "kd_voxels": "nonempty",
            "kd_weighting": "alike",
            "kd_weight": 3.0,
        },
    }

    preset: Literal["published", "small"] = Field("published", description="values of the other flags")
    teacher_network: NetworkName = Field("ddrnet_rgbd", description="network of the teacher")
    student_network: NetworkName = Field("ddrnet_depth", description="network of the student and of the control")
    teacher_checkpoint: Path | None = Field(
        None,
        description="run folder with a finished teacher, its student.safetensors, or a .pth.tar of the authors' code; "
        "None: it is trained",
    )
    cad: bool = Field(False, description="NYUCAD: depth of the rooms' models")
    kd_voxels: Literal["labelled", "nonempty", "all"] = Field(
        "labelled", description="voxels of the distillation loss: of the room, those that are scored, or all"
    )
    kd_weighting: Literal["classes", "alike"] = Field(
        "classes", description="weight of a voxel: that of the class the teacher predicts there, or 1 for all"
    )
    as_published: bool = Field(
        False, description="as the authors' code: --metric reference, and epochs selected on the test frames"
    )
    recompute: bool = Field(
        False, description="save memory in training: compute activations again in the backward pass"
    )
    pictures: int = Field(3, ge=0, description="number of test frames on the page")
    metric: str = Field("benchmark", description="metric to compare: benchmark, reference (mean IoU), or any other")
    # fields that every recipe has, with the numbers of the authors' code as defaults
    epochs: int = Field(50, ge=1, description="passes over the training split")
    batch_size: int = Field(4, ge=1, description="frames per step, over all processes together")
    optimizer: OptimizerName = Field("sgd", description="update rule")
    learning_rate: float = Field(0.01, gt=0, description="step size at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="pull of the weights towards zero")
    schedule: ScheduleName = Field("step", description="schedule of the learning rate")
    schedule_every: int = Field(
        100, ge=1, description="epochs between steps of the schedule (--lr_adj_n of the authors' code)"
    )
    schedule_factor: float = Field(0.1, gt=0, lt=1, description="factor of the rate at such a step (--lr_adj_rate)")
    teacher_epochs: int | None = Field(None, ge=1, description="epochs of the teacher; None: the same number")
    workers: int = Field(4, ge=0, description="processes that load data")
    save_seconds: float = Field(300.0, gt=0, description="seconds between checkpoints, where save_every is 0")
    seeds: Seeds = Field((2019,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    shuffled: bool = Field(False, description="train a student of a teacher that sees other frames, as a control")

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.teacher_checkpoint is not None and self.kd_mask in ("random", "topk"):
            raise ValueError(
                f"With --kd-mask {self.kd_mask} the teacher is trained jointly with the student, so that the one of "
                "--teacher-checkpoint would not be used. Leave one of the two out."
            )
        modalities = self.options.get(DATA, {}).get("modalities") or PICTURES
        reads = self.modalities
        # the default of the data set was not chosen by the user, so it contradicts no network
        if set(modalities) != set(PICTURES) and not set(modalities) >= set(reads):
            raise ValueError(
                f"--nyu.modalities {', '.join(modalities)} was given, and the networks read {', '.join(reads)}. Leave "
                "it out: --teacher-network and --student-network decide what is read."
            )
        return self

    @property
    def sides(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Side → network and the modalities that it reads."""
        # without a teacher its modalities are not needed, and the data may lack them
        teacher = self.teacher_network if self.has_teacher else self.student_network
        return {"teacher": NETWORKS[teacher], "student": NETWORKS[self.student_network]}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of both networks."""
        reads = {name for _, names in self.sides.values() for name in names}
        return tuple(name for name in ("depth", "rgb", "tsdf") if name in reads)

    def plan(self) -> Plan:
        """Networks that fuse their modalities themselves; the teacher may be trained for longer."""
        options = {**self.options.get(DATA, {}), "modalities": self.modalities}
        options |= {"cad": True} if self.cad else {}
        options |= {"as_published": True} if self.as_published else {}
        training, (teacher, student) = self.training(), self.sides.values()
        numbers = {"recompute": self.recompute}
        return Plan(
            data=DATA,
            options=options,
            **self.request(),
            teacher=teacher[1],
            student=student[1],
            training=training,
            teacher_training=training.model_copy(update={"epochs": self.teacher_epochs or self.epochs}),
            networks={
                "teacher": {"encoder": teacher[0], "numbers": numbers},
                "student": {"encoder": student[0], "numbers": numbers},
            },
        )

    def comparison(self) -> Comparison:
        """Compared by the mean IoU of the benchmark, or by that of the authors' code."""
        metric = "reference" if self.as_published and self.metric == "benchmark" else self.metric
        return replace(super().comparison(), metric=METRICS.get(metric, metric))

    def kd_places(self) -> dict[str, Any]:
        """Voxels of the distillation loss, their weights, and the permutations of a channel for its ranking."""
        # one permutation is enough: every voxel of every frame is a sample of the mean
        draws = {"permutations": 1} if self.kd_mask == "topk" else {}
        return {"pixels": VOXELS[self.kd_voxels], "weighting": self.kd_weighting, **draws}

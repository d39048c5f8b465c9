"""What the recipe on NYU Depth V2 can be told: published numbers, or a small preset for made rooms.

| preset | training | data |
|---|---|---|
| published | SGD with momentum 0.9, rate 0.01, weight decay 0.0005; 50 epochs of batches of 4 | full size |
| small | 6 epochs of Adam (teacher: 14), 0.005, warm-up, cosine, clipped at 1; batches of 2 | made rooms of tiny size |

The published rate falls by ``--schedule-factor`` every ``--schedule-every`` epochs (``--lr_adj_rate``, ``--lr_adj_n``
there), which here really happens.
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
VOXELS = {"labelled": "labelled", "nonempty": "scored", "all": "all"}  # where the teacher is heard → the method's word
PICTURES = ("depth", "rgb")  # modalities that the data opens where none are named
METRICS = {"benchmark": "mean_iou", "reference": "mean_iou_reference"}


class Settings(DenseSettings):
    """The voxels of a room from depth, alone and taught by a network that sees colours, too."""

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
            "clip": 1.0,  # networks without normalisation: one large step less, and the teacher is far better
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
    student_network: NetworkName = Field("ddrnet_depth", description="network of the student and of its control")
    teacher_checkpoint: Path | None = Field(
        None,
        description="run folder with a finished teacher, its student.safetensors, or a .pth.tar of the authors' code; "
        "None: it is trained",
    )
    cad: bool = Field(False, description="NYUCAD: depth of the rooms' models")
    kd_voxels: Literal["labelled", "nonempty", "all"] = Field(
        "labelled", description="where the teacher is heard: within the room, where metrics look, or everywhere"
    )
    kd_weighting: Literal["classes", "alike"] = Field(
        "classes", description="voxels weigh what the class weighs that the teacher sees there, or all alike"
    )
    as_published: bool = Field(
        False, description="as the authors' code: --metric reference, and epochs chosen on the test frames"
    )
    recompute: bool = Field(False, description="less memory in training: compute parts of a network once more")
    pictures: int = Field(3, ge=0, description="test frames shown on the page")
    metric: str = Field("benchmark", description="what to compare: benchmark, reference (mean IoU), or any metric")
    # training, with the published numbers as defaults
    epochs: int = Field(50, ge=1, description="passes over the training split")
    batch_size: int = Field(4, ge=1, description="frames per step, over all processes together")
    optimizer: OptimizerName = Field("sgd", description="update rule")
    learning_rate: float = Field(0.01, gt=0, description="step size at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="pull of the weights towards zero")
    schedule: ScheduleName = Field("step", description="how the rate falls")
    schedule_every: int = Field(100, ge=1, description="epochs between falls (--lr_adj_n of the authors' code)")
    schedule_factor: float = Field(0.1, gt=0, lt=1, description="factor of a fall (--lr_adj_rate)")
    teacher_epochs: int | None = Field(None, ge=1, description="passes of the teacher; None: as many")
    workers: int = Field(4, ge=0, description="processes that load data")
    save_seconds: float = Field(300.0, gt=0, description="seconds between checkpoints, where save_every is 0")
    seeds: Seeds = Field((2019,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    shuffled: bool = Field(False, description="train a student of a teacher that sees other frames")

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.teacher_checkpoint is not None and self.kd_mask in ("random", "topk"):
            raise ValueError(
                f"With --kd-mask {self.kd_mask} the teacher is trained jointly with the student, so that the one of "
                "--teacher-checkpoint would not be used. Leave one of the two out."
            )
        modalities = self.options.get(DATA, {}).get("modalities", PICTURES)
        reads = self.modalities
        # the default of the data set is no wish of the user
        if set(modalities) != set(PICTURES) and not set(modalities) >= set(reads):
            raise ValueError(
                f"--nyu.modalities {', '.join(modalities)} was given, and the networks read {', '.join(reads)}. Leave "
                "it out: --teacher-network and --student-network decide what is read."
            )
        return self

    @property
    def sides(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Side → network and what it reads; without a teacher the data need not hold what one would read."""
        teacher = self.teacher_network if self.has_teacher else self.student_network
        return {"teacher": NETWORKS[teacher], "student": NETWORKS[self.student_network]}

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the two networks read."""
        reads = {name for _, names in self.sides.values() for name in names}
        return tuple(name for name in ("depth", "rgb", "tsdf") if name in reads)

    def plan(self) -> Plan:
        """Networks that read all of their modalities together; the teacher may be trained for longer."""
        options = {**self.options.get(DATA, {}), "modalities": self.modalities}
        options |= {"cad": True} if self.cad else {}
        options |= {"as_published": True} if self.as_published else {}
        training, (teacher, student) = self.training(), self.sides.values()
        numbers = {"recompute": self.recompute}
        return Plan(
            data=DATA,
            options=options,
            train_fraction=self.train_fraction,
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
        """Voxels, their weights, and how often a channel is shuffled where each voxel is a sample."""
        draws = {"permutations": 1} if self.kd_mask == "topk" else {}
        return {"pixels": VOXELS[self.kd_voxels], "weighting": self.kd_weighting, **draws}

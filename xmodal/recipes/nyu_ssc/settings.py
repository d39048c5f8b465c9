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
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from xmodal.engine.settings import FitSettings, OptimizerName, ScheduleName
from xmodal.flags import Flag
from xmodal.study.dense import Taught
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


class Settings(Taught):
    """The voxels of a room from depth, alone and taught by a network that sees colours, too."""

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
    # what a comparison has and this recipe fixes
    data: Annotated[Literal["nyu"], Flag(hidden=True)] = "nyu"
    teacher: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    student: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    teacher_encoder: Annotated[str, Flag(hidden=True)] = "auto"
    student_encoder: Annotated[str, Flag(hidden=True)] = "auto"
    teacher_width: Annotated[int | None, Flag(hidden=True)] = None
    student_width: Annotated[int | None, Flag(hidden=True)] = None
    dropout: Annotated[float, Flag(hidden=True)] = 0.0

    @model_validator(mode="after")
    def _consequences(self) -> Settings:
        if self.teacher_checkpoint is not None and self.kd_mask in ("random", "topk"):
            raise ValueError(
                f"With --kd-mask {self.kd_mask} the teacher is trained jointly with the student, so that of "
                "--teacher-checkpoint would teach nobody. Leave one of the two out."
            )
        own = dict(self.options.get(DATA, {}))
        # without a teacher the data need not hold what one would read
        teacher = NETWORKS[self.teacher_network if self.asks_teacher() else self.student_network]
        student = NETWORKS[self.student_network]
        reads = {*student[1], *teacher[1]}
        wanted = tuple(name for name in ("depth", "rgb", "tsdf") if name in reads)
        given = own.get("modalities", PICTURES)
        if set(given) != set(PICTURES) and not set(given) >= set(wanted):  # those two stand there unasked
            raise ValueError(
                f"--nyu.modalities {', '.join(given)} was given, and the networks read {', '.join(wanted)}. Leave it "
                "out: --teacher-network and --student-network decide what is read."
            )
        own["modalities"] = wanted
        own |= {"cad": True} if self.cad else {}
        own |= {"as_published": True} if self.as_published else {}
        metric = "reference" if self.as_published and self.metric == "benchmark" else self.metric
        values = {
            "options": {**self.options, DATA: own},
            "metric": METRICS.get(metric, metric),
            "teacher": teacher[1],
            "student": student[1],
            "teacher_encoder": teacher[0],
            "student_encoder": student[0],
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        return self

    def where_heard(self) -> dict[str, Any]:
        """Voxels, and what they weigh; and how often a channel is shuffled, where each voxel is a sample."""
        drawn = {"permutations": 1} if self.kd_mask == "topk" else {}
        return {"pixels": VOXELS[self.kd_voxels], "weighting": self.kd_weighting, **drawn}

    def network(self, side: str) -> dict[str, Any]:
        """Networks that read all that they need at once."""
        return {**super().network(side), "numbers": {"recompute": self.recompute}}

    def fit(self, side: str = "student") -> FitSettings:
        """The teacher may be trained for longer."""
        found = super().fit(side)
        longer = self.teacher_epochs if side == "teacher" else None
        return found.model_copy(update={"epochs": longer}) if longer else found

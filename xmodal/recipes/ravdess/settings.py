"""Settings of the recipes on RAVDESS: the networks of the authors or narrower ones, their training, the layer.

| preset | published | what it sets |
|---|---|---|
| mfh | MFH's code | 100 epochs; removed channels are filled with their mean; loss: KL divergence ÷ 8 |
| ntdh | NTDH's code | 40 epochs; removed channels are 0; ranking: divergence of wrong classes; loss: hint |
| mfh-small, ntdh-small | ours | the same with networks of 0.1 million parameters and a training that suits them |

All of them: batches of 64 (small: 32), and students that learn from the teacher alone, not from labels. A small network
is trained for 30 epochs with Adam at 0.002; the published gradient descent (0.01, momentum 0.9) needs more steps than a
few hundred synthetic clips give. There the divergence has its full weight: an eighth of it changes nothing in so few
steps.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from xmodal.engine.settings import OptimizerName
from xmodal.study.plan import Plan
from xmodal.study.settings import DataFlags, JobSettings, Names, Options, Presets, Seeds

SMALL: dict[str, Any] = {
    "teacher_width": 32,
    "student_width": 32,
    "hidden": 64,
    "channels": 8,
    "epochs": 30,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 2e-3,
    "threads": 1,
}
NTDH: dict[str, Any] = {"epochs": 40, "distance": "ncjsd"}
MODALITIES = ("image", "audio")  # in the order of their numbers in the authors' file names


class RavdessSettings(Presets, DataFlags, JobSettings):
    """Settings of a joint training on RAVDESS, and of the ranking of its teacher's channels."""

    DATA_SET: ClassVar[str] = "ravdess"  # its options are flags
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "mfh": {},
        "ntdh": NTDH,
        "mfh-small": SMALL,
        "ntdh-small": {**NTDH, **SMALL},
    }

    preset: Literal["mfh", "ntdh", "mfh-small", "ntdh-small"] = Field("mfh", description="values of the other flags")
    place: int = Field(
        5,
        ge=0,
        le=6,
        description="layer of the channels: 0 input, 1 to 3 convolutions, 4 and 5 linear layers, 6 logits",
    )
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        10, description="permutations per channel; exact: the mean over all if it has a closed form, otherwise 10"
    )
    distance: Literal["mse", "l1", "ncjsd"] = Field("mse", description="distance of the outputs of teacher and student")
    teacher: Names = Field(("audio",), description="modality of the teacher")
    student: Names = Field(("image",), description="modality at deployment")
    teacher_width: int | None = Field(128, ge=1, description="channels of the teacher at place 5")
    student_width: int | None = Field(128, ge=1, description="the same for the student")
    hidden: int = Field(1024, ge=1, description="channels at place 4")
    channels: int = Field(32, ge=1, description="channels at place 1; twice as many at place 2, four times at place 3")
    epochs: int = Field(100, ge=1, description="passes over the training split, for each training")
    batch_size: int = Field(64, ge=2, description="rows per step")
    optimizer: OptimizerName = Field("sgd", description="update rule")
    learning_rate: float = Field(0.01, gt=0, description="step size")
    seeds: Seeds = Field((0, 1, 2, 3, 4), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    as_published: bool = Field(
        False, description="read the data as the authors' code does; fill removed channels with the mean of the batch"
    )
    options: Options = Field({}, description="options of the data")

    @model_validator(mode="after")
    def _two_sides(self) -> RavdessSettings:
        if sorted((*self.teacher, *self.student)) != sorted(MODALITIES):
            raise ValueError(
                f"teacher {', '.join(self.teacher)} and student {', '.join(self.student)}: expected audio for one of "
                "them and image for the other."
            )
        return self

    def plan(self) -> Plan:
        """The authors' network of each modality, with the widths of the settings."""
        shared = {
            "encoder": {name: f"ravdess_{name}" for name in MODALITIES},
            "numbers": {"hidden": self.hidden, "channels": self.channels},
        }
        return Plan(
            data="ravdess",
            options=self.read(),
            **self.request(),
            teacher=self.teacher,
            student=self.student,
            training=self.training(),
            networks={
                "teacher": {**shared, "width": self.teacher_width},
                "student": {**shared, "width": self.student_width},
            },
        )

    @property
    def layer(self) -> str:
        """The name of the layer in the teacher's network."""
        from xmodal.models.clips.audio_video import ravdess_layer

        return ravdess_layer(self.place, self.teacher[0])

    def read(self) -> dict[str, Any]:
        """The options of the data, with that of ``as_published``."""
        options = dict(self.options.get("ravdess", {}))
        return {**options, "as_published": True} if self.as_published else options

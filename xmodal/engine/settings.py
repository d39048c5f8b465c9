"""Settings of `fit` and of devices. No torch here: they are flags of many commands, and help texts must be fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

OptimizerName = Literal["sgd", "adam", "adamw", "radam", "nadam", "rmsprop", "adagrad"]
ScheduleName = Literal["constant", "cosine", "linear", "step", "multistep", "exponential", "plateau"]
SHORT = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}
Precision = Annotated[Literal["32-true", "64-true", "bf16-mixed"], BeforeValidator(lambda name: SHORT.get(name, name))]


class FitSettings(BaseModel):
    """Settings of one training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(40, ge=1, description="passes over the training split")
    updates: int = Field(0, ge=0, description="updates of every training, in place of --epochs; 0: as --epochs says")
    batch_size: int = Field(128, ge=1, description="rows per step, over all processes together")
    optimizer: OptimizerName = Field("adam", description="update rule")
    learning_rate: float = Field(1e-3, gt=0, description="initial learning rate (after warm-up)")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (sgd, rmsprop)")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd)")
    schedule: ScheduleName = Field("constant", description="how the learning rate decreases")
    schedule_every: int = Field(30, ge=1, description="epochs between decreases (step), or epochs to wait (plateau)")
    schedule_at: tuple[int, ...] = Field((), description="epochs at which the learning rate decreases (multistep)")
    schedule_factor: float = Field(
        0.1, gt=0, lt=1, description="factor of each decrease (step, multistep, plateau, exponential)"
    )
    schedule_per: Literal["step", "epoch"] = Field(
        "step", description="whether warm-up, cosine and linear change the rate every step or every epoch"
    )
    schedule_point: Literal["start", "end"] = Field(
        "start", description="time at which an update reads the schedule: before it, or after it (last rate 0)"
    )
    warmup: float = Field(0.0, ge=0, description="epochs over which the learning rate rises from zero")
    accumulate: int = Field(1, ge=1, description="batches per update")
    accumulate_mode: Literal["mean", "sum"] = Field(
        "mean", description="loss of an update: mean over its rows, or sum of the means of its batches"
    )
    remainder: Literal["flush", "drop"] = Field(
        "flush", description="what to do with an incomplete last update of an epoch: do it, or discard it"
    )
    clip: float | None = Field(None, gt=0, description="maximum of the gradient; None: no clipping")
    clip_mode: Literal["norm", "value"] = Field("norm", description="clip the norm of all gradients, or each value")
    clip_at: Literal["step", "backward"] = Field(
        "step", description="clip before an update, or after every backward pass"
    )
    patience: int = Field(0, ge=0, description="stop after so many epochs without improvement; 0: never")
    keep: Literal["auto", "best", "last"] = Field(
        "auto",
        description="weights of a finished student: of its best validation epoch, or after the last epoch; "
        "auto: best, or last where training rows have no label",
    )
    cache: Literal["auto", "on", "off", "memory", "disk"] = Field(
        "auto", description="compute a frozen teacher's outputs once per sample, in memory, or on disk if too large"
    )
    unequal: Literal["recycle", "cut"] = Field(
        "recycle", description="unpaired modalities: the shorter ones start over, or the longer ones stop early"
    )
    workers: int = Field(0, ge=0, description="processes that load data")
    precision: Precision = Field("32-true", description="floating-point format; short names: 32, 64, bf16")
    matmul: Literal["highest", "high", "medium"] = Field(
        "highest", description="how exact products of float32 matrices are in training, where a GPU offers a choice"
    )
    save_every: int = Field(0, ge=0, description="batches between checkpoints; 0: by time")
    save_seconds: float = Field(30.0, gt=0, description="seconds between checkpoints if save_every is 0")
    tracking: bool = Field(False, description="write a log and TensorBoard events next to the history")

    @model_validator(mode="after")
    def _fit_together(self) -> FitSettings:
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs the optimizer sgd with a momentum above 0. Set them, or leave it out.")
        if self.schedule == "multistep" and not self.schedule_at:
            raise ValueError(
                "the schedule multistep needs schedule_at, the epochs at which the learning rate decreases. Set it."
            )
        return self


class MachineSettings(BaseModel):
    """Devices and threads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="type of device")
    devices: int = Field(1, ge=1, description="number of devices, one process each")
    threads: int | None = Field(None, ge=1, description="CPU threads per process; the bits of results depend on it")

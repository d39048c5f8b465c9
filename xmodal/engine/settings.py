"""What `fit` can be told. No torch here: these are flags of many commands, and help texts must come at once."""

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
    batch_size: int = Field(128, ge=1, description="rows per step, over all processes together")
    optimizer: OptimizerName = Field("adam", description="update rule")
    learning_rate: float = Field(1e-3, gt=0, description="step size at the start (after warm-up)")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights towards zero")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="Nesterov's form of momentum (sgd)")
    schedule: ScheduleName = Field("constant", description="how the rate falls")
    schedule_every: int = Field(30, ge=1, description="epochs between falls (step), or epochs to wait (plateau)")
    schedule_at: tuple[int, ...] = Field((), description="epochs at which the rate falls (multistep)")
    schedule_factor: float = Field(
        0.1, gt=0, lt=1, description="factor of a fall (step, multistep, plateau, exponential)"
    )
    schedule_per: Literal["step", "epoch"] = Field("step", description="how often warm-up, cosine and linear move")
    schedule_point: Literal["start", "end"] = Field(
        "start", description="rate of an update: as the schedule stands before it, or behind it (the last is then 0)"
    )
    warmup: float = Field(0.0, ge=0, description="epochs over which the rate rises from zero")
    accumulate: int = Field(1, ge=1, description="batches per update")
    accumulate_mode: Literal["mean", "sum"] = Field(
        "mean", description="mean over the rows of an update, or sum of its batches' means"
    )
    remainder: Literal["flush", "drop"] = Field("flush", description="what happens to an incomplete last update")
    clip: float | None = Field(None, gt=0, description="bound on the gradient; None: no bound")
    clip_mode: Literal["norm", "value"] = Field("norm", description="bound the norm of all gradients or each value")
    clip_at: Literal["step", "backward"] = Field("step", description="clip before an update or after every backward")
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better one; 0: never")
    keep: Literal["best", "last"] = Field(
        "best", description="weights that a student ends with: best validation epoch, or those after the last"
    )
    cache: Literal["auto", "on", "off", "memory", "disk"] = Field(
        "auto", description="ask a frozen teacher once per sample; what the memory can't hold goes to the run folder"
    )
    unequal: Literal["recycle", "cut"] = Field("recycle", description="unpaired modalities of different length")
    workers: int = Field(0, ge=0, description="processes that load data")
    precision: Precision = Field("32-true", description="number format of training, by short names: 32, 64, bf16")
    save_every: int = Field(0, ge=0, description="batches between checkpoints; 0: by time")
    save_seconds: float = Field(30.0, gt=0, description="seconds between checkpoints, where save_every is 0")
    tracking: bool = Field(False, description="write a log and TensorBoard events next to the history")

    @model_validator(mode="after")
    def _fit_together(self) -> FitSettings:
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs the optimizer sgd with a momentum above 0. Set them, or leave it out.")
        if self.schedule == "multistep" and not self.schedule_at:
            raise ValueError("the schedule multistep needs schedule_at, the epochs at which the rate falls. Name some.")
        return self


class MachineSettings(BaseModel):
    """On what to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="kind of device")
    devices: int = Field(1, ge=1, description="how many devices, one process each")
    threads: int | None = Field(None, ge=1, description="CPU threads per process; results depend on it in their bits")

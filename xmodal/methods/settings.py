"""What each method can be told: one class per method, whose fields become flags.

They stand apart from the methods because help texts must come at once, and a method cannot be imported without torch.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MethodSettings(BaseModel):
    """What all of them share: unknown keys are refused, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SupervisedSettings(MethodSettings):
    """Supervised training has no coefficients of its own."""


class KDSettings(MethodSettings):
    """Coefficients of knowledge distillation."""

    loss: tuple[str, ...] = Field(
        (), description="NAME or NAME:WEIGHT of `xmodal list losses`, several added; default: kl"
    )
    temperature: float | None = Field(None, gt=0, description="softening τ; default: each loss's own (kl: 4)")
    kd_weight: float = Field(0.5, ge=0, description="weight of the teacher's term")
    task_weight: float = Field(0.5, ge=0, description="weight of the label's term")
    student_layer: tuple[str, ...] = Field((), description="module of the student whose features are compared")
    teacher_layer: tuple[str, ...] = Field((), description="module of the teacher whose features are compared")
    labels: bool = Field(True, description="learn from labels too; --no-labels: from the teacher alone")

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

    temperature: float = Field(4.0, gt=0, description="softening τ of both outputs")
    kd_weight: float = Field(0.5, ge=0, description="weight of the teacher's term")
    task_weight: float = Field(0.5, ge=0, description="weight of the label's term")
    labels: bool = Field(True, description="learn from labels too; --no-labels: from the teacher alone")

"""Figure 3 of the modality focusing hypothesis: a better teacher need not be a better teacher for this student.

The student's modality b holds ten decisive channels, which the teacher's modality a holds too, and up to forty more
that only the teacher sees: α = specific / (specific + 10). What should come out: the teacher climbs from 58 to 90 %
while the gain of KD over no-KD melts away. 150 linear models of 1000 steps: seconds on a CPU.

    xmodal run gauss-alpha

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, figure 3, and the authors' code.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from xmodal.data.gaussian.draws import increase_alpha
from xmodal.engine.progress import Progress
from xmodal.recipes.mfh_gauss import gauss_gamma
from xmodal.study.settings import StudySettings


class Settings(StudySettings):
    """Linear teachers that know more and more of what their students can't see."""

    specific: tuple[int, ...] = Field(
        (0, 10, 20, 30, 40),
        min_length=1,
        description="decisive features that only the teacher sees, beside ten common ones",
    )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """The same sweep as `gauss_gamma`, over what only the teacher sees."""
    designs = [increase_alpha(specific) for specific in settings.specific]
    label = "α, share of the teacher's own features"
    return gauss_gamma.sweep(settings, designs, "gauss-alpha", x="alpha", label=label, progress=progress)

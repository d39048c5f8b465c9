"""Figure 3 of the modality focusing hypothesis: a more accurate teacher need not teach this student better.

The student's modality b holds ten decisive channels, which the teacher's modality a holds as well, and a holds up to
forty more: α = specific / (specific + 10). Expected result: the accuracy of the teacher rises from 58 to 90 %, while
the gain of KD over no-KD shrinks to almost nothing. 150 linear models of 1000 steps: seconds on a CPU.

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
    """Linear teachers with more and more information that their students do not have."""

    specific: tuple[int, ...] = Field(
        (0, 10, 20, 30, 40),
        min_length=1,
        description="decisive features that only the teacher sees, besides ten common ones",
    )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """The same sweep as in `gauss_gamma`, over the number of features that only the teacher sees."""
    designs = [increase_alpha(specific) for specific in settings.specific]
    label = "α, share of the teacher's own features"
    return gauss_gamma.sweep(settings, designs, "gauss-alpha", x="alpha", label=label, progress=progress)

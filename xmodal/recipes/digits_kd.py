"""The demo: does a teacher that sees the pixels help a student that sees only Fourier magnitudes?

Digits with few labels: 10 % of the rows train, 10 % validate, 80 % test, in another split for every seed. The teacher
reads pixels and Fourier magnitudes (sum fusion), the student the magnitudes alone, in which a 6 looks like a 9: the
phase is missing. Linear-BN-ReLU twice, width 64, Adam 1e-3, 60 epochs, batches of 32, temperature 4, labels and teacher
weighted one half each. Expected result: next to no gain. Measured elsewhere over 20 splits: 81.0 without and 81.1 with
the teacher, which itself reaches 93.9 (weighted F1); these are the reference figures. Five seeds take 20 seconds on a
CPU.

    xmodal run digits-kd
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from xmodal.engine.progress import Progress
from xmodal.recipes.compare import train_seed
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.study.opening import open_study
from xmodal.study.plan import open_seed
from xmodal.study.references import paired_figures, references_for
from xmodal.study.seeds import each_seed
from xmodal.study.settings import Names, Options, Seeds


class Settings(ComparisonSettings):
    """No-KD, KD and shuffled-teacher KD on digits with few labels."""

    teacher: Names = Field(("rows", "fourier"), description="modalities of the teacher")
    student: Names = Field(("fourier",), description="modality at deployment")
    teacher_width: int | None = Field(64, ge=1, description="width of the teacher's embedding")
    student_width: int | None = Field(64, ge=1, description="width of the student's embedding")
    epochs: int = Field(60, ge=1, description="passes over the training split")
    batch_size: int = Field(32, ge=1, description="rows per step")
    threads: int | None = Field(1, ge=1, description="CPU threads; networks this small are fastest with one")
    seeds: Seeds = Field((0, 1, 2, 3, 4), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    metric: str = Field("weighted_f1", description="metric to compare")
    # the shares of the run elsewhere whose figures are the references
    options: Options = Field(
        {"digits": {"train_share": 0.1, "valid_share": 0.1, "test_share": 0.8}},
        description="options of methods and data sets, by name",
    )


def published() -> Settings:
    """The settings of the reference figures: 20 splits."""
    return Settings(seeds=tuple(range(20)))


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, compare with the references if there are 20 splits, write the run folder and page."""
    from xmodal.recipes import RECIPES
    from xmodal.study.comparison import check, summarised

    card = RECIPES["digits-kd"]
    with open_study(settings, card.name, progress=progress) as study:
        # data of the first seed, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_seed(plan, settings.seeds[0])
        comparison = check(comparison, first, study.fabric)
        study.start(fits=len(settings.seeds) * comparison.fits(few=bool(first.info.labelled)))

        # for each seed, with a split of its own: teacher, no-KD, KD and its shuffled-teacher control, then the scores
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, comparison, (), True):
            rows += found["rows"]
            notes += found["notes"]

        # report
        result = summarised(comparison, first, rows, notes, title=f"{settings.data}: methods compared")
        result |= paired_figures(result)
        if references := references_for(card, settings, result["figures"], result["standard_errors"]):
            result["references"] = references
        return study.finish(result)

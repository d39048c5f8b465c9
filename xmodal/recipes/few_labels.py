"""The demo: few labels, many unlabelled pairs. How many labels are a second sensor and its recordings worth?

Of 1,258 training digits 30 keep their label. The teacher sees pixels, the student Fourier magnitudes, in which a 6
looks like a 9. Both learn from the same 30 labels; then the teacher's outputs on all pairs teach the student. The
controls take one thing away each: the unlabelled rows, the second modality (the no-KD network labels the rest, which is
self-training), and the pairing. no-KD alone is also trained with 100, 300 and all labels, for the curve against labels.
Every training has the same number of updates. Five seeds take a minute on a CPU.

    xmodal run few-labels
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from xmodal.engine.progress import Progress
from xmodal.recipes.compare import train_seed
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.study.opening import open_study
from xmodal.study.references import against_references, read_references
from xmodal.study.seeds import each_seed
from xmodal.study.settings import Names, Options, Seeds


class Settings(ComparisonSettings):
    """A teacher, unlabelled pairs and their controls on digits with 30 labels."""

    teacher: Names = Field(("image",), description="modalities of the teacher")
    student: Names = Field(("fourier",), description="modality at deployment")
    labelled: str = Field("30", description="labels to keep in training; the other rows are unlabelled pairs")
    curve: Names = Field(("100", "300"), description="further numbers of labels at which no-KD is trained")
    methods: Names = Field(("kd",), min_length=1, description="methods of `xmodal list methods`")
    shuffled: bool = Field(False, description="run the shuffled-teacher control")
    threads: int | None = Field(1, ge=1, description="CPU threads; networks this small are fastest with one")
    seeds: Seeds = Field((0, 1, 2, 3, 4), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    options: Options = Field(
        {"digits": {"views": ("image", "fourier")}}, description="options of methods and data sets, by name"
    )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, compare with the references, write the run folder and its page."""
    from xmodal.recipes import RECIPES
    from xmodal.study.comparison import check, first_data, fitting, summarised
    from xmodal.study.few_labels import announced, count_problems, further_trainings, with_curve

    card = RECIPES["few-labels"]
    # data of the first seed, and all checks of names and settings, before devices are started, which takes seconds
    comparison, plan, counts = settings.comparison(), settings.plan(), settings.curve_counts
    first = first_data(comparison, settings.seeds[0])
    comparison = fitting(comparison, first, problems=count_problems(first, counts, settings.seeds[0]))

    with open_study(settings, card.name, progress=progress) as study:
        # methods are built once, too: nothing is written yet
        comparison = check(comparison, first, study.fabric)
        fits = comparison.fits(few=True) + further_trainings(comparison, counts, control_alone=True)
        seeds = len(settings.seeds)
        study.progress.say(announced(comparison, first, study.fabric, seeds=seeds, fits=fits, jobs=study.jobs))
        study.start(fits=len(settings.seeds) * fits)

        # for each seed: teacher, no-KD, kd and its controls, then no-KD with more labels
        rows: list[dict[str, Any]] = []
        curve: list[dict[str, Any]] = []
        notes: list[str] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, comparison, counts, True):
            rows += found["rows"]
            curve += found["curve"]
            notes += found["notes"]

        # report
        result = summarised(comparison, first, rows, notes, title="Digits: 30 labels and many unlabelled pairs")
        result = with_curve(result, first, curve)
        result["references"] = against_references(result["figures"], read_references(card.references))
        return study.finish(result)

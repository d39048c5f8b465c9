"""Several methods with the same data, networks, seeds and budget, and the controls that turn scores into evidence.

For every seed: a teacher, the no-KD control (the student's network, trained on labels alone), every method, and for
methods with a frozen teacher the shuffled-teacher control (its outputs are permuted among samples of the same class: is
anything transferred that is specific to a sample?) and, with ``--untrained``, one whose teacher has its initial weights
(does it matter what a teacher has learned?). Methods that deploy a larger network have a further control of that size,
trained on labels alone. A method that does not fit the data is left out, with a note. A seed decides the initial
weights and the order of the batches, and also the split of data that comes without one. The epoch of each network is
selected on the validation split; the test split is read once, when everything of a seed is trained. The ship card of
the result names the student to deploy. On the built-in digits 5 seeds take about a minute.

    xmodal compare digits --teacher rows --student fourier --methods supervised,kd --seeds 5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.progress import Progress
from xmodal.study.comparison_settings import SweepSettings as Settings
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Opener, open_seed
from xmodal.study.seeds import each_seed

if TYPE_CHECKING:
    from xmodal.data.base import Data

__all__ = ["Settings", "run"]


def run(
    settings: Settings,
    *,
    progress: Progress | None = None,
    opened: Opener = open_seed,
    build: Callable[..., Study] = Study,
) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, and return the content of `result.json`."""
    if settings.sweep:
        from xmodal.study import sweep

        return sweep.run(settings, progress=progress)
    from xmodal.data.targets import target_sentence
    from xmodal.study.comparison import check, first_data, fitting, summarised
    from xmodal.study.few_labels import announced, count_problems, further_trainings, with_curve

    # data of the first seed, and all checks of names and settings, before devices are started, which takes seconds
    comparison, plan = settings.comparison(), settings.plan()
    first = first_data(comparison, settings.seeds[0], opened)
    counts, control_alone = settings.curve_counts, len(settings.label_counts) < 2
    comparison = fitting(comparison, first, problems=count_problems(first, counts, settings.seeds[0]))

    with open_study(settings, "compare", progress=progress, build=build) as study:
        # methods are built once, too: nothing is written yet
        comparison = check(comparison, first, study.fabric, modules=study.modules)
        for note in comparison.skipped:
            study.progress.say(note)
        fits = comparison.fits(few=bool(first.info.labelled))
        fits += further_trainings(comparison, counts, control_alone=control_alone)
        if first.info.labelled:
            trainings = {"seeds": len(settings.seeds), "fits": fits, "jobs": study.jobs}
            study.progress.say(announced(comparison, first, study.fabric, modules=study.modules, **trainings))
        study.start(fits=len(settings.seeds) * fits, name=f"compare-{Path(settings.data).name}")
        study.progress.say(target_sentence(first.info, first.labels_from))

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        curve: list[dict[str, Any]] = []
        notes: list[str] = []
        work = (comparison, counts, control_alone)
        for found in each_seed(study, train_seed, plan, settings.seeds, first, *work, opened=opened):
            rows += found["rows"]
            curve += found["curve"]
            notes += found["notes"]

        # report
        result = summarised(comparison, first, rows, notes, title=f"{settings.data}: methods compared")
        return study.finish(with_curve(result, first, curve))


def train_seed(
    study: Study, seed: int, data: Data, comparison: Comparison, counts: Sequence[str], control_alone: bool
) -> dict[str, Any]:
    """Train everything of a seed, then read its test split once; and train the points of the curve."""
    from xmodal.study.comparison import train
    from xmodal.study.few_labels import train_curve

    bench = study.bench(comparison.plan, data, seed)
    notes = train(bench, comparison)
    rows = bench.score()
    curve = train_curve(study, comparison, data, seed, counts, control_alone=control_alone)
    return {"rows": rows, "notes": notes, "curve": curve}

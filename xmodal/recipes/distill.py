"""Your own data in one command: a teacher with all modalities, a student with fewer, their controls, and a report.

It trains the teacher, the no-KD control, the student and its shuffled-teacher control with one seed, and reports
whether distillation helped. One seed is no proof: `compare` repeats it. Small arrays take a minute on a CPU.

    xmodal distill my_data --teacher audio,image --student image --method kd
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from xmodal.engine.progress import Progress
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Opener, open_seed
from xmodal.study.settings import PairSettings


class Settings(PairSettings):
    """Train a teacher, a no-KD control and a distilled student, and report."""

    method: str = Field("kd", description="a method of `xmodal list methods`; its settings become flags")
    seed: int = Field(0, ge=0, description="of weights, order of batches, and the split of data without one")
    shuffled: bool = Field(True, description="run the shuffled-teacher control")

    def comparison(self) -> Comparison:
        """A comparison of one method with one seed."""
        flags = {name: getattr(self, name) for name in PairSettings.model_fields}
        settings = ComparisonSettings(**flags, methods=(self.method,), shuffled=self.shuffled)
        return settings.with_objects(**self._objects).comparison()


def run(
    settings: Settings,
    *,
    progress: Progress | None = None,
    opened: Opener = open_seed,
    build: Callable[..., Study] = Study,
) -> dict[str, Any]:
    """Train, write the run folder and its page, and return the content of `result.json`."""
    from xmodal.data.targets import target_sentence
    from xmodal.study.comparison import check, summarised, train

    with open_study(settings, "distill", progress=progress, build=build) as study:
        # data, and all checks: nothing is written yet
        comparison = settings.comparison()
        data = opened(comparison.plan, settings.seed)
        comparison = check(comparison, data, study.fabric, modules=study.modules)
        study.start(fits=comparison.fits(few=bool(data.info.labelled)), name=f"distill-{Path(settings.data).name}")
        study.progress.say(target_sentence(data.info, data.labels_from))

        # teacher, control, student and its control; then the scores on the test split
        bench = study.bench(comparison.plan, data, settings.seed)
        notes = train(bench, comparison)
        rows = bench.score()

        # report
        result = summarised(comparison, data, rows, notes, title=f"{settings.data}: {settings.method}")
        return study.finish(result)

"""Methods side by side: the same data, networks, seeds and budget for each, and the controls that make it evidence.

For every seed: a teacher, the no-KD control (the student's network, labels alone), every method, and for methods with
a frozen teacher the shuffled-teacher control (its answers exchanged among samples of one class: if that does as well,
nothing specific to a sample was transferred) and, with ``--untrained``, one whose teacher has its initial weights (if
that does as well, it does not matter what a teacher has learned). Methods that deploy a larger network have a control
of that size, which learns from labels alone as well. A seed sets the initial weights and the order of the batches, and
for data without a fixed split the split itself. The epoch of each network is chosen on the validation split; the test
split is read when everything of a seed is trained, once. On the built-in digits 5 seeds take about a minute.

    xmodal compare digits --teacher rows --student fourier --methods supervised,kd --seeds 5
"""

from __future__ import annotations

from typing import Any

from xmodal.engine.progress import Progress
from xmodal.study import comparison, sweep
from xmodal.study.comparison import Settings

__all__ = ["Settings", "run"]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Compare, at every value of a setting if one is swept; return what `result.json` holds."""
    if settings.sweep:
        return sweep.run(settings, progress=progress)
    return comparison.run(settings, progress=progress)

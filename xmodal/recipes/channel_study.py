"""What the studies of removed channels share: the modes of the authors' codes, their losses, and what students heard.

A teacher was trained jointly with a student of another modality, its channels at a place are ranked, and students learn
from it without a share of them:

| mode | authors' number | what is removed |
|---|---|---|
| none | -1 | nothing |
| random | 0 | any channels |
| general | 1 | the least salient: what stays is known to both modalities |
| specific | 2 | the most salient: what stays is the teacher's own |

References: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487. Chen et al.: Non-target
Divergence Hypothesis, 2024, arXiv 2409.02438. Read from the authors' codes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from xmodal.recipes.settings import known_names

if TYPE_CHECKING:
    from xmodal.methods.mfh import MFH
    from xmodal.recipes.bench import Bench

REMOVE = {"random": "random", "general": "least", "specific": "most"}  # mode → which channels go
MODES = {"none": "-1", "random": "0", "general": "1", "specific": "2"}  # mode → number in the authors' codes
LOSSES = {  # names in the code of NTDH → terms of the zoo, all at temperature 1 and on the outputs
    "kl": ("kl:1",),
    "hint": ("mse:0.1", "kl:1"),
    "rkd": ("rkd:1",),
    "pkt": ("pkt:1", "kl:1"),
    "similarity": ("sp:1", "kl:1"),
    "dkd": ("dkd(alpha=0.5,beta=0.5,temperature=1):1",),
    "crd": ("crd:1",),
}


def known_modes(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Modes by their names; the authors' numbers are names too.

    Example:
        >>> known_modes(("none", "1", "specific"))
        ('none', 'general', 'specific')
    """
    by_number = {number: mode for mode, number in MODES.items()}
    return known_names("mode", tuple(by_number.get(mode, mode) for mode in asked), MODES)


def removal(mode: str, ratio: float) -> dict[str, Any]:
    """The options of a method that remove what a mode says.

    Example:
        >>> removal("general", 0.75), removal("none", 0.75)
        ({'remove': 'least', 'ratio': 0.75}, {'remove': 'least', 'ratio': 0.0})
    """
    return {"remove": REMOVE.get(mode, "least"), "ratio": ratio * (mode != "none")}


def row_name(loss: str, mode: str) -> str:
    """What a student is called in the table: its loss, and what was removed if anything was."""
    return loss if mode == "none" else f"{loss}, {mode}"


def measure_heard(bench: Bench, rows: Sequence[dict[str, Any]]) -> None:
    """How far each student is from its teacher as it was heard, and how good that teacher is, on validation."""
    from xmodal.diagnostics.divergence import measure_divergence

    for row in rows:
        if row["role"] != "method":
            continue
        run = bench.runs[row["name"]]
        student = run.students[row["student"]].module
        with cast("MFH", run.method).heard() as teacher:
            found = measure_divergence(student, teacher, bench.batches("valid"), form="reference", samples=100)
        row["channels"] = {
            "ncjsd": found.non_target_mean,
            "tcjsd": found.target_mean,
            "teacher_accuracy": found.teacher_accuracy,
        }


def heard_table(rows: Sequence[Mapping[str, Any]], *, ratio: float, place: int) -> dict[str, Any]:
    """What `measure_heard` found, over the seeds.

    Args:
        rows: of the comparison.
        ratio: share of the channels that was removed.
        place: where they are, as the authors count.
    """
    found: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        if row["role"] == "method":
            found.setdefault(row["name"], []).append(row["channels"])
    share = f"{ratio:.0%} of the channels at place {place} removed".replace("%", " %")
    return {
        "title": "What the students heard",
        "header": ["name", "teacher's accuracy (%)", "divergence of the wrong classes", "of the true class"],
        "rows": [
            [name, _mean(seeds, "teacher_accuracy", 100, 1), _mean(seeds, "ncjsd", 1, 3), _mean(seeds, "tcjsd", 1, 3)]
            for name, seeds in found.items()
        ],
        "caption": f"Validation split, mean (and range) over the seeds; {share}. Divergence: student from teacher, in "
        "nats, in the authors' form, which has no upper end.",
    }


def _mean(seeds: Sequence[Mapping[str, float]], key: str, scale: float, digits: int) -> str:
    values = [scale * entry[key] for entry in seeds]
    between = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{between}"

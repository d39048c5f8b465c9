"""Shared by the studies of removed channels: the modes of the authors' codes, their losses, and a table of teachers.

A teacher was trained jointly with a student of another modality, the channels of one of its layers are ranked, and
students learn from it without a share of them:

| mode | authors' number | what is removed |
|---|---|---|
| none | -1 | nothing |
| random | 0 | any channels |
| general | 1 | the least salient: the channels that stay carry what both modalities contain |
| specific | 2 | the most salient: the channels that stay carry what only the teacher's modality contains |

References: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487. Chen et al.: Non-target
Divergence Hypothesis, 2024, arXiv 2409.02438. Read from the authors' codes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from xmodal.study.settings import known_names

if TYPE_CHECKING:
    from xmodal.methods.mfh import MFH
    from xmodal.study.bench import Bench

REMOVE = {"random": "random", "general": "least", "specific": "most"}  # mode → channels that are removed
MODES = {"none": "-1", "random": "0", "general": "1", "specific": "2"}  # mode → number in the authors' codes
EXPECTED = "removing the least salient channels, so that the general stay, makes the best student"
# Names in the code of NTDH → terms of `xmodal list losses`. All are at temperature 1 and on the logits, as in its MNIST
# and RAVDESS parts; hint, pkt and similarity add the KL divergence there, rkd and dkd do not. Its flags call kl kd, and
# its code kl, so that neither runs there.
LOSSES = {
    "kl": ("kl:1",),
    "kd": ("kl:1",),
    "mse": ("mse:1",),
    "hint": ("mse:0.1", "kl:1"),
    "rkd": ("rkd:1",),
    "pkt": ("pkt:1", "kl:1"),
    "similarity": ("sp:1", "kl:1"),
    "dkd": ("dkd(alpha=0.5,beta=0.5,temperature=1):1",),
    "crd": ("crd:1",),
}

# as the code has it: the student's logits are standardised over the batch and cut off at 0
PUBLISHED_LOSSES = {**LOSSES, "hint": ("hint(batchnorm_relu=true):0.1", "kl:1")}


def known_modes(modes: tuple[str, ...]) -> tuple[str, ...]:
    """Modes by name, also where they are given as the authors' numbers.

    Example:
        >>> known_modes(("none", "1", "specific"))
        ('none', 'general', 'specific')
    """
    by_number = {number: mode for mode, number in MODES.items()}
    return known_names("mode", tuple(by_number.get(mode, mode) for mode in modes), MODES)


def removal(mode: str, ratio: float) -> dict[str, Any]:
    """The options of a method that remove the channels of a mode.

    Example:
        >>> removal("general", 0.75), removal("none", 0.75)
        ({'remove': 'least', 'ratio': 0.75}, {'remove': 'least', 'ratio': 0.0})
    """
    return {"remove": REMOVE.get(mode, "least"), "ratio": ratio * (mode != "none")}


def row_name(loss: str, mode: str) -> str:
    """The name of a student in the table: its loss, and the mode unless nothing is removed."""
    return loss if mode == "none" else f"{loss}, {mode}"


def measure_teachers(bench: Bench, rows: Sequence[dict[str, Any]]) -> None:
    """Add to the row of each student the accuracy of its teacher, without the removed channels, and their divergence.

    Both are measured on the validation split.
    """
    from xmodal.diagnostics.divergence import measure_divergence

    for row in rows:
        if row["role"] != "method":
            continue
        run = bench.runs[row["name"]]
        student = run.students[row["student"]].module
        with cast("MFH", run.method).heard() as teacher:
            # the form of the authors' code, ½ KL(m‖u) + ½ KL(m‖v), so that values compare with theirs
            gap = measure_divergence(student, teacher, bench.batches("valid"), form="reference", samples=100)
        row["channels"] = {
            "ncjsd": gap.non_target_mean,
            "tcjsd": gap.target_mean,
            "teacher_accuracy": gap.teacher_accuracy,
        }


def teachers_table(rows: Sequence[Mapping[str, Any]], *, ratios: Sequence[float], place: int | str) -> dict[str, Any]:
    """A table of the results of `measure_teachers`, over the seeds.

    Args:
        rows: of the comparison.
        ratios: share of the channels that was removed, or several.
        place: of the channels: the authors' number, or the name of the layer.
    """
    by_name: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        if row["role"] == "method":
            by_name.setdefault(row["name"], []).append(row["channels"])
    shares = " or ".join(f"{ratio:.0%}" for ratio in ratios).replace("%", " %")
    share = f"{shares} of the channels at place {place} removed"
    return {
        "title": "Teachers without the removed channels",
        "header": ["name", "teacher's accuracy (%)", "divergence of the wrong classes", "of the true class"],
        "rows": [
            [name, _mean(seeds, "teacher_accuracy", 100, 1), _mean(seeds, "ncjsd", 1, 3), _mean(seeds, "tcjsd", 1, 3)]
            for name, seeds in by_name.items()
        ],
        "caption": f"Validation split, mean (and range) over the seeds; {share}. Divergence: student from teacher, in "
        "nats, in the authors' form, which has no upper bound.",
    }


def expected_best(
    result: Mapping[str, Any], *, title: str, who: str, what: str, best: str, over: Sequence[str]
) -> list[dict[str, Any]]:
    """An expectation of a paper and its tests, as a list with one entry; empty without a pair of rows to compare.

    Args:
        result: with rows, metric and direction.
        title: of the table.
        who: the subject of the sentence, such as "The authors expect".
        what: the expectation, as a clause.
        best: name of the row that should be best.
        over: names of the rows it is compared with.
    """
    from xmodal.reports.contrasts import contrasts

    expected = {"title": title, "who": who, "what": what, "best": best, "over": list(over)}
    tests = contrasts(result["rows"], expected, metric=result["metric"], direction=result["direction"])
    return [{**expected, "tests": tests}] if tests else []


def _mean(seeds: Sequence[Mapping[str, float]], key: str, scale: float, digits: int) -> str:
    values = [scale * entry[key] for entry in seeds]
    between = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{between}"

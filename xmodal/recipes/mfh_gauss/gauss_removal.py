"""Table 2 of the modality focusing hypothesis: a teacher reduced to the information of both modalities teaches better.

The teacher's modality a holds all decisive channels, the student's b some of them. A teacher that sees only the shared
channels of a (the modality-general, MG, teacher) is ten to twenty points worse, and its student better than that of the
full teacher; with random channels it is not. The shared channels are given (``gt``) or identified by Algorithm 1
(``alg1``): train two networks to agree, and measure on which channels the agreement depends. Half a minute on a CPU.

    xmodal run gauss-removal
    xmodal run gauss-removal --preset table2 --seeds 42-141

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, table 2, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.engine.progress import Progress
from xmodal.recipes.mfh_gauss.settings import TITLES, Settings
from xmodal.study.opening import open_study

# Seeds that are trained together. It bounds the memory for their samples, and a resumed study repeats at most so many.
TOGETHER = 20


def published() -> dict[str, Settings]:
    """The settings of the reference figures."""
    return {
        "published": Settings(as_published=True),
        "corrected": Settings(),
        "table2": Settings(preset="table2", seeds=tuple(range(42, 142))),
    }


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, and return the result."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.mfh_gauss.gauss_removal_training import trained
    from xmodal.reports.sweep import summarise_sweep, sweep_figures
    from xmodal.study.linear import with_paper
    from xmodal.study.references import read_references, references_for

    card, seeds = RECIPES["gauss-removal"], settings.seeds
    parts = [seeds[first : first + TOGETHER] for first in range(0, len(seeds), TOGETHER)]
    # networks of different widths can't be stacked, so MG teachers are a training for each number of channels
    widths = {settings.kept(design) for design in settings.designs}
    with open_study(settings, card.name, progress=progress) as study:
        study.start(fits=len(parts) * (4 + len(widths) + ("alg1" in settings.mode)))

        # training and scores, some seeds at a time; a resumed study reads the finished rows
        rows = []
        for part in parts:
            name = f"seeds-{part[0]}-{part[-1]}"
            rows += study.saved_rows(name) or study.save_rows(name, trained(settings, part, study))

        # means along γ for each choice of channels, compared with those of the paper
        sweeps = {
            mode: summarise_sweep(
                [row for row in rows if row["mode"] == mode],
                x="gamma",
                metric="accuracy",
                title=TITLES[mode],
                label="γ of the regular teacher",
                differences=[("MG-KD", "KD"), ("MG teacher", "teacher")],
            )
            for mode in settings.mode
        }
        means: dict[str, float] = {}
        for mode, sweep in sweeps.items():
            means |= sweep_figures(sweep, f"{mode} ")
        if settings.preset == "table2" and "gt" in sweeps:
            with_paper(sweeps["gt"], read_references(card.references), "table2/gt ")
        figures = {**means, **claims(sweeps, rows)}

        # report
        result = {
            "title": card.title,
            "data": "gaussian",
            "task": "multiclass",
            "teacher": ["a"],
            "student": ["b"],
            "seeds": list(seeds),
            "rows": rows,
            "sweeps": list(sweeps.values()),
            "figures": figures,
            "references": references_for(card, settings, figures),
            "verdict": outcome(figures),
        }
        return study.finish(result)


def claims(sweeps: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Figures of the hypothesis over all γ: extremes of gains and losses, and the share that Algorithm 1 identifies."""
    figures: dict[str, float] = {}
    for mode, sweep in sweeps.items():
        gains, drops = ([100 * point["mean"] for point in difference["points"]] for difference in sweep["differences"])
        figures[f"{mode} smallest loss of the teacher"] = -max(drops)
        figures[f"{mode} smallest gain"] = min(gains)
        figures[f"{mode} largest gain"] = max(gains)
    for name in ("a", "b"):
        shares: dict[float, list[float]] = {}
        for row in rows:
            if row["name"] == "teacher" and f"found_{name}" in row:
                shares.setdefault(row["gamma"], []).append(row[f"found_{name}"])
        means = {gamma: sum(values) / len(values) for gamma, values in shares.items()}
        figures |= {f"found in {name}.{gamma:.2f}": mean for gamma, mean in means.items()}
        if means:
            figures[f"smallest share found in {name}"] = min(means.values())
    return figures


def outcome(figures: Mapping[str, float]) -> list[str]:
    """Sentences about the result."""
    sentences = []
    for mode, title in TITLES.items():
        if f"{mode} smallest gain" in figures:
            loss = figures[f"{mode} smallest loss of the teacher"]
            least, most = figures[f"{mode} smallest gain"], figures[f"{mode} largest gain"]
            sentences.append(
                f"{title}: the teacher loses at least {loss:.1f} points, and its student's gain over regular KD is "
                f"{least:+.1f} to {most:+.1f} points."
            )
    if "smallest share found in a" in figures:
        shares = [100 * figures[f"smallest share found in {name}"] for name in ("a", "b")]
        sentences.append(
            f"Algorithm 1 identifies at least {shares[0]:.0f} % of the shared channels of a and {shares[1]:.0f} % of b."
        )
    return sentences

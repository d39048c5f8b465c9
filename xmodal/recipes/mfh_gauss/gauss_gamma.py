"""Figure 2 of the modality focusing hypothesis: the more a teacher shares with its student, the more the student gains.

Two modalities of Gaussian noise, in each of which ten channels decide the label; from none to all ten of them are the
same, γ = shared / (20 - shared). A linear teacher sees modality a, the student b. Expected result: the gain of KD over
no-KD rises with γ, from a loss at γ = 0 to two points at γ = 1, whatever the accuracy of the teacher. 180 linear models
of 1000 steps: seconds on a CPU.

    xmodal run gauss-gamma

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, figure 2, and the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from xmodal.data.gaussian.draws import Design, draw_sweep, increase_gamma
from xmodal.engine.progress import Progress
from xmodal.study.opening import open_study
from xmodal.study.settings import StudySettings

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.engine.run.result import Run
    from xmodal.study.opening import Study

Case = tuple[Design, int]  # which channels each modality holds, seed


class Settings(StudySettings):
    """Linear teachers and students on Gaussian pairs, from nothing in common to everything."""

    shared: tuple[int, ...] = Field((0, 2, 4, 6, 8, 10), min_length=1, description="common decisive features, of ten")


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, and return the result."""
    designs = [increase_gamma(shared) for shared in settings.shared]
    return sweep(settings, designs, "gauss-gamma", x="gamma", label="γ, share of common features", progress=progress)


def sweep(
    settings: StudySettings,
    designs: Sequence[Design],
    recipe: str,
    *,
    x: str,
    label: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Teacher, no-KD control and KD student for every design and seed.

    Args:
        settings: seeds and training.
        designs: channels of both modalities, one design per point of the sweep.
        recipe: its name.
        x: the property of a design that varies.
        label: of the axis of x.
        progress: shows the progress.
    """
    from xmodal.recipes import RECIPES
    from xmodal.reports.sweep import summarise_sweep, sweep_figures
    from xmodal.study.linear import with_paper
    from xmodal.study.references import read_references, references_for

    card = RECIPES[recipe]
    with open_study(settings, recipe, progress=progress) as study:
        # all teachers are one training, and so are all controls and all KD students
        study.start(fits=3)

        # training and scores; a resumed study reads the finished rows
        rows = study.saved_rows("all")
        if rows is None:
            data, runs = fitted(settings, designs, study)
            rows = study.save_rows("all", scored(data, runs))

        # means along the sweep, compared with those of the paper
        means = summarise_sweep(
            rows, x=x, metric="accuracy", title=f"Accuracy by {x}", label=label, differences=[("kd", "no-KD")]
        )
        with_paper(means, read_references(card.references))
        figures = {**sweep_figures(means), **trends(means)}

        # report
        return study.finish(
            {
                "title": card.title,
                "data": "gaussian",
                "task": "multiclass",
                "teacher": ["a"],
                "student": ["b"],
                "seeds": list(settings.seeds),
                "rows": rows,
                "sweeps": [means],
                "figures": figures,
                "references": references_for(card, settings, figures),
                "verdict": [outcome(figures, means)],
            }
        )


def fitted(
    settings: StudySettings, designs: Sequence[Design], study: Study
) -> tuple[dict[Case, Data], dict[str, dict[Case, Run]]]:
    """Data and trained networks of every design and seed."""
    from xmodal.data.gaussian.dataset import as_data
    from xmodal.methods.supervised import Supervised
    from xmodal.study.linear import Stream, distillation, train

    # data; then initial weights, in the order teacher, KD student, no-KD: the authors' code seeds all generators with
    # seed + 1 before it draws the test set, and initialises the networks from that stream of torch
    rows, data, fresh = {"train": settings.train, "test": settings.test}, {}, {}
    for case in itertools.product(designs, settings.seeds):
        design, seed = case
        data[case], stream = as_data(draw_sweep(design, seed, **rows)), Stream(seed + 1)
        fresh[case] = [stream.linear(name, design.view(name).width) for name in ("a", "b", "b")]

    # teachers and no-KD controls, which learn from labels; then the KD students of these teachers
    fit, info = settings.fit(), {case: pairs.info for case, pairs in data.items()}
    labels = {
        name: {case: Supervised(networks[number], info[case]) for case, networks in fresh.items()}
        for name, number in (("teacher", 0), ("no-KD", 2))
    }
    runs = {name: train(name, methods, data, fit, study) for name, methods in labels.items()}
    distilled = {
        case: distillation(student, runs["teacher"][case], info[case], settings)
        for case, (_, student, _) in fresh.items()
    }
    return data, {**runs, "kd": train("kd", distilled, data, fit, study)}


def scored(data: Mapping[Case, Data], runs: Mapping[str, Mapping[Case, Run]]) -> list[dict[str, Any]]:
    """One row per network, with its accuracy on the test split."""
    from xmodal.study.linear import accuracy, row

    roles = {"teacher": "teacher", "no-KD": "control", "kd": "method"}
    return [
        row(name, roles[name], case[1], accuracy(trained[case], pairs), gamma=case[0].gamma, alpha=case[0].alpha)
        for case, pairs in data.items()
        for name, trained in runs.items()
    ]


def trends(sweep: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the hypothesis: the gain at both ends of the sweep, and how steadily it changes between them."""
    gains = [100 * point["mean"] for point in sweep["differences"][0]["points"]]
    teacher = [100 * point["mean"] for point in sweep["series"][0]["points"]]
    falls = [before - after for before, after in itertools.pairwise(gains) if after < before]
    return {
        "gain.first": gains[0],
        "gain.last": gains[-1],
        "gain.change": gains[-1] - gains[0],
        "gain.falls": float(len(falls)),
        "gain.largest fall": max(falls, default=0.0),
        "teacher.change": teacher[-1] - teacher[0],
    }


def outcome(figures: Mapping[str, float], sweep: Mapping[str, Any]) -> str:
    """A sentence about the result."""
    points = sweep["differences"][0]["points"]
    symbol = str(sweep["x"]).partition(",")[0]
    return (
        f"From {symbol} = {points[0]['x']:.2f} to {points[-1]['x']:.2f} the gain of KD over no-KD goes from "
        f"{figures['gain.first']:+.2f} to {figures['gain.last']:+.2f} points, and the teacher's accuracy changes by "
        f"{figures['teacher.change']:+.2f} points."
    )

"""The scikit-learn experiment on non-target divergence: does disagreement about wrong classes predict the gain of KD?

Four classes in two modalities, each of which has twenty decisive columns among fifty; γ = shared / 20 of them are the
same. A teacher with three layers reads a, the student b. Each gain of KD over no-KD is related to the non-target
divergence of the two networks at the end of training, by their rank correlation with its interval. Expected result:
with γ the divergence falls and the gain rises. The published training stops at 40 % accuracy, where differences of two
runs are noise. With ``--mask`` a further teacher is trained on some columns alone: those that two jointly trained
networks need to agree on the wrong classes (alg1), those that they need least (reverse), or random ones. 110 networks,
a minute on a CPU.

    xmodal run ntdh-classification
    xmodal run ntdh-classification --as-published --seeds 81,14
    xmodal run ntdh-classification --shared 10 --mask alg1,reverse,random --mask-dim 10

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.engine.progress import Progress
from xmodal.recipes.ntdh_synthetic.settings import LABEL, MASKS, RUNS, Settings
from xmodal.study.opening import open_study


def published() -> dict[str, Settings]:
    """The settings of the reference figures."""
    return {
        "published": Settings(as_published=True, seeds=RUNS[:2]),
        "corrected": Settings(),
        "columns": Settings(as_published=True, seeds=RUNS[:1], shared=(10,), mask=("alg1",), mask_dim=10),
    }


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, and return the result."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.ntdh_synthetic.classification_training import trained
    from xmodal.reports.relation import relation_sentence
    from xmodal.reports.sweep import summarise_sweep, sweep_figures
    from xmodal.study.references import references_for

    card = RECIPES["ntdh-classification"]
    with open_study(settings, card.name, progress=progress) as study:
        study.start(fits=1)

        # training and scores; a resumed study reads the finished rows
        rows = study.saved_rows("all") or study.save_rows("all", trained(settings, study))

        # along γ: accuracies, also of teachers of some columns, divergence of wrong classes, and distance of the inputs
        whole = [row for row in rows if "mask" not in row]
        sweeps = {"": accuracies(whole, "Accuracy by γ")}
        for mask in settings.mask:
            reduced = [row for row in rows if row.get("mask") == mask]
            others = [row for row in whole if row["name"] in ("teacher", "no-KD")]
            title = f"Teachers of {settings.mask_dim} columns, {MASKS[mask]}"
            sweeps[f"{mask} "] = accuracies([*others, *reduced], title)
        values = {key: value for sweep in sweeps.values() for key, value in sweep_figures(sweep).items()}
        measured = {
            "divergence ": ("ncjsd", "Non-target divergence from the teacher"),
            "cmd ": ("cmd", "CMD of the inputs"),
        }
        for name, (metric, title) in measured.items():
            axis: dict[str, Any] = {"x": "gamma", "label": LABEL, "split": "training"}
            sweeps[name] = summarise_sweep(scores(rows, metric), metric=metric, title=title, **axis)
            values |= sweep_figures(sweeps[name], name)
        # within a seed there is one run for each γ: with a single γ there is nothing to correlate
        within = (False, True) if len(settings.shared) > 1 else (False,)
        related = [relation(rows, mode, within=each) for each in within for mode in settings.mode]
        figures = {**values, **claims(rows, sweeps, related)}

        # report
        result = {
            "title": card.title,
            "data": "classification",
            "task": "multiclass",
            "teacher": ["a"],
            "student": ["b"],
            "seeds": list(settings.seeds),
            "rows": rows,
            "sweeps": list(sweeps.values()),
            "relations": [entry for entry in related if not entry["within"]],
            "figures": figures,
            "references": references_for(card, settings, figures),
            "verdict": [*map(relation_sentence, related), *outcome(figures)],
            "notes": notes(settings),
        }
        return study.finish(result)


def accuracies(rows: Sequence[Mapping[str, Any]], title: str) -> dict[str, Any]:
    """A sweep of accuracies: gains over no-KD, and losses of the teachers of some columns against the full one."""
    from xmodal.reports.sweep import summarise_sweep

    names = [name for name in dict.fromkeys(row["name"] for row in rows) if name not in ("teacher", "no-KD")]
    gains = [(name, "teacher" if name.startswith("teacher") else "no-KD") for name in names]
    return summarise_sweep(rows, x="gamma", metric="accuracy", title=title, label=LABEL, differences=gains)


def scores(rows: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The rows with a further measurement, as their score: the divergence of networks, or the CMD of the inputs."""
    # the CMD is that of the data, whatever network the row belongs to
    named = {"cmd": {"name": "input", "role": "method"}}.get(metric, {})
    return [{**row, **named, "test": {metric: row[metric]}} for row in rows if metric in row]


def relation(rows: Sequence[Mapping[str, Any]], mode: str, *, within: bool = False) -> dict[str, Any]:
    """Rank correlation of the divergence of a student from its teacher with its gain over the control, over all runs.

    How far the training comes differs between seeds, and with it all divergences of a seed; ``within`` compares only
    the runs of the same seed.
    """
    from xmodal.reports.relation import rank_correlation

    score = {(row["name"], row["gamma"], row["seed"]): row["test"]["accuracy"] for row in rows}
    points = [
        {
            "seed": row["seed"],
            "at": row["gamma"],
            "x": row["ncjsd"],
            "y": row["test"]["accuracy"] - score["no-KD", row["gamma"], row["seed"]],
        }
        for row in rows
        if row["name"] == mode
    ]
    correlation = rank_correlation(points, x="x", y="y", within=within)
    label = {"name": mode, "x": "non-target divergence", "y": "accuracy", "within": within}
    return {**label, **correlation, "points": points}


def claims(
    rows: Sequence[Mapping[str, Any]], sweeps: Mapping[str, Mapping[str, Any]], related: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Figures of the hypothesis: changes of gain and divergence between the ends of γ, and their correlation."""
    gains = {gain["name"].removesuffix(" - no-KD"): gain["points"] for gain in sweeps[""]["differences"]}
    divergences = {series["name"]: series["points"] for series in sweeps["divergence "]["series"]}
    values = {}
    for entry in related:
        mode = entry["name"]
        if len(gains[mode]) > 1:
            values[f"{mode} gain.change"] = 100 * (gains[mode][-1]["mean"] - gains[mode][0]["mean"])
            values[f"{mode} divergence.change"] = divergences[mode][-1]["mean"] - divergences[mode][0]["mean"]
        label = f"{mode} within" if entry["within"] else mode
        values |= {f"{label} {key}": entry[key] for key in ("rho", "low", "high") if entry[key] is not None}
    for name in ("a", "b"):
        shares = [row[f"found_{name}"] for row in rows if row.get(f"found_{name}") is not None]
        if shares:
            values[f"smallest share found in {name}"] = min(shares)
    return values


def outcome(figures: Mapping[str, float]) -> list[str]:
    """Sentences about the result, besides those about relations."""
    sentences = []
    for key, change in figures.items():
        if key.endswith(" gain.change"):
            mode = key.removesuffix(" gain.change")
            sentences.append(
                f"{mode}: from the smallest γ to the largest the gain over no-KD changes by {change:+.2f} points, the "
                f"non-target divergence by {figures[f'{mode} divergence.change']:+.2g}."
            )
    if "smallest share found in a" in figures:
        shares = [100 * figures[f"smallest share found in {name}"] for name in ("a", "b")]
        sentences.append(
            f"Among the columns ranked first, as many as are shared, at least {shares[0]:.0f} % are shared ones in a "
            f"and {shares[1]:.0f} % in b."
        )
    return sentences


def notes(settings: Settings) -> list[str]:
    """Sentences about the limits of these settings."""
    sentences = []
    if settings.preset == "published":
        sentences.append("The published training stops at 40 % accuracy; --preset longer trains to 74 % (25).")
    if len(settings.seeds) < 10:
        sentences.append(
            f"{len(settings.seeds)} runs: differences of a point are within noise, and the interval of the rank "
            "correlation is wide. The default is ten runs."
        )
    return sentences

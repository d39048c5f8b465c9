"""The Gaussian experiment on non-target divergence: the effect of a teacher's errors on a student of another modality.

Two modalities of 25 channels, ten of which decide in each; from none to all of them are the same, γ = shared /
(20 - shared). A linear teacher reads a, the student b. Expected result: KD costs the student points at γ = 0 and gains
some at γ = 1; if only samples count that the teacher classifies correctly (pssm), most of the harm disappears. Where
the teacher is wrong, student and teacher agree more as γ grows: with two classes this takes the place of the divergence
of the wrong ones. 130 linear models of 1000 steps for one mode: seconds on a CPU.

    xmodal run ntdh-gauss
    xmodal run ntdh-gauss --mode kl,kl_pssm,dkd,dkd_pssm --seeds 30

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from xmodal.data.gaussian.draws import Design, draw_sweep, increase_gamma
from xmodal.engine.progress import Progress
from xmodal.study.opening import open_study
from xmodal.study.settings import DivergenceSettings

if TYPE_CHECKING:
    from xmodal.recipes.ntdh_synthetic.divergence import Trained
    from xmodal.study.opening import Study

WIDTH = 25  # channels of either modality
KL = "kl(temperature=0.7,scale=none):1"  # the authors' code leaves out the factor T² of Hinton's loss
TWO_CLASSES = (
    "With two classes there is one wrong class: dkd consists of its target part alone, and there is no non-target "
    "divergence (26)."
)


class Settings(DivergenceSettings):
    """Linear teachers and students on Gaussian pairs, from nothing in common to everything."""

    PUBLISHED: ClassVar[dict[str, Any]] = {
        "detach": False,
        "scale_logits": True,
        "hint_batchnorm": True,
        "frozen_embeddings": True,
        "running_errors": True,
    }

    shared: tuple[int, ...] = Field((0, 2, 4, 6, 8, 10), min_length=1, description="common decisive features, of ten")
    running_errors: bool = Field(False, description="error distributions include all smaller γ (8)")
    train: int = Field(200, ge=2, description="rows of a training set")
    test: int = Field(1000, ge=2, description="rows of the test set")

    @field_validator("shared")
    @classmethod
    def _some_of_ten(cls, shared: tuple[int, ...]) -> tuple[int, ...]:
        for count in shared:
            # raises an error about features that do not fit
            increase_gamma(count)
        return tuple(dict.fromkeys(shared))

    def losses(self, mode: str) -> tuple[str, ...]:
        """The losses of a mode, with the numbers of the authors' code."""
        hint = "batchnorm_relu=true" if self.hint_batchnorm else "adaptor=linear"
        learned = str(not self.frozen_embeddings).lower()
        return {
            "kl": (KL,),
            "dkd": ("dkd(alpha=1,beta=1,temperature=0.7):1",),
            "hint": (f"hint({hint}):1",),
            "pkt": ("pkt:1", KL),
            "similarity": ("sp:1", KL),
            "rkd": ("rkd(distance_weight=25,angle_weight=50):1",),
            "crd": (f"crd(width=8,negatives=2000,exact=true,learned={learned}):0.02",),
        }[mode.removesuffix("_pssm")]


def published() -> dict[str, Settings]:
    """The settings of the reference figures."""
    # the references hold the errors of each γ by itself
    code = {"as_published": True, "running_errors": False}
    slow = ("pkt", "similarity")  # they compare all pairs of rows: two values of γ are enough
    return {
        "published": Settings(seeds=tuple(range(30)), **code),
        "modes": Settings(mode=("kl_pssm", "dkd", "dkd_pssm", "hint"), **code),
        "pairs": Settings(mode=slow, shared=(0, 10), **code),
        "corrected": Settings(mode=("kl", "kl_pssm", "dkd", "dkd_pssm"), shared=(0, 4, 10)),
    }


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, and return the result."""
    from xmodal.recipes import RECIPES
    from xmodal.reports.sweep import summarise_sweep, sweep_figures
    from xmodal.study.references import references_for

    card = RECIPES["ntdh-gauss"]
    with open_study(settings, card.name, progress=progress) as study:
        study.start(fits=1)

        # training and scores; a resumed study reads the finished rows
        rows = study.saved_rows("all") or study.save_rows("all", scored(fitted(settings, study)))

        # along γ: accuracies, distances of inputs and outputs, and the outputs where the teacher is wrong
        label = "γ, share of common features"
        gains = [(mode, "no-KD") for mode in settings.mode]
        on_training: dict[str, Any] = {"x": "gamma", "label": label, "split": "training"}
        sweeps = {
            "": summarise_sweep(
                rows, x="gamma", metric="accuracy", title="Accuracy by γ", label=label, differences=gains
            ),
            "cmd ": summarise_sweep(
                distances(rows), metric="cmd", title="CMD of inputs and of outputs, a to b", **on_training
            ),
            "errors ": summarise_sweep(
                errors(rows, running=settings.running_errors),
                metric="probability",
                title="Class 0 where the teacher is wrong about it: its probability",
                **on_training,
            ),
        }
        means: dict[str, float] = {}
        for name, sweep in sweeps.items():
            means |= sweep_figures(sweep, name)
        figures = {**means, **claims(settings.mode, sweeps[""]), **rises(sweeps["cmd "])}

        # report
        result = {
            "title": card.title,
            "data": "gaussian",
            "task": "multiclass",
            "teacher": ["a"],
            "student": ["b"],
            "seeds": list(settings.seeds),
            "rows": rows,
            "sweeps": list(sweeps.values()),
            "figures": figures,
            "references": references_for(card, settings, figures),
            "verdict": outcome(figures, sweeps[""]),
            "notes": [TWO_CLASSES] if any("dkd" in mode for mode in settings.mode) else [],
        }
        return study.finish(result)


def fitted(settings: Settings, study: Study) -> Trained[Design]:
    """Data and trained networks of every γ and seed."""
    from xmodal.data.gaussian.dataset import as_data
    from xmodal.recipes.ntdh_synthetic.divergence import train_all
    from xmodal.study.linear import Stream

    # data; then initial weights, in the order teacher, student, control: the authors' code seeds all generators with
    # seed + 1 before it draws the test set, and initialises the networks from that stream of torch
    designs = [increase_gamma(shared, b_width=WIDTH) for shared in settings.shared]
    rows, data, fresh = {"train": settings.train, "test": settings.test}, {}, {}
    for case in itertools.product(designs, settings.seeds):
        design, seed = case
        data[case], stream = as_data(draw_sweep(design, seed, **rows)), Stream(seed + 1)
        fresh[case] = {name: stream.linear(name[0], WIDTH) for name in ("a", "b", "b control")}
    return train_all(settings, data, fresh, settings.descent(settings.train), study)


def scored(trained: Trained[Design]) -> list[dict[str, Any]]:
    """One row per network: accuracy on the test split, distances and errors on the training split."""
    from xmodal.recipes.ntdh_synthetic.divergence import (
        cmd_of,
        cmd_of_inputs,
        error_distribution,
        probabilities,
        scored_row,
    )

    rows = []
    for case, data in trained.data.items():
        for name, runs in trained.runs.items():
            facts: dict[str, Any] = {"gamma": case[0].gamma}
            if name == "teacher":
                facts["cmd"] = cmd_of_inputs(data)
            elif name != "no-KD":
                student, teacher, target = probabilities(runs[case], trained.runs["teacher"][case], data)
                facts |= {"cmd": cmd_of(student, teacher), "errors": error_distribution(student, teacher, target)}
            rows.append(scored_row(trained, name, case, **facts))
    return rows


def distances(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their CMD as the score: of the inputs once, of the outputs for each mode."""
    return [
        {
            **{key: row[key] for key in ("seed", "gamma")},
            "name": "input" if row["name"] == "teacher" else row["name"],
            "role": "method",
            "test": {"cmd": row["cmd"]},
        }
        for row in rows
        if "cmd" in row
    ]


def errors(rows: Sequence[Mapping[str, Any]], *, running: bool = False) -> list[dict[str, Any]]:
    """The probability of class 0 by teacher and student where the teacher is wrong about it.

    Runs without such errors are left out. With ``running`` each γ includes the runs of all smaller ones, as in the
    authors' code.
    """
    usable = [row for row in rows if row.get("errors")]
    modes = list(dict.fromkeys(row["name"] for row in usable))
    named = [(name, "student", name, "method") for name in modes]
    # the teacher is the same in all modes, so its probabilities are taken from the rows of the first
    named = [(modes[0], "teacher", "teacher", "teacher"), *named] if modes else []
    scored_rows = []
    for gamma in sorted({row["gamma"] for row in usable}):
        for mode, side, name, role in named:
            of_mode = [row for row in usable if row["name"] == mode]
            included = [row for row in of_mode if row["gamma"] == gamma or (running and row["gamma"] < gamma)]
            scores = [{"probability": row["errors"][side][0]} for row in included]
            common = {"gamma": gamma, "name": name, "role": role}
            scored_rows += [{**common, "seed": number, "test": score} for number, score in enumerate(scores)]
    return scored_rows


def claims(modes: Sequence[str], sweep: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the hypothesis: gains at both ends, and by how much the sample mask improves them."""
    gains = {
        mode: [100 * point["mean"] for point in difference["points"]]
        for mode, difference in zip(modes, sweep["differences"], strict=True)
    }
    figures: dict[str, float] = {}
    for mode, values in gains.items():
        falls = [before - after for before, after in itertools.pairwise(values) if after < before]
        figures |= {f"{mode} gain.first": values[0], f"{mode} gain.last": values[-1]}
        figures[f"{mode} gain.largest fall"] = max(falls, default=0.0)
        if f"{mode}_pssm" in gains:
            lifts = [masked - plain for masked, plain in zip(gains[f"{mode}_pssm"], values, strict=True)]
            figures |= {f"{mode} lift.first": lifts[0], f"{mode} lift.last": lifts[-1]}
    return figures


def rises(sweep: Mapping[str, Any]) -> dict[str, float]:
    """How often each distance rises along γ, although it should fall."""
    values = {series["name"]: [point["mean"] for point in series["points"]] for series in sweep["series"]}
    return {
        f"rises of cmd {name}": float(sum(after > before for before, after in itertools.pairwise(means)))
        for name, means in values.items()
    }


def outcome(figures: Mapping[str, float], sweep: Mapping[str, Any]) -> list[str]:
    """Sentences about the result."""
    sentences = []
    for gain in sweep["differences"]:
        mode, ends = gain["name"].removesuffix(" - no-KD"), (gain["points"][0]["x"], gain["points"][-1]["x"])
        first, last = figures[f"{mode} gain.first"], figures[f"{mode} gain.last"]
        along = f"from γ = {ends[0]:.2f} to {ends[1]:.2f}"
        sentences.append(f"{mode}: {along} the gain over no-KD goes from {first:+.2f} to {last:+.2f} points.")
    for key, lift in figures.items():
        if key.endswith(" lift.first"):
            sentences.append(
                f"Leaving out the samples that the teacher gets wrong lifts {key.split()[0]} by {lift:+.2f} points at "
                f"γ = {sweep['differences'][0]['points'][0]['x']:.2f}."
            )
    return sentences

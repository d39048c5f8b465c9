"""Table 2 of the modality focusing hypothesis: a teacher reduced to what both modalities know teaches better.

The teacher's modality a holds all decisive channels, the student's b some of them. A teacher that sees only the shared
channels of a (the modality-general, MG, teacher) is ten to twenty points worse, and its student better than that of the
full teacher; with channels chosen at random it is not. The shared channels are known (``gt``) or found by Algorithm 1
(``alg1``): train two networks to agree, and see which channels the agreement hangs on. Half a minute on a CPU.

    xmodal run gauss-removal
    xmodal run gauss-removal --preset table2 --seeds 42-141

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, table 2, and the authors' code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from xmodal.data.gaussian.draws import Design, modify_gamma
from xmodal.engine.progress import Progress
from xmodal.errors import did_you_mean
from xmodal.recipes.settings import Names, Seeds, StudySettings

PRESETS = {
    "script": ("10:5", "10:10", "10:15", "10:20", "10:25", "10:30"),
    "table2": ("30:10", "10:5", "10:10", "10:20", "10:30"),
}
PUBLISHED = {"swapped": True, "replacement": True, "permutations": 100}  # what --as-published sets
WIDTH = 50  # channels of either modality
AT_ONCE = 20  # seeds whose samples are in memory together
TITLES = {
    "gt": "Truly shared channels stay",
    "alg1": "Channels stay that Algorithm 1 finds",
    "random": "Random channels stay",
}


class Settings(StudySettings):
    """Students of a teacher reduced to shared channels, of a full one, and of none."""

    seeds: Seeds = Field(tuple(range(42, 52)), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    mode: Names = Field(
        tuple(TITLES), min_length=1, description="channels that stay: truly shared, by Algorithm 1, random"
    )
    preset: Literal["script", "table2"] = Field("script", description="dims of the authors' script or of the table")
    dims: Names = Field((), description="specific:shared decisive channels, 10:5,10:10; default: those of the preset")
    keep: int | None = Field(
        None, ge=1, le=WIDTH, description="channels that stay; default: as many as are shared (G5)"
    )
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        "exact", description="of Algorithm 1: exact mean, or how many to draw"
    )
    joint_learning_rate: float = Field(0.01, gt=0, description="of Algorithm 1's joint training, momentum 0.9")
    mg_teacher_set: int = Field(2, ge=1, le=2, description="training set of the MG teacher; students use 2 (G4)")
    swapped: bool = Field(False, description="train regular KD with modalities exchanged, as published (G1)")
    replacement: bool = Field(False, description="draw random channels with replacement, as published (G2)")
    as_published: bool = Field(False, description="sets swapped, replacement, and 100 permutations")

    @model_validator(mode="before")
    @classmethod
    def _quirks(cls, given: Any) -> Any:
        quirks = isinstance(given, Mapping) and given.get("as_published") is True
        return {**PUBLISHED, **given} if quirks else given

    @field_validator("mode")
    @classmethod
    def _known(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        for mode in modes:
            if mode not in TITLES:
                raise ValueError(f"there is no mode '{mode}'. {did_you_mean(mode, TITLES)}")
        return tuple(dict.fromkeys(modes))

    @field_validator("dims")
    @classmethod
    def _readable(cls, dims: tuple[str, ...]) -> tuple[str, ...]:
        seen: dict[float, str] = {}
        for pair in dims:
            specific, colon, shared = pair.partition(":")
            if not (colon and specific.isdecimal() and shared.isdecimal()):
                raise ValueError(f"'{pair}' is no pair of numbers: expected specific:shared, such as 10:5.")
            gamma = modify_gamma(int(specific), int(shared)).gamma  # refuses what doesn't fit
            if gamma in seen:
                raise ValueError(f"'{pair}' and '{seen[gamma]}' have the same γ: means are taken along it. Drop one.")
            seen[gamma] = pair
        return dims

    def kept(self, design: Design) -> int:
        """How many channels stay."""
        return self.keep or len(design.shared)

    @property
    def designs(self) -> list[Design]:
        """Who sees what, for each pair of numbers."""
        return [modify_gamma(*map(int, pair.split(":"))) for pair in self.dims or PRESETS[self.preset]]


def published() -> dict[str, Settings]:
    """The settings behind the reference figures."""
    return {
        "published": Settings(as_published=True),
        "corrected": Settings(),
        "table2": Settings(preset="table2", seeds=tuple(range(42, 142))),
    }


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder and its page, return what `result.json` holds."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.finish import finish, read_references, references_for
    from xmodal.recipes.linear_study import beside_paper, kept_rows, started
    from xmodal.recipes.removal_study import trained
    from xmodal.reports.sweep import summarise_sweep, sweep_figures

    # run folder, and everything that is trained, some seeds at a time
    card, seeds = RECIPES["gauss-removal"], settings.seeds
    out, fabric = started(settings, card.name)
    progress = progress or Progress(quiet=True)
    parts = [seeds[first : first + AT_ONCE] for first in range(0, len(seeds), AT_ONCE)]
    widths = {settings.kept(design) for design in settings.designs}
    progress.fits = len(parts) * (4 + len(widths) + ("alg1" in settings.mode))
    rows = []
    for part in parts:
        make = functools.partial(trained, settings, part, progress)
        rows += kept_rows(out, f"seeds-{part[0]}-{part[-1]}", make)

    # means along γ for each way to choose channels, beside the paper's
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
    found = {key: value for mode, sweep in sweeps.items() for key, value in sweep_figures(sweep, f"{mode} ").items()}
    if settings.preset == "table2" and "gt" in sweeps:
        beside_paper(sweeps["gt"], read_references(card.references), "table2/gt ")
    figures = {**found, **claims(sweeps, rows)}

    # report
    result = {
        "recipe": card.name,
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
        "verdict": said(figures),
    }
    finish(out, result, fabric)
    progress.close()
    return {**result, "folder": str(out)}


def claims(sweeps: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the hypothesis is about, over all γ: the worst of what should help, the best of what should not."""
    found: dict[str, float] = {}
    for mode, sweep in sweeps.items():
        gains, drops = ([100 * point["mean"] for point in one["points"]] for one in sweep["differences"])
        found[f"{mode} smallest loss of the teacher"] = -max(drops)
        found[f"{mode} smallest gain"] = min(gains)
        found[f"{mode} largest gain"] = max(gains)
    for name in ("a", "b"):
        shares: dict[float, list[float]] = {}
        for row in rows:
            if row["name"] == "teacher" and f"found_{name}" in row:
                shares.setdefault(row["gamma"], []).append(row[f"found_{name}"])
        means = {gamma: sum(of) / len(of) for gamma, of in shares.items()}
        found |= {f"found in {name}.{gamma:.2f}": mean for gamma, mean in means.items()}
        if means:
            found[f"smallest share found in {name}"] = min(means.values())
    return found


def said(figures: Mapping[str, float]) -> list[str]:
    """The outcome in sentences."""
    sentences = []
    for mode, words in TITLES.items():
        if f"{mode} smallest gain" in figures:
            loss = figures[f"{mode} smallest loss of the teacher"]
            least, most = figures[f"{mode} smallest gain"], figures[f"{mode} largest gain"]
            sentences.append(
                f"{words}: the teacher loses at least {loss:.1f} points, and its student's gain over regular KD is "
                f"{least:+.1f} to {most:+.1f} points."
            )
    if "smallest share found in a" in figures:
        shares = [100 * figures[f"smallest share found in {name}"] for name in ("a", "b")]
        sentences.append(
            f"Algorithm 1 finds at least {shares[0]:.0f} % of the shared channels of a, and {shares[1]:.0f} % of b."
        )
    return sentences

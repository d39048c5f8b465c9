"""Does a face network learn more from audio through the channels that both modalities share? MFH and NTDH on RAVDESS.

Teacher: audio; student: image. Both are trained jointly, the teacher's channels are ranked (`ravdess-saliency`), and
students learn from that teacher alone, not from labels, with three quarters of its channels removed: random ones, the
least salient (general), the most salient (specific), or none. The authors expect general to be best; the page tests
that against each of the others, seed by seed. Every seed has its own pair of networks, unless ``--saliency`` names a
run with a single one, as in the authors' code.

On synthetic data with small networks 20 s for each seed on a CPU; the published networks need a GPU.

    xmodal run ravdess --ravdess.root DIR --preset mfh-small
    xmodal run ravdess --ravdess.root DIR --saliency RUN --mode none,random,general,specific --ratio 0.75
    xmodal run ravdess --ravdess.root DIR --preset ntdh --loss kl,hint,rkd,pkt,similarity,dkd
    xmodal run ravdess --ravdess.root DIR --teacher-weights teacher_mod_1.pkl

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; Chen et al.: Non-target Divergence
Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator

from xmodal.engine.progress import Progress
from xmodal.flags import Flag
from xmodal.methods import METHODS
from xmodal.recipes.ravdess.saliency import described_ranking
from xmodal.recipes.ravdess.settings import RavdessSettings
from xmodal.study.channels import (
    EXPECTED,
    LOSSES,
    PUBLISHED_LOSSES,
    expected_best,
    known_modes,
    measure_teachers,
    removal,
    row_name,
    teachers_table,
)
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Entry, open_seed
from xmodal.study.seeds import each_seed
from xmodal.study.settings import Names

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.methods.mfh import MFH
    from xmodal.study.bench import Earlier

NTDH = {"loss": ("hint",), "fill": "zero"}


class Settings(RavdessSettings):
    """Students of images that learn from some channels of an audio teacher, on RAVDESS."""

    # the presets of the joint training, with the loss of each code; small networks learn nothing from an eighth of it
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**values, **(NTDH if name.startswith("ntdh") else {"loss": ("kl:1",)} if values else {})}
        for name, values in RavdessSettings.PRESETS.items()
    }

    mode: Names = Field(
        ("none", "random", "general", "specific"),
        min_length=1,
        description="which channels stay, or -1, 0, 1, 2; none: all of them",
    )
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels to remove")
    fill: Literal["mean", "batch_mean", "zero"] = Field("mean", description="value in place of a removed channel")
    # KL divided by the number of classes, 8: the authors' code takes the mean over all elements (`KLDivLoss`)
    loss: Names = Field(
        ("kl:0.125",),
        min_length=1,
        description="losses of `xmodal list losses`, a table row each, sums written with +; with the presets ntdh, "
        f"{', '.join(LOSSES)} are those of the authors' code",
    )
    temperature: float = Field(1.0, gt=0, description="temperature of the logits of teacher and student")
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation loss")
    task_weight: float = Field(0.0, ge=0, description="weight of the loss of the labels")
    saliency: Path | None = Field(
        None, description="run of ravdess-saliency, or the authors' results folder; None: train and rank here"
    )
    teacher_weights: Annotated[Path | None, Flag(metavar="FILE")] = Field(
        None, description="teacher that was trained alone: weights of the authors' code (.pkl) or ours (.safetensors)"
    )
    joint: bool = Field(True, description="use the teacher of the joint training; --no-joint: one trained alone")
    metric: str = Field("", description="metric to compare; default: the one that selects the epoch")

    @field_validator("mode")
    @classmethod
    def _modes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_modes(names)

    def terms(self, loss: str) -> tuple[str, ...]:
        """The terms of the loss of a row."""
        if self.preset.startswith("ntdh") and loss in LOSSES:
            return (PUBLISHED_LOSSES if self.as_published else LOSSES)[loss]
        return tuple(part.strip() for part in loss.split("+"))

    @property
    def ranked(self) -> bool:
        """Whether a mode needs the ranking of the channels."""
        return bool({"general", "specific"} & {*self.mode})

    @property
    def alone(self) -> bool:
        """Whether the teacher does not come out of a joint training of this library: its student is not known then."""
        authors = self.saliency is not None and not (self.saliency / "settings.json").is_file()
        return not self.joint or self.teacher_weights is not None or authors

    def comparison(self) -> Comparison:
        """Every loss with every mode."""
        shared = {
            "temperature": self.temperature,
            "layer": self.layer,
            "fill": "batch_mean" if self.as_published and self.fill == "mean" else self.fill,
            "distance": self.distance,
            "permutations": self.permutations,
            "joint": not self.alone,
            "kd_weight": self.kd_weight,
            "task_weight": self.task_weight,
        }
        entries = [
            Entry(row_name(loss, mode), "mfh", {**shared, "loss": self.terms(loss), **removal(mode, self.ratio)})
            for loss in self.loss
            for mode in self.mode
        ]
        return Comparison(
            plan=self.plan(),
            methods=(METHODS["mfh"],),
            entries=entries,
            metric=self.metric,
            train_teacher=False,
        )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, test the authors' expectation, write the run folder and its page."""
    from xmodal.study.comparison import check, summarised

    with open_study(settings, "ravdess", progress=progress) as study:
        # data of the first seed, networks of another run, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_seed(plan, settings.seeds[0])
        earlier = [earlier_networks(settings, seed) for seed in settings.seeds]
        comparison = check(comparison, first, study.fabric, earlier=earlier[0])
        study.start(fits=len(settings.seeds) * comparison.fits(few=bool(first.info.labelled)))

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        rankings: list[dict[str, Any]] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison):
            rows += found["rows"]
            notes += found["notes"]
            rankings += found["ranking"]

        # report
        notes += notes_on_networks(settings, rankings)
        result = summarised(comparison, first, rows, notes, title="Channels of a teacher on RAVDESS")
        result["expectations"] = expectations(result, settings)
        result["tables"] = [teachers_table(rows, ratios=[settings.ratio], place=settings.place)]
        # marked at both ends of the plot: the share that stays; above one half the two ends would overlap
        share = 1 - settings.ratio if settings.ratio >= 0.5 else 0.25
        result |= {"ranking": described_ranking(settings, share, rankings)} if rankings else {}
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Joint training, ranking and a student for each choice of channels; then the scores."""
    from xmodal.study.comparison import train

    bench = study.bench(comparison.plan, data, seed, earlier=earlier_networks(settings, seed))
    notes = train(bench, comparison)
    rows = bench.score()
    measure_teachers(bench, rows)
    # all rows of a seed have the same ranking, or none
    findings = cast("MFH", bench.runs[comparison.entries[0].name].method).findings
    ranking = {"seed": seed, "value": findings["saliency"], "note": findings["note"]}
    return {"rows": rows, "notes": notes, "ranking": [ranking] if findings["saliency"] else []}


def earlier_networks(settings: Settings, seed: int) -> Earlier | None:
    """Networks and ranking of another run, or the teacher of a file; None if neither is named."""
    if settings.saliency is None and settings.teacher_weights is None:
        return None
    from xmodal.recipes.ravdess.authors_files import earlier_seed, earlier_teacher

    if settings.alone:
        return earlier_teacher(settings, settings.saliency, settings.teacher_weights, ranked=settings.ranked)
    return earlier_seed(cast("Path", settings.saliency), seed, settings)


def notes_on_networks(settings: Settings, rankings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about the origin of the networks, and its consequence for the intervals."""
    notes = []
    if settings.teacher_weights is not None:
        notes.append(f"The teacher was taken from {settings.teacher_weights}.")
    if settings.saliency is not None:
        taken = "The ranking was" if settings.teacher_weights else "Both networks and the ranking were"
        if settings.alone and not settings.teacher_weights:
            taken = f"The teacher{' and the ranking' * bool(rankings)} were" if rankings else "The teacher was"
        notes.append(f"{taken} taken from {settings.saliency}.")
    if settings.alone and len(settings.seeds) > 1 and (settings.saliency or settings.teacher_weights):
        notes.append("All seeds share one teacher: intervals leave out the variation of its training.")
    elif len(rankings) > 1 and all(ranking["value"] == rankings[0]["value"] for ranking in rankings):
        notes.append("All seeds share one pair of networks: intervals leave out the variation of the joint training.")
    return notes


def expectations(result: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """The authors' expectation for each loss, and its tests."""
    tests = []
    for loss in settings.loss if "general" in settings.mode else ():
        others = [mode for mode in ("specific", "random", "none") if mode in settings.mode]
        tests += expected_best(
            result,
            title=f"General against the others, {loss}",
            who=f"The authors expect ({loss})",
            what=EXPECTED,
            best=row_name(loss, "general"),
            over=[row_name(loss, mode) for mode in others],
        )
    return tests

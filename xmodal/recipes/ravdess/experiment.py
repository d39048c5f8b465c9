"""Does a student that sees a face learn more from a voice when it hears what both of them know? MFH on RAVDESS.

Teacher: sound; student: picture. Both are trained jointly, the teacher's channels are ranked (`ravdess-saliency`), and
students learn from that teacher alone, not from labels, with three quarters of its channels removed: random ones, the
least salient (general), the most salient (specific), or none. The authors expect general to be best; the page tests
that against each of the others, seed by seed. Every seed has its own pair of networks, unless ``--saliency`` names a
run with a single one, as in the authors' code.

On made data with small networks 20 s for each seed on a CPU; the published networks need a GPU.

    xmodal run ravdess --ravdess.root DIR --preset mfh-small
    xmodal run ravdess --ravdess.root DIR --saliency RUN --mode none,random,general,specific --ratio 0.75
    xmodal run ravdess --ravdess.root DIR --preset ntdh --loss kl,hint,rkd,pkt,similarity,dkd

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; Chen et al.: Non-target Divergence
Hypothesis, 2024, arXiv 2409.02438; read from the authors' codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator

from xmodal.engine.progress import Progress
from xmodal.flags import Flag
from xmodal.recipes.ravdess.saliency import described_ranking
from xmodal.recipes.ravdess.settings import RavdessSettings
from xmodal.study import comparison
from xmodal.study.channels import (
    EXPECTED,
    LOSSES,
    expected_best,
    heard_table,
    known_modes,
    measure_heard,
    removal,
    row_name,
)
from xmodal.study.settings import Names

if TYPE_CHECKING:
    from xmodal.methods.mfh import MFH
    from xmodal.study.bench import Bench, Earlier

NTDH = {"loss": ("hint",), "fill": "zero"}


class Settings(RavdessSettings, comparison.Settings):
    """Students of pictures taught by some channels of a teacher of sounds, on RAVDESS."""

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
    fill: Literal["mean", "batch_mean", "zero"] = Field("mean", description="what stands in for a removed channel")
    loss: Names = Field(
        ("kl:0.125",),
        min_length=1,
        description="losses of `xmodal list losses`, one table row each, + adds several; in the presets ntdh "
        f"{', '.join(LOSSES)} are those of the authors' code",
    )
    temperature: float = Field(1.0, gt=0, description="softening of both sides' answers")
    kd_weight: float = Field(1.0, ge=0, description="weight of the teacher's term")
    task_weight: float = Field(0.0, ge=0, description="weight of the label's term")
    saliency: Path | None = Field(
        None, description="run of ravdess-saliency, or the authors' results folder; None: trained and ranked here"
    )
    # what a comparison has and this recipe fixes
    methods: Annotated[tuple[str, ...], Flag(hidden=True)] = ("mfh",)
    losses: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    vary: Annotated[tuple[str, ...], Flag(hidden=True)] = ()
    sweep: Annotated[str, Flag(hidden=True)] = ""
    shuffled: Annotated[bool, Flag(hidden=True)] = False

    @field_validator("mode")
    @classmethod
    def _modes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_modes(names)

    def asks_teacher(self) -> bool:
        """The teacher comes out of the joint training."""
        return False

    def terms(self, loss: str) -> tuple[str, ...]:
        """The losses of a row."""
        if self.preset.startswith("ntdh") and loss in LOSSES:
            return LOSSES[loss]
        return tuple(part.strip() for part in loss.split("+"))

    def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Every loss with every mode."""
        shared = {
            "temperature": self.temperature,
            "place": self.layer,
            "fill": "batch_mean" if self.as_published and self.fill == "mean" else self.fill,
            "distance": self.distance,
            "permutations": self.permutations,
            "kd_weight": self.kd_weight,
            "task_weight": self.task_weight,
        }
        return [
            (row_name(loss, mode), "mfh", {**shared, "loss": self.terms(loss), **removal(mode, self.ratio)})
            for loss in self.loss
            for mode in self.mode
        ]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train, compare, test what the authors expect, write the run folder and its page."""
    options = {**settings.options, "ravdess": settings.read()}
    rankings: list[dict[str, Any]] = []

    def look(bench: Bench, rows: list[dict[str, Any]], out: Path) -> None:
        measure_heard(bench, rows)
        findings = cast("MFH", bench.runs[settings.entries()[0][0]].method).findings
        rankings.append({"seed": bench.seed, "value": findings["saliency"], "note": findings["note"]})

    def earlier(seed: int) -> Earlier | None:
        if settings.saliency is None:
            return None
        from xmodal.recipes.ravdess.authors_files import earlier_seed

        return earlier_seed(settings.saliency, seed, settings)

    return comparison.run(
        settings.model_copy(update={"options": options}),
        progress=progress,
        recipe="ravdess",
        look=look,
        complete=lambda found: complete(found, settings, rankings),
        earlier=earlier,
    )


def complete(result: dict[str, Any], settings: Settings, rankings: list[dict[str, Any]]) -> dict[str, Any]:
    """The result with what was expected, what the students heard, and the rankings."""
    notes = list(result["notes"])
    if settings.saliency is not None:
        notes.append(f"Both networks and the ranking were taken from {settings.saliency}.")
    if len(settings.seeds) > 1 and all(one["value"] == rankings[0]["value"] for one in rankings):
        notes.append("All seeds share one pair of networks: intervals do not cover what another joint training does.")
    return {
        **result,
        "title": "Channels of a teacher on RAVDESS",
        "expectations": expectations(result, settings),
        "tables": [heard_table(result["rows"], ratios=[settings.ratio], place=settings.place)],
        "ranking": described_ranking(settings, 1 - settings.ratio if settings.ratio >= 0.5 else 0.25, rankings),
        "notes": notes,
    }


def expectations(result: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """The authors' expectation for each loss, and its tests."""
    found = []
    for loss in settings.loss if "general" in settings.mode else ():
        others = [mode for mode in ("specific", "random", "none") if mode in settings.mode]
        found += expected_best(
            result,
            title=f"General against the others, {loss}",
            who=f"The authors expect ({loss})",
            what=EXPECTED,
            best=row_name(loss, "general"),
            over=[row_name(loss, mode) for mode in others],
        )
    return found

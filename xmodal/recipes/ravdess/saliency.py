"""Which channels of an audio network carry what a face shows as well? Algorithm 1 of MFH on RAVDESS.

For every seed two fresh networks, for audio and image, are trained jointly: each to classify, both to agree. Then one
channel of the teacher at a time is permuted over the training clips; its saliency is the loss of agreement. The plot on
the page is the one that the authors' `utils/helper.py` draws: by channel, and sorted, with the lowest and the highest
share marked. In the authors' plot (place 5, 10 permutations) one channel has saliency 1, two are above 0.5, a dozen
above 0.2, and more than half below 0.05. The test split is not read.

On synthetic data with small networks about 5 s for each seed on a CPU; the published networks need a GPU.

    xmodal data make ravdess RAW --format raw && xmodal data prepare ravdess RAW DIR --frames 64 --height 32 --width 64
    xmodal run ravdess-saliency --ravdess.root DIR --preset mfh-small --place 5 --permutations 10

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; numbers from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from xmodal.engine.progress import Progress
from xmodal.recipes.ravdess.settings import RavdessSettings
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Plan, open_seed
from xmodal.study.seeds import each_seed
from xmodal.study.settings import Seeds

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.diagnostics.saliency import Saliency
    from xmodal.methods.joint import Joint
    from xmodal.study.bench import Bench, Earlier


class Settings(RavdessSettings):
    """Joint training of audio and image, and the saliency of each channel of the teacher."""

    seeds: Seeds = Field((0,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    share: float = Field(0.25, ge=0, le=0.5, description="share of the channels that is marked at either end")
    networks: Path | None = Field(
        None, description="run, or the authors' results folder, whose networks are ranked; None: they are trained"
    )
    published_files: bool = Field(False, description="also write the weights as the authors' .pkl files")


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train both networks, rank the channels, write the run folder and its page, and return the result."""
    from xmodal.study.comparison import summarised
    from xmodal.study.rehearsal import Rehearsal

    with open_study(settings, "ravdess-saliency", progress=progress) as study:
        # data of the first seed, networks of another run, and all checks: nothing is written yet
        plan = settings.plan()
        first = open_seed(plan, settings.seeds[0])
        earlier = [earlier_networks(settings, seed) for seed in settings.seeds]
        rank(Rehearsal(first, plan, seed=0, fabric=study.fabric, earlier=earlier[0]), settings)
        study.start(fits=len(settings.seeds))

        # the seeds, one after the other or several at a time; the test split is not read
        seeds = list(each_seed(study, train_seed, plan, settings.seeds, first, settings, plan))

        # report
        notes = [ranking["note"] for ranking in seeds if ranking["note"]]
        title = "Saliency of a teacher's channels on RAVDESS"
        result = summarised(Comparison(plan=plan), first, [], notes, title=title)
        result["ranking"] = described_ranking(settings, settings.share, seeds)
        result["tables"] = [accuracy_table(seeds)]
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, plan: Plan) -> dict[str, Any]:
    """Joint training and ranking of a seed, with the files of both."""
    bench = study.bench(plan, data, seed, earlier=earlier_networks(settings, seed))
    joint, saliency = rank(bench, settings)
    accuracy = {name: scores["accuracy"] for name, scores in bench.validate(joint).items()}
    if study.first:
        write_files(study.folder / f"seed-{seed}", joint, saliency, settings)
    return {"seed": seed, "value": saliency.value.tolist(), "note": saliency.note, "accuracy": accuracy}


def earlier_networks(settings: Settings, seed: int) -> Earlier | None:
    """The networks of another run, without their ranking; None if no run is named."""
    if settings.networks is None:
        return None
    from xmodal.recipes.ravdess.authors_files import earlier_seed

    return replace(earlier_seed(settings.networks, seed, settings), measured={})


def rank(bench: Bench, settings: RavdessSettings) -> tuple[Joint, Saliency]:
    """Algorithm 1: the jointly trained networks, and the ranking of the teacher's channels."""
    from xmodal.methods.joint import fit_joint
    from xmodal.methods.mfh import JOINT
    from xmodal.methods.ranking import rank_channels

    joint = fit_joint(bench, agreement="mse", stage=JOINT)
    saliency = rank_channels(
        bench,
        joint.teacher,
        joint.student,
        settings.layer,
        networks=JOINT,
        distance=settings.distance,
        permutations=settings.permutations,
    )
    return joint, saliency


def write_files(folder: Path, joint: Joint, saliency: Saliency, settings: Settings) -> None:
    """Write networks and ranking for `ravdess --saliency`, and the authors' files.

    Args:
        folder: of the seed.
        joint: the trained networks.
        saliency: the ranking of the teacher's channels.
        settings: of the recipe.
    """
    from xmodal.methods.mfh import JOINT
    from xmodal.methods.ranking import name_of_ranking
    from xmodal.models.student_file import save_weights
    from xmodal.recipes.ravdess.authors_files import write_tag, write_weights
    from xmodal.study.ranking_file import write_ranking

    name = name_of_ranking(
        JOINT, settings.layer, distance=settings.distance, disturb="permute", permutations=settings.permutations
    )
    write_ranking(folder, saliency, name)
    write_tag(folder, saliency, settings)
    for side, student in joint.students().items():
        save_weights(folder / f"{side}.safetensors", student.module)
        if settings.published_files:
            write_weights(folder, side, student.needs[0], student.module)


def described_ranking(settings: RavdessSettings, share: float, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the plot on the page, see `reports.ranking`."""
    return {
        "place": settings.place,
        "layer": settings.layer,
        "distance": settings.distance,
        "draws": settings.permutations,
        "share": share,
        "seeds": seeds,
    }


def accuracy_table(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of the accuracies of both networks."""
    return {
        "title": "The two networks of the joint training",
        "header": ["seed", "teacher, accuracy (%)", "student, accuracy (%)"],
        "rows": [
            [str(seed["seed"]), *(f"{100 * seed['accuracy'][side]:.1f}" for side in ("teacher", "student"))]
            for seed in seeds
        ],
        "caption": "Validation split, weights after the last epoch; the test split is not read.",
    }

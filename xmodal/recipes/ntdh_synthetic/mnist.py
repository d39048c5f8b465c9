"""From which channels of a teacher should a student of another modality learn? The masks of NTDH on MNIST and MNIST-M.

The teacher reads noisy grey digits, the student the same digits on coloured backgrounds (or the other way round). Both
are trained jointly, to classify and to agree on the wrong classes; each channel of one layer of the teacher is set to
zero in turn, and is general if that makes the two disagree. Then students learn from that teacher without three
quarters of these channels: random ones (mode 0 of the authors' code), the specific ones, so that the general stay (mode
1), the general ones (mode 2), or none (mode -1). Expected by the hypothesis: general before random before specific.
Result of short runs of the authors' own code: random first. The table has intervals; this recipe assumes no order.

``quick`` runs on scikit-learn's digits in place of MNIST, with smaller networks and a fifth of the noise: about two
minutes on a CPU. ``published`` needs a folder of the real files and a GPU.

    xmodal run ntdh-mnist
    xmodal run ntdh-mnist --preset published --mnist.root DIR --distill kl,hint,rkd,pkt,similarity,dkd
    xmodal run ntdh-mnist --preset published --mnist.root DIR --until saliency --published-files --out RUN
    xmodal run ntdh-mnist --preset published --mnist.root DIR --saliency RUN --modes general

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xmodal.engine.progress import Progress
from xmodal.recipes.ntdh_synthetic.mnist_settings import MnistSettings
from xmodal.study.channels import measure_teachers, teachers_table
from xmodal.study.drawing import drawing
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, open_seed
from xmodal.study.seeds import each_seed

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.methods.ntdh import NTDH
    from xmodal.study.bench import Bench, Earlier

Settings = MnistSettings
HEAT_MAPS = "heat_maps.npz"


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, measure each teacher, draw its heat maps, write the run folder and its page."""
    from xmodal.study.comparison import check, summarised

    with open_study(settings, "ntdh-mnist", progress=progress) as study:
        # data of the first seed, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_seed(plan, settings.seeds[0])
        earlier = [earlier_networks(settings, seed) for seed in settings.seeds]
        comparison = check(comparison, first, study.fabric, earlier=earlier[0])
        fits = comparison.fits(few=bool(first.info.labelled)) if settings.until == "students" else 1
        study.start(fits=len(settings.seeds) * fits)

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        rankings: list[dict[str, Any]] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison):
            rows += found["rows"]
            notes += found["notes"]
            rankings += found["rankings"]

        # report
        stand_in = "" if first.source["options"]["root"] else ", stand-in digits"
        result = summarised(comparison, first, rows, notes, title=f"NTDH on MNIST and MNIST-M{stand_in}")
        if rows:
            result["tables"] = [teachers_table(rows, ratios=[settings.ratio], place=settings.place)]
        if rankings:
            result["ranking"] = described_ranking(settings, rankings)
            result["tables"] = [networks_table(rankings)]
        if (study.folder / HEAT_MAPS).is_file():
            result["heat_maps"] = described_heat_maps(settings)
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Joint training, ranking and a student for each choice of channels; then the scores and, once, the heat maps."""
    from xmodal.study.comparison import train

    bench = study.bench(comparison.plan, data, seed, earlier=earlier_networks(settings, seed))
    if settings.until == "saliency":
        return {"rows": [], **rank(bench, settings)}
    notes = train(bench, comparison)
    write_files(bench, settings)
    rows = bench.score()
    measure_teachers(bench, rows)
    if seed == settings.seeds[0] and study.first:
        with drawing(notes, "Heat maps"):
            draw_heat_maps(bench, settings, study.folder / HEAT_MAPS)
    return {"rows": rows, "notes": notes, "rankings": []}


# ---- joint training and ranking alone, and the authors' files


def earlier_networks(settings: Settings, seed: int) -> Earlier | None:
    """Networks and ranking of another run, or of the authors' results folder; None if neither is named."""
    if settings.networks is None and settings.saliency is None:
        return None
    from xmodal.recipes.ntdh_synthetic.mnist_files import read_earlier

    return read_earlier(settings, seed)


def rank(bench: Bench, settings: Settings) -> dict[str, Any]:
    """Joint training and ranking of a seed, and its files; no student is trained."""
    from xmodal.methods.joint import fit_joint
    from xmodal.methods.ntdh import joint_stage, ranking_options
    from xmodal.methods.ranking import rank_channels

    masks = settings.masks()
    joint = fit_joint(bench, agreement=masks.agreement, stage=joint_stage(masks))
    saliency = rank_channels(bench, joint.teacher, joint.student, masks.layer, **ranking_options(masks))
    accuracy = {name: scores["accuracy"] for name, scores in bench.validate(joint).items()}
    write_files(bench, settings)
    ranking = {"seed": bench.seed, "value": saliency.value.tolist(), "note": saliency.note, "accuracy": accuracy}
    return {"rankings": [ranking], "notes": [saliency.note] if saliency.note else []}


def write_files(bench: Bench, settings: Settings) -> None:
    """Write the authors' files of a seed, where they are asked for."""
    if settings.published_files and bench.folder is not None and bench.fabric.global_rank == 0:
        from xmodal.recipes.ntdh_synthetic.mnist_files import write_published

        write_published(bench, settings)


def described_ranking(settings: Settings, rankings: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the plot on the page, see `reports.ranking`."""
    masks = settings.masks()
    return {
        "place": settings.place,
        "layer": masks.layer,
        "distance": masks.agreement,
        "draws": masks.permutations if masks.disturb == "permute" else 1,
        "share": min(settings.ratio, 1 - settings.ratio),
        "seeds": rankings,
    }


def networks_table(rankings: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of the accuracies of the two networks of each joint training."""
    return {
        "title": "The two networks of the joint training",
        "header": ["seed", "teacher, accuracy (%)", "student, accuracy (%)"],
        "rows": [
            [str(seed["seed"]), *(f"{100 * seed['accuracy'][side]:.1f}" for side in ("teacher", "student"))]
            for seed in rankings
        ],
        "caption": "Validation split, weights after the last epoch.",
    }


# ---- heat maps


def described_heat_maps(settings: Settings) -> dict[str, Any]:
    """File, title and caption of the heat maps, for the page."""
    return {
        "file": HEAT_MAPS,
        "modality": settings.teacher[0],
        "names": settings.heat_map_names(),
        "title": "Where the teacher looks",
        "caption": "Absolute gradient of the teacher's loss at each pixel, scaled from 0 to 1 in each image; "
        f"validation digits, seed {settings.seeds[0]}.",
    }


def draw_heat_maps(bench: Bench, settings: Settings, path: Path) -> None:
    """Write heat maps of the teacher of each mode, for a validation digit of every class."""
    import numpy as np

    from xmodal.diagnostics.heat_map import heat_maps, one_of_each
    from xmodal.files import written_whole

    (modality,), digits = bench.teaching, one_of_each(bench.batches("valid"))
    maps = []
    for name in settings.heat_map_names():
        with cast("NTDH", bench.runs[name].method).heard() as teacher:
            maps.append(heat_maps(teacher, digits, modality).value)
    # the pictures as they were before normalisation
    mean, std = bench.info.normalisation[modality].tensors()
    with written_whole(path) as file:
        np.savez(
            file,
            pictures=(digits.inputs[modality] * std + mean).numpy().astype(np.float32),
            labels=digits.target.numpy(),
            maps=np.stack(maps).astype(np.float32),
        )

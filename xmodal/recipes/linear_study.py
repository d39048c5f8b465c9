"""What the Gaussian recipes share: linear networks with given initial weights, their training and their scores.

The authors' protocol: one affine layer per network, PyTorch's own initial weights in a fixed order, full-batch gradient
descent, test accuracy after the last step. Students learn

    L = CE(z, y) + KL_mean,    KL_mean = 1/(n K) Σ_n Σ_k p_nk (log p_nk - log q_nk)

which divides by all elements, so that with K = 2 classes it is half of the divergence (`StudySettings.kl_reduction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.engine.launch import launch
from xmodal.engine.run_folder import choose_folder, open_folder, restore_threads
from xmodal.engine.settings import MachineSettings
from xmodal.files import read_json, write_json
from xmodal.methods.kd import KD
from xmodal.models.network import build_for
from xmodal.recipes.finish import Reference
from xmodal.recipes.settings import StudySettings
from xmodal.reports.tables import in_percent
from xmodal.types import DataInfo, Student

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def started(settings: StudySettings, recipe: str) -> tuple[Path, Fabric]:
    """The run folder, opened, and the device: a CPU, on which such small models are at home."""
    fabric = launch(MachineSettings(accelerator="cpu", threads=settings.threads))
    out = choose_folder(settings.out, recipe, fabric, resume=settings.resume)
    open_folder(out, {"recipe": recipe, "settings": settings.described()}, resume=settings.resume)
    if settings.resume:
        restore_threads(out)
    return out, fabric


@contextmanager
def torch_stream(seed: int) -> Iterator[None]:
    """A block whose initial weights come from this seed of torch; afterwards its generator goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def linear(info: DataInfo, modality: str) -> Student:
    """A fresh affine layer on one modality: weights are drawn first, the bias second."""
    return build_for(info, [modality], encoder="linear")


def distillation(student: Student, teacher: Student, info: DataInfo, settings: StudySettings) -> KD:
    """A student that learns the labels and the answers of a finished teacher."""
    return KD(
        student,
        teacher.module,
        info,
        losses=("kl",),
        temperature=1.0,
        kd_weight=1.0 if settings.kl_reduction == "batchmean" else 1.0 / info.classes,
        task_weight=float(settings.kd_labels),
    )


@torch.no_grad()
def accuracy(student: Student, data: Data) -> float:
    """Share of the test split that a student gets right."""
    (test,) = in_order(data.test, batch_size=len(data.test))
    right = student.module({name: test.input(name) for name in student.needs}).argmax(dim=1) == test.target
    return float(right.double().mean())


def kept_rows(out: Path, name: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of one part of a study: made and written, or read back where a run is resumed."""
    file = out / "rows" / f"{name}.json"
    if not file.exists():
        write_json(file, {"rows": make()})
    rows: list[dict[str, Any]] = read_json(file)["rows"]
    return rows


def beside_paper(sweep: dict[str, Any], references: Sequence[Reference], prefix: str = "") -> dict[str, Any]:
    """A sweep with the paper's points of its series, as far as the references hold them."""
    known = {reference.key: reference for reference in references if reference.paper is not None}
    scale = 100.0 if in_percent(sweep["metric"]) else 1.0
    for one in sweep["series"]:
        keys = {point["x"]: f"{prefix}{one['name']}.{point['x']:.2f}" for point in one["points"]}
        found = {x: known[key] for x, key in keys.items() if key in known}
        points = [{"x": x, "mean": (reference.paper or 0.0) / scale} for x, reference in found.items()]
        if points:
            source = next(iter(found.values())).source
            sweep["published"].append({"name": one["name"], "source": source, "points": points})
    return sweep


def row(name: str, role: str, seed: int, scores: Mapping[str, float], **facts: Any) -> dict[str, Any]:
    """One network of one seed, as `result.json` holds it."""
    return {"seed": seed, "name": name, "role": role, **facts, "test": dict(scores)}

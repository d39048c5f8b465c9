"""Fits on one or two processes, with all that makes them differ when done carelessly, and writes the weights.

python two_processes.py OUT DEVICES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from dense_processes import score_points, train_scenes, train_streams
from lightning_fabric import Fabric
from networks import image_student, pictures, vector_student
from torch import Tensor, nn

from xmodal import files
from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.data.labels import hide_labels
from xmodal.data.loader import Pick
from xmodal.engine import teacher_cache
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings, MachineSettings, Precision
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.methods.terms import Term
from xmodal.models.network import Reads
from xmodal.models.student_file import save_weights
from xmodal.types import Batch, DataInfo, Step, Student


class Masked:
    """A training split in which every third sample does not count."""

    def __init__(self, split: object) -> None:
        self.split = split

    def __getattr__(self, name: str) -> object:
        return getattr(self.split, name)

    def reading(self, names: object) -> Masked:
        # without this, a view for the training would be one without the mask
        return Masked(self.split.reading(names))  # type: ignore[attr-defined]

    def __getitem__(self, pick: Pick) -> Batch:
        batch: Batch = self.split[pick]  # type: ignore[index]
        valid = batch.index["image"] % 3 != 0
        batch.valid = dict.fromkeys(batch.inputs, valid)
        return batch


class Mixing(KD):
    """KD plus a term that mixes samples, on rows gathered from all processes."""

    def training_step(self, batch: Batch, teacher_outputs: dict[str, Tensor]) -> Step:  # type: ignore[override]
        step = super().training_step(batch, teacher_outputs)
        rows = self.gather(self.network({"image": batch.inputs["image"]}))
        step.losses["spread"] = 0.1 * torch.cdist(rows, rows).mean()
        step.counts["spread"] = len(rows)
        return step


class Trusting(KD):
    """KD that counts some samples only: a third of them not, and another third by half."""

    def weigh(self, term: Term, student: object, teacher: object, batch: Batch) -> Tensor:
        return batch.index["image"] % 3 / 2.0


def two_steps_of_every_mixing_loss(fabric: Fabric, out: Path) -> None:
    """Two updates with each loss that compares samples with one another, all counting and some."""
    for name, card in LOSSES.items():
        if card.samples == "pointwise" and "memory" not in card.needs:
            continue
        for kind in (KD, Trusting):
            data = pictures()
            options = DistillationOptions(losses=(name,))
            method = kind(image_student(dropout=0.0), vector_student().module, data.info, options)
            # 131 rows: 67 and 64; clipped, since rounding errors grow with the weight of a term (pkt: 30000)
            settings = FitSettings(epochs=1, batch_size=67, optimizer="sgd", learning_rate=0.01, clip=1.0)
            run = fit(method, data, settings, seed=5, fabric=fabric)
            if fabric.global_rank == 0:
                save_weights(out / f"{name}-{kind.__name__}.safetensors", run.method)


def train_with_answers_on_disk(fabric: Fabric, out: Path) -> None:
    """One epoch from a table that all processes have written together, in blocks of 40, the last one short."""
    teacher_cache.BLOCK, before = 40, teacher_cache.BLOCK
    data = pictures()
    method = KD(image_student(dropout=0.0), vector_student().module, data.info)
    settings = FitSettings(epochs=1, batch_size=25, optimizer="sgd", learning_rate=0.05, cache="disk")
    run = fit(method, data, settings, seed=5, fabric=fabric, folder=out / "disk", teacher_disk=out / "answers")
    teacher_cache.BLOCK = before
    if fabric.global_rank == 0:
        save_weights(out / "disk.safetensors", run.method)


def train_with_few_labels(fabric: Fabric, out: Path) -> None:
    """Seven labelled rows in every batch, four in one process and three in the other; and labelled rows alone."""
    data = hide_labels(pictures(), labelled="7", valid_labels="all")
    # by row, of gathered rows, and of rows with a label alone
    options = DistillationOptions(losses=("kl", "rkd_distance:0.5", "dkd:0.5"))
    kd = KD(image_student(dropout=0.0), vector_student().module, data.info, options)
    settings = FitSettings(epochs=2, batch_size=25, optimizer="sgd", learning_rate=0.05, accumulate=2)
    for name, method in (("few-kd", kd), ("few-labels", Supervised(vector_student(), data.info))):
        run = fit(method, data, settings, seed=5, fabric=fabric)
        if fabric.global_rank == 0:
            save_weights(out / f"{name}.safetensors", run.method)


def train_with_gaps(fabric: Fabric, out: Path) -> None:
    """Pictures with a label, pairs with and without one, vectors alone: every process has some of each kind."""
    whole = pictures()
    rows = np.arange(131)
    vector = np.where((rows % 5 == 0)[:, None], np.nan, whole.train.columns["vector"][rows])
    image = np.where((rows % 7 == 1)[:, None, None, None], np.nan, whole.train.columns["image"][rows])
    target = np.where(rows % 3 == 2, -1, whole.train.targets["image"].numpy())
    train = rows[(rows < 100) & ((rows % 5 != 0) | (rows % 7 != 1))]
    scored = rows[(rows % 5 != 0) & (rows % 7 != 1) & (rows % 3 != 2) & (rows >= 100)]
    splits = {"train": train, "valid": scored[::2], "test": scored[1::2]}
    data = from_arrays({"vector": vector, "image": image}, target, splits=splits)
    options = DistillationOptions(losses=("kl", "rkd_distance:0.5", "dkd:0.5"))
    teacher = Reads(vector_student().module.net, ("vector",))
    kd = KD(image_student(dropout=0.0), teacher, data.info, options)
    settings = FitSettings(epochs=2, batch_size=25, optimizer="sgd", learning_rate=0.05, accumulate=2)
    for name, method in (("gaps-kd", kd), ("gaps-labels", Supervised(vector_student(), data.info))):
        run = fit(method, data, settings, seed=5, fabric=fabric)
        if fabric.global_rank == 0:
            save_weights(out / f"{name}.safetensors", run.method)


def train_in_64_bits(fabric: Fabric, out: Path) -> None:
    """Large steps of a rule that divides by tiny numbers: what rounding in 32 bits makes of them differs soon."""
    each: tuple[Precision, ...] = ("32-true", "64-true")
    for precision in each:
        data = pictures()
        method = KD(image_student(dropout=0.0), vector_student().module, data.info)
        settings = FitSettings(epochs=4, batch_size=25, optimizer="adamw", learning_rate=0.05, precision=precision)
        run = fit(method, data, settings, seed=5, fabric=fabric)
        seen = data.doubled() if precision == "64-true" else data
        scores = evaluate(run.students, seen.test, seen.info, fabric=fabric)
        if fabric.global_rank == 0:
            save_weights(out / f"{precision}.safetensors", run.method)
            files.write_json(out / f"{precision}.json", {"scores": scores, "history": run.history})


class Idle(Supervised):
    """A layer that no step uses."""

    def __init__(self, student: Student, info: DataInfo) -> None:
        super().__init__(student, info)
        self.spare = nn.Linear(2, 2)


class SaysSo(Idle):
    """The same, declared."""

    unused_parameters = True


def train_with_unused_parameters(fabric: Fabric, out: Path) -> None:
    """A head that no term reads, and a layer that no step uses, declared and not."""
    data = pictures()
    options = DistillationOptions(
        losses=("hint:0.1",), task_weight=0.0, student_layer=("net.4",), teacher_layer=("net.1",)
    )
    headless = KD(image_student(dropout=0.0), vector_student().module, data.info, options)
    settings = FitSettings(epochs=2, batch_size=25, optimizer="sgd", learning_rate=0.05)
    for name, method in (("headless", headless), ("says-so", SaysSo(vector_student(), data.info))):
        run = fit(method, data, settings, seed=5, fabric=fabric)
        if fabric.global_rank == 0:
            save_weights(out / f"{name}.safetensors", run.method)
    try:
        fit(Idle(vector_student(), data.info), data, settings, seed=5, fabric=fabric)
        sentence = ""
    except InputError as error:
        sentence = str(error)
    if fabric.global_rank == 0:
        files.write_json(out / "idle.json", {"sentence": sentence})


def main(out: Path, devices: int) -> None:
    torch.set_num_threads(1)
    fabric = launch(MachineSettings(accelerator="cpu", devices=devices))
    two_steps_of_every_mixing_loss(fabric, out)
    train_scenes(fabric, out / "dense")
    score_points(fabric, out / "dense")
    train_streams(fabric, out / "dense")
    train_with_answers_on_disk(fabric, out)
    train_in_64_bits(fabric, out)
    train_with_few_labels(fabric, out)
    train_with_gaps(fabric, out)
    data: Data = pictures()
    data.train = Masked(data.train)  # type: ignore[assignment]
    # a term of every kind: by row, of gathered rows, with a trained adaptor
    options = DistillationOptions(
        losses=("kl", "rkd_distance:0.5", "hint:0.1"),
        temperature=2.0,
        student_layer=("net.5",),
        teacher_layer=("net.1",),
    )
    method: Method = Mixing(image_student(dropout=0.0), vector_student().module, data.info, options)
    settings = FitSettings(epochs=4, batch_size=25, optimizer="sgd", learning_rate=0.05, clip=1.0, accumulate=2)
    run = fit(method, data, settings, seed=5, fabric=fabric, folder=out / "run")
    outputs: dict[str, dict[str, Tensor]] = {}
    scores = evaluate(run.students, data.test, data.info, fabric=fabric, full=True, outputs=outputs)
    if fabric.global_rank == 0:
        save_weights(out / "last.safetensors", run.method)
        save_weights(out / "best.safetensors", run.students["image"].module)
        files.write_json(out / "scores.json", {"test": scores, "history": run.history})
        files.write_json(out / "outputs.json", {"outputs": outputs["image"]["outputs"].tolist()})
    # last: it leaves a training in the middle of a step
    train_with_unused_parameters(fabric, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Scores on a split: every sample once, in order; each student reads the inputs it needs and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodal.collectives import gather_rows
from xmodal.data.loader import Pick, in_order
from xmodal.data.split import Split
from xmodal.engine.ahead import on_device
from xmodal.losses.reduce import at_least_float32
from xmodal.metrics.counts import on_host
from xmodal.metrics.task import Scores
from xmodal.types import Batch, DataInfo, Student

if TYPE_CHECKING:
    from xmodal.devices import Devices

MetricsFor = Callable[..., Scores]
Predict = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def predictor(students: Mapping[str, Student]) -> Predict:
    """A function that returns the outputs of several students; students whose inputs are absent are left out."""

    def predict(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: student.module({need: inputs[need] for need in student.needs})
            for name, student in students.items()
            if all(need in inputs for need in student.needs)
        }

    return predict


@torch.no_grad()
def evaluate(
    students: Mapping[str, Student],
    split: Split,
    info: DataInfo,
    *,
    fabric: Devices,
    predict: Predict | None = None,
    metrics: MetricsFor = Scores,
    full: bool = False,
    batch_size: int = 512,
    outputs: dict[str, dict[str, Tensor]] | None = None,
    collectors: dict[str, Scores] | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of each student from one pass over a split.

    Args:
        students: by name; their modules are in eval mode.
        split: the samples.
        info: of the data.
        fabric: devices; several processes share the samples.
        predict: inputs → outputs of each student; None: each student's module is called.
        metrics: constructor of the object that collects outputs and computes the metrics.
        full: also compute values per class and confusion matrices.
        batch_size: rows per forward pass, fewer where samples are large.
        outputs: a dictionary to fill with ``index``, ``outputs`` and ``target`` of every student; for dense class
            targets ``outputs`` are the predicted classes.
        collectors: the objects made by ``metrics`` for each student, of an earlier call with the same arguments; an
            empty dictionary is filled. Making some metrics takes longer than computing them.
    """
    predict = predict or predictor(students)
    scores = {} if collectors is None else collectors
    for name in students:
        if name in scores:
            scores[name].reset()
        else:
            scores[name] = metrics(info, full=full, device=fabric.device)
    collected: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in students}
    # the view keeps targets and rows of all modalities, and no column is read that no student needs
    split = split.reading({need for student in students.values() for need in student.needs})
    world = {"rank": fabric.global_rank, "world": fabric.world_size}
    for batch in on_device(in_order(split, batch_size=info.block(batch_size), **world), fabric.device):
        empty = not len(next(iter(batch.index.values())))
        # The last batch may have no row for this process, and not every network takes 0 rows: it gets row 0, whose
        # outputs and targets are removed again before they count.
        if empty:
            batch = split[Pick(dict.fromkeys(batch.index, torch.zeros(1, dtype=torch.long)), None)].to(fabric.device)
        with fabric.autocast():
            predictions = predict(batch.inputs)
        if empty:
            batch = batch.take(slice(0, 0))
            predictions = {name: prediction[:0] for name, prediction in predictions.items()}
        for name, prediction in predictions.items():
            modality = students[name].target
            scores[name].update(prediction, batch.targets[modality], *counting(batch, modality))
            if outputs is not None:
                target = batch.targets[modality]
                # a logit per class and pixel of a whole split would not fit into memory
                if info.dense and info.task == "multiclass":
                    prediction, target = (part.to(small(info)) for part in (prediction.argmax(dim=1), target))
                else:
                    prediction = at_least_float32(prediction)
                collected[name].append((batch.index[modality], prediction, target))
    if outputs is not None:
        for name, parts in collected.items():
            outputs[name] = _joined(parts)
    # unread until all are there
    found: dict[str, dict[str, Any]] = on_host({name: score.values() for name, score in scores.items()})
    return found


def small(info: DataInfo) -> torch.dtype:
    """The smallest type that holds every class, and the number of ignored targets."""
    numbers = [info.classes - 1, *([] if info.ignore is None else [info.ignore])]
    return torch.uint8 if 0 <= min(numbers) and max(numbers) < 256 else torch.int16


def counting(batch: Batch, modality: str) -> tuple[Tensor | None, ...]:
    """Arguments of a metric besides outputs and targets: the mask of valid targets, and the scored regions if any."""
    valid = batch.valid.get(modality)
    return (valid, batch.scored[modality]) if modality in batch.scored else (valid,)


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    index, outputs, target = (gather_rows(torch.cat(column)) for column in zip(*parts, strict=True))
    # processes take turns at the rows, so joined by rank they are not in order
    order = index.argsort()
    return {"index": index[order], "outputs": outputs[order], "target": target[order]}

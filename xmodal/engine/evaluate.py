"""Scores on a split: every sample once, in order, each student fed what it needs and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodal.collectives import gather_rows
from xmodal.data.loader import Pick, in_order
from xmodal.data.split import Split
from xmodal.losses.reduce import at_least_float32
from xmodal.metrics.task import Scores
from xmodal.types import Batch, DataInfo, Student, _parts

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MetricsFor = Callable[..., Scores]
Predict = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def predictor(students: Mapping[str, Student]) -> Predict:
    """Outputs of several students at once; those whose inputs are absent are left out."""

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
    fabric: Fabric,
    predict: Predict | None = None,
    metrics: MetricsFor = Scores,
    full: bool = False,
    batch_size: int = 512,
    outputs: dict[str, dict[str, Tensor]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of each student from one pass over a split.

    Args:
        students: by name; their modules are in eval mode.
        split: which samples.
        info: of the data.
        fabric: devices; several processes share the samples.
        predict: how outputs are made; None: by each student's module.
        metrics: makes the object that collects outputs.
        full: per-class values and confusion matrices too.
        batch_size: rows at a time, fewer where samples are large.
        outputs: a dictionary to fill with ``index``, ``outputs`` and ``target`` of every student; where targets are
            dense classes, ``outputs`` are the classes that were told.
    """
    predict = predict or predictor(students)
    scores = {name: metrics(info, full=full, device=fabric.device) for name in students}
    kept: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in students}
    world = {"rank": fabric.global_rank, "world": fabric.world_size}
    for batch in in_order(split, batch_size=info.block(batch_size), **world):
        empty = not len(next(iter(batch.index.values())))
        if empty:  # no share of a last batch: not every network takes 0 rows, so it sees one that counts nothing
            batch = split[Pick(dict.fromkeys(batch.index, torch.zeros(1, dtype=torch.long)), None)]
        batch = batch.to(fabric.device)
        with fabric.autocast():
            answers = predict(batch.inputs)
        if empty:
            batch = Batch(*({name: part[:0] for name, part in parts.items()} for parts in _parts(batch)))
            answers = {name: answer[:0] for name, answer in answers.items()}
        for name, answer in answers.items():
            modality = students[name].target
            scores[name].update(answer, batch.targets[modality], *counting(batch, modality))
            if outputs is not None:
                whole = info.dense and info.task == "multiclass"  # a score per class and place would be too much
                told = answer.argmax(dim=1).to(torch.int16) if whole else at_least_float32(answer)
                kept[name].append((batch.index[modality], told, batch.targets[modality]))
    if outputs is not None:
        for name, parts in kept.items():
            outputs[name] = _joined(parts)
    return {name: score.compute() for name, score in scores.items()}


def counting(batch: Batch, modality: str) -> tuple[Tensor | None, ...]:
    """What metrics are told besides answers and targets: what is valid, and the regions that are scored if any are."""
    valid = batch.valid.get(modality)
    return (valid, batch.scored[modality]) if modality in batch.scored else (valid,)


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    index, answers, target = (gather_rows(torch.cat(column)) for column in zip(*parts, strict=True))
    order = index.argsort()
    return {"index": index[order], "outputs": answers[order], "target": target[order]}

"""The scoring of SemanticKITTI: every stored point gets a class, from whole images.

    whole image, padded to multiples of 16 ──student──▶ class of each pixel ──▶ class of each stored point
                                                            │                        │
                                                        2-D table         3-D table, <frame>.label

A point takes the class of its pixel, or with ``--knn`` the class that its neighbours vote for (`semantic_kitti.knn`). A
point outside of the image is written as unlabeled (0) and counts in no table: the camera's view contains nothing about
it. Data that was cut to the view (`xmodal data prepare kitti-fov`) has no such points. If the run has a teacher, the
scores include the divergence of each student's outputs from those of its teacher at the labelled pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanMetric

from xmodal.data.base import Data
from xmodal.data.semantic_kitti.classes import raw_classes
from xmodal.data.semantic_kitti.files import Frame
from xmodal.data.semantic_kitti.frames import Drawn, StoredPoints
from xmodal.data.semantic_kitti.knn import knn_classes, measured
from xmodal.data.semantic_kitti.projection import draw
from xmodal.data.semantic_kitti.split import FrameSplit, WholeFrame
from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.losses.divergence import divergence
from xmodal.metrics.segmentation import SegmentationScores
from xmodal.recipes.semantic_kitti.settings import KittiEvaluation
from xmodal.reports.tables import plain_table
from xmodal.study.scoring import Scored
from xmodal.types import DataInfo, Student

if TYPE_CHECKING:
    from xmodal.devices import Devices

PLACES = {"points": "3-D", "pixels": "2-D"}
SHOWN = (  # of all points, in the table of all students
    *("mean_iou", "mean_iou_present", "mean_iou_reference", "weighted_iou", "mean_precision", "mean_recall"),
    "accuracy",
)
GAPS = {"ncjsd": "non_target", "tcjsd": "target"}  # name in the scores → part of the divergence
Classes = NDArray[np.int64]


class Counts:
    """The counts of one student over all frames.

    Args:
        info: of the data.
        options: of the scoring, among them the rule.
        device: of the predictions.
        taught: whether there is a teacher to compare with.
    """

    def __init__(self, info: DataInfo, options: KittiEvaluation, device: torch.device, *, taught: bool) -> None:
        ignore = () if info.ignore is None else (info.ignore,)
        self.tables = {
            place: SegmentationScores(info.classes, ignore=ignore, full=True, rule=options.metric).to(device)
            for place in PLACES
        }
        # the default of torchmetrics drops NaN from the mean, and with it the sign that a network is broken
        self.gaps = {name: MeanMetric(nan_strategy="disable").to(device) for name in GAPS} if taught else {}

    def compare(self, student: Tensor, teacher: Tensor, target: Tensor) -> None:
        """Add the divergence of two outputs at labelled pixels, (pixels, classes) each."""
        for name, part in GAPS.items():
            if len(target) and self.gaps:
                self.gaps[name].update(divergence(student, teacher, target, part=part, form="js", reduction="none"))

    def scored(self, names: tuple[str, ...], title: str) -> Scored:
        """The scores, after every process has counted its frames."""
        # `compute` sums the counts of all processes
        tables = {place: metric.compute() for place, metric in self.tables.items()}
        points = int(np.sum(tables["points"]["confusion"]))
        if not points and not np.sum(tables["pixels"]["confusion"]):
            return Scored()
        scores = {name: tables["points"][name] for name in SHOWN}
        scores["pixel_mean_iou"] = tables["pixels"]["mean_iou"]
        scores |= {name: metric.compute().item() for name, metric in self.gaps.items()}
        return Scored(scores, tables, [title, class_table(tables, names)])


def evaluate(
    students: Mapping[str, Student],
    data: Data,
    split: str,
    options: KittiEvaluation,
    *,
    fabric: Devices,
    folders: Mapping[str, Path],
    teachers: Mapping[str, str],
) -> tuple[dict[str, Scored], list[str]]:
    """Scores and predictions of all students from one pass over whole frames; see `xmodal.study.scoring`."""
    part = data.split(split)
    if not isinstance(part, FrameSplit):
        raise InputError("This data holds no frames of SemanticKITTI, so its points can't be scored.")
    raw, numbers = part.raw(), next(iter(part.numbers.values()))
    counts = {
        key: Counts(data.info, options, fabric.device, taught=key in teachers and teachers[key] in students)
        for key in students
    }
    outside = torch.zeros(2, dtype=torch.long, device=fabric.device)  # points outside of the image; all points
    for row in range(fabric.global_rank, len(numbers), fabric.world_size):
        whole = raw.whole(row)
        stored, seen = whole.points, part.frames.points(int(numbers[row]))
        logits = outputs_of(students, whole, fabric.device)
        target = label_map(seen, stored.size).to(fabric.device)
        ranges = range_map(seen, stored.size) if options.knn else None
        for key, output in logits.items():
            pixel_classes = output.argmax(dim=0)
            point_classes = classes_of_points(pixel_classes, stored, ranges, options)
            counts[key].tables["pixels"].update(pixel_classes, target)
            counts[key].tables["points"].update(*_in_image(point_classes, stored, fabric.device))
            if counts[key].gaps:
                labelled = target != data.info.ignore
                student, teacher = (logits[name].movedim(0, -1)[labelled] for name in (key, teachers[key]))
                counts[key].compare(student, teacher, target[labelled])
            if options.predictions and key in folders:
                write_labels(label_path(folders[key], whole.frame), point_classes)
        outside += torch.tensor([int((~stored.seen).sum()), len(stored.seen)], device=fabric.device)
    out, everything = (int(count) for count in _sum(fabric, outside))
    scored = {key: each.scored(data.info.class_names, _title(options)) for key, each in counts.items()}
    if options.predictions:
        for key, folder in folders.items():
            scored[key].written = folder / "sequences"
    return scored, _notes(scored, out, everything)


def _sum(fabric: Devices, counts: Tensor) -> list[int]:
    total: Any = fabric.all_reduce(counts, reduce_op="sum")
    return [int(count) for count in total]


def _title(options: KittiEvaluation) -> str:
    source = (
        f"{options.knn_neighbours} neighbours of {options.knn_search}x{options.knn_search}" if options.knn else "pixel"
    )
    return f"points by their {source}, {options.metric} rule"


def _notes(scored: Mapping[str, Scored], outside: int, everything: int) -> list[str]:
    notes = []
    if outside:
        notes.append(
            f"{outside} of {everything} points lie outside of the image: written as 0 (unlabeled), counted nowhere. "
            "`xmodal data prepare kitti-fov` makes a copy without such points."
        )
    if not any(each.scores for each in scored.values()):
        notes.append("These frames have no labels, so nothing is scored.")
    return notes


@torch.no_grad()
def outputs_of(students: Mapping[str, Student], whole: WholeFrame, device: torch.device) -> dict[str, Tensor]:
    """Outputs (classes, height, width) of every student for one image, without its padding."""
    inputs = {name: tensor.to(device) for name, tensor in whole.inputs.items()}
    height, width = whole.points.size
    rows, columns = slice(whole.top, whole.top + height), slice(whole.left, whole.left + width)
    return {
        key: student.module({name: inputs[name] for name in student.needs})[0][:, rows, columns].float()
        for key, student in students.items()
    }


def label_map(points: Drawn, size: tuple[int, int]) -> Tensor:
    """Class of each pixel (height, width); 0 without a point or without a label."""
    labels = draw(points["row"], points["col"], points["label"], height=size[0], width=size[1])
    return torch.from_numpy(labels.astype(np.int64))


def range_map(points: Drawn, size: tuple[int, int]) -> Tensor:
    """Range of each pixel (height, width); -1 without a point."""
    drawn = np.ones(len(points), np.bool_)
    ranges, mask = (
        torch.from_numpy(draw(points["row"], points["col"], values, height=size[0], width=size[1]))
        for values in (points["features"][:, 0], drawn)
    )
    return measured(ranges, mask)


def classes_of_points(
    classes: Tensor, stored: StoredPoints, ranges: Tensor | None, options: KittiEvaluation
) -> Classes:
    """The class of every stored point; 0 outside of the image.

    Args:
        classes: of each pixel (height, width).
        stored: the points with their pixels.
        ranges: of each pixel, for a vote of neighbours; None: a point takes the class of its pixel.
        options: of the vote.
    """
    point_classes = np.zeros(len(stored.seen), np.int64)
    rows, columns = (torch.from_numpy(numbers[stored.seen]).long() for numbers in (stored.row, stored.col))
    if ranges is None:
        point_classes[stored.seen] = classes.cpu()[rows, columns].numpy()
        return point_classes
    voted = knn_classes(
        ranges,
        classes.cpu(),
        torch.from_numpy(stored.range[stored.seen]),
        rows,
        columns,
        neighbours=options.knn_neighbours,
        search=options.knn_search,
        sigma=options.knn_sigma,
        cutoff=options.knn_cutoff,
    )
    point_classes[stored.seen] = voted.numpy()
    return point_classes


def _in_image(point_classes: Classes, stored: StoredPoints, device: torch.device) -> tuple[Tensor, Tensor]:
    """Predicted and true classes of the points in the image."""
    labels = stored.labels[stored.seen].astype(np.int64)
    return torch.from_numpy(point_classes[stored.seen]).to(device), torch.from_numpy(labels).to(device)


def label_path(folder: Path, frame: Frame) -> Path:
    """The path at which the benchmark reads the predictions of a frame."""
    return folder / "sequences" / f"{frame.sequence:02d}" / "predictions" / f"{frame.name}.label"


def write_labels(path: Path, classes: Classes) -> None:
    """Write the predicted classes as the data set's own numbers, 32 bits each, in the order of the points."""
    with written_whole(path) as file:
        file.write_bytes(raw_classes(classes).astype("<i4").tobytes())


def class_table(tables: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> str:
    """Points and pixels of each class that is a label or a prediction, with IoU, precision and recall in per cent."""
    counts = {place: np.array(tables[place]["confusion"]) for place in PLACES}
    header = ["class"]
    for place, kind in PLACES.items():
        header += [f"{kind} {column}" for column in (place, "IoU", "precision", "recall")]
    rows = []
    for number, name in enumerate(names):
        # class 0 is unlabeled: it is ignored by both rules
        if number and any(each[number].sum() + each[:, number].sum() for each in counts.values()):
            row = [name]
            for place in PLACES:
                row += [str(counts[place][number].sum())]
                row += [f"{100 * tables[place][metric][number]:.1f}" for metric in ("iou", "precision", "recall")]
            rows.append(row)
    sums = ["all classes"]
    for place in PLACES:
        sums += [str(counts[place].sum())]
        sums += [f"{100 * tables[place][metric]:.1f}" for metric in ("mean_iou", "mean_precision", "mean_recall")]
    return plain_table(header, [*rows, sums])

r"""Scores of scene completion and of semantic scene completion, from one confusion matrix per image.

With K[y, ŷ] the number of voxels of class y that were predicted as ŷ, and class 0 for empty:

$$\text{completion: } tp = \sum_{y, \hat y > 0} K_{y \hat y}, \; fp = \sum_{\hat y > 0} K_{0 \hat y}, \;
fn = \sum_{y > 0} K_{y 0}, \qquad IoU_c = \frac{K_{cc}}{\sum_y K_{yc} + \sum_{\hat y} K_{c \hat y} - K_{cc}}$$

Only voxels of the scored regions count: those hidden behind a surface and those on a surface. Some of the latter have
an unknown label. There are two rules:

| | ours | ``…_reference`` (the published code) |
|---|---|---|
| counts | summed over the whole split | IoU, precision and recall of each image, then means |
| unknown voxels | do not count | in completion, target and prediction are set to empty |
| mean over | classes that occur in the split | ``mean_iou``: the mean of each class over images, then over classes |
| completion | over the split | mean over the images of a batch of 4, then over batches, however small the last one is |

The published code computes the completion score first, and this overwrites unknown voxels of the target by empty ones.
The classes are then scored with the overwritten target: ``mean_iou_reference``. With the original target it would be
``mean_iou_untouched``. ``completion_iou_occluded`` uses hidden voxels only, as SSCNet does. The code here changes none
of its arguments.

References: Song et al.: Semantic Scene Completion from a Single Depth Image, CVPR 2017; code of DDRNet's authors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from xmodal.metrics.segmentation import mean_over

GROUP = 4  # images in a batch of the published evaluation
HIDDEN, SURFACE = 1, 2  # numbers of the scored regions
# The order of the columns in which `SceneScores.update` stores the scores of each image.
COMPLETION = ("completion_precision", "completion_recall", "completion_iou", "accuracy")
NUMBERS = (  # names of the scores that are single numbers
    *COMPLETION,
    *(f"{name}_reference" for name in COMPLETION),
    *("completion_iou_occluded", "accuracy_untouched", "mean_iou", "mean_iou_reference", "mean_iou_untouched"),
)


class SceneScores(Metric):
    """Counts voxels in confusion matrices and computes all scores from them.

    Args:
        classes: number of outputs; the first one is for empty.
        unknown: target value of voxels without a label.
        full: also return lists with a number per class, and the confusion matrix.

    Example:
        >>> metric = SceneScores(3)
        >>> metric.update(torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 1, 1, 255]]))
        >>> scores = metric.compute()
        >>> scores["completion_iou"], scores["mean_iou"], scores["mean_iou_reference"]
        (1.0, 0.5, 0.5)
    """

    full_state_update = False
    counts: Tensor
    sums: Tensor
    occurs: Tensor
    images: list[Tensor]
    numbers: list[Tensor]

    def __init__(self, classes: int, *, unknown: int | None = 255, full: bool = False) -> None:
        super().__init__()
        self.classes, self.unknown, self.full = classes, unknown, full
        self.add_state("counts", torch.zeros(2, classes, classes, dtype=torch.long), dist_reduce_fx="sum")
        # For the overwritten and the original target: IoU of each class summed over images, and the number of images in
        # which the class occurs.
        self.add_state("sums", torch.zeros(2, classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("occurs", torch.zeros(2, classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", [], dist_reduce_fx="cat")
        # For each image the number of its update and its position there. From these all processes restore one order, on
        # which the batches of four depend.
        self.add_state("numbers", [], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, target: Tensor, scored: Tensor | None = None) -> None:
        """Count some images.

        Args:
            predictions: class numbers like the target, or one score per class (images, classes, …).
            target: class numbers (images, …).
            scored: regions like the target, 0 for voxels that do not count; None: all voxels are `SURFACE`.
        """
        if predictions.ndim == target.ndim + 1:
            predictions = predictions.argmax(dim=1)
        regions = torch.full_like(target, SURFACE) if scored is None else scored
        tables = count_images(predictions, target, regions, classes=self.classes, unknown=self.unknown)
        self.counts += tables[:, :, : self.classes].sum(dim=0)
        both = tables.sum(dim=1)
        untouched, overwritten = both[:, : self.classes], both[:, : self.classes].clone()
        # The published code overwrites the target of unknown voxels but not the prediction: their row is added to that
        # of the empty class, and a predicted object there is a false positive.
        overwritten[:, 0] += both[:, self.classes]
        accuracies = []
        for order, table in enumerate((overwritten, untouched)):
            present = table.sum(dim=2) > 0
            self.sums[order] += (class_iou(table) * present).sum(dim=0)
            self.occurs[order] += present.sum(dim=0)
            accuracies.append(_ratio(table.diagonal(dim1=1, dim2=2).sum(dim=1), table.sum(dim=(1, 2))))
        # In completion, unknown voxels are empty in target and prediction, so they are in none of its three sums.
        precision, recall, iou = completion(untouched)
        self.images.append(torch.stack([precision, recall, iou, *accuracies], dim=1))
        position = torch.arange(len(target), device=target.device)
        self.numbers.append(torch.stack([torch.full_like(position, len(self.numbers)), position], dim=1))

    def compute(self) -> dict[str, Any]:
        """Name → number; with ``full`` also name → list."""
        table = self.counts.sum(dim=0)
        precision, recall, iou = completion(table)
        iou_of_classes, occurs = class_iou(table), table.sum(dim=1) > 0
        scores: dict[str, Any] = {
            "completion_iou": iou.item(),
            "completion_precision": precision.item(),
            "completion_recall": recall.item(),
            "completion_iou_occluded": completion(self.counts[HIDDEN - 1])[2].item(),
            "accuracy": _ratio(table.diagonal().sum(), table.sum()).item(),
            # The class of empty voxels is no part of the mean.
            "mean_iou": mean_over(iou_of_classes[1:], occurs[1:]),
        }
        images, numbers = _joined(self.images), _joined(self.numbers)
        batches = torch.split(in_frame_order(images, numbers), GROUP) if len(images) else ()
        means = [batch.mean(dim=0) for batch in batches]
        published = torch.stack(means).mean(dim=0).tolist() if means else [0.0] * 5
        scores |= {f"{name}_reference": value for name, value in zip(COMPLETION, published, strict=False)}
        scores["accuracy_untouched"] = published[-1]
        means_of_classes = self.sums / self.occurs.clamp(min=1)
        for order, name in enumerate(("mean_iou_reference", "mean_iou_untouched")):
            scores[name] = mean_over(means_of_classes[order, 1:], self.occurs[order, 1:] > 0)
        if self.full:
            scores["iou"] = iou_of_classes.tolist()
            scores["iou_reference"] = means_of_classes[0].tolist()
            scores["iou_untouched"] = means_of_classes[1].tolist()
            scores["precision"] = _ratio(table.diagonal(), table.sum(dim=0)).tolist()
            scores["per_class"] = scores["recall"] = _ratio(table.diagonal(), table.sum(dim=1)).tolist()
            scores["confusion"] = table.tolist()
        return scores


def in_frame_order(images: Tensor, numbers: Tensor) -> Tensor:
    """Rows of images in the order of a single process, from the concatenated rows of several processes.

    All processes call ``update`` equally often, and process r of w gets the rows r, r + w and so on of each batch
    (`xmodal.data.loader.in_order`). So a batch starts with the first row of each process.

    Args:
        images: rows of the first process, of the second process and so on.
        numbers: (rows, 2), for each row the number of its update and its position in that update.

    Example:
        >>> first, second = [[0, 0], [0, 1], [1, 0]], [[0, 0], [0, 1]]  # frames 0, 2, 4 and 1, 3
        >>> in_frame_order(torch.tensor([0, 2, 4, 1, 3]), torch.tensor([*first, *second])).tolist()
        [0, 1, 2, 3, 4]
    """
    most = int(numbers[:, 1].max()) + 1
    # Stable, since rows of different processes with equal numbers must stay in the order of the processes.
    return images[(numbers[:, 0] * most + numbers[:, 1]).argsort(stable=True)]


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """The rows of a state: a list before the processes are synchronised, one tensor afterwards."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, 2)


def count_images(
    predictions: Tensor, target: Tensor, regions: Tensor, *, classes: int, unknown: int | None = 255
) -> Tensor:
    """Numbers of voxels by image, region, class and prediction, (images, 2, classes + 1, classes).

    The last of the ``classes + 1`` rows counts voxels with an unknown label.

    Args:
        predictions: class numbers (images, …).
        target: class numbers (images, …), or ``unknown``.
        regions: 0 for a voxel that does not count, else `HIDDEN` or `SURFACE`.
        classes: number of classes.
        unknown: target of unknown voxels.

    Example:
        >>> predictions, target = torch.tensor([[1, 0]]), torch.tensor([[1, 255]])
        >>> count_images(predictions, target, torch.tensor([[1, 2]]), classes=2).tolist()
        [[[[0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [1, 0]]]]
    """
    images, rows = len(target), target
    if unknown is not None:
        rows = torch.where(target == unknown, classes, target)
    image = torch.arange(images, device=target.device).reshape(-1, *[1] * (target.ndim - 1)).expand_as(target)
    counted = regions > 0
    # One number for each cell of all tables, so that a single bincount over all images gives everything.
    number = (2 * image + (regions.long() - 1)) * (classes + 1) + rows
    cells = number[counted] * classes + predictions[counted]
    return torch.bincount(cells, minlength=images * 2 * (classes + 1) * classes).view(images, 2, classes + 1, classes)


def completion(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and intersection over union of occupied voxels, of tables (…, classes, classes)."""
    # Occupied is every class except 0; a confusion among occupied classes is correct here.
    correct = table[..., 1:, 1:].sum(dim=(-2, -1))
    precision = _ratio(correct, table[..., 1:].sum(dim=(-2, -1)))
    recall = _ratio(correct, table[..., 1:, :].sum(dim=(-2, -1)))
    return precision, recall, _ratio(correct, table.sum(dim=(-2, -1)) - table[..., 0, 0])


def class_iou(table: Tensor) -> Tensor:
    """Intersection over union of each class, (…, classes), of tables (…, classes, classes); 0 for an absent class."""
    correct = table.diagonal(dim1=-2, dim2=-1)
    return _ratio(correct, table.sum(dim=-2) + table.sum(dim=-1) - correct)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    # Of counts: where the whole is 0, so is the part, and the ratio is defined as 0.
    return part.double() / whole.double().clamp(min=1)

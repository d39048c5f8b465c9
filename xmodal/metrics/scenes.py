r"""How well a room is completed, and how well its voxels are told apart, from one table of counts per image.

With K[y, ŷ] the number of voxels of class y that were taken for ŷ, and class 0 for empty:

$$\text{completion: } tp = \sum_{y, \hat y > 0} K_{y \hat y}, \; fp = \sum_{\hat y > 0} K_{0 \hat y}, \;
fn = \sum_{y > 0} K_{y 0}, \qquad IoU_c = \frac{K_{cc}}{\sum_y K_{yc} + \sum_{\hat y} K_{c \hat y} - K_{cc}}$$

Only voxels of the scored regions count: those hidden behind a surface and those on one. Some of those on a surface are
unknown. Two rules:

| | ours | ``…_reference`` (the published code) |
|---|---|---|
| counts | summed over the whole split | IoU, precision and recall of each image, then means |
| unknown voxels | count nowhere | in completion, empty and told so |
| mean over | classes that occur in the split | ``mean_iou``: over images the mean of each class, then over classes |
| completion | over the split | mean over images of a batch of 4, then over batches, however small the last one is |

In the published code the completion score is computed first and turns unknown voxels into empty ones where they lie in
memory, so that the classes are scored with them: ``mean_iou_reference``. Without that, it is ``mean_iou_untouched``.
``completion_iou_occluded`` looks at hidden voxels alone, as SSCNet does. Nothing that is passed in is changed.

References: Song et al.: Semantic Scene Completion from a Single Depth Image, CVPR 2017; code of DDRNet's authors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

GROUP = 4  # images in a batch of the published evaluation
HIDDEN, SURFACE = 1, 2  # regions that are scored
COMPLETION = ("completion_precision", "completion_recall", "completion_iou", "accuracy")
NUMBERS = (  # names of the scores that are single numbers
    *COMPLETION,
    *(f"{name}_reference" for name in COMPLETION),
    *("completion_iou_occluded", "accuracy_untouched", "mean_iou", "mean_iou_reference", "mean_iou_untouched"),
)


class SceneScores(Metric):
    """Counts voxels, and what follows from them.

    Args:
        classes: how many outputs there are, the first of them for empty.
        unknown: target value of voxels that nobody labelled.
        full: also lists with a number per class, and the table.

    Example:
        >>> scores = SceneScores(3)
        >>> scores.update(torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 1, 1, 255]]))
        >>> found = scores.compute()
        >>> found["completion_iou"], found["mean_iou"], found["mean_iou_reference"]
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
        # of the two orders of the published code: intersection over union summed over images, and images with a class
        self.add_state("sums", torch.zeros(2, classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("occurs", torch.zeros(2, classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", [], dist_reduce_fx="cat")
        # which update counted an image, and its place there: whichever process counted it, images keep one order
        self.add_state("numbers", [], dist_reduce_fx="cat")

    def update(self, answers: Tensor, target: Tensor, scored: Tensor | None = None) -> None:
        """Count some images.

        Args:
            answers: class numbers like the target, or one score per class (images, classes, …).
            target: class numbers (images, …).
            scored: regions like the target, 0 where nothing is scored; None: everything is, as `SURFACE`.
        """
        if answers.ndim == target.ndim + 1:
            answers = answers.argmax(dim=1)
        regions = torch.full_like(target, SURFACE) if scored is None else scored
        tables = count_images(answers, target, regions, classes=self.classes, unknown=self.unknown)
        self.counts += tables[:, :, : self.classes].sum(dim=0)
        both = tables.sum(dim=1)
        untouched, overwritten = both[:, : self.classes], both[:, : self.classes].clone()
        overwritten[:, 0] += both[:, self.classes]
        accuracies = []
        for order, table in enumerate((overwritten, untouched)):
            there = table.sum(dim=2) > 0
            self.sums[order] += (class_iou(table) * there).sum(dim=0)
            self.occurs[order] += there.sum(dim=0)
            accuracies.append(_share(table.diagonal(dim1=1, dim2=2).sum(dim=1), table.sum(dim=(1, 2))))
        precision, recall, iou = completion(untouched)
        self.images.append(torch.stack([precision, recall, iou, *accuracies], dim=1))
        place = torch.arange(len(target), device=target.device)
        self.numbers.append(torch.stack([torch.full_like(place, len(self.numbers)), place], dim=1))

    def compute(self) -> dict[str, Any]:
        """Name → number; lists only where they were asked for."""
        table = self.counts.sum(dim=0)
        precision, recall, iou = completion(table)
        of_classes, occurs = class_iou(table), table.sum(dim=1) > 0
        found: dict[str, Any] = {
            "completion_iou": iou.item(),
            "completion_precision": precision.item(),
            "completion_recall": recall.item(),
            "completion_iou_occluded": completion(self.counts[HIDDEN - 1])[2].item(),
            "accuracy": _share(table.diagonal().sum(), table.sum()).item(),
            "mean_iou": _mean(of_classes[1:], occurs[1:]),
        }
        images, numbers = _joined(self.images), _joined(self.numbers)
        batches = torch.split(in_frame_order(images, numbers), GROUP) if len(images) else ()
        means = [batch.mean(dim=0) for batch in batches]
        published = torch.stack(means).mean(dim=0).tolist() if means else [0.0] * 5
        found |= {f"{name}_reference": value for name, value in zip(COMPLETION, published, strict=False)}
        found["accuracy_untouched"] = published[-1]
        each = self.sums / self.occurs.clamp(min=1)
        for order, name in enumerate(("mean_iou_reference", "mean_iou_untouched")):
            found[name] = _mean(each[order, 1:], self.occurs[order, 1:] > 0)
        if self.full:
            found["iou"] = of_classes.tolist()
            found["iou_reference"] = each[0].tolist()
            found["iou_untouched"] = each[1].tolist()
            found["precision"] = _share(table.diagonal(), table.sum(dim=0)).tolist()
            found["per_class"] = found["recall"] = _share(table.diagonal(), table.sum(dim=1)).tolist()
            found["confusion"] = table.tolist()
        return found


def in_frame_order(images: Tensor, numbers: Tensor) -> Tensor:
    """Rows of images as one process counts them, from those of several processes one behind the other.

    Every process counts as often as the others, and of each batch process r of w gets the rows r, r + w and so on
    (`xmodal.data.loader.in_order`). So a batch starts with the first row of each process.

    Args:
        images: rows of the first process, of the second and so on.
        numbers: (rows, 2), which update of its process counted a row, and its place in that update.

    Example:
        >>> first, second = [[0, 0], [0, 1], [1, 0]], [[0, 0], [0, 1]]  # frames 0, 2, 4 and 1, 3
        >>> in_frame_order(torch.tensor([0, 2, 4, 1, 3]), torch.tensor([*first, *second])).tolist()
        [0, 1, 2, 3, 4]
    """
    most = int(numbers[:, 1].max()) + 1
    return images[(numbers[:, 0] * most + numbers[:, 1]).argsort(stable=True)]


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A state of rows, before or after processes have met."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, 2)


def count_images(
    answers: Tensor, target: Tensor, regions: Tensor, *, classes: int, unknown: int | None = 255
) -> Tensor:
    """Voxels by image, region, class and answer, (images, 2, classes + 1, classes); the last class is unknown.

    Args:
        answers: class numbers (images, …).
        target: class numbers (images, …), ``unknown`` among them.
        regions: 0 where a voxel does not count, else `HIDDEN` or `SURFACE`.
        classes: how many there are.
        unknown: target of unknown voxels.

    Example:
        >>> told, true = torch.tensor([[1, 0]]), torch.tensor([[1, 255]])
        >>> count_images(told, true, torch.tensor([[1, 2]]), classes=2).tolist()
        [[[[0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [1, 0]]]]
    """
    images, known = len(target), target
    if unknown is not None:
        known = torch.where(target == unknown, classes, target)
    image = torch.arange(images, device=target.device).reshape(-1, *[1] * (target.ndim - 1)).expand_as(target)
    counts = regions > 0
    number = (2 * image + (regions.long() - 1)) * (classes + 1) + known
    cells = number[counts] * classes + answers[counts]
    return torch.bincount(cells, minlength=images * 2 * (classes + 1) * classes).view(images, 2, classes + 1, classes)


def completion(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and intersection over union of occupied voxels, of tables (…, classes, classes)."""
    right = table[..., 1:, 1:].sum(dim=(-2, -1))
    precision = _share(right, table[..., 1:].sum(dim=(-2, -1)))
    recall = _share(right, table[..., 1:, :].sum(dim=(-2, -1)))
    return precision, recall, _share(right, table.sum(dim=(-2, -1)) - table[..., 0, 0])


def class_iou(table: Tensor) -> Tensor:
    """Intersection over union of each class, (…, classes), of tables (…, classes, classes); 0 where none occurs."""
    right = table.diagonal(dim1=-2, dim2=-1)
    return _share(right, table.sum(dim=-2) + table.sum(dim=-1) - right)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.double().clamp(min=1)


def _mean(values: Tensor, chosen: Tensor) -> float:
    return values[chosen].mean().item() if chosen.any() else 0.0

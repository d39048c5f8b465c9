"""Time of losses on pixels and of votes of points, relative to straightforward code of their formulas.

Outputs have the size of the published LiDAR training: 4 pictures of 256 x 1024 pixels, 20 classes, a share of the
pixels labelled. Values and gradients must agree before a number is printed. Times are medians of one forward and
backward pass, alternating in one process with one thread. Votes are those of KNN post-processing: all points of a
scan in a picture of directions, and those of the camera's view in its picture. The straightforward code unfolds all
windows of the picture, as published, and selects those of the points. The classes must be equal.

    python benchmarks/segmentation.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.data.semantic_kitti.knn import gaussian, knn_classes
from xmodal.losses.segmentation import focal, lovasz

REPEATS = 5
SHAPE, SHARES = (4, 20, 256, 1024), (0.04, 0.3)
ALPHA = torch.linspace(0.2, 1.0, SHAPE[1])
Loss = Callable[[Tensor, Tensor], Tensor]


def formula_lovasz(probabilities: Tensor, target: Tensor) -> Tensor:
    rows = probabilities.permute(0, 2, 3, 1).contiguous().view(-1, probabilities.shape[1])
    labels = target.flatten()
    rows, labels = rows[labels != 0], labels[labels != 0]
    losses = []
    for number in range(rows.shape[1]):
        members = (labels == number).float()
        if members.sum() == 0:
            continue
        errors, order = torch.sort((members - rows[:, number]).abs(), 0, descending=True)
        ordered = members[order]
        intersection = ordered.sum() - ordered.cumsum(0)
        union = ordered.sum() + (1 - ordered).cumsum(0)
        jaccard = 1 - intersection / union
        jaccard[1:] = jaccard[1:] - jaccard[:-1].clone()
        losses.append(torch.dot(errors, jaccard))
    return torch.stack(losses).mean()


def formula_focal(probabilities: Tensor, target: Tensor) -> Tensor:
    p = probabilities.gather(1, target[:, None]).squeeze(1)
    values = ALPHA[target] * (1 - p) ** 2 * -p.clamp(min=1e-6).log()
    mask = (target != 0).float()
    return (values * mask).sum() / mask.sum()


def our_lovasz(probabilities: Tensor, target: Tensor) -> Tensor:
    return lovasz(probabilities, target, ignore=0, softmax=False)


def our_focal(probabilities: Tensor, target: Tensor) -> Tensor:
    return focal(probabilities, target, alpha=ALPHA, valid=target != 0, softmax=False)


PAIRS: dict[str, tuple[Loss, Loss]] = {"lovasz": (our_lovasz, formula_lovasz), "focal": (our_focal, formula_focal)}


def scene(share: float) -> tuple[Tensor, Tensor]:
    """Probabilities and labels, most of them 0: unlabelled."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(SHAPE, generator=generator).mul_(2).softmax(dim=1).requires_grad_()
    places = (SHAPE[0], *SHAPE[2:])
    target = torch.randint(1, SHAPE[1], places, generator=generator)
    return probabilities, target * (torch.rand(places, generator=generator) < share)


def one_pass(loss: Loss, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(probabilities, target)
    return value.detach(), torch.autograd.grad(value, probabilities)[0]


def must_agree(ours: Loss, formula: Loss, probabilities: Tensor, target: Tensor) -> None:
    value, gradient = one_pass(ours, probabilities, target)
    expected, expected_gradient = one_pass(formula, probabilities, target)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    # the formula subtracts numbers near 1 and loses digits: the tolerance is a hundredth of the largest entry
    limit = 1e-2 * expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-2, atol=limit)


def seconds(loss: Loss, probabilities: Tensor, target: Tensor) -> float:
    start = time.perf_counter()
    one_pass(loss, probabilities, target)
    return time.perf_counter() - start


def formula_votes(ranges: Tensor, classes: Tensor, depth: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    windows = F.unfold(ranges[None, None], 5, padding=2)[0][:, rows * ranges.shape[1] + columns]
    windows[windows < 0] = torch.inf
    windows[12] = depth
    distance = (windows - depth).abs() * (1 - gaussian(5, 1.0)).reshape(-1, 1)
    nearest = distance.topk(5, dim=0, largest=False, sorted=False)
    neighbours = F.unfold(classes[None, None].float(), 5, padding=2)[0].long()[:, rows * ranges.shape[1] + columns]
    votes = neighbours.gather(0, nearest.indices)
    votes[nearest.values > 1.0] = 20
    counts = torch.zeros(21, len(depth)).scatter_add(0, votes, torch.ones_like(votes, dtype=torch.float32))
    return counts[1:20].argmax(dim=0) + 1


def scan(height: int, width: int, points: int) -> tuple[Tensor, ...]:
    """Ranges and classes of a picture, a third of it empty, and points at and behind the ranges of its pixels."""
    generator = torch.Generator().manual_seed(0)
    ranges = 2 + 48 * torch.rand(height, width, generator=generator).sort(dim=0).values
    ranges[torch.rand(height, width, generator=generator) < 1 / 3] = -1.0
    classes = torch.randint(SHAPE[1], (height, width), generator=generator)
    rows, columns = (torch.randint(side, (points,), generator=generator) for side in (height, width))
    depth = ranges[rows, columns].clamp(min=2) + 0.3 * torch.randn(points, generator=generator)
    return ranges, classes, depth, rows, columns


def votes() -> None:
    """One line per view."""
    print("\nvotes          points   ours ms  formula ms  times faster")
    for view, size in {"directions": (64, 2048, 118_941), "camera": (370, 1226, 20_000)}.items():
        arguments, turns = scan(*size), []
        torch.testing.assert_close(knn_classes(*arguments), formula_votes(*arguments), rtol=0, atol=0)
        for _ in range(REPEATS):
            moments = [time.process_time()]
            for work in (knn_classes, formula_votes):
                work(*arguments)
                moments.append(time.process_time())
            turns.append((moments[1] - moments[0], moments[2] - moments[1]))
        ours, formula = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{view:12} {size[2]:8} {1e3 * ours:9.1f} {1e3 * formula:11.1f} {formula / ours:13.2f}")


def main() -> None:
    """One line per loss and share of labelled pixels, and one per view in which points vote."""
    torch.set_num_threads(1)
    print("loss    labelled   ours ms  formula ms  times faster")
    for share in SHARES:
        probabilities, target = scene(share)
        for name, (ours, formula) in PAIRS.items():
            must_agree(ours, formula, probabilities, target)
            turns = [
                (seconds(ours, probabilities, target), seconds(formula, probabilities, target)) for _ in range(REPEATS)
            ]
            fast, slow = (statistics.median(column) for column in zip(*turns, strict=True))
            print(f"{name:7} {share:8.0%} {1e3 * fast:9.1f} {1e3 * slow:11.1f} {slow / fast:13.2f}")
    votes()


if __name__ == "__main__":
    main()

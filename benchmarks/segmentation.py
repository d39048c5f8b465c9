"""What losses of pixels cost, as a ratio to their formulas written down straightforwardly.

Answers have the size of the published LiDAR training: 4 pictures of 256 x 1024 pixels, 20 classes, of which a share of
pixels is labelled. Values and gradients must agree before a number is printed. Times are medians of one forward and
backward pass, both turn by turn in one process with one thread.

    python benchmarks/segmentation.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

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
    (mine, my_gradient), (theirs, gradient) = (one_pass(loss, probabilities, target) for loss in (ours, formula))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    # the formula's differences of numbers near 1 lose digits: a hundredth of the largest entry
    torch.testing.assert_close(my_gradient, gradient, rtol=1e-2, atol=1e-2 * gradient.abs().max().item())


def seconds(loss: Loss, probabilities: Tensor, target: Tensor) -> float:
    start = time.perf_counter()
    one_pass(loss, probabilities, target)
    return time.perf_counter() - start


def main() -> None:
    """One line per loss and share of labelled pixels."""
    torch.set_num_threads(1)
    print("loss    labelled   ours ms  formula ms  times faster")
    for share in SHARES:
        probabilities, target = scene(share)
        for name, (ours, formula) in PAIRS.items():
            must_agree(ours, formula, probabilities, target)
            turns = [
                (seconds(ours, probabilities, target), seconds(formula, probabilities, target)) for _ in range(REPEATS)
            ]
            mine, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
            print(f"{name:7} {share:8.0%} {1e3 * mine:9.1f} {1e3 * theirs:11.1f} {theirs / mine:13.2f}")


if __name__ == "__main__":
    main()

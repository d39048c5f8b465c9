"""Time of losses on pixels and of votes of points, relative to other code of their formulas.

Outputs have the size of the published LiDAR training: 4 pictures of 256 x 1024 pixels, 20 classes, a share of the
pixels labelled. Votes are those of KNN post-processing: all points of a scan in a picture of directions, and those of
the camera's view in its picture.

- Fair peers: both losses select the labelled pixels before anything is computed; votes look up the windows of the
  points alone, by offsets into a padded picture.
- Published way: the Lovász loss copies all pixels and selects then, the focal loss multiplies all pixels by a mask;
  votes unfold all windows of the picture.

Values and gradients must agree, and the classes of votes be equal, before a number is printed. CPU times of one pass,
forward and backward, medians, in turns, with one thread.

    python benchmarks/segmentation.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from plain.timing import Row, show, turns
from torch import Tensor

from xmodal.data.semantic_kitti.knn import gaussian, knn_classes
from xmodal.losses.segmentation import focal, lovasz

REPEATS = 5
SHAPE, SHARES = (4, 20, 256, 1024), (0.04, 0.3)
ALPHA = torch.linspace(0.2, 1.0, SHAPE[1])
Loss = Callable[[Tensor, Tensor], Tensor]


def published_lovasz(probabilities: Tensor, target: Tensor) -> Tensor:
    rows = probabilities.permute(0, 2, 3, 1).contiguous().view(-1, probabilities.shape[1])
    labels = target.flatten()
    return lovasz_of_rows(rows[labels != 0], labels[labels != 0])


def peer_lovasz(probabilities: Tensor, target: Tensor) -> Tensor:
    labelled = target != 0
    return lovasz_of_rows(probabilities.permute(0, 2, 3, 1)[labelled], target[labelled])


def lovasz_of_rows(rows: Tensor, labels: Tensor) -> Tensor:
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


def peer_focal(probabilities: Tensor, target: Tensor) -> Tensor:
    labelled = target != 0
    classes = target[labelled]
    p = probabilities.permute(0, 2, 3, 1)[labelled].gather(1, classes[:, None]).squeeze(1)
    return (ALPHA[classes] * (1 - p) ** 2 * -p.clamp(min=1e-6).log()).mean()


def published_focal(probabilities: Tensor, target: Tensor) -> Tensor:
    p = probabilities.gather(1, target[:, None]).squeeze(1)
    values = ALPHA[target] * (1 - p) ** 2 * -p.clamp(min=1e-6).log()
    mask = (target != 0).float()
    return (values * mask).sum() / mask.sum()


def our_lovasz(probabilities: Tensor, target: Tensor) -> Tensor:
    return lovasz(probabilities, target, ignore=0, softmax=False)


def our_focal(probabilities: Tensor, target: Tensor) -> Tensor:
    return focal(probabilities, target, alpha=ALPHA, valid=target != 0, softmax=False)


LOSSES: dict[str, dict[str, Loss]] = {
    "lovasz": {"ours": our_lovasz, "peer": peer_lovasz, "published": published_lovasz},
    "focal": {"ours": our_focal, "peer": peer_focal, "published": published_focal},
}


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


def published_votes(ranges: Tensor, classes: Tensor, depth: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    places = rows * ranges.shape[1] + columns
    windows = F.unfold(ranges[None, None], 5, padding=2)[0][:, places]
    neighbours = F.unfold(classes[None, None].float(), 5, padding=2)[0].long()[:, places]
    return voted(windows, neighbours, depth)


def peer_votes(ranges: Tensor, classes: Tensor, depth: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    width = ranges.shape[1] + 4
    offsets = (torch.arange(5)[:, None] * width + torch.arange(5)).flatten()
    places = offsets[:, None] + rows * width + columns
    windows, neighbours = (F.pad(picture, (2, 2, 2, 2)).flatten()[places] for picture in (ranges, classes))
    return voted(windows, neighbours, depth)


def voted(windows: Tensor, neighbours: Tensor, depth: Tensor) -> Tensor:
    windows[windows < 0] = torch.inf
    windows[12] = depth
    distance = (windows - depth).abs() * (1 - gaussian(5, 1.0)).reshape(-1, 1)
    nearest = distance.topk(5, dim=0, largest=False, sorted=False)
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


def votes() -> list[Row]:
    """One line per view."""
    rows = []
    for view, size in {"directions": (64, 2048, 118_941), "camera": (370, 1226, 20_000)}.items():
        arguments = scan(*size)
        ways = {"ours": knn_classes, "peer": peer_votes, "published": published_votes}
        for way in ways.values():
            torch.testing.assert_close(way(*arguments), knn_classes(*arguments), rtol=0, atol=0)
        works = {name: partial(way, *arguments) for name, way in ways.items()}
        rows.append(Row(f"votes of {size[2]} points, {view}", **turns(works, REPEATS)))
    return rows


def losses() -> list[Row]:
    """One line per loss and share of labelled pixels."""
    rows = []
    for share in SHARES:
        probabilities, target = scene(share)
        for name, ways in LOSSES.items():
            for way in ("peer", "published"):
                must_agree(ways["ours"], ways[way], probabilities, target)
            works = {way: partial(one_pass, loss, probabilities, target) for way, loss in ways.items()}
            rows.append(Row(f"{name}, {share:.0%} labelled", **turns(works, REPEATS)))
    return rows


def main() -> None:
    torch.set_num_threads(1)
    show([*losses(), *votes()], "ms")


if __name__ == "__main__":
    main()

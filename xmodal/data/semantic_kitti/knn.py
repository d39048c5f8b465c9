r"""Classes of points from a picture of classes, by a vote of their neighbours in the picture: KNN post-processing.

Several points of a scan fall on one pixel, and the class that a network told there belongs to one of them. A point at
(row, column) with range r looks at the window around its pixel; the pixels whose ranges are nearest to its own vote:

$$d_k = |r_k - r| \, (1 - g_k), \qquad g = \text{Gaussian of width } \sigma \text{ on the window, of sum 1}$$

| symbol | argument | shape |
|---|---|---|
| r | ``depth`` | (points,) |
| r_k | ``ranges`` in the window; r itself in its centre; ∞ below 0, 0 outside of the picture | (height, width) |
| votes | the ``neighbours`` smallest d of ``search`` × ``search``, those above ``cutoff`` dropped | |
| σ | ``sigma`` | number |

Class 0 (unlabelled) has no vote. The class with most votes wins, the smaller one of two that are level; a point without
a vote gets class 1. Reference: Milioto et al.: RangeNet++, IROS 2019; details as in the code of Perception-Aware
Multi-Sensor Fusion, which the experiments on non-target divergence take over.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.errors import InputError

TOGETHER = 2**14  # points whose windows are looked at at once: what a cache holds
NOTHING = -1.0  # range of a pixel without a point


def knn_classes(
    ranges: Tensor,
    classes: Tensor,
    depth: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    neighbours: int = 5,
    search: int = 5,
    sigma: float = 1.0,
    cutoff: float = 1.0,
) -> Tensor:
    """The class of every point (points,).

    Args:
        ranges: range at each pixel (height, width), below 0 where there is none; see `measured`.
        classes: class numbers at each pixel (height, width).
        depth: range of each point (points,).
        rows: its pixel (points,).
        columns: likewise.
        neighbours: how many vote.
        search: side of the window, odd.
        sigma: of the Gaussian.
        cutoff: largest distance that votes; 0: no limit.

    Example:
        >>> ranges, classes = torch.tensor([[5.0, 5.0, 20.0]]), torch.tensor([[3, 3, 7]])
        >>> # the point behind the middle pixel lies far behind what was seen there
        >>> knn_classes(ranges, classes, torch.tensor([20.0]), torch.tensor([0]), torch.tensor([1]), search=3,
        ...     neighbours=2).tolist()
        [3]
    """
    _check(ranges, classes, depth, rows, columns, neighbours, search)
    edge, width = search // 2, ranges.shape[1] + 2 * (search // 2)
    around, told = (F.pad(picture, (edge,) * 4).flatten() for picture in (ranges.float(), classes))
    around[around < 0] = torch.inf
    steps = torch.arange(-edge, edge + 1, device=ranges.device)
    window = (steps[:, None] * width + steps).flatten()
    far = 1 - gaussian(search, sigma).to(ranges.device).flatten()
    first = (rows.long() + edge) * width + columns.long() + edge
    found = [
        _vote(around, told, depth[part].float(), first[part], window, far, min(neighbours, search**2), cutoff)
        for part in (slice(at, at + TOGETHER) for at in range(0, len(depth), TOGETHER))
    ]
    return torch.cat(found) if found else classes.new_zeros(0)


def _vote(
    ranges: Tensor, classes: Tensor, depth: Tensor, first: Tensor, window: Tensor, far: Tensor, most: int, cutoff: float
) -> Tensor:
    """The classes of some points; pictures are flat, and ``first`` are the places of their pixels."""
    places = first + window[:, None]  # (window, points): each step works on long rows of points
    distance = (ranges[places] - depth).abs_()
    distance[len(window) // 2] = 0.0
    distance *= far[:, None]
    nearest = distance.topk(most, dim=0, largest=False)
    votes = classes[places.gather(0, nearest.indices)]
    if cutoff > 0:
        votes.masked_fill_(nearest.values > cutoff, 0)
    level = (votes[:, None] == votes).sum(dim=0) * (votes > 0)  # how many say the same as each vote
    best = votes.masked_fill(level < level.amax(dim=0), torch.iinfo(votes.dtype).max).amin(dim=0)
    return torch.where(best > 0, best, 1)


def gaussian(side: int, sigma: float) -> Tensor:
    """A Gaussian on a square window, of sum 1.

    Example:
        >>> round(gaussian(3, 1.0)[1, 1].item(), 4)
        0.2042
    """
    steps = torch.arange(side) - side // 2
    bell = torch.exp(-(steps[:, None].square() + steps.square()) / (2 * sigma**2))
    return bell / bell.sum()


def measured(ranges: Tensor, mask: Tensor) -> Tensor:
    """Ranges of a perspective view, whose empty pixels hold 0, as `knn_classes` reads them.

    Example:
        >>> measured(torch.tensor([3.0, 0.0]), torch.tensor([True, False])).tolist()
        [3.0, -1.0]
    """
    return ranges.masked_fill(mask == 0, NOTHING)


def _check(
    ranges: Tensor, classes: Tensor, depth: Tensor, rows: Tensor, columns: Tensor, neighbours: int, search: int
) -> None:
    if ranges.ndim != 2 or ranges.shape != classes.shape:
        raise InputError(
            f"Ranges have shape {tuple(ranges.shape)} and classes {tuple(classes.shape)}: expected two pictures "
            "(height, width) of one size."
        )
    if not depth.ndim == 1 == rows.ndim == columns.ndim or not len(depth) == len(rows) == len(columns):
        found = ", ".join(str(tuple(each.shape)) for each in (depth, rows, columns))
        raise InputError(f"Depth, rows and columns have shapes {found}: expected one number of each per point.")
    if neighbours < 1 or search < 1 or search % 2 == 0:
        raise InputError(f"neighbours is {neighbours}, search {search}: expected 1 or more, and an odd number.")
    inside = (rows >= 0) & (rows < ranges.shape[0]) & (columns >= 0) & (columns < ranges.shape[1])
    if not bool(inside.all()):
        raise InputError(
            f"{int((~inside).sum())} of {len(rows)} points lie outside of the picture {tuple(ranges.shape)}. Leave "
            "them out: a vote needs a pixel."
        )

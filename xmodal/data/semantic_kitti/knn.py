r"""KNN post-processing: classes of points from predicted classes of pixels, by a vote of neighbouring pixels.

Several points of a scan are projected to the same pixel, but the predicted class belongs to only one of them. So a
point with range r gets the majority class of those pixels in a window around its own whose ranges are most similar:

$$d_k = |r_k - r| \, (1 - g_k), \qquad g = \text{Gaussian of width } \sigma \text{ on the window, of sum 1}$$

| symbol | argument | shape |
|---|---|---|
| r | ``depth`` | (points,) |
| r_k | ``ranges`` in the window; r in its centre; ∞ if negative (empty), 0 outside of the picture | (height, width) |
| votes | the ``neighbours`` smallest d of ``search`` × ``search``, without those above ``cutoff`` | |
| σ | ``sigma`` | number |

Class 0 (unlabelled) does not vote. The class with most votes wins, and the smaller class in case of a tie; a point
without votes gets class 1. Reference: Milioto et al.: RangeNet++, IROS 2019. Details are those of the code of
Perception-Aware Multi-Sensor Fusion, which the experiments of the non-target divergence hypothesis use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.errors import InputError

# Points whose windows are processed together, so that the arrays fit into the cache of a processor.
CHUNK = 2**14
# Range of a pixel without a point.
EMPTY = -1.0


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
        ranges: range of each pixel (height, width), negative if the pixel is empty; see `measured`.
        classes: class of each pixel (height, width).
        depth: range of each point (points,).
        rows: row of the pixel of each point (points,).
        columns: column of the pixel of each point (points,).
        neighbours: number of pixels that vote.
        search: side of the window, odd.
        sigma: width of the Gaussian.
        cutoff: largest distance of pixels that vote; 0: no limit.

    Example:
        >>> ranges, classes = torch.tensor([[5.0, 5.0, 20.0]]), torch.tensor([[3, 3, 7]])
        >>> # the point is projected to the middle pixel, and is far behind the point that is drawn there
        >>> knn_classes(ranges, classes, torch.tensor([20.0]), torch.tensor([0]), torch.tensor([1]), search=3,
        ...     neighbours=2).tolist()
        [3]
    """
    _check(ranges, classes, depth, rows, columns, neighbours, search)
    edge, width = search // 2, ranges.shape[1] + 2 * (search // 2)
    padded_ranges, padded_classes = (F.pad(picture, (edge,) * 4).flatten() for picture in (ranges.float(), classes))
    padded_ranges[padded_ranges < 0] = torch.inf
    steps = torch.arange(-edge, edge + 1, device=ranges.device)
    window = (steps[:, None] * width + steps).flatten()
    falloff = 1 - gaussian(search, sigma).to(ranges.device).flatten()
    first = (rows.long() + edge) * width + columns.long() + edge
    voters = min(neighbours, search**2)
    parts = [
        _vote(padded_ranges, padded_classes, depth[part].float(), first[part], window, falloff, voters, cutoff)
        for part in (slice(start, start + CHUNK) for start in range(0, len(depth), CHUNK))
    ]
    return torch.cat(parts) if parts else classes.new_zeros(0)


def _vote(
    ranges: Tensor,
    classes: Tensor,
    depth: Tensor,
    first: Tensor,
    window: Tensor,
    falloff: Tensor,
    count: int,
    cutoff: float,
) -> Tensor:
    """The classes of a chunk of points. Pictures are flat; ``first`` are the indices of the pixels of the points."""
    # (window, points) and not (points, window): reductions over the window then run over long contiguous rows.
    places = first + window[:, None]
    distance = (ranges[places] - depth).abs_()
    distance[len(window) // 2] = 0.0
    distance *= falloff[:, None]
    nearest = distance.topk(count, dim=0, largest=False)
    votes = classes[places.gather(0, nearest.indices)]
    if cutoff > 0:
        votes.masked_fill_(nearest.values > cutoff, 0)
    # The number of equal votes for each vote: no histogram over all classes is needed.
    support = (votes[:, None] == votes).sum(dim=0) * (votes > 0)
    best = votes.masked_fill(support < support.amax(dim=0), torch.iinfo(votes.dtype).max).amin(dim=0)
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
    """Ranges of a perspective view with empty pixels, which are 0 there, set to -1 as `knn_classes` expects.

    Example:
        >>> measured(torch.tensor([3.0, 0.0]), torch.tensor([True, False])).tolist()
        [3.0, -1.0]
    """
    return ranges.masked_fill(mask == 0, EMPTY)


def _check(
    ranges: Tensor, classes: Tensor, depth: Tensor, rows: Tensor, columns: Tensor, neighbours: int, search: int
) -> None:
    if ranges.ndim != 2 or ranges.shape != classes.shape:
        raise InputError(
            f"Ranges have shape {tuple(ranges.shape)} and classes {tuple(classes.shape)}: expected two pictures "
            "(height, width) of one size."
        )
    if not depth.ndim == 1 == rows.ndim == columns.ndim or not len(depth) == len(rows) == len(columns):
        shapes = ", ".join(str(tuple(each.shape)) for each in (depth, rows, columns))
        raise InputError(f"Depth, rows and columns have shapes {shapes}: expected one number of each per point.")
    if neighbours < 1 or search < 1 or search % 2 == 0:
        raise InputError(f"neighbours is {neighbours}, search {search}: expected 1 or more, and an odd number.")
    inside = (rows >= 0) & (rows < ranges.shape[0]) & (columns >= 0) & (columns < ranges.shape[1])
    if not bool(inside.all()):
        raise InputError(
            f"{int((~inside).sum())} of {len(rows)} points are outside of the picture {tuple(ranges.shape)}. Remove "
            "them: a vote needs a pixel."
        )

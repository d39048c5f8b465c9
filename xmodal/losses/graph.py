r"""Distances along the edges of a graph whose nodes teach one another.

An edge $j \leftarrow i$ lets node $j$ learn from node $i$; every distance stops the gradient at node $i$. With the
weight $\omega$ of each edge and sample, $x$ what the nodes say, and the mean over the samples $b$:

| name | of an edge |
|---|---|
| ``l1`` | mean of ω Σ_c \|x_j - x_i\| |
| ``l2`` | mean of ω Σ_c (x_j - x_i)² |
| ``cosine`` | mean of ω (1 - cos(x_j, x_i)) |
| ``min_cosine`` | mean of ω, times the mean of max(0, cos(x_j, x_i)) |

``min_cosine`` is what the authors' code calls distillation between representations. It is smallest where the two have
nothing in common: it keeps the student's representation *away* from the teacher's. Reference: Li, Wang, Cui: Decoupled
Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802; read from the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32

DISTANCES = ("l1", "l2", "cosine", "min_cosine")


def graph_distance(
    nodes: Tensor, weights: Tensor | None, edges: Sequence[tuple[int, int]], *, distance: str = "l1"
) -> Tensor:
    """Sum over the edges of the weighted distance between student and teacher.

    Args:
        nodes: (rows, nodes, width), what each node says of each sample.
        weights: ω, (rows, edges); None: 1 for all.
        edges: (student, teacher) by number of the node, one pair per column of ``weights``.
        distance: ``l1``, ``l2``, ``cosine`` or ``min_cosine``.

    Example:
        >>> import torch
        >>> nodes = torch.tensor([[[1.0], [3.0]], [[0.0], [1.0]]])
        >>> graph_distance(nodes, torch.tensor([[0.5, 1.0], [0.5, 1.0]]), [(0, 1), (1, 0)]).item()  # 0.75 + 1.5
        2.25
    """
    _check(nodes, weights, edges, distance)
    nodes = at_least_float32(nodes)
    students, teachers = zip(*edges, strict=True)
    mine, theirs = nodes[:, list(students)], nodes[:, list(teachers)].detach()  # (rows, edges, width)
    if distance == "min_cosine":
        alike = F.cosine_similarity(mine, theirs, dim=2).clamp(min=0).mean(dim=0)
        return (alike if weights is None else weights.mean(dim=0) * alike).sum()
    if distance == "cosine":
        apart = 1 - F.cosine_similarity(mine, theirs, dim=2)
    else:
        difference = mine - theirs
        apart = (difference.abs() if distance == "l1" else difference.square()).sum(dim=2)
    return (apart if weights is None else weights * apart).mean(dim=0).sum()


def edge_regularisation(weights: Tensor, prior: Tensor) -> Tensor:
    """How far the mean edges of a batch are from a prior: the sum of squared differences.

    Args:
        weights: (rows, edges), edges of each sample.
        prior: (edges,).

    Example:
        >>> import torch
        >>> edge_regularisation(torch.tensor([[0.25, 0.75], [0.25, 0.75]]), torch.tensor([0.5, 0.5])).item()
        0.125
    """
    return (weights.mean(dim=0) - prior).square().sum()


def _check(nodes: Tensor, weights: Tensor | None, edges: Sequence[tuple[int, int]], distance: str) -> None:
    if distance not in DISTANCES:
        raise ValueError(f"distance is '{distance}': expected {', '.join(DISTANCES)}")
    known = nodes.shape[1] if nodes.ndim == 3 else 0
    if not edges or not all(0 <= end < known for edge in edges for end in edge):
        raise ValueError(
            f"nodes have shape {tuple(nodes.shape)} and the edges are {list(edges)}: expected (rows, nodes, "
            "width) and pairs of numbers of nodes."
        )
    if weights is not None and tuple(weights.shape) != (len(nodes), len(edges)):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}: expected {(len(nodes), len(edges))}, a row per sample and a "
            "column per edge."
        )

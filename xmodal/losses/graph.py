r"""Distances along the edges of a graph whose nodes are distilled into one another.

Along an edge $j \leftarrow i$ node $j$ learns from node $i$; every distance stops the gradient at node $i$. With the
weight $\omega$ of each edge and sample, the outputs $x$ of the nodes, and the mean over the samples $b$:

| name | distance of an edge |
|---|---|
| ``l1`` | mean of ω Σ_c \|x_j - x_i\| |
| ``l2`` | mean of ω Σ_c (x_j - x_i)² |
| ``cosine`` | mean of ω (1 - cos(x_j, x_i)) |
| ``min_cosine`` | mean of ω, times the mean of max(0, cos(x_j, x_i)) |

``min_cosine`` is what the authors' code calls distillation between representations. It is smallest for orthogonal
representations: it drives the student's representation *away* from the teacher's. Reference: Li, Wang, Cui: Decoupled
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
        nodes: (rows, nodes, width), outputs of each node for each sample.
        weights: ω, (rows, edges); None: 1 for all.
        edges: (student, teacher) as node numbers, one pair per column of ``weights``.
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
    s, t = nodes[:, list(students)], nodes[:, list(teachers)].detach()  # (rows, edges, width)
    if distance == "min_cosine":
        # A product of two means, as in the authors' code; the other distances are means of products.
        similarity = F.cosine_similarity(s, t, dim=2).clamp(min=0).mean(dim=0)
        return (similarity if weights is None else weights.mean(dim=0) * similarity).sum()
    if distance == "cosine":
        distances = 1 - F.cosine_similarity(s, t, dim=2)
    else:
        difference = s - t
        distances = (difference.abs() if distance == "l1" else difference.square()).sum(dim=2)
    return (distances if weights is None else weights * distances).mean(dim=0).sum()


def edge_regularisation(weights: Tensor, prior: Tensor) -> Tensor:
    """Sum of squared differences between the mean edge weights of a batch and a prior.

    Args:
        weights: (rows, edges), edge weights of each sample.
        prior: (edges,), prior weight of each edge.

    Example:
        >>> import torch
        >>> edge_regularisation(torch.tensor([[0.25, 0.75], [0.25, 0.75]]), torch.tensor([0.5, 0.5])).item()
        0.125
    """
    return (weights.mean(dim=0) - prior).square().sum()


def _check(nodes: Tensor, weights: Tensor | None, edges: Sequence[tuple[int, int]], distance: str) -> None:
    if distance not in DISTANCES:
        raise ValueError(f"distance is '{distance}': expected {', '.join(DISTANCES)}")
    count = nodes.shape[1] if nodes.ndim == 3 else 0
    if not edges or not all(0 <= node < count for edge in edges for node in edge):
        raise ValueError(
            f"nodes have shape {tuple(nodes.shape)} and the edges are {list(edges)}: expected (rows, nodes, width) and "
            "pairs of node numbers."
        )
    if weights is not None and tuple(weights.shape) != (len(nodes), len(edges)):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}: expected {(len(nodes), len(edges))}, one row per sample and "
            "one column per edge."
        )

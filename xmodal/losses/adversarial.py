r"""Which domain a feature comes from: learned, or unlearned through a reversed gradient.

A head guesses the domain (here: the modality) of an embedding. Trained as it is, it makes embeddings tell their domain;
behind a gradient reversal the head still learns, while what lies below it learns to leave the head in the dark.

References: Ganin, Lempitsky: Unsupervised Domain Adaptation by Backpropagation, ICML 2015, arXiv 1409.7495. Ienco,
Dantas: DisCoM-KD, BMVC 2024, arXiv 2408.07080 (the modalities as domains).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32

TARGETS = ("index", "released")


def reverse_gradient(value: Tensor, strength: float = 1.0) -> Tensor:
    """The same value, whose gradient comes back times ``-strength``.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> (3 * reverse_gradient(x, 0.5)).backward()
        >>> x.grad.item()
        -1.5
    """
    constant = value.detach()
    return constant - strength * (value - constant)


def reversal_ramp(progress: float) -> float:
    r"""Strength of a reversal that grows with training: λ(p) = 2 / (1 + exp(-10 p)) - 1 for p from 0 to 1.

    Example:
        >>> [round(reversal_ramp(progress), 3) for progress in (0.0, 0.1, 0.5, 1.0)]
        [0.0, 0.462, 0.987, 1.0]
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def domain_loss(logits: Sequence[Tensor], *, targets: str = "index") -> Tensor:
    r"""Cross-entropy of the domain of each row, every domain counting alike.

    $$L = \frac1M \sum_m \frac1{B_m} \sum_{i=1}^{B_m} -\log \mathrm{softmax}(a_{mi})_m$$

    With equally many rows of each domain this is the mean over all rows.

    | symbol | argument | shape |
    |---|---|---|
    | a_m | ``logits[m]``, what the head says of the rows of domain m | (B_m, M) |
    | | ``targets`` | ``index`` or ``released`` |

    ``targets="released"`` is what the released code of DisCoM-KD computes, for two domains: its targets have the shape
    of the logits, all ones for the first domain and all zeros for the second, and are taken as class probabilities.
    So a row of the first domain adds -log p₀ - log p₁, which is smallest where the head can't tell, and a row of the
    second adds nothing at all, neither value nor gradient. At a head that answers ½ everywhere both kinds give ln 2.

    Args:
        logits: one table per domain; the domain of a table is its place in the list.
        targets: which domain a row is said to be of.

    Example:
        >>> ahead = [torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
        >>> round(domain_loss(ahead).item(), 4)  # right about the first, wrong about the second
        1.1269
        >>> round(domain_loss([torch.zeros(3, 2), torch.zeros(3, 2)], targets="released").item(), 4)
        0.6931
    """
    check_domains([tuple(table.shape) for table in logits], targets)
    tables = [at_least_float32(table) for table in logits]
    if targets == "released":
        values = [-F.log_softmax(tables[0], dim=1).sum(dim=1).mean(), tables[1].detach().sum() * 0.0]
    else:
        values = [-F.log_softmax(table, dim=1)[:, domain].mean() for domain, table in enumerate(tables)]
    return torch.stack(values).mean()


def check_domains(shapes: Sequence[tuple[int, ...]], targets: str) -> None:
    """Refuse tables that can't be about as many domains as there are tables."""
    if targets not in TARGETS:
        raise ValueError(f"targets is '{targets}': expected index or released")
    domains = len(shapes)
    if domains < 2 or any(len(shape) != 2 or shape[1] != domains or not shape[0] for shape in shapes):
        listed = ", ".join(map(str, shapes)) or "none"
        raise ValueError(
            f"The tables have shapes {listed}: expected (rows, {domains}) for each of {domains} domains, two or more."
        )
    if targets == "released" and domains != 2:
        raise ValueError(f"targets='released' is defined for two domains, and there are {domains}: use 'index'.")

r"""Domain classification of features, directly or through a reversed gradient.

A head predicts the domain (here: the modality) of an embedding. Trained directly, it makes embeddings carry their
domain. Behind a gradient reversal the head still learns to predict the domain, while the layers below it learn
embeddings from which the domain cannot be predicted.

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
    """The same value, with its gradient multiplied by ``-strength``.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> (3 * reverse_gradient(x, 0.5)).backward()
        >>> x.grad.item()
        -1.5
    """
    # Ordinary operations instead of an autograd.Function: value - constant is exactly 0, so the value keeps its bits,
    # and autograd derives the factor by itself, also where the loss is recorded for many models.
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
    r"""Cross-entropy of the domain of each row, with equal weight for every domain.

    $$L = \frac1M \sum_m \frac1{B_m} \sum_{i=1}^{B_m} -\log \mathrm{softmax}(a_{mi})_m$$

    With equally many rows of each domain this is the mean over all rows.

    | symbol | argument | shape |
    |---|---|---|
    | a_m | ``logits[m]``, the head's logits for the rows of domain m | (B_m, M) |
    | | ``targets`` | ``index`` or ``released`` |

    ``targets="released"`` is what the released code of DisCoM-KD computes, for two domains: its targets have the shape
    of the logits, all ones for the first domain and all zeros for the second, and are used as class probabilities.
    So a row of the first domain adds -log p₀ - log p₁, which is smallest where p₀ = p₁, and a row of the second adds
    nothing, neither value nor gradient. If the head predicts ½ everywhere, both kinds of targets give ln 2.

    Args:
        logits: one table per domain; the index in the list is the domain.
        targets: ``index`` (the domain's number) or ``released``.

    Example:
        >>> tables = [torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
        >>> round(domain_loss(tables).item(), 4)  # correct for the first, wrong for the second
        1.1269
        >>> round(domain_loss([torch.zeros(3, 2), torch.zeros(3, 2)], targets="released").item(), 4)
        0.6931
    """
    check_domains([tuple(table.shape) for table in logits], targets)
    tables = [at_least_float32(table) for table in logits]
    if targets == "released":
        # A constant zero with the device and dtype of the second table: its rows have no gradient in the released code.
        values = [-F.log_softmax(tables[0], dim=1).sum(dim=1).mean(), tables[1].detach().sum() * 0.0]
    else:
        values = [-F.log_softmax(table, dim=1)[:, domain].mean() for domain, table in enumerate(tables)]
    return torch.stack(values).mean()


def check_domains(shapes: Sequence[tuple[int, ...]], targets: str) -> None:
    """Raise a ValueError unless there are two or more tables, each (rows, number of tables) with at least one row."""
    if targets not in TARGETS:
        raise ValueError(f"targets is '{targets}': expected index or released")
    domains = len(shapes)
    if domains < 2 or any(len(shape) != 2 or shape[1] != domains or not shape[0] for shape in shapes):
        listed = ", ".join(map(str, shapes)) or "none"
        raise ValueError(
            f"The logits have shapes {listed}: expected (rows, {domains}) for each of {domains} domains, and at least "
            "two domains."
        )
    if targets == "released" and domains != 2:
        raise ValueError(f"targets='released' is defined for two domains, got {domains}: use 'index'.")

r"""What the three parts of DisCoM-KD's embeddings contain: which predict the class, and which the modality.

A probe is a linear classifier in closed form, fitted to the embeddings of some rows and scored on others:

$$W = \left(X^\top X + \lambda n I\right)^{-1} X^\top Y, \qquad \hat y = \arg\max_k (x W)_k$$

with X (n, width) standardised by the mean and deviation of the fitted rows, Y the one-hot classes (or modalities) minus
their means, and λ = 0.001. The heads of the training itself are scored on the same held-out rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmodal.errors import InputError
from xmodal.losses.disentangle import orthogonality
from xmodal.models.discom_net import Branches, Parts, SharedHeads
from xmodal.models.network import evaluating
from xmodal.types import Batch

# Small enough to leave the fit unbiased, large enough that collinear columns (a ReLU that is always 0) can be solved.
RIDGE = 1e-3
PARTS = Parts._fields


@dataclass(frozen=True, slots=True)
class Content:
    """Result of `measure_branches` on held-out rows; accuracies are from 0 to 1.

    The chance level of predicting the modality is 1 / number of modalities. The objective drives the invariant part to
    that level, the other two to 1, and both cosines to 0. Nothing in the objective removes the class from the
    irrelevant part.

    Attributes:
        heads: ``adversary`` (reads the invariant part), ``informative`` and ``irrelevant`` → accuracy of predicting the
            modality.
        modality: part → accuracy of a probe of the modality, fitted afterwards.
        classes: part → accuracy of a probe of the class, mean over the modalities; empty for targets that are no
            classes.
        auxiliary: ``invariant``, ``informative`` → accuracy of the shared classifier on that part alone, mean over the
            modalities; empty for targets that are no classes.
        cosines: ``invariant``, ``irrelevant`` → mean absolute cosine with the informative part.
    """

    heads: dict[str, float]
    modality: dict[str, float]
    classes: dict[str, float]
    auxiliary: dict[str, float]
    cosines: dict[str, float]


@dataclass(slots=True)
class Embedded:
    """Embeddings of all rows of one modality.

    Attributes:
        parts: the three parts of each embedding.
        target: target of each row.
    """

    parts: Parts
    target: Tensor


def embed_batches(branches: Sequence[Branches], batches: Iterable[Batch]) -> dict[str, Embedded]:
    """Modality → embeddings and targets of the labelled rows, in the order of the batches, paired or one by one."""
    collected: dict[str, list[tuple[Tensor, ...]]] = {branch.modality: [] for branch in branches}
    for batch in batches:
        for branch in branches:
            if branch.modality in batch.inputs:
                with evaluating(branch):
                    parts = branch.embed(batch.inputs)
                columns: tuple[Tensor, ...] = (*parts, batch.targets[branch.modality])
                labelled = batch.labelled.get(branch.modality)
                if labelled is not None:
                    columns = tuple(column[labelled] for column in columns)
                collected[branch.modality].append(columns)
    empty = [name for name, rows in collected.items() if not rows]
    if empty:
        raise InputError(f"The batches have no rows of {', '.join(empty)}: expected rows of every modality.")
    joined = {name: [torch.cat(column).cpu() for column in zip(*rows, strict=True)] for name, rows in collected.items()}
    return {name: Embedded(Parts(*columns[:3]), columns[3]) for name, columns in joined.items()}


def measure_branches(
    branches: Sequence[Branches], heads: SharedHeads, fitted: Iterable[Batch], held_out: Iterable[Batch]
) -> Content:
    """Score the heads of a training, and probes of its embeddings, on held-out rows.

    Args:
        branches: one per modality, in the order in which the heads number them.
        heads: the heads that the branches share.
        fitted: rows to which the probes are fitted.
        held_out: rows on which heads and probes are scored.
    """
    fit, test = embed_batches(branches, fitted), embed_batches(branches, held_out)
    names = [branch.modality for branch in branches]
    fit_origin, test_origin = (
        torch.cat([torch.full((len(side[name].target),), number) for number, name in enumerate(names)])
        for side in (fit, test)
    )
    fit_rows, test_rows = (
        {part: torch.cat([getattr(side[name].parts, part) for name in names]) for part in PARTS} for side in (fit, test)
    )
    device = next(heads.parameters()).device
    with evaluating(heads):
        head_logits = {
            "adversary": heads.adversary(test_rows["invariant"].to(device)),
            "informative": heads.informative(test_rows["informative"].to(device)),
            "irrelevant": heads.irrelevant(test_rows["irrelevant"].to(device)),
        }
        class_logits = {
            part: {name: heads.auxiliary(getattr(test[name].parts, part).to(device)).cpu() for name in names}
            for part in ("invariant", "informative")
        }
    classes: dict[str, float] = {}
    auxiliary: dict[str, float] = {}
    # A single output is the logit of a binary task or a regression: an argmax over it would always be 0.
    single = class_logits["invariant"][names[0]].shape[1] == 1
    if not single and all(_are_classes(rows.target) for side in (fit, test) for rows in side.values()):
        for part in PARTS:
            classes[part] = _mean(
                [
                    probe(getattr(fit[n].parts, part), fit[n].target, getattr(test[n].parts, part), test[n].target)
                    for n in names
                ]
            )
        for part, tables in class_logits.items():
            auxiliary[part] = _mean([_accuracy(table, test[name].target) for name, table in tables.items()])
    return Content(
        heads={name: _balanced_accuracy(table.cpu(), test_origin) for name, table in head_logits.items()},
        modality={part: probe(fit_rows[part], fit_origin, test_rows[part], test_origin) for part in PARTS},
        classes=classes,
        auxiliary=auxiliary,
        cosines={
            part: float(orthogonality(test_rows["informative"], test_rows[part]))
            for part in ("invariant", "irrelevant")
        },
    )


def probe(fitted: Tensor, classes: Tensor, held_out: Tensor, held_out_classes: Tensor) -> float:
    """Accuracy on held-out rows of a linear classifier in closed form.

    Args:
        fitted: features (n, width) to fit to.
        classes: class numbers (n,) of the fitted rows.
        held_out: features (m, width) to score.
        held_out_classes: class numbers (m,) of the held-out rows.

    Example:
        >>> line, classes = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> score = probe(line, classes, torch.tensor([[0.5], [4.5], [4.4]]), torch.tensor([0, 1, 0]))
        >>> round(score, 4)
        0.6667
    """
    mean, std = fitted.double().mean(dim=0), fitted.double().std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    # Held-out rows are standardised by the fitted ones, so that no statistic of theirs enters the classifier.
    x, z = ((rows.double() - mean) / std for rows in (fitted, held_out))
    y = torch.nn.functional.one_hot(classes, int(max(classes.max(), held_out_classes.max())) + 1).double()
    shares = y.mean(dim=0)
    # Centred columns and targets take the place of an intercept, which the ridge would shrink.
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return _accuracy(z @ torch.linalg.solve(gram, x.T @ (y - shares)) + shares, held_out_classes)


def plane(parts: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[float, float]]:
    """The first two principal components of all rows together: name → (rows, 2), and their shares of the variance.

    Example:
        >>> points, shares = plane({"a": torch.tensor([[0.0, 0.0], [4.0, 0.0]]), "b": torch.tensor([[2.0, 1.0]])})
        >>> [round(value, 3) for value in points["a"][:, 0].tolist()], round(shares[0], 3)
        ([-2.0, 2.0], 0.923)
    """
    rows = torch.cat(list(parts.values())).double()
    if rows.shape[1] < 2 or len(rows) < 2:
        raise InputError(f"The parts have shape {tuple(rows.shape)}: expected two rows and two columns or more.")
    mean = rows.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    # The sign of a singular vector is arbitrary and differs between libraries. Here the largest entry is positive, so
    # that the picture looks the same everywhere.
    two = directions[:2] * directions[:2].gather(1, directions[:2].abs().argmax(dim=1, keepdim=True)).sign()
    # The clamp gives shares of 0 instead of nan where all rows are equal.
    shares = lengths[:2].square() / lengths.square().sum().clamp(min=1e-300)
    points = {name: ((part.double() - mean) @ two.T).float() for name, part in parts.items()}
    return points, (float(shares[0]), float(shares[1]))


def picture(embedded: Mapping[str, Embedded], *, most: int = 60) -> dict[str, Any]:
    """The parts of all modalities in one `plane`, as JSON: ``shares`` of the variance and ``points``.

    Args:
        embedded: result of `embed_batches`.
        most: number of rows of each modality to use, from the first on.
    """
    parts = {(name, part): getattr(rows.parts, part)[:most] for name, rows in embedded.items() for part in PARTS}
    points, shares = plane({f"{name} {part}": rows for (name, part), rows in parts.items()})
    groups = [
        {"modality": name, "part": part, "at": points[f"{name} {part}"].double().round(decimals=4).tolist()}
        for name, part in parts
    ]
    return {"shares": list(shares), "points": groups}


def _are_classes(target: Tensor) -> bool:
    return target.ndim == 1 and not target.is_floating_point()


def _balanced_accuracy(logits: Tensor, modality: Tensor) -> float:
    """Mean of the accuracies of each modality: the chance level is 1 / modalities, however many rows each has."""
    return _mean(
        [_accuracy(logits[modality == value], modality[modality == value]) for value in range(int(modality.max()) + 1)]
    )


def _accuracy(logits: Tensor, target: Tensor) -> float:
    return float((logits.argmax(dim=1) == target).double().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

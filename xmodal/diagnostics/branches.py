r"""What the three parts of DisCoM-KD's embeddings contain: which of them know the class, which give the modality away.

A probe is a linear classifier in closed form, fitted to the embeddings of some rows and scored on others:

$$W = \left(X^\top X + \lambda n I\right)^{-1} X^\top Y, \qquad \text{answer} = \arg\max_k (x W)_k$$

with X (n, width) standardised by its own rows and a column of ones, Y the classes (or modalities) as 0 and 1 less their
means, and λ = 0.001. The heads of the training itself are scored on the same held-out rows.
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

RIDGE = 1e-3
PARTS = Parts._fields


@dataclass(frozen=True, slots=True)
class Content:
    """What `measure_branches` found on held-out rows; accuracies are shares from 0 to 1.

    The chance of telling the modality is 1 / their number. What the training wants: the invariant part at that chance,
    the other two at 1; both cosines near 0. Nothing in the objective takes the class out of the irrelevant part.

    Attributes:
        heads: ``adversary`` (reads the invariant part), ``informative`` and ``irrelevant`` → accuracy of the modality.
        modality: part → accuracy of a probe of the modality, fitted afterwards.
        classes: part → accuracy of a probe of the class, mean over the modalities; empty where targets are no classes.
        auxiliary: ``invariant``, ``informative`` → accuracy of the shared classifier on that part alone, mean over the
            modalities; empty where targets are no classes.
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
        parts: the three parts.
        target: of each row.
    """

    parts: Parts
    target: Tensor


def embed_batches(branches: Sequence[Branches], batches: Iterable[Batch]) -> dict[str, Embedded]:
    """Modality → embeddings and targets of all rows, in the order of the batches; paired or one after the other."""
    kept: dict[str, list[tuple[Tensor, ...]]] = {each.modality: [] for each in branches}
    for batch in batches:
        for each in branches:
            if each.modality in batch.inputs:
                with evaluating(each):
                    found = each.embed(batch.inputs)
                kept[each.modality].append((*found, batch.targets[each.modality]))
    empty = [name for name, rows in kept.items() if not rows]
    if empty:
        raise InputError(f"The batches hold no rows of {', '.join(empty)}: every modality was expected.")
    joined = {name: [torch.cat(column).cpu() for column in zip(*rows, strict=True)] for name, rows in kept.items()}
    return {name: Embedded(Parts(*columns[:3]), columns[3]) for name, columns in joined.items()}


def measure_branches(
    branches: Sequence[Branches], heads: SharedHeads, fitted: Iterable[Batch], held_out: Iterable[Batch]
) -> Content:
    """Score the heads of a training, and probes of its embeddings, on rows that neither has seen.

    Args:
        branches: one per modality, in the order in which the heads number them.
        heads: shared by them.
        fitted: rows to which the probes are fitted.
        held_out: rows on which all is scored.
    """
    known, new = embed_batches(branches, fitted), embed_batches(branches, held_out)
    names = [each.modality for each in branches]
    origin = [torch.full((len(side[name].target),), place) for side in (known, new) for place, name in enumerate(names)]
    told, asked = torch.cat(origin[: len(names)]), torch.cat(origin[len(names) :])
    columns = {part: (_column(known, names, part), _column(new, names, part)) for part in PARTS}
    modality = {part: probe(before, told, after, asked) for part, (before, after) in columns.items()}
    seen = {name: columns[name][1] for name in ("invariant", "informative", "irrelevant")}
    device = next(heads.parameters()).device
    with evaluating(heads):
        answers = {
            "adversary": heads.adversary(seen["invariant"].to(device)),
            "informative": heads.informative(seen["informative"].to(device)),
            "irrelevant": heads.irrelevant(seen["irrelevant"].to(device)),
        }
        shared = {
            part: [heads.auxiliary(getattr(new[name].parts, part).to(device)).cpu() for name in names]
            for part in ("invariant", "informative")
        }
    classified = all(_are_classes(each.target) for side in (known, new) for each in side.values())
    classified &= shared["invariant"][0].shape[1] > 1
    return Content(
        heads={name: _evenly(table.cpu(), asked) for name, table in answers.items()},
        modality=modality,
        classes={part: _classes(known, new, names, part) for part in PARTS} if classified else {},
        auxiliary={
            part: _mean([_accuracy(table, new[name].target) for table, name in zip(tables, names, strict=True)])
            for part, tables in shared.items()
        }
        if classified
        else {},
        cosines={part: float(orthogonality(seen["informative"], seen[part])) for part in ("invariant", "irrelevant")},
    )


def probe(fitted: Tensor, told: Tensor, held_out: Tensor, asked: Tensor) -> float:
    """Accuracy on held-out rows of a linear classifier in closed form.

    Args:
        fitted: features (n, width) to fit to.
        told: their class numbers (n,).
        held_out: features (m, width) to score.
        asked: their class numbers (m,).

    Example:
        >>> line, classes = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> score = probe(line, classes, torch.tensor([[0.5], [4.5], [4.4]]), torch.tensor([0, 1, 0]))
        >>> round(score, 4)
        0.6667
    """
    mean, spread = fitted.double().mean(dim=0), fitted.double().std(dim=0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    x, z = ((rows.double() - mean) / spread for rows in (fitted, held_out))
    y = torch.nn.functional.one_hot(told, int(max(told.max(), asked.max())) + 1).double()
    middle = y.mean(dim=0)
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return _accuracy(z @ torch.linalg.solve(gram, x.T @ (y - middle)) + middle, asked)


def plane(parts: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[float, float]]:
    """The two directions along which all rows together vary most: name → (rows, 2), and their shares of the variance.

    Signs are chosen so that the largest entry of a direction is positive: the picture does not turn over.

    Example:
        >>> points, shares = plane({"a": torch.tensor([[0.0, 0.0], [4.0, 0.0]]), "b": torch.tensor([[2.0, 1.0]])})
        >>> [round(value, 3) for value in points["a"][:, 0].tolist()], round(shares[0], 3)
        ([-2.0, 2.0], 0.923)
    """
    rows = torch.cat(list(parts.values())).double()
    if rows.shape[1] < 2 or len(rows) < 2:
        raise InputError(f"The parts have shape {tuple(rows.shape)}: two rows and two columns or more were expected.")
    middle = rows.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(rows - middle, full_matrices=False)
    two = directions[:2] * directions[:2].gather(1, directions[:2].abs().argmax(dim=1, keepdim=True)).sign()
    shares = lengths[:2].square() / lengths.square().sum().clamp(min=1e-300)
    points = {name: ((part.double() - middle) @ two.T).float() for name, part in parts.items()}
    return points, (float(shares[0]), float(shares[1]))


def picture(embedded: Mapping[str, Embedded], *, most: int = 60) -> dict[str, Any]:
    """The parts of all modalities in one `plane`, as JSON: ``shares`` of the variance and ``points``.

    Args:
        embedded: what `embed_batches` answers.
        most: rows of each modality, from the first on.
    """
    parts = {(name, part): getattr(found.parts, part)[:most] for name, found in embedded.items() for part in PARTS}
    points, shares = plane({f"{name} {part}": rows for (name, part), rows in parts.items()})
    drawn = [
        {"modality": name, "part": part, "at": points[f"{name} {part}"].double().round(decimals=4).tolist()}
        for name, part in parts
    ]
    return {"shares": list(shares), "points": drawn}


def _column(side: Mapping[str, Embedded], names: Sequence[str], part: str) -> Tensor:
    return torch.cat([getattr(side[name].parts, part) for name in names])


def _classes(known: Mapping[str, Embedded], new: Mapping[str, Embedded], names: Sequence[str], part: str) -> float:
    return _mean(
        [
            probe(getattr(known[n].parts, part), known[n].target, getattr(new[n].parts, part), new[n].target)
            for n in names
        ]
    )


def _are_classes(target: Tensor) -> bool:
    return target.ndim == 1 and not target.is_floating_point()


def _evenly(table: Tensor, modality: Tensor) -> float:
    """Mean over the modalities of their accuracies: chance is 1 / modalities, however many rows each has."""
    return _mean(
        [_accuracy(table[modality == value], modality[modality == value]) for value in range(int(modality.max()) + 1)]
    )


def _accuracy(table: Tensor, target: Tensor) -> float:
    return float((table.argmax(dim=1) == target).double().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

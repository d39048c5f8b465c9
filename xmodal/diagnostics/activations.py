"""Both networks over all batches: one as far as a place and on to its answers, the other to its answers alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.diagnostics.tail import NOWHERE, Rows
from xmodal.errors import InputError
from xmodal.models.cut import Split, alike, split
from xmodal.models.feature_layers import check_layer, replacing
from xmodal.types import Batch

PIECE = 32  # rows; of 64 to 16, the quickest for the RAVDESS networks (benchmarks/saliency.py)


def run_both(
    network: nn.Module,
    other: nn.Module,
    batches: Iterable[Batch],
    place: str,
    *,
    targets: bool,
    whole: bool,
    ignore: int | None = None,
) -> tuple[Split | None, list[Rows]]:
    """Every batch through both networks, which are in eval mode.

    Args:
        network: whose channels will be disturbed.
        other: answers alone.
        batches: paired.
        place: in ``network``.
        targets: whether the targets are wanted.
        whole: do not cut the network.
        ignore: target value that counts nowhere.

    Returns:
        The cut network, None where it must run as a whole, and the rows of each batch.
    """
    parts: list[Rows] = []
    given: Any
    first: tuple[Tensor, Any] | None = None
    cut: Split | None = None
    for number, batch in enumerate(batches):
        inputs, theirs, target = _valid(batch.to(_device(network)), batch.to(_device(other)), targets, ignore)
        if not len(next(iter(inputs.values()))):
            continue
        if not parts:
            check_layer(network, place, inputs)
            cut, first = (None, None) if whole else split(network, place, inputs, most=_most(network))
            if cut is not None and not cut.matters:
                raise InputError(f"The network's answers do not depend on '{place}'. Choose another place.")
        if cut is not None:
            features, given = first or cut.head(inputs, most=_most(network))
            answers, first = cut.tail(features, given), None
        else:
            features, answers = _capture(network, place, inputs)
            given = inputs
        heard = _in_pieces(other, theirs, _most(other)).to(answers.device)
        _check_answers(answers, heard, features, number)
        parts.append(Rows(features, given, answers, heard, target))
    if not parts:
        raise InputError("There are no rows that count; at least one batch was expected.")
    return cut, _joined(parts, place)


def _in_pieces(network: nn.Module, inputs: dict[str, Tensor], most: int | None) -> Tensor:
    """Answers, a few rows at a time where they do not depend on one another: large pictures fill the memory at once."""
    rows = len(next(iter(inputs.values())))
    if most is None or rows <= most or any(len(value) != rows for value in inputs.values()):
        answers: Tensor = network(inputs)
        return answers
    pieces = [network({name: value[at : at + most] for name, value in inputs.items()}) for at in range(0, rows, most)]
    alone = network({name: value[:2] for name, value in inputs.items()})
    if all(isinstance(piece, Tensor) for piece in pieces) and alike(pieces[0][:2], alone):
        return torch.cat(pieces)
    whole: Tensor = network(inputs)
    return whole


def _capture(network: nn.Module, place: str, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features and answers from one run of the whole network."""
    seen: list[Tensor] = []

    def remember(found: Tensor) -> Tensor:
        seen.append(found.clone())
        return found

    with replacing(network, place, remember):
        answers: Tensor = network(inputs)
    if len(seen) != 1:
        raise InputError(
            f"The layer '{place}' runs {len(seen)} times for one batch: expected once. Choose a layer of its own."
        )
    return seen[0], answers


def _valid(
    ours: Batch, theirs: Batch, targets: bool, ignore: int | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Inputs of both and targets of the rows that count, dense targets with `NOWHERE` at places that do not."""
    if not ours.paired:
        raise InputError("The batches are unpaired: both networks must answer for the same samples. Use paired data.")
    rows = len(next(iter(ours.inputs.values())))
    keep = torch.ones(rows, dtype=torch.bool)
    target = ours.target if targets else None
    known = None if target is None or ignore is None else target != ignore
    for mask in [*ours.valid.values(), *([] if known is None else [known])]:
        places = mask.cpu().reshape(len(mask), -1)
        keep &= places.any(dim=1)  # a row is left out where none of its places counts
        if target is not None and mask.shape == target.shape:
            target = target.masked_fill(~mask, NOWHERE)
    both = [{name: value[keep.to(value.device)] for name, value in side.inputs.items()} for side in (ours, theirs)]
    if bool(keep.all()):
        both = [ours.inputs, theirs.inputs]
    return both[0], both[1], None if target is None else target[keep.to(target.device)]


def _joined(parts: list[Rows], place: str) -> list[Rows]:
    """The same parts, with features that are slices of one tensor."""
    shapes = sorted({tuple(part.features.shape[1:]) for part in parts})
    if len(shapes) > 1:
        found = " and ".join(map(str, shapes))
        raise InputError(f"Samples at '{place}' have shapes {found}: expected one shape. Choose another place.")
    sizes = [len(part.features) for part in parts]
    for part, features in zip(parts, torch.split(torch.cat([part.features for part in parts]), sizes), strict=True):
        part.features = features
    return parts


def _check_answers(ours: Tensor, theirs: Tensor, features: Tensor, number: int) -> None:
    if ours.shape != theirs.shape or ours.ndim < 2 or len(features) != len(ours):
        raise InputError(
            f"The networks answer batch {number} with shapes {tuple(ours.shape)} and {tuple(theirs.shape)}, from "
            f"features {tuple(features.shape)}: expected the same shape (rows, answers), rows as in the features."
        )
    if not bool(ours.isfinite().all() and theirs.isfinite().all() and features.isfinite().all()):
        raise InputError(f"Features or answers of batch {number} are not all finite. Check the weights and the data.")


def _most(network: nn.Module) -> int | None:
    """Rows to run at a time: on a CPU few, so that activations come to lie in memory that is at hand already."""
    return PIECE if _device(network).type == "cpu" else None


def _device(network: nn.Module) -> torch.device:
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))

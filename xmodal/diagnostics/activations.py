"""Run both networks over all batches: the disturbed one up to a layer and on to its outputs, the other as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.diagnostics.tail import INVALID, Rows
from xmodal.errors import InputError
from xmodal.models.cut import Split, alike, split
from xmodal.models.feature_layers import check_layer, replacing
from xmodal.types import Batch

PIECE = 32  # rows; of 64 to 16, the fastest for the RAVDESS networks (benchmarks/saliency.py)


def run_both(
    network: nn.Module,
    other: nn.Module,
    batches: Iterable[Batch],
    layer: str,
    *,
    targets: bool,
    whole: bool,
    ignore: int | None = None,
) -> tuple[Split | None, list[Rows]]:
    """Run every batch through both networks, which are in eval mode.

    Args:
        network: the network whose channels will be disturbed.
        other: the network whose outputs it is compared with.
        batches: paired.
        layer: layer of ``network``, or ``input:<modality>``.
        targets: whether the rows need targets.
        whole: do not cut the network.
        ignore: target value of unlabelled positions.

    Returns:
        The cut network, None where it must run as a whole, and the rows of each batch.
    """
    parts: list[Rows] = []
    context: Any
    first: tuple[Tensor, Any] | None = None
    cut: Split | None = None
    for number, batch in enumerate(batches):
        # Each side on the device of its network: teacher and student may lie on different devices.
        inputs, other_inputs, target = _valid(batch.to(_device(network)), batch.to(_device(other)), targets, ignore)
        if not len(next(iter(inputs.values()))):
            continue
        if not parts:
            check_layer(network, layer, inputs)
            # Cutting runs the head on the first batch as a check; its result is used instead of a second run.
            cut, first = (None, None) if whole else split(network, layer, inputs, most=_piece_size(network))
            if cut is not None and not cut.matters:
                raise InputError(f"The network's outputs do not depend on '{layer}'. Choose another layer.")
        if cut is not None:
            features, context = first or cut.head(inputs, most=_piece_size(network))
            outputs, first = cut.tail(features, context), None
        else:
            features, outputs = _capture(network, layer, inputs)
            context = inputs
        other_outputs = _run_in_pieces(other, other_inputs, _piece_size(other)).to(outputs.device)
        _check_outputs(outputs, other_outputs, features, number)
        parts.append(Rows(features, context, outputs, other_outputs, target))
    if not parts:
        raise InputError("There are no valid rows: expected one batch or more with a valid row.")
    return cut, _joined(parts, layer)


def _run_in_pieces(network: nn.Module, inputs: dict[str, Tensor], most: int | None) -> Tensor:
    """Outputs, computed a few rows at a time where rows do not depend on one another, because images need memory."""
    rows = len(next(iter(inputs.values())))
    if most is None or rows <= most or any(len(value) != rows for value in inputs.values()):
        outputs: Tensor = network(inputs)
        return outputs
    pieces = [network({name: value[at : at + most] for name, value in inputs.items()}) for at in range(0, rows, most)]
    # A network that mixes the rows of a batch gives two rows other outputs than a piece that contains them.
    two_rows = network({name: value[:2] for name, value in inputs.items()})
    if all(isinstance(piece, Tensor) for piece in pieces) and alike(pieces[0][:2], two_rows):
        return torch.cat(pieces)
    whole: Tensor = network(inputs)
    return whole


def _capture(network: nn.Module, layer: str, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features and outputs from one run of the whole network."""
    captured: list[Tensor] = []

    def capture(features: Tensor) -> Tensor:
        # A copy: a layer that follows may work in place, as ReLU(inplace=True) does.
        captured.append(features.clone())
        return features

    with replacing(network, layer, capture):
        outputs: Tensor = network(inputs)
    if len(captured) != 1:
        raise InputError(
            f"The layer '{layer}' runs {len(captured)} times for one batch: expected once. Choose a layer that is used "
            "once."
        )
    return captured[0], outputs


def _valid(
    batch: Batch, other_batch: Batch, targets: bool, ignore: int | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Inputs of both and targets of the valid rows, dense targets with `INVALID` at invalid positions."""
    if not batch.paired:
        raise InputError("The batches are unpaired: both networks must predict the same samples. Use paired data.")
    rows = len(next(iter(batch.inputs.values())))
    keep = torch.ones(rows, dtype=torch.bool)
    target = batch.target if targets else None
    labelled = None if target is None or ignore is None else target != ignore
    for mask in [*batch.valid.values(), *([] if labelled is None else [labelled])]:
        # A dense row has one output map for all positions, so it can only be dropped as a whole, when none is valid.
        keep &= mask.cpu().reshape(len(mask), -1).any(dim=1)
        if target is not None and mask.shape == target.shape:
            target = target.masked_fill(~mask, INVALID)
    if bool(keep.all()):
        # Indexing would copy the inputs, the largest tensors of all.
        inputs, other_inputs = batch.inputs, other_batch.inputs
    else:
        inputs = {name: value[keep.to(value.device)] for name, value in batch.inputs.items()}
        other_inputs = {name: value[keep.to(value.device)] for name, value in other_batch.inputs.items()}
    return inputs, other_inputs, None if target is None else target[keep.to(target.device)]


def _joined(parts: list[Rows], layer: str) -> list[Rows]:
    """The same parts, with features that are slices of one tensor."""
    shapes = sorted({tuple(part.features.shape[1:]) for part in parts})
    if len(shapes) > 1:
        listed = " and ".join(map(str, shapes))
        raise InputError(f"Samples at '{layer}' have shapes {listed}: expected one shape. Choose another layer.")
    sizes = [len(part.features) for part in parts]
    for part, features in zip(parts, torch.split(torch.cat([part.features for part in parts]), sizes), strict=True):
        part.features = features
    return parts


def _check_outputs(outputs: Tensor, other_outputs: Tensor, features: Tensor, number: int) -> None:
    if outputs.shape != other_outputs.shape or outputs.ndim < 2 or len(features) != len(outputs):
        raise InputError(
            f"For batch {number} the networks' outputs have shapes {tuple(outputs.shape)} and "
            f"{tuple(other_outputs.shape)}, from features {tuple(features.shape)}: expected the same shape (rows, …) "
            "for both, with as many rows as the features."
        )
    if not bool(outputs.isfinite().all() and other_outputs.isfinite().all() and features.isfinite().all()):
        raise InputError(f"Features or outputs of batch {number} are not all finite. Check the weights and the data.")


def _piece_size(network: nn.Module) -> int | None:
    """Rows to run at a time; None: all."""
    # On a CPU, activations of a few rows reuse memory that is already mapped and partly in the cache; a GPU needs many
    # rows to be busy.
    return PIECE if _device(network).type == "cpu" else None


def _device(network: nn.Module) -> torch.device:
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))

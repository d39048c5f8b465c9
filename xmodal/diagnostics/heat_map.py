r"""Heat maps: at which places of its input a trained classifier would change its mind about the true class.

$$h = \Big| \frac{\partial \, CE(f(x), y)}{\partial x} \Big|$$

The largest value over channels at each place of a picture (each value of a vector), moved and scaled to run from 0 to 1
in every sample.

Reference: Simonyan et al.: Deep Inside Convolutional Networks, 2013, arXiv 1312.6034; in this form in the authors' code
of the Non-target Divergence Hypothesis, 2024, arXiv 2409.02438.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.task import task_values
from xmodal.models.network import evaluating, pick_input
from xmodal.types import Batch

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMaps:
    """What `heat_maps` found.

    A bright place is one at which a small change of the input would change the loss most; a network that reads the
    digit and not the background is bright at the digit. The scale is each sample's own, so brightness says nothing
    about how sure the network is.

    Attributes:
        modality: whose input was looked at.
        gradient: ∂CE/∂input (rows, channels, …).
        value: its size, the largest over channels, from 0 to 1 in each sample (rows, …), of vectors (rows, channels);
            all 0 where it is the same everywhere.
        answer: class that the network names (rows,).
        target: true class (rows,).
    """

    modality: str
    gradient: Floats
    value: Floats
    answer: NDArray[np.int64]
    target: NDArray[np.int64]


def heat_maps(network: nn.Module, batch: Batch, modality: str) -> HeatMaps:
    """Where the loss of a classifier hangs on its input; modes and gradients of the network are as before afterwards.

    Args:
        network: takes a dictionary of inputs, returns outputs (rows, classes).
        batch: any number of samples, with class numbers as targets.
        modality: the input to look at, (rows, channels, …).

    Example:
        >>> from xmodal.models.network import wrap
        >>> network = wrap(nn.Flatten(), ["image"])
        >>> picture = torch.tensor([[[[3.0, 0.0, 0.0]]]])  # three places, one class for each
        >>> batch = Batch({"image": picture}, {"image": torch.tensor([1])})
        >>> heat_maps(network, batch, "image").value.round(2).tolist()
        [[[0.95, 1.0, 0.0]]]
    """
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    batch = batch.to(device)
    samples = pick_input(batch.inputs, modality).detach().clone()
    if samples.ndim < 2 or not samples.is_floating_point():
        raise InputError(f"'{modality}' has shape {tuple(samples.shape)}: expected floats (rows, channels, …).")
    with evaluating(network), torch.enable_grad():
        samples.requires_grad_()
        outputs = network({**batch.inputs, modality: samples})
        # a sum: each sample's loss depends on that sample alone, so each gets its own gradient
        loss = task_values(outputs, batch.target, task="multiclass").sum()
        gradient = torch.autograd.grad(loss, samples, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise InputError(f"The network's answers do not depend on '{modality}'. Choose a modality that it reads.")
    size = gradient.abs().double().cpu()
    size = size if size.ndim == 2 else size.amax(dim=1)
    return HeatMaps(
        modality=modality,
        gradient=gradient.double().cpu().numpy(),
        value=_scaled(size).numpy(),
        answer=outputs.argmax(dim=1).cpu().numpy(),
        target=batch.target.cpu().numpy(),
    )


def one_of_each(batches: Iterable[Batch]) -> Batch:
    """The first sample of every class in some paired batches, in the order of the classes."""
    found: dict[int, tuple[Batch, int]] = {}
    for batch in batches:
        for row, value in enumerate(batch.target.tolist()):
            found.setdefault(value, (batch, row))
    if not found:
        raise InputError("There are no samples; at least one was expected.")
    chosen = [found[value] for value in sorted(found)]
    names = chosen[0][0].inputs
    target = torch.tensor(sorted(found))
    return Batch(
        {name: torch.stack([batch.inputs[name][row].cpu() for batch, row in chosen]) for name in names},
        dict.fromkeys(names, target),
    )


def _scaled(size: Tensor) -> Tensor:
    flat = size.flatten(1)
    low, span = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True) - flat.amin(dim=1, keepdim=True)
    return ((flat - low) / torch.where(span > 0, span, torch.ones_like(span))).reshape(size.shape)

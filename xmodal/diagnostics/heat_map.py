r"""Heat maps: how strongly the loss of a trained classifier depends on each position of its input.

$$h = \Big| \frac{\partial \, CE(f(x), y)}{\partial x} \Big|$$

The largest value over channels at each position of an image (each entry of a vector), min-max normalised to [0, 1] in
every sample.

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

from xmodal.diagnostics.labelled import labelled_rows
from xmodal.errors import InputError
from xmodal.losses.task import task_values
from xmodal.models.network import evaluating, pick_input
from xmodal.types import Batch

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMaps:
    """Result of `heat_maps`.

    At a bright position a small change of the input changes the loss most: a network that reads the digit and not the
    background is bright at the digit. Each sample is scaled separately, so brightness does not show how confident the
    network is.

    Attributes:
        modality: the modality whose input is differentiated.
        gradient: ∂CE/∂input (rows, channels, …).
        value: absolute gradient, the largest over channels, scaled to [0, 1] in each sample (rows, …), of vectors
            (rows, channels); all 0 where it is the same everywhere.
        answer: predicted class (rows,).
        target: true class (rows,).
    """

    modality: str
    gradient: Floats
    value: Floats
    answer: NDArray[np.int64]
    target: NDArray[np.int64]


def heat_maps(network: nn.Module, batch: Batch, modality: str) -> HeatMaps:
    """Absolute gradient of the loss with respect to the input; the network keeps its modes and gradients.

    Args:
        network: takes a dictionary of inputs, returns outputs (rows, classes).
        batch: any number of samples, with class numbers as targets.
        modality: the input to differentiate by, (rows, channels, …).

    Example:
        >>> from xmodal.models.network import wrap
        >>> network = wrap(nn.Flatten(), ["image"])
        >>> picture = torch.tensor([[[[3.0, 0.0, 0.0]]]])  # three positions, one class for each
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
        # A sum: in eval mode each sample's loss depends on that sample alone, so one backward pass gives all gradients.
        loss = task_values(outputs, batch.target, task="multiclass").sum()
        # `grad` and not `backward`: the gradients of the weights stay untouched.
        gradient = torch.autograd.grad(loss, samples, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise InputError(f"The network's outputs do not depend on '{modality}'. Choose a modality that it reads.")
    magnitude = gradient.abs().double().cpu()
    magnitude = magnitude if magnitude.ndim == 2 else magnitude.amax(dim=1)
    return HeatMaps(
        modality=modality,
        gradient=gradient.double().cpu().numpy(),
        value=_scaled(magnitude).numpy(),
        answer=outputs.argmax(dim=1).cpu().numpy(),
        target=batch.target.cpu().numpy(),
    )


def one_of_each(batches: Iterable[Batch]) -> Batch:
    """The first labelled sample of every class in paired batches, in the order of the classes."""
    samples: dict[int, tuple[Batch, int]] = {}
    for batch in labelled_rows(batches):
        for row, value in enumerate(batch.target.tolist()):
            samples.setdefault(value, (batch, row))
    if not samples:
        raise InputError("There are no samples: expected one or more.")
    classes = sorted(samples)
    rows = [samples[value] for value in classes]
    names = rows[0][0].inputs
    return Batch(
        {name: torch.stack([batch.inputs[name][row].cpu() for batch, row in rows]) for name in names},
        dict.fromkeys(names, torch.tensor(classes)),
    )


def _scaled(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    low, span = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True) - flat.amin(dim=1, keepdim=True)
    return ((flat - low) / torch.where(span > 0, span, torch.ones_like(span))).reshape(values.shape)

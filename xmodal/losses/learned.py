"""Losses with trainable parameters, which the optimiser updates with those of the student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from xmodal.losses.adversarial import reverse_gradient
from xmodal.losses.logits import kl


class CTKD(nn.Module):
    r"""Curriculum temperature: one learned temperature that makes the student's task harder during training.

    The student minimises the loss and the temperature maximises it: the gradient of the temperature is reversed, with a
    strength that grows from 0 to 1 along half a cosine during the first epochs.

    $$L = \tau^2 \, \mathrm{KL}\left(\mathrm{softmax}(t / \tau) \,\|\, \mathrm{softmax}(s / \tau)\right), \quad
    \tau = a + b \, \sigma(\theta), \quad
    \frac{\partial L}{\partial \theta} \leftarrow -\lambda \frac{\partial L}{\partial \theta}, \quad
    \lambda = \tfrac12 \left(1 - \cos \pi \min(1, e / E)\right)$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …) |
    | a, b | ``start``, ``span`` | numbers |
    | θ | the parameter ``theta``, starts at ``initial`` | () |
    | E | ``ramp_epochs`` | epochs until full strength |
    | e, λ | ``on_epoch_start``, ``strength`` | numbers |

    Published versions differ: the paper uses a ramp of 10 epochs, its rerun as a competitor of DisCoM-KD one of 5 (as
    here) with 0.1 cross-entropy + 0.9 of this term. The paper's variant with one temperature per sample is not
    included.

    Args:
        start: a, the lowest temperature.
        span: b, the temperature stays below a + b.
        initial: θ before training.
        ramp_epochs: E; 0: full strength from the first epoch.

    Example:
        >>> loss = CTKD(initial=0.0)
        >>> loss.temperature.item()
        11.0
        >>> round(loss(torch.zeros(1, 2), torch.tensor([[22.0, 0.0]])).item(), 4)
        39.6654

    Reference: Li et al.: Curriculum Temperature for Knowledge Distillation, 2023, equations 3 to 8.
    """

    def __init__(self, *, start: float = 1.0, span: float = 20.0, initial: float = 1.0, ramp_epochs: int = 5) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(float(initial)))
        self.start, self.span, self.ramp_epochs = start, span, ramp_epochs
        self.strength = 1.0
        self.on_epoch_start(0)

    @property
    def temperature(self) -> Tensor:
        """τ, without gradient reversal."""
        return self.start + self.span * self.theta.sigmoid()

    def on_epoch_start(self, epoch: int, epochs: int = 0) -> None:
        """Set λ for an epoch, counted from 0; ``epochs`` has no effect."""
        self.strength = ramp(epoch, self.ramp_epochs)

    def forward(self, student: Tensor, teacher: Tensor, *, reduction: str = "batchmean") -> Tensor:
        """The loss; ``reduction`` as in `kl`."""
        # `kl` uses the reversed temperature for its factor τ² too, so all of the gradient that reaches θ is reversed.
        temperature = reverse_gradient(self.temperature, self.strength)
        return kl(student, teacher, temperature=temperature, reduction=reduction)


def ramp(epoch: int, epochs: int) -> float:
    """Half a cosine that rises from 0 at epoch 0 to 1 at ``epochs`` and stays there.

    Example:
        >>> [round(ramp(epoch, 4), 3) for epoch in (0, 1, 2, 4, 9)]
        [0.0, 0.146, 0.5, 1.0, 1.0]
    """
    return (1 - math.cos(math.pi * min(1.0, epoch / epochs))) / 2 if epochs > 0 else 1.0

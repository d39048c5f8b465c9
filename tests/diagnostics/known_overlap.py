"""Data whose overlap is known, and a pair of linear networks that were trained to solve it and to agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xmodal.models.network import wrap
from xmodal.types import Batch


@dataclass
class Problem:
    """Two modalities with known decisive and shared channels."""

    seed: int
    batch: Batch
    general: dict[str, np.ndarray]  # modality → numbers of its shared decisive channels
    decisive: dict[str, np.ndarray]
    counts: tuple[int, int, int]  # specific to a, to b, general

    @property
    def alpha(self):
        return self.counts[0] / (self.counts[0] + self.counts[2])

    @property
    def beta(self):
        return self.counts[1] / (self.counts[1] + self.counts[2])

    @property
    def gamma(self):
        return self.counts[2] / sum(self.counts)


def make_problem(seed, *, rows=400, counts=None, widths=None, classes=None, even=False):
    """Gaussian columns; the label says which of several random linear functions of the decisive ones is largest.

    With ``even`` all decisive columns weigh the same, so that none is too weak to be detected.
    """
    random = np.random.default_rng(seed)
    specific_a, specific_b, general = counts or (int(random.integers(0, 9)), int(random.integers(0, 9)), 0)
    if counts is None:
        least = max(1, 2 - min(specific_a, specific_b))
        general = int(random.integers(least, 13))
    classes = classes or int(random.integers(2, 5))
    widths = widths or tuple(int(random.integers(22, 41)) for _ in "ab")
    hidden = random.normal(size=(rows, specific_a + specific_b + general))
    weights = random.normal(size=(hidden.shape[1], classes))
    weights = np.sign(weights[:, :1]) * np.linspace(-1, 1, classes) if even else weights
    target = (hidden @ weights).argmax(axis=1)
    held = {"a": np.r_[:specific_a, specific_a + specific_b : hidden.shape[1]]}
    held["b"] = np.r_[specific_a : hidden.shape[1]]
    inputs, shared, decisive = {}, {}, {}
    for name, width in zip("ab", widths, strict=True):
        inputs[name] = random.normal(size=(rows, width))
        decisive[name] = random.permutation(width)[: len(held[name])]
        inputs[name][:, decisive[name]] = hidden[:, held[name]]
        shared[name] = decisive[name][held[name] >= specific_a + specific_b]
    label = torch.tensor(target)
    tensors = {name: torch.tensor(values, dtype=torch.float32) for name, values in inputs.items()}
    return Problem(
        seed, Batch(tensors, dict.fromkeys("ab", label)), shared, decisive, (specific_a, specific_b, general)
    )


def half(batch, part):
    """The first (0) or second (1) half of the rows."""
    rows = slice(0, len(batch.target) // 2) if part == 0 else slice(len(batch.target) // 2, None)
    return Batch({name: value[rows] for name, value in batch.inputs.items()}, dict.fromkeys("ab", batch.target[rows]))


def train_jointly(batches, *, seed=0, epochs=1000, rate=0.01, momentum=0.9):
    """CE + CE + MSE by full-batch descent, both networks linear: a pair of networks per batch.

    The batches have one number of rows and of classes; they are trained as one stack, narrow ones padded with zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.stack([batch.target for batch in batches])
    one_hot = torch.nn.functional.one_hot(target).float()
    rows, classes = one_hot.shape[1:]
    x, weights, speed = {}, {}, {}
    for name in "ab":
        widths = [batch.inputs[name].shape[1] for batch in batches]
        x[name] = torch.zeros(len(batches), rows, max(widths) + 1)
        weights[name] = torch.zeros(len(batches), max(widths) + 1, classes)
        for place, (batch, width) in enumerate(zip(batches, widths, strict=True)):
            x[name][place, :, :width], x[name][place, :, -1] = batch.inputs[name], 1.0
            start = (2 * torch.rand(width + 1, classes, generator=generator) - 1) / width**0.5
            weights[name][place, :width], weights[name][place, -1] = start[:-1], start[-1]
        speed[name] = torch.zeros_like(weights[name])
    for _ in range(epochs):
        logits = {name: x[name] @ weights[name] for name in "ab"}
        apart = 2 * (logits["a"] - logits["b"]) / classes
        for name, sign in (("a", 1), ("b", -1)):
            slope = (logits[name].softmax(dim=2) - one_hot + sign * apart) / rows
            speed[name] = momentum * speed[name] + x[name].transpose(1, 2) @ slope
            weights[name] = weights[name] - rate * speed[name]
    return [
        tuple(_linear(weights[name][place], batch.inputs[name].shape[1], name) for name in "ab")
        for place, batch in enumerate(batches)
    ]


def _linear(weight, width, name):
    layer = nn.Linear(width, weight.shape[1])
    with torch.no_grad():
        layer.weight.copy_(weight[:width].T)
        layer.bias.copy_(weight[-1])
    return wrap(layer, [name])

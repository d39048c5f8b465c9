"""Algorithm 1 as loops, and networks for it: the reference that the tests compare the fast forms with."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from xmodal.models.feature_layers import replacing
from xmodal.types import Batch


class Residual(nn.Module):
    """A network for these tests: BatchNorm with random statistics, a shortcut, and functions instead of layers."""

    def __init__(self, *, outputs=3):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.inner, self.act, self.drop = nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Dropout(0.4)
        self.last = nn.Linear(6, outputs)

    def forward(self, inputs):
        x = self.norm(self.first(inputs["sound"]))
        y = self.act(self.inner(torch.relu(x)))
        return self.last(self.drop(y) + x)


def randomised(network, seed=0):
    """Random weights and BatchNorm statistics, so that no terms cancel; the network stays in train mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return network.train()


def make_batches(*sizes, seed=0, classes=3, shapes=((4,), (5,))):
    """Paired batches of 'sound' and 'image' with these numbers of rows."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for rows in sizes:
        target = torch.randint(0, classes, (rows,), generator=generator)
        inputs = {
            name: torch.randn(rows, *shape, generator=generator)
            for name, shape in zip(("sound", "image"), shapes, strict=True)
        }
        batches.append(Batch(inputs, dict.fromkeys(inputs, target)))
    return batches


def joined(batches):
    """The batches joined into one."""
    inputs = {name: torch.cat([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return Batch(inputs, dict.fromkeys(inputs, torch.cat([batch.target for batch in batches])))


def distance(ours, theirs, name):
    gap = ours.double() - theirs.double()
    return (gap.square() if name == "mse" else gap.abs()).mean().item()


def slow_distances(network, other, batch, place, permutations, name="mse"):
    """Distances (draws, channels) by running the whole network for each."""
    network.eval(), other.eval()
    distances = torch.zeros(len(permutations), len(permutations[0]), dtype=torch.float64)
    with torch.no_grad():
        reference = other(batch.inputs)
        for draw, channel in itertools.product(range(len(permutations)), range(len(permutations[0]))):

            def shuffle(features, order=permutations[draw][channel], channel=channel):
                moved = features.clone()
                moved[:, channel] = features[order, channel]
                return moved

            with replacing(network, place, shuffle):
                distances[draw, channel] = distance(network(batch.inputs), reference, name)
    return distances.numpy()


def every_permutation(rows, channels):
    """All permutations of a few rows, each for every channel (permutations, channels, rows)."""
    orders = torch.tensor(list(itertools.permutations(range(rows))))
    return orders[:, None].expand(-1, channels, -1)

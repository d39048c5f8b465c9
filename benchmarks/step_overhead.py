"""Time of a step of the engine, relative to a plain loop.

Both train the same network from the same weights on the same batches in the same order, alternating in one process;
the final weights must agree before a number is printed. The plain loop is straightforward code: slice
a shuffled tensor, forward, cross-entropy, backward, step.

    python benchmarks/step_overhead.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.data.base import Data, assemble
from xmodal.data.loader import Batches
from xmodal.engine.loop import Loop
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.settings import FitSettings
from xmodal.methods.supervised import Supervised
from xmodal.metrics.task import Scores
from xmodal.seeding import mix
from xmodal.types import Student

REPEATS = 9
ROWS = 6400
BATCH = 64


class Reads(nn.Module):
    """A plain network on the only modality."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits of the only modality."""
        out: Tensor = self.net(inputs["x"])
        return out


def mlp() -> nn.Module:
    """64-64-10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    """Two convolutions on 28×28."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def noise(shape: tuple[int, ...], rows: int) -> Data:
    """Random samples and labels."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((rows, *shape), dtype=np.float32), random.integers(0, 10, rows)
    y[:10] = range(10)
    splits = {name: {"x": np.arange(rows if name == "train" else 10)} for name in ("train", "valid", "test")}
    return assemble({"x": x}, {"x": y}, splits)


def plain_loop(network: nn.Module, data: Data, settings: FitSettings) -> float:
    """Seconds per step of the plain loop."""
    x, y = data.train._ready["x"], data.train.targets["x"]
    rows = Batches({"x": len(x)}, paired=True, batch_size=BATCH, seed=mix(0, "order")).at(0)._order("x")
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.learning_rate, momentum=settings.momentum)
    network.train()
    began = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        chosen = rows[first : first + BATCH]
        loss = nn.functional.cross_entropy(network(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / (len(rows) / BATCH)


def engine(network: nn.Module, data: Data, settings: FitSettings) -> float:
    """Seconds per step of the engine's own epoch."""
    method = Supervised(Student(Reads(network), ("x",), "x"), data.info)
    loop = Loop(method, data, settings, 0, None, launch(), False, Progress(quiet=True), Scores)
    loop.prepare()
    began = time.perf_counter()
    loop.train_epoch()
    return (time.perf_counter() - began) / loop.step


def measure(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], rows: int) -> None:
    """Print the median ratio of one network."""
    data = noise(shape, rows)
    settings = FitSettings(epochs=1, batch_size=BATCH, optimizer="sgd", learning_rate=0.01)
    ratios, steps = [], []
    for repeat in range(REPEATS + 1):
        torch.manual_seed(repeat)
        ours, copy = build(), build()
        copy.load_state_dict(ours.state_dict())
        plain_seconds = plain_loop(copy, data, settings)
        engine_seconds = engine(ours, data, settings)
        for key, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, copy.state_dict()[key], rtol=0, atol=1e-6)
        if repeat:  # the first repetition is a warm-up
            ratios.append(engine_seconds / plain_seconds)
            steps.append(plain_seconds)
    print(
        f"{name}: plain loop {statistics.median(steps) * 1e6:.0f} µs a step, engine / plain loop "
        f"{statistics.median(ratios):.2f} (median of {REPEATS}, {min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    """All networks, one and two threads."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"{threads} thread(s):")
        measure("  MLP 64-64-10, SGD", mlp, (64,), ROWS)
        measure("  CNN 28×28, SGD", cnn, (1, 28, 28), ROWS // 4)


if __name__ == "__main__":
    sys.exit(main())

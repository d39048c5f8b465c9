"""Time of a training step of the engine, relative to a loop that a competent engineer would write by hand.

Both train the same network from the same weights on the same batches in the same order, alternating in one process, and
the final weights and scores must agree before a number is printed. The plain loop is what one writes for a single
experiment: batches by index from tensors, the loss read in every step, accuracy and cross-entropy on the validation
rows after every epoch, and a copy of the best weights. The engine does this for any method, with sums of loss terms,
schedules, signals and checkpoints.

    python benchmarks/step_overhead.py

Seconds are those of the CPU, so that other programs on the machine count little.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.data.base import Data, assemble
from xmodal.data.loader import Batches, in_order
from xmodal.engine.loop import Loop
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.settings import FitSettings
from xmodal.methods.supervised import Supervised
from xmodal.metrics.task import Scores
from xmodal.seeding import mix
from xmodal.types import Student

REPEATS = 15
BATCH = 128


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


def noise(shape: tuple[int, ...], train: int, valid: int) -> Data:
    """Random samples and labels."""
    random = np.random.default_rng(0)
    rows = train + valid
    x, y = random.standard_normal((rows, *shape), dtype=np.float32), random.integers(0, 10, rows)
    y[:10] = y[train : train + 10] = range(10)
    numbers = {"train": np.arange(train), "valid": np.arange(train, rows), "test": np.arange(train, rows)}
    return assemble({"x": x}, {"x": y}, {name: {"x": part} for name, part in numbers.items()})


def plain_loop(
    network: nn.Module, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], orders: Sequence[Tensor]
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Train; the history and the best weights."""
    (x, y), (valid_x, valid_y) = train, valid
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    best, weights = -1.0, {}
    for order in orders:
        network.train()
        total = 0.0
        for rows in order.split(BATCH):
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = loss.item()
            if not math.isfinite(value):
                raise ValueError(f"the loss became {value}")
            total += value * len(rows)
        network.eval()
        with torch.no_grad():
            logits = network(valid_x)
            accuracy = (logits.argmax(dim=1) == valid_y).float().mean().item()
            cross_entropy = nn.functional.cross_entropy(logits, valid_y).item()
        history.append({"loss": total / len(x), "accuracy": accuracy, "cross_entropy": cross_entropy})
        if accuracy > best:
            best, weights = accuracy, {name: part.detach().clone() for name, part in network.state_dict().items()}
    return history, weights


def engine_loop(network: nn.Module, data: Data, settings: FitSettings) -> Callable[[], Loop]:
    """The engine's own loop, ready to start."""
    method = Supervised(Student(Reads(network), ("x",), "x"), data.info)
    loop = Loop(method, data, settings, 0, None, launch(), "", Progress(quiet=True), Scores)
    loop.prepare()
    loop.progress.start("", settings.epochs)

    def train() -> Loop:
        while not loop.finished:
            loop.train_epoch()
            loop.end_epoch()
        return loop

    return train


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def agree(loop: Loop, history: list[dict[str, float]], weights: dict[str, Tensor]) -> None:
    """Check that both trainings are the same one."""
    for row, plain in zip(loop.history, history, strict=True):
        found = {"loss": row["loss"], **row["valid"]["x"]}
        for name, value in plain.items():
            assert math.isclose(found[name], value, rel_tol=1e-3, abs_tol=1e-5), (name, found[name], value)
    for name, part in weights.items():
        torch.testing.assert_close(loop.selection.weights["x"][f"net.{name}"], part, rtol=1e-3, atol=1e-4)


def measure(
    build: Callable[[], nn.Module], shape: tuple[int, ...], *, train: int, valid: int, epochs: int, repeats: int
) -> None:
    """Print the ratio of one network."""
    data = noise(shape, train, valid)
    settings = FitSettings(epochs=epochs, batch_size=BATCH)
    batches = Batches({"x": train}, paired=True, batch_size=BATCH, seed=mix(0, "order"))
    orders = [torch.cat([pick.rows["x"] for pick in batches.at(epoch)]) for epoch in range(epochs)]
    first, last = (next(iter(in_order(split, batch_size=len(split)))) for split in (data.train, data.valid))
    ours, theirs = [], []
    for repeat in range(repeats + 1):
        torch.manual_seed(repeat)
        network, twin = build(), build()
        twin.load_state_dict(network.state_dict())
        start = engine_loop(network, data, settings)
        rows = (first.inputs["x"], first.target), (last.inputs["x"], last.target)
        plain_seconds, plain = seconds(functools.partial(plain_loop, twin, *rows, orders))
        engine_seconds, loop = seconds(start)
        agree(loop, *plain)
        if repeat:  # the first repetition is a warm-up
            ours.append(engine_seconds)
            theirs.append(plain_seconds)
    steps = epochs * len(batches)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"{statistics.median(theirs) / steps * 1e6:.0f} µs a step of the plain loop, {len(batches)} steps an epoch, "
        f"engine / plain loop {ratio:.2f}"
    )


def main() -> None:
    """Both networks with one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("CPU seconds, one thread, validation after every epoch:")
    print("  MLP 64-64-10, 1,078 rows: ", end="", flush=True)
    measure(mlp, (64,), train=1078, valid=359, epochs=20, repeats=arguments.repeats)
    print("  CNN on 28×28, 1,280 rows: ", end="", flush=True)
    measure(cnn, (1, 28, 28), train=1280, valid=256, epochs=1, repeats=max(arguments.repeats // 2, 3))


if __name__ == "__main__":
    sys.exit(main())

"""The four trainings of `xmodal distill digits --teacher rows --student fourier` as a script of its own.

What a competent engineer would write for this one experiment: numpy and torch alone, all data in tensors, the teacher's
outputs computed once, the loss read in every step, accuracy and cross-entropy on the validation rows after every epoch,
the best weights kept, and the accuracy on the test rows at the end. Networks, epochs, batches and losses are those of
the command; no run folder is written and no report drawn. `benchmarks/distill.py` measures both.
"""

from __future__ import annotations

import copy
import gzip
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS, BATCH, RATE, TEMPERATURE = 40, 128, 1e-3, 4.0
Loss = Callable[[Tensor, Tensor], Tensor]  # logits and row numbers


def digits() -> tuple[dict[str, Tensor], Tensor]:
    """Two views of the digits that scikit-learn brings along, and their labels."""
    # the package itself is not imported, which would take another second
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    pixels = table[:, :-1].reshape(-1, 8, 8) / 16
    views = {
        "rows": pixels.reshape(len(pixels), 64),
        "fourier": np.log1p(np.abs(np.fft.rfft2(pixels, norm="ortho"))).reshape(len(pixels), 40),
    }
    tensors = {name: torch.from_numpy(view.astype(np.float32)) for name, view in views.items()}
    return tensors, torch.from_numpy(table[:, -1].astype(np.int64))


def split(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, validation and test: 70, 10 and 20 % of each class."""
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for label in range(10):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows))]
        first, second = round(0.7 * len(rows)), round(0.8 * len(rows))
        for part, some in zip(parts, (rows[:first], rows[first:second], rows[second:]), strict=True):
            part.append(some)
    train, valid, test = (torch.cat(part) for part in parts)
    return train, valid, test


def network(width: int) -> nn.Module:
    """Twice Linear, BatchNorm and ReLU, and a head."""
    layers: list[nn.Module] = []
    for read in (width, 128):
        layers += [nn.Linear(read, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def train(name: str, x: dict[str, Tensor], y: dict[str, Tensor], loss_of: Loss) -> nn.Module:
    """Train a network, return it with the weights of its best epoch, and print its scores."""
    torch.manual_seed(0)
    model = network(x["train"].shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    best, weights, history = -1.0, {}, []
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(x["train"])).split(BATCH):
            loss = loss_of(model(x["train"][rows]), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = loss.item()
            if not math.isfinite(value):
                raise ValueError(f"the loss of {name} became {value} in epoch {epoch}")
            total += value * len(rows)
        accuracy, cross_entropy = scores(model, x["valid"], y["valid"])
        history.append({"loss": total / len(x["train"]), "accuracy": accuracy, "cross_entropy": cross_entropy})
        if accuracy > best:
            best, weights = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    accuracy, cross_entropy = scores(model, x["test"], y["test"])
    print(f"{name:22} valid {best:.3f}  test {accuracy:.3f}  cross-entropy {cross_entropy:.3f}")
    return model


@torch.no_grad()
def scores(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy and cross-entropy."""
    model.eval()
    logits = model(x)
    return (logits.argmax(dim=1) == y).float().mean().item(), F.cross_entropy(logits, y).item()


def main() -> None:
    """The teacher, a student of labels alone, a distilled one, and one whose teacher is shuffled within classes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    views, labels = digits()
    parts = dict(zip(("train", "valid", "test"), split(labels), strict=True))
    rows, fourier = ({part: view[numbers] for part, numbers in parts.items()} for view in views.values())
    y = {part: labels[numbers] for part, numbers in parts.items()}
    for x in (rows, fourier):
        mean, deviation = x["train"].mean(dim=0), x["train"].std(dim=0, correction=0)
        deviation[deviation == 0] = 1.0
        x.update({part: (view - mean) / deviation for part, view in x.items()})

    def of_labels(logits: Tensor, batch: Tensor) -> Tensor:
        return F.cross_entropy(logits, y["train"][batch])

    def of_teacher(outputs: Tensor) -> Loss:
        softened = (outputs / TEMPERATURE).softmax(dim=1)

        def loss(logits: Tensor, batch: Tensor) -> Tensor:
            student = (logits / TEMPERATURE).log_softmax(dim=1)
            distance = TEMPERATURE**2 * F.kl_div(student, softened[batch], reduction="batchmean")
            return 0.5 * distance + 0.5 * of_labels(logits, batch)

        return loss

    teacher = train("teacher", rows, y, of_labels).eval()
    with torch.no_grad():
        outputs = teacher(rows["train"])
    shuffled = outputs.clone()
    for label in range(10):
        members = (y["train"] == label).nonzero().flatten()
        shuffled[members] = outputs[members[torch.randperm(len(members))]]
    train("no-KD", fourier, y, of_labels)
    train("kd", fourier, y, of_teacher(outputs))
    train("kd (shuffled teacher)", fourier, y, of_teacher(shuffled))


if __name__ == "__main__":
    main()

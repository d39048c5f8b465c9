"""Time of training several seeds of DisCoM-KD as one stack, relative to other ways.

The work is the demo: digits with a tenth of the rows for training, pixels and Fourier magnitudes, two layers of width
64 in each of four encoders, 60 epochs in batches of 32, another split for every seed; and the plain network of one
modality that is the control in the demo's table. Rows are shuffled together in both modalities (paired), or in each
modality independently (unpaired, as in the recipe).

- Fair peer: PyTorch's own way to train an ensemble, `stack_module_state` and `vmap` of `functional_call` and `grad`
  of `torch.func`, one Adam on the stacked weights, validation accuracy and best weights after every epoch.
- One by one: `fit`, seed after seed, which is what published code does.

The stack and `fit` have the same initial weights and batches, so their losses are the same at first. After hundreds of
steps rounding may lead to another best epoch, and accuracies on the test rows differ in both directions. The peer draws
its own batches: its mean accuracy must be close. CPU times on one thread.

    python benchmarks/discom_many.py [--seeds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from plain.timing import Row, show
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from xmodal.data import open_data
from xmodal.data.base import Data
from xmodal.data.loader import Batches, Loader
from xmodal.data.split import Split
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.losses.reduce import numbers_known
from xmodal.method import Method
from xmodal.methods.discom import DisCoM
from xmodal.methods.supervised import Supervised
from xmodal.models.discom_net import branches_for
from xmodal.models.network import build_for
from xmodal.types import Batch

SETTINGS = FitSettings(epochs=60, batch_size=32, learning_rate=1e-3)
NAMES = ("ROWS", "FOU")
EARLY, SAME = 3, 1e-5  # epochs in which losses must agree, and how well
PEER_CLOSE = 0.02  # by which the peer's mean accuracy may differ
CLOSE = 0.005  # by which the mean accuracy may differ


def discom(data: Data, seed: int) -> Method:
    torch.manual_seed(seed)
    shapes = {name: list(data.info.inputs[name].shape) for name in NAMES}
    encoders = {name: {"encoder": "mlp", "shape": shapes[name], "width": 64, "dropout": 0.0} for name in NAMES}
    return DisCoM({name: branches_for(data.info, name, encoders[name]) for name in NAMES}, data.info)


def control(data: Data, seed: int) -> Method:
    torch.manual_seed(seed)
    return Supervised(build_for(data.info, NAMES[:1], encoder="mlp", width=64), data.info)


def accuracies(runs: list[Run], data: list[Data]) -> list[float]:
    fabric = launch()
    scored = [
        evaluate(run.students, split.test, split.info, fabric=fabric) for run, split in zip(runs, data, strict=True)
    ]
    return [scores["accuracy"] for students in scored for scores in students.values()]


class Predicts(nn.Module):
    """A method whose `forward` predicts, because `functional_call` has no other."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of each student."""
        return self.method.predict(inputs)


def rows_of(splits: list[Split]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and targets of all rows of all splits, (models, rows, …)."""
    batches = [
        next(Loader(split, Batches(split.rows, paired=True, batch_size=len(split), seed=0, shuffle=False)).epoch(0))
        for split in splits
    ]
    inputs = {name: torch.stack([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    targets = {name: torch.stack([batch.targets[name] for batch in batches]) for name in batches[0].targets}
    return inputs, targets


def ensemble(build: Callable[[Data, int], Method], data: list[Data], *, paired: bool) -> list[float]:
    """The fair peer; accuracies on the test rows."""
    methods = [build(split, seed) for seed, split in enumerate(data)]
    method, predicts = methods[0], Predicts(methods[0])
    parameters, buffers = stack_module_state(methods)
    trained = {name: value for name, value in parameters.items() if value.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=SETTINGS.learning_rate)
    inputs, targets = rows_of([split.train for split in data])
    valid, valid_targets = rows_of([split.valid for split in data])
    models, count = next(iter(targets.values())).shape[:2]

    def loss_of(weights: dict[str, Tensor], fixed: dict[str, Tensor], batch: Batch) -> Tensor:
        step = functional_call(method, (weights, fixed), (batch, {}))
        return torch.stack(list(step.losses.values())).sum()

    def predict(state: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {f"method.{name}": value for name, value in state.items()}
        outputs: dict[str, Tensor] = functional_call(predicts, named, (given,))
        return outputs

    def right(state: dict[str, Tensor], given: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            outputs = vmap(predict)(state, given)
        wanted = {name: student.target for name, student in method.students().items()}
        return {name: (value.argmax(2) == target[wanted[name]]).double().mean(1) for name, value in outputs.items()}

    gradients_of, generator = vmap(grad(loss_of), randomness="different"), torch.Generator().manual_seed(0)
    # every student has its own best epoch
    best = {name: torch.full((models,), -1.0, dtype=torch.float64) for name in method.students()}
    state = parameters | buffers
    kept = {name: {key: value.detach().clone() for key, value in state.items()} for name in best}
    for epoch in range(SETTINGS.epochs):
        method.on_epoch_start(epoch, SETTINGS.epochs)
        method.train()
        shared = torch.rand(models, count, generator=generator).argsort(1)
        orders = {
            name: shared if paired else torch.rand(models, count, generator=generator).argsort(1) for name in inputs
        }
        for first in range(0, count, SETTINGS.batch_size):
            picks = {name: order[:, first : first + SETTINGS.batch_size] for name, order in orders.items()}
            models_of = torch.arange(models)[:, None]
            batch = Batch(
                {name: value[models_of, picks[name]] for name, value in inputs.items()},
                {name: value[models_of, picks[name]] for name, value in targets.items()},
            )
            with numbers_known():
                gradients = gradients_of({n: p.detach() for n, p in parameters.items()}, buffers, batch)
            for name, parameter in trained.items():
                parameter.grad = gradients[name]
            optimizer.step()
        method.eval()
        for name, now in right(state, valid, valid_targets).items():
            better, best[name] = now > best[name], torch.maximum(now, best[name])
            for key, value in state.items():
                kept[name][key][better] = value.detach()[better]
    test, test_targets = rows_of([split.test for split in data])
    return torch.stack([right(kept[name], test, test_targets)[name] for name in kept]).flatten().tolist()


def compare(title: str, build: Callable[[Data, int], Method], data: list[Data], *, paired: bool = True) -> Row:
    """Measure the CPU time of all ways, and compare their scores."""
    paired_data, data = data, data if paired else [split.apart() for split in data]
    began = time.process_time()
    separate = [fit(build(split, seed), split, SETTINGS, seed=seed) for seed, split in enumerate(data)]
    one_by_one = time.process_time() - began
    began = time.process_time()
    together = fit_many([build(split, seed) for seed, split in enumerate(data)], data, SETTINGS)
    stack = time.process_time() - began
    began = time.process_time()
    peer_accuracies = ensemble(build, paired_data, paired=paired)
    peer = time.process_time() - began

    notes = [note for run in together for note in run.notes]
    ours, others = accuracies(together, data), accuracies(separate, data)
    differences = [one - other for one, other in zip(ours, others, strict=True)]
    mean = sum(differences) / len(differences)
    early = max(
        abs(one.history[epoch]["loss"] / other.history[epoch]["loss"] - 1)
        for one, other in zip(together, separate, strict=True)
        for epoch in range(EARLY)
    )
    if notes or early > SAME or abs(mean) > CLOSE:
        raise SystemExit(f"The methods were not stacked, or their results differ. {' '.join(notes)}")
    apart = sum(peer_accuracies) / len(peer_accuracies) - sum(ours) / len(ours)
    if abs(apart) > PEER_CLOSE:
        raise SystemExit(f"The peer's mean accuracy differs by {100 * apart:+.1f} points.")
    return Row(
        f"{title}, {len(data)} seeds",
        stack,
        peer,
        one_by_one,
        f"losses of {EARLY} epochs differ by {early:.0e} from `fit`, mean accuracies by {100 * mean:+.2f} points, "
        f"single ones by up to {100 * max(map(abs, differences)):.1f}; mean of the peer {100 * apart:+.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    count = parser.parse_args().seeds
    torch.set_num_threads(1)
    data = [open_data("discom", seed=seed) for seed in range(count)]
    fit(discom(data[0], 0), data[0], FitSettings(epochs=1))  # the first use imports packages, which is not measured
    rows = [
        compare("discom, paired", discom, data),
        compare("discom, unpaired", discom, data, paired=False),
        compare("a plain network", control, data),
    ]
    show(rows, published="one by one")


if __name__ == "__main__":
    main()

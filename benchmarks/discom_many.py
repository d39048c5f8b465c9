"""Time of training several seeds of DisCoM-KD as one stack, relative to training them one after the other.

The work is the demo: digits with a tenth of the rows for training, pixels and Fourier magnitudes, two layers of width
64 in each of four encoders, 60 epochs in batches of 32, another split for every seed; and the plain network of one
modality that is the control in the demo's table. Rows are shuffled together in both modalities (paired), or in each
modality independently (unpaired, as in the recipe). Both variants have the same initial weights and batches, so their
losses are the same at first. After hundreds of steps rounding may lead to another best epoch, and accuracies on the
test rows differ in both directions.

    python benchmarks/discom_many.py [--seeds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from xmodal.data import open_data
from xmodal.data.base import Data
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.method import Method
from xmodal.methods.discom import DisCoM
from xmodal.methods.supervised import Supervised
from xmodal.models.discom_net import branches_for
from xmodal.models.network import build_for

SETTINGS = FitSettings(epochs=60, batch_size=32, learning_rate=1e-3)
NAMES = ("ROWS", "FOU")
EARLY, SAME = 3, 1e-5  # epochs in which losses must agree, and how well
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


def compare(title: str, build: Callable[[Data, int], Method], data: list[Data]) -> None:
    """Measure the CPU time of both variants, and compare their scores."""
    began = time.process_time()
    separate = [fit(build(split, seed), split, SETTINGS, seed=seed) for seed, split in enumerate(data)]
    one_by_one = time.process_time() - began
    began = time.process_time()
    together = fit_many([build(split, seed) for seed, split in enumerate(data)], data, SETTINGS)
    stack = time.process_time() - began

    notes = [note for run in together for note in run.notes]
    pairs = zip(accuracies(together, data), accuracies(separate, data), strict=True)
    differences = [one - other for one, other in pairs]
    mean = sum(differences) / len(differences)
    early = max(
        abs(one.history[epoch]["loss"] / other.history[epoch]["loss"] - 1)
        for one, other in zip(together, separate, strict=True)
        for epoch in range(EARLY)
    )
    print(
        f"{title}, {len(data)} seeds: one by one {one_by_one:.1f} s, as a stack {stack:.1f} s, "
        f"{one_by_one / stack:.1f} times faster; losses of {EARLY} epochs differ by {early:.0e}, mean accuracies by "
        f"{100 * mean:+.2f} points, single ones by up to {100 * max(map(abs, differences)):.1f}"
    )
    if notes or early > SAME or abs(mean) > CLOSE:
        raise SystemExit(f"The methods were not stacked, or their results differ. {' '.join(notes)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    count = parser.parse_args().seeds
    torch.set_num_threads(1)
    data = [open_data("discom", seed=seed) for seed in range(count)]
    fit(discom(data[0], 0), data[0], FitSettings(epochs=1))  # the first use imports packages, which is not measured
    compare("discom, paired", discom, data)
    compare("discom, unpaired", discom, [split.apart() for split in data])
    compare("a plain network", control, data)


if __name__ == "__main__":
    main()

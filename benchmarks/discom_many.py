"""What training several seeds of DisCoM-KD at once saves, as a ratio to training them one after the other.

The work is the demo: digits with a tenth of the rows for training, pixels and Fourier magnitudes, two layers of width
64 in each of four encoders, 60 epochs in batches of 32, another split for every seed. Rows are shuffled alike in both
modalities (`fit_many` stacks paired data). Both ways start from the same weights and see the same batches; their test
accuracies differ where rounding has led to another best epoch, by a few rows.

    python benchmarks/discom_many.py [--seeds 5]
"""

from __future__ import annotations

import argparse
import time

import torch

from xmodal.data import open_data
from xmodal.data.base import Data
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.fit_many import fit_many
from xmodal.engine.launch import launch
from xmodal.engine.run import Run
from xmodal.engine.settings import FitSettings
from xmodal.methods.discom import DisCoM
from xmodal.models.discom_net import branches_for

SETTINGS = FitSettings(epochs=60, batch_size=32, learning_rate=1e-3)
NAMES = ("ROWS", "FOU")


def make_method(data: Data, seed: int) -> DisCoM:
    torch.manual_seed(seed)
    shapes = {name: list(data.info.inputs[name].shape) for name in NAMES}
    encoders = {name: {"encoder": "mlp", "shape": shapes[name], "width": 64, "dropout": 0.0} for name in NAMES}
    return DisCoM({name: branches_for(data.info, name, encoders[name]) for name in NAMES}, data.info)


def scores(runs: list[Run], data: list[Data]) -> list[float]:
    fabric = launch()
    found = [evaluate(run.students, part.test, part.info, fabric=fabric) for run, part in zip(runs, data, strict=True)]
    return [found[seed][name]["accuracy"] for seed in range(len(runs)) for name in NAMES]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    count = parser.parse_args().seeds
    torch.set_num_threads(1)
    data = [open_data("discom", seed=seed) for seed in range(count)]
    fit(make_method(data[0], 0), data[0], FitSettings(epochs=1))  # what is imported on first use is nobody's time

    began = time.perf_counter()
    alone = [fit(make_method(part, seed), part, SETTINGS, seed=seed) for seed, part in enumerate(data)]
    one_by_one = time.perf_counter() - began
    began = time.perf_counter()
    together = fit_many([make_method(part, seed) for seed, part in enumerate(data)], data, SETTINGS)
    at_once = time.perf_counter() - began

    notes = [note for run in together for note in run.notes]
    ours, theirs = scores(together, data), scores(alone, data)
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    rows = len(data[0].test)
    print(
        f"{count} seeds one by one {one_by_one:.1f} s, at once {at_once:.1f} s: {one_by_one / at_once:.1f} times faster"
    )
    print(f"test accuracies differ by {max(differences) * rows:.0f} of {rows} rows at most")
    if notes or max(differences) * rows > 0.02 * rows:
        raise SystemExit(f"They should have been stacked and end alike. {' '.join(notes)}")


if __name__ == "__main__":
    main()

"""DMD on the made trimodal data, at the two sizes at which the reference was measured: for the slow tests."""

from __future__ import annotations

import time

import numpy as np
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.loader import in_order
from xmodal.data.mosi.synthetic import SyntheticSettings, draw
from xmodal.engine.processes.launch import launch
from xmodal.methods.dmd import build
from xmodal.methods.settings import DMDSettings
from xmodal.study.bench import Bench
from xmodal.study.settings import PairSettings
from xmodal.types import SPLITS

NODES = ("text", "vision", "audio")
LAST = {"epochs": 12, "batch_size": 16, "learning_rate": 1e-3, "keep": "last", "threads": 1}
LARGER = {  # one data set, whose edges are looked at after training
    "width": 20,
    "heads": 4,
    "layers": 2,
    "kernel": (3,),
    "input_dropout": (0.2, 0.0, 0.0),
    "attention_dropout": (0.1,),
    "embed_dropout": 0.1,
    "output_dropout": 0.2,
}
SMALLER = {**LARGER, "width": 14, "heads": 2, "layers": 1}  # many seeds, with and without distillation


def made(seed, **settings):
    """Data of the generator, in memory."""
    drawn = draw(SyntheticSettings(**settings), seed)
    whole = {name: np.concatenate([drawn[split][name] for split in SPLITS]).swapaxes(1, 2) for name in NODES}
    counts = [len(drawn[split]["regression_labels"]) for split in SPLITS]
    ends = np.cumsum(counts)
    return from_arrays(
        whole,
        np.concatenate([drawn[split]["regression_labels"] for split in SPLITS]),
        splits={split: range(end - n, end) for split, end, n in zip(SPLITS, ends, counts, strict=True)},
        task="regression",
        normalise="none",
        layouts=dict.fromkeys(NODES, "sequence"),
    )


def train(data, *, seed=0, training=LAST, **options):
    """One training, by the bench that a comparison uses, and its processor time in seconds."""
    settings = PairSettings(**training)
    bench = Bench(data, settings.plan(), seed=seed, fabric=launch(settings.machine()))
    began = time.process_time()
    bench.train("dmd", build(bench, DMDSettings(**options)), role="method")
    return bench.runs["dmd"], time.process_time() - began


def edges(run, graph="homo"):
    """Edge → mean weight over the last epoch."""
    names = run.method.units[graph].names
    return {name: run.history[-1]["logs"][f"edge {graph} {name}"] for name in names}


def scores(run, data):
    """Student → mean absolute error, correlation and accuracy of the sign on the test split, on the labels not 0."""
    (batch,) = in_order(data.test, batch_size=10_000)
    y, found = batch.target.flatten(), {}
    for name, student in run.students.items():
        with torch.no_grad():
            p = student.module(batch.inputs).flatten()
        signed = y != 0
        found[name] = {
            "mae": (p - y).abs().mean().item(),
            "corr": torch.corrcoef(torch.stack([p, y]))[0, 1].item(),
            "acc2": ((p > 0) == (y > 0))[signed].float().mean().item(),
        }
    return found


def as_row(values):
    """Numbers of a dictionary for a printed table."""
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())

"""DMD on one or two processes, with every option that lets samples meet, and the weights that it ends with.

python dmd_processes.py OUT DEVICES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from xmodal import files
from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings, MachineSettings
from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.settings import DMDSettings
from xmodal.models.student_file import save_weights

OPTIONS = {"homo_prior": "auto", "hetero_prior": "auto", "orthogonality": "legacy_batch", "homo_representation": "l1"}


def waves(rows: int = 51) -> Data:
    """A value that three sequences of different lengths show."""
    random = np.random.default_rng(0)
    y = np.round(random.normal(size=rows), 1)
    shapes = {"text": (5, 6), "vision": (4, 8), "audio": (3, 6)}
    inputs = {
        name: y[:, None, None] * random.normal(size=shape) + random.normal(size=(rows, *shape))
        for name, shape in shapes.items()
    }
    splits = {"train": range(35), "valid": range(35, 43), "test": range(43, rows)}
    return from_arrays(inputs, y, splits=splits, task="regression", layouts=dict.fromkeys(inputs, "sequence"))


def method_for(data: Data) -> DMD:
    """The same weights in every process; no dropout, which no two processes draw alike."""
    torch.manual_seed(0)
    small = {"width": 8, "heads": 2, "layers": 1, "kernel": (3,), "attention_dropout": (0.0,)}
    settings = DMDSettings(**small, embed_dropout=0.0, output_dropout=0.0)
    return DMD(build_network(data.info, data.info.modalities, settings), data.info, **OPTIONS)


def main(out: Path, devices: int) -> None:
    """Train, and write weights and history."""
    torch.set_num_threads(1)
    fabric, data = launch(MachineSettings(accelerator="cpu", devices=devices)), waves()
    # batches of 11, 11, 11 and 2 rows: unlike shares, accumulated by sum and clipped at once
    settings = FitSettings(
        epochs=2,
        batch_size=11,
        optimizer="sgd",
        learning_rate=0.02,
        accumulate=2,
        accumulate_mode="sum",
        clip=0.6,
        clip_mode="value",
        clip_at="backward",
    )
    run = fit(method_for(data), data, settings, seed=5, fabric=fabric)
    if fabric.global_rank == 0:
        save_weights(out / "last.safetensors", run.method)
        files.write_json(out / "history.json", {"history": run.history})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""A small segmentation on one or two processes: unlike numbers of labelled pixels, Lovász gathered.

python dense_two_processes.py OUT DEVICES
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from scenes import scenes

from xmodal import files
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.launch import launch
from xmodal.engine.settings import FitSettings, MachineSettings
from xmodal.methods.ntdh import NTDH
from xmodal.models.network import build_for, build_network
from xmodal.models.student_file import save_weights
from xmodal.types import Student


def main(out: Path, devices: int) -> None:
    torch.set_num_threads(1)
    fabric = launch(MachineSettings(accelerator="cpu", devices=devices))
    data = scenes(23, label_losses={"focal": 1.0, "lovasz": 1.0})  # 17 for training
    data.info = replace(data.info, class_weights=(0.0, 0.5, 1.0, 1.0))
    data.train.targets["lidar"][:6] = 0  # nothing labelled in a third of the pictures
    torch.manual_seed(0)
    asked = {"encoder": "salsanext", "shape": [2, 16, 16], "width": 2, "dropout": 0.0}
    module = build_network(inputs={"lidar": asked}, outputs=4, dense=True)
    teacher = build_for(data.info, ["image"], width=2).module
    student = Student(module, ("lidar",), "lidar")
    method = NTDH(student, teacher, data.info, losses=("kl", "dkd:0.1", "dist:0.1"), pixels="labelled")
    scores = evaluate(method.eval().students(), data.valid, data.info, fabric=fabric, full=True)
    # one update: so deep a network at its smallest enlarges the rounding errors of each by a hundred
    settings = FitSettings(epochs=1, batch_size=17, optimizer="sgd", learning_rate=0.05, clip=1.0)
    run = fit(method, data, settings, seed=3, fabric=fabric)
    if fabric.global_rank == 0:
        save_weights(out / "last.safetensors", run.method)
        files.write_json(out / "scores.json", {"untrained": scores, "history": run.history})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""A small segmentation for one or two processes: unlike numbers of labelled pixels, and losses that gather them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

sys.path.insert(0, str(Path(__file__).parents[1]))
from scenes import scenes

from xmodal import files
from xmodal.data import open_data
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.pmf import PMF
from xmodal.models.network import build_for, build_network
from xmodal.models.pixels.pmf_net import build_pmf
from xmodal.models.student_file import save_weights
from xmodal.recipes.semantic_kitti.scoring import evaluate as evaluate_points
from xmodal.recipes.semantic_kitti.settings import KittiEvaluation
from xmodal.types import Student


def score_points(fabric: Fabric, out: Path) -> None:
    """Three whole frames, of which each process sees some: tables of counts, and every file."""
    if fabric.global_rank == 0:
        make(out / "kitti", sequences="0,8", frames=3, width=40, height=30, beams=12, turns=64)
    fabric.barrier()
    data = open_data("semantic-kitti", options={"root": out / "kitti", "train": "0"})
    torch.manual_seed(0)
    students = {
        name: build_for(data.info, [modality], width=2, encoder=encoder) for name, modality, encoder in NETWORKS
    }
    for student in students.values():
        student.module.to(fabric.device).eval()
    points, _ = evaluate_points(
        students,
        data,
        "test",
        KittiEvaluation(knn=True),
        fabric=fabric,
        folders={name: out / "preds" / name for name in students},
        teachers={"student": "teacher"},
    )
    if fabric.global_rank == 0:
        files.write_json(out / "points.json", {name: [each.scores, each.tables] for name, each in points.items()})
    fabric.barrier()


def train_streams(fabric: Fabric, out: Path) -> None:
    """One update of a network of two streams, whose batch statistics and Lovász losses are those of all processes."""
    data = scenes(23, seed=1)
    torch.manual_seed(0)
    method = PMF(build_pmf(data.info, backbone="camera_resnet10", width=2, channels=16), data.info, hybrid=False)
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    settings = FitSettings(epochs=1, batch_size=17, optimizer="sgd", learning_rate=0.05, clip=1.0)
    run = fit(method, data, settings, seed=3, fabric=fabric)
    if fabric.global_rank == 0:
        save_weights(out / "streams.safetensors", run.method)
        files.write_json(out / "streams.json", {"losses": run.history[0]["losses"]})


NETWORKS = (("teacher", "image", "camera_resnet10"), ("student", "lidar", "salsanext"))


def train_scenes(fabric: Fabric, out: Path) -> None:
    """One update of a LiDAR student; weights, losses and the scores of the untrained one are written."""
    out.mkdir(exist_ok=True)
    data = scenes(23, label_losses={"focal": 1.0, "lovasz": 1.0})  # 17 for training
    data.info = replace(data.info, class_weights=(0.0, 0.5, 1.0, 1.0))
    data.train.targets["lidar"][:6] = 0  # nothing labelled in a third of the pictures
    torch.manual_seed(0)
    description = {"encoder": "salsanext", "shape": [2, 16, 16], "width": 2, "dropout": 0.0}
    module = build_network(inputs={"lidar": description}, outputs=4, dense=True)
    teacher = build_for(data.info, ["image"], width=2).module
    student = Student(module, ("lidar",), "lidar")
    options = DistillationOptions(losses=("kl", "dkd:0.1", "dist:0.1"), pixels="labelled")
    method = NTDH(student, teacher, data.info, options)
    outputs: dict[str, dict[str, torch.Tensor]] = {}
    scores = evaluate(method.eval().students(), data.valid, data.info, fabric=fabric, full=True, outputs=outputs)
    classes = {name: columns["outputs"].tolist() for name, columns in outputs.items()}
    # one update: so deep a network at its smallest enlarges the rounding errors of each by a hundred
    settings = FitSettings(epochs=1, batch_size=17, optimizer="sgd", learning_rate=0.05, clip=1.0)
    run = fit(method, data, settings, seed=3, fabric=fabric)
    if fabric.global_rank == 0:
        save_weights(out / "last.safetensors", run.method)
        files.write_json(out / "scores.json", {"untrained": scores, "history": run.history, "classes": classes})

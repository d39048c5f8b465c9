"""Peak memory of one training step of the depth DDRNet at full size, with and without the sparse first stage.

Published way: ``dense``, whole volumes throughout. Fair peer: ``dense, recompute``, the same with PyTorch's activation
checkpoints, which also save memory. Ours: ``sparse`` (default), and ``recompute``, both together.

    python benchmarks/nyu_memory.py

A picture of 480 × 640 and a volume of 240 × 144 × 240, batch 1, weighted cross-entropy, SGD. Pixels show the walls,
the floor and a few boxes of a synthetic room: as many voxels are filled as in a real frame, about 37 000. Each variant
runs in a new process, whose maximum resident size is read; ``no step`` is a process with the network, its input and
its target, but without a step. ``recompute`` is the sparse first stage with `recompute=True` in addition. In all
variants freed memory is returned to the system immediately (MALLOC_MMAP_THRESHOLD_), so that the maximum is the memory
in use.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from xmodal.losses.task import label_terms
from xmodal.models.scenes.build import build_scene
from xmodal.types import DataInfo, InputInfo

VOLUME, PICTURE = (240, 144, 240), (480, 640)
VARIANTS = ("no step", "dense", "dense, recompute", "sparse", "recompute")


def room() -> tuple[Tensor, Tensor]:
    """A depth picture (1, 1, 480, 640) and the voxel of each pixel (1, 480, 640)."""
    height, width = PICTURE
    v, u = torch.meshgrid((torch.arange(height) - 240) / 518.86, (torch.arange(width) - 320) / 518.86, indexing="ij")
    far = torch.full_like(u, 3.8)
    far = torch.minimum(far, torch.where(u.abs() > 1e-6, 2.0 / u.abs(), far))  # side walls
    far = torch.minimum(far, torch.where(v > 1e-6, 1.25 / v, far))  # floor
    far = torch.minimum(far, torch.where(v < -1e-6, 1.3 / -v, far))  # ceiling
    for left, right, top, at in ((-0.6, -0.2, 0.2, 2.1), (0.1, 0.5, 0.3, 2.8), (-0.1, 0.05, 0.1, 1.7)):
        box = (u > left / at) & (u < right / at) & (v > top / at)
        far = torch.where(box, far.clamp(max=at), far)
    across = ((u * far + 2.4) / 0.02).round().long()
    up = ((1.3 - v * far) / 0.02).round().long()
    into = ((far - 0.2) / 0.02).round().long()
    inside = (across >= 0) & (across < 240) & (up >= 0) & (up < 144) & (into >= 0) & (into < 240)
    position = torch.where(inside, (across * 144 + up) * 240 + into, 0)
    return far[None, None], position[None]


def step(variant: str) -> dict[str, float]:
    """Time, memory and loss of one training step."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    places = tuple(side // 4 for side in reversed(VOLUME))
    inputs = {"depth": InputInfo((1, *PICTURE), layout="image"), "depth.position": InputInfo(PICTURE, dtype="int64")}
    weights = (0.05, *[1.0] * 11)
    info = DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=places, ignore=255, class_weights=weights)
    network = build_scene(
        info, ["depth"], sparse=variant in ("sparse", "recompute"), recompute="recompute" in variant
    ).module
    depth, position = room()
    target = torch.randint(0, 12, (1, *places)).masked_fill(torch.rand(1, *places) < 0.3, 255)
    start, loss = time.perf_counter(), torch.zeros(())
    if variant != "no step":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        outputs = network({"depth": depth, "depth.position": position})
        loss = label_terms(outputs, target, info)["task"][0]
        loss.backward()
        optimizer.step()
    return {
        "filled": len(position.unique()),
        "loss": float(loss),
        "seconds": time.perf_counter() - start,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Run all variants and print time and memory."""
    if len(sys.argv) > 1:
        print(json.dumps(step(sys.argv[1])))
        return
    measured = {}
    for variant in VARIANTS:
        words, environment = [sys.executable, __file__, variant], {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
        process = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
        measured[variant] = json.loads(process.stdout)
    before = measured["no step"]["MiB"]
    print(f"depth DDRNet, volume {VOLUME}, batch 1, {int(measured['sparse']['filled'])} voxels filled, one CPU thread")
    print(f"{'':17}{'seconds':>10}{'peak MiB':>10}{'of the step':>14}{'loss':>14}")
    for variant, values in measured.items():
        step_memory = values["MiB"] - before
        print(f"{variant:17}{values['seconds']:10.1f}{values['MiB']:10.0f}{step_memory:14.0f}{values['loss']:14.7f}")
    for variant in ("dense, recompute", "sparse", "recompute"):
        share = (measured[variant]["MiB"] - before) / (measured["dense"]["MiB"] - before)
        whole = measured[variant]["MiB"] / measured["dense"]["MiB"]
        print(f"{variant} / dense: {share:.2f} of the step, {whole:.2f} of the whole process")


if __name__ == "__main__":
    main()

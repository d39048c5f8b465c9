"""Files of the authors' networks for rooms, named as the public code of the networks names their tensors."""

from __future__ import annotations

import torch

from xmodal.models.scenes.authors_weights import our_name
from xmodal.models.scenes.build import build_scene
from xmodal.types import DataInfo, InputInfo

NETWORKS = {
    "ddrnet_rgbd": ("ddrnet", ["depth", "rgb"]),
    "ddrnet_depth": ("ddrnet", ["depth"]),
    "aicnet": ("aicnet", ["depth", "rgb"]),
    "grfnet": ("grfnet", ["depth", "rgb"]),
    "palnet": ("palnet", ["depth"]),
}
BLOCK2D = ["conv_in.weight", *(f"{line}.{part}" for line in ("conv_1xk", "conv_kx1") for part in ("weight", "bias"))]
BLOCK2D += ["conv_out.weight"]
LINES = [f"{line}.{part}" for line in ("conv1x1x3", "conv1x3x1", "conv3x1x1") for part in ("weight", "bias")]
BLOCK3D = ["conv_in.weight", *LINES, "conv_out.weight"]
AIC = ["conv_in.weight", "basic_aic.conv_mx.weight", "conv_out.weight"] + [
    f"basic_aic.{line}.{number}.{part}"
    for line in ("conv_1x1xk", "conv_1xkx1", "conv_kx1x1")
    for number in range(3)
    for part in ("weight", "bias")
]


def below(first, rest):
    return [f"{first}.{name}" for name in rest]


def both(*names):
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def published_names(name):
    """All names in a file of the authors."""
    if name == "palnet":
        heads = ["conv4_1", "conv4_2", "fc12", "s_conv1_depth", "pool2", "conv2d_depth.0"]
        found = both(*heads, *(f"res_depth.{number}" for number in (0, 2, 4)))
        found += [f"reduction{level}_{side}.weight" for level in (2, 3) for side in (1, 2)]
        plain = [f"conv{level}_{side}" for level, side in ((2, 1), (2, 2), (3, 1), (3, 2), (3, 3))]
        found += both(*(f"{block}.{number}" for block in plain for number in (0, 2, 4)))
        return found + both(*(f"{block}.{number}" for block in ("conv3_5", "conv3_7") for number in (0, 2, 3, 5)))
    block = AIC if name == "aicnet" else BLOCK3D
    found = []
    for side in ("dep",) if name == "ddrnet_depth" else ("dep", "rgb"):
        found += both(f"{side}_feature2d.0")
        found += below(f"{side}_feature2d.1", BLOCK2D) + below(f"{side}_feature2d.2", BLOCK2D)
        found += [f"{side}_feature3d.0.conv.weight", f"{side}_feature3d.2.conv.weight"]
        found += below(f"{side}_feature3d.1", BLOCK3D) + below(f"{side}_feature3d.3", BLOCK3D)
    for letter in "dr":  # those of both modalities, whether it has both or not
        for number in (1, 2, 3):
            found += below(f"res3d_{number}{letter}", block)
    if name == "aicnet":
        found += below("aspp_1", AIC) + below("aspp_2", AIC)
    else:
        found += ["aspp.aspp0.weight", "aspp.global_avg_pool.1.weight"]
        found += [one for number in (1, 2, 3) for one in below(f"aspp.aspp{number}", BLOCK3D)]
    found += both("gru.in_conv", "gru.out_conv") if name == "grfnet" else []
    return found + both(*(f"conv_out.{number}" for number in ((0, 2) if name == "grfnet" else (0, 2, 4))))


def build(name, *, unused=False):
    position = InputInfo((4, 4), dtype="int64")
    inputs = {
        "depth": InputInfo((1, 4, 4)),
        "rgb": InputInfo((3, 4, 4)),
        "depth.tsdf": InputInfo((1, 4, 4, 4)),
        "depth.position": position,
    }
    info = DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=(1, 1, 1))
    kind, modalities = NETWORKS[name]
    return build_scene(info, modalities, network=kind, unused=unused and kind == "ddrnet").module


def made_file(name, path, *, nested=True):
    """A file as the authors' code writes it: every tensor of one of our networks under its published name."""
    network = build(name, unused=name == "ddrnet_depth")
    ours = network.state_dict()
    found = {f"module.{theirs}": ours[our_name(network, theirs)] for theirs in published_names(name)}
    torch.save({"state_dict": found} if nested else found, path)
    return network, found

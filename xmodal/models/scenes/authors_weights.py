"""Weights of the authors' networks for scenes: their layer names, and ours.

Their files contain ``{"state_dict": …}``, with ``module.`` before each name. Files of DDRNet for one modality also
contain the three blocks of the other modality, which nothing reads: those are dropped, unless the network was built
with ``unused=True``.

| theirs | ours |
|---|---|
| dep_feature2d, rgb_feature2d | streams.streams.from_….flat |
| dep_feature3d, rgb_feature3d | streams.streams.from_….solid |
| res3d_1d to res3d_3d, res3d_1r to res3d_3r | streams.streams.from_….further |
| aspp (DDRNet, GRFNet), aspp_1 and aspp_2 (AICNet) | pyramid, joined |
| gru | cell |
| conv_out | head |

The names are those of the public code of DDRNet, PALNet, AICNet and GRFNet; the networks of NTDH for one modality have
them as well. Tensors that were saved on a GPU are read on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from xmodal.models.network import PREFIX
from xmodal.models.resnet import load_checked, read_weights
from xmodal.models.scenes.palnet import PALNet
from xmodal.models.scenes.streams import Streams

WITHIN = {  # layers of a block
    "conv_in": "enter",
    "conv_out": "leave",
    "conv_1xk": "along",
    "conv_kx1": "down",
    "conv1x1x3": "along",
    "conv1x3x1": "upper",
    "conv3x1x1": "across",
    "basic_aic": "anisotropic",
    "conv_mx": "choice",
}
WHOLE = {  # parts of a network
    "aspp.aspp0": "pyramid.place",
    "aspp.aspp1": "pyramid.rings.0",
    "aspp.aspp2": "pyramid.rings.1",
    "aspp.aspp3": "pyramid.rings.2",
    "aspp.global_avg_pool.1": "pyramid.everywhere",
    "aspp_1": "joined.0",
    "aspp_2": "joined.1",
    "gru.in_conv": "cell.gates",
    "gru.out_conv": "cell.candidate",
    "conv_out": "head",
}
PALNET = {
    "conv2d_depth": "flat",
    "res_depth": "flat.2.detour",
    "s_conv1_depth": "branches.0.0",
    # Their file defines the class twice; the first version calls this layer pool1.
    "pool1": "branches.0.0",
    "pool2": "branches.1.0",
    **{f"reduction{level}_{side}": f"branches.{side - 1}.{level}.shortcut" for level in (2, 3) for side in (1, 2)},
    **{f"conv{level}_{side}": f"branches.{side - 1}.{level}.detour" for level in (2, 3) for side in (1, 2)},
    "conv3_3": "context.0.detour",
    "conv3_5": "context.1.detour",
    "conv3_7": "context.2.detour",
    "conv4_1": "head.0",
    "conv4_2": "head.2",
    "fc12": "head.4",
}
LINES = {"conv_1x1xk": 0, "conv_1xkx1": 1, "conv_kx1x1": 2}  # in the order in which AICNet uses them


def load_published(network: nn.Module, path: Path | str) -> None:
    """Load a file of the authors into one of our networks, completely or not at all.

    Args:
        network: built by `xmodal.models.scenes.build.build_scene`.
        path: of the ``.pth`` or ``.pth.tar``; a file that contains code is refused.
    """
    load_checked(network, ours(network, read_weights(Path(path))), str(path))


def ours(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under our names; those of unused blocks only if the network has these blocks."""
    renamed = {our_name(network, name.removeprefix("module.")): tensor for name, tensor in tensors.items()}
    expected = network.state_dict()
    return {name: tensor for name, tensor in renamed.items() if not name.startswith("unused.") or name in expected}


def our_name(network: nn.Module, name: str) -> str:
    """Our name for a published name; all other names are returned unchanged."""
    if isinstance(network, PALNet):
        first, _, rest = name.partition(".")
        return f"{PALNET[first]}.{rest}" if first in PALNET else name
    sides = _modalities(network)
    if match := re.fullmatch(r"(dep|rgb)_feature([23])d\.(.*)", name):
        side, axes, rest = match.groups()
        return f"{_stream(sides, side)}.{'flat' if axes == '2' else 'solid'}.{_within(rest)}"
    if match := re.fullmatch(r"res3d_([123])([dr])\.(.*)", name):
        number, letter, rest = int(match[1]) - 1, match[2], _within(match[3])
        side = "dep" if letter == "d" else "rgb"
        return f"{_stream(sides, side)}.further.{number}.{rest}" if side in sides else f"unused.{number}.{rest}"
    for published, our in WHOLE.items():
        if name.startswith(f"{published}."):
            return f"{our}.{_within(name.removeprefix(f'{published}.'))}"
    return name


def _modalities(network: nn.Module) -> dict[str, str]:
    """``dep`` and ``rgb`` → our modality."""
    streams = network.get_submodule("streams")
    assert isinstance(streams, Streams)
    # Modalities have free names here, so the number of channels of the pictures decides which one is depth.
    sides = {}
    for name in streams.modalities:
        first = streams.streams[PREFIX + name].get_submodule("flat.0")
        sides["dep" if first.in_channels == 1 else "rgb"] = name
    return sides


def _stream(sides: Mapping[str, str], side: str) -> str:
    return f"streams.streams.{PREFIX}{sides.get(side, side)}"


def _within(rest: str) -> str:
    """The name of a layer within a block."""
    parts = []
    for part in rest.split("."):
        if part in LINES:
            parts += ["axes", str(LINES[part])]
        else:
            parts.append("convolution" if part == "conv" else WITHIN.get(part, part))
    return ".".join(parts)

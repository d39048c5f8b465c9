"""Weights of the authors' networks for scenes: their names of layers, and ours.

Their files hold ``{"state_dict": …}``, each name behind ``module.``. Of the variants of DDRNet for one modality they
hold the three blocks of the other modality too, which nothing ever reads: those are dropped, unless the network was
built with ``unused=True``.

| theirs | ours |
|---|---|
| dep_feature2d, rgb_feature2d | streams.streams.from_….flat |
| dep_feature3d, rgb_feature3d | streams.streams.from_….solid |
| res3d_1d to res3d_3d, res3d_1r to res3d_3r | streams.streams.from_….further |
| aspp (DDRNet, GRFNet), aspp_1 and aspp_2 (AICNet) | pyramid, joined |
| gru | cell |
| conv_out | head |

The names are those of the public code of DDRNet, PALNet, AICNet and GRFNet. That the variants for one modality keep
them is likely and was not checked on a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from xmodal.models.resnet import load_checked, read_weights
from xmodal.models.scenes.palnet import PALNet
from xmodal.models.scenes.streams import Streams

WITHIN = {  # of a block
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
WHOLE = {  # of a network
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
    "pool1": "branches.0.0",  # the same in the class that their file defines first
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
    """Read a file of the authors into one of our networks, all of it or nothing.

    Args:
        network: built by `xmodal.models.scenes.build.build_scene`.
        path: of the ``.pth`` or ``.pth.tar``; one that holds code is refused.
    """
    found = read_weights(Path(path))
    load_checked(network, ours(network, found), str(path))


def ours(network: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under our names; those of unused blocks only where the network has them."""
    named = {our_name(network, name.removeprefix("module.")): tensor for name, tensor in found.items()}
    wanted = network.state_dict()
    return {name: tensor for name, tensor in named.items() if not name.startswith("unused.") or name in wanted}


def our_name(network: nn.Module, name: str) -> str:
    """One name; a name that is ours already, or nobody's, stays."""
    if isinstance(network, PALNet):
        first, _, rest = name.partition(".")
        return f"{PALNET[first]}.{rest}" if first in PALNET else name
    of = _modalities(network)
    if match := re.fullmatch(r"(dep|rgb)_feature([23])d\.(.*)", name):
        side, axes, rest = match.groups()
        return f"{_stream(of, side)}.{'flat' if axes == '2' else 'solid'}.{_within(rest)}"
    if match := re.fullmatch(r"res3d_([123])([dr])\.(.*)", name):
        number, letter, rest = int(match[1]) - 1, match[2], _within(match[3])
        side = "dep" if letter == "d" else "rgb"
        return f"{_stream(of, side)}.further.{number}.{rest}" if side in of else f"unused.{number}.{rest}"
    for theirs, mine in WHOLE.items():
        if name.startswith(f"{theirs}."):
            return f"{mine}.{_within(name.removeprefix(f'{theirs}.'))}"
    return name


def _modalities(network: nn.Module) -> dict[str, str]:
    """``dep`` and ``rgb`` → our modality, told by the channels of its pictures."""
    streams = network.get_submodule("streams")
    assert isinstance(streams, Streams)
    found = {}
    for name in streams.modalities:
        first = streams.streams[f"from_{name}"].get_submodule("flat.0")
        found["dep" if first.in_channels == 1 else "rgb"] = name
    return found


def _stream(of: Mapping[str, str], side: str) -> str:
    return f"streams.streams.from_{of.get(side, side)}"


def _within(rest: str) -> str:
    """The name of a layer within a block."""
    parts = []
    for part in rest.split("."):
        if part in LINES:
            parts += ["axes", str(LINES[part])]
        else:
            parts.append("convolution" if part == "conv" else WITHIN.get(part, part))
    return ".".join(parts)

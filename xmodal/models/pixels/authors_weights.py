"""Weights of the authors' networks for pixels: their layer names, and ours.

SalsaNext stands in a file by itself, as ``lidar_stream.`` of PMFNet, or as the student of NTDH, which has that prefix
too; the camera network as ``camera_stream_encoder.`` and ``camera_stream_decoder.``. A network of one stream is read
from a file of both as well: the tensors of the other stream are then left out.

| theirs | ours |
|---|---|
| downCntx, downCntx2, downCntx3 | context1 to context3 |
| resBlock1 to resBlock5, upBlock1 to upBlock4 | res1 to res5, up1 to up4 |
| logits | head |
| camera_stream_encoder | camera.encoder |
| camera_stream_decoder.up_4a to up_1a, conv | camera.up4 to up1, camera_head |
| fusionblock_1 to fusionblock_4: fuse_conv, attention | fusions.0 to fusions.3: join, gate |
| aspp: conv, atrous_block1, atrous_block6 to 18, conv_1x1_output | pyramid: everywhere, place, rings, join |

Read from the public code of Perception-Aware Multi-Sensor Fusion (Zhuang et al., ICCV 2021), which the code of arXiv
2409.02438 uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.network import PREFIX, Network, build_for
from xmodal.models.pixels.camera_net import CameraNet
from xmodal.models.pixels.pmf_net import CAMERAS, PMFNet, build_pmf
from xmodal.models.pixels.salsanext import SalsaNext
from xmodal.models.resnet import DEPTHS, BasicBlock, Bottleneck, load_checked, read_weights
from xmodal.types import DataInfo, Student

LIDAR, ENCODER, DECODER = "lidar_stream.", "camera_stream_encoder.", "camera_stream_decoder."
MODALITIES = {"lidar": "LiDAR", "image": "camera"}  # of the data set → stream
STREAMS = {"LiDAR": (LIDAR,), "camera": (ENCODER, DECODER)}  # stream → prefixes of its tensors
CONTEXT = {"conv1": "shortcut.0", "conv2": "near.0", "bn1": "near.2", "conv3": "far.0", "bn2": "far.2"}
# the four convolutions of `Scales` in their order; each is followed by the BatchNorm of its number
SCALES = ("near", "far", "even", "join")
PYRAMID = {
    "conv": "everywhere",
    "atrous_block1": "place",
    "atrous_block6": "rings.0",
    "atrous_block12": "rings.1",
    "atrous_block18": "rings.2",
    "conv_1x1_output": "join",
}
FUSION = {"fuse_conv": "join", "attention": "gate"}


def load_published(network: nn.Module, path: Path | str) -> None:
    """Load a file of the authors into one of our networks, completely or not at all.

    Args:
        network: a `PMFNet`, or a `Network` around a `SalsaNext` or a `CameraNet`.
        path: of the ``.pth``: tensors by name, or a checkpoint with them under ``model``; names may begin with
            ``module.``. A file that contains code is refused.
    """
    load_checked(network, ours(network, read_weights(Path(path)), str(path)), str(path))


def student_of_file(path: Path | str, info: DataInfo, *, needs: Sequence[str] = ()) -> Student:
    """The network that a file of the authors holds, with its weights; its sizes are those of the tensors.

    Args:
        path: see `load_published`.
        info: of data with the modalities ``lidar`` and ``image``.
        needs: what the network reads, of these two; empty: what the file holds.
    """
    tensors = _with_streams(read_weights(Path(path)))
    found = _streams_in(tensors)
    needs = tuple(needs) or tuple(name for name, stream in MODALITIES.items() if stream in found) or (*MODALITIES,)
    classifier = tensors.get(f"{LIDAR}logits.weight")
    width = None if classifier is None else classifier.shape[1]
    if len(needs) == 2:
        student = build_pmf(info, backbone=_backbone(tensors), width=width or 32)
    elif needs == ("image",):
        student = build_for(info, needs, encoder=_backbone(tensors))
    else:
        student = build_for(info, needs, encoder="salsanext", width=width)
    load_checked(student.module, ours(student.module, tensors, str(path)), str(path))
    return student


def ours(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a file that belong to a network, under our names.

    Args:
        network: see `load_published`.
        tensors: of the file.
        where: the file, for error messages.
    """
    theirs = _with_streams(tensors)
    found, wanted = _streams_in(theirs), _streams_of(network)
    if missing := sorted(wanted - found):
        held = f"the {' and the '.join(sorted(found))} stream" if found else "none of the authors' names"
        raise InputError(
            f"{where} holds {held}, and this network needs the {' and the '.join(missing)} stream. Give a file of "
            "such a network, or choose another network."
        )
    if wanted == {"LiDAR"} and any(name.startswith(f"{LIDAR}fusionblock") for name in theirs):
        # the LiDAR stream of PMFNet reads the maps of the camera at every stage: alone it was never trained
        raise InputError(
            f"{where} holds PMFNet, whose LiDAR stream reads the camera's maps, and this network reads LiDAR alone. "
            "Choose the network pmf, or give a file of SalsaNext."
        )
    # what belongs to neither stream stays, so that the comparison with the network names it
    other = tuple(start for stream, starts in STREAMS.items() if stream not in wanted for start in starts)
    return {_our_name(network, name): tensor for name, tensor in theirs.items() if not name.startswith(other)}


def _with_streams(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, each name with the prefix of its stream."""
    # distributed training saves every name with this prefix
    theirs = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    # SalsaNext alone has no prefix; the name of its classifier is enough, since every name is compared later
    return {f"{LIDAR}{name}": tensor for name, tensor in theirs.items()} if "logits.weight" in theirs else theirs


def _streams_in(tensors: Mapping[str, Tensor]) -> set[str]:
    return {stream for stream, starts in STREAMS.items() if any(name.startswith(starts) for name in tensors)}


def _backbone(tensors: Mapping[str, Tensor]) -> str:
    """The camera network whose encoder has as many blocks as that of a file; the published one if none has."""
    blocks = [
        len({name.split(".")[2] for name in tensors if name.startswith(f"{ENCODER}layer{stage}.")})
        for stage in (1, 2, 3, 4)
    ]
    block = Bottleneck if f"{ENCODER}layer1.0.conv3.weight" in tensors else BasicBlock
    depths = [depth for depth, sizes in DEPTHS.items() if sizes == (block, tuple(blocks))]
    name = f"camera_resnet{depths[0]}" if depths else ""
    return name if name in CAMERAS else "camera_resnet34"


def _streams_of(network: nn.Module) -> set[str]:
    if isinstance(network, PMFNet):
        return {"LiDAR", "camera"}
    return {"LiDAR" if isinstance(_single(network)[1], SalsaNext) else "camera"}


def _single(network: nn.Module) -> tuple[str, nn.Module]:
    """Modality and encoder of a network of one stream."""
    if isinstance(network, Network) and len(network.modalities) == 1:
        (name,) = network.modalities
        encoder = network.encoders[PREFIX + name]
        if isinstance(encoder, SalsaNext | CameraNet):
            return name, encoder
    raise InputError(
        "The authors' files for pixels hold SalsaNext, the camera network or PMFNet, and this network is none of them."
    )


def _our_name(network: nn.Module, name: str) -> str:
    """Our name for a published name with its stream; all other names are returned unchanged."""
    if isinstance(network, PMFNet):
        places = {"lidar": "lidar.", "camera": "camera.", "head": "head.", "camera_head": "camera_head."}
    else:
        inside = f"encoders.{PREFIX}{_single(network)[0]}."
        places = {"lidar": inside, "camera": inside, "head": "head.", "camera_head": "head."}
    if name.startswith(ENCODER):
        return f"{places['camera']}encoder.{name.removeprefix(ENCODER)}"
    if name.startswith(DECODER):
        part, _, rest = name.removeprefix(DECODER).partition(".")
        if part == "conv":
            return f"{places['camera_head']}{rest}"
        level = re.fullmatch(r"up_([1-4])a", part)
        return f"{places['camera']}up{level[1]}.{rest}" if level else name
    part, _, rest = name.removeprefix(LIDAR).partition(".")
    if part == "logits":
        return f"{places['head']}{rest}"
    layer, _, value = rest.partition(".")
    if part == "aspp" and layer in PYRAMID:
        return f"pyramid.{PYRAMID[layer]}.{value}"
    if (match := re.fullmatch(r"fusionblock_([1-4])", part)) and layer in FUSION:
        return f"fusions.{int(match[1]) - 1}.{FUSION[layer]}.{value}"
    if match := re.fullmatch(r"downCntx([23]?)", part):
        return f"{places['lidar']}context{match[1] or 1}.{CONTEXT.get(layer, layer)}.{value}"
    if match := re.fullmatch(r"(res|up)Block([1-5])", part):
        return f"{places['lidar']}{match[1]}{match[2]}.{_within_scales(layer, up=match[1] == 'up')}.{value}"
    return name


def _within_scales(layer: str, *, up: bool) -> str:
    """The name of a layer of a block with `Scales`; in a stage down the first convolution is the shortcut."""
    match = re.fullmatch(r"(conv|bn)([1-5])", layer)
    if match is None:
        return layer
    number = int(match[2])
    if match[1] == "bn":
        return f"scales.{SCALES[number - 1]}.2" if number <= len(SCALES) else layer
    number -= not up
    if not number:
        return "shortcut.0"
    return f"scales.{SCALES[number - 1]}.0" if number <= len(SCALES) else layer

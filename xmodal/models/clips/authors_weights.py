"""The names of the tensors in the checkpoints of the authors' VGGSound networks, and those of ours.

| | theirs, audio | theirs, video | ours |
|---|---|---|---|
| first convolution, its BatchNorm | ``inconv.0``, ``inconv.1`` | the same | ``conv1``, ``bn1`` |
| in block n of stage s, ``layer{s}.{n}`` | ``conv1``, ``bn1``, ``conv2``, ``bn2`` | ``conv.0``, … ``4`` | as audio |
| its shortcut | ``downsample.0``, ``1`` | the same | the same |
| linear layer | ``fc_avg`` | ``proj`` | ``head`` |

Ours stand below ``encoders.from_audio`` or ``encoders.from_video``, except for the head. Both networks hold many
tensors of equal shapes, so tensors are matched by name alone, never by their order.

Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; names of the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from xmodal.models.network import PREFIX
from xmodal.models.resnet import read_weights

FIRST = {"inconv.0": "conv1", "inconv.1": "bn1"}
BLOCK = {
    "audio": {name: name for name in ("conv1", "bn1", "conv2", "bn2")},
    "video": {"conv.0": "conv1", "conv.1": "bn1", "conv.3": "conv2", "conv.4": "bn2"},
}
HEAD = {"audio": "fc_avg", "video": "proj"}


def our_name(name: str, modality: str) -> str:
    """Our name of a tensor of the authors' network; an unknown name is returned unchanged.

    Example:
        >>> our_name("layer1.0.conv.3.weight", "video"), our_name("fc_avg.bias", "audio")
        ('encoders.from_video.layer1.0.conv2.weight', 'head.bias')
    """
    layer, _, kind = name.rpartition(".")
    if layer == HEAD[modality]:
        return f"head.{kind}"
    place = re.fullmatch(r"(layer\d+\.\d+)\.(.+)", layer)
    if layer in FIRST:
        layer = FIRST[layer]
    elif place and place[2] in BLOCK[modality]:
        layer = f"{place[1]}.{BLOCK[modality][place[2]]}"
    elif not (place and place[2].startswith("downsample.")):
        return name
    return f"encoders.{PREFIX}{modality}.{layer}.{kind}"


def authors_name(name: str, modality: str) -> str:
    """The authors' name of a tensor of our network.

    Example:
        >>> authors_name("encoders.from_video.layer1.0.conv2.weight", "video"), authors_name("head.bias", "audio")
        ('layer1.0.conv.3.weight', 'fc_avg.bias')
    """
    layer, _, kind = name.removeprefix(f"encoders.{PREFIX}{modality}.").rpartition(".")
    if layer == "head":
        return f"{HEAD[modality]}.{kind}"
    stage, _, part = layer.rpartition(".")
    table = BLOCK[modality] if stage else FIRST
    theirs = {ours: other for other, ours in table.items()}.get(part, part)
    return ".".join(filter(None, (stage, theirs, kind)))


def read_authors(path: Path, modality: str) -> dict[str, Tensor]:
    """The tensors of an authors' checkpoint by our names; a file that contains more than tensors is refused.

    Args:
        path: a state dict, or a dictionary with one; the prefix ``module.`` of distributed training is removed.
        modality: ``audio`` or ``video``.
    """
    return {our_name(name.removeprefix("module."), modality): tensor for name, tensor in read_weights(path).items()}


def authors_state(tensors: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """Tensors of our network by the authors' names."""
    return {authors_name(name, modality): tensor for name, tensor in tensors.items()}

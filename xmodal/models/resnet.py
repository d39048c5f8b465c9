"""ResNet 18 to 152 for pictures with any number of channels, and the reader of ImageNet weights.

Parameter names are those of torchvision, so that a `.pth` file made for its networks loads. Without `outputs` a network
is a trunk: the embedding after global pooling, no classification layer.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; the stride of a bottleneck is
that of its 3x3 convolution, as in the published torchvision weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.small import expect_shape

NESTED = ("state_dict", "model")  # keys under which training scripts store the weights


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: ResNet 18 and 34."""

    expansion = 1

    def __init__(self, read: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(read, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(read, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + (x if self.downsample is None else self.downsample(x))
        added: Tensor = self.relu(out)
        return added


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut: ResNet 50, 101 and 152."""

    expansion = 4

    def __init__(self, read: int, planes: int, stride: int) -> None:
        super().__init__()
        wide = planes * self.expansion
        self.conv1 = nn.Conv2d(read, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(read, wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, 4 * planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x))
        added: Tensor = self.relu(out)
        return added


class ResNet(nn.Module):
    """The whole network.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks in each of the four stages.
        channels: of the pictures.
        outputs: of the classification layer ``fc``; None leaves the trunk, with embeddings of ``width``.
        dropout: on the embedding.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        channels: int = 3,
        outputs: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wide = block.expansion
        self.layer1 = _stage(block, 64, 64, depths[0], 1)
        self.layer2 = _stage(block, 64 * wide, 128, depths[1], 2)
        self.layer3 = _stage(block, 128 * wide, 256, depths[2], 2)
        self.layer4 = _stage(block, 256 * wide, 512, depths[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.width = 512 * wide
        self.fc = nn.Identity() if outputs is None else nn.Linear(self.width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) → (batch, width), or (batch, outputs) with a classification layer."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return out


def _shortcut(read: int, write: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and read == write:
        return None
    return nn.Sequential(nn.Conv2d(read, write, 1, stride=stride, bias=False), nn.BatchNorm2d(write))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], read: int, planes: int, depth: int, stride: int
) -> nn.Sequential:
    rest = [block(planes * block.expansion, planes, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(read, planes, stride), *rest)


def _channels(name: str, shape: Sequence[int]) -> int:
    expect_shape(name, shape, ("channels", "height", "width"))
    return shape[0]


def build_resnet18(shape: Sequence[int], *, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-18: 11.2 million parameters, embeddings of 512."""
    return ResNet(BasicBlock, (2, 2, 2, 2), channels=_channels("resnet18", shape), dropout=dropout)


def build_resnet34(shape: Sequence[int], *, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-34: 21.3 million parameters, embeddings of 512."""
    return ResNet(BasicBlock, (3, 4, 6, 3), channels=_channels("resnet34", shape), dropout=dropout)


def build_resnet50(shape: Sequence[int], *, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-50: 23.5 million parameters, embeddings of 2048."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels=_channels("resnet50", shape), dropout=dropout)


def build_resnet101(shape: Sequence[int], *, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-101: 42.5 million parameters, embeddings of 2048."""
    return ResNet(Bottleneck, (3, 4, 23, 3), channels=_channels("resnet101", shape), dropout=dropout)


def build_resnet152(shape: Sequence[int], *, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-152: 58.1 million parameters, embeddings of 2048."""
    return ResNet(Bottleneck, (3, 8, 36, 3), channels=_channels("resnet152", shape), dropout=dropout)


def load_weights(module: nn.Module, path: Path | str, *, adapt_first: bool = False) -> None:
    """Read the weights of a ``.pth`` file into a network, all of them or none.

    A prefix ``module.`` is removed, and so is the classification layer ``fc`` where the network has none. Nothing else
    is adapted unless it is asked for.

    Args:
        module: a `ResNet`, or any network with the file's parameter names.
        path: a file with a dictionary of tensors; one that holds code is refused.
        adapt_first: let ``conv1`` read another number of channels than in the file, each with the sum of the file's
            channels divided by their new number: a picture with equal channels gives the same response as before.
    """
    wanted = module.state_dict()
    found = {name.removeprefix("module."): tensor for name, tensor in _read_weights(Path(path)).items()}
    if not any(name.startswith("fc.") for name in wanted):
        found = {name: tensor for name, tensor in found.items() if not name.startswith("fc.")}
    if adapt_first and "conv1.weight" in found and "conv1.weight" in wanted:
        found["conv1.weight"] = _adapted(found["conv1.weight"], wanted["conv1.weight"].shape[1])
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):  # published files are older than this counter
            found.setdefault(name, tensor)
    load_checked(module, found, str(path))


def _adapted(weight: Tensor, channels: int) -> Tensor:
    if weight.shape[1] == channels:
        return weight
    return weight.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of a .pth file with weights.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, numbers and names, or is damaged; reading the rest could run code, so it "
            "is refused. Save the state_dict alone with torch.save(network.state_dict(), path)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be read as a file of torch.save; is the copy complete? ({error})") from error
    for key in NESTED:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise InputError(f"{path} does not hold a dictionary of tensors. Save network.state_dict() alone.")
    return stored


def load_checked(module: nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Load weights once their names and shapes are known to be the network's; otherwise one sentence per problem."""
    problems = mismatches(module.state_dict(), found)
    if problems:
        raise InputError([f"The weights in {where} do not fit this network: {problem}" for problem in problems])
    module.load_state_dict(dict(found))


def mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps some weights from fitting a network, by kind, with names."""
    shapes = [
        f"{name} (expected {tuple(wanted[name].shape)}, file {tuple(found[name].shape)})"
        for name in wanted
        if name in found and wanted[name].shape != found[name].shape
    ]
    kinds = {
        "missing in the file": [name for name in wanted if name not in found],
        "unknown to the network": [name for name in found if name not in wanted],
        "of another shape": shapes,
    }
    return [f"{len(names)} {kind}: {_some(names)}." for kind, names in kinds.items() if names]


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""ResNet 18 to 152 for pictures and videos with any number of channels, and the reader of ImageNet weights.

Parameter names are those of torchvision, so `.pth` files of its networks load. Without `outputs` a network is a trunk:
the embedding after global pooling, no classification layer. For videos every convolution and pooling has time as an
additional axis; the names are the same.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; the stride of a bottleneck is
that of its 3x3 convolution, as in the published torchvision weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.small import expect_shape

NESTED = ("state_dict", "model")  # keys under which training scripts store the weights


@dataclass(frozen=True, slots=True)
class Axes:
    """The layer classes for pictures (two axes behind the channels) or videos (three)."""

    conv: type[nn.Conv2d] | type[nn.Conv3d]
    norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    largest: type[nn.MaxPool2d] | type[nn.MaxPool3d]
    mean: type[nn.AdaptiveAvgPool2d] | type[nn.AdaptiveAvgPool3d]
    stem: int | tuple[int, ...]  # sides of the first convolution


PICTURE = Axes(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, 7)
VIDEO = Axes(nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d, (3, 7, 7))


class BasicBlock(nn.Module):
    """Two convolutions with side 3 and a shortcut: ResNet 18 and 34."""

    expansion = 1

    def __init__(self, read: int, write: int, stride: int, axes: Axes = PICTURE) -> None:
        super().__init__()
        self.conv1 = axes.conv(read, write, 3, stride=stride, padding=1, bias=False)
        self.bn1 = axes.norm(write)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = axes.conv(write, write, 3, padding=1, bias=False)
        self.bn2 = axes.norm(write)
        self.downsample = _shortcut(read, write, stride, axes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, write, H / stride, W / stride); videos have T before H."""
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """Convolutions with sides 1, 3 and 1, two with a quarter of the channels, and a shortcut: ResNet 50 and deeper."""

    expansion = 4

    def __init__(self, read: int, write: int, stride: int, axes: Axes = PICTURE) -> None:
        super().__init__()
        planes = _share(write, self.expansion)
        self.conv1 = axes.conv(read, planes, 1, bias=False)
        self.bn1 = axes.norm(planes)
        self.conv2 = axes.conv(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = axes.norm(planes)
        self.conv3 = axes.conv(planes, write, 1, bias=False)
        self.bn3 = axes.norm(write)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(read, write, stride, axes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, write, H / stride, W / stride); videos have T before H."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))
        return out


Block = type[BasicBlock] | type[Bottleneck]
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    # 10 and 26 are not in the paper: 10 is the smallest possible, 26 is the video network of the authors of MFH.
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    26: (BasicBlock, (3, 3, 3, 3)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """The whole network.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks in each of the four stages.
        channels: of the pictures.
        outputs: of the classification layer ``fc``; None leaves the trunk, with embeddings of ``width``.
        dropout: on the embedding.
        width: channels of the last stage. Each earlier stage has half as many as the next (rounded up), the first layer
            those of the first stage divided by the block's expansion. None: 512 times the expansion, as published.
        padding: of the first convolution.
        stride: of the first convolution.
        axes: `PICTURE` or `VIDEO`.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        *,
        channels: int = 3,
        outputs: int | None = None,
        dropout: float = 0.0,
        width: int | None = None,
        padding: int | tuple[int, ...] = 3,
        stride: int = 2,
        axes: Axes = PICTURE,
    ) -> None:
        super().__init__()
        self.width = 512 * block.expansion if width is None else width
        writes = [_share(self.width, parts) for parts in (8, 4, 2, 1)]
        first = _share(self.width, 8 * block.expansion)
        self.conv1 = axes.conv(channels, first, axes.stem, stride=stride, padding=padding, bias=False)  # type: ignore[arg-type]
        self.bn1 = axes.norm(first)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = axes.largest(3, stride=2, padding=1)
        self.layer1 = _stage(block, first, writes[0], depths[0], 1, axes)
        self.layer2 = _stage(block, writes[0], writes[1], depths[1], 2, axes)
        self.layer3 = _stage(block, writes[1], writes[2], depths[2], 2, axes)
        self.layer4 = _stage(block, writes[2], writes[3], depths[3], 2, axes)
        self.avgpool = axes.mean(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Identity() if outputs is None else nn.Linear(self.width, outputs)
        # The initial values of torchvision; BatchNorm and the linear layer start with PyTorch's own in both.
        for module in self.modules():
            if isinstance(module, axes.conv):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(batch, channels, …) → the outputs of the four stages, at 1/4, 1/8, 1/16 and 1/32 of its height."""
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) → (batch, width), or (batch, outputs) with a classification layer."""
        out: Tensor = self.fc(self.dropout(self.avgpool(self.stages(x)[-1]).flatten(1)))
        return out


def _share(width: int, parts: int) -> int:
    return -(-width // parts)  # rounded up, so that no stage is empty


def _shortcut(read: int, write: int, stride: int, axes: Axes) -> nn.Sequential | None:
    if stride == 1 and read == write:
        return None
    return nn.Sequential(axes.conv(read, write, 1, stride=stride, bias=False), axes.norm(write))


def _stage(block: Block, read: int, write: int, depth: int, stride: int, axes: Axes) -> nn.Sequential:
    rest = [block(write, write, 1, axes) for _ in range(depth - 1)]
    return nn.Sequential(block(read, write, stride, axes), *rest)


def _channels(name: str, shape: Sequence[int]) -> int:
    expect_shape(name, shape, ("channels", "height", "width"))
    return shape[0]


def build_resnet18(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-18: 11.2 million parameters at the published width of its embeddings."""
    return ResNet(*DEPTHS[18], channels=_channels("resnet18", shape), width=width, dropout=dropout)


def build_resnet34(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-34: 21.3 million parameters at the published width of its embeddings."""
    return ResNet(*DEPTHS[34], channels=_channels("resnet34", shape), width=width, dropout=dropout)


def build_resnet50(shape: Sequence[int], *, width: int = 2048, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-50: 23.5 million parameters at the published width of its embeddings."""
    return ResNet(*DEPTHS[50], channels=_channels("resnet50", shape), width=width, dropout=dropout)


def build_resnet101(shape: Sequence[int], *, width: int = 2048, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-101: 42.5 million parameters at the published width of its embeddings."""
    return ResNet(*DEPTHS[101], channels=_channels("resnet101", shape), width=width, dropout=dropout)


def build_resnet152(shape: Sequence[int], *, width: int = 2048, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-152: 58.1 million parameters at the published width of its embeddings."""
    return ResNet(*DEPTHS[152], channels=_channels("resnet152", shape), width=width, dropout=dropout)


def load_weights(module: nn.Module, path: Path | str, *, adapt_first: bool = False, inflate: bool = False) -> None:
    """Load the weights of a ``.pth`` file into a network, all of them or none.

    A prefix ``module.`` is removed, and so is the classification layer ``fc`` if the network has none. Other
    differences are adapted only on request.

    Args:
        module: a `ResNet`, or any network with the file's parameter names.
        path: a file with a dictionary of tensors; a file that contains code is refused.
        adapt_first: let ``conv1`` read another number of channels than in the file. Each channel gets the sum of the
            file's channels divided by the new number, so a picture with equal channels gives the same response.
        inflate: let the convolutions of a video network take those of a picture network, repeated over time and
            divided by the number of repetitions. A video that stands still then gives the response of its picture,
            except at its first and last frames (Carreira and Zisserman, CVPR 2017, section 2.4).
    """
    expected = module.state_dict()
    # Distributed training saves every name with this prefix.
    tensors = {name.removeprefix("module."): tensor for name, tensor in read_weights(Path(path)).items()}
    if not any(name.startswith("fc.") for name in expected):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    # Before anything is adapted: sums and divisions would turn whole numbers into fractions and hide them.
    _check_values(tensors, expected, str(path))
    if adapt_first and "conv1.weight" in tensors and "conv1.weight" in expected:
        tensors["conv1.weight"] = _adapted(tensors["conv1.weight"], expected["conv1.weight"].shape[1])
    if inflate:
        tensors = {name: _inflated(tensor, expected.get(name)) for name, tensor in tensors.items()}
    for name, tensor in expected.items():
        # Published files are older than this counter of BatchNorm.
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, tensor)
    load_checked(module, tensors, str(path))


def _check_values(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise an `InputError` for integers where floating-point numbers belong, and for weights that are not finite."""
    shared = [name for name in tensors if name in expected and expected[name].is_floating_point()]
    kinds = {
        "no floating-point numbers": [name for name in shared if not tensors[name].is_floating_point()],
        "not finite": [name for name in shared if not tensors[name].isfinite().all()],
    }
    problems = [
        f"{len(names)} weights in {where} are {kind}: {_first(names)}." for kind, names in kinds.items() if names
    ]
    if problems:
        raise InputError(problems)


def _adapted(weight: Tensor, channels: int) -> Tensor:
    # A tensor with too few axes passes through: `load_checked` reports it together with the other shapes.
    if weight.ndim < 2 or weight.shape[1] == channels:
        return weight
    return weight.sum(dim=1, keepdim=True).expand(-1, channels, *weight.shape[2:]) / channels


def _inflated(weight: Tensor, expected: Tensor | None) -> Tensor:
    if expected is None or (weight.ndim, expected.ndim) != (4, 5):
        return weight
    frames = expected.shape[2]
    return weight[:, :, None].expand(-1, -1, frames, -1, -1) / frames


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a ``.pth`` file by name; they may be nested in another dictionary, see `NESTED`."""
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of a .pth file with weights.")
    try:
        # A .pth file is a pickle, and reading a pickle can run code. This reader accepts tensors and plain values only.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} contains more than tensors, numbers and names, or is damaged; reading the rest could run code, so "
            "it is refused. Save the state_dict alone with torch.save(network.state_dict(), path)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be read as a file of torch.save; is the copy complete? ({error})") from error
    for key in NESTED:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise InputError(f"{path} does not contain a dictionary of tensors. Save network.state_dict() alone.")
    unnamed = [repr(name) for name in stored if not isinstance(name, str)]
    if unnamed:
        raise InputError(f"{path} contains tensors without a name ({_first(unnamed)}). Save network.state_dict().")
    return stored


def load_checked(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load weights whose names and shapes are those of the network; otherwise raise one sentence per problem."""
    problems = mismatches(module.state_dict(), tensors)
    if problems:
        raise InputError([f"The weights in {where} do not fit this network: {problem}" for problem in problems])
    module.load_state_dict(dict(tensors))


def mismatches(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """The differences in name and shape between a network's tensors and those of a file, one sentence per kind."""
    shapes = [
        f"{name} (expected {tuple(expected[name].shape)}, file {tuple(tensors[name].shape)})"
        for name in expected
        if name in tensors and expected[name].shape != tensors[name].shape
    ]
    kinds = {
        "missing in the file": [name for name in expected if name not in tensors],
        "unknown to the network": [name for name in tensors if name not in expected],
        "of another shape": shapes,
    }
    return [f"{len(names)} {kind}: {_first(names)}." for kind, names in kinds.items() if names]


def _first(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

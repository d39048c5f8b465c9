"""Adaptors: a trainable layer that gives the student's features the teacher's shape, where a loss needs one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.shapes import average_to

MODES = {2: "linear", 3: "bilinear", 4: "trilinear"}  # axes of one sample → interpolation
CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}


def adaptor_for(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Module:
    """A module that turns the student's features into the teacher's shape.

    | student | teacher | adaptor |
    |---|---|---|
    | equal | equal | identity, nothing to train |
    | (width,) | (width,) | linear layer |
    | (channels, time) | likewise | 1×1 convolution; time averaged down or interpolated up |
    | (channels, height, width) | likewise | the same in the plane |
    | (channels, depth, height, width) | likewise | the same in space |

    Args:
        student_shape: of one sample's features.
        teacher_shape: likewise.

    Example:
        >>> import torch
        >>> adaptor = adaptor_for((16, 8, 8), (32, 4, 4))
        >>> tuple(adaptor(torch.zeros(2, 16, 8, 8)).shape)
        (2, 32, 4, 4)
    """
    if tuple(student_shape) == tuple(teacher_shape):
        return nn.Identity()
    layer = pointwise(student_shape, teacher_shape)
    return layer if len(student_shape) == 1 else Adaptor(layer, teacher_shape[1:])


class Adaptor(nn.Module):
    """A 1×1 convolution at whichever resolution is smaller, and a change of resolution without parameters.

    Args:
        convolution: changes the number of channels.
        size: lengths of the teacher's axes after the channels.
    """

    def __init__(self, convolution: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.convolution = convolution
        self.size = tuple(size)

    def forward(self, features: Tensor) -> Tensor:
        """(rows, channels, …) of the student in, of the teacher out."""
        least = [min(pair) for pair in zip(features.shape[2:], self.size, strict=True)]
        projected: Tensor = self.convolution(average_to(features, least))
        if least == list(self.size):
            return projected
        return F.interpolate(projected, self.size, mode=MODES[len(self.size) + 1], align_corners=False)


def pointwise(student_shape: Sequence[int], teacher_shape: Sequence[int], *, bias: bool = True) -> nn.Module:
    """A layer from one width to another that looks at one place at a time: linear, or a 1×1 convolution."""
    _possible(student_shape, teacher_shape)
    channels = student_shape[0], teacher_shape[0]
    if len(student_shape) == 1:
        return nn.Linear(*channels, bias=bias)
    return CONVOLUTIONS[len(student_shape)](*channels, kernel_size=1, bias=bias)


def _possible(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
    axes = len(student_shape), len(teacher_shape)
    lengths = [*student_shape, *teacher_shape]
    if axes[0] != axes[1] or not 1 <= axes[0] <= 4 or min(lengths) < 1:
        raise InputError(
            f"No adaptor leads from the student's features {tuple(student_shape)} to the teacher's "
            f"{tuple(teacher_shape)}: expected two vectors (width,) or two maps (channels, …) with the same number of "
            "axes. Choose layers of one kind."
        )

"""Adaptors: trainable layers that map the student's features to the teacher's shape, for losses that need one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.shapes import average_to

MODES = {2: "linear", 3: "bilinear", 4: "trilinear"}  # axes of one sample → interpolation
CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}


def adaptor_for(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Module:
    """A module that maps the student's features to the teacher's shape.

    | both shapes | adaptor |
    |---|---|
    | equal | identity, no parameters |
    | (width,) | linear layer |
    | (channels, time) | 1×1 convolution; time is averaged down or interpolated up |
    | (channels, height, width) | the same in two dimensions |
    | (channels, depth, height, width) | the same in three dimensions |

    Args:
        student_shape: shape of the student's features of one sample.
        teacher_shape: shape of the teacher's features of one sample.

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
    """A 1×1 convolution at the smaller of the two resolutions, and a change of resolution without parameters.

    Args:
        convolution: changes the number of channels.
        size: lengths of the teacher's axes after the channel axis.
    """

    def __init__(self, convolution: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.convolution = convolution
        self.size = tuple(size)

    def forward(self, features: Tensor) -> Tensor:
        """Map (rows, channels, …) of the student to (rows, channels, …) of the teacher."""
        # Averaging comes before the 1×1 convolution and interpolation after it: both commute with it (away from
        # rounding), and in this order the convolution runs at the smaller resolution.
        smaller = [min(pair) for pair in zip(features.shape[2:], self.size, strict=True)]
        projected: Tensor = self.convolution(average_to(features, smaller))
        if smaller == list(self.size):
            return projected
        return F.interpolate(projected, self.size, mode=MODES[len(self.size) + 1], align_corners=False)


def pointwise(student_shape: Sequence[int], teacher_shape: Sequence[int], *, bias: bool = True) -> nn.Module:
    """A layer that maps one number of channels to another at each position: linear, or a 1×1 convolution."""
    axes = len(student_shape)
    if axes != len(teacher_shape) or not 1 <= axes <= 4 or min([*student_shape, *teacher_shape]) < 1:
        raise InputError(
            f"No adaptor maps the student's features of shape {tuple(student_shape)} to the teacher's of shape "
            f"{tuple(teacher_shape)}: expected two vectors (width,) or two maps (channels, …) with the same number of "
            "axes. Choose layers whose features have equally many axes."
        )
    channels = student_shape[0], teacher_shape[0]
    if axes == 1:
        return nn.Linear(*channels, bias=bias)
    return CONVOLUTIONS[axes](*channels, kernel_size=1, bias=bias)

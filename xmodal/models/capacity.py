"""The number of parameters of a network, and the width of a plain network with as many.

Some methods deploy a larger network than others. A plain network of the same size is the control for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from xmodal.models.network import build_network
from xmodal.types import Student

WIDEST = 2**15  # where the search ends, if no width is large enough


def count_parameters(module: nn.Module) -> int:
    """The number of trainable values; running statistics of BatchNorm do not count.

    Example:
        >>> count_parameters(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
        24
    """
    return sum(parameter.numel() for parameter in module.parameters())


def width_for(student: Student, parameters: int) -> int | None:
    """The smallest width of a network's encoders with which it has at least this number of parameters.

    Args:
        student: built by `build_for`.
        parameters: the number of parameters to reach.

    Returns:
        The width; None for a network that `build_for` did not build, or whose encoders have no width.
    """
    arguments = student.arguments
    if student.builder != "network" or arguments is None:
        return None
    if any("width" not in options for options in arguments["inputs"].values()):
        return None
    # Bisection: `low` is always too narrow, `high` is not.
    low, high = 0, 1
    while high < WIDEST and _size(arguments, high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _size(arguments, middle) < parameters else (low, middle)
    return high


def _size(arguments: Mapping[str, Any], width: int) -> int:
    inputs = {name: {**options, "width": width} for name, options in arguments["inputs"].items()}
    # On the meta device tensors have shapes but no memory, and nothing is drawn from the random generator.
    with torch.device("meta"):
        return count_parameters(build_network(**{**arguments, "inputs": inputs}))

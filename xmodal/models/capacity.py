"""How large a network is, and a plain one of the same size: the control for methods that deploy more of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from xmodal.models.network import build_network
from xmodal.types import Student

WIDEST = 2**15


def count_parameters(module: nn.Module) -> int:
    """Numbers that training moves; batch statistics are none.

    Example:
        >>> count_parameters(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
        24
    """
    return sum(parameter.numel() for parameter in module.parameters())


def width_for(student: Student, parameters: int) -> int | None:
    """The smallest width of its encoders at which a built network has at least so many parameters.

    Args:
        student: made by `build_for`.
        parameters: how many there should be.

    Returns:
        The width; None where the network was not built here, or its encoders have none.
    """
    arguments = student.arguments
    if student.builder != "network" or arguments is None:
        return None
    if any("width" not in asked for asked in arguments["inputs"].values()):
        return None
    low, high = 0, 1
    while high < WIDEST and _size(arguments, high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:  # low is too small, high is not
        middle = (low + high) // 2
        low, high = (middle, high) if _size(arguments, middle) < parameters else (low, middle)
    return high


def _size(arguments: Mapping[str, Any], width: int) -> int:
    inputs = {name: {**asked, "width": width} for name, asked in arguments["inputs"].items()}
    with torch.device("meta"):  # shapes alone
        return count_parameters(build_network(**{**arguments, "inputs": inputs}))

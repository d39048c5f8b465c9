"""Which models can be stacked, and why others can't.

Models can be stacked *together* if only numbers in tensors distinguish them: they have the same class, the same names
and shapes of parameters and buffers, the same plain settings (weights of terms, temperatures, layers), and data of the
same shapes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.data.base import Data
from xmodal.engine.settings import FitSettings
from xmodal.engine.teacher_cache import refusal
from xmodal.method import Method
from xmodal.types import DataInfo, Student

_COMMON = set(vars(nn.Module())) | {"_frozen"}  # attributes that every module has


def hindrance(method: Method, data: Data, settings: FitSettings) -> str:
    """Why this model can't be stacked; empty if it can."""
    if not method.stackable:
        return f"{type(method).__name__} is not stackable"
    if data.train.present:
        return "some rows lack a modality, so the rows of a term differ from batch to batch"
    if settings.patience:
        return "patience stops each model at a different epoch"
    if settings.updates:
        return "the number of updates may end within an epoch"
    if settings.schedule == "plateau":
        return "the schedule plateau follows the score of each model"
    if settings.precision != "32-true":
        return f"stacked models are trained in 32-true, not in {settings.precision}"
    if not data.train.paired and any(len(student.needs) > 1 for student in method.students().values()):
        return "the data is unpaired, and a student reads several modalities"
    if data.train.augmented:
        return "the samples are augmented, which differ from epoch to epoch"
    if type(method).teach is not Method.teach:
        if settings.cache == "off":
            return "the outputs of its teacher are computed in every step (cache is off)"
        if reason := refusal(method, data.train):
            return reason
    if _has_schedule(method, settings.epochs):
        return "it changes its settings from epoch to epoch"
    return ""


def _has_schedule(method: Method, epochs: int) -> bool:
    if type(method).on_epoch_start is Method.on_epoch_start:
        return False
    seen = set()
    # 0 last: the call sets the method's attributes, and training starts with those of epoch 0
    for epoch in (epochs // 2, epochs - 1, 0):
        method.on_epoch_start(epoch, epochs)
        seen.add(plain_settings(method))
    return len(seen) > 1


def plain_settings(method: Method) -> Hashable:
    """All attributes that are not parameters or buffers, except those of frozen parts.

    Objects that can't be compared by value are compared by identity.
    """
    frozen = {id(module) for part in method.frozen for module in part.modules()}
    modules = {id(module) for module in method.modules()}
    return tuple(
        (name, type(module), tuple((key, _plain(value, modules)) for key, value in _attributes(module)))
        for name, module in method.named_modules()
        if id(module) not in frozen
    )


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in vars(module).items() if key not in _COMMON)


def _plain(value: Any, modules: set[int]) -> Hashable:
    if isinstance(value, nn.Module) and id(value) in modules:
        return "a module of its own"
    if isinstance(value, Tensor):
        return tuple(value.shape), tuple(value.detach().flatten().tolist())
    # shapes are compared where they are read (`shapes_read`); training targets and statistics may differ
    if isinstance(value, DataInfo):
        return tuple(value.inputs), value.task, value.classes, value.ignore, value.dense, value.paired
    if isinstance(value, Student):
        return value.needs, value.target
    if isinstance(value, Mapping):
        return tuple((key, _plain(part, modules)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_plain(part, modules) for part in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


def state_of(method: Method) -> dict[str, Tensor]:
    """Parameters and buffers by name, without those of frozen parts: the tensors that are stacked."""
    frozen = {id(tensor) for part in method.frozen for tensor in [*part.parameters(), *part.buffers()]}
    named = [*method.named_parameters(), *method.named_buffers()]
    return {name: tensor for name, tensor in named if id(tensor) not in frozen}


def groups_of(method: Method) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """``param_groups`` with names in place of parameters: (names, options) of each group."""
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    groups = []
    for group in method.param_groups():
        options = {key: value for key, value in group.items() if key != "params"}
        groups.append((tuple(names[id(parameter)] for parameter in group["params"]), options))
    return groups


def shape_of(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    """Shape and type, which tensors must share to be stacked."""
    return tensor.shape, tensor.dtype

"""Weights on disk."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from xmodal.files import written_whole


def save_weights(path: Path, module: nn.Module) -> None:
    """All tensors of a module, whole or not at all."""
    # clones: safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with written_whole(path) as beside:
        save_file(tensors, beside)


def load_weights_into(module: nn.Module, path: Path) -> None:
    """Take back what `save_weights` wrote."""
    module.load_state_dict(load_file(path))


def save_student(path, student, info):
    save_weights(path, student.module)

"""A network that was trained with other statistics than those of the data, among batches of that data."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from xmodal.types import DataInfo, Normalisation, Student


def read_alike(student: Student, info: DataInfo) -> None:
    """Make a network read inputs that are normalised with other statistics than its own, where they differ."""
    changes = {
        name: (info.normalisation.get(name), student.normalisation.get(name))
        for name in student.needs
        if info.normalisation.get(name) != student.normalisation.get(name)
    }
    if changes:
        student.module.register_forward_pre_hook(Renormalise(changes))


class Renormalise(nn.Module):
    """A hook before a network's forward pass: from the normalisation of the data to that of the network.

    Args:
        changes: input → statistics of the data and of the network; None: not normalised.
    """

    def __init__(self, changes: Mapping[str, tuple[Normalisation | None, Normalisation | None]]) -> None:
        super().__init__()
        self.changes = dict(changes)

    def forward(self, module: nn.Module, arguments: tuple[Mapping[str, Tensor], ...]) -> tuple[Mapping[str, Tensor]]:
        """The arguments of the network with changed inputs."""
        inputs = dict(arguments[0])
        for name, (before, after) in self.changes.items():
            inputs[name] = _renormalised(inputs[name], before, after)
        return (inputs,)


def _renormalised(values: Tensor, before: Normalisation | None, after: Normalisation | None) -> Tensor:
    raw = values
    if before is not None:
        mean, std = (part.to(values.device, values.dtype) for part in before.tensors())
        raw = values * std + mean
        # positions without a measurement are zero before and after
        raw = raw * (values != 0).any(dim=1, keepdim=True) if before.empty else raw
    if after is None:
        return raw
    mean, std = (part.to(values.device, values.dtype) for part in after.tensors())
    changed = (raw - mean) / std
    return changed * (raw != 0).any(dim=1, keepdim=True) if after.empty else changed

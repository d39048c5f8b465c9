"""What the teacher says, asked once.

A frozen teacher that sees each training sample as it is gives the same answer in every epoch: it is asked once, in
fixed blocks in the order of the rows, and training reads the table. The shuffled-teacher control reads the same table
with rows exchanged among samples of one class: what the teacher knows of the class survives, what it knows of the
sample does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmodal.data.base import Split
from xmodal.data.loader import in_order, mix
from xmodal.errors import InputError
from xmodal.method import Method
from xmodal.types import Batch, DataInfo

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BLOCK = 256
LIMIT = 4 * 2**30  # bytes of a table that is still kept


def refusal(method: Method, split: Split) -> str:
    """Why this teacher can't be asked once; empty when it can."""
    if not method.frozen:
        return "the method freezes no teacher, so its answers change as it trains"
    if method.teach_online:
        return method.teach_online
    if split.changing if method.teach_inputs is None else split.changing.intersection(method.teach_inputs):
        return "the teacher sees augmented samples, which differ from epoch to epoch"
    if not split.paired:
        return "the data is unpaired, so there are no rows to look up"
    for module in (module for frozen in method.frozen for module in frozen.modules()):
        if isinstance(module, _BatchNorm) and not module.track_running_stats:
            return "the teacher normalises by the statistics of its batch"
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training:
            return "the teacher draws dropout"
    return ""


class Teaching:
    """Answers ``method.teach`` for training batches: by asking, from the table, or from the exchanged table."""

    def __init__(
        self, method: Method, split: Split, info: DataInfo, fabric: Fabric, *, cache: str, shuffle: bool, seed: int
    ) -> None:
        self.method, self.fabric = method, fabric
        self.table: dict[str, Tensor] | None = None
        self.active = type(method).teach is not Method.teach
        reason = refusal(method, split) if self.active else ""
        if shuffle and not self.active:
            raise InputError("The shuffled-teacher control needs a method with a teacher, and this one has none.")
        if reason and (shuffle or cache == "on"):
            what = "The shuffled-teacher control" if shuffle else "The teacher cache"
            way = "Leave it out (--no-shuffled)" if shuffle else "Use --cache off, or leave that out"
            raise InputError(f"{what} is not possible here: {reason}. {way}.")
        if self.active and not reason and (shuffle or cache != "off"):
            self.table = self._ask_all(split, info.block(BLOCK))
            if self.table is None and (shuffle or cache == "on"):
                what = "The shuffled-teacher control" if shuffle else "The teacher cache"
                raise InputError(
                    f"{what} is not possible here: the teacher's answers take more than {LIMIT / 2**30:g} GiB. "
                    "Use --cache off, or leave that out."
                )
        if shuffle and self.table is not None:
            rows = exchange(strata(info), seed)
            alone = (rows == torch.arange(len(rows))).double().mean().item()
            if alone > 0.5:
                raise InputError(
                    f"The shuffled-teacher control is not possible here: {alone:.0%} of the training rows share their "
                    "class or combination of labels with no other, so hardly anything would be exchanged. Leave it out."
                )
            rows = rows.to(fabric.device)
            self.table = {name: answers.index_select(0, rows) for name, answers in self.table.items()}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """What the teacher says about the rows of a batch."""
        if not self.active:
            return {}
        if self.table is None:
            return self._ask(batch)
        rows = next(iter(batch.index.values()))
        return {name: answers.index_select(0, rows) for name, answers in self.table.items()}

    def _ask(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), self.fabric.autocast():
            return self.method.teach(batch)

    def _ask_all(self, split: Split, rows: int) -> dict[str, Tensor] | None:
        blocks: list[dict[str, Tensor]] = []
        for batch in in_order(split, batch_size=rows):
            blocks.append(self._ask(batch.to(self.fabric.device)))
            size = sum(answer.nelement() * answer.element_size() for answer in blocks[0].values())
            if size * max(split.rows.values()) > LIMIT * len(next(iter(blocks[0].values()))):
                return None  # too large to keep: ask online
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def strata(info: DataInfo) -> Tensor:
    """A class number per training row: the label, the combination of labels, or the decile of a regressed value."""
    if info.dense:  # a sample holds many classes: any other will do
        return torch.zeros(max(info.rows["train"].values()), dtype=torch.long)
    target = next(iter(info.train_targets.values()))
    if info.task == "regression":
        order = target[:, 0].argsort().argsort()
        decile: Tensor = order * 10 // max(len(order), 1)
        return decile
    if target.ndim > 1:
        found = torch.unique(target, dim=0, return_inverse=True)
        return torch.as_tensor(found[1])
    return target


def exchange(classes: Tensor, seed: int) -> Tensor:
    """For every row another row of its class (itself where it is alone), each one used once.

    Example:
        >>> rows = exchange(torch.tensor([0, 1, 0, 1, 0]), seed=0)
        >>> bool((rows != torch.arange(5)).all()), rows.sort().values.tolist()
        (True, [0, 1, 2, 3, 4])
    """
    generator = torch.Generator().manual_seed(mix(seed, "exchange"))
    rows = torch.arange(len(classes))
    for value in classes.unique():  # type: ignore[no-untyped-call]
        members = (classes == value).nonzero().flatten()
        circle = members[torch.randperm(len(members), generator=generator)]
        rows[circle] = circle.roll(1)
    return rows

"""What the teacher says, asked once.

A frozen teacher that sees each training sample as it is gives the same answer in every epoch: it is asked once, in
fixed blocks in the order of the rows, and training reads the table. The shuffled-teacher control reads the same table
with rows exchanged among samples of one class: what the teacher knows of the class survives, what it knows of the
sample does not. A table that is too large for the memory is a file of the run folder (`xmodal.engine.teacher_disk`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmodal.data.loader import in_order
from xmodal.data.split import Split
from xmodal.engine.teacher_disk import Answers, bytes_of, stored
from xmodal.errors import InputError
from xmodal.method import DescribesTeacher, Method
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BLOCK = 256
LIMIT = 4 * 2**30  # bytes of a table that is still kept in memory


def refusal(method: Method, split: Split) -> str:
    """Why this teacher can't be asked once; empty when it can."""
    if not method.frozen:
        return "the method freezes no teacher, so its answers change as it trains"
    inputs = None
    if isinstance(method, DescribesTeacher):
        if method.teach_online:
            return method.teach_online
        inputs = method.teach_inputs
    if split.changing if inputs is None else split.changing.intersection(inputs):
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
    """Answers ``method.teach`` for training batches: by asking, from the table, or from the exchanged table.

    Args:
        method: asks and is asked.
        split: the training split.
        info: of the data.
        fabric: started devices.
        cache: ``memory`` or ``disk``; ``on``: either; ``auto``: either if it can be; ``off``: ask in every epoch.
        shuffle: exchange the answers among samples of one class.
        seed: of the exchange.
        place: folder for tables on disk; None: there is none.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        info: DataInfo,
        fabric: Fabric,
        *,
        cache: str,
        shuffle: bool,
        seed: int,
        place: Path | None = None,
    ) -> None:
        self.method, self.fabric = method, fabric
        self.table: dict[str, Tensor] | None = None
        self.answers: Answers | None = None
        self.exchanged: Tensor | None = None
        self.active = type(method).teach is not Method.teach
        must = shuffle or cache not in ("auto", "off")
        if shuffle and not self.active:
            raise InputError("The shuffled-teacher control needs a method with a teacher, and this one has none.")
        if not self.active or not (shuffle or cache != "off"):
            return
        reason = refusal(method, split) or self._keep(split, info.block(BLOCK), cache, place)
        if reason and must:
            what = "The shuffled-teacher control" if shuffle else "The teacher cache"
            way = "Leave it out (--no-shuffled)" if shuffle else "Use --cache off, or leave that out"
            raise InputError(f"{what} is not possible here: {reason}. {way}.")
        if shuffle:
            self._exchange(info, seed)

    def _keep(self, split: Split, block: int, cache: str, place: Path | None) -> str:
        """Ask for every row and keep the answers; why it can't be done, empty when it is."""
        if cache != "disk":
            blocks = in_order(split, batch_size=block)
            first = self._ask(next(blocks).to(self.fabric.device))
            size = bytes_of(first, max(split.rows.values()))
            if size <= LIMIT:
                asked = [first, *(self._ask(batch.to(self.fabric.device)) for batch in blocks)]
                self.table = {name: torch.cat([answers[name] for answers in asked]) for name in first}
                return ""
            if cache == "memory" or place is None:
                return f"the teacher's answers take {size / 2**30:.3g} GiB, more than the {LIMIT / 2**30:g} for memory"
        if place is None:
            return "answers on disk are kept in the run folder, and this training has none"
        found = stored(place, self.method, split, ask=self._ask, block=block, fabric=self.fabric)
        if found is None:
            return f"the disk of {place} has no room for the teacher's answers"
        self.answers = Answers(found, self.fabric.device)
        return ""

    def _exchange(self, info: DataInfo, seed: int) -> None:
        rows = exchange(strata(info), seed)
        alone = (rows == torch.arange(len(rows))).double().mean().item()
        if alone > 0.5:
            raise InputError(
                f"The shuffled-teacher control is not possible here: {alone:.0%} of the training rows share their "
                "class or combination of labels with no other, so hardly anything would be exchanged. Leave it out."
            )
        self.exchanged = rows.to(self.fabric.device)
        if self.table is not None:
            self.table = {name: answers.index_select(0, self.exchanged) for name, answers in self.table.items()}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """What the teacher says about the rows of a batch."""
        if not self.active:
            return {}
        rows = next(iter(batch.index.values()))
        if self.table is not None:
            return {name: answers.index_select(0, rows) for name, answers in self.table.items()}
        if self.answers is not None:
            return self.answers(rows if self.exchanged is None else self.exchanged.index_select(0, rows))
        return self._ask(batch)

    def _ask(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), self.fabric.autocast():
            return self.method.teach(batch)


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

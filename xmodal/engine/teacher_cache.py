"""The outputs of a frozen teacher, computed once per training sample.

A frozen teacher that reads samples without augmentation returns the same outputs in every epoch. They are computed
once, in blocks of fixed size in the order of the rows, and training reads a table. A table that is too large for memory
is a file in the run folder (`xmodal.engine.teacher_disk`).

The shuffled-teacher control reads the same table with its rows permuted among the samples of each class: what the
teacher's outputs say about the class is kept, what they say about the single sample is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmodal.collectives import gather_rows
from xmodal.data.split import Split, nothing_of
from xmodal.engine.teacher_disk import DiskTable, blocks_of, bytes_of, disk_table, rows_at
from xmodal.errors import InputError
from xmodal.method import DescribesTeacher, Method
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo, owner, rows_with

if TYPE_CHECKING:
    from xmodal.devices import Devices

# The block does not depend on --batch-size: kernels differ by block size in the last bits, and a table must be the same
# for every training that reads it.
BLOCK = 256
LIMIT = 4 * 2**30  # bytes; larger tables are not kept in memory


def refusal(method: Method, split: Split) -> str:
    """Why the teacher's outputs can't be computed once; empty if they can."""
    if not method.frozen:
        return "the method freezes no teacher, so its outputs change during training"
    inputs = None
    if isinstance(method, DescribesTeacher):
        if method.teach_online:
            return method.teach_online
        inputs = method.teach_inputs
    if split.changing if inputs is None else split.changing.intersection(inputs):
        return "the teacher reads augmented samples, which differ from epoch to epoch"
    if not split.paired:
        return "the data is unpaired, so its modalities have no common rows"
    for module in (module for frozen in method.frozen for module in frozen.modules()):
        # without running statistics a BatchNorm uses those of its batch in eval mode too
        if isinstance(module, _BatchNorm) and not module.track_running_stats:
            return "the teacher normalises with the statistics of its batch"
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training:
            return "the teacher has active dropout"
    return ""


class TeacherCache:
    """Outputs of ``method.teach`` for training batches: computed each time, or read from a table.

    Args:
        method: whose ``teach`` is called.
        split: the training split.
        info: of the data.
        fabric: started devices.
        cache: ``memory`` or ``disk``; ``on``: either of them; ``auto``: either of them if possible; ``off``: compute
            the outputs in every epoch.
        exchange: ``class``: exchange the outputs between samples of the same class, or of the class that the teacher
            predicts where some have no label; ``all``: between any samples; empty: do not.
        seed: of the permutation.
        disk: folder for tables on disk; None: there is none.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        info: DataInfo,
        fabric: Devices,
        *,
        cache: str,
        exchange: str,
        seed: int,
        disk: Path | None = None,
    ) -> None:
        self.method, self.fabric, self.rows = method, fabric, max(split.rows.values())
        # where rows lack modalities: position of each row among those that the teacher can read, -1: it can't
        self.places: Tensor | None = None
        self.table: dict[str, Tensor] | None = None
        self.disk_table: DiskTable | None = None
        self.permutation: Tensor | None = None
        self.active = type(method).teach is not Method.teach
        required = bool(exchange) or cache not in ("auto", "off")
        if exchange and not self.active:
            raise InputError("The shuffled-teacher control needs a method with a teacher, and this one has none.")
        if not self.active or not (exchange or cache != "off"):
            return
        taught = method.taught_by()
        if taught is not None:
            split = split.reading([name for name in info.inputs if owner(name) in taught])
        readable = rows_with(split.present, method.taught_by()) if split.present else None
        if readable is not None:
            split = split.subset(dict.fromkeys(split.rows, readable.nonzero().flatten()))
            self.places = torch.where(readable, readable.cumsum(0) - 1, -1).to(fabric.device)
            self.rows = max(split.rows.values())
        reason = refusal(method, split) or self._fill(split, info.block(BLOCK), cache, disk)
        if reason and required:
            what = "The shuffled-teacher control" if exchange else "The teacher cache"
            instead = "Leave it out (--no-shuffled)" if exchange else "Use --cache off, or leave that out"
            raise InputError(f"{what} is not possible here: {reason}. {instead}.")
        if exchange:
            self._permute(self._strata(info, exchange, readable), seed)

    def _fill(self, split: Split, block: int, cache: str, disk: Path | None) -> str:
        """Compute the outputs of all rows and keep them; returns why that is not possible, empty if it was done."""
        if cache != "disk":
            # the first block shows how large the table will be
            first = self._compute(rows_at(split, slice(0, min(block, self.rows))).to(self.fabric.device))
            size = bytes_of(first, max(split.rows.values()))
            if size <= LIMIT:
                self.table = self._computed(split, block, first)
                return ""
            if cache == "memory" or disk is None:
                return f"the teacher's outputs take {size / 2**30:.3g} GiB, more than the {LIMIT / 2**30:g} for memory"
        if disk is None:
            return "outputs on disk are kept in the run folder, and this training has none"
        folder = disk_table(disk, self.method, split, compute=self._compute, block=block, fabric=self.fabric)
        if folder is None:
            return f"the disk of {disk} has no room for the teacher's outputs"
        self.disk_table = DiskTable(folder, self.fabric.device)
        return ""

    def _computed(self, split: Split, block: int, first: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of all rows, of which each process computes some blocks; ``first`` are those of the first."""
        device = self.fabric.device
        numbers, parts = [torch.arange(0, device=device)], [{name: part[:0] for name, part in first.items()}]
        for rows in blocks_of(split, block, self.fabric):
            numbers.append(torch.arange(rows.start, rows.stop, device=device))
            parts.append(dict(first) if rows.start == 0 else self._compute(rows_at(split, rows).to(device)))
        if self.fabric.world_size == 1:
            return {name: torch.cat([part[name] for part in parts]) for name in first}
        # joined by rank, and then put in the order of the rows
        order = gather_rows(torch.cat(numbers)).argsort()
        return {name: gather_rows(torch.cat([part[name] for part in parts]))[order] for name in first}

    def _strata(self, info: DataInfo, exchange: str, readable: Tensor | None) -> Tensor:
        """The stratum of each row with outputs, within which these are exchanged."""
        if exchange == "all":
            return torch.zeros(self.rows, dtype=torch.long)
        if not info.labelled:
            classes = strata(info, next(iter(info.train_targets.values()), None))
            return classes if readable is None else classes[readable]
        # labels that are missing can't be strata; what the teacher predicts is known for all rows
        outputs = self._all_outputs()
        predictions = next(
            (part for part in outputs.values() if part.ndim == 2 and part.shape[1] == info.outputs), None
        )
        if predictions is None:
            raise InputError(
                "The shuffled-teacher control exchanges outputs within the class that the teacher predicts, and this "
                "method's teacher predicts none. Leave it out (--no-shuffled)."
            )
        return strata(info, predicted(predictions.cpu(), info.task))

    def _all_outputs(self) -> dict[str, Tensor]:
        if self.table is not None:
            return self.table
        assert self.disk_table is not None
        return self.disk_table(torch.arange(self.rows, device=self.fabric.device))

    def _permute(self, classes: Tensor, seed: int) -> None:
        rows = exchange(classes, seed)
        unchanged = (rows == torch.arange(len(rows))).double().mean().item()
        # with most rows unchanged the control would measure next to nothing
        if unchanged > 0.5:
            raise InputError(
                f"The shuffled-teacher control is not possible here: {unchanged:.0%} of the training rows share their "
                "class or combination of labels with no other, so hardly anything would be exchanged. Leave it out."
            )
        self.permutation = rows.to(self.fabric.device)
        if self.table is not None:
            self.table = {name: outputs.index_select(0, self.permutation) for name, outputs in self.table.items()}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's outputs for the rows of a batch; empty for a method without a teacher."""
        if not self.active:
            return {}
        rows = next(iter(batch.index.values()))
        if self.table is None and self.disk_table is None:
            return self._compute(batch)
        if self.places is None:
            return self._read(rows)
        places = self.places.index_select(0, rows)
        # rows without outputs read those of the first row, which are then replaced
        return without_rows(self._read(places.clamp(min=0)), places < 0)

    @property
    def computes(self) -> bool:
        """Whether outputs are computed for each batch, from its inputs."""
        return self.active and self.table is None and self.disk_table is None

    def _read(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows of the table."""
        if self.table is not None:
            return {name: outputs.index_select(0, rows) for name, outputs in self.table.items()}
        assert self.disk_table is not None
        return self.disk_table(rows if self.permutation is None else self.permutation.index_select(0, rows))

    def _compute(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), self.fabric.autocast():
            if not batch.present:
                return self.method.teach(batch)
            rows = rows_with(batch.present, self.method.taught_by())
            if rows.all():
                return self.method.teach(batch)
            if rows.any():
                outputs = self.method.teach(batch.take(rows))
            else:
                # a row of zeros shows the names and shapes of the outputs
                first = batch.take(slice(0, 1))
                first.inputs = {name: torch.zeros_like(values) for name, values in first.inputs.items()}
                outputs = self.method.teach(first)
            places = (rows.cumsum(0) - 1).clamp(min=0)
            return without_rows({name: part.index_select(0, places) for name, part in outputs.items()}, ~rows)


def without_rows(outputs: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Outputs with NaN in these rows (a boolean mask), which no term may read."""
    return {
        name: part.masked_fill(rows.reshape(-1, *[1] * (part.ndim - 1)), nothing_of(part))
        for name, part in outputs.items()
    }


def predicted(outputs: Tensor, task: str) -> Tensor:
    """The targets that outputs (rows, width) predict, in the form of training targets."""
    if task == "multiclass":
        return outputs.argmax(dim=1)
    if task == "regression":
        return outputs
    signs = (outputs > 0).long()
    return signs[:, 0] if task == "binary" else signs


def strata(info: DataInfo, target: Tensor | None) -> Tensor:
    """The stratum of each training row: its label, its combination of labels, or the decile of its target value."""
    # a dense sample holds many classes, so all samples form one stratum
    if info.dense or target is None:
        return torch.zeros(max(info.rows["train"].values()), dtype=torch.long)
    if info.task == "regression":
        # sorting twice gives ranks
        ranks = target[:, 0].argsort().argsort()
        decile: Tensor = ranks * 10 // max(len(ranks), 1)
        return decile
    if target.ndim > 1:
        _, combinations = torch.unique(target, dim=0, return_inverse=True)
        return torch.as_tensor(combinations)
    return target


def exchange(classes: Tensor, seed: int) -> Tensor:
    """A permutation that maps every row to another row of its class; only a row that is alone in its class stays.

    Example:
        >>> rows = exchange(torch.tensor([0, 1, 0, 1, 0]), seed=0)
        >>> bool((rows != torch.arange(5)).all()), rows.sort().values.tolist()
        (True, [0, 1, 2, 3, 4])
    """
    generator = torch.Generator().manual_seed(mix(seed, "exchange"))
    rows = torch.arange(len(classes))
    # one sort puts the rows of each class next to each other, in their order
    sizes = classes.unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
    for members in torch.split(classes.argsort(stable=True), sizes.tolist()):
        # A cycle through all members in random order; a random permutation alone would leave some rows unchanged.
        cycle = members[torch.randperm(len(members), generator=generator)]
        rows[cycle] = cycle.roll(1)
    return rows

"""Labels that are hidden on purpose (`--labelled`); `xmodal.data.unlabelled` is about rows that come without one.

Hidden labels answer the question "how much would fewer labels cost, and what do unlabelled pairs bring back?" on a set
that has all of them. The rows that keep theirs are the head of one seeded order, so 30 labels are among the 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.base import Data
from xmodal.data.groups import rows_of_each
from xmodal.data.request import DataRequest
from xmodal.data.split import Split
from xmodal.data.unlabelled import SINGLE, counted, named
from xmodal.errors import InputError
from xmodal.seeding import mix

ALL = "all"


@dataclass(frozen=True, slots=True)
class Labels:
    """How many labels are kept, as ``--labelled`` says it.

    Attributes:
        count: of rows; None: another attribute says it.
        share: of the training rows.
        file: .npy with row numbers of the data set.

    With all three None, all rows keep their labels.
    """

    count: int | None = None
    share: float | None = None
    file: Path | None = None

    @classmethod
    def parse(cls, text: str, flag: str = "--labelled") -> Labels:
        """Read a flag: a number with a decimal point is a share, digits alone a count.

        Example:
            >>> Labels.parse("30").count, Labels.parse("0.1").share, Labels.parse("all") == Labels()
            (30, 0.1, True)
        """
        text = text.strip()
        if text in ("", ALL):
            return cls()
        if text.endswith(".npy"):
            return cls(file=Path(text))
        if text.isdigit() and int(text):
            return cls(count=int(text))
        try:
            share = float(text) if "." in text else -1.0
        except ValueError:
            share = -1.0
        if not 0.0 < share <= 1.0:
            raise InputError(
                f"{flag} is '{text}': a number of rows (30), a share with a decimal point (0.1), all, or a .npy file "
                "with row numbers was expected."
            )
        return cls(share=share)

    def of(self, rows: int) -> int:
        """The number of labels among so many rows."""
        if self.share is not None:
            return round(self.share * rows)
        return rows if self.count is None else self.count


def labelled_order(target: Tensor, *, task: str, seed: int) -> Tensor:
    """All rows in the order in which they keep their labels: every head of it has the classes in their shares.

    The first rows are one of each class. Then each row goes to the class whose share is furthest behind, by the divisor
    method of Webster and Sainte-Laguë: the next row goes to the class with the largest n / (2 k + 1), where n is the
    size of the class and k how many of it are chosen. Targets that are no single class are drawn in random order.

    Args:
        target: of the rows, (rows,) or (rows, …).
        task: kind of target.
        seed: of the order.

    Example:
        >>> order = labelled_order(torch.tensor([0] * 8 + [1] * 4), task="multiclass", seed=0)
        >>> [(torch.tensor([0] * 8 + [1] * 4)[order[:n]] == 1).sum().item() for n in (2, 3, 6, 12)]
        [1, 1, 2, 4]
    """
    generator = torch.Generator().manual_seed(mix(seed, "labels"))
    shuffled = torch.randperm(len(target), generator=generator)
    if target.ndim > 1 or task not in ("multiclass", "binary"):
        return shuffled
    classes = target[shuffled]
    priorities = torch.zeros(len(target), dtype=torch.float64)
    for rows in rows_of_each(classes.numpy()):
        members = torch.from_numpy(rows)
        # in descending order of n / (2 k + 1): with k = 0 infinity, so that each class comes first once
        priorities[members] = len(members) / (2.0 * torch.arange(len(members), dtype=torch.float64) + 1.0)
        priorities[members[0]] = float("inf")
    # stable: rows of equal priority stay in random order
    return shuffled[priorities.sort(descending=True, stable=True).indices]


def hide_labels(
    data: Data, *, labelled: str = ALL, groups: int | None = None, valid_labels: str = "", seed: int = 0
) -> Data:
    """The same data with fewer labels in training, and as many in validation.

    Args:
        data: with a label for every row.
        labelled: a count, a share, ``all``, or a .npy file with rows, see `Labels`.
        groups: keep the labels of so many whole groups (people, drives) instead.
        valid_labels: ``all``, a count or a share of the validation rows; the others are left out. Empty: as many as
            there are labels in training, since choosing an epoch by many labels would use labels too.
        seed: of the order in which labels are kept.
    """
    choice = Labels.parse(labelled)
    kept_valid = Labels.parse(valid_labels, "--valid-labels") if valid_labels else None
    if kept_valid is not None and kept_valid.file is not None:
        raise InputError(f"--valid-labels is '{valid_labels}': a number of rows, a share or all was expected.")
    if groups is not None and choice != Labels():
        raise InputError("--labelled and --labelled-groups both say which labels to keep. Leave one of them out.")
    if groups is None and choice == Labels():
        return data if kept_valid is None else _with_valid(data, _counts(kept_valid, data), seed)
    flag = f"--labelled {labelled}" if groups is None else f"--labelled-groups {groups}"
    if data.info.labelled:
        raise InputError(
            f"Some training rows have no label already, and {flag} hides labels of a set that has all of them. Leave "
            "it out."
        )
    masks = _by_group(data, groups, seed) if groups is not None else _by_order(data, choice, seed)
    _check_kept(data, masks, flag)
    train, counts = data.train.without_labels(masks), counted(masks)
    hidden = data
    if train.labelled:
        info = replace(data.info, labelled=counts, train_targets=train.targets)
        hidden = replace(data, train=train, info=info, revealed=data)
    if kept_valid is None:
        return _with_valid(hidden, {name: min(counts[name], rows) for name, rows in data.valid.rows.items()}, seed)
    return _with_valid(hidden, _counts(kept_valid, data), seed)


def requested(data: Data, request: DataRequest) -> Data:
    """The data with the labels that a request keeps."""
    if request.train_fraction != 1.0 and (request.labelled or request.labelled_groups):
        raise InputError(
            "--train-fraction drops training rows, and --labelled keeps them without their labels: both together are "
            "ambiguous. Give one of the two."
        )
    return hide_labels(
        data,
        labelled=request.labelled or ALL,
        groups=request.labelled_groups or None,
        valid_labels=request.valid_labels,
        seed=request.seed,
    )


def _by_order(data: Data, choice: Labels, seed: int) -> dict[str, Tensor]:
    """Modality → mask of the rows that keep their label; modalities that share their targets share the mask."""
    listed = None if choice.file is None else _read_rows(choice.file)
    shared: dict[int, Tensor] = {}
    masks = {}
    targets = _targets(data.train)
    shared_by_all = len({id(target) for target in targets.values()}) == 1
    for name, target in targets.items():
        if id(target) not in shared:
            if listed is not None:
                shared[id(target)] = _listed(data, name, listed, choice.file)
            else:
                # unpaired modalities of equal classes would otherwise keep the labels of the same rows
                key = seed if shared_by_all else mix(seed, name)
                order = labelled_order(target, task=data.info.task, seed=key)
                count = choice.of(len(target))
                _check_count(data, target, count)
                mask = torch.zeros(len(target), dtype=torch.bool)
                mask[order[:count]] = True
                shared[id(target)] = mask
        masks[name] = shared[id(target)]
    return masks


def _targets(split: Split) -> Mapping[str, Tensor]:
    """Modality → targets; one tensor of zeros per row where targets are drawn together with the inputs."""
    if split.targets:
        return split.targets
    nothing = torch.zeros(max(split.rows.values()), 1)
    return dict.fromkeys(split.rows, nothing)


def _check_count(data: Data, target: Tensor, count: int) -> None:
    single = _is_single(data, target)
    least = len(target.unique()) if single else 2  # type: ignore[no-untyped-call]
    if count > len(target):
        raise InputError(f"--labelled asks for {count} labels, and there are {len(target)} training rows. Lower it.")
    if count < least:
        what = f"the training rows have {least} classes, and each needs a label" if single else "two are the least"
        raise InputError(f"--labelled keeps {count} label{'s' * (count != 1)}: {what}. Give {least} or more.")


def _check_kept(data: Data, masks: Mapping[str, Tensor], flag: str) -> None:
    """Raise an error if chosen rows or groups leave fewer than two labels, or a class of the training rows without."""
    for name, target in _targets(data.train).items():
        kept = target[masks[name]]
        if len(kept) < 2:
            raise InputError(f"{flag} keeps the label of {len(kept)} training row: two are the least. Keep more.")
        missing = set(target.tolist()) - set(kept.tolist()) if _is_single(data, target) else set()
        if missing:
            classes = named(missing, data.info.class_names)
            raise InputError(f"{flag} keeps no label of the {classes} of the training rows: each needs one. Keep more.")


def _is_single(data: Data, target: Tensor) -> bool:
    """Whether a target is one class, by which rows can be told apart."""
    return target.ndim == 1 and data.info.task in SINGLE


def _by_group(data: Data, count: int | None, seed: int) -> dict[str, Tensor]:
    """Modality → mask of the rows of ``count`` groups in a seeded order."""
    if data.groups is None:
        raise InputError(
            "--labelled-groups keeps the labels of whole groups, and this data has no groups. Add groups.npy to the "
            "folder, give groups= in Python, or use --labelled."
        )
    masks = {}
    shared: dict[int, Tensor] = {}
    for name, numbers in data.train.numbers.items():
        if id(numbers) not in shared:
            groups = data.groups[numbers]
            values = np.unique(groups)
            if not count or count > len(values):
                raise InputError(
                    f"--labelled-groups is {count}, and the training rows have {len(values)} groups: 1 to "
                    f"{len(values)} were expected."
                )
            generator = torch.Generator().manual_seed(mix(seed, "groups"))
            kept = values[torch.randperm(len(values), generator=generator)[:count].numpy()]
            shared[id(numbers)] = torch.from_numpy(np.isin(groups, kept))
        masks[name] = shared[id(numbers)]
    return masks


def _read_rows(file: Path) -> NDArray[np.int64]:
    from xmodal.data.own.check_arrays import check_rows
    from xmodal.data.report import Report

    try:
        rows: NDArray[Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--labelled {file} can't be read ({error}). A .npy file with row numbers was expected."
        ) from None
    report = Report()
    check_rows(f"--labelled {file}", rows, np.iinfo(np.int64).max, report)
    report.stop_on_errors()
    return rows.astype(np.int64)


def _listed(data: Data, name: str, listed: NDArray[np.int64], file: Path | None) -> Tensor:
    numbers = data.train.numbers[name]
    outside = np.setdiff1d(listed, numbers)
    if len(outside):
        raise InputError(
            f"--labelled {file} names row {outside[0]}, which is not in the training split. Name training rows only."
        )
    return torch.from_numpy(np.isin(numbers, listed))


def _counts(choice: Labels, data: Data) -> dict[str, int]:
    """Modality → number of validation rows to keep."""
    counts = {name: choice.of(rows) for name, rows in data.valid.rows.items()}
    for name, rows in data.valid.rows.items():
        if not 1 <= counts[name] <= rows:
            raise InputError(
                f"--valid-labels keeps {counts[name]} labels, and there are {rows} validation rows: 1 to {rows} were "
                "expected."
            )
    return counts


def _with_valid(data: Data, counts: Mapping[str, int], seed: int) -> Data:
    """The data with so many validation rows of each modality."""
    if counts == dict(data.valid.rows):
        return data
    shared: dict[int, Tensor] = {}
    positions = {}
    for name, target in _targets(data.valid).items():
        if id(target) not in shared:
            # another order than that of the training rows, which may have the same targets
            order = labelled_order(target, task=data.info.task, seed=mix(seed, "valid"))
            shared[id(target)] = order[: counts[name]].sort().values
        positions[name] = shared[id(target)]
    valid = data.valid.subset(positions)
    return replace(data, valid=valid, info=replace(data.info, rows={**data.info.rows, "valid": valid.rows}))

"""Which training rows have a label: rows that come without one, and labels that are hidden on purpose (`--labelled`).

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
from xmodal.data.request import DataRequest
from xmodal.data.split import Split
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
    for value in classes.unique():  # type: ignore[no-untyped-call]
        members = (classes == value).nonzero().flatten()
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
        valid_labels: ``all``, or a number of validation rows; the others are left out. Empty: as many as there are
            labels in training, since choosing an epoch by many labels would use labels too.
        seed: of the order.
    """
    choice = Labels.parse(labelled)
    if choice == Labels() and groups is None:
        if valid_labels not in ("", ALL):
            return replace(data, **_fewer_valid(data, valid_labels, {}, seed))
        return data
    if data.info.labelled:
        raise InputError(
            "Some training rows have no label already, and --labelled hides labels of a set that has all of them. "
            "Leave --labelled out."
        )
    masks = _by_group(data, groups, seed) if groups is not None else _by_order(data, choice, seed)
    train = data.train.without_labels(masks)
    if not train.labelled:
        return data
    _check_classes(data, masks)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    info = replace(data.info, labelled=counts, train_targets=train.targets)
    hidden = replace(data, train=train, info=info, revealed=data)
    return replace(hidden, **_fewer_valid(hidden, valid_labels, counts, seed))


def requested(data: Data, request: DataRequest) -> Data:
    """The data with the labels that a request keeps."""
    if request.train_fraction != 1.0 and (request.labelled or request.labelled_groups):
        raise InputError(
            "--train-fraction drops training rows, and --labelled keeps them without their labels: both together are "
            "ambiguous. Give one of the two."
        )
    if request.labelled and request.labelled_groups:
        raise InputError("--labelled and --labelled-groups both say which labels are kept. Give one of the two.")
    return hide_labels(
        data,
        labelled=request.labelled or ALL,
        groups=request.labelled_groups or None,
        valid_labels=request.valid_labels,
        seed=request.seed,
    )


def mark_unlabelled(data: Data) -> Data:
    """The data with the training rows marked whose target is -1 or NaN.

    Raises:
        InputError: validation or test rows have no label, or a class has none at all in training.
    """
    masks: dict[str, Tensor] = {}
    shared: dict[int, Tensor] = {}
    for name, target in data.train.targets.items():
        shared.setdefault(id(target), has_label(target))
        masks[name] = shared[id(target)]
    problems = []
    for split in ("valid", "test"):
        for name, target in data.split(split).targets.items():
            if missing := int((~has_label(target)).sum()):
                problems.append(
                    f"{missing} rows of the {split} split have no label{'' if data.info.paired else f' ({name})'}: "
                    "scores need one for each. Move these rows to the training split, where rows without a label are "
                    "used."
                )
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    train = data.train.without_labels(masks)
    if not train.labelled:
        return data
    if not any(mask.any() for mask in masks.values()):
        raise InputError("No training row has a label: at least one of each class was expected. Label some rows.")
    _check_classes(data, masks)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    return replace(data, train=train, info=replace(data.info, labelled=counts, train_targets=train.targets))


def has_label(target: Tensor) -> Tensor:
    """(rows,) which targets are labels: not -1 or NaN everywhere.

    Example:
        >>> has_label(torch.tensor([1, -1, 0])).tolist(), has_label(torch.tensor([[0.5], [float("nan")]])).tolist()
        ([True, False, True], [True, False])
    """
    flat = target.reshape(len(target), -1)
    nothing = flat.isnan() if flat.is_floating_point() else flat == (255 if flat.dtype == torch.uint8 else -1)
    return ~nothing.all(dim=1)


def _by_order(data: Data, choice: Labels, seed: int) -> dict[str, Tensor]:
    """Modality → mask of the rows that keep their label; modalities that share their targets share the mask."""
    listed = None if choice.file is None else _read_rows(choice.file)
    shared: dict[int, Tensor] = {}
    masks = {}
    for name, target in _targets(data.train).items():
        if id(target) not in shared:
            if listed is not None:
                shared[id(target)] = _listed(data, name, listed, choice.file)
            else:
                key = seed if data.info.paired else mix(seed, name)
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
    single = target.ndim == 1 and data.info.task in ("multiclass", "binary")
    least = len(target.unique()) if single else 2  # type: ignore[no-untyped-call]
    if count > len(target):
        raise InputError(f"--labelled asks for {count} labels, and there are {len(target)} training rows. Lower it.")
    if count < least:
        what = f"the training rows have {least} classes, and each needs a label" if single else "two are the least"
        raise InputError(f"--labelled keeps {count} label{'s' * (count != 1)}: {what}. Give {least} or more.")


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


def _check_classes(data: Data, masks: Mapping[str, Tensor]) -> None:
    """Raise an error about classes without any label in training, of those that the data has."""
    if data.info.task not in ("multiclass", "binary") or data.info.dense:
        return
    for name, target in data.train.targets.items():
        there = set(target[masks[name]].tolist())
        scored = set(data.valid.targets[name].tolist()) | set(data.test.targets[name].tolist())
        missing = sorted(scored - there)
        if missing:
            names = data.info.class_names
            shown = ", ".join(names[value] if value < len(names) else str(value) for value in missing[:6])
            raise InputError(
                f"No training row with a label has the class{'es' * (len(missing) > 1)} {shown}, which validation or "
                "test rows have. Label at least one row of each class."
            )


def _fewer_valid(data: Data, valid_labels: str, counts: Mapping[str, int], seed: int) -> dict[str, Any]:
    """The changes of the data that leave so many validation rows."""
    choice = Labels.parse(valid_labels, "--valid-labels")
    if valid_labels == ALL:
        return {}
    shared: dict[int, Tensor] = {}
    positions = {}
    for name, target in _targets(data.valid).items():
        count = choice.of(len(target)) if valid_labels else counts[name]
        if id(target) not in shared:
            # the seed of another order than that of the training rows, which may be the same targets
            order = labelled_order(target, task=data.info.task, seed=mix(seed, "valid"))
            shared[id(target)] = order[: max(1, min(count, len(order)))].sort().values
        positions[name] = shared[id(target)]
    valid = data.valid.subset(positions)
    rows = {**data.info.rows, "valid": valid.rows}
    return {"valid": valid, "info": replace(data.info, rows=rows)}

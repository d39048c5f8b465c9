"""Predictions as rows, or as maps where every pixel has a class: for the file, for JSON, and in words for people."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.files import written_whole

if TYPE_CHECKING:
    from xmodal.cli.inputs import Samples
    from xmodal.deploy import Predictions
    from xmodal.types import DataInfo

SHOWN = 12  # classes in a summary


def table(
    parts: Sequence[Predictions], rows: NDArray[np.int64], description: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One dictionary per sample.

    Classes give ``class``, ``name`` and its ``probability``; several labels give ``class`` and ``name`` joined by
    spaces and commas and one probability per label; regression gives ``value0``, ``value1``, ….
    """
    outputs = np.concatenate([part.outputs for part in parts])
    if description["task"] == "regression":
        return [
            {"row": int(row), **{f"value{place}": float(value) for place, value in enumerate(values)}}
            for row, values in zip(rows, outputs.reshape(len(outputs), -1), strict=True)
        ]
    classes = np.concatenate([part.classes for part in parts if part.classes is not None])
    names = [name for part in parts for name in part.labels]
    found = zip(rows, classes, names, outputs, strict=True)
    if description["task"] == "multilabel":
        return [_labels(*entry, description["class_names"]) for entry in found]
    return [_class(*entry) for entry in found]


def _class(row: Any, number: Any, name: str, shares: NDArray[Any]) -> dict[str, Any]:
    if len(shares) == 1:  # binary: the probability of class 1
        shares = np.array([1 - shares[0], shares[0]])
    return {"row": int(row), "class": int(number), "name": name, "probability": float(shares[number])}


def _labels(row: Any, on: NDArray[Any], name: str, shares: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    numbers = " ".join(str(place) for place in np.flatnonzero(on))
    each = {f"p_{names[place] if names else place}": float(share) for place, share in enumerate(shares)}
    return {"row": int(row), "class": numbers, "name": name, **each}


def write_csv(path: Path, predictions: Sequence[Mapping[str, Any]]) -> None:
    """A table with a head, whole or not at all."""
    with written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(predictions[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(predictions)


def summary(predictions: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """How many samples, and what they were taken for."""
    if task == "regression":
        values = np.array([row["value0"] for row in predictions])
        told = f"the first value runs from {values.min():.4g} to {values.max():.4g}, its mean is {values.mean():.4g}"
    else:
        counts = Counter(row["name"] or "none" for row in predictions)
        told = ", ".join(f"{name}: {count}" for name, count in counts.most_common(SHOWN))
        told += f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return [f"{len(predictions)} samples: {told}"]


def write_maps(
    path: Path, parts: Iterable[Predictions], samples: Samples, info: DataInfo
) -> tuple[dict[str, int], list[int]]:
    """Write the class of every pixel as ``classes`` (rows, height, width), in the smallest type that holds them.

    Beside them ``rows``, their numbers in the data, and where there are any ``ids`` and ``class_names``.

    Args:
        path: of an ``.npz`` file, whole or not at all.
        parts: predictions of some rows each; only their classes are kept.
        samples: which rows they are.
        info: of the student's data.

    Returns:
        Class → pixels that were taken for it, most first, and the shape of all classes.
    """
    kind = np.min_scalar_type(info.classes - 1)
    classes = np.concatenate([part.classes.astype(kind) for part in parts if part.classes is not None])
    more: dict[str, Any] = {"class_names": np.array(info.class_names)} if info.class_names else {}
    if samples.ids:
        more["ids"] = np.array([samples.ids[row] for row in samples.rows])
    with written_whole(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, rows=samples.rows, classes=classes, **more)
    counts = np.bincount(classes.reshape(-1), minlength=info.classes)
    names = info.class_names or tuple(map(str, range(info.classes)))
    ordered = sorted(range(info.classes), key=lambda number: (-counts[number], number))
    return {names[number]: int(counts[number]) for number in ordered if counts[number]}, list(classes.shape)


def maps_summary(counts: Mapping[str, int], shape: Sequence[int]) -> str:
    """How many samples of which size, and what shares of their pixels were taken for what.

    Example:
        >>> maps_summary({"road": 24, "car": 8}, [2, 4, 4])
        '2 samples of 4 x 4: road 75.0 %, car 25.0 % of the pixels'
    """
    total = max(1, sum(counts.values()))
    told = ", ".join(f"{name} {count / total:.1%}".replace("%", " %") for name, count in list(counts.items())[:SHOWN])
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return f"{shape[0]} samples of {' x '.join(map(str, shape[1:]))}: {told} of the pixels{more}"

"""Predictions as rows: for the file, for JSON, and in two sentences for people."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.files import written_whole

if TYPE_CHECKING:
    from xmodal.deploy import Predictions


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
        told = ", ".join(f"{name}: {count}" for name, count in counts.most_common(12))
        told += f" and {len(counts) - 12} more" if len(counts) > 12 else ""
    return [f"{len(predictions)} samples: {told}"]

"""Recalls and confusions of classes: a plot, a table, and matrices, or lists where there are many classes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports import numbers
from xmodal.reports.figures import plots
from xmodal.reports.figures.plots import Series
from xmodal.reports.intervals import Row
from xmodal.reports.tables import page_table

# With more classes than this, a matrix is too wide for the page: a list of confusions takes its place, and the plot of
# classes shows those that differ most.
CLASSES = 20
LISTED = 200  # classes in the table of recalls
CONFUSIONS = 12  # entries of the list of confusions


def _class_names(names: Sequence[str], count: int) -> list[str]:
    # Names that do not fit the number of classes would label the wrong rows; numbers cannot mislead.
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def draw_classes(series: Sequence[Series], names: Sequence[str]) -> str:
    """The plot of recalls; of many classes those on which the names differ most. Empty without recalls."""
    means = _recalls(series)
    if not means:
        return ""
    kept, count = _most_different(means, CLASSES)
    labels = _class_names(names, count)
    recalls = [
        Series(entry.name, entry.role, [[means[entry.name][number] for number in kept]], entry.rank)
        for entry in series
        if entry.name in means
    ]
    return plots.per_class(recalls, [labels[number] for number in kept])


def class_table(series: Sequence[Series], names: Sequence[str]) -> dict[str, Any]:
    """The table of recalls; of many classes those on which the names differ most. Empty without recalls."""
    means = _recalls(series)
    if not means:
        return {}
    kept, count = _most_different(means, LISTED)
    labels = _class_names(names, count)
    rows = [
        [labels[number], *(numbers.number(recalls[number], "recall") for recalls in means.values())] for number in kept
    ]
    classes = (
        f"{count} classes" if count <= LISTED else f"the {LISTED} of {count} classes on which the names differ most"
    )
    caption = f"Recall (%) on the test split, mean over the seeds; {classes}."
    return page_table("Recall per class in numbers", (["class", *means], rows), caption)


def _recalls(series: Sequence[Series]) -> dict[str, list[float]]:
    """Name → recall of each class, mean over the seeds."""
    return {
        entry.name: [statistics.fmean(values) for values in zip(*entry.runs, strict=True)]
        for entry in series
        if entry.runs
    }


def _most_different(means: Mapping[str, Sequence[float]], most: int) -> tuple[list[int], int]:
    """The classes on which the names differ most, in the order of their numbers, and the number of all classes."""
    ranges = [max(values) - min(values) for values in zip(*means.values(), strict=True)]
    return sorted(sorted(range(len(ranges)), key=lambda number: -ranges[number])[:most]), len(ranges)


def confusions(
    rows: Sequence[Row], shown: Sequence[str], names: Sequence[str], *, opened: Sequence[str]
) -> list[dict[str, Any]]:
    """A matrix or a list of confusions for each shown name, all seeds together.

    Args:
        rows: rows of the comparison, one per seed and name, with the values of their classes.
        shown: names to show.
        names: of the classes.
        opened: those of them that are open on the page; they come first.
    """
    matrices: list[dict[str, Any]] = []
    for name in [*opened, *(other for other in shown if other not in opened)]:
        lists = [row["test"]["confused"] for row in rows if row["name"] == name and row["test"].get("confused")]
        if lists:
            matrices.append({"name": name, "open": name in opened} | _confused(lists, names))
        counts = [row["test"]["confusion"] for row in rows if row["name"] == name and row["test"].get("confusion")]
        if counts:
            total = [[sum(cell) for cell in zip(*lines, strict=True)] for lines in zip(*counts, strict=True)]
            matrices.append({"name": name, "open": name in opened} | _confusion(total, _class_names(names, len(total))))
    return matrices


def _confusion(total: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    """A matrix of cells (share of the true class, as text and as a number), or a list if it would be too wide."""
    sums = [sum(line) or 1 for line in total]
    if len(total) <= CLASSES:
        cells = [[_share(count, sums[true]) for count in line] for true, line in enumerate(total)]
        return {"labels": labels, "cells": cells, "long": max(map(len, labels)) > 3, "list": None}
    numbers = range(len(total))
    confused = [(true, other) for true in numbers for other in numbers if true != other and total[true][other]]
    worst = sorted(confused, key=lambda pair: -total[pair[0]][pair[1]])[:CONFUSIONS]
    rows = [[labels[true], labels[other], f"{total[true][other]:g} of {sums[true]:g}"] for true, other in worst]
    return {"list": page_table("", (["true class", "predicted class", "samples"], rows), "")}


def _confused(lists: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """The most frequent confusions of a result that has no whole matrix, of all seeds together."""
    totals: dict[tuple[int, int], int] = {}
    for part in lists:
        for true, other, count in part["largest"]:
            totals[true, other] = totals.get((true, other), 0) + count
    sums = [sum(column) for column in zip(*(part["true"] for part in lists), strict=True)]
    labels = _class_names(names, len(sums))
    worst = sorted(totals, key=lambda pair: -totals[pair])[:CONFUSIONS]
    rows = [[labels[true], labels[other], f"{totals[true, other]:g} of {sums[true]:g}"] for true, other in worst]
    return {"list": page_table("", (["true class", "predicted class", "samples"], rows), "")}


def _share(count: float, total: float) -> dict[str, Any]:
    share = count / total
    # A cell with few samples must not look empty, so it is not rounded to 0.
    text = "" if count == 0 else "<1" if share < 0.005 else f"{100 * share:.0f}"
    return {"text": text, "share": f"{share:.3f}", "count": f"{count:g} of {total:g}"}

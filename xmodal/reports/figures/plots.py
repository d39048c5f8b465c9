"""The plots of a page: learning curves, comparisons, classes, saliency, sweeps. Each returns one inline SVG.

Methods differ by colour, and controls also by markers and dashes, so that a plot can be read without colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xmodal.reports.figures.panels import CARD, INK, MUTED, RULE, Axis, Figure, Look, Panel
from xmodal.reports.numbers import in_percent, number, unit

WIDTH = 420  # units of the plot: pixels if the page gives it this width
TEACHER, SHUFFLED = "var(--teacher, #6d5bd0)", "var(--shuffled, #8a6d00)"
SERIES = (
    "var(--series-1, #0b62c4)",
    "var(--series-2, #c2410c)",
    "var(--series-3, #0f766e)",
    "var(--series-4, #a21caf)",
)
# students without a real teacher have hollow markers, so that controls differ from methods without colours too
HOLLOW = ("control", "shuffled", "untrained", "matched", "labelled", "same-modality", "permuted")


@dataclass(frozen=True, slots=True)
class Series:
    """One name in a plot.

    Attributes:
        name: name as in the table.
        role: ``teacher``, ``control``, ``matched``, ``shuffled``, ``untrained`` or ``method``; it defines colour,
            marker and line style.
        runs: one list of values per seed.
        rank: index of a method's colour; -1 for the muted one.
    """

    name: str
    role: str
    runs: Sequence[Sequence[float]]
    rank: int = 0


def learning_curves(series: Sequence[Series], *, metric: str) -> str:
    """Validation metric per epoch: the mean over seeds as a line, from lowest to highest seed as a band."""
    panel = Panel()
    for entry in series:
        _curve(panel, entry, 100 if in_percent(metric) else 1)
    panel.x, panel.y = _labelled(panel.x, "epoch", whole=True), _labelled(panel.y, unit(metric))
    return _svg(panel, 300, f"{unit(metric)} on the validation split per epoch: {_names(series)}")


def loss_terms(terms: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Each weighted term of the training loss per epoch: name → one list per seed."""
    panel = Panel()
    for rank, (name, runs) in enumerate(terms.items()):
        _curve(panel, Series(name, "method", runs, rank % len(SERIES)), 1)
    panel.x, panel.y = _labelled(panel.x, "epoch", whole=True), _labelled(panel.y, "loss (weighted)")
    return _svg(panel, 300, f"Terms of the training loss per epoch: {', '.join(terms)}")


def saliency(series: Sequence[Series]) -> str:
    """Saliency of the channels from the most to the least salient, one run per seed."""
    panel = Panel()
    for entry in series:
        _curve(panel, entry, 1)
    _saliency_axes(panel, "channels, most salient first")
    return _svg(panel, 300, f"Saliency of the teacher's channels, sorted: {_names(series)}")


Line = tuple[Sequence[int], Sequence[float], Sequence[float]]


def edges(lines: Mapping[str, Sequence[Line]], *, title: str) -> str:
    """A small plot for each edge ``teacher>student``, a row per teacher: weight by epoch, the prior as a dotted line.

    Args:
        lines: edge → for each seed epochs, weights and priors.
        title: name of the graph.
    """
    # Edges are listed by student, so the students appear in the order of the modalities; each is a teacher too.
    teachers = list(dict.fromkeys(name.partition(">")[2] for name in lines))
    rows = [[name for name in lines if name.partition(">")[0] == teacher] for teacher in teachers]
    # One scale for all small plots, so that their heights can be compared.
    top = 1.08 * max(value for seeds in lines.values() for _, *both in seeds for values in both for value in values)
    panels = []
    for names in rows:
        panels.append([Panel(name.replace(">", " \u2192 ")) for name in names])
        for name, panel in zip(names, panels[-1], strict=True):
            for epochs, weights, priors in lines[name]:
                marker = "o" if len(epochs) == 1 else ""
                panel.line(epochs, weights, Look(SERIES[0], marker, width=1.4, opacity=0.8))
                panel.line(epochs, priors, Look(MUTED, dashes=(1, 1.6), width=1.2))
            last = names == rows[-1]
            panel.x = _labelled(panel.x, "epoch" if last else "", whole=True, most=5)
            panel.y = replace(panel.y, limits=(0, top), most=4)
    height = 30 + 120 * len(teachers)
    return Figure(WIDTH, height, panels).svg(f"Edges of the {title} by epoch: {', '.join(lines)}")


def saliency_by_channel(value: Sequence[float], low: Sequence[int], high: Sequence[int]) -> str:
    """Saliency of each channel in the order of the network; the channels ``low`` and ``high`` are marked."""
    panel = Panel()
    marked = {*low, *high}
    others = [channel for channel in range(len(value)) if channel not in marked]
    for channels, colour, label in (
        (others, MUTED, "others"),
        (low, SERIES[0], "lowest"),
        (high, SERIES[1], "highest"),
    ):
        if channels:
            panel.stems(channels, [value[channel] for channel in channels], colour)
            panel.line(
                channels, [value[channel] for channel in channels], Look(colour, "o", size=3.2, width=0), name=label
            )
    _saliency_axes(panel, "channel")
    return _svg(panel, 300, f"Saliency of {len(value)} channels in their order")


def saliency_sorted(runs: Sequence[Sequence[float]], count: int) -> str:
    """Saliency from the lowest to the highest, one list per seed; ``count`` channels at either end are marked."""
    ordered = [sorted(run) for run in runs]
    channels = len(ordered[0])
    panel = Panel()
    _curve(panel, Series("all channels", "method", ordered, -1), 1)
    for first, last, rank, label in ((0, count, 0, "lowest"), (channels - count, channels, 1, "highest")):
        if count:
            means = _mean([run[first:last] for run in ordered])
            panel.line(range(first + 1, last + 1), means, Look(SERIES[rank], width=3.5), name=label, layer=4)
    _saliency_axes(panel, "channels, least salient first")
    return _svg(panel, 300, f"Saliency of {channels} channels, sorted")


def embeddings(groups: Sequence[tuple[str, int, int, Sequence[Sequence[float]]]], *, shares: Sequence[float]) -> str:
    """Points in a plane: each group has a label, the number of its colour, the number of its marker, and its points."""
    panel = Panel()
    for label, colour, marker, points in groups:
        ink = SERIES[colour % len(SERIES)]
        look = Look(ink, "osv^D"[marker % 5], fill=CARD if marker % 2 else "", size=4.5, width=0, opacity=0.7)
        panel.line([point[0] for point in points], [point[1] for point in points], look, name=label)
    names = [f"component {number} ({100 * share:.0f} % of the variance)" for number, share in enumerate(shares, 1)]
    panel.x, panel.y = _labelled(panel.x, names[0]), _labelled(panel.y, names[1])
    return _svg(panel, 340, f"Embeddings in two dimensions: {', '.join(group[0] for group in groups)}")


def comparison(
    summary: Sequence[Mapping[str, Any]], series: Sequence[Series], *, metric: str, direction: str = "max"
) -> str:
    """Dots and intervals: every seed as a small dot, the mean as a large one, its 95 % interval as a bar.

    Args:
        summary: result of `summary.summarise`.
        series: name and values per seed, one run with all seeds each.
        metric: name of the metric on the axis.
        direction: ``min`` adds to the axis that lower is better.
    """
    scale = 100 if in_percent(metric) else 1
    by_name = {entry.name: entry for entry in series}
    hint = " (lower is better)" if direction == "min" else ""
    panel = Panel()
    for row, entry in enumerate(summary):
        _dots(panel, row, entry, by_name[entry["name"]], scale)
        panel.beside.append((row, number(entry["mean"], metric)))
        if entry["role"] == "control" and entry["mean"] is not None:
            panel.down(scale * entry["mean"])
    panel.x = _labelled(panel.x, f"{unit(metric)} on the test split{hint}")
    panel.y = _rows([entry["name"] for entry in summary])
    label = f"{unit(metric)} on the test split, mean and 95 % interval: {_names(series)}"
    return _svg(panel, 78 + 34 * len(summary), label)


def per_class(series: Sequence[Series], class_names: Sequence[str]) -> str:
    """Recall of each class: bars for a single name; for several, a marker each (mean over seeds), joined by a line."""
    means = [[100 * value for value in _mean(entry.runs)] for entry in series]
    panel, rows = Panel(), range(len(class_names))
    if len(series) == 1:
        panel.bars(means[0], _look(series[0]).colour)
        panel.x.limits = (0, 100)
    else:
        for row, values in enumerate(zip(*means, strict=True)):
            panel.line([min(values), max(values)], [row, row], Look(RULE))
        for entry, recalls in zip(series, means, strict=True):
            panel.line(recalls, rows, _marker(entry, 7), name=entry.name, layer=3)
    panel.x, panel.y = _labelled(panel.x, "recall on the test split (%)"), _rows(class_names)
    return _svg(panel, 96 + 24 * len(class_names), f"Recall of each class on the test split: {_names(series)}")


def sweep(entry: Mapping[str, Any]) -> str:
    """Each series of a sweep as a line of means with a band of one deviation; published points as crosses.

    Args:
        entry: one of ``sweeps`` of a result, see `reports.sweep`.
    """
    scale = 100 if in_percent(entry["metric"]) else 1
    # These roles have fixed styles; all other series are distinguished by the method colours.
    styled = ("teacher", "control", "shuffled", "untrained")
    coloured = [line["name"] for line in entry["series"] if line["role"] not in styled]
    ranks = {name: rank for rank, name in enumerate(coloured)}
    series = {
        line["name"]: Series(line["name"], line["role"], [], ranks.get(line["name"], 0)) for line in entry["series"]
    }
    panel = Panel()
    for line in entry["series"]:
        _band(panel, series[line["name"]], line["points"], scale)
    for line in entry["published"]:
        colour = _look(series[line["name"]]).colour if line["name"] in series else MUTED
        xs, values = [point["x"] for point in line["points"]], [scale * point["mean"] for point in line["points"]]
        panel.line(xs, values, Look(colour, "x", size=7, width=0), layer=4)
    panel.x, panel.y = _labelled(panel.x, entry["x"]), _labelled(panel.y, unit(entry["metric"]))
    return _svg(panel, 320, f"{unit(entry['metric'])} by {entry['x']}: {_names([*series.values()])}")


def label_curve(entry: Mapping[str, Any], saved: Mapping[str, Any] | None) -> str:
    """Scores against the number of labels, and how many labels the method is worth.

    Args:
        entry: the ``curve`` of a result, in the form of a sweep; the largest number of labels is all of them.
        saved: the ``labels_saved`` of the result; None: no arrow.
    """
    scale = 100 if in_percent(entry["metric"]) else 1
    ranks = {line["name"]: rank for rank, line in enumerate(e for e in entry["series"] if e["role"] != "control")}
    series = [Series(line["name"], line["role"], [], ranks.get(line["name"], 0)) for line in entry["series"]]
    panel = Panel()
    for each, line in zip(series, entry["series"], strict=True):
        _band(panel, each, line["points"], scale)
    counts = sorted({point["x"] for line in entry["series"] for point in line["points"]})
    for line in entry["series"]:
        everything = [point for point in line["points"] if point["x"] == counts[-1]]
        if line["role"] == "control" and everything and len(counts) > 1:
            height = scale * everything[0]["mean"]
            panel.across(height)
            panel.write(counts[0], height, "all labels", colour=MUTED)
    methods = [line for line in entry["series"] if line["role"] == "method"]
    if saved and methods and (saved["worth"] or 0) > saved["labels"]:
        height = scale * next(p["mean"] for p in methods[0]["points"] if p["x"] == saved["labels"])
        panel.arrow((saved["labels"], height), (saved["worth"], height))
        text = f"{saved['labels']} labels + pairs ≈ {saved['worth']:,} labels"
        panel.write(saved["worth"], height, text, below=True)
    panel.x = _labelled(panel.x, "labelled training rows", log=True, ticks=[(count, f"{count:,}") for count in counts])
    panel.y = _labelled(panel.y, unit(entry["metric"]))
    return _svg(panel, 340, f"{unit(entry['metric'])} by labels: {_names(series)}")


def sweep_difference(entry: Mapping[str, Any]) -> str:
    """The first difference of a sweep, with zero marked."""
    scale = 100 if in_percent(entry["metric"]) else 1
    line = entry["differences"][0]
    points = "points" if in_percent(entry["metric"]) else unit(entry["metric"])
    panel = Panel()
    panel.across(0)
    _band(panel, Series(line["name"], "method", []), line["points"], scale, named=False)
    panel.x, panel.y = _labelled(panel.x, entry["x"]), _labelled(panel.y, f"{line['name']} ({points})")
    return _svg(panel, 260, f"{line['name']} in {points} by {entry['x']}")


def relation(entry: Mapping[str, Any], *, rank: int = 0) -> str:
    """Gain over the control against a divergence: one dot per run, darker for larger values of the swept quantity.

    Args:
        entry: one of ``relations`` of a result, see `study.sweep`.
        rank: index of the colour.
    """
    scale = 100 if in_percent(entry["y"]) else 1
    colour, swept = SERIES[rank % len(SERIES)], sorted({point["at"] for point in entry["points"]})
    panel = Panel()
    for index, at in enumerate(swept):
        points = [point for point in entry["points"] if point["at"] == at]
        look = Look(colour, "o", size=6, width=0, opacity=0.25 + 0.75 * (index + 1) / len(swept))
        panel.line([point["x"] for point in points], [scale * point["y"] for point in points], look, name=f"{at:g}")
    panel.across(0)
    panel.x, panel.y = _labelled(panel.x, entry["x"]), _labelled(panel.y, f"gain over no-KD, {unit(entry['y'])}")
    return _svg(panel, 320, f"Gain of {entry['name']} over the no-KD control by {entry['x']}")


def _svg(panel: Panel, height: float, label: str) -> str:
    return Figure(WIDTH, height, [[panel]]).svg(label)


def _labelled(axis: Axis, label: str, **changes: Any) -> Axis:
    return replace(axis, label=label, **changes)


def _rows(names: Sequence[str]) -> Axis:
    """A vertical axis with a name at each of 0, 1, …, from the top."""
    return Axis(limits=(len(names) - 0.4, -0.6), ticks=list(enumerate(names)), ink=INK, grid=False)


def _saliency_axes(panel: Panel, label: str) -> None:
    panel.x = _labelled(panel.x, label, whole=True)
    panel.y = _labelled(panel.y, "saliency", limits=(-0.03, 1.03), most=5)


def _band(
    panel: Panel, series: Series, points: Sequence[Mapping[str, Any]], scale: float, *, named: bool = True
) -> None:
    look = _look(series)
    xs, means = [point["x"] for point in points], [scale * point["mean"] for point in points]
    lows = [mean - scale * point["std"] for mean, point in zip(means, points, strict=True)]
    highs = [mean + scale * point["std"] for mean, point in zip(means, points, strict=True)]
    panel.band(xs, lows, highs, look.colour)
    panel.line(xs, means, look, name=series.name * named, layer=3)


def _curve(panel: Panel, series: Series, scale: float) -> None:
    look = _look(series)
    epochs = range(1, 1 + max(map(len, series.runs), default=0))
    # Runs may stop early: the mean is over the seeds that still train at an epoch.
    columns = [[scale * run[epoch - 1] for run in series.runs if len(run) >= epoch] for epoch in epochs]
    means = [sum(column) / len(column) for column in columns]
    if len(series.runs) > 1:
        panel.band(epochs, [min(column) for column in columns], [max(column) for column in columns], look.colour)
    # a line through a single point is invisible
    panel.line(epochs, means, replace(look, marker="o" if len(columns) == 1 else ""), name=series.name, layer=3)


def _dots(panel: Panel, row: int, entry: Mapping[str, Any], series: Series, scale: float) -> None:
    colour = _look(series).colour
    values = [scale * value for run in series.runs for value in run if math.isfinite(value)]
    panel.line(values, [row + 0.28] * len(values), Look(colour, "o", size=3.6, width=0, opacity=0.6))
    if entry["mean"] is None:
        return
    if entry["low"] is not None:
        panel.line([scale * entry["low"], scale * entry["high"]], [row, row], Look(colour, width=3, opacity=0.45))
    panel.line([scale * entry["mean"]], [row], _marker(series, 8), layer=3)


def _marker(series: Series, size: float) -> Look:
    """The look of a series as separate markers."""
    look = _look(series)
    return replace(look, fill=CARD if series.role in HOLLOW else look.colour, size=size, width=0, dashes=())


def _look(series: Series) -> Look:
    """Colour, marker and dashes of a series, by its role; methods differ by rank."""
    roles = {
        "teacher": Look(TEACHER, "D", (5, 2)),
        "control": Look(INK, "o"),
        "shuffled": Look(SHUFFLED, "s", (1, 1.6)),
        "untrained": Look(SHUFFLED, "^", (3, 1.2, 1, 1.2)),
        "matched": Look(INK, "s", (3, 1.5)),
        "labelled": Look(SHUFFLED, "o", (4, 2)),
        "same-modality": Look(MUTED, "v", (2, 1.2)),
        "permuted": Look(SHUFFLED, "x", (1, 2.4)),
    }
    colour = MUTED if series.rank < 0 else SERIES[series.rank % len(SERIES)]
    return roles.get(series.role, Look(colour, "o"))


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*runs, strict=True)]


def _names(series: Sequence[Series]) -> str:
    return ", ".join(entry.name for entry in series)

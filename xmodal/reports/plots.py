"""Plots as inline SVG, readable on a light and on a dark page.

Matplotlib draws with placeholder colours. Each is then replaced by a CSS variable with a fallback, so that the page
defines the colours of text, rules and series. Text stays text, in the page's font. Equal numbers give equal bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from xmodal.reports.numbers import in_percent, number, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 420  # units of the plot: pixels if the page gives it this width
# Placeholder → CSS variable of the page, and the colour outside a page. The placeholders differ from every colour that
# Matplotlib would use itself, so that they can be replaced in the text of the SVG.
COLOURS = {
    "#010101": ("--ink", "#1c1f24"),
    "#020202": ("--muted", "#5b616c"),
    "#030303": ("--rule", "#d9d6ce"),
    "#040404": ("--card", "#ffffff"),
    "#050505": ("--teacher", "#6d5bd0"),
    "#060606": ("--shuffled", "#8a6d00"),
    "#070707": ("--series-1", "#0b62c4"),
    "#080808": ("--series-2", "#c2410c"),
    "#090909": ("--series-3", "#0f766e"),
    "#0a0a0a": ("--series-4", "#a21caf"),
}
INK, MUTED, RULE, CARD, TEACHER, SHUFFLED, *SERIES = COLOURS
STYLE: dict[str, Any] = {
    "font.size": 12,
    # Names come from the user: a dollar sign in them must not start a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    # Without a salt the identifiers inside an SVG are random, and the same numbers would give other bytes.
    "svg.hashsalt": "xmodal",
}


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


def learning_curves(series: Sequence[Series], *, metric: str, prefix: str = "curves") -> str:
    """Validation metric per epoch: the mean over seeds as a line, from lowest to highest seed as a band."""
    with _canvas(WIDTH, 300) as (figure, axes):
        for entry in series:
            _curve(axes, entry, 100 if in_percent(metric) else 1)
        axes.set(xlabel="epoch", ylabel=unit(metric))
        _whole_epochs(axes)
        _legend(figure)
        return _svg(figure, prefix, f"{unit(metric)} on the validation split per epoch: {_names(series)}")


def loss_terms(terms: Mapping[str, Sequence[Sequence[float]]], *, prefix: str = "losses") -> str:
    """Each weighted term of the training loss per epoch: name → one list per seed."""
    with _canvas(WIDTH, 300) as (figure, axes):
        for rank, (name, runs) in enumerate(terms.items()):
            _curve(axes, Series(name, "method", runs, rank % len(SERIES)), 1)
        axes.set(xlabel="epoch", ylabel="loss (weighted)")
        _whole_epochs(axes)
        _legend(figure)
        return _svg(figure, prefix, f"Terms of the training loss per epoch: {', '.join(terms)}")


def saliency(series: Sequence[Series], *, prefix: str = "saliency") -> str:
    """Saliency of the channels from the most to the least salient, one run per seed."""
    with _canvas(WIDTH, 300) as (figure, axes):
        for entry in series:
            _curve(axes, entry, 1)
        axes.set(xlabel="channels, most salient first", ylabel="saliency", ylim=(-0.03, 1.03))
        _whole_epochs(axes)
        _legend(figure)
        return _svg(figure, prefix, f"Saliency of the teacher's channels, sorted: {_names(series)}")


Line = tuple[Sequence[int], Sequence[float], Sequence[float]]


def edges(lines: Mapping[str, Sequence[Line]], *, title: str, prefix: str = "edges") -> str:
    """A small plot for each edge ``teacher>student``, a row per teacher: weight by epoch, the prior as a dotted line.

    Args:
        lines: edge → for each seed epochs, weights and priors.
        title: name of the graph.
        prefix: prefix of the identifiers inside the plot; unique on a page.
    """
    # Edges are listed by student, so the students appear in the order of the modalities; each is a teacher too.
    teachers = list(dict.fromkeys(name.partition(">")[2] for name in lines))
    rows = {teacher: [name for name in lines if name.partition(">")[0] == teacher] for teacher in teachers}
    columns = max(map(len, rows.values()))
    # One scale for all small plots, so that their heights can be compared.
    top = 1.08 * max(value for seeds in lines.values() for _, *both in seeds for values in both for value in values)
    with _canvas(WIDTH, 30 + 120 * len(teachers)) as (figure, axes):
        axes.remove()
        for row, names in enumerate(rows.values()):
            for column, name in enumerate(names):
                small = figure.add_subplot(len(teachers), columns, row * columns + column + 1)
                for epochs, weights, priors in lines[name]:
                    marker = "o" if len(epochs) == 1 else None
                    small.plot(epochs, weights, color=SERIES[0], linewidth=1.4, alpha=0.8, marker=marker)
                    small.plot(epochs, priors, color=MUTED, linewidth=1.2, linestyle=(0, (1, 1.6)))
                small.set_title(name.replace(">", " \u2192 "), fontsize=12, color=INK, loc="left", pad=3)
                small.set_ylim(0, top)
                _whole_epochs(small, 4)
                if row == len(teachers) - 1:
                    small.set_xlabel("epoch")
        return _svg(figure, prefix, f"Edges of the {title} by epoch: {', '.join(lines)}")


def saliency_by_channel(
    value: Sequence[float], low: Sequence[int], high: Sequence[int], *, prefix: str = "by-channel"
) -> str:
    """Saliency of each channel in the order of the network; the channels ``low`` and ``high`` are marked."""
    with _canvas(WIDTH, 300) as (figure, axes):
        others = sorted(set(range(len(value))) - set(low) - set(high))
        for channels, colour, label in (
            (others, MUTED, "others"),
            (low, SERIES[0], "lowest"),
            (high, SERIES[1], "highest"),
        ):
            if channels:
                axes.vlines(channels, 0, [value[channel] for channel in channels], color=colour, linewidth=1.2)
                marks = [value[channel] for channel in channels]
                axes.plot(channels, marks, "o", color=colour, markersize=3.2, markeredgewidth=0, label=label)
        axes.set(xlabel="channel", ylabel="saliency", ylim=(-0.03, 1.03))
        _whole_epochs(axes)
        _legend(figure)
        return _svg(figure, prefix, f"Saliency of {len(value)} channels in their order")


def saliency_sorted(runs: Sequence[Sequence[float]], count: int, *, prefix: str = "sorted") -> str:
    """Saliency from the lowest to the highest, one list per seed; ``count`` channels at either end are marked."""
    ordered = [sorted(run) for run in runs]
    channels = len(ordered[0])
    with _canvas(WIDTH, 300) as (figure, axes):
        _curve(axes, Series("all channels", "method", ordered, -1), 1)
        for first, last, rank, label in ((0, count, 0, "lowest"), (channels - count, channels, 1, "highest")):
            if count:
                means = _mean([run[first:last] for run in ordered])
                axes.plot(range(first + 1, last + 1), means, color=SERIES[rank], linewidth=3.5, label=label, zorder=4)
        axes.set(xlabel="channels, least salient first", ylabel="saliency", ylim=(-0.03, 1.03))
        _whole_epochs(axes)
        _legend(figure)
        return _svg(figure, prefix, f"Saliency of {channels} channels, sorted")


def embeddings(
    groups: Sequence[tuple[str, int, int, Sequence[Sequence[float]]]],
    *,
    shares: Sequence[float],
    prefix: str = "embeddings",
) -> str:
    """Points in a plane: each group has a label, the number of its colour, the number of its marker, and its points."""
    with _canvas(WIDTH, 340) as (figure, axes):
        for label, colour, marker, points in groups:
            xs, ys = [point[0] for point in points], [point[1] for point in points]
            axes.plot(
                xs,
                ys,
                linestyle="",
                marker="osv^D"[marker % 5],
                color=SERIES[colour % len(SERIES)],
                markerfacecolor=CARD if marker % 2 else SERIES[colour % len(SERIES)],
                markersize=4,
                alpha=0.7,
                label=label,
            )
        names = [f"component {number} ({100 * share:.0f} % of the variance)" for number, share in enumerate(shares, 1)]
        axes.set(xlabel=names[0], ylabel=names[1])
        _legend(figure)
        return _svg(figure, prefix, f"Embeddings in two dimensions: {', '.join(group[0] for group in groups)}")


def comparison(
    summary: Sequence[Mapping[str, Any]],
    series: Sequence[Series],
    *,
    metric: str,
    direction: str = "max",
    prefix: str = "comparison",
) -> str:
    """Dots and intervals: every seed as a small dot, the mean as a large one, its 95 % interval as a bar.

    Args:
        summary: result of `summary.summarise`.
        series: name and values per seed, one run with all seeds each.
        metric: name of the metric on the axis.
        direction: ``min`` adds to the axis that lower is better.
        prefix: prefix of the identifiers inside the plot; unique on a page.
    """
    scale = 100 if in_percent(metric) else 1
    by_name = {entry.name: entry for entry in series}
    hint = " (lower is better)" if direction == "min" else ""
    with _canvas(WIDTH, 78 + 34 * len(summary)) as (figure, axes):
        for row, entry in enumerate(summary):
            _dots(axes, row, entry, by_name[entry["name"]], scale)
            axes.text(1.02, row, number(entry["mean"], metric), va="center", transform=axes.get_yaxis_transform())
        for entry in summary:
            if entry["role"] == "control" and entry["mean"] is not None:
                axes.axvline(scale * entry["mean"], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        axes.set_yticks(range(len(summary)), [entry["name"] for entry in summary])
        axes.set(xlabel=f"{unit(metric)} on the test split{hint}", ylim=(len(summary) - 0.4, -0.6))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        return _svg(figure, prefix, f"{unit(metric)} on the test split, mean and 95 % interval: {_names(series)}")


def per_class(series: Sequence[Series], class_names: Sequence[str], *, prefix: str = "classes") -> str:
    """Recall of each class: bars for a single name; for several, a marker each (mean over seeds), joined by a line."""
    means = [[100 * value for value in _mean(entry.runs)] for entry in series]
    with _canvas(WIDTH, 96 + 24 * len(class_names)) as (figure, axes):
        (_bars if len(series) == 1 else _dumbbells)(axes, series, means)
        axes.set_yticks(range(len(class_names)), class_names)
        axes.set(xlabel="recall on the test split (%)", ylim=(len(class_names) - 0.4, -0.6))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        if len(series) > 1:
            _legend(figure)
        return _svg(figure, prefix, f"Recall of each class on the test split: {_names(series)}")


def sweep(entry: Mapping[str, Any], *, prefix: str = "sweep") -> str:
    """Each series of a sweep as a line of means with a band of one deviation; published points as crosses.

    Args:
        entry: one of ``sweeps`` of a result, see `reports.sweep`.
        prefix: prefix of the identifiers inside the plot; unique on a page.
    """
    scale = 100 if in_percent(entry["metric"]) else 1
    # These roles have fixed styles; all other series are distinguished by the method colours.
    styled = ("teacher", "control", "shuffled", "untrained")
    coloured = [line["name"] for line in entry["series"] if line["role"] not in styled]
    ranks = {name: rank for rank, name in enumerate(coloured)}
    series = {
        line["name"]: Series(line["name"], line["role"], [], ranks.get(line["name"], 0)) for line in entry["series"]
    }
    with _canvas(WIDTH, 320) as (figure, axes):
        for line in entry["series"]:
            _band(axes, series[line["name"]], line["points"], scale)
        for line in entry["published"]:
            colour = _look(series[line["name"]])[0] if line["name"] in series else MUTED
            xs, values = [point["x"] for point in line["points"]], [scale * point["mean"] for point in line["points"]]
            axes.plot(xs, values, "x", color=colour, markersize=7, markeredgewidth=1.8, zorder=4)
        axes.set(xlabel=entry["x"], ylabel=unit(entry["metric"]))
        _legend(figure)
        return _svg(figure, prefix, f"{unit(entry['metric'])} by {entry['x']}: {_names([*series.values()])}")


def label_curve(entry: Mapping[str, Any], saved: Mapping[str, Any] | None, *, prefix: str = "labels") -> str:
    """Scores against the number of labels, and how many labels the method is worth.

    Args:
        entry: the ``curve`` of a result, in the form of a sweep; the largest number of labels is all of them.
        saved: the ``labels_saved`` of the result; None: no arrow.
        prefix: prefix of the identifiers inside the plot; unique on a page.
    """
    scale = 100 if in_percent(entry["metric"]) else 1
    ranks = {line["name"]: rank for rank, line in enumerate(e for e in entry["series"] if e["role"] != "control")}
    series = [Series(line["name"], line["role"], [], ranks.get(line["name"], 0)) for line in entry["series"]]
    with _canvas(WIDTH, 340) as (figure, axes):
        for each, line in zip(series, entry["series"], strict=True):
            _band(axes, each, line["points"], scale)
        counts = sorted({point["x"] for line in entry["series"] for point in line["points"]})
        methods = [line for line in entry["series"] if line["role"] == "method"]
        for line in entry["series"]:
            everything = [point for point in line["points"] if point["x"] == counts[-1]]
            if line["role"] == "control" and everything and len(counts) > 1:
                height = scale * everything[0]["mean"]
                axes.axhline(height, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
                axes.annotate("all labels", (counts[0], height), color=MUTED, fontsize=8, va="bottom")
        if saved and methods and (saved["worth"] or 0) > saved["labels"]:
            height = scale * next(p["mean"] for p in methods[0]["points"] if p["x"] == saved["labels"])
            end, start = (saved["worth"], height), (saved["labels"], height)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4})
            text = f"{saved['labels']} labels + pairs ≈ {saved['worth']:,} labels"
            axes.annotate(text, end, xytext=(6, -4), textcoords="offset points", color=INK, fontsize=9, va="top")
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.set(xlabel="labelled training rows", ylabel=unit(entry["metric"]))
        _legend(figure)
        return _svg(figure, prefix, f"{unit(entry['metric'])} by labels: {_names(series)}")


def sweep_difference(entry: Mapping[str, Any], *, prefix: str = "difference") -> str:
    """The first difference of a sweep, with zero marked."""
    scale = 100 if in_percent(entry["metric"]) else 1
    line = entry["differences"][0]
    points = "points" if in_percent(entry["metric"]) else unit(entry["metric"])
    with _canvas(WIDTH, 260) as (figure, axes):
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        _band(axes, Series(line["name"], "method", []), line["points"], scale)
        axes.set(xlabel=entry["x"], ylabel=f"{line['name']} ({points})")
        return _svg(figure, prefix, f"{line['name']} in {points} by {entry['x']}")


def relation(entry: Mapping[str, Any], *, prefix: str = "relation", rank: int = 0) -> str:
    """Gain over the control against a divergence: one dot per run, darker for larger values of the swept quantity.

    Args:
        entry: one of ``relations`` of a result, see `study.sweep`.
        prefix: prefix of the identifiers inside the plot; unique on a page.
        rank: index of the colour.
    """
    scale = 100 if in_percent(entry["y"]) else 1
    colour, swept = SERIES[rank % len(SERIES)], sorted({point["at"] for point in entry["points"]})
    with _canvas(WIDTH, 320) as (figure, axes):
        for index, at in enumerate(swept):
            xs = [point["x"] for point in entry["points"] if point["at"] == at]
            ys = [scale * point["y"] for point in entry["points"] if point["at"] == at]
            opacity = 0.25 + 0.75 * (index + 1) / len(swept)
            axes.plot(xs, ys, "o", color=colour, alpha=opacity, markersize=6, label=f"{at:g}")
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        axes.set(xlabel=entry["x"], ylabel=f"gain over no-KD, {unit(entry['y'])}")
        _legend(figure)
        return _svg(figure, prefix, f"Gain of {entry['name']} over the no-KD control by {entry['x']}")


def _band(axes: Axes, series: Series, points: Sequence[Mapping[str, Any]], scale: float) -> None:
    colour, marker, dashes = _look(series)
    xs, means = [point["x"] for point in points], [scale * point["mean"] for point in points]
    axes.plot(xs, means, color=colour, linestyle=dashes, marker=marker, markersize=5, label=series.name, zorder=3)
    lows = [mean - scale * point["std"] for mean, point in zip(means, points, strict=True)]
    highs = [mean + scale * point["std"] for mean, point in zip(means, points, strict=True)]
    axes.fill_between(xs, lows, highs, color=colour, alpha=0.13, linewidth=0, zorder=2)


def _bars(axes: Axes, series: Sequence[Series], means: Sequence[Sequence[float]]) -> None:
    axes.barh(range(len(means[0])), means[0], height=0.5, color=_look(series[0])[0], alpha=0.75)
    axes.set_xlim(0, 100)


def _dumbbells(axes: Axes, series: Sequence[Series], means: Sequence[Sequence[float]]) -> None:
    for row, values in enumerate(zip(*means, strict=True)):
        axes.plot([min(values), max(values)], [row, row], color=RULE, linewidth=2, zorder=1)
    for entry, recalls in zip(series, means, strict=True):
        line = axes.plot(recalls, range(len(recalls)), **_marker(entry, 7))[0]
        # Not clipped, because a recall of 100 % lies on the edge of the plot.
        line.set(label=entry.name, clip_on=False, zorder=3)


def _curve(axes: Axes, series: Series, scale: float) -> None:
    colour, _, dashes = _look(series)
    epochs = range(1, 1 + max(map(len, series.runs), default=0))
    # Runs may stop early: the mean is over the seeds that still train at an epoch.
    columns = [[scale * run[epoch - 1] for run in series.runs if len(run) >= epoch] for epoch in epochs]
    marker = "o" if len(columns) == 1 else None  # a line through a single point is invisible
    means = [sum(column) / len(column) for column in columns]
    axes.plot(epochs, means, color=colour, linestyle=dashes, marker=marker, label=series.name, zorder=3)
    if len(series.runs) > 1:
        lows, highs = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.13, linewidth=0, zorder=2)


def _whole_epochs(axes: Axes, most: int = 8) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def _dots(axes: Axes, row: int, entry: Mapping[str, Any], series: Series, scale: float) -> None:
    colour, _, _ = _look(series)
    values = [scale * value for run in series.runs for value in run if math.isfinite(value)]
    axes.plot(values, [row + 0.28] * len(values), "o", color=colour, alpha=0.6, markersize=3.6, markeredgewidth=0)
    if entry["mean"] is None:
        return
    if entry["low"] is not None:
        bounds = [scale * entry["low"], scale * entry["high"]]
        axes.plot(bounds, [row, row], color=colour, linewidth=3, alpha=0.45, zorder=2)
    axes.plot(scale * entry["mean"], row, **_marker(series, 8))


def _marker(series: Series, size: float) -> dict[str, Any]:
    colour, marker, _ = _look(series)
    # Hollow for students without a real teacher, so that controls differ from methods without colours too.
    hollow = ("control", "shuffled", "untrained", "matched", "labelled", "same-modality", "permuted")
    fill = CARD if series.role in hollow else colour
    style = {"linestyle": "", "marker": marker, "markersize": size, "markeredgewidth": 1.8}
    return style | {"color": colour, "markerfacecolor": fill}


def _look(series: Series) -> tuple[str, str, Any]:
    """Colour, marker and dashes of a series, by its role; methods differ by rank."""
    roles: dict[str, tuple[str, str, Any]] = {
        "teacher": (TEACHER, "D", (0, (5, 2))),
        "control": (INK, "o", "-"),
        "shuffled": (SHUFFLED, "s", (0, (1, 1.6))),
        "untrained": (SHUFFLED, "^", (0, (3, 1.2, 1, 1.2))),
        "matched": (INK, "s", (0, (3, 1.5))),
        "labelled": (SHUFFLED, "o", (0, (4, 2))),
        "same-modality": (MUTED, "v", (0, (2, 1.2))),
        "permuted": (SHUFFLED, "x", (0, (1, 2.4))),
    }
    colour = MUTED if series.rank < 0 else SERIES[series.rank % len(SERIES)]
    return roles.get(series.role, (colour, "o", "-"))


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*runs, strict=True)]


def _names(series: Sequence[Series]) -> str:
    return ", ".join(entry.name for entry in series)


def _legend(figure: Figure) -> None:
    names = [text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]]
    columns = 3 if len(names) != 4 and max(map(len, names)) <= 14 else 2
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.4, borderpad=0.2)


@contextmanager
def _canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    # All defaults come first: the user's own matplotlibrc must not change the page.
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "agg", **STYLE}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The browser draws the text with its fonts, so it does not matter which glyphs Matplotlib's font has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, prefix: str, label: str) -> str:
    """The plot as an inline element: no prolog, no fixed size, colours and font from the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _opening(label), text, count=1, flags=re.DOTALL)
    # A style element of an inline SVG would apply to the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, count=1, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], prefix), text).strip()


def _for_page(tag: str, prefix: str) -> str:
    """One tag with identifiers that are unique on a page, and colours and font defined by the page."""
    # Identifiers of different plots would collide on one page, and clip paths of one plot would apply to another.
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r"\bfont: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return re.sub(r"#0\w0\w0\w", lambda placeholder: "var({}, {})".format(*COLOURS[placeholder[0]]), tag)


def _opening(label: str) -> str:
    # The result is a replacement pattern of `re.sub`, in which a backslash has a meaning.
    text = escape(label, quote=True).replace("\\", r"\\")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return rf'<svg {names} viewBox="\1" role="img" aria-label="{text}">'

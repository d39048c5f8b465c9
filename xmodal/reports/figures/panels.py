"""Small plots as inline SVG: lines, bands, markers and bars between two axes.

A page has a handful of such plots, and importing a drawing library and laying out its figures takes longer than the
rest of the page. Colours are CSS variables with a fallback, so that a light and a dark page define them; text stays
text, in the page's font. There are no identifiers, so plots never collide, and equal numbers give equal bytes.

A panel collects shapes in the units of its data. Its limits are known when all of them are there, and only then are
they drawn.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

INK, MUTED, RULE, CARD = (
    "var(--ink, #1c1f24)",
    "var(--muted, #5b616c)",
    "var(--rule, #d9d6ce)",
    "var(--card, #ffffff)",
)
FONT = 12  # height of the text, in units of the plot
LINE = 17  # from one line of text to the next
MARGIN = 0.05  # free part of an axis beyond the data, at either end
EDGE = 1.8  # line width around a marker
NARROW, WIDE = frozenset("ijltfrI.,:;|!'()[]{}/ -"), frozenset("mwMW%@&ΩΣ→≈")
Shape = Callable[["Box"], str]


@dataclass(frozen=True, slots=True)
class Look:
    """Style of a series.

    Attributes:
        colour: of line and marker.
        marker: ``o``, ``s`` (square), ``D`` (diamond), ``^``, ``v`` or ``x``; empty: none.
        dashes: lengths of dashes and gaps, in line widths; empty: a solid line.
        fill: of the marker; empty: that of the line.
        size: of the marker, in units of the plot.
        width: of the line; 0: none.
        opacity: of line and marker.
    """

    colour: str
    marker: str = ""
    dashes: Sequence[float] = ()
    fill: str = ""
    size: float = 5
    width: float = 2
    opacity: float = 1


@dataclass
class Axis:
    """One axis of a panel.

    Attributes:
        label: text beside the axis.
        limits: values at its ends, the second above or to the right; None: around the data.
        ticks: places and their texts; None: round numbers.
        whole: only whole numbers are ticks.
        most: the largest number of steps between ticks.
        log: the scale is logarithmic.
        ink: colour of the texts at the ticks.
        grid: whether there is a line at each tick.
    """

    label: str = ""
    limits: tuple[float, float] | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    whole: bool = False
    most: int = 8
    log: bool = False
    ink: str = MUTED
    grid: bool = True
    seen: list[float] = field(default_factory=list)

    def ends(self) -> tuple[float, float]:
        """The values at both ends, on a logarithmic axis their logarithms."""
        if self.limits is not None:
            return self.limits
        values = [self.at(value) for value in self.seen if math.isfinite(value)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        # a single value gets some space around it
        room = MARGIN * (high - low or abs(low) or 1.0)
        return low - room, high + room

    def at(self, value: float) -> float:
        """A value, or its logarithm."""
        return math.log10(value) if self.log else value

    def marks(self) -> Sequence[tuple[float, str]]:
        """Places and texts of the ticks."""
        if self.ticks is not None:
            return self.ticks
        low, high = sorted(self.ends())
        return round_numbers(low, high, most=self.most, whole=self.whole)


class Box:
    """The rectangle of a panel's data in pixels, and the places of values in it."""

    def __init__(self, x: Axis, y: Axis, *, left: float, right: float, top: float, bottom: float) -> None:
        self.left, self.right, self.top, self.bottom = left, right, top, bottom
        self.across, self.up = x, y
        self.x_ends, self.y_ends = x.ends(), y.ends()

    def x(self, value: float) -> float:
        """Pixel of a horizontal value."""
        low, high = self.x_ends
        return self.left + (self.across.at(value) - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixel of a vertical value."""
        low, high = self.y_ends
        return self.bottom - (self.up.at(value) - low) / (high - low) * (self.bottom - self.top)


class Panel:
    """Two axes and the shapes between them; later shapes, and those of a higher layer, cover earlier ones."""

    def __init__(self, title: str = "") -> None:
        self.title, self.x, self.y = title, Axis(), Axis()
        self.shapes: list[tuple[int, Shape]] = []
        self.named: list[tuple[str, Look]] = []
        self.beside: list[tuple[float, str]] = []

    def line(self, xs: Iterable[float], ys: Iterable[float], look: Look, *, name: str = "", layer: int = 2) -> None:
        """A line through points, with markers if the look has any; it is interrupted at values that are not finite."""
        points = self._seen(xs, ys)
        if look.width:
            self.shapes.append((layer, lambda box: _path(box, points, look)))
        if look.marker:
            self.shapes.append((layer, lambda box: _markers(box, points, look)))
        if name:
            self.named.append((name, look))

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], colour: str) -> None:
        """A transparent area between two lines."""
        points = [pair for pair in zip(self._seen(xs, lows), self._seen(xs, highs), strict=True) if _finite(*pair)]

        def draw(box: Box) -> str:
            outline = [high for _, high in points] + [low for low, _ in reversed(points)]
            where = "L".join(f"{_n(box.x(x))},{_n(box.y(y))}" for x, y in outline)
            return f'<path d="M{where}z" fill="{colour}" fill-opacity=".13"/>' if points else ""

        self.shapes.append((1, draw))

    def across(self, value: float) -> None:
        """A dotted horizontal line from edge to edge."""
        self.y.seen.append(value)
        self.shapes.append((1, lambda box: _dotted(box.left, box.y(value), box.right, box.y(value))))

    def down(self, value: float) -> None:
        """A dotted vertical line from edge to edge."""
        self.x.seen.append(value)
        self.shapes.append((1, lambda box: _dotted(box.x(value), box.top, box.x(value), box.bottom)))

    def stems(self, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
        """A thin vertical line from zero to each point."""
        points = self._seen(xs, ys)

        def draw(box: Box) -> str:
            lines = "".join(f"M{_n(box.x(x))},{_n(box.y(0))}V{_n(box.y(y))}" for x, y in points if _finite((x, y)))
            return f'<path d="{lines}" stroke="{colour}" stroke-width="1.2"/>' if lines else ""

        self.shapes.append((1, draw))

    def bars(self, values: Sequence[float], colour: str) -> None:
        """A horizontal bar from zero for each value, from the top."""
        points = self._seen(values, range(len(values)))

        def draw(box: Box) -> str:
            bars = [(box.x(0), box.y(y - 0.25), box.x(x), box.y(y + 0.25)) for x, y in points if _finite((x, y))]
            areas = "".join(f"M{_n(x)},{_n(y)}H{_n(to_x)}V{_n(to_y)}H{_n(x)}z" for x, y, to_x, to_y in bars)
            return f'<path d="{areas}" fill="{colour}" fill-opacity=".75"/>' if areas else ""

        self.shapes.append((2, draw))

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A horizontal arrow."""
        self._seen(*zip(start, end, strict=True))

        def draw(box: Box) -> str:
            tip, y = box.x(end[0]), box.y(end[1])
            back = tip - math.copysign(6, end[0] - start[0])
            way = f"M{_n(box.x(start[0]))},{_n(y)}L{_n(tip)},{_n(y)}M{_n(back)},{_n(y - 3.5)}L{_n(tip)},{_n(y)}"
            return f'<path d="{way}L{_n(back)},{_n(y + 3.5)}" fill="none" stroke="{INK}" stroke-width="1.4"/>'

        self.shapes.append((4, draw))

    def write(self, x: float, y: float, text: str, *, colour: str = INK, size: float = 10, below: bool = False) -> None:
        """Text that starts at a point, above or below it; it moves to the left where it would leave the panel."""

        def draw(box: Box) -> str:
            wide = width_of(text) * size / FONT
            left = max(min(box.x(x) + 5 * below, box.right - wide), box.left)
            top = box.y(y) + (size + 3 if below else -4)
            return _text(left, top, text, colour=colour, size=size)

        self.shapes.append((4, draw))

    def _seen(self, xs: Iterable[float], ys: Iterable[float]) -> list[tuple[float, float]]:
        points = list(zip(xs, ys, strict=True))
        self.x.seen += [x for x, y in points if math.isfinite(y)]
        self.y.seen += [y for _, y in points]
        return points


class Figure:
    """A plot of one panel, or of several in rows.

    Args:
        width: units of the plot.
        height: the same.
        panels: rows of panels.
    """

    def __init__(self, width: float, height: float, panels: Sequence[Sequence[Panel]]) -> None:
        self.width, self.height, self.panels = width, height, panels

    def svg(self, label: str) -> str:
        """The plot as an element of a page, without a fixed size; ``label`` describes it to who does not see it."""
        entries = [entry for row in self.panels for panel in row for entry in panel.named]
        legend, top = _legend(entries, self.width)
        parts, all_panels = [legend], [panel for row in self.panels for panel in row]
        left = max(_left(panel, self.width) for panel in all_panels)
        right = max(_right(panel) for panel in all_panels)
        columns = max(map(len, self.panels))
        height = (self.height - top) / len(self.panels)
        for number, row in enumerate(self.panels):
            for place, panel in enumerate(row):
                x, y = self.width * place / columns, top + height * number
                under = LINE + 6 + (LINE if panel.x.label else 0)
                over = LINE + 4 if panel.title else 8
                edges = {"left": x + left, "right": x + self.width / columns - right}
                box = Box(panel.x, panel.y, **edges, top=y + over, bottom=y + height - under)
                parts.append(_draw(panel, box, x, self.width / columns))
        size = f"0 0 {_n(self.width)} {_n(self.height)}"
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-size="{FONT}" role="img"'
        return "\n".join([f'{opening} aria-label="{escape(label)}">', *filter(None, parts), "</svg>"])


def width_of(text: str) -> float:
    """About how wide a text is in a sans-serif font, rather too wide than too narrow.

    Example:
        >>> width_of("no-KD") < width_of("supervised") < width_of("猫" * 10)
        True
    """
    units = 0.0
    for letter in text:
        if letter in NARROW:
            units += 0.40
        elif letter in WIDE or unicodedata.east_asian_width(letter) in "WF":
            units += 1.0
        else:
            units += 0.74 if letter.isupper() else 0.62
    return FONT * units


def shortened(text: str, room: float) -> str:
    """A text that fits, with an ellipsis where its end is missing."""
    room += 0.01  # rounding alone shortens nothing
    if width_of(text) <= room:
        return text
    kept = len(text)
    while kept > 1 and width_of(text[:kept] + "…") > room:
        kept -= 1
    return text[:kept] + "…"


def round_numbers(low: float, high: float, *, most: int, whole: bool = False) -> list[tuple[float, str]]:
    """Round numbers from ``low`` to ``high`` with equal steps, at most ``most`` of them, and their texts.

    Example:
        >>> [text for _, text in round_numbers(-0.03, 1.03, most=5)]
        ['0.00', '0.25', '0.50', '0.75', '1.00']
        >>> [text for _, text in round_numbers(0.6, 3.4, most=8, whole=True)]
        ['1', '2', '3']
    """
    power = math.floor(math.log10((high - low) / most))
    steps = [factor * 10.0**exponent for exponent in (power, power + 1) for factor in (1, 2, 2.5, 5)]
    if whole:
        steps = [1.0, *(step for step in steps if step >= 1 and step == round(step)), 10.0 ** max(power + 2, 0)]
    # a little less than the exact step, which rounding must not make too large
    step = next(step for step in steps if step * most >= (high - low) * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    decimals += round(step * 10.0**decimals, 6) != round(step * 10.0**decimals)

    def text(number: float) -> str:
        return f"{number:,.{decimals}f}" if decimals <= 6 else f"{number:.3g}"

    return [(index * step, text(index * step).replace("-", "\u2212")) for index in range(first, last + 1)]


# ---- parts of a figure


def _left(panel: Panel, width: float) -> float:
    texts = [width_of(text) for _, text in panel.y.marks()]
    # names of any length leave half of the plot to the data
    return min(max(texts, default=0.0), width / 2) + 8 + (LINE + 3 if panel.y.label else 0)


def _right(panel: Panel) -> float:
    last = max((width_of(text) for _, text in list(panel.x.marks())[-1:]), default=0.0)
    return max([width_of(text) + 10 for _, text in panel.beside] + [last / 2, 8])


def _draw(panel: Panel, box: Box, left: float, width: float) -> str:
    parts = _axes(panel, box, left)
    # sorting is stable: within a layer the order is that of drawing
    parts += [draw(box) for _, draw in sorted(panel.shapes, key=lambda shape: shape[0])]
    parts += [_text(box.right + 8, box.y(y) + 4, text) for y, text in panel.beside]
    if panel.title:
        parts.append(_text(box.left, box.top - 6, shortened(panel.title, box.right - box.left)))
    if panel.x.label:
        label = shortened(panel.x.label, width)
        half = width_of(label) / 2
        middle = max(min((box.left + box.right) / 2, left + width - half), left + half)
        parts.append(_text(middle, box.bottom + 2 * LINE + 2, label, colour=MUTED, anchor="middle"))
    if panel.y.label:
        label, x = shortened(panel.y.label, box.bottom), left + FONT
        middle = max((box.top + box.bottom) / 2, width_of(label) / 2)
        turn = f' transform="rotate(-90 {_n(x)} {_n(middle)})"'
        parts.append(_text(x, middle, label, colour=MUTED, anchor="middle", more=turn))
    return "\n".join(filter(None, parts))


def _axes(panel: Panel, box: Box, left: float) -> list[str]:
    """Grid, the line under the data, and the texts at the ticks."""
    across = [(box.x(value), text) for value, text in panel.x.marks()]
    up = [(box.y(value), text) for value, text in panel.y.marks()]
    lines = [f"M{_n(x)},{_n(box.top)}V{_n(box.bottom)}" for x, _ in across if panel.x.grid]
    lines += [f"M{_n(box.left)},{_n(y)}H{_n(box.right)}" for y, _ in up if panel.y.grid]
    ticks = "".join(f"M{_n(x)},{_n(box.bottom)}v3.5" for x, _ in across)
    parts = [
        f'<path d="{"".join(lines)}" stroke="{RULE}" stroke-width=".8"/>' if lines else "",
        f'<path d="M{_n(box.left)},{_n(box.bottom)}H{_n(box.right)}{ticks}" stroke="{RULE}"/>',
    ]
    taken = -math.inf
    for x, text in across:
        half = width_of(text) / 2
        # a text that would touch the one before it is left out
        if x - half > taken:
            parts.append(_text(x, box.bottom + LINE, text, colour=panel.x.ink, anchor="middle"))
            taken = x + half + 2
    room = box.left - left - 8 - (LINE + 3 if panel.y.label else 0)
    parts += [_text(box.left - 8, y + 4, shortened(text, room), colour=panel.y.ink, anchor="end") for y, text in up]
    return parts


def _legend(entries: Sequence[tuple[str, Look]], width: float) -> tuple[str, float]:
    """Names with a piece of their line, in as many lines of text as needed; and the height of these."""
    parts, x, y, handle = [], 0.0, 0.0, 20
    for name, look in entries:
        text = shortened(name, width - handle - 8)
        needed = handle + 6 + width_of(text)
        if x and x + needed > width:
            x, y = 0.0, y + LINE
        middle = y + LINE / 2
        # a box in which values and pixels are the same
        across, up = Axis(limits=(x, x + handle)), Axis(limits=(y + LINE, y))
        box = Box(across, up, left=x, right=x + handle, top=y, bottom=y + LINE)
        if look.width:
            parts.append(_path(box, [(x, middle), (x + handle, middle)], look))
        if look.marker:
            parts.append(_markers(box, [(x + handle / 2, middle)], look))
        parts.append(_text(x + handle + 6, middle + 4, text))
        x += needed + 14
    return "\n".join(parts), (y + LINE + 4 if entries else 0.0)


# ---- shapes


def _path(box: Box, points: Sequence[tuple[float, float]], look: Look) -> str:
    parts, pen = [], "M"
    for x, y in points:
        if _finite((x, y)):
            parts.append(f"{pen}{_n(box.x(x))},{_n(box.y(y))}")
            pen = "L"
        else:
            pen = "M"
    dashes = " ".join(_n(length * look.width) for length in look.dashes)
    style = f' stroke-dasharray="{dashes}"' if dashes else ' stroke-linecap="round"'
    style += "" if look.opacity == 1 else f' stroke-opacity="{look.opacity:.2g}"'
    line = f'fill="none" stroke="{look.colour}" stroke-width="{_n(look.width)}"{style}'
    return f'<path d="{"".join(parts)}" {line}/>' if parts else ""


def _markers(box: Box, points: Sequence[tuple[float, float]], look: Look) -> str:
    drawn = "".join(_marker(box.x(x), box.y(y), look.marker, look.size / 2) for x, y in points if _finite((x, y)))
    # small dots have no edge, which would be most of them
    edge = f' stroke="{look.colour}" stroke-width="{EDGE}"' if look.fill or look.marker == "x" else ""
    opacity = "" if look.opacity == 1 else f' opacity="{look.opacity:.2g}"'
    if opacity:
        drawn = drawn.replace("/>", f"{opacity}/>")
    return f'<g fill="{look.fill or look.colour}"{edge}>{drawn}</g>' if drawn else ""


def _marker(x: float, y: float, marker: str, r: float) -> str:
    if marker == "o":
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}"/>'
    full = 1.25 * r
    corners: Sequence[tuple[float, float]] = {
        "s": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "D": ((0, -full), (full, 0), (0, full), (-full, 0)),
        "^": ((0, -r), (r, r), (-r, r)),
        "v": ((0, r), (r, -r), (-r, -r)),
    }.get(marker, ())
    if corners:
        return '<path d="M' + "L".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in corners) + 'z"/>'
    return (
        f'<path d="M{_n(x - r)},{_n(y - r)}L{_n(x + r)},{_n(y + r)}M{_n(x - r)},{_n(y + r)}L{_n(x + r)},{_n(y - r)}"/>'
    )


def _dotted(x: float, y: float, to_x: float, to_y: float) -> str:
    where = f"M{_n(x)},{_n(y)}L{_n(to_x)},{_n(to_y)}"
    return f'<path d="{where}" stroke="{MUTED}" stroke-dasharray="2 3"/>'


def _text(
    x: float, y: float, text: str, *, colour: str = INK, size: float = FONT, anchor: str = "", more: str = ""
) -> str:
    style = f' text-anchor="{anchor}"' if anchor else ""
    style += "" if size == FONT else f' font-size="{_n(size)}"'
    return f'<text x="{_n(x)}" y="{_n(y)}" fill="{colour}"{style}{more}>{escape(text)}</text>'


def _finite(*points: tuple[float, float]) -> bool:
    return all(math.isfinite(value) for point in points for value in point)


def _n(value: float) -> str:
    """A length with two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text

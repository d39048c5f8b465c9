"""Axes, ticks and shapes of a plot, and what drawing imports."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xmodal.reports.figures.panels import Axis, Figure, Look, Panel, round_numbers, shortened, width_of

LOOK = Look("red", width=2)


def drawn(panel: Panel, width: float = 200, height: float = 100) -> str:
    return Figure(width, height, [[panel]]).svg("a plot")


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.1, 0.1, 4, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        (12, 47, 8, ["15", "20", "25", "30", "35", "40", "45"]),
        (0, 9_000_000, 4, ["0", "2,500,000", "5,000,000", "7,500,000"]),
        (1e-9, 2e-9, 2, ["1e−09", "1.5e−09", "2e−09"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, most: int, expected: list[str]) -> None:
    assert [text for _, text in round_numbers(low, high, most=most)] == expected


@pytest.mark.parametrize("last", [1, 2, 7, 30, 99, 1234, 10**6])
def test_epochs_have_whole_ticks_and_not_too_many(last: int) -> None:
    marks = round_numbers(1 - 0.05 * last, 1.05 * last, most=8, whole=True)

    assert all(place == round(place) and text == f"{place:,.0f}" for place, text in marks)
    assert 1 <= len(marks) <= 9


def test_points_lie_where_their_values_are() -> None:
    panel = Panel()
    panel.x, panel.y = Axis(limits=(0, 10), ticks=[(5, "five")]), Axis(limits=(0, 1))
    panel.line([0, 5, 10], [0, 1, 0.5], LOOK)

    svg = drawn(panel)

    (points,) = re.findall(r'd="M([^"]*)" fill="none" stroke="red"', svg)
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in points.split("L")]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02) and y0 > y2 > y1
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.02)
    assert f'd="M{x1:g},' in svg and re.search(rf'<text x="{x1:g}"[^>]*>five<', svg)  # the grid, and the tick's text
    assert 0 < x0 < x2 < 200 and 0 < y1 < y0 < 100


def test_tenfold_values_are_equally_far_apart_on_a_logarithmic_axis() -> None:
    panel = Panel()
    panel.x = Axis(log=True, ticks=[(10, "10"), (100, "100"), (1000, "1,000")])
    panel.line([10, 100, 1000], [1, 2, 3], LOOK)

    places = [float(x) for x in re.findall(r'<text x="([\d.]+)"[^>]*>1[0,]+</text>', drawn(panel))]

    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)


def test_values_that_are_not_finite_interrupt_a_line_and_move_no_axis() -> None:
    panel, whole = Panel(), Panel()
    panel.line([1, 2, 3, 4], [1.0, math.nan, 3.0, math.inf], LOOK)
    panel.band([1, 2], [0.0, math.nan], [4.0, 1.0], "red")
    whole.line([1, 3], [1.0, 3.0], LOOK)
    whole.band([1], [0.0], [4.0], "red")

    (path,) = re.findall(r'd="(M[^"]*)" fill="none" stroke="red"', drawn(panel))

    assert path.count("M") == 2 and "L" not in path and "nan" not in drawn(panel)
    assert texts(drawn(panel)) == texts(drawn(whole))


def test_nothing_and_a_single_value_have_axes() -> None:
    single = Panel()
    single.line([1], [0.5], Look("red", "o"), name="alone")

    assert "<circle" in drawn(single) and "alone" in texts(drawn(single))
    assert texts(drawn(Panel()))


def test_a_long_name_ends_in_an_ellipsis_and_leaves_half_of_the_plot() -> None:
    panel = Panel()
    panel.y = Axis(ticks=[(0, "a name " * 20)], limits=(1, -1))
    panel.line([0, 1], [0, 0], LOOK)

    (path,) = re.findall(r'd="M([\d.]+),[^"]*" fill="none" stroke="red"', drawn(panel))

    assert any(text.startswith("a name") and text.endswith("…") for text in texts(drawn(panel)))
    assert float(path) < 130
    assert shortened("kd", width_of("kd")) == "kd" and width_of(shortened("m" * 90, 100)) <= 100


def test_names_of_a_legend_do_not_overlap() -> None:
    panel = Panel()
    for name in ("one method", "another method", "a third one", "猫"):
        panel.line([0, 1], [0, 1], LOOK, name=name)

    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*(?:method|third|猫)[^<]*)</text>', drawn(panel))

    boxes = [(float(y), float(x), float(x) + width_of(name)) for x, y, name in places]
    assert len(boxes) == 4
    for (y, _, right), (next_y, left, _) in zip(boxes, boxes[1:], strict=False):
        assert next_y > y or left > right
    assert max(right for _, _, right in boxes) <= 200


def test_neither_the_drawing_nor_the_statistics_import_what_takes_seconds(comparison: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom xmodal.reports import write_page\n"
        f"write_page([Path({str(comparison)!r})], Path({str(tmp_path / 'page.html')!r}))\n"
        "print(sorted({'torch', 'matplotlib', 'scipy.stats', 'sklearn'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

"""The section of the page on learned edges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xmodal.reports.edges import edge_figures, read_edges
from xmodal.reports.figures.plots import edges as draw
from xmodal.reports.page import write_page

NAMES = ["b>a", "a>b"]
KNOWN = {
    "homo": {"names": NAMES, "prior": [0.1, 0.9], "start": {"mean": [0.5, 0.5], "std": [0.01, 0.02]}},
    "hetero": {"names": NAMES, "prior": [0.5, 0.5], "start": None},
}


def row(epoch: int, weight: float) -> dict[str, Any]:
    logs = {}
    for graph, prior in (("homo", 0.1), ("hetero", 0.5)):
        for name, value, favoured in (("b>a", weight, prior), ("a>b", 1 - weight, 1 - prior)):
            key = f"edge {graph} {name}"
            logs |= {key: value, f"{key} std": 0.03, f"{key} prior": favoured}
    return {"epoch": epoch, "logs": logs}


HISTORY = [row(0, 0.4), row(1, 0.2)]


def test_an_edge_begins_before_training_where_that_was_measured() -> None:
    homo, _, hetero, _ = read_edges(KNOWN, HISTORY)

    assert (homo.graph, homo.name, homo.epochs, homo.mean) == ("homo", "b>a", [0, 1, 2], [0.5, 0.4, 0.2])
    assert homo.std == [0.01, 0.03, 0.03] and homo.prior == [0.1, 0.1, 0.1]
    assert (hetero.graph, hetero.epochs, hetero.mean) == ("hetero", [1, 2], [0.4, 0.2])


@pytest.mark.parametrize("history", [[], [{"epoch": 0}], [{"epoch": 0, "logs": {"other": 1.0}}]])
def test_a_run_that_recorded_no_edges_has_none(history: list[dict[str, Any]]) -> None:
    assert read_edges(KNOWN, history) == []


def test_malformed_edges_are_ignored() -> None:
    assert read_edges(None, HISTORY) == read_edges([1], HISTORY) == []


def test_the_table_has_the_mean_and_the_range_over_the_seeds() -> None:
    runs = [read_edges(KNOWN, HISTORY), read_edges(KNOWN, [row(0, 0.4), row(1, 0.3)])]

    lines = edge_figures("dmd", runs)["table"][1]
    assert lines[0] == ["homogeneous graph", "b → a", "0.500 (0.500 to 0.500)", "0.250 (0.200 to 0.300)", "0.100"]
    assert lines[2] == ["heterogeneous graph", "b → a", "–", "0.250 (0.200 to 0.300)", "0.500"]
    (alone,) = [line for line in edge_figures("dmd", runs[:1])["table"][1] if line[:2] == lines[1][:2]]
    assert alone[2:] == ["0.500", "0.800", "0.900"]


def test_a_drawing_has_a_small_plot_per_edge_and_repeats_in_its_bytes() -> None:
    names = [f"{first}>{second}" for first in "abcd" for second in "abcd" if first != second]
    lines = {name: [([0, 1], [0.2, 0.1], [0.3, 0.3])] for name in names}

    svg = draw(lines, title="graph")
    assert svg == draw(lines, title="graph")
    assert all(f"{name[0]} → {name[2]}" in svg for name in lines)
    assert svg.count("stroke-dasharray") >= len(lines)


def with_edges(comparison: Path, folder: Path) -> Path:
    """A copy of the comparison whose method recorded edges."""
    shutil.copytree(comparison, folder)
    for path in folder.glob("seed-*/kd/result.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "method": {"edges": KNOWN}}))
        history = path.with_name("history.jsonl")
        rows = [json.loads(line) for line in history.read_text().splitlines()]
        for epoch, entry in enumerate(rows):
            entry["logs"] = row(epoch, 0.4)["logs"]
        history.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return folder


def test_a_comparison_and_a_single_run_have_a_section(comparison: Path, tmp_path: Path) -> None:
    folder = with_edges(comparison, tmp_path / "run")
    entry = next(folder.glob("seed-*/kd"))

    for run, name in ((folder, "kd"), (entry, "this run")):
        page = write_page([run], tmp_path / "page.html").read_text()
        section = page[page.index(f"Edges of the graphs: {name}") :]
        section = section[: section.index("</section>")]
        assert section.count("<svg") == 2 and section.count("<tr>") == 1 + 4
        assert page.count("Edges of the graphs") == 1


def test_without_edges_there_is_no_section(comparison: Path, tmp_path: Path) -> None:
    assert "Edges of the graphs" not in write_page([comparison], tmp_path / "page.html").read_text()

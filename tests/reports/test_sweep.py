"""Means along one quantity: numbers, table, plot and page, and errors of damaged files."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from xmodal.errors import InputError
from xmodal.reports import write_page
from xmodal.reports.figures import plots
from xmodal.reports.read import read_run
from xmodal.reports.sweep import summarise_sweep, sweep_caption, sweep_figures, sweep_table

ROLES = {"teacher": "teacher", "no-KD": "control", "kd": "method"}
SCORES = {  # (name, x) → one accuracy per seed
    ("teacher", 0.0): [0.75, 0.85],
    ("teacher", 0.5): [0.8, 0.8],
    ("no-KD", 0.0): [0.5, 0.7],
    ("no-KD", 0.5): [0.6, 0.7],
    ("kd", 0.0): [0.5, 0.6],
    ("kd", 0.5): [0.7, 0.9],
}
ROWS = [
    {"seed": seed, "name": name, "role": ROLES[name], "gamma": x, "test": {"accuracy": value}}
    for (name, x), values in SCORES.items()
    for seed, value in enumerate(values)
]


def swept(**changes: Any) -> dict[str, Any]:
    summary = summarise_sweep(
        ROWS, x="gamma", metric="accuracy", title="Accuracy", label="γ, in common", differences=[("kd", "no-KD")]
    )
    summary["published"] = [{"name": "kd", "source": "figure 7", "points": [{"x": 0.5, "mean": 0.77}]}]
    return {**summary, **changes}


def run_folder(tmp_path: Path, **changes: Any) -> Path:
    result = {"schema": 1, "recipe": "gauss", "title": "A sweep", "rows": ROWS, "sweeps": [swept()]}
    result |= {"verdict": ["It rises."], "teacher": ["a"], "student": ["b"], **changes}
    for name, content in {"result": result, "settings": {"schema": 1}, "environment": {"schema": 1}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def words(page: str) -> str:
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(text).replace("−", "-").split())


def test_means_and_deviations_are_those_of_the_seeds() -> None:
    teacher, control, student = swept()["series"]

    assert [teacher["role"], control["role"], student["role"]] == ["teacher", "control", "method"]
    assert teacher["points"][0] == {"x": 0.0, "mean": pytest.approx(0.8), "std": pytest.approx(0.05), "n": 2}
    assert student["points"][1]["mean"] == pytest.approx(0.8)


def test_differences_are_computed_seed_by_seed() -> None:
    (difference,) = swept()["differences"]

    assert difference["name"] == "kd - no-KD"
    assert difference["points"][0] == {"x": 0.0, "mean": pytest.approx(-0.05), "std": pytest.approx(0.05), "n": 2}
    assert difference["points"][1]["std"] == pytest.approx(0.05)  # 0.1 and 0.2


def test_a_seed_without_partner_is_in_no_difference() -> None:
    rows = [row for row in ROWS if (row["name"], row["seed"], row["gamma"]) != ("no-KD", 1, 0.5)]

    summary = summarise_sweep(rows, x="gamma", metric="accuracy", differences=[("kd", "no-KD"), ("kd", "nobody")])

    assert [point["n"] for point in summary["differences"][0]["points"]] == [2, 1]
    assert summary["differences"][1]["points"] == []


def test_figures_are_in_per_cent_by_name_and_value() -> None:
    summary = sweep_figures(swept(), "gt ")

    assert summary["gt kd.0.50"] == pytest.approx(80.0) and summary["gt kd - no-KD.0.00"] == pytest.approx(-5.0)
    assert sweep_figures({**swept(), "metric": "mse"})["kd.0.50"] == pytest.approx(0.8)


def test_the_table_has_a_row_for_each_value() -> None:
    header, rows = sweep_table(swept())

    assert header == ["γ", "teacher", "no-KD", "kd", "kd - no-KD"]
    assert rows == [
        ["0", "80.00 ± 5.00", "60.00 ± 10.00", "55.00 ± 5.00", "-5.00 ± 5.00"],
        ["0.5", "80.00 ± 0.00", "65.00 ± 5.00", "80.00 ± 10.00", "+15.00 ± 5.00"],
    ]


def test_the_caption_names_seeds_and_sources() -> None:
    assert sweep_caption(swept()).startswith("Test split, mean of 2 seeds;")
    assert "Crosses are published values (figure 7)." in sweep_caption(swept())
    assert "Crosses" not in sweep_caption(swept(published=[]))


def test_the_drawing_has_a_band_and_crosses_in_the_colour_of_their_series() -> None:
    drawing = plots.sweep(swept())
    plain = plots.sweep(swept(published=[]))

    assert drawing.count("--series-1") > plain.count("--series-1") > 0
    assert plots.sweep(swept()) == drawing
    assert 'aria-label="accuracy (%) by γ, in common: teacher, no-KD, kd"' in drawing


def test_series_of_other_roles_have_other_colours() -> None:
    sweep = swept()
    sweep["series"].append({"name": "MG teacher", "role": "general", "points": sweep["series"][0]["points"]})

    assert "--series-2" in plots.sweep(sweep) and "--series-2" not in plots.sweep(swept())


def test_the_page_of_a_sweep_has_its_numbers_sentences_and_drawings(tmp_path: Path) -> None:
    references = [{"what": "kd", "ours": 80.0, "paper": 77.0, "at_least": 70.0, "ok": True, "source": "table 1"}]
    folder = run_folder(tmp_path, references=references, sweeps=[swept(), swept(title="Another")])

    page = write_page([folder], tmp_path / "page.html").read_text()

    text = words(page)
    assert "It rises. Published figures met within their tolerance: all 1." in text
    assert "80.00 ± 10.00" in text and "kd 80 77 – ≥ 70 yes table 1" in text
    assert page.count("<svg") == 4 and "Another: kd - no-KD" in text
    identifiers = re.findall(r'\bid="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_a_sweep_is_read_as_one(tmp_path: Path) -> None:
    assert read_run(run_folder(tmp_path)).kind == "sweep"


@pytest.mark.parametrize(
    ("sweeps", "sentence"),
    [
        ([], "expected a list of one or more entries"),
        ("no", "expected a list of one or more entries"),
        (["no"], "sweep 0 is damaged: 'series'"),
        ([swept(x=3)], "sweep 0 is damaged: 'x'"),
        ([swept(), swept(series=[{"name": "kd", "points": [{"x": 1}]}])], "sweep 1 is damaged: 'series'"),
        ([swept(published="none")], "sweep 0 is damaged: 'published'"),
    ],
)
def test_a_damaged_sweep_is_reported(tmp_path: Path, sweeps: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_run(run_folder(tmp_path, sweeps=sweeps))

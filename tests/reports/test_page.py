"""The page as text: self-contained, complete, escaped, and the same bytes each time."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from xmodal.errors import InputError
from xmodal.reports import comparison_table, read_run, verdict, write_page
from xmodal.reports.figures import plots


@pytest.fixture(scope="module")
def page(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page([comparison], tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


def words(page: str) -> str:
    """The visible text, with plain minus signs and spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(text).replace("−", "-").split())


def changed(folder: Path, out: Path, **fields: Any) -> Path:
    copy = Path(shutil.copytree(folder, out))
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps(result | fields))
    return copy


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)

    assert not re.search(r"https?://", without_names)
    assert not re.search(r"<script|<iframe|<img|@import|\bsrc=", page)
    assert all(
        target.startswith("#") for target in re.findall(r'(?:xlink:)?href="([^"]*)"', page) if target != "data:,"
    )
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_the_same_folder_gives_the_same_bytes(comparison: Path, tmp_path: Path) -> None:
    first, second = (write_page([comparison], tmp_path / name).read_bytes() for name in ("a.html", "b.html"))

    assert first == second


def test_every_number_of_the_summary_and_every_sentence_is_there(comparison: Path, page: str) -> None:
    result, text = read_run(comparison).result, words(page)

    for entry in result["summary"]:
        assert f"{100 * entry['mean']:.1f}" in text
        assert f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}" in text
        if entry["difference"]:
            assert f"{100 * entry['difference']['difference']:+.1f}" in text
    for row in comparison_table(result)[1]:
        assert all(cell in text for cell in row)
    assert all(sentence in text for sentence in verdict(result))
    assert result["notes"][0] in text and result["title"] in text


def test_settings_and_environment_are_there(page: str) -> None:
    text = words(page)

    assert "settings.fit.epochs 12" in text and "torch 2.13.0" in text
    assert '<meta name="generator" content="xmodal">' in page


def test_identifiers_are_unique_and_every_reference_has_a_target(comparison: Path, tmp_path: Path) -> None:
    text = write_page([comparison, comparison / "seed-0" / "kd"], tmp_path / "two.html").read_text()
    names = re.findall(r'\bid="([^"]*)"', text)

    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(names)


def test_text_from_files_is_escaped(comparison: Path, tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script> $\\frac{1}{2}$ & \"quotes\""
    folder = changed(comparison, tmp_path / "run", title=hostile, notes=[hostile], class_names=[hostile] * 10)

    text = write_page([folder], tmp_path / "page.html").read_text()

    assert "<script" not in text
    assert hostile in words(text)


def test_a_name_in_the_rows_is_escaped_in_the_drawings(comparison: Path, tmp_path: Path) -> None:
    rows = json.loads((comparison / "result.json").read_text())["rows"]
    renamed = [row | {"name": '<b id="x">' if row["name"] == "kd" else row["name"]} for row in rows]
    folder = changed(comparison, tmp_path / "run", rows=renamed, summary=None)

    text = write_page([folder], tmp_path / "page.html").read_text()

    assert "<b id" not in text and '<b id="x">' in words(text)


def test_a_single_fit_has_a_page(comparison: Path, tmp_path: Path) -> None:
    text = words(write_page([comparison / "seed-0" / "kd"], tmp_path / "fit.html").read_text())
    accuracy = read_run(comparison / "seed-0" / "kd").result["students"]["fourier"]["test"]["accuracy"]

    assert f"The student fourier reaches {100 * accuracy:.1f} % accuracy on the test split (epoch 11" in text


def test_a_running_fit_has_a_page(comparison: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(comparison / "seed-0" / "kd", tmp_path / "fit"))
    (folder / "result.json").unlink()
    history = folder / "history.jsonl"
    history.write_text(history.read_text()[:-30])

    text = words(write_page([folder], tmp_path / "fit.html").read_text())

    assert "This run has not finished: 11 epochs are recorded" in text
    assert "The last line of the history is incomplete and ignored" in text


def test_a_regression_without_sub_folders_has_a_page(comparison: Path, tmp_path: Path) -> None:
    scores = {"no-KD": ("control", 0.2), "kd": ("method", 0.18)}
    rows = [
        {
            "seed": s,
            "name": name,
            "role": role,
            "needs": ["a"],
            "folder": f"gone-{s}",
            "test": {"mse": mse + 0.01 * s**2},
        }
        for s in range(3)
        for name, (role, mse) in scores.items()
    ]
    fields = {"rows": rows, "summary": None, "metric": "mse", "direction": "min", "class_names": []}
    folder = changed(comparison, tmp_path / "run", **fields)

    text = words(write_page([folder], tmp_path / "page.html").read_text())

    assert "lower is better" in text and "gone-0, gone-0, gone-1 and 3 more" in text
    assert "Confusion matrices" not in text


def test_references_alone_make_a_page(comparison: Path, tmp_path: Path) -> None:
    row = {"what": "fourier, kd", "ours": 0.93, "paper": 0.94, "authors": 0.935, "tolerance": 0.01, "ok": True}
    folder = changed(comparison, tmp_path / "run", rows=[], summary=[], references=[row])

    text = words(write_page([folder], tmp_path / "page.html").read_text())

    assert "fourier, kd 0.93 0.94 0.935 0.01 yes" in text


def test_many_classes_become_a_list_of_confusions(comparison: Path, tmp_path: Path) -> None:
    confusion = [
        [30 * (true == called) + (called == (true + 1) % 25) * true for called in range(25)] for true in range(25)
    ]
    test = {"accuracy": 0.7, "per_class": [line[at] / sum(line) for at, line in enumerate(confusion)]}
    rows = [{"seed": 0, "name": "kd", "role": "method", "test": test | {"confusion": confusion}}]
    names = [f"instrument {place}" for place in range(25)]
    folder = changed(comparison, tmp_path / "run", rows=rows, summary=None, class_names=names)

    page = write_page([folder], tmp_path / "page.html").read_text()

    assert "instrument 24 instrument 0 24 of 54" in words(page)
    assert "Confusion matrices" in page and "Only the 20 classes" in page and 'class="matrix' not in page


def test_an_existing_folder_gets_report_html_and_no_other_file(comparison: Path, tmp_path: Path) -> None:
    out = write_page([comparison / "seed-0" / "kd"], tmp_path)

    assert out == tmp_path / "report.html"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_page_leaves_the_old_one(comparison: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")

    with pytest.raises(InputError):
        write_page([comparison, tmp_path / "nowhere"], out)

    assert out.read_text() == "old"


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one run folder"):
        write_page([], tmp_path / "page.html")


def test_drawings_take_ink_and_font_from_the_page() -> None:
    series = [plots.Series("kd", "method", [[0.1, 0.2, 0.3], [0.2, 0.3]]), plots.Series("no-KD", "control", [[0.1]])]

    drawing = plots.learning_curves(series, metric="accuracy")

    assert "var(--ink, #1c1f24)" in drawing and "var(--series-1, #0b62c4)" in drawing
    assert not re.search(r"#0\w0\w0\w\b", drawing) and "font-family" not in drawing
    assert drawing.startswith("<svg") and 'width="' not in drawing[: drawing.index(">")]


def test_letters_missing_in_the_font_draw_without_a_warning() -> None:
    series = [plots.Series("学生", "method", [[0.5, 0.25]])]

    assert "学生" in plots.per_class(series, ["猫", "狗"])

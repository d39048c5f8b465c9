"""Reading run folders: their contents, files that may be missing, and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from xmodal.errors import InputError
from xmodal.reports import read_run
from xmodal.reports.read import read_rows


@pytest.fixture
def fit(comparison: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(comparison / "seed-0" / "kd", tmp_path / "fit"))


@pytest.fixture
def copied(comparison: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(comparison, tmp_path / "copied"))


def test_a_fit_folder_is_read(fit: Path) -> None:
    run = read_run(fit)

    assert run.kind == "fit" and run.finished
    assert len(run.history) == 12 and run.truncated == 0
    assert run.settings["fit"]["epochs"] == 12 and run.environment["threads"] == 2


def test_a_comparison_folder_is_read_with_its_fits(comparison: Path) -> None:
    run = read_run(comparison)
    fits = read_rows(run)

    assert run.kind == "comparison" and run.history == []
    assert len(fits) == 20 and {fit.kind for fit in fits.values()} == {"fit"}


def test_an_incomplete_last_line_is_tolerated_and_counted(fit: Path) -> None:
    path = fit / "history.jsonl"
    path.write_text(path.read_text()[:-40])

    run = read_run(fit)

    assert len(run.history) == 11 and run.truncated == 1


def test_a_running_fit_has_no_result(fit: Path) -> None:
    (fit / "result.json").unlink()

    run = read_run(fit)

    assert not run.finished and run.kind == "fit" and len(run.history) == 12


def test_a_damaged_line_in_the_middle_is_refused(fit: Path) -> None:
    path = fit / "history.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:20]
    path.write_text("\n".join(lines))

    with pytest.raises(InputError, match=r"history\.jsonl, line 4, is damaged"):
        read_run(fit)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["settings.json", "environment.json", "history.jsonl"])
def test_a_missing_file_is_named(fit: Path, name: str) -> None:
    (fit / name).unlink()

    with pytest.raises(InputError, match=f"{name} is missing"):
        read_run(fit)


def test_a_comparison_without_result_is_refused(copied: Path) -> None:
    (copied / "result.json").unlink()

    with pytest.raises(InputError, match=r"result\.json is missing"):
        read_run(copied)


@pytest.mark.parametrize("name", ["settings.json", "environment.json", "result.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "an object was expected"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"schema": 99}', "schema 99"),
        (b"{}", "schema none"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_damaged_files_are_refused(fit: Path, name: str, content: bytes, message: str) -> None:
    (fit / name).write_bytes(content)

    with pytest.raises(InputError, match=message) as caught:
        read_run(fit)

    assert name in str(caught.value)


def test_all_damaged_rows_are_reported_together(copied: Path) -> None:
    result = json.loads((copied / "result.json").read_text())
    del result["rows"][2]["test"]
    result["rows"][5]["seed"] = "zero"
    result["direction"] = "up"
    del result["summary"][0]["mean"]
    (copied / "result.json").write_text(json.dumps(result))

    with pytest.raises(InputError) as caught:
        read_run(copied)

    assert len(caught.value.problems) == 4
    assert "row 2" in caught.value.problems[0] and "row 5" in caught.value.problems[1]


def test_a_result_of_neither_kind_is_refused(fit: Path) -> None:
    (fit / "result.json").write_text('{"schema": 1}')

    with pytest.raises(InputError, match="neither 'students' nor 'rows'"):
        read_run(fit)


@pytest.mark.parametrize("outside", ["../other", "/somewhere", "seed-0/../../x"])
def test_a_result_may_not_point_outside_its_folder(copied: Path, outside: str) -> None:
    result = json.loads((copied / "result.json").read_text())
    result["rows"][0]["folder"] = outside
    (copied / "result.json").write_text(json.dumps(result))

    with pytest.raises(InputError, match="outside the run"):
        read_rows(read_run(copied))

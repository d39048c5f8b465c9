"""The ship card in a terminal and on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xmodal.errors import InputError
from xmodal.reports import read_run, write_page
from xmodal.reports.ship import ship_content, ship_lines

CARD: dict[str, Any] = {
    "name": "no-KD",
    "role": "control",
    "seed": 3,
    "student": "a",
    "folder": "seed-3/no-KD",
    "file": "seed-3/no-KD/students/a/student.safetensors",
    "why": "No method is shown to be better than no-KD (best on validation is kd: +0.4 points).",
    "seeds": 5,
    "instead": "kd: temperature=2",
    "bytes": 97304,
    "parameters": 23306,
    "ms_median": 0.07213,
    "ms_p95": 0.0911,
    "command": "xmodal export runs/five",
}


def test_the_card_says_what_why_and_how() -> None:
    assert ship_lines({"ship": CARD}) == [
        "Ship: the student trained on labels alone (no-KD, seed 3)",
        "  No method is shown to be better than no-KD (best on validation is kd: +0.4 points).",
        "  file: seed-3/no-KD/students/a/student.safetensors",
        "  size: 97,304 bytes, 23,306 parameters",
        "  speed: 0.072 ms per sample (median; p95 0.091 ms), one at a time on one CPU thread here",
        "  export: xmodal export runs/five",
        "  export kd: temperature=2 all the same: xmodal export runs/five --name 'kd: temperature=2'",
        "",
    ]


def test_what_is_not_known_has_no_line() -> None:
    unwritten = CARD | {"file": "", "command": "", "bytes": None, "ms_median": None, "ms_p95": None}

    assert ship_content({"ship": unwritten}) == {
        "what": "the student trained on labels alone (no-KD, seed 3)",
        "why": CARD["why"],
        "facts": [("size", "23,306 parameters")],
    }


def test_a_result_of_an_earlier_version_has_no_card() -> None:
    assert ship_lines({"deploy": "seed-0/kd/students/a/student.safetensors"}) == []


@pytest.mark.parametrize("ship", [CARD, None])
def test_the_page_begins_with_the_card(comparison: Path, tmp_path: Path, ship: dict[str, Any] | None) -> None:
    run = tmp_path / "run"
    shutil.copytree(comparison, run)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "ship": ship}))

    page = write_page([run], tmp_path / "page.html").read_text()

    title = page.find("<h2>Ship the student trained on labels alone (no-KD, seed 3)</h2>")
    assert (0 < title < page.index('<div class="verdict">')) == bool(ship)
    assert ("xmodal export runs/five --name" in page) == bool(ship)


@pytest.mark.parametrize("damage", [{"why": None}, {"ms_median": "fast"}, {"ms_p95": None}, {"instead": 3}])
def test_a_damaged_card_is_a_sentence(comparison: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    run = tmp_path / "run"
    shutil.copytree(comparison, run)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "ship": CARD | damage}))

    with pytest.raises(InputError, match="the ship card is damaged"):
        read_run(run)

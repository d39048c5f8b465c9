"""The section of the page on the parts of an embedding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from xmodal.reports.branches import branches
from xmodal.reports.page import write_page

FOUND = {
    "content": {
        "heads": {"adversary": 0.5, "informative": 0.991, "irrelevant": 1.0},
        "modality": {"invariant": 0.655, "informative": 1.0, "irrelevant": 1.0},
        "classes": {"invariant": 0.94, "informative": 0.93, "irrelevant": 0.87},
        "auxiliary": {"invariant": 0.92, "informative": 0.9},
        "cosines": {"invariant": 0.129, "irrelevant": 0.015},
    },
    "modalities": 2,
    "seeds": 3,
    "shares": [0.4, 0.2],
    "points": [
        {"modality": modality, "part": part, "at": [[0.0, 1.0], [2.0, -1.0]]}
        for modality in ("left", "right")
        for part in ("invariant", "informative", "irrelevant")
    ],
}


def page_with(comparison: Path, entry: object, tmp_path: Path) -> str:
    shutil.copytree(comparison, tmp_path / "run", dirs_exist_ok=True)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").write_text(json.dumps({**result, "branches": entry}))
    return write_page([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_a_result_with_branches_gets_a_section(comparison: Path, tmp_path: Path) -> None:
    page = page_with(comparison, FOUND, tmp_path)

    section = page[page.index("What the parts of the embeddings contain") :]
    section = section[: section.index("</section>")]
    assert section.count("<tr>") == 4 and "component 1 (40 % of the variance)" in section
    assert all(f">{cell}<" in section for cell in ("50.0", "99.1", "65.5", "87.0", "0.015", "left, informative"))
    assert "chance level of the modality: 50.0" in section and "mean of 3 trainings" in section


def test_the_table_has_a_row_per_part() -> None:
    _, lines = branches(FOUND and {"branches": FOUND})["table"]

    assert lines[0] == ["invariant", "50.0", "65.5", "94.0", "92.0", "0.129"]
    assert lines[2] == ["irrelevant", "100.0", "100.0", "87.0", "–", "0.015"]


def test_targets_without_classes_leave_gaps() -> None:
    content = {**FOUND["content"], "classes": {}, "auxiliary": {}}

    _, lines = branches({"branches": {**FOUND, "content": content}})["table"]

    assert [line[3:5] for line in lines] == [["–", "–"]] * 3


def test_without_branches_or_with_others_there_is_no_section(comparison: Path, tmp_path: Path) -> None:
    for entry in (None, "text", {"content": {}}):
        assert "parts of the embeddings" not in page_with(comparison, entry, tmp_path)

"""The section of the page on removed channels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from xmodal.reports.page import write_page


def with_channels(comparison: Path, content: object, folder: Path) -> Path:
    """A copy of the comparison with a channel mask in every run of its method."""
    shutil.copytree(comparison, folder, dirs_exist_ok=True)
    for path in folder.glob("seed-*/kd/result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps({**result, "method": {"channels": content}}))
    return folder


FOUND = {
    "place": "embedding",
    "removed": "least",
    "ratio": 0.5,
    "saliency": [0.0, 1.0, 0.25, 0.5],
    "keep": [False, True, False, True],
    "curve": [],
}


def test_a_method_with_a_mask_gets_a_section(comparison: Path, tmp_path: Path) -> None:
    page = write_page([with_channels(comparison, FOUND, tmp_path / "run")], tmp_path / "page.html").read_text()

    section = page[page.index("<h2>Channels of the teacher</h2>") :]
    section = section[: section.index("</section>")]
    assert "most salient first" in section and section.count("<tr>") == 2
    assert all(f">{cell}<" in section for cell in ("kd", "embedding", "least", "4", "50%"))


def test_without_a_mask_there_is_no_section(comparison: Path, tmp_path: Path) -> None:
    assert "<h2>Channels of the teacher" not in write_page([comparison], tmp_path / "page.html").read_text()


def test_masks_of_another_form_are_ignored(comparison: Path, tmp_path: Path) -> None:
    for content in ([1, 2], {"place": "embedding"}, "text", None):
        page = write_page(
            [with_channels(comparison, content, tmp_path / "run")],
            tmp_path / "page.html",
        ).read_text()

        assert "<h2>Channels of the teacher" not in page

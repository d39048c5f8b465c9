"""The guide for Python runs as it stands."""

import re
from pathlib import Path

import pytest

import xmodal

PAGE = Path(__file__).parents[2] / "docs/guide/python.md"


@pytest.mark.slow
def test_the_blocks_of_the_guide_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S):
        exec(compile(code, PAGE.name, "exec"), names)

    files = [
        "control.safetensors",
        "page.html",
        "shipped/student.safetensors",
        "student.onnx",
        "student/student.safetensors",
    ]
    assert [file for file in files if not (tmp_path / file).is_file()] == []
    raw, label = names["sound"], names["y"]
    assert (xmodal.open_student(tmp_path / "student.onnx").predict(raw).classes == label).mean() > 0.8
    printed = capsys.readouterr().out
    assert "The student to ship: " in printed and "no-KD 0 0 " in printed and "'temperature': " in printed

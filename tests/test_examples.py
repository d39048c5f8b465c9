"""The examples and the worked example of docs/guide/new_method.md run as they stand."""

import ast
import re
import runpy
import sys
import types
from pathlib import Path

import pytest

from xmodal.cards import MethodCard
from xmodal.data import open_data
from xmodal.data.request import DataRequest
from xmodal.engine.processes.launch import launch
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.methods import settings as methods_settings
from xmodal.study.bench import Bench
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.study.plan import method_settings

ROOT = Path(__file__).parents[1]
TRACKERS = ["track_mlflow", "track_wandb"]  # callbacks of `xmodal.distill`, run by tests/test_trackers.py
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.stem not in TRACKERS]
PAGE = ROOT / "docs/guide/new_method.md"
MODULE = "xmodal.methods.trusted"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What an example writes must not lie in the checkout."""
    monkeypatch.chdir(tmp_path)


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_neither_recipes_nor_commands(example):
    text = example.read_text(encoding="utf-8")
    imported = [
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    ]

    assert len(text.splitlines()) < 60
    assert not [name for name in imported if name.startswith(("xmodal.recipes", "xmodal.cli"))]
    assert "xmodal.distill(" not in text.replace("`xmodal.distill`", "")


@pytest.mark.parametrize(
    ("name", "at_least", "files"),
    [
        ("distil_arrays", 0.85, ["student/student.safetensors", "student/student.json"]),
        ("own_loss", 0.75, []),
        ("own_networks", 0.5, ["student/student.onnx", "student/student.json"]),
    ],
)
def test_an_example_runs_and_learns(name, at_least, files, tmp_path, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")

    accuracies = [float(found) for found in re.findall(r"accuracy (\d\.\d+)", capsys.readouterr().out)]
    assert accuracies, "no accuracy was printed"
    assert min(accuracies) > at_least
    assert all((tmp_path / file).is_file() for file in files)
    assert files or not list(tmp_path.iterdir())


def test_every_example_is_run():
    assert [path.stem for path in EXAMPLES] == ["distil_arrays", "own_loss", "own_networks"]


@pytest.mark.parametrize("page", sorted((ROOT / "docs/methods").glob("*.md")), ids=lambda path: path.stem)
def test_the_example_of_a_methods_page_runs(page, capsys):
    (code,) = code_blocks(page)

    exec(compile(code, page.name, "exec"), {})

    assert capsys.readouterr().out.startswith("{")


@pytest.mark.parametrize("page", sorted((ROOT / "docs/diagnostics").glob("*.md")), ids=lambda path: path.stem)
def test_the_example_of_a_diagnostics_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # divergence.md writes a run folder

    exec(compile(code_blocks(page)[0], page.name, "exec"), {})

    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_every_method_has_a_page():
    assert {path.stem for path in (ROOT / "docs/methods").glob("*.md")} == set(METHODS)


@pytest.fixture
def trusted(monkeypatch):
    """The method file of the page, importable under the name that the page gives it."""
    found: dict = {}
    exec(compile(code_blocks(PAGE)[1], "new_method.md: the settings", "exec"), found)
    monkeypatch.setattr(methods_settings, "TrustedSettings", found["TrustedSettings"], raising=False)
    module = types.ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(code_blocks(PAGE)[0], "new_method.md: the file", "exec"), module.__dict__)
    return module


def test_the_page_has_a_file_settings_a_try_a_card_a_test_a_second_file_and_a_second_teacher():
    assert len(code_blocks(PAGE)) == 7


def test_the_new_method_trains_as_the_page_says(trusted, capsys):
    found: dict = {}

    exec(compile(code_blocks(PAGE)[2], "new_method.md: try it", "exec"), found)

    assert set(found["run"].history[-1]["losses"]) == {"task", "kd"}
    assert found["run"].history[-1]["logs"]["right"] > 0.9
    assert found["run"].best["fourier"]["score"] > 0.7
    assert "'right'" in capsys.readouterr().out


def test_the_card_of_the_page_leads_to_a_method_that_recipes_can_train(trusted):
    found: dict = {}
    exec(compile(code_blocks(PAGE)[3], "new_method.md: the card", "exec"), found)
    card = found["card"]
    assert isinstance(card, MethodCard)
    data = open_data("digits", options={"views": ["rows", "fourier"]}, train_fraction=0.2)
    settings = ComparisonSettings(teacher=("rows",), student=("fourier",), epochs=3, batch_size=32)
    bench = Bench(data, settings.plan(), seed=0, fabric=launch())

    bench.train_card(card, method_settings(card, {"temperature": 2.0}))
    bench.train_card(card, method_settings(card, {}), control="shuffled")

    assert bench.runs["trusted"].method.temperature == 2.0
    assert {row["name"] for row in bench.score()} == {"teacher", "trusted", "trusted (shuffled teacher)"}


def test_the_test_of_the_page_passes(trusted):
    found: dict = {}
    exec(compile(code_blocks(PAGE)[4], "new_method.md: the test", "exec"), found)
    tests = [function for name, function in found.items() if name.startswith("test_")]

    for test in tests:
        test()

    assert len(tests) == 3


def test_the_data_set_of_the_guide_is_distilled():
    (code,) = (block for block in code_blocks(ROOT / "docs/guide/your_data.md") if "class Recordings" in block)
    names = {}

    exec(compile(code, "your_data.md", "exec"), names)

    assert names["done"].student.needs == ("sound",) and names["done"].scores["kd"] > 0.8


def test_the_named_data_set_of_the_guide_opens():
    (code,) = (block for block in code_blocks(ROOT / "docs/guide/your_data.md") if "class TidesSettings" in block)
    names: dict = {}
    exec(compile(code, "your_data.md: a data set with a name", "exec"), names)

    data = names["load"](None, names["TidesSettings"](stations=40), DataRequest(seed=1))

    assert data.info.modalities == ("level", "pressure") and data.info.classes == 4
    with pytest.raises(InputError, match="tides has the task multiclass"):
        names["load"](None, names["TidesSettings"](), DataRequest(task="regression"))

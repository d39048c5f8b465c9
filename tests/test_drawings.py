"""The drawings of the documentation show the code as it is."""

import importlib.util
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "drawings"


@pytest.fixture(scope="module")
def draw():
    spec = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["layers.svg", "batch.svg"])
def test_the_drawing_in_the_repository_is_what_the_code_gives(draw, name):
    assert (FOLDER / name).read_text(encoding="utf-8") == draw.DRAWINGS[name](), "run python docs/drawings/draw.py"


def test_every_room_is_drawn_and_described_and_arrows_point_down(draw):
    rooms = {path.parent.name for path in draw.PACKAGE.glob("*/__init__.py")}
    level = {room: number for number, rooms_of_level in enumerate(draw.LEVELS) for room in rooms_of_level}
    page = (FOLDER.parent / "guide" / "how_it_fits.md").read_text(encoding="utf-8")

    assert rooms == level.keys() - {"contract", "deploy"}
    assert rooms <= set(re.findall(r"\*\*`(\w+)/`\*\*", page))
    assert all(level[below] < level[above] for above, below in draw.imports())


def test_an_arrow_that_follows_from_two_others_is_left_out(draw):
    steps = {("cli", "recipes"), ("recipes", "study")}

    assert draw.direct(steps | {("cli", "study")}) == steps


def test_a_station_that_does_not_exist_is_noticed(draw, monkeypatch):
    monkeypatch.setattr(draw, "FORTH", [("loader", "batches", "xmodal.data.loader:NoSuchThing")])

    with pytest.raises(AttributeError, match="NoSuchThing"):
        draw.batch()

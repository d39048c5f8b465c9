"""Commands in the documentation: every flag of `xmodal run`, `compare`, `distill` and `data make|prepare` exists."""

import re
import shlex
from pathlib import Path

import pytest

from xmodal.cli.data import RAW, ROOT, _flags, _function, _settings
from xmodal.cli.parser import Parser, Section
from xmodal.cli.recipe_flags import read_settings
from xmodal.errors import InputError
from xmodal.recipes import RECIPES

FOLDER = Path(__file__).parents[1]
PAGES = [FOLDER / "README.md", *sorted((FOLDER / "docs").rglob("*.md"))]
EXAMPLE = "trusted"  # the method that readers of docs/guide/new_method.md write


def commands(text: str) -> list[str]:
    """Command lines of a page, in blocks and in running text; those with an ellipsis or a choice are patterns."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^\s*(xmodal [^\n#]*)", joined, flags=re.MULTILINE) + re.findall(r"`(xmodal [^`\n]*)`", joined)
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if not re.search(r"[…[|]", part) and EXAMPLE not in part]


def problems(command: str) -> list[str]:
    """Flags of a command that do not exist; values are not checked, since many are placeholders."""
    _, name, *words = [*shlex.split(command), ""]
    words = [word for word in words if word]
    if name == "data" and words[:1] in (["make"], ["prepare"]) and words[1:2] not in ([], ["NAME"]):
        kind, rest = words[0], words[1:]
        _, function = _function(rest, kind)
        model = _flags(function, "", {"root": ROOT} if kind == "make" else {"raw": RAW, "root": ROOT})
        sections = [Section(model), *(Section(settings) for settings in _settings(function))]
        return Parser(sections, prog=f"xmodal data {kind}").read(rest[1:])[1]
    recipe = words.pop(0) if name == "run" and words and words[0] in RECIPES else name
    if recipe not in RECIPES:
        return []
    try:
        read_settings(recipe, words, prog=f"xmodal {name}")
    except InputError as error:
        return [problem for problem in error.problems if "has no option" in problem]
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_flag_of_a_command_exists(page):
    lines = commands(page.read_text(encoding="utf-8"))

    assert {line: found for line in lines if (found := problems(line))} == {}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("xmodal compare digits --teacher rows --kd.temperature 2", []),
        ("xmodal compare digits --teachers rows", ["--teachers"]),
        ("xmodal run gauss-gamma --seeds 3 --untrained", ["--untrained"]),
        ("xmodal data make discom DIR --train-share 0.7", []),
        ("xmodal data make discom DIR --test-share 0.7", ["--test-share"]),
        ("xmodal data prepare nyu raw root --position correct", []),
    ],
)
def test_a_flag_that_does_not_exist_is_detected(command, expected):
    found = problems(command)

    assert len(found) == len(expected) and all(flag in text for flag, text in zip(expected, found, strict=True))

"""Names in the documentation: every module, attribute and file of the project that a page mentions exists."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# CHANGELOG.md also names modules of earlier versions
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [path for folder in ("benchmarks", "examples", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
DOTTED = re.compile(r"(?<![\w./])xmodal(?:\.[A-Za-z_]\w*)+")
IMPORT = re.compile(r"^\s*from (xmodal[\w.]*) import ([\w, ]+)", re.MULTILINE)
PATH = re.compile(r"(?<![\w./-])(?:xmodal|tests|docs|benchmarks|examples)/[\w./-]*\w(?:\.\w+|/)")
# `methods/settings.py`, relative to the package
INSIDE = re.compile(r"`(?!(?:xmodal|tests|docs|benchmarks|examples)/)((?:\w+/)+\w+\.py)`")
# names that readers of docs/guide/new_method.md create, and a file inside exported students
CREATED = {"xmodal.methods.trusted", "xmodal.methods.trusted.Trusted", "xmodal.methods.settings.TrustedSettings"}
CREATED |= {"xmodal/methods/trusted.py", "tests/methods/test_trusted.py", "docs/methods/trusted.md", "xmodal.json"}


def exists(dotted: str) -> bool:
    """Whether ``xmodal.a.b.c`` is a module, or an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def names_in(text: str) -> set[str]:
    """Dotted names and paths of a page, also those of ``from … import …`` lines."""
    imported = {
        f"{module}.{name.strip().split(' as ')[0]}"
        for module, names in IMPORT.findall(text)
        for name in names.split(",")
        if name.strip()
    }
    inside = {f"xmodal/{path}" for path in INSIDE.findall(text)}
    return {*DOTTED.findall(text), *imported, *PATH.findall(text), *inside}


def missing(text: str) -> list[str]:
    """Names of a page that do not exist, except those that readers create."""
    return sorted(
        name for name in names_in(text) - CREATED if not ((ROOT / name).exists() if "/" in name else exists(name))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_on_a_page_exists(page):
    assert missing(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_in_a_script_exists(script):
    source = script.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}" for node in imports for alias in node.names]

    assert [name for name in names if name.startswith("xmodal") and not exists(name)] == []
    assert missing(ast.get_docstring(ast.parse(source)) or "") == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("`xmodal.data.own.layout` and `xmodal.types.Batch`", []),
        ("`xmodal.data.layout`", ["xmodal.data.layout"]),
        ("`xmodal.types.Bath`, then `xmodal.distill(…)`", ["xmodal.types.Bath"]),
        ("from xmodal.data import open_data, opened_data", ["xmodal.data.opened_data"]),
        ("see `xmodal/data/media/sound.py` in `xmodal/data/media/`", []),
        ("see `xmodal/data/sound.py`", ["xmodal/data/sound.py"]),
        ("`methods/settings.py` and `methods/setting.py`", ["xmodal/methods/setting.py"]),
        ("`tests/data/test_sound.py` for `xmodal/data/<name>.py`", ["tests/data/test_sound.py"]),
    ],
)
def test_a_name_that_does_not_exist_is_detected(text, names):
    assert missing(text) == names


def test_every_part_of_the_package_has_a_level_in_contributing():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| (.*?) \|", page, flags=re.MULTILINE)
    parts = {
        path.stem for path in (ROOT / "xmodal").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(parts - {"__init__"})

"""`import xmodal` costs nothing, offers its names, and suggests the closest name for a misspelt one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xmodal

HEAVY = ("torch", "numpy", "pydantic", "sklearn", "lightning_fabric", "torchmetrics", "scipy.stats")


def test_importing_xmodal_loads_nothing_heavy():
    code = f"import sys, xmodal; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", xmodal.__all__)
def test_a_public_name_is_there_and_listed(name):
    assert getattr(xmodal, name) is getattr(xmodal, name)
    assert name in dir(xmodal)


def test_type_checkers_and_python_find_the_same_names_in_the_same_modules():
    (block,) = [
        node
        for node in ast.parse(Path(xmodal.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    ]

    modules = {alias.name: node.module for node in block.body for alias in node.names}

    assert modules == xmodal._MODULES
    assert {*modules, "__version__"} == set(xmodal.__all__)


def test_a_misspelt_name_gets_the_closest_one():
    with pytest.raises(AttributeError, match="Did you mean 'distill'"):
        _ = xmodal.distil
    assert not hasattr(xmodal, "__wrapped__")


def test_submodules_are_not_shadowed():
    from xmodal import data, methods

    assert data.__name__ == "xmodal.data"
    assert methods.METHODS is xmodal.METHODS

"""The examples in docstrings show what really comes out."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import xmodal
from xmodal.losses import LOSSES

MODULES = ["xmodal", *(found.name for found in pkgutil.walk_packages(xmodal.__path__, "xmodal."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_are_right(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))

    assert result.failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()

    found = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))

    assert found >= 20


def test_a_wrong_example_would_be_noticed():
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)

    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_example_of_a_loss_prints_a_number(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(LOSSES[name].load(), name)

    assert any(re.search(r"\d", example.want) for example in test.examples)
    assert inspect.getmodule(LOSSES[name].load()).__doc__

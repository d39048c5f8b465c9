import math
import types

import pytest

from xmodal.cards import Card, Cards, load
from xmodal.data import DATA
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES
from xmodal.types import TASKS

LISTS = {cards.kind: cards for cards in (METHODS, LOSSES, DATA, RECIPES)}
every_list = pytest.mark.parametrize("cards", LISTS.values(), ids=LISTS)


def two_cards():
    return Cards(
        "tool", [Card(name="root", title="a root", path="math:sqrt"), Card(name="log", title="a log", path="math:log")]
    )


def test_a_card_loads_what_its_path_names():
    assert two_cards()["root"].load() is math.sqrt and load("math:pi") == math.pi


def test_a_list_keeps_the_order_in_which_it_was_written():
    cards = two_cards()

    assert list(cards) == ["root", "log"] and len(cards) == 2 and "root" in cards and "tan" not in cards


def test_an_unknown_name_is_answered_with_the_kind_and_the_closest_name():
    with pytest.raises(InputError, match=r"There is no tool called 'rot'. Did you mean 'root'\? Known: log, root."):
        two_cards()["rot"]


def test_a_card_can_not_be_changed():
    with pytest.raises(AttributeError, match="cannot assign"):
        two_cards()["root"].name = "other"


def test_a_path_to_nothing_fails_where_it_is_loaded():
    with pytest.raises(AttributeError, match="no attribute 'cube'"):
        load("math:cube")


@every_list
def test_every_list_can_be_read_by_people(cards):
    for name, card in cards.items():
        assert card.name == name == name.strip() and name == name.lower()
        assert card.title and not card.title.endswith(".") and len(card.title) < 100
        assert (card.year is None) == (not card.paper)  # what was published says where and when


@every_list
def test_no_card_is_written_twice(cards):
    import ast
    import importlib
    import inspect

    home = {"method": "methods", "loss": "losses", "data set": "data", "recipe": "recipes"}[cards.kind]
    source = inspect.getsource(importlib.import_module(f"xmodal.{home}"))
    names = [
        word.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "name"
    ]
    assert sorted(names) == sorted(cards)


@pytest.mark.parametrize("card", METHODS.values(), ids=METHODS)
def test_a_method_names_only_known_tasks_and_kinds_of_teacher(card):
    assert set(card.tasks) <= set(TASKS) and card.tasks
    assert card.teacher in ("none", "frozen", "own") and isinstance(card.paired, bool) and card.modalities


@pytest.mark.parametrize("card", LOSSES.values(), ids=LOSSES)
def test_a_loss_names_only_known_needs_and_is_a_function(card):
    assert set(card.needs) <= {"logits", "features", "labels", "pairs", "memory"} and card.needs
    assert isinstance(card.load(), types.FunctionType | type)

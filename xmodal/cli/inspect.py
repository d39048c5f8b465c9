"""The command `list`: methods, losses, data sets and recipes, and the settings of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from xmodal.cards import Card, DataCard, LossCard, MethodCard, RecipeCard, load
from xmodal.cli.output import Answer, columns
from xmodal.cli.parser import Flags, parse
from xmodal.data import DATA
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag
from xmodal.losses import LOSSES
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES

LISTS: dict[str, Mapping[str, Card]] = {"methods": METHODS, "losses": LOSSES, "data": DATA, "recipes": RECIPES}


class ListFlags(Flags):
    """List methods, losses, data sets and recipes, or show the facts and settings of one of them."""

    what: Annotated[str, Flag(metavar="methods|losses|data|recipes|NAME", positional=True)] = Field(
        "", description="name of a list, or of an entry, whose facts and settings are then shown"
    )


def list_cards(words: Sequence[str]) -> Answer:
    """The command ``xmodal list``."""
    flags = parse(ListFlags, words, prog="xmodal list")
    # a method and a data set may have the same name: both are shown
    entries = [(kind, cards[flags.what]) for kind, cards in LISTS.items() if flags.what in cards]
    if entries:
        result = {kind: _facts(card) for kind, card in entries}
        lines = [line for kind, facts in result.items() for line in _lines(kind, facts)]
        return Answer(result, flags.as_json, lines[:-1])
    if flags.what and flags.what not in LISTS:
        names = [*LISTS, *(name for cards in LISTS.values() for name in cards)]
        raise InputError(f"No list and no entry is called '{flags.what}'. {did_you_mean(flags.what, names)}")
    chosen = {kind: cards for kind, cards in LISTS.items() if flags.what in ("", kind)}
    lines = [line for kind, cards in chosen.items() for line in _table(kind, cards)]
    listed = {
        kind: [{**_plain(card), "needs": needs(card)} for card in cards.values()] for kind, cards in chosen.items()
    }
    return Answer(listed, flags.as_json, lines[:-1])


def needs(card: Card) -> str:
    """What a user needs for an entry, in a few words."""
    if isinstance(card, MethodCard):
        teacher = {"none": "no teacher", "frozen": "trained teacher", "own": "trains its teachers"}[card.teacher]
        return f"{teacher}; {'paired' if card.paired else 'paired or not'}; {card.modalities}"
    if isinstance(card, LossCard):
        return f"{', '.join(card.needs)}; {card.rows}"
    if isinstance(card, DataCard):
        return "nothing" if card.built_in else "its files (xmodal data make writes a small synthetic copy)"
    return "reference figures included" if isinstance(card, RecipeCard) and card.references else ""


def _table(kind: str, cards: Mapping[str, Card]) -> list[str]:
    head = ["name", "title", "year", "paper", "needs"]
    rows = [[card.name, card.title, str(card.year or ""), card.paper, needs(card)] for card in cards.values()]
    return [f"{kind}:", *columns([head, *rows]), ""]


def _plain(card: Card) -> dict[str, Any]:
    # paths of functions are of no use to a reader
    hidden = ("path", "settings", "make", "prepare")
    return {key: value for key, value in vars(card).items() if key not in hidden}


def _facts(card: Card) -> dict[str, Any]:
    """The facts of a card and its settings."""
    path = getattr(card, "settings", "")
    model: type[BaseModel] | None = load(path) if path else None
    options = (
        []
        if model is None
        else [
            {"name": name, "default": field.get_default(call_default_factory=True), "meaning": field.description or ""}
            for name, field in model.model_fields.items()
        ]
    )
    return {**_plain(card), "needs": needs(card), "settings": options}


def _lines(kind: str, facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['name']} ({kind})"]
    for key, value in facts.items():
        if key not in ("name", "settings") and value not in ("", None, ()):
            text = ", ".join(value) if isinstance(value, tuple) else {True: "yes", False: "no"}.get(value, value)
            lines.append(f"  {key.replace('_', ' '):<12} {text}")
    lines += ["  settings"] if facts["settings"] else []
    lines += [f"    {entry['name']} = {_default(entry['default'])}: {entry['meaning']}" for entry in facts["settings"]]
    return [*lines, ""]


def _default(value: Any) -> str:
    return ",".join(map(str, value)) or "''" if isinstance(value, tuple) else repr(value) if value == "" else str(value)

"""A loss as users write it: ``name``, ``name:weight`` or ``name(option=value, …):weight``.

    kl    rkd:0.5    dkd(alpha=16, temperature=0.7)    crd(width=8, negatives=256):0.02

Options are the coefficients of the loss by their names: numbers, words, true or false. Two belong to the term around
it: ``adaptor=linear`` trains a layer between the two sides even where their widths are equal, and ``group=64`` computes
a loss that compares rows with one another on 64 rows at a time, as the mean over the groups.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from xmodal.cards import LossCard
from xmodal.errors import InputError, did_you_mean
from xmodal.losses import LOSSES

FORM = re.compile(r"\s*([^:()\s]+)\s*(?:\((.*)\))?\s*(?::(.*))?", re.DOTALL)
AROUND: dict[str, Any] = {"adaptor": "auto", "group": 0}  # options of the term, with their defaults
ADAPTORS = ("auto", "linear")
# arguments of losses that a term sets: the reduction by its mask, the rows of a memory by the size of the split
SET_BY_TERM = ("reduction", "rows")


class LossRequest(NamedTuple):
    """A loss with its weight and options.

    Attributes:
        card: of the loss.
        weight: of its term.
        options: of the loss and of its term, by name.
    """

    card: LossCard
    weight: float
    options: dict[str, Any]


def parse_loss(text: str) -> LossRequest:
    """Read a loss with its weight and its options.

    Example:
        >>> card, weight, options = parse_loss("dkd(alpha=16, temperature=0.7):0.5")
        >>> card.name, weight, options
        ('dkd', 0.5, {'alpha': 16.0, 'temperature': 0.7})
    """
    name, inside, weight = split_loss(text)
    card = LOSSES[name]
    defaults = {**coefficients(card), **_around(card)}
    options = {}
    for part in re.split(r"[,\s]+", inside.strip()) if inside.strip() else ():
        key, _, value = part.partition("=")
        if key not in defaults:
            raise InputError(f"The loss '{name}' has no option '{key}'. {did_you_mean(key, defaults)}")
        options[key] = _value(text, key, value, defaults[key])
    try:
        return LossRequest(card, float(weight) if weight else card.weight, options)
    except ValueError:
        raise InputError(f"The loss '{text}': expected NAME or NAME:WEIGHT, for example rkd:0.5.") from None


def split_loss(text: str) -> tuple[str, str, str]:
    """Name, text in parentheses, and weight; empty strings for absent parts.

    Example:
        >>> split_loss("kl(scale=none):2"), split_loss("kl")
        (('kl', 'scale=none', '2'), ('kl', '', ''))
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise InputError(
            f"The loss '{text}': expected NAME, NAME:WEIGHT or NAME(OPTION=VALUE,…):WEIGHT, for example rkd:0.5 or "
            "kl(temperature=2)."
        )
    name, inside, weight = match.groups(default="")
    return name, inside, weight


def coefficients(card: LossCard) -> dict[str, Any]:
    """Options of a loss with their defaults: its keyword arguments that are numbers, words or switches.

    Example:
        >>> coefficients(LOSSES["rkd"])
        {'distance_weight': 25.0, 'angle_weight': 50.0}
    """
    loss = card.load()
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(loss).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and isinstance(parameter.default, bool | int | float | str)
        and name not in SET_BY_TERM
    }


def _around(card: LossCard) -> dict[str, Any]:
    """The options of the term that a loss can have, with their defaults."""
    # modules are built for both widths and look at all rows that they are given
    possible = {
        "adaptor": card.widths == "same" and not card.module,
        "group": card.samples == "mixing" and not card.module,
    }
    return {name: default for name, default in AROUND.items() if possible[name]}


def _value(text: str, key: str, value: str, default: Any) -> Any:
    """An option's value, of the type of its default."""
    if key == "adaptor" and value not in ADAPTORS:
        raise InputError(f"The loss '{text}': {key} is '{value}'. {did_you_mean(value, ADAPTORS)}")
    # before numbers: a bool is an int in Python, and bool("false") is True
    if isinstance(default, bool):
        if value in ("true", "false"):
            return value == "true"
        raise InputError(f"The loss '{text}': {key} is '{value}', expected true or false.")
    try:
        return type(default)(value) if value else type(default)("?")
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise InputError(f"The loss '{text}': {key} is '{value}', expected {kind}.") from None

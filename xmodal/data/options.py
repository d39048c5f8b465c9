"""From values of the user (flags, data.json) to a settings object, or to one error sentence per wrong value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xmodal.errors import InputError, did_you_mean
from xmodal.flags import flag_of

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """An object of this pydantic class, or an `InputError` with one sentence per problem.

    Args:
        model: class of the settings, which forbids extra keys.
        values: what the user wrote.
        where: source of the values for the sentences, for example ``data.json``.
    """
    try:
        return model.model_validate(current_names(model, values))
    except ValidationError as error:
        raise InputError([_sentence(model, dict(problem), where) for problem in error.errors()]) from None


def current_names(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the earlier names of fields replaced by those of today, as `xmodal.flags.Flag` lists them."""
    renamed = {alias: name for name, field in model.model_fields.items() for alias in flag_of(field.metadata).aliases}
    # a file with both names keeps the earlier one, which is then refused as an unknown key
    return {key if renamed.get(key, key) in values else renamed[key]: value for key, value in values.items()}


def valid_part(model: type[M], values: Mapping[str, Any], where: str) -> tuple[M, list[str]]:
    """The object of all valid values, and a sentence for each invalid one, so that checking can continue."""
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        sentences = [_sentence(model, dict(problem), where) for problem in error.errors()]
        return model.model_validate({key: value for key, value in values.items() if key not in wrong}), sentences


def _sentence(model: type[BaseModel], problem: dict[str, Any], where: str) -> str:
    # pydantic says that extra inputs are not permitted; a misspelt key or value gets the closest name as well
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        keys = [field.alias or name for name, field in model.model_fields.items()]
        return f"{where} has no key '{key}'. {did_you_mean(key, keys)}"
    if problem["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        if allowed:
            hint = did_you_mean(str(problem["input"]), filter(None, allowed))
            return f"{where}: '{key}' is {problem['input']!r}. {hint}"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    message = problem["msg"].replace("Input should be", "expected", 1)
    return f"{where}: '{key}' is {problem['input']!r}: {message}."

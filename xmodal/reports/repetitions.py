"""What a comparison repeats: trainings of several seeds, or of the folds of a cross-validation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def repetition(result: Mapping[str, Any]) -> str:
    """``fold`` or ``seed``.

    Example:
        >>> repetition({"folds": 5}), repetition({})
        ('fold', 'seed')
    """
    return "fold" if result.get("folds") else "seed"


def worded(result: Mapping[str, Any], sentences: Iterable[str]) -> list[str]:
    """Sentences about seeds as sentences about what the comparison repeats.

    Example:
        >>> worded({"folds": 5}, ["better in 5 seeds", "kd.seed=3"])
        ['better in 5 folds', 'kd.seed=3']
    """
    if repetition(result) == "seed":
        return list(sentences)
    # a word of its own: names of rows may contain it
    return [re.sub(r"(?<![\w.-])seed(s?)(?![\w=-])", r"fold\1", sentence) for sentence in sentences]

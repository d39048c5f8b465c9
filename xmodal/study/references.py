"""Published figures, and whether the figures of a run are within tolerance of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, model_validator

from xmodal.cards import RecipeCard, load
from xmodal.data.options import validated
from xmodal.files import SCHEMA, read_json


class RunLike(Protocol):
    """Settings that can be compared with published ones."""

    def described(self) -> dict[str, Any]:
        """All settings except output folder and machine."""


class Reference(BaseModel):
    """A published figure with a tolerance, or the bounds within which a claim holds.

    Attributes:
        key: of our figure; with several published settings it begins with their name and a slash.
        what: the figure in words.
        paper: the value in the paper.
        authors: the result of the authors' code.
        elsewhere: the result of another implementation.
        against: which of the three ours is compared with; empty: the first one that is given.
        tolerance: largest accepted difference from it.
        at_least: smallest value with which the claim holds.
        at_most: largest value with which the claim holds.
        source: table, figure or run that the values come from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    what: str
    paper: float | None = None
    authors: float | None = None
    elsewhere: float | None = None
    against: Literal["", "paper", "authors", "elsewhere"] = ""
    tolerance: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    source: str

    @model_validator(mode="after")
    def _can_be_checked(self) -> Reference:
        bounded = self.at_least is not None or self.at_most is not None
        if target(self) is None and (self.against or not bounded):
            raise ValueError(
                f"'{self.key}' has neither a value to compare with nor a bound. Give paper, authors or elsewhere, or "
                "at_least or at_most."
            )
        if target(self) is not None and self.tolerance is None and not bounded:
            raise ValueError(f"'{self.key}' has a value to compare with and no tolerance. Give a tolerance or a bound.")
        return self


class References(BaseModel):
    """A file of reference figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    figures: list[Reference]


def read_references(location: str, path: Path | None = None) -> list[Reference]:
    """The reference figures of a recipe.

    Args:
        location: ``package:path`` of the file, as in `RecipeCard.references`.
        path: a file to read instead.
    """
    if path is None:
        # by the location, because this module may not know the recipes: they are built from it
        package, _, name = location.partition(":")
        path = Path(str(resources.files(package) / name))
    content = read_json(path)
    content.pop("schema")
    return validated(References, content, str(path)).figures


def target(reference: Reference) -> float | None:
    """The value that ours is compared with: the one named by ``against``, or the first of paper, authors, elsewhere."""
    values = {"paper": reference.paper, "authors": reference.authors, "elsewhere": reference.elsewhere}
    if reference.against:
        return values[reference.against]
    return next((value for value in values.values() if value is not None), None)


def against_references(figures: Mapping[str, float], references: Sequence[Reference]) -> list[dict[str, Any]]:
    """One row per reference: its fields, our figure, and whether it is within tolerance and bounds (``ok``).

    A figure that the run did not produce is not ok.
    """
    rows = []
    for reference in references:
        ours = figures.get(reference.key)
        ok = ours is not None and _holds(ours, reference)
        rows.append({**reference.model_dump(exclude={"key"}), "ours": ours, "ok": ok})
    return rows


def _holds(ours: float, reference: Reference) -> bool:
    expected = target(reference)
    close = expected is None or reference.tolerance is None or abs(ours - expected) <= reference.tolerance
    above = reference.at_least is None or ours >= reference.at_least
    below = reference.at_most is None or ours <= reference.at_most
    return close and above and below


def published_settings(card: RecipeCard) -> dict[str, Any]:
    """The settings of a recipe's reference figures, by name; a single settings object has an empty name."""
    settings = load(card.published or card.settings)()
    return dict(settings) if isinstance(settings, Mapping) else {"": settings}


def published_figures(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of a run with the published settings ``name``, by the keys of their references."""
    return {f"{name}/{key}" if name else key: value for key, value in figures.items()}


def references_for(card: RecipeCard, settings: RunLike, figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """The comparison of a run with the references if its settings are published ones; empty otherwise."""
    # figures of other settings would be called wrong although nothing is
    for name, published in published_settings(card).items():
        if published.described() == settings.described():
            references = read_references(card.references)
            belonging = [figure for figure in references if figure.key.rpartition("/")[0] == name]
            return against_references(published_figures(name, figures), belonging)
    return []

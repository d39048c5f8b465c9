"""Published figures, and whether those of a run come near enough."""

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
    """Settings that say what a run is replayed from."""

    def described(self) -> dict[str, Any]:
        """All but place and machine."""


class Reference(BaseModel):
    """A published figure and how near to it ours must come, or bounds that hold if a claim does.

    Attributes:
        key: of our figure; with several published settings it begins with their name and a slash.
        what: the figure in words.
        paper: the paper's value.
        authors: what the authors' code gives.
        elsewhere: what another implementation gives.
        against: which of the three ours is compared with; empty: the first that is there.
        tolerance: largest distance from it.
        at_least: smallest value that bears out a claim.
        at_most: largest value that does.
        source: where the figures are from.
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
    def _says_something(self) -> Reference:
        bounded = self.at_least is not None or self.at_most is not None
        if target(self) is None and (self.against or not bounded):
            raise ValueError(f"'{self.key}' has neither a paper's nor an authors' value to compare with, nor a bound")
        if target(self) is not None and self.tolerance is None and not bounded:
            raise ValueError(f"'{self.key}' has a value to compare with and says no tolerance")
        return self


class References(BaseModel):
    """A file of reference figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    figures: list[Reference]


def read_references(name: str, path: Path | None = None) -> list[Reference]:
    """The reference figures of a recipe, from the package or from a file of the same form."""
    found = path or Path(str(resources.files("xmodal.recipes") / "references" / name))
    content = read_json(found)
    content.pop("schema")
    return validated(References, content, str(found)).figures


def target(reference: Reference) -> float | None:
    """What ours must come near: the value named by ``against``, else the paper's, the authors', another's."""
    values = {"paper": reference.paper, "authors": reference.authors, "elsewhere": reference.elsewhere}
    if reference.against:
        return values[reference.against]
    return next((value for value in values.values() if value is not None), None)


def against_references(figures: Mapping[str, float], references: Sequence[Reference]) -> list[dict[str, Any]]:
    """One row per reference: ours, paper, authors' code, tolerance, ok.

    A figure that the recipe did not produce is not ok.
    """
    rows = []
    for reference in references:
        ours = figures.get(reference.key)
        ok = ours is not None and _holds(ours, reference)
        rows.append({**reference.model_dump(exclude={"key"}), "ours": ours, "ok": ok})
    return rows


def _holds(ours: float, reference: Reference) -> bool:
    wanted = target(reference)
    near = wanted is None or reference.tolerance is None or abs(ours - wanted) <= reference.tolerance
    least = reference.at_least is None or ours >= reference.at_least
    return near and least and (reference.at_most is None or ours <= reference.at_most)


def published_settings(card: RecipeCard) -> dict[str, Any]:
    """The settings behind a recipe's reference figures, by name; the name of a single one is empty."""
    found = load(card.published or card.settings)()
    return dict(found) if isinstance(found, Mapping) else {"": found}


def published_figures(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of a run at the published settings ``name``, by the keys of their references."""
    return {f"{name}/{key}" if name else key: value for key, value in figures.items()}


def references_for(card: RecipeCard, settings: RunLike, figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """A run's figures beside the references, where its settings are published ones; nothing otherwise."""
    for name, published in published_settings(card).items():
        if published.described() == settings.described():
            mine = [figure for figure in read_references(card.references) if figure.key.rpartition("/")[0] == name]
            return against_references(published_figures(name, figures), mine)
    return []

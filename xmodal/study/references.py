"""Published figures, and whether the figures of a run are within tolerance of them.

A score alone cannot show that a method works: a plain network may reach it too. So where a published difference from
no-KD exists, the difference within a seed is compared, which varies less than the scores do. Its tolerance follows from
the run: 2 √2 standard errors of our difference, since the published one has an error of about the same size.
"""

from __future__ import annotations

import math
import statistics
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
        standard_errors: the same as a multiple of the standard error of ours, in place of ``tolerance``.
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
    standard_errors: float | None = None
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
        tolerances = (self.tolerance is not None) + (self.standard_errors is not None)
        if target(self) is not None and not tolerances and not bounded:
            raise ValueError(f"'{self.key}' has a value to compare with and no tolerance. Give a tolerance or a bound.")
        if tolerances > 1:
            raise ValueError(f"'{self.key}' has a tolerance and standard_errors. Give one of the two.")
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


def against_references(
    figures: Mapping[str, float], references: Sequence[Reference], errors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """One row per reference: its fields, our figure, and whether it is within tolerance and bounds (``ok``).

    A figure that the run did not produce is not ok, and neither is one without the standard error that its tolerance
    needs: a single seed has none.

    Args:
        figures: of the run.
        references: to compare with.
        errors: standard errors of these figures, as `paired_figures` computes them.
    """
    rows = []
    for reference in references:
        ours, allowed = figures.get(reference.key), reference.tolerance
        if reference.standard_errors is not None:
            error = (errors or {}).get(reference.key)
            allowed = None if error is None else reference.standard_errors * error
        unknown = reference.standard_errors is not None and allowed is None
        ok = ours is not None and not unknown and _holds(ours, reference, allowed)
        rows.append({**reference.model_dump(exclude={"key"}), "tolerance": allowed, "ours": ours, "ok": ok})
    return rows


def _holds(ours: float, reference: Reference, allowed: float | None) -> bool:
    expected = target(reference)
    close = expected is None or allowed is None or abs(ours - expected) <= allowed
    above = reference.at_least is None or ours >= reference.at_least
    below = reference.at_most is None or ours <= reference.at_most
    return close and above and below


def paired_figures(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The differences of a comparison from its controls, as entries of `result.json`.

    Args:
        result: as `study.comparison.summarised` returns it.

    Returns:
        ``figures``: those of the result, and ``name - control.metric`` → mean difference within a seed, shares in per
        cent; ``standard_errors``: the same names → standard error of that mean, where there are two seeds or more.
    """
    from xmodal.reports.intervals import scores_by_seed
    from xmodal.reports.numbers import in_percent

    metric = result["metric"]
    scores = scores_by_seed(result["rows"], metric)
    scale = 100.0 if in_percent(metric) else 1.0
    figures, errors = dict(result["figures"]), {}
    for entry in result["summary"]:
        name, control = str(entry["name"]), str((entry["difference"] or {}).get("against", ""))
        shared = [seed for seed in scores[name] if seed in scores.get(control, {})]
        if shared:
            differences = [scale * (scores[name][seed] - scores[control][seed]) for seed in shared]
            key = f"{name} - {control}.{metric}"
            figures[key] = statistics.fmean(differences)
            if len(shared) > 1:
                errors[key] = statistics.stdev(differences) / math.sqrt(len(shared))
    return {"figures": figures, "standard_errors": errors}


def published_settings(card: RecipeCard) -> dict[str, Any]:
    """The settings of a recipe's reference figures, by name; a single settings object has an empty name."""
    settings = load(card.published or card.settings)()
    return dict(settings) if isinstance(settings, Mapping) else {"": settings}


def published_figures(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of a run with the published settings ``name``, by the keys of their references."""
    return {f"{name}/{key}" if name else key: value for key, value in figures.items()}


def references_for(
    card: RecipeCard, settings: RunLike, figures: Mapping[str, float], errors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The comparison of a run with the references if its settings are published ones; empty otherwise.

    Args:
        card: of the recipe.
        settings: of the run.
        figures: of the run.
        errors: standard errors of some of them.
    """
    # figures of other settings would be called wrong although nothing is
    for name, published in published_settings(card).items():
        if published.described() == settings.described():
            references = read_references(card.references)
            belonging = [figure for figure in references if figure.key.rpartition("/")[0] == name]
            return against_references(
                published_figures(name, figures), belonging, published_figures(name, errors or {})
            )
    return []

"""The last paragraph of every recipe: result, page, and the figures beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from xmodal.data.options import validated
from xmodal.errors import InputError
from xmodal.files import SCHEMA, read_json, write_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PAGE = "report.html"


def finish(out: Path, result: Mapping[str, Any], fabric: Fabric) -> None:
    """Write `result.json` and the page, once over all processes."""
    if fabric.global_rank == 0:
        from xmodal.reports.page import write_page

        write_json(out / "result.json", result)
        write_page([out], out / PAGE)
    fabric.barrier()


class Reference(BaseModel):
    """A published figure and how near to it ours must come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    what: str
    paper: float | None = None
    authors: float | None = None
    elsewhere: float | None = None
    tolerance: float
    source: str


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
    figures = validated(References, content, str(found)).figures
    for figure in figures:
        if target(figure) is None:
            raise InputError(f"{found}: '{figure.key}' has neither a paper's nor an authors' value to compare with.")
    return figures


def target(reference: Reference) -> float | None:
    """What ours must come near: the paper's value, else that of the authors' code, else another implementation's."""
    values = (reference.paper, reference.authors, reference.elsewhere)
    return next((value for value in values if value is not None), None)


def against_references(figures: Mapping[str, float], references: Sequence[Reference]) -> list[dict[str, Any]]:
    """One row per reference: ours, paper, authors' code, tolerance, ok.

    A figure that the recipe did not produce is not ok.
    """
    rows = []
    for reference in references:
        ours = figures.get(reference.key)
        wanted = target(reference)
        ok = ours is not None and wanted is not None and abs(ours - wanted) <= reference.tolerance
        rows.append({**reference.model_dump(exclude={"key"}), "ours": ours, "ok": ok})
    return rows

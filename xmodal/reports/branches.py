"""What the parts of an embedding contain, as measured by the recipe of DisCoM-KD: a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.figures import plots
from xmodal.reports.numbers import number

HEADINGS = ["part", "modality (head)", "modality (probe)", "class (probe)", "class (head)", "cosine"]
HEADS = {"invariant": "adversary", "informative": "informative", "irrelevant": "irrelevant"}


def branches(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Table and picture; None if the result has no measurements of branches.

    Args:
        result: result of a comparison.
    """
    measured = result.get("branches")
    if not isinstance(measured, Mapping) or not {"content", "points", "shares"} <= measured.keys():
        return None
    content: Mapping[str, Mapping[str, float]] = measured["content"]
    # Two, as in the paper, for a result without the number of modalities.
    modalities = max(int(measured.get("modalities", 2)), 1)
    return {
        "svg": plots.embeddings(_groups(measured["points"]), shares=measured["shares"]),
        "table": (HEADINGS, [_table_row(part, head, content) for part, head in HEADS.items()]),
        "chance": number(1 / modalities, "accuracy"),
        "seeds": int(measured.get("seeds", 1)),
    }


def _table_row(part: str, head: str, content: Mapping[str, Mapping[str, float]]) -> list[str]:
    accuracies = [content["heads"].get(head), content["modality"].get(part), content["classes"].get(part)]
    cosine = content["cosines"].get(part)
    return [
        part,
        *(number(accuracy, "accuracy") for accuracy in accuracies),
        number(content["auxiliary"].get(part), "accuracy"),
        "–" if cosine is None else f"{cosine:.3f}",
    ]


def _groups(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int, Sequence[Sequence[float]]]]:
    """Label, number of the modality (a colour), number of the part (a marker), and coordinates of each group."""
    modalities = list(dict.fromkeys(group["modality"] for group in points))
    parts = list(dict.fromkeys(group["part"] for group in points))
    return [
        (
            f"{group['modality']}, {group['part']}",
            modalities.index(group["modality"]),
            parts.index(group["part"]),
            group["at"],
        )
        for group in points
    ]

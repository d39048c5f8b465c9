"""What the parts of an embedding contain, as DisCoM-KD's recipe measured it: a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports import plots
from xmodal.reports.tables import number

HEADINGS = ["part", "modality (head)", "modality (probe)", "class (probe)", "class (head)", "cosine"]
HEADS = {"invariant": "adversary", "informative": "informative", "irrelevant": "irrelevant"}


def branches(result: Mapping[str, Any], prefix: str) -> dict[str, Any] | None:
    """Table and drawing; None where a result has nothing of the kind.

    Args:
        result: of a comparison.
        prefix: of the identifiers inside the drawing.
    """
    found = result.get("branches")
    if not isinstance(found, Mapping) or not {"content", "points", "shares"} <= found.keys():
        return None
    content: Mapping[str, Mapping[str, float]] = found["content"]
    lines = [_line(part, head, content) for part, head in HEADS.items()]
    points = [(f"{each['modality']}, {each['part']}", each["at"]) for each in found["points"]]
    modalities = max(int(found.get("modalities", 2)), 1)
    return {
        "svg": plots.embeddings(_grouped(points, found["points"]), shares=found["shares"], prefix=prefix),
        "table": (HEADINGS, lines),
        "chance": number(1 / modalities, "accuracy"),
        "seeds": int(found.get("seeds", 1)),
    }


def _line(part: str, head: str, content: Mapping[str, Mapping[str, float]]) -> list[str]:
    shares = [content["heads"].get(head), content["modality"].get(part), content["classes"].get(part)]
    cosine = content["cosines"].get(part)
    return [
        part,
        *(number(share, "accuracy") for share in shares),
        number(content["auxiliary"].get(part), "accuracy"),
        "–" if cosine is None else f"{cosine:.3f}",
    ]


def _grouped(
    points: Sequence[tuple[str, Sequence[Sequence[float]]]], found: Sequence[Mapping[str, Any]]
) -> list[tuple[str, int, int, Sequence[Sequence[float]]]]:
    """Label, number of the modality (a colour), number of the part (a mark), and where the points are."""
    modalities = list(dict.fromkeys(each["modality"] for each in found))
    parts = list(dict.fromkeys(each["part"] for each in found))
    return [
        (label, modalities.index(each["modality"]), parts.index(each["part"]), at)
        for (label, at), each in zip(points, found, strict=True)
    ]

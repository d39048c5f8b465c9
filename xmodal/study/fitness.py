"""Which methods fit which data."""

from __future__ import annotations

from xmodal.cards import MethodCard
from xmodal.methods import METHODS
from xmodal.types import DataInfo


def unfit(card: MethodCard, info: DataInfo) -> list[str]:
    """Reasons why a method can't be trained on this data; empty if it can."""
    problems = []
    if card.paired and not info.paired:
        others = ", ".join(other.name for other in METHODS.values() if not other.paired)
        problems.append(
            f"The method '{card.name}' needs paired samples, and this data is unpaired. Methods that take it: {others}."
        )
    if info.task not in card.tasks:
        problems.append(f"The method '{card.name}' supports the tasks {', '.join(card.tasks)}, not {info.task}.")
    weighted = {"classes": bool(info.class_weights), "rows": info.weighted}
    for what in (what for what, given in weighted.items() if given and what not in card.weights):
        others = ", ".join(other.name for other in METHODS.values() if what in other.weights)
        problems.append(f"The loss of the method '{card.name}' has no weights of {what}. Methods with them: {others}.")
    targets = "place" if info.dense else "sample"
    if card.targets not in ("any", targets):
        expected, given = ("each sample", "a target for every pixel or voxel")
        if targets == "sample":
            expected, given = ("every pixel or voxel", "one target per sample")
        others = ", ".join(other.name for other in METHODS.values() if other.targets in ("any", targets))
        problems.append(
            f"The method '{card.name}' predicts for {expected}, and this data has {given}. Methods that take it: "
            f"{others}."
        )
    return problems

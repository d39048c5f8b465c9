"""How salient the channels of a teacher are: by channel, sorted, with the share at either end marked.

A result holds ``ranking``: ``place``, ``layer``, ``distance``, ``draws`` (permutations, or ``exact``), ``share`` (of
the channels, marked at each end), and ``seeds``, each with ``seed``, ``value`` (channels, from 0 to 1) and ``note``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports import plots

HEADINGS = ["seed", "channels", "above 0.5", "above 0.2", "below 0.05", "lowest marked", "highest marked"]
KEYS = {"place", "layer", "distance", "draws", "share", "seeds"}


def ranking_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ranking in a result; None where there is none."""
    found = result.get("ranking")
    return found if isinstance(found, Mapping) and found.keys() >= KEYS and found["seeds"] else None


def ends(value: Sequence[float], share: float) -> tuple[list[int], list[int]]:
    """The channels with the lowest and those with the highest values, a share of all each.

    Example:
        >>> ends([0.1, 0.9, 0.0, 1.0], 0.25)
        ([2], [3])
    """
    order = sorted(range(len(value)), key=lambda channel: value[channel])
    count = math.floor(round(share * len(value), 9))
    return order[:count], order[len(order) - count :]


def ranking_plots(ranking: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Two drawings: the first seed by channel, and all seeds sorted."""
    first, share = ranking["seeds"][0], ranking["share"]
    low, high = ends(first["value"], share)
    what = f"{ranking['layer']}, {ranking['distance']}, {_draws(ranking['draws'])}"
    marked = f"the lowest and the highest {share:.0%} are marked".replace("%", " %")
    by_channel = plots.saliency_by_channel(first["value"], low, high, prefix=f"{prefix}-channel")
    in_order = plots.saliency_sorted([one["value"] for one in ranking["seeds"]], share, prefix=f"{prefix}-sorted")
    over = "Mean of the seeds, with a band from the lowest to the highest" if len(ranking["seeds"]) > 1 else "Sorted"
    return [
        {
            "title": f"Saliency by channel, place {ranking['place']}",
            "svg": by_channel,
            "caption": f"Seed {first['seed']}; {what}; {marked}. High: both modalities know what the channel says.",
        },
        {"title": "The same, sorted", "svg": in_order, "caption": f"{over}; {marked}."},
    ]


def ranking_table(ranking: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One row per seed: how many channels are how salient."""
    rows = []
    for one in ranking["seeds"]:
        value = one["value"]
        low, high = ends(value, ranking["share"])
        counts = [sum(v > 0.5 for v in value), sum(v > 0.2 for v in value), sum(v < 0.05 for v in value)]
        bounds = [f"up to {value[low[-1]]:.3f}", f"from {value[high[0]]:.3f}"] if low else ["–", "–"]
        rows.append([str(one["seed"]), str(len(value)), *map(str, counts), *bounds])
    return HEADINGS, rows


def _draws(draws: int | str) -> str:
    return "mean over all permutations" if draws == "exact" else f"{draws} permutations"

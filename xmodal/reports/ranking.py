"""Saliency of a teacher's channels: by channel and sorted, with a share of the channels marked at either end.

A result contains ``ranking``: ``place``, ``layer``, ``distance``, ``draws`` (permutations, or ``exact``), ``share`` (of
the channels to mark at each end), and ``seeds``, each with ``seed``, ``value`` (channels, from 0 to 1) and ``note``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.figures import plots

HEADINGS = ["seed", "channels", "above 0.5", "above 0.2", "below 0.05", "lowest marked", "highest marked"]
KEYS = {"place", "layer", "distance", "draws", "share", "seeds"}


def ranking_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ranking in a result; None for a result without ranking."""
    ranking = result.get("ranking")
    return ranking if isinstance(ranking, Mapping) and ranking.keys() >= KEYS and ranking["seeds"] else None


def ends(value: Sequence[float], share: float) -> tuple[list[int], list[int]]:
    """The channels with the lowest and the channels with the highest values, each a share of all channels.

    Example:
        >>> ends([0.1, 0.9, 0.0, 1.0], 0.25)
        ([2], [3])
    """
    order = sorted(range(len(value)), key=lambda channel: value[channel])
    # Rounded to nine decimals before rounding down, as `keep_mask` does: 0.29 · 100 is 28.999999999999996.
    count = math.floor(round(share * len(value), 9))
    return order[:count], order[len(order) - count :]


def ranking_plots(ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two plots: the first seed by channel, and all seeds sorted."""
    first, share, draws = ranking["seeds"][0], ranking["share"], ranking["draws"]
    low, high = ends(first["value"], share)
    computed = "mean over all permutations" if draws == "exact" else f"{draws} permutations"
    marked = f"the lowest and the highest {share:.0%} are marked".replace("%", " %")
    by_channel = plots.saliency_by_channel(first["value"], low, high)
    values = [seed["value"] for seed in ranking["seeds"]]
    in_order = plots.saliency_sorted(values, len(low))
    averaged = "Mean of the seeds, with a band from the lowest to the highest" if len(values) > 1 else "Sorted"
    return [
        {
            "title": f"Saliency by channel, place {ranking['place']}",
            "svg": by_channel,
            "caption": f"Seed {first['seed']}; {ranking['layer']}, {ranking['distance']}, {computed}; {marked}. A high "
            "value: both modalities contain the channel's information.",
        },
        {"title": "The same, sorted", "svg": in_order, "caption": f"{averaged}; {marked}."},
    ]


def ranking_table(ranking: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One row per seed: numbers of channels above and below some saliencies."""
    rows = []
    for seed in ranking["seeds"]:
        value = seed["value"]
        low, high = ends(value, ranking["share"])
        counts = [sum(v > 0.5 for v in value), sum(v > 0.2 for v in value), sum(v < 0.05 for v in value)]
        bounds = [f"up to {value[low[-1]]:.3f}", f"from {value[high[0]]:.3f}"] if low else ["–", "–"]
        rows.append([str(seed["seed"]), str(len(value)), *map(str, counts), *bounds])
    return HEADINGS, rows

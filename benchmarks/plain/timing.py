"""Times of several ways to do the same work, taken in turns, and the table that the benchmarks print."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        work: what is computed.
        ours: time of this library.
        peer: time of what a competent engineer would write.
        published: time of the authors' own way, if it differs from the peer's.
        remark: anything else.
    """

    work: str
    ours: float
    peer: float
    published: float = math.nan
    remark: str = ""


def turns(ways: Mapping[str, Callable[[], object]], repeats: int = 5, *, warm: int = 1) -> dict[str, float]:
    """Median CPU seconds of each way. They alternate, so that a busy machine disturbs all of them equally."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm + repeats):
        for name, work in ways.items():
            began = time.process_time()
            work()
            if number >= warm:
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(rows: list[Row], unit: str = "s", *, published: str = "published way") -> None:
    """Print the table. Ratios are another's time over ours: below 1, ours is slower."""
    factor = {"s": 1.0, "ms": 1e3}.get(unit, 1.0)
    both = any(not math.isnan(row.published) for row in rows)
    head = ["", f"ours, {unit}", f"fair peer, {unit}", "peer / ours"]
    head += [f"{published}, {unit}", "published / ours"] * both
    remarks = any(row.remark for row in rows)
    print("| " + " | ".join([*head, *[""] * remarks]) + " |\n|" + "---|" * (len(head) + remarks))
    for row in rows:
        cells = [row.work, _short(factor * row.ours), _short(factor * row.peer), _ratio(row.peer, row.ours)]
        if both:
            cells += [_short(factor * row.published), _ratio(row.published, row.ours)]
        print("| " + " | ".join([*cells, *[row.remark] * remarks]) + " |", flush=True)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def _ratio(other: float, ours: float) -> str:
    ratio = other / ours
    return "" if math.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"

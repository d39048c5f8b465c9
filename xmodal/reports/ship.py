"""The ship card of a result, as lines for a terminal and as content for the page."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from typing import Any

from xmodal.reports.intervals import Row
from xmodal.reports.repetitions import repetition

TEXTS = ("name", "role", "student", "folder", "file", "why", "instead", "command")
NUMBERS = ("seed", "bytes", "parameters", "ms_median", "ms_p95")
WIDTH = 118  # of a line on a terminal


def ship_problems(card: object, where: str) -> list[str]:
    """Problems of the card of a result, as sentences; a result of an earlier version has none."""
    if card is None:
        return []
    sound = (
        isinstance(card, Mapping)
        and all(isinstance(card.get(key), str) for key in TEXTS)
        and all(isinstance(card.get(key), int | float | None) for key in NUMBERS)
        and (card.get("ms_median") is None) == (card.get("ms_p95") is None)
    )
    return [] if sound else [f"{where}: the ship card is damaged. Restore the file or run the comparison again."]


def ship_content(result: Row) -> dict[str, Any] | None:
    """What to ship, why, and facts as pairs of name and text; None for a result without a card."""
    card = result.get("ship")
    if not card:
        return None
    which = f"{card['name']}, {repetition(result)} {card['seed']}"
    what = f"the student trained on labels alone ({which})" if card["role"] == "control" else which
    size = ", ".join(f"{card[key]:,} {key}" for key in ("bytes", "parameters") if card.get(key))
    facts = [("file", card["file"]), ("size", size)]
    if card.get("ms_median"):
        speed = f"{card['ms_median']:.2g} ms per sample (median; p95 {card['ms_p95']:.2g} ms)"
        facts.append(("speed", f"{speed}, one at a time on one CPU thread here"))
    facts.append(("export", card["command"]))
    if card["command"] and card["instead"]:
        name = shlex.quote(card["instead"])
        facts.append((f"export {card['instead']} all the same", f"{card['command']} --name {name}"))
    return {"what": what, "why": card["why"], "facts": [(name, text) for name, text in facts if text]}


def ship_lines(result: Row) -> list[str]:
    r"""The card as text, with an empty line behind it; empty for a result without a card.

    Example:
        >>> card = {"name": "kd", "role": "method", "seed": 1, "file": "seed-1/kd/students/a/student.safetensors",
        ...         "why": "kd is better than no-KD.", "bytes": 5120, "parameters": 1200, "ms_median": 0.0512,
        ...         "ms_p95": 0.061, "command": "xmodal export runs/one", "instead": ""}
        >>> print("\n".join(ship_lines({"ship": card})).strip())
        Ship: kd, seed 1
          kd is better than no-KD.
          file: seed-1/kd/students/a/student.safetensors
          size: 5,120 bytes, 1,200 parameters
          speed: 0.051 ms per sample (median; p95 0.061 ms), one at a time on one CPU thread here
          export: xmodal export runs/one
    """
    content = ship_content(result)
    if content is None:
        return []
    why = textwrap.wrap(content["why"], WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    facts = [f"  {name}: {text}" for name, text in content["facts"]]
    return [f"Ship: {content['what']}", *why, *facts, ""]

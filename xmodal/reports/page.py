"""Write run folders as one self-contained HTML page.

The page loads nothing from the network and runs no script; the same folders give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from xmodal.errors import InputError
from xmodal.files import write_text
from xmodal.reports.read import read_run
from xmodal.reports.sections import section


def write_page(folders: Sequence[Path], out: Path) -> Path:
    """Write a page with one section per run folder.

    Args:
        folders: folders of fits, comparisons or sweeps, in the order of their sections.
        out: file to write, replaced atomically; for an existing folder the file is ``report.html`` inside it.

    Returns:
        The file that was written.

    Raises:
        InputError: there is no folder, or one of them cannot be read.
    """
    if not folders:
        raise InputError("A report needs at least one run folder, got none.")
    out = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    sections = [section(read_run(folder), f"run-{number}") for number, folder in enumerate(folders, start=1)]
    write_text(out, _render(sections))
    return out


def _render(sections: Sequence[Mapping[str, Any]]) -> str:
    from jinja2 import Environment, StrictUndefined

    # StrictUndefined: a missing key is an error instead of a gap on the page. Autoescape: names come from the user's
    # data and may contain markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["typeset"] = _typeset
    source = resources.files("xmodal.reports").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(sections=sections) + "\n"


def _typeset(text: str) -> str:
    """A true minus sign, and no line break inside 95 % or p = 0.01; files and terminals keep plain characters."""
    return (
        re.sub(r"(?<![\w.-])-(?=\d)", "−", text)
        .replace(" %", "\u00a0%")
        .replace("p = ", "p\u00a0=\u00a0")
        .replace("p < ", "p\u00a0<\u00a0")
    )

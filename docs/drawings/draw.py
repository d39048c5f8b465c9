"""Draws the figures of docs/guide/how_it_fits.md from the code; `python docs/drawings/draw.py` writes the SVG files.

The layers are the rooms of the package, their arrows its imports. The way of one batch is a list of stations; each of
them must exist in the code under the name that is drawn. A test draws both again and compares.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Set
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "xmodal"

# bottom to top; a room may import those below it, and a level-0 file is not drawn as a room of its own
LEVELS = [
    ["contract"],
    ["losses", "metrics", "data", "models"],
    ["diagnostics", "engine"],
    ["methods"],
    ["reports", "deploy"],
    ["teachers"],
    ["study"],
    ["recipes"],
    ["api", "cli"],
]
CONTRACT = "types, method, cards, errors, files, seeding, …"  # what stands in the box of level 0
WIDTH, ROW, BOX, GAP = 760, 74, 44, 14

# station, what happens there, and where in the code
FORTH = [
    ("a file", "arrays, pictures, sound", "xmodal.data.columns:ArrayFile"),
    ("split", "rows of a split, normalised", "xmodal.data.split:Split"),
    ("loader", "a batch in the order of seed and epoch", "xmodal.data.loader:Loader"),
    ("Batch", "inputs and targets by modality", "xmodal.types:Batch"),
    ("teacher", "outputs of the frozen teacher, cached", "xmodal.engine.teacher_cache:TeacherCache"),
    ("method", "training_step: the paper's objective", "xmodal.method:Method"),
    ("loss", "a pure function of two tensors", "xmodal.losses.logits:kl"),
    ("Step", "losses by name, and how many they count", "xmodal.types:Step"),
]
BACK = [
    ("agreement", "sum of losses, equal on all processes, finite", "xmodal.engine.step_sums:agree"),
    ("backward", "gradients of one batch", "xmodal.engine.loop:Loop"),
    ("optimiser", "an update after so many batches", "xmodal.engine.optim:Optimisers"),
    ("validation", "scores of every student, once an epoch", "xmodal.engine.evaluate:evaluate"),
    ("selection", "the best epoch of each student", "xmodal.engine.selection:Selection"),
    ("run folder", "history, checkpoints, students", "xmodal.engine.run.result:Run"),
]


def room_of(module: str) -> str:
    """``xmodal.data.base`` → ``data``; top-level files belong to ``contract`` or to ``deploy``."""
    part = (module.split(".") + [""])[1]
    if part in ("export", "deploy"):
        return "deploy"
    if part == "sklearn":
        return "api"
    return part if any(part in level for level in LEVELS) else "contract"


@functools.cache
def imports() -> frozenset[tuple[str, str]]:
    """Pairs of rooms, the first of which imports the second."""
    edges = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if module == "xmodal":  # the package lists public names of every room
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"xmodal.{alias.name}" for alias in node.names] if node.module == "xmodal" else [node.module]
            edges |= {(room_of(module), room_of(name)) for name in names if name.split(".")[0] == "xmodal"}
    return frozenset((above, below) for above, below in edges if above != below)


def direct(edges: Set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Edges without those that follow from two others: an arrow to methods says that losses may be used, too."""
    reach = {room: {below for above, below in edges if above == room} for level in LEVELS for room in level}
    for level in LEVELS:
        for room in level:
            reach[room] |= {further for below in reach[room] for further in reach[below]}
    return {
        (above, below)
        for above, below in edges
        if not any(below in reach[between] for upper, between in edges if upper == above and between != below)
    }


def layers() -> str:
    """The rooms, the lowest level at the bottom, with arrows to what they import."""
    height = ROW * len(LEVELS) + GAP
    middle, shapes = {}, []
    for number, level in enumerate(LEVELS):
        wide = (WIDTH - GAP * (len(level) + 1)) / len(level)
        top = height - ROW * (number + 1)
        for place, room in enumerate(level):
            left = GAP + place * (wide + GAP)
            middle[room] = left + wide / 2, top
            label = (
                CONTRACT if room == "contract" else f"{room}/" if (PACKAGE / room).is_dir() else "export.py, deploy.py"
            )
            shapes.append(box(left, top, wide, label))
    for above, below in sorted(direct(imports())):
        (x, y), (to_x, to_y) = middle[above], middle[below]
        shapes.append(arrow(x, y + BOX, to_x, to_y - 2))
    return svg(WIDTH, height, shapes, "Rooms of the package; an arrow points to what a room imports")


def batch() -> str:
    """The stations of one batch: from a file to the loss, and back to weights and run folder."""
    for _, _, path in FORTH + BACK:
        module, _, name = path.partition(":")
        getattr(importlib.import_module(module), name)  # a station that does not exist can't be drawn
    rows = max(len(FORTH), len(BACK) + 1)
    height, wide = ROW * rows + GAP, (WIDTH - 3 * GAP) / 2
    shapes = []
    for column, stations in enumerate((FORTH, BACK)):
        for number, (name, what, path) in enumerate(stations):
            at = number if column == 0 else rows - 1 - number  # forth runs down, back runs up
            left, top = GAP + column * (wide + GAP), GAP + ROW * at
            shapes.append(box(left, top, wide, f"{name}: {what}", path.replace("xmodal.", "", 1).partition(":")[0]))
            if number + 1 < len(stations):
                x = left + wide / 2
                start, end = (top + BOX, top + ROW - 2) if column == 0 else (top, top - ROW + BOX + 2)
                shapes.append(arrow(x, start, x, end))
    bottom = GAP + ROW * (rows - 1) + BOX / 2
    shapes.append(arrow(GAP + wide, bottom, 2 * GAP + wide - 2, bottom))
    return svg(WIDTH, height, shapes, "One batch from a file to the loss, and back to the weights")


def box(left: float, top: float, wide: float, label: str, below: str = "") -> str:
    """A labelled rectangle."""
    x, y = left + wide / 2, top + BOX / 2 + (0 if below else 5)
    small = f'<text x="{x:.0f}" y="{y + 15:.0f}" class="small">{escape(below)}</text>' if below else ""
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{BOX}" rx="6"/>'
        f'<text x="{x:.0f}" y="{y:.0f}">{escape(label)}</text>{small}'
    )


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a head."""
    return f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{to_x:.0f}" y2="{to_y:.0f}" marker-end="url(#head)"/>'


def svg(width: float, height: float, shapes: list[str], title: str) -> str:
    """A drawing that reads in light and dark pages."""
    style = (
        "rect{fill:#e8f0fb;stroke:#3b6ea8}text{font:13px sans-serif;fill:#12263f;text-anchor:middle}"
        ".small{font:10px monospace;fill:#4a5a6a}line{stroke:#6b7785;stroke-width:1.2}path{fill:#6b7785}"
        ".ground{fill:#ffffff;stroke:none}"
    )
    triangle = '<path d="M0 0L8 4L0 8z"/>'
    head = f'<marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">{triangle}</marker>'
    label, body = escape(title), "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">\n'
        f"<title>{label}</title><style>{style}</style><defs>{head}</defs>\n"
        f'<rect class="ground" width="{width}" height="{height}"/>\n{body}\n</svg>\n'
    )


DRAWINGS = {"layers.svg": layers, "batch.svg": batch}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (HERE / name).write_text(draw(), encoding="utf-8")

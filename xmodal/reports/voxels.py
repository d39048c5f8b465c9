"""Rooms as pictures: voxels seen from the front and above, nearer ones before farther ones.

A voxel shows a front and a top. Side walls are seen edge-on and hide nothing; ceilings would hide everything and are
left out. No library for three dimensions is asked: each voxel is a stamp of pixels, put down from the back to the
front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.reports.pictures import NOTHING, Pixels, strip, there
from xmodal.reports.read import RunFiles

FRONT, EDGE = 0.82, 0.68  # how bright a front and the edges of a voxel are, a top being 1
WIDE = 120  # pixels of a room at least
HIDDEN = ("empty", "ceiling")


def scene_strips(run: RunFiles) -> dict[str, Any] | None:
    """Some rooms: as pictures, their voxels as labelled, and as networks complete them. None where a run has none.

    The file that ``result["scenes"]["file"]`` names holds ``pictures`` (samples, channels, height, width) from 0 to 255
    and ``depths`` (samples, height, width) in metres where there are any, ``labels`` (samples, D, H, W), ``maps``
    (names, samples, D, H, W) in the order of ``names``, the ``palette`` (classes, 3) and the names of the samples
    (``frames``). Voxels without a label are drawn nowhere.
    """
    found = run.result.get("scenes")
    if not found:
        return None
    with np.load(there(run, found["file"]), allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    names, palette, labels = found["class_names"], parts["palette"], parts["labels"]
    hidden = [number for number, name in enumerate(names) if name in HIDDEN]
    known = labels < len(names)
    text = f"frames {', '.join(map(str, parts['frames'].tolist()))}"
    strips = []
    if "pictures" in parts:
        strips.append(strip("colours", parts["pictures"].transpose(0, 2, 3, 1), text))
    if "depths" in parts:
        strips.append(strip("depth, near is bright", nearness(parts["depths"]), text))
    rooms = [("ground truth", labels), *zip(parts["names"].tolist(), parts["maps"], strict=True)]
    shown: set[int] = set()
    for name, volumes in rooms:
        seen = np.where(known, volumes, hidden[0])
        shown |= set(np.unique(seen).tolist())
        strips.append(strip(name, np.stack([drawn(room, palette, hidden=hidden) for room in seen]), text))
    legend = [
        {"name": names[number], "colour": "#" + bytes(palette[number].tolist()).hex()}
        for number in sorted(shown - set(hidden))
    ]
    return {"title": found["title"], "caption": found["caption"], "strips": strips, "legend": legend}


def drawn(room: NDArray[Any], palette: Pixels, *, hidden: Sequence[int] = (0,), side: int | None = None) -> Pixels:
    """A room as colours (height, width, 3).

    Args:
        room: class numbers (D, H, W): into the room, up, to the right.
        palette: (classes, 3).
        hidden: classes that are not drawn.
        side: pixels of a voxel's edge, an even number; None: so that a room is wide enough.

    Example:
        >>> palette = np.array([[0, 0, 0], [100, 200, 50]], np.uint8)
        >>> picture = drawn(np.ones((1, 1, 1), int), palette, side=2)
        >>> picture.shape, picture[0, 0].tolist(), picture[2, 0].tolist()
        ((3, 2, 3), [100, 200, 50], [82, 164, 41])
    """
    depth, height, width = room.shape
    side = side or max(2, 2 * -(-WIDE // (2 * width)))
    top = side // 2
    picture = np.empty((height * side + depth * top, width * side, 3), np.uint8)
    picture[:] = NOTHING
    d, h, w = np.nonzero(~np.isin(room, list(hidden)))
    order = np.lexsort((h, -d))  # from the back to the front, from below upwards
    d, h, w = d[order], h[order], w[order]
    # the front's upper left pixel; the top lies above it
    row = (height - 1 - h) * side + (depth - 1 - d) * top + top
    rows, columns = np.mgrid[-top:side, 0:side]
    bright = np.where(rows < 0, 1.0, FRONT)
    if side >= 6:  # smaller ones would be all edges
        bright[(columns == side - 1) | (rows == side - 1)] = EDGE
    at_row = row[:, None] + rows.ravel()
    at_column = w[:, None] * side + columns.ravel()
    colours = palette[room[d, h, w]][:, None, :] * bright.ravel()[None, :, None]
    picture[at_row, at_column] = np.round(colours).astype(np.uint8)
    return picture


def nearness(depths: NDArray[Any]) -> Pixels:
    """Depths (samples, height, width) as greys, near ones bright, missing ones dark."""
    near = np.where(depths > 0, depths, np.inf)
    nearest = max(float(near.min(initial=np.inf)), 1e-3)
    grey = np.round(255 * np.sqrt(np.clip(nearest / near, 0, 1))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)

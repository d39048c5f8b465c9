"""Pictures of rooms: voxels seen from the front and above, near ones in front of far ones.

A voxel shows its front and its top. Side walls are seen edge-on and hide nothing; ceilings would hide everything and
are omitted. No 3-D library is needed: each voxel is a block of pixels, drawn from the back to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.reports.figures.pictures import BACKGROUND, Pixels, legend, load_arrays, strip
from xmodal.reports.read import RunFiles

FRONT, EDGE = 0.82, 0.68  # brightness of the front and of the edges of a voxel; the top has 1
MIN_WIDTH = 120  # pixels of a room
HIDDEN = ("empty", "ceiling")


def scene_strips(run: RunFiles) -> dict[str, Any] | None:
    """Some rooms: pictures, labelled voxels, and the networks' predictions. None for a run without rooms.

    The file ``result["scenes"]["file"]`` contains, if there are any, ``pictures`` (samples, channels, height, width)
    from 0 to 255 and ``depths`` (samples, height, width) in metres; ``labels`` (samples, D, H, W), ``maps`` (names,
    samples, D, H, W) in the order of ``names``, the ``palette`` (classes, 3) and the names of the samples (``frames``).
    Unlabelled voxels are not drawn.
    """
    entry = run.result.get("scenes")
    if not entry:
        return None
    arrays = load_arrays(run, entry["file"])
    names, palette, labels = entry["class_names"], arrays["palette"], arrays["labels"]
    hidden = [number for number, name in enumerate(names) if name in HIDDEN]
    labelled = labels < len(names)
    text = f"frames {', '.join(map(str, arrays['frames'].tolist()))}"
    strips = []
    if "pictures" in arrays:
        strips.append(strip("colours", arrays["pictures"].transpose(0, 2, 3, 1), text))
    if "depths" in arrays:
        strips.append(strip("depth, near is bright", depth_greys(arrays["depths"]), text))
    shown: set[int] = set()
    for name, volumes in [("ground truth", labels), *zip(arrays["names"].tolist(), arrays["maps"], strict=True)]:
        # Predictions are hidden where labels are missing, so that all pictures show the same voxels.
        visible = np.where(labelled, volumes, hidden[0])
        shown |= set(np.unique(visible).tolist())
        strips.append(strip(name, np.stack([draw_room(room, palette, hidden=hidden) for room in visible]), text))
    return {
        "title": entry["title"],
        "caption": entry["caption"],
        "strips": strips,
        "legend": legend(names, palette, sorted(shown - set(hidden))),
    }


def draw_room(room: NDArray[Any], palette: Pixels, *, hidden: Sequence[int] = (0,), side: int | None = None) -> Pixels:
    """A room as a picture (height, width, 3).

    Args:
        room: class numbers (D, H, W): into the room, up, to the right.
        palette: (classes, 3).
        hidden: classes that are not drawn.
        side: pixels of a voxel's edge, an even number; None: chosen for a width of 120 pixels or more.

    Example:
        >>> palette = np.array([[0, 0, 0], [100, 200, 50]], np.uint8)
        >>> picture = draw_room(np.ones((1, 1, 1), int), palette, side=2)
        >>> picture.shape, picture[0, 0].tolist(), picture[2, 0].tolist()
        ((3, 2, 3), [100, 200, 50], [82, 164, 41])
    """
    depth, height, width = room.shape
    side = side or max(2, 2 * -(-MIN_WIDTH // (2 * width)))
    top = side // 2
    picture = np.empty((height * side + depth * top, width * side, 3), np.uint8)
    picture[:] = BACKGROUND
    d, h, w = np.nonzero(~np.isin(room, list(hidden)))
    # From the back to the front and from the bottom up: with repeated indices NumPy keeps the last assignment, so this
    # order hides what lies behind.
    order = np.lexsort((h, -d))
    d, h, w = d[order], h[order], w[order]
    row = (height - 1 - h) * side + (depth - 1 - d) * top + top  # upper row of the front; the top lies above it
    rows, columns = np.mgrid[-top:side, 0:side]
    brightness = np.where(rows < 0, 1.0, FRONT)
    # Edges separate voxels of one class; a voxel of fewer pixels would consist of edges.
    if side >= 6:
        brightness[(columns == side - 1) | (rows == side - 1)] = EDGE
    at_row = row[:, None] + rows.ravel()
    at_column = w[:, None] * side + columns.ravel()
    colours = palette[room[d, h, w]][:, None, :] * brightness.ravel()[None, :, None]
    picture[at_row, at_column] = np.round(colours).astype(np.uint8)
    return picture


def depth_greys(depths: NDArray[Any]) -> Pixels:
    """Depths (samples, height, width) as greys: near is bright, a missing depth (0) is dark."""
    # The root of the inverse depth: without the root, most of a room would be nearly black.
    distance = np.where(depths > 0, depths, np.inf)
    nearest = max(float(distance.min(initial=np.inf)), 1e-3)
    grey = np.round(255 * np.sqrt(np.clip(nearest / distance, 0, 1))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)

"""Pictures on the page: strips of small images, drawn from an .npz of the run folder and put inline as PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.reports.read import RunFiles

COLOURS = "magma"  # dark where nothing happens, in the light theme and in the dark one
Pixels = NDArray[np.uint8]


def heat_map_strips(run: RunFiles) -> dict[str, Any] | None:
    """The samples and their heat maps, one strip for each network; None where a run has none.

    The file that ``result["heat_maps"]["file"]`` names holds ``pictures`` (samples, channels, height, width) from 0 to
    255, ``labels`` (samples,) and ``maps`` (names, samples, height, width) from 0 to 1, in the order of ``names``.
    """
    found = run.result.get("heat_maps")
    if not found:
        return None
    path = run.path / found["file"]
    if not path.is_file():
        raise InputError(f"{path} is missing, which result.json names. Run it again or --resume.")
    with np.load(path, allow_pickle=False) as arrays:
        pictures, labels, maps = arrays["pictures"], arrays["labels"], arrays["maps"]
    digits = ", ".join(map(str, labels.tolist()))
    strips = [_strip(f"what the teacher sees ({found['modality']})", _coloured(pictures), f"samples of {digits}")]
    strips += [
        _strip(name, heated(values), f"heat maps of {digits}")
        for name, values in zip(found["names"], maps, strict=True)
    ]
    return {"title": found["title"], "caption": found["caption"], "strips": strips}


def heated(values: NDArray[Any]) -> Pixels:
    """Values from 0 to 1 (samples, height, width) as colours (samples, height, width, 3)."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps[COLOURS](np.clip(values, 0, 1))[..., :3]
    return np.round(255 * colours).astype(np.uint8)


def _coloured(pictures: NDArray[Any]) -> Pixels:
    """Pictures (samples, channels, height, width) as colours; grey ones three times."""
    colours = np.clip(np.round(pictures), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.repeat(colours, 3, axis=3) if colours.shape[3] == 1 else colours


def _strip(name: str, pictures: Pixels, text: str) -> dict[str, Any]:
    """Pictures side by side, one pixel apart."""
    from PIL import Image

    count, height, width, _ = pictures.shape
    line = np.full((height, count * (width + 1) - 1, 4), 0, np.uint8)
    for number, picture in enumerate(pictures):
        first = number * (width + 1)
        line[:, first : first + width] = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(line, "RGBA").save(file, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"name": name, "source": source, "width": line.shape[1], "height": height, "text": f"{name}: {text}"}

"""Pictures on the page: strips of small images, drawn from an .npz of the run folder and put inline as PNG.

Strips of heat maps show where a network looks, strips of classes what it says of every pixel.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.reports.read import RunFiles

COLOURS = "magma"  # dark where nothing happens, in the light theme and in the dark one
Pixels = NDArray[np.uint8]
NOTHING = (24, 26, 30)  # where nothing is known, dark in both themes
RIGHT_OR_WRONG = np.array([(70, 130, 200), (240, 130, 60)], np.uint8)


def heat_map_strips(run: RunFiles) -> dict[str, Any] | None:
    """The samples and their heat maps, one strip for each network; None where a run has none.

    The file that ``result["heat_maps"]["file"]`` names holds ``pictures`` (samples, channels, height, width) from 0 to
    255, ``labels`` (samples,) and ``maps`` (names, samples, height, width) from 0 to 1, in the order of ``names``.
    """
    found = run.result.get("heat_maps")
    if not found:
        return None
    with np.load(there(run, found["file"]), allow_pickle=False) as arrays:
        pictures, labels, maps = arrays["pictures"], arrays["labels"], arrays["maps"]
    digits = ", ".join(map(str, labels.tolist()))
    strips = [strip(f"what the teacher sees ({found['modality']})", _coloured(pictures), f"samples of {digits}")]
    strips += [
        strip(name, heated(values), f"heat maps of {digits}") for name, values in zip(found["names"], maps, strict=True)
    ]
    return {"title": found["title"], "caption": found["caption"], "strips": strips, "legend": []}


def class_map_strips(run: RunFiles) -> dict[str, Any] | None:
    """Some samples with a class for every pixel: as a picture, their labels, what networks say and where they err.

    The file that ``result["class_maps"]["file"]`` names holds ``pictures`` (samples, channels, height, width) from 0 to
    255, ``labels`` (samples, height, width), ``maps`` (names, samples, height, width) in the order of ``names``, the
    ``palette`` (classes, 3), the names of the samples (``frames``) and, where only some pixels were measured, which
    (``seen``). None where a run has none.
    """
    found = run.result.get("class_maps")
    if not found:
        return None
    with np.load(there(run, found["file"]), allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    labels, palette, names = parts["labels"], parts["palette"], parts["names"].tolist()
    known = labels != found["ignore"]
    text = f"frames {', '.join(map(str, parts['frames'].tolist()))}"
    strips = [strip(found["picture"], _coloured(parts["pictures"]), text)]
    strips.append(strip("labels", _where(palette[labels], known), text))
    for name, said in zip(names, parts["maps"], strict=True):
        strips.append(strip(name, palette[said], text))
        strips.append(strip(f"{name}, errors", _where(RIGHT_OR_WRONG[(said != labels).astype(int)], known), text))
    shown = np.unique(np.concatenate([labels[known], parts["maps"].ravel()]))
    legend = [
        {"name": found["class_names"][number], "colour": "#" + bytes(palette[number].tolist()).hex()}
        for number in shown.tolist()
    ]
    return {"title": found["title"], "caption": found["caption"], "strips": strips, "legend": legend}


def _where(pictures: Pixels, mask: NDArray[Any]) -> Pixels:
    """Pictures (samples, height, width, 3), dark where the mask is False."""
    return np.where(mask[..., None], pictures, np.array(NOTHING, np.uint8)).astype(np.uint8)


def there(run: RunFiles, name: str) -> Path:
    """A file of the run folder that must be there."""
    path = run.path / name
    if not path.is_file():
        raise InputError(f"{path} is missing, which result.json names. Run it again or --resume.")
    return path


def heated(values: NDArray[Any]) -> Pixels:
    """Values from 0 to 1 (samples, height, width) as colours (samples, height, width, 3)."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps[COLOURS](np.clip(values, 0, 1))[..., :3]
    return np.round(255 * colours).astype(np.uint8)


def _coloured(pictures: NDArray[Any]) -> Pixels:
    """Pictures (samples, channels, height, width) as colours; grey ones three times."""
    colours = np.clip(np.round(pictures), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.repeat(colours, 3, axis=3) if colours.shape[3] == 1 else colours


def strip(name: str, pictures: Pixels, text: str) -> dict[str, Any]:
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

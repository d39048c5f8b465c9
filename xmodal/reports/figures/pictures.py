"""Pictures on the page: strips of small images, from an .npz file of the run folder, embedded as PNG.

Strips of heat maps show which positions a network depends on, strips of class maps its prediction at every pixel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.reports.read import RunFiles

Pixels = NDArray[np.uint8]
# Both are dark at their zero, which reads as "nothing" on the light page and on the dark one. Heat goes from black over
# purple and orange to nearly white, and each step is brighter than the one before.
HEAT = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], float)
BACKGROUND = (24, 26, 30)
RIGHT_OR_WRONG = np.array([(70, 130, 200), (240, 130, 60)], np.uint8)


def heat_map_strips(run: RunFiles) -> dict[str, Any] | None:
    """The samples and their heat maps, one strip for each network; None for a run without heat maps.

    The file ``result["heat_maps"]["file"]`` contains ``pictures`` (samples, channels, height, width) from 0 to 255,
    ``labels`` (samples,) and ``maps`` (names, samples, height, width) from 0 to 1, in the order of ``names``.
    """
    entry = run.result.get("heat_maps")
    if not entry:
        return None
    arrays = load_arrays(run, entry["file"])
    digits = ", ".join(map(str, arrays["labels"].tolist()))
    strips = [strip(f"teacher's input ({entry['modality']})", _rgb(arrays["pictures"]), f"samples of {digits}")]
    strips += [
        strip(name, heat_colours(values), f"heat maps of {digits}")
        for name, values in zip(entry["names"], arrays["maps"], strict=True)
    ]
    return {"title": entry["title"], "caption": entry["caption"], "strips": strips, "legend": []}


def class_map_strips(run: RunFiles) -> dict[str, Any] | None:
    """Some samples of dense data: the picture, the labels, each network's predictions and its errors.

    The file ``result["class_maps"]["file"]`` contains ``pictures`` (samples, channels, height, width) from 0 to 255,
    ``labels`` (samples, height, width), ``maps`` (names, samples, height, width) in the order of ``names``, the
    ``palette`` (classes, 3), the names of the samples (``frames``) and, if only some pixels were measured, their mask
    (``seen``). None for a run without class maps.
    """
    entry = run.result.get("class_maps")
    if not entry:
        return None
    arrays = load_arrays(run, entry["file"])
    labels, palette, names = arrays["labels"], arrays["palette"], arrays["names"].tolist()
    labelled = labels != entry["ignore"]
    text = f"frames {', '.join(map(str, arrays['frames'].tolist()))}"
    strips = [strip(entry["picture"], _rgb(arrays["pictures"]), text)]
    strips.append(strip("labels", _masked(palette[labels], labelled), text))
    for name, predictions in zip(names, arrays["maps"], strict=True):
        strips.append(strip(name, palette[predictions], text))
        errors = RIGHT_OR_WRONG[(predictions != labels).astype(int)]
        strips.append(strip(f"{name}, errors", _masked(errors, labelled), text))
    shown = np.unique(np.concatenate([labels[labelled], arrays["maps"].ravel()])).tolist()
    return {
        "title": entry["title"],
        "caption": entry["caption"],
        "strips": strips,
        "legend": legend(entry["class_names"], palette, shown),
    }


def load_arrays(run: RunFiles, name: str) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file of the run folder."""
    path = run.path / name
    if not path.is_file():
        raise InputError(
            f"{path} is missing, but result.json refers to it. Run it again, or continue it with --resume."
        )
    # Without pickle, because a run folder may come from somebody else, and unpickling can run code.
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def legend(names: Sequence[str], palette: Pixels, classes: Iterable[int]) -> list[dict[str, str]]:
    """Name and colour of some classes."""
    return [{"name": names[number], "colour": "#" + bytes(palette[number].tolist()).hex()} for number in classes]


def heat_colours(values: NDArray[Any]) -> Pixels:
    """Values from 0 to 1 (samples, height, width) as colours (samples, height, width, 3)."""
    places = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(values, places, channel) for channel in HEAT.T], axis=-1)
    return np.round(colours).astype(np.uint8)


def strip(name: str, pictures: Pixels, text: str) -> dict[str, Any]:
    """Pictures (samples, height, width, 3) next to each other, one pixel apart."""
    from PIL import Image

    count, height, width, _ = pictures.shape
    # The gaps are transparent, because the page has a light and a dark background.
    row = np.full((height, count * (width + 1) - 1, 4), 0, np.uint8)
    for number, picture in enumerate(pictures):
        first = number * (width + 1)
        row[:, first : first + width] = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(row, "RGBA").save(file, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"name": name, "source": source, "width": row.shape[1], "height": height, "text": f"{name}: {text}"}


def _rgb(pictures: NDArray[Any]) -> Pixels:
    """Pictures (samples, channels, height, width) as RGB (samples, height, width, 3); a single channel becomes grey."""
    colours = np.clip(np.round(pictures), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.repeat(colours, 3, axis=3) if colours.shape[3] == 1 else colours


def _masked(pictures: Pixels, mask: NDArray[Any]) -> Pixels:
    """Pictures (samples, height, width, 3) with the background where the mask is False."""
    return np.where(mask[..., None], pictures, np.array(BACKGROUND, np.uint8)).astype(np.uint8)

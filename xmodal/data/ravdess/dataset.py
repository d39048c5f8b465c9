"""RAVDESS: recognise the emotion of 24 actors from sound or from a picture, in the layout that the authors' code reads.

    ravdess_root/
    ├── aud_features/<name>.npy           a float array per clip, nominally (40, 256)
    ├── vid_features/<name>.png or .jpg   a colour picture per clip, nominally 256 high and 512 wide; without this
    │                                     folder the sound alone is read
    └── data_file/spa_dl.csv              training clips: audio file, image file, label; with or without a header line
                  spa_val.csv  spa_test.csv

    audio  (1, 40, 256)  (x - mean) / std, both of the training split, or those of the published features
    image  (3, 256, 512) stored as 0 to 255, given to networks as (x / 255 - mean) / std with ImageNet's mean and std

`xmodal.data.ravdess.files` writes this layout from the archive's wav and mp4 files; `xmodal.data.ravdess.synthetic`
writes synthetic recordings. Arrays and pictures are read when a batch needs them and cached if they fit into memory.

Livingstone and Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS ONE 2018. The layout: Xue et
al.: The Modality Focusing Hypothesis, ICLR 2023, authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.columns import ArrayFolder
from xmodal.data.ravdess.check import DAMAGED, Contents, inspect
from xmodal.data.ravdess.files import FILES
from xmodal.data.ravdess.names import EMOTIONS, actor_of
from xmodal.data.request import DataRequest
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data

# Mean and standard deviation that the authors' loader hard-codes; features made by other means have other statistics.
PUBLISHED = (-10.59, 85.66)
# Mean and standard deviation of ImageNet per colour, for values from 0 to 1, as in the authors' loader.
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class RavdessSettings(BaseModel):
    """Options of RAVDESS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="folder with aud_features, vid_features and data_file")
    statistics: Literal["training", "published"] = Field(
        "training",
        description="how audio is standardised: training, by the training split; published, by -10.59 and 85.66",
    )
    header: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="whether the lists begin with a header line: auto detects it; yes drops the first line in any case",
    )
    swap_columns: bool = Field(
        False, description="exchange frames 0 and 2 of each audio feature, as the authors' code does"
    )
    allow_overlap: bool = Field(False, description="accept clips that several lists name, with a warning")
    as_published: bool = Field(
        False, description="as in the authors' code: published statistics, --header yes and --swap-columns"
    )

    @model_validator(mode="after")
    def _published(self) -> RavdessSettings:
        if self.as_published:
            for name, value in (("statistics", "published"), ("header", "yes"), ("swap_columns", True)):
                object.__setattr__(self, name, value)
        return self


class Features:
    """The audio features (n, 1, coefficients, frames), a file per clip."""

    def __init__(self, files: Sequence[Path], *, swap_columns: bool) -> None:
        # one type for all: the first file may hold integers, and others fractions
        self.column = ArrayFolder(files[0].parent, files, dtype=np.dtype(np.float32))
        self.swap_columns = swap_columns
        self.shape = (len(files), 1, *self.column.shape[1:])
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        features = self.column[np.arange(len(self.column))[rows]]
        # Left over from the BGR → RGB swap of pictures: the authors' loader also exchanges these columns of the audio.
        if self.swap_columns:
            order = np.arange(self.shape[-1])
            order[[0, 2]] = 2, 0
            features = features[..., order]
        return features[:, None]


class Pictures:
    """Colour pictures (n, 3, height, width), a file per clip, decoded when they are indexed."""

    def __init__(self, files: Sequence[Path], size: tuple[int, ...]) -> None:
        self.files = list(files)
        self.shape = (len(self.files), 3, *size)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        numbers = np.arange(len(self.files))[rows]
        pictures = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for place, number in enumerate(numbers.tolist()):
            pictures[place] = self._read(self.files[number])
        return pictures

    def _read(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
        except DAMAGED as error:
            raise InputError(f"{path} cannot be read as a picture ({error}).") from None
        if pixels.shape != self.shape[1:]:
            raise InputError(f"{path} has the shape {pixels.shape}: {self.shape[1:]} was expected, as for the others.")
        return pixels


def load(root: str, settings: RavdessSettings, request: DataRequest) -> Data:
    """The three splits that the lists name; ``groups`` holds the actors.

    Args:
        root: the folder.
        settings: statistics, header, and what the authors' code does.
        request: task ``multiclass``; the lists name the splits, so the seed draws none of them.
    """
    from xmodal.data.base import assemble
    from xmodal.types import Normalisation

    request.check_task("ravdess", "multiclass")
    contents = inspect(Path(root), header=settings.header, allow_overlap=settings.allow_overlap)
    contents.report.stop_on_errors()
    if settings.swap_columns and contents.audio[1] < 3:
        raise InputError(f"The audio features have {contents.audio[1]} frames: 3 are needed to exchange 0 and 2.")
    every = [row for split in FILES for row in contents.rows[split]]
    ends = np.cumsum([0, *(len(contents.rows[split]) for split in FILES)])
    mean, std = (np.array(part)[:, None, None] * 255 for part in COLOURS)
    audio = Normalisation(*([[[number]]] for number in PUBLISHED))
    columns: dict[str, Features | Pictures] = {
        "audio": Features([row.audio for row in every], swap_columns=settings.swap_columns)
    }
    # without their folder no row has a picture
    if pictures := [row.image for row in every if row.image is not None]:
        columns["image"] = Pictures(pictures, contents.image)
    normalise = {
        "audio": audio if settings.statistics == "published" else "standard",
        "image": Normalisation(mean.tolist(), std.tolist()),
    }
    data = assemble(
        columns,
        dict.fromkeys(columns, np.array([row.label for row in every])),
        {split: dict.fromkeys(columns, np.arange(ends[place], ends[place + 1])) for place, split in enumerate(FILES)},
        normalise={name: normalise[name] for name in columns},
        layouts=dict.fromkeys(columns, "image"),
        class_names=EMOTIONS,
        request=request,
        groups=np.array([actor_of(row.name) for row in every]),
    )
    data.warnings.extend([_header_warning(contents, settings.header), *contents.report.warnings])
    return data


def _header_warning(contents: Contents, option: str) -> str:
    """A warning that says whether the lists begin with a header line."""
    with_header = [FILES[split] for split, header in contents.headers.items() if header]
    without_header = [FILES[split] for split, header in contents.headers.items() if not header]
    # Always reported: with a wrong guess a sample is lost, and the authors' code drops the first line in any case.
    if option != "auto":
        use = "dropped" if with_header else "read as a sample"
        return f"The first line of {', '.join(FILES.values())} is {use}, as the option header requests."
    if not with_header:
        return f"{', '.join(without_header)} have no header line; the authors' code would drop their first sample."
    exceptions = f", {', '.join(without_header)} do not" if without_header else ""
    return f"{', '.join(with_header)} begin with a header line{exceptions}."

"""VGGSound: classify the event in clips of ten seconds, from sound or video; prepared as for the authors' code, or raw.

    vggsound_root/
    ├── train/video_jpg/<clip>.jpg    32 frames of 256x256, stacked vertically: 256 wide and 8192 high
    │         audio_npy/<clip>.npy    (1, samples) at 16 kHz
    ├── test/ video_jpg/<clip>.jpg
    │         audio/<clip>.wav        16 kHz, one channel, floats
    └── label.json                    {class: index}; the class is part of the clip's name, …_<class>_<anything>

The folders may be called Train and Test, the file label_tiny.json, and both splits may lie anywhere (``train`` and
``test`` name their folders).

    raw_root/
    ├── vggsound.csv                  video id, start second, label, split; or train.csv and test.csv
    └── <anywhere>/<video id>_<start second, six digits>.mp4

    audio  (1, 513, 313)        magnitudes of a spectrogram, see `xmodal.data.media.spectrogram`
    video  (32, 3, 256, 256)    stored as 0 to 255, given to networks as (x / 255 - mean) / std with ImageNet's values

``video_npy/<clip>.npy`` (frames, side, side, 3) may replace the tall pictures, and both forms of sound are allowed in
both splits. `data.vggsound.files` writes the first folder from the second, `data.vggsound.synthetic` synthetic clips.

Chen et al.: VGGSound: a large-scale audio-visual dataset, ICASSP 2020, arXiv 2004.14368. The layout: Xue et al.: The
Modality Focusing Hypothesis, ICLR 2023, authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.media.spectrogram import HOP, WINDOW
from xmodal.data.request import DataRequest
from xmodal.data.vggsound.clips import Frames, Spectrograms
from xmodal.data.vggsound.contents import Contents, Row, inspect_prepared, inspect_raw, is_prepared
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data

MODALITIES = ("audio", "video")
# Mean and standard deviation of ImageNet per colour, for values from 0 to 1, as in the authors' loader.
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VggsoundSettings(BaseModel):
    """Options of VGGSound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="prepared folder, or a folder with raw clips and their list")
    train: Path | None = Field(None, description="folder of the training clips, if it is not in the root")
    test: Path | None = Field(None, description="folder of the test clips, if it is not in the root")
    classes: str = Field(
        "",
        description="a file with a class on each line; a number, to take the first in alphabetical order; empty: all",
    )
    seconds: float | None = Field(
        None, ge=0.1, le=3600, description="length of a clip; None: as prepared, 10 for raw clips"
    )
    frames: int | None = Field(None, ge=1, description="frames of a clip; None: as prepared, 32 for raw clips")
    size: int | None = Field(
        None, ge=8, description="width and height of a frame; None: as prepared, 256 for raw clips"
    )
    window: int = Field(WINDOW, ge=16, description="length of the window of the spectrogram, in samples")
    hop: int = Field(HOP, ge=1, description="distance between windows, in samples")
    short: Literal["stretch", "pad"] = Field(
        "stretch",
        description="what happens to clips that are too short: stretch their spectrograms in time, or pad with silence",
    )
    random_frames: bool = Field(
        False, description="in training, take each frame from a random time within its part of the clip"
    )
    mirror: bool = Field(False, description="in training, flip half of the clips horizontally")
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training clips of each class that are held out to choose the epoch"
    )
    valid_seed: int = Field(
        0,
        ge=0,
        description="seed of that draw; independent of the run's seed, so that all runs hold out the same clips",
    )
    valid_is_test: bool = Field(False, description="choose the epoch on the test clips, as the authors' code does")
    labels: Path | None = Field(
        None,
        description="for prepared folders, the file with the index of each class; None: label.json or label_tiny.json",
    )
    listing: Path | None = Field(
        None, description="for raw clips, the list; None: vggsound.csv, or train.csv and test.csv"
    )
    most: int = Field(0, ge=0, description="for raw clips, the maximum number of each class and split; 0: all")
    probe: bool = Field(
        True, description="for raw clips, read the header of each file and skip files that cannot be read"
    )
    as_published: bool = Field(False, description="as in the authors' code: --valid-is-test")

    @property
    def rootless(self) -> bool:
        """Whether both splits are named, so that no root is needed."""
        return self.train is not None and self.test is not None

    @property
    def parts(self) -> dict[str, Path]:
        """Split → its folder, of the splits that are not read from the root."""
        return {split: path for split, path in (("train", self.train), ("test", self.test)) if path is not None}

    @model_validator(mode="after")
    def _absolute(self) -> VggsoundSettings:
        # a run must find its data again from another working directory
        for split, path in self.parts.items():
            object.__setattr__(self, split, path.absolute())
        return self

    @model_validator(mode="after")
    def _published(self) -> VggsoundSettings:
        if self.as_published:
            object.__setattr__(self, "valid_is_test", True)
        return self


def load(root: str | None, settings: VggsoundSettings, request: DataRequest) -> Data:
    """Three splits; ``groups`` numbers the videos that clips were cut from.

    Args:
        root: the folder; None: the settings name the folders of both splits.
        settings: which clips, what of them is shown, and who chooses the epoch.
        request: task ``multiclass``; the seed draws frames and mirroring in training.
    """
    from xmodal.data.base import assemble
    from xmodal.types import Normalisation

    request.check_task("vggsound", "multiclass")
    contents = _contents(None if root is None else Path(root), settings)
    contents.report.stop_on_errors()
    rows, labels = contents.rows, np.array([row.label for row in contents.rows])
    seconds = settings.seconds or contents.seconds
    frames = settings.frames or contents.frames
    random_frames = settings.random_frames and not (contents.prepared and frames == contents.frames)
    if settings.random_frames and not random_frames:
        contents.report.warnings.append(
            f"All {frames} stored frames are shown: random_frames has nothing to choose from."
        )
    mean, std = (np.array(part)[:, None, None] * 255 for part in COLOURS)
    data = assemble(
        {
            "audio": Spectrograms(
                [row.audio for row in rows],
                seconds=seconds,
                window=settings.window,
                hop=settings.hop,
                short=settings.short,
            ),
            "video": Frames(
                [row.video for row in rows],
                frames=frames,
                size=settings.size or contents.size,
                seconds=seconds,
                random_frames=random_frames,
                mirror=settings.mirror,
                seed=request.seed,
            ),
        },
        dict.fromkeys(MODALITIES, labels),
        {split: dict.fromkeys(MODALITIES, numbers) for split, numbers in split_rows(rows, settings).items()},
        normalise={"video": Normalisation(mean.tolist(), std.tolist())},
        layouts={"audio": "image"},
        class_names=tuple(contents.class_names),
        request=request,
        groups=np.unique([row.source for row in rows], return_inverse=True)[1],
    )
    data.warnings += contents.report.warnings
    if settings.valid_is_test:
        data.warnings.append(
            "The test clips choose the epoch, as published: test figures are too good by an unknown amount."
        )
    return data


def _contents(root: Path | None, settings: VggsoundSettings) -> Contents:
    """The clips of the folder. Raises an `InputError` if the options do not suit its kind."""
    # folders of single splits exist in the layout of prepared files alone
    prepared = root is None or bool(settings.parts) or is_prepared(root)
    options = {"listing": settings.listing, "most": settings.most} if prepared else {"labels": settings.labels}
    problems = [
        f"{root or settings.train} holds {'prepared files' if prepared else 'raw clips'}: {name} is no option for "
        "these. Leave it out."
        for name, value in options.items()
        if value
    ]
    if settings.hop > settings.window:
        problems.append(f"hop is {settings.hop} and window is {settings.window}: a hop of at most window was expected.")
    if problems:
        raise InputError(problems)
    if root is not None and not prepared:
        return inspect_raw(
            root, listing=settings.listing, classes=settings.classes, most=settings.most, probe=settings.probe
        )
    contents = inspect_prepared(root, parts=settings.parts, labels=settings.labels, classes=settings.classes)
    if settings.frames and settings.frames > contents.frames:
        contents.report.errors.append(
            f"frames is {settings.frames}, and {contents.frames} of each clip are stored: at most as many were "
            "expected. Use fewer, or prepare the clips again."
        )
    return contents


def split_rows(rows: Sequence[Row], settings: VggsoundSettings) -> dict[str, NDArray[np.int64]]:
    """Rows of the three splits; validation clips are held out of the training clips, class by class.

    All clips of a video stay on the same side: they share scene and sound, and would make validation too easy.
    """
    test = np.array([row.split == "test" for row in rows])
    if settings.valid_is_test:
        return {"train": np.flatnonzero(~test), "valid": np.flatnonzero(test), "test": np.flatnonzero(test)}
    videos: dict[int, dict[str, None]] = {}
    for row in rows:
        if row.split == "train":
            videos.setdefault(row.label, {})[row.source] = None
    random, valid_videos = np.random.default_rng(settings.valid_seed), set[str]()
    for label in sorted(videos):
        # Sorted: the draw must not depend on the order of the list.
        names = sorted(videos[label])
        count = min(max(1, round(settings.valid_share * len(names))), len(names) - 1)
        valid_videos |= {names[number] for number in random.permutation(len(names))[:count].tolist()}
    valid = np.array([row.split == "train" and row.source in valid_videos for row in rows])
    if not valid.any() or not (~valid & ~test).any():
        raise InputError(
            f"{int((~test).sum())} training clips are too few to hold some out for choosing the epoch: two of a class "
            "were expected. Add clips, or give --vggsound.valid-is-test."
        )
    return {"train": np.flatnonzero(~valid & ~test), "valid": np.flatnonzero(valid), "test": np.flatnonzero(test)}

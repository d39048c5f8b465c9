"""SemanticKITTI: what every point of a LiDAR is, drives through a city, and what a camera saw of them.

    semantic_kitti_root/sequences/00 … 21/
        velodyne/000000.bin    points: x, y, z, remission (float32)
        labels/000000.label    class and instance of each point (32 bits)
        image_2/000000.png     picture of the left colour camera
        calib.txt              how the scanner stands to the camera

    lidar  (5, H, W)  range, x, y, z, remission of the points at their pixels; (value - mean) / std, 0 between them
    image  (3, H, W)  the camera's picture, divided by 255
    target (H, W)     the class of each point, 0 (unlabeled) where nobody knows; 20 classes

Points are drawn into the camera's picture (*perspective view*), so the pixels of both modalities show the same things;
or, for LiDAR alone, into a picture of all directions (*range view*). `files.py` beside this file reads the files,
`crop.py` cuts them to what the camera sees, and `synthetic.py` makes synthetic drives with a ray-caster.

Behley et al.: SemanticKITTI, ICCV 2019, arXiv 1904.01416. The perspective view: Zhuang et al., ICCV 2021, arXiv
2106.15277. Options and sizes: authors' code of arXiv 2409.02438.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.semantic_kitti.classes import CLASSES, IGNORE, shares
from xmodal.data.semantic_kitti.files import Contents, Frame, inspect, parse_sequences
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.semantic_kitti.split import Canvas
    from xmodal.types import Normalisation

MODALITIES = ("lidar", "image")
MEAN = (12.12, 10.88, 0.23, -1.04, 0.21)  # of range, x, y, z and remission, as published
STD = (12.32, 11.47, 6.91, 0.86, 0.16)
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of ImageNet, for values from 0 to 1
LABEL_LOSSES = {"focal": 1.0, "lovasz": 1.0}
MULTIPLE = 16  # as in `xmodal.data.semantic_kitti.split`, which would bring torch into every help text
TRAINING, WHOLE, PADDING = (256, 1024), (384, 1232), (7, 3)  # published: samples of training, of evaluation, borders
Side = int | None


class SemanticKittiSettings(BaseModel):
    """Options of SemanticKITTI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="folder with sequences, or that folder")
    modalities: tuple[Literal["lidar", "image"], ...] = Field(
        (), description="lidar, image; empty: both, in the range view lidar"
    )
    view: Literal["perspective", "range"] = Field(
        "perspective", description="the camera's picture (perspective), or all directions, LiDAR alone (range)"
    )
    train: str = Field("0-7,9,10", description="sequences to train on; those that are missing are left out")
    valid: str = Field(
        "", description="sequences that choose the epoch; empty: the last frames of each training sequence"
    )
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="share of each training sequence that chooses the epoch, where valid is empty"
    )
    test: str = Field("8", description="sequences to test on")
    duplicates: Literal["nearest", "file"] = Field(
        "nearest", description="which of several points of a pixel is seen: the nearest, or the last one of the file"
    )
    x_min: float = Field(0.0, ge=0, description="points lie farther in front of the scanner than this, in metres")
    behind: bool = Field(
        False,
        description="keep points behind the camera, which are mirrored into the picture, as in the published code",
    )
    height: Side = Field(
        None, ge=MULTIPLE, description="of a whole sample, a multiple of 16; None: 384, or what fits to small pictures"
    )
    width: Side = Field(
        None, ge=MULTIPLE, description="of a whole sample, a multiple of 16; None: 1232, or what fits to small pictures"
    )
    train_height: Side = Field(
        None, ge=MULTIPLE, description="of a training sample; None: 256, or two thirds of small pictures"
    )
    train_width: Side = Field(
        None, ge=MULTIPLE, description="of a training sample; None: 1024, or four fifths of small pictures"
    )
    pad_rows: Side = Field(
        None,
        ge=0,
        description="empty rows at the top and at the bottom of a sample; None: 7, or none with small pictures",
    )
    pad_cols: Side = Field(
        None,
        ge=0,
        description="empty columns on the left and on the right of a sample; None: 3, or none with small pictures",
    )
    augment: bool = Field(
        True, description="mirror, turn, cut and recolour training frames; without it they are shown as they are tested"
    )
    flip: float = Field(0.5, ge=0, le=1, description="share of the training frames that are mirrored")
    rotate: float = Field(
        15.0, ge=0, le=180, description="largest rotation of training frames to either side, in degrees"
    )
    brightness: float = Field(0.4, ge=0, description="largest change of the factor of brightness in training")
    contrast: float = Field(0.4, ge=0, description="largest change of the factor of contrast in training")
    saturation: float = Field(0.4, ge=0, description="largest change of the factor of saturation in training")
    points: bool = Field(False, description="mirror, move and turn training clouds; range view")
    range_height: int = Field(64, ge=MULTIPLE, description="rows of the range view, a multiple of 16")
    range_width: int = Field(512, ge=MULTIPLE, description="columns of the range view, a multiple of 16")
    fov_up: float = Field(3.0, description="upper end of the range view, in degrees")
    fov_down: float = Field(-25.0, description="lower end of the range view, in degrees")
    fov_left: float = Field(-45.0, description="left end of the range view, in degrees")
    fov_right: float = Field(45.0, description="right end of the range view, in degrees")
    lose_first: bool = Field(
        False, description="leave out the first point of each file, as in the published code; range view"
    )
    image_statistics: Literal["none", "imagenet"] = Field(
        "none", description="none: pictures are divided by 255; imagenet: its mean and deviation per colour as well"
    )
    weights: Literal["published", "equal"] = Field(
        "published", description="how much classes count: published, rare ones more; equal"
    )
    cache: Path | None = Field(
        None,
        description="folder for projected points, so that they are projected once; 32 bytes for each point of a "
        "picture",
    )
    cache_pictures: bool = Field(False, description="put decoded pictures there as well, 3 bytes for each pixel")
    keep_mb: int = Field(256, ge=0, description="memory of each process for frames that were read, in megabytes")
    as_published: bool = Field(
        False, description="as in the authors' code: --duplicates file, --behind, --lose-first, --valid 8"
    )

    @model_validator(mode="after")
    def _published(self) -> SemanticKittiSettings:
        if self.as_published:
            published = {"duplicates": "file", "behind": True, "lose_first": True, "valid": self.valid or "8"}
            for name, value in published.items():
                object.__setattr__(self, name, value)
        return self

    @model_validator(mode="after")
    def _of_one_view(self) -> SemanticKittiSettings:
        for name in ("height", "width", "train_height", "train_width", "range_height", "range_width"):
            side = getattr(self, name)
            if side is not None and side % MULTIPLE:
                raise ValueError(f"{name} is {side}: a multiple of {MULTIPLE} was expected.")
        if self.view == "range" and "image" in self.modalities:
            raise ValueError("the range view shows LiDAR alone, and image was asked for. Use the perspective view.")
        if self.view == "perspective" and self.points:
            raise ValueError("points would move away from their pixels in the picture. Use points with --view range.")
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities in a fixed order."""
        known = MODALITIES if self.view == "perspective" else MODALITIES[:1]
        return tuple(name for name in known if name in (self.modalities or known))


def load(
    root: str,
    settings: SemanticKittiSettings,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits; ``groups`` holds the sequence of each frame, ``ids`` their names.

    Args:
        root: the folder.
        settings: which frames, and how they are drawn.
        task: empty or ``multiclass``.
        train_fraction: share of the training frames to keep.
        augment: empty; frames have augmentations of their own, which are options.
        seed: of the train fraction and of what is drawn in training.
    """
    from xmodal.data.base import DENSE_SELECT, Data, keep_fraction
    from xmodal.data.semantic_kitti.augment import check_window
    from xmodal.data.semantic_kitti.frames import Frames
    from xmodal.data.semantic_kitti.split import CHANNELS, FrameSplit
    from xmodal.types import DataInfo, InputInfo

    if task not in ("", "multiclass"):
        raise InputError(f"SemanticKITTI has the task multiclass; {task} was asked for. Leave the task out.")
    if augment:
        raise InputError(
            f"The augmentation '{augment}' would leave the classes of pixels behind. Use the options of semantic-kitti "
            "(flip, rotate, brightness, contrast, saturation), or leave it out."
        )
    contents, frames, rows = _found(Path(root), settings)
    whole, training = canvases(settings, [size for size in contents.sizes.values()])
    every = Frames(
        frames,
        contents.matrices,
        rules_of(settings),
        cache=settings.cache,
        cache_pictures=settings.cache_pictures,
        keep_bytes=settings.keep_mb * 2**20,
    )
    if train_fraction != 1.0:
        rows["train"] = keep_fraction(rows["train"], np.zeros(len(frames), np.int64), train_fraction, seed)
    if _augmentation(settings) is not None:
        for number in {frames[row].sequence for row in rows["train"].tolist()}:
            check_window(contents.sizes[number], training.window)
    statistics = statistics_of(settings)
    splits = {
        split: FrameSplit(
            every,
            numbers,
            modalities=settings.wanted,
            canvas=whole,
            training=training,
            augmentation=_augmentation(settings) if split == "train" else None,
            points=_point_augmentation(settings) if split == "train" else None,
            normalisation=statistics,
            seed=seed,
        )
        for split, numbers in rows.items()
    }
    info = DataInfo(
        inputs={
            name: InputInfo((CHANNELS[name], whole.height, whole.width), layout="image") for name in settings.wanted
        },
        task="multiclass",
        classes=len(CLASSES),
        rows={split: found.rows for split, found in splits.items()},
        select=DENSE_SELECT,
        class_names=CLASSES,
        dense=True,
        ignore=IGNORE,
        label_losses=LABEL_LOSSES,
        class_weights=class_weights() if settings.weights == "published" else (),
        normalisation=statistics,
    )
    data = Data(splits["train"], splits["valid"], splits["test"], info)
    data.groups = np.array([frame.sequence for frame in frames])
    data.ids = [frame.id for frame in frames]
    data.warnings += [*contents.report.warnings, *_warnings(frames, rows)]
    return data


def class_weights() -> tuple[float, ...]:
    """α of the focal loss, from the published shares of the classes.

    Example:
        >>> [round(weight, 5) for weight in class_weights()[:3]]
        [0.0, 0.46205, 0.98301]
    """
    return _rarity(shares())


def _rarity(found: Sequence[float]) -> tuple[float, ...]:
    """As `xmodal.losses.segmentation.rarity` has it; a loader imports no losses."""
    factors = np.log1p(1 / (np.array(found) + 0.001))
    factors[IGNORE] = 0.0
    return tuple((factors / factors.max()).tolist())


def statistics_of(settings: SemanticKittiSettings) -> dict[str, Normalisation]:
    """Input → mean and deviation, as published."""
    from xmodal.types import Normalisation

    colours = COLOURS if settings.image_statistics == "imagenet" else ((0.0,), (1.0,))
    mean, std = ([[[255 * number]] for number in part] for part in colours)
    lidar = Normalisation([[[number]] for number in MEAN], [[[number]] for number in STD], empty=True)
    return {name: {"lidar": lidar, "image": Normalisation(mean, std)}[name] for name in settings.wanted}


def rules_of(settings: SemanticKittiSettings) -> Any:
    """How points come into a picture."""
    from xmodal.data.semantic_kitti.frames import Rules

    return Rules(
        view=settings.view,
        duplicates=settings.duplicates,
        x_min=settings.x_min,
        behind=settings.behind,
        height=settings.range_height,
        width=settings.range_width,
        field=(settings.fov_up, settings.fov_down, settings.fov_left, settings.fov_right),
        lose_first=settings.lose_first,
    )


def canvases(settings: SemanticKittiSettings, sizes: Sequence[tuple[int, int]]) -> tuple[Canvas, Canvas]:
    """Samples of whole frames and of training frames.

    Args:
        settings: asked for.
        sizes: height and width of pictures; where the smallest is smaller than a published crop, whole samples are
            cut to multiples of 16 below it, and training samples have two thirds of its height and four fifths of its
            width.
    """
    from xmodal.data.semantic_kitti.split import Canvas

    if settings.view == "range":
        canvas = Canvas(settings.range_height, settings.range_width)
        return canvas, canvas
    high, wide = (min(sides) for sides in zip(*sizes, strict=True))
    pads, whole, training = PADDING, WHOLE, TRAINING
    if high < TRAINING[0] - 2 * PADDING[0] or wide < TRAINING[1] - 2 * PADDING[1]:
        pads = (0, 0)
        whole = _multiple(high), _multiple(wide)
        training = _multiple(2 * high / 3), _multiple(4 * wide / 5)
    pads = _told(settings.pad_rows, pads[0]), _told(settings.pad_cols, pads[1])
    return (
        _canvas(_told(settings.height, whole[0]), _told(settings.width, whole[1]), pads),
        _canvas(_told(settings.train_height, training[0]), _told(settings.train_width, training[1]), pads),
    )


def _told(asked: int | None, usual: int) -> int:
    return usual if asked is None else asked


def _multiple(side: float) -> int:
    return max(MULTIPLE, int(side) // MULTIPLE * MULTIPLE)


def _canvas(height: int, width: int, pads: tuple[int, int]) -> Canvas:
    from xmodal.data.semantic_kitti.split import Canvas

    canvas = Canvas(height, width, *pads)
    if min(canvas.window) < 1:
        raise InputError(
            f"Samples of {height}x{width} pixels are padding alone (pad_rows {pads[0]}, pad_cols {pads[1]}). Give "
            "larger samples or less padding."
        )
    return canvas


def _found(root: Path, settings: SemanticKittiSettings) -> tuple[Contents, list[Frame], dict[str, NDArray[np.int64]]]:
    """Frames of all splits, and which are whose."""
    asked = {name: parse_sequences(getattr(settings, name), name) for name in ("train", "valid", "test")}
    contents = inspect(root, tuple({number for numbers in asked.values() for number in numbers}))
    contents.report.stop_on_errors()
    both = sorted(set(asked["train"]) & {*asked["valid"], *asked["test"]})
    problems = [f"Sequence {number:02d} is to train on and to be scored on as well. Name it once." for number in both]
    for name, numbers in asked.items():
        if numbers and not any(number in contents.frames for number in numbers):
            there = ", ".join(f"{number:02d}" for number in contents.frames) or "none of those"
            problems.append(f"{root} has no sequence to {name} on: {getattr(settings, name)} asked for, {there} there.")
    for number in {*asked["train"], *asked["valid"]} & contents.frames.keys():
        if any(frame.labels is None for frame in contents.frames[number]):
            problems.append(
                f"Sequence {number:02d} has no labels to learn from. Name labelled sequences, as 00 to 10 are."
            )
    if problems:
        raise InputError(problems)
    frames = [frame for found in contents.frames.values() for frame in found]
    of = np.array([frame.sequence for frame in frames])
    rows = {name: np.flatnonzero(np.isin(of, numbers)) for name, numbers in asked.items()}
    if not asked["valid"]:
        rows["train"], rows["valid"] = hold_back(of, rows["train"], settings.valid_share)
    empty = [name for name, numbers in rows.items() if not len(numbers)]
    if empty:
        raise InputError(f"There are too few frames in {root}: {', '.join(empty)} would be empty. Add frames.")
    return contents, frames, rows


def hold_back(
    sequences: NDArray[np.int64], rows: NDArray[np.int64], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on, and the last ones of each sequence, which choose the epoch.

    Args:
        sequences: of each frame.
        rows: frames of training sequences, in the order in which they were taken.
        share: of each sequence that is held back: at least one frame where it has two, never all.

    Example:
        >>> hold_back(np.array([0] * 10 + [1] * 2), np.arange(12), 0.2)[1].tolist()
        [8, 9, 11]
    """
    held = np.zeros(len(sequences), np.bool_)
    for number in np.unique(sequences[rows]):
        mine = rows[sequences[rows] == number]
        count = min(max(1, round(share * len(mine))), len(mine) - 1)
        held[mine[len(mine) - count :]] = True
    return rows[~held[rows]], rows[held[rows]]


def _warnings(frames: Sequence[Frame], rows: dict[str, NDArray[np.int64]]) -> list[str]:
    warnings = []
    if np.intersect1d(rows["valid"], rows["test"]).size:
        warnings.append(
            "The test frames choose the epoch, as published: test figures are too good by an unknown amount."
        )
    if any(frames[number].labels is None for number in rows["test"].tolist()):
        warnings.append("Test sequences have no labels: they can be predicted, and their scores mean nothing.")
    return warnings


def _augmentation(settings: SemanticKittiSettings) -> Any:
    from xmodal.data.semantic_kitti.augment import Augmentation

    if not settings.augment or settings.view == "range":
        return None
    return Augmentation(settings.flip, settings.rotate, settings.brightness, settings.contrast, settings.saturation)


def _point_augmentation(settings: SemanticKittiSettings) -> Any:
    from xmodal.data.semantic_kitti.augment import PointAugmentation

    return PointAugmentation() if settings.points else None

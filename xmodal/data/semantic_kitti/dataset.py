"""SemanticKITTI: predict the class of every point of a LiDAR scan, with a camera picture of the same scene.

    semantic_kitti_root/sequences/00 … 21/
        velodyne/000000.bin    points: x, y, z, remission (float32)
        labels/000000.label    class and instance of each point (32 bits)
        image_2/000000.png     picture of the left colour camera
        calib.txt              position of the scanner relative to the camera

    lidar  (5, H, W)  range, x, y, z, remission of points at their pixels; (value - mean) / std, 0 at empty pixels
    image  (3, H, W)  the camera picture, divided by 255
    target (H, W)     class of each point, 0 (unlabeled) if it has no label or the pixel is empty; 20 classes

Points are projected into the camera picture (*perspective view*), so that the pixels of both modalities correspond;
or, for LiDAR only, into a picture of all directions (*range view*), which needs neither pictures nor calibration. LiDAR
alone needs no pictures in the perspective view either. `files.py` in this folder reads the files,
`crop.py` crops them to the field of view of the camera, and `synthetic.py` writes synthetic drives with a ray-caster.

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

from xmodal.data.request import DataRequest
from xmodal.data.semantic_kitti.classes import CLASSES, IGNORE, shares
from xmodal.data.semantic_kitti.files import Contents, Frame, has_pictures, inspect, parse_sequences
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.semantic_kitti.split import Canvas
    from xmodal.types import Normalisation

MODALITIES = ("lidar", "image")
# Mean and standard deviation of range, x, y, z and remission in the authors' configuration.
MEAN = (12.12, 10.88, 0.23, -1.04, 0.21)
STD = (12.32, 11.47, 6.91, 0.86, 0.16)
# Mean and standard deviation of ImageNet per colour, for values from 0 to 1.
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Terms of the authors' loss, with λ = 1.
LABEL_LOSSES = {"focal": 1.0, "lovasz": 1.0}
# The same as in `xmodal.data.semantic_kitti.split`, which is not imported: it needs torch, and help texts must not.
MULTIPLE = 16
# Sizes in the authors' configuration: training samples, evaluation samples, and the padding of both.
TRAINING, WHOLE, PADDING = (256, 1024), (384, 1232), (7, 3)
Side = int | None


class SemanticKittiSettings(BaseModel):
    """Options of SemanticKITTI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="folder with sequences, or that folder")
    modalities: tuple[Literal["lidar", "image"], ...] = Field(
        (), description="lidar, image; empty: both; lidar in the range view and where there are no pictures"
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
    picture_height: Side = Field(
        None, ge=1, description="of the camera's pictures, for lidar without image_2; None: that of KITTI's cameras"
    )
    picture_width: Side = Field(
        None, ge=1, description="of the camera's pictures, for lidar without image_2; None: that of KITTI's cameras"
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
        True, description="flip, rotate, crop and recolour training frames; without it they are read as in evaluation"
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
    def _consistent(self) -> SemanticKittiSettings:
        for name in ("height", "width", "train_height", "train_width", "range_height", "range_width"):
            side = getattr(self, name)
            if side is not None and side % MULTIPLE:
                raise ValueError(f"{name} is {side}: a multiple of {MULTIPLE} was expected.")
        if self.view == "range" and "image" in self.modalities:
            raise ValueError("the range view has no image, and modalities names it. Use the perspective view.")
        if (self.picture_height is None) != (self.picture_width is None):
            raise ValueError("picture_height and picture_width belong together: give both, or leave both out.")
        if self.view == "perspective" and self.points:
            raise ValueError("points would move away from their pixels in the picture. Use points with --view range.")
        return self

    @property
    def picture(self) -> tuple[int, int] | None:
        """Height and width of the camera's pictures, where they are given."""
        if self.picture_height is None or self.picture_width is None:
            return None
        return self.picture_height, self.picture_width

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities to open, in the order lidar, image."""
        available = MODALITIES if self.view == "perspective" else MODALITIES[:1]
        return tuple(name for name in available if name in (self.modalities or available))


def load(root: str, settings: SemanticKittiSettings, request: DataRequest) -> Data:
    """Three splits; ``groups`` holds the sequence of each frame, ``ids`` their names.

    Args:
        root: the folder.
        settings: which frames, and how they are drawn.
        request: task ``multiclass``; ``augment`` stays empty, since augmentations of frames are options of this data
            set, drawn from the seed.
    """
    from xmodal.data.base import DENSE_SELECT, Data, keep_fraction
    from xmodal.data.semantic_kitti.augment import check_window
    from xmodal.data.semantic_kitti.frames import Frames
    from xmodal.data.semantic_kitti.split import CHANNELS, FrameSplit
    from xmodal.types import DataInfo, InputInfo

    request.check_task("semantic-kitti", "multiclass")
    if request.augment:
        raise InputError(
            f"The augmentation '{request.augment}' would leave the classes of pixels behind. Use the options of "
            "semantic-kitti (flip, rotate, brightness, contrast, saturation), or leave it out."
        )
    alone = not settings.modalities and settings.view == "perspective" and not has_pictures(Path(root))
    if alone:
        settings = settings.model_copy(update={"modalities": ("lidar",)})
    contents, frames, rows = _found(Path(root), settings)
    whole, training = canvases(settings, [size for size in contents.sizes.values()])
    every = Frames(
        frames,
        contents.matrices,
        rules_of(settings),
        sizes={number: size for number, size in contents.sizes.items() if number not in contents.pictured},
        cache=settings.cache,
        cache_pictures=settings.cache_pictures,
        keep_bytes=settings.keep_mb * 2**20,
    )
    if request.train_fraction != 1.0:
        # a frame shows many classes, so frames are drawn from all and not class by class
        classless = np.zeros(len(frames), np.int64)
        rows["train"] = keep_fraction(rows["train"], classless, request.train_fraction, request.seed)
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
            seed=request.seed,
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
    if alone:
        data.warnings.append(f"{root} has no pictures (image_2): LiDAR alone is read.")
    return data


def class_weights() -> tuple[float, ...]:
    """α of the focal loss, computed from the published shares of the classes.

    Example:
        >>> [round(weight, 5) for weight in class_weights()[:3]]
        [0.0, 0.46205, 0.98301]
    """
    return _rarity(shares())


def _rarity(shares: Sequence[float]) -> tuple[float, ...]:
    """The same as `xmodal.losses.segmentation.rarity`, which is not imported: data do not depend on losses."""
    factors = np.log1p(1 / (np.array(shares) + 0.001))
    factors[IGNORE] = 0.0
    return tuple((factors / factors.max()).tolist())


def statistics_of(settings: SemanticKittiSettings) -> dict[str, Normalisation]:
    """Input → mean and standard deviation, as in the authors' configuration."""
    from xmodal.types import Normalisation

    colours = COLOURS if settings.image_statistics == "imagenet" else ((0.0,), (1.0,))
    mean, std = ([[[255 * number]] for number in part] for part in colours)
    lidar = Normalisation([[[number]] for number in MEAN], [[[number]] for number in STD], empty=True)
    return {name: {"lidar": lidar, "image": Normalisation(mean, std)}[name] for name in settings.wanted}


def rules_of(settings: SemanticKittiSettings) -> Any:
    """The rules of projection in the settings."""
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
    """The sizes of evaluation samples and of training samples.

    Args:
        settings: sizes to use instead of the defaults.
        sizes: height and width of the pictures. If the smallest is smaller than a published training crop, evaluation
            samples have its size, rounded down to multiples of 16, and training samples two thirds of its height and
            four fifths of its width.
    """
    from xmodal.data.semantic_kitti.split import Canvas

    if settings.view == "range":
        canvas = Canvas(settings.range_height, settings.range_width)
        return canvas, canvas
    height, width = (min(sides) for sides in zip(*sizes, strict=True))
    padding, whole, training = PADDING, WHOLE, TRAINING
    if height < TRAINING[0] - 2 * PADDING[0] or width < TRAINING[1] - 2 * PADDING[1]:
        padding = (0, 0)
        whole = _round_down(height), _round_down(width)
        training = _round_down(2 * height / 3), _round_down(4 * width / 5)
    padding = _or_default(settings.pad_rows, padding[0]), _or_default(settings.pad_cols, padding[1])
    whole = _or_default(settings.height, whole[0]), _or_default(settings.width, whole[1])
    training = _or_default(settings.train_height, training[0]), _or_default(settings.train_width, training[1])
    return _canvas(*whole, padding), _canvas(*training, padding)


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def _round_down(side: float) -> int:
    return max(MULTIPLE, int(side) // MULTIPLE * MULTIPLE)


def _canvas(height: int, width: int, padding: tuple[int, int]) -> Canvas:
    from xmodal.data.semantic_kitti.split import Canvas

    canvas = Canvas(height, width, *padding)
    if min(canvas.window) < 1:
        raise InputError(
            f"Samples of {height}x{width} pixels consist only of padding (pad_rows {padding[0]}, pad_cols "
            f"{padding[1]}). Use larger samples or less padding."
        )
    return canvas


def _found(root: Path, settings: SemanticKittiSettings) -> tuple[Contents, list[Frame], dict[str, NDArray[np.int64]]]:
    """The contents of the folder, the frames of all splits, and the rows of each split."""
    numbers_of = {name: parse_sequences(getattr(settings, name), name) for name in ("train", "valid", "test")}
    contents = inspect(
        root,
        tuple({number for numbers in numbers_of.values() for number in numbers}),
        pictures="image" in settings.wanted,
        calibration=settings.view == "perspective",
        size=settings.picture,
    )
    contents.report.stop_on_errors()
    overlap = sorted(set(numbers_of["train"]) & {*numbers_of["valid"], *numbers_of["test"]})
    problems = [f"Sequence {number:02d} is in train and in valid or test. Name it only once." for number in overlap]
    for name, numbers in numbers_of.items():
        if numbers and not any(number in contents.frames for number in numbers):
            present = ", ".join(f"{number:02d}" for number in contents.frames) or "none of those"
            expected = getattr(settings, name)
            problems.append(f"{root} has no sequence for {name}: {expected} expected, {present} present.")
    for number in {*numbers_of["train"], *numbers_of["valid"]} & contents.frames.keys():
        if any(frame.labels is None for frame in contents.frames[number]):
            problems.append(
                f"Sequence {number:02d} has no labels to learn from. Name labelled sequences, such as 00 to 10."
            )
    if problems:
        raise InputError(problems)
    frames = [frame for part in contents.frames.values() for frame in part]
    sequence_of = np.array([frame.sequence for frame in frames])
    rows = {name: np.flatnonzero(np.isin(sequence_of, numbers)) for name, numbers in numbers_of.items()}
    if not numbers_of["valid"]:
        rows["train"], rows["valid"] = hold_back(sequence_of, rows["train"], settings.valid_share)
    empty = [name for name, numbers in rows.items() if not len(numbers)]
    if empty:
        raise InputError(f"There are too few frames in {root}: {', '.join(empty)} would be empty. Add frames.")
    return contents, frames, rows


def hold_back(
    sequences: NDArray[np.int64], rows: NDArray[np.int64], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training rows without the last ones of each sequence, and these last ones, on which the epoch is chosen.

    The last ones and not random ones: neighbouring frames are almost equal, and random frames would be too easy.

    Args:
        sequences: sequence of each frame.
        rows: frames of training sequences, in the order of recording.
        share: share of each sequence that is held out: at least one frame of two or more, never all.

    Example:
        >>> hold_back(np.array([0] * 10 + [1] * 2), np.arange(12), 0.2)[1].tolist()
        [8, 9, 11]
    """
    held = np.zeros(len(sequences), np.bool_)
    for number in np.unique(sequences[rows]):
        sequence_rows = rows[sequences[rows] == number]
        count = min(max(1, round(share * len(sequence_rows))), len(sequence_rows) - 1)
        held[sequence_rows[len(sequence_rows) - count :]] = True
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

"""NYU Depth V2: predict the class of every voxel of a room, also of hidden ones, from a picture with colour and depth.

    nyu_root/
    ├── NYUtrain_npz/NYU0001_0000_voxels.npz      795 frames, see `xmodal.data.nyu.frames`
    ├── NYUtest_npz/NYU0002_0000_voxels.npz       654 frames
    └── NYUCADtrain_npz/  NYUCADtest_npz/         the same rooms, with depth rendered from models (option ``cad``)

    depth           (1, 480, 640)        metres
    rgb             (3, 480, 640)        normalised with ImageNet's mean and std
    tsdf            (1, 240, 144, 240)   flipped TSDF along D, H, W; optional
    depth.position  (480, 640)           index of the voxel that each pixel shows, in the volume X, H, Y = W, H, D;
    rgb.position                         the same tensor; pixels without a voxel have 0, or -1 by the correct rule

The target is a volume (60, 36, 60) along D, H, W: 0 empty, eleven classes, 255 unknown (``DataInfo.ignore``).
Supervised losses use all labelled voxels. Metrics use ``Batch.scored``, a uint8 map for each modality: 0 not scored
(visible free space, or hidden and unknown), 1 hidden behind a surface, 2 on a surface. "Nonempty" in the published code
is ``scored > 0``. Unknown voxels on a surface are 2 as well; metrics skip them, since their target is 255.
``DataInfo.target_shape`` is the shape of the target; the volume of positions is four times as large along each axis.

`xmodal.data.nyu.files` writes the .npz files from the raw ones, `xmodal.data.nyu.synthetic` writes synthetic rooms.

Silberman et al.: Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012. Voxels: Song et al., CVPR 2017
(SSCNet). The experiment: Chen et al.: Non-target Divergence Hypothesis, arXiv 2409.02438, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.nyu.files import FACTS, PACKED, held_out, packed_files, packed_parts
from xmodal.data.nyu.frames import SUFFIX, FrameFile, network_order, resolve_axes, volume_shape
from xmodal.data.nyu.raw import CLASSES
from xmodal.data.nyu.voxels import FACTOR, UNKNOWN, regions
from xmodal.data.prepare import MARKERS
from xmodal.data.report import Report
from xmodal.data.request import DataRequest
from xmodal.errors import InputError
from xmodal.files import read_json

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.split import Column

MODALITIES = ("depth", "rgb", "tsdf")
PICTURES = ("depth", "rgb")  # what is opened by default, if the files have it
# Weights of the published cross-entropy: about 95 % of the voxels are empty.
CLASS_WEIGHTS = (0.05, *[1.0] * 11)
# Channels that the published networks project into the volume; they determine the memory of a batch.
CHANNELS = 8
KEYS = {"depth": "depth", "rgb": "rgb", "tsdf": "tsdf_hr"}
# Problems of one kind that are listed; the rest are counted.
NAMED = 3


class NyuSettings(BaseModel):
    """Options of NYU Depth V2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="folder with NYUtrain_npz and NYUtest_npz")
    modalities: tuple[Literal["depth", "rgb", "tsdf"], ...] = Field(
        (), description="which to open; empty: depth, and rgb where there are colours; tsdf has 33 MB a frame"
    )
    cad: bool = Field(False, description="NYUCADtrain_npz and NYUCADtest_npz in their place")
    tsdf_axes: Literal["auto", "DHW", "XHY"] = Field(
        "auto",
        description="order of tsdf_hr in the files: auto, what they say or else what agrees with tsdf_lr; DHW or XHY",
    )
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training frames, the last ones by name, that choose the epoch"
    )
    valid_is_test: bool = Field(False, description="the test frames choose the epoch, as in the authors' code")
    as_published: bool = Field(
        False, description="as in the authors' code: --valid-is-test, and the score that chooses the epoch is theirs"
    )

    @model_validator(mode="after")
    def _published(self) -> NyuSettings:
        if self.as_published:
            object.__setattr__(self, "valid_is_test", True)
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities to open, in the order depth, rgb, tsdf, without repetitions."""
        return tuple(name for name in MODALITIES if name in (self.modalities or PICTURES))


class Stored:
    """An array of every frame, (n, …), decompressed when it is indexed.

    Args:
        files: the .npz of each frame.
        key: name of the array.
        shape: shape of the array of a frame.
        kind: NumPy's name of the type to which values are converted.
    """

    def __init__(self, files: Sequence[Path], key: str, shape: tuple[int, ...], kind: str = "float32") -> None:
        self.files, self.key = list(files), key
        self.shape, self.dtype = (len(self.files), *shape), np.dtype(kind)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        numbers = np.arange(len(self.files))[rows]
        arrays = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place, number in enumerate(numbers.tolist()):
            arrays[place] = self.read(number)
        return arrays

    def read(self, number: int) -> NDArray[Any]:
        """The array of a frame."""
        return FrameFile(self.files[number]).arrays([self.key])[self.key]


class Distances(Stored):
    """``tsdf_hr`` as (n, 1, D, H, W), from files with different orders of axes."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], axes: Sequence[str]) -> None:
        super().__init__(files, "tsdf_hr", shape)
        self.axes = list(axes)

    def read(self, number: int) -> NDArray[Any]:
        """The volume of a frame."""
        return network_order(super().read(number), self.axes[number])


class Positions(Stored):
    """``position`` (n, height, width): indices of voxels, or -1."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], volume: tuple[int, ...]) -> None:
        super().__init__(files, "position", shape, "int32")
        self.volume = volume

    def read(self, number: int) -> NDArray[Any]:
        """The positions of a frame; indices outside of the volume are refused."""
        # On a GPU, an index out of range stops the process with an error that names neither file nor pixel.
        position = super().read(number)
        size = math.prod(self.volume)
        outside = position[(position < -1) | (position >= size)]
        if len(outside):
            raise InputError(
                f"{self.files[number]} has a pixel that shows voxel {outside[0]}: -1 to {size - 1} were "
                f"expected, the volume has {'x'.join(map(str, self.volume))} voxels. Prepare it again, or use xmodal "
                "data prepare --repair-positions."
            )
        return position


class Regions(Stored):
    """The regions that are scored, (n, D, H, W), computed from ``tsdf_lr`` and ``target_lr``."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...]) -> None:
        super().__init__(files, "tsdf_lr", shape, "uint8")

    def read(self, number: int) -> NDArray[Any]:
        """The regions of a frame."""
        arrays = FrameFile(self.files[number]).arrays(["tsdf_lr", "target_lr"])
        return regions(arrays["tsdf_lr"], arrays["target_lr"]).transpose(2, 1, 0)


@dataclass(frozen=True)
class Contents:
    """The frames of a folder.

    Attributes:
        files: the .npz of each frame, training frames first.
        train: number of training frames.
        shapes: array → its shape in all files; that of ``tsdf_hr`` along D, H, W.
        axes: order of the axes of ``tsdf_hr`` in each file; empty if it is not opened.
    """

    files: list[Path]
    train: int
    shapes: dict[str, tuple[int, ...]]
    axes: list[str]


def load(root: str, settings: NyuSettings, request: DataRequest) -> Data:
    """Three splits; ``ids`` are the names of the frames.

    Args:
        root: the folder.
        settings: which frames and modalities, and what chooses the epoch.
        request: task ``multiclass``; augmentations that move pixels are refused.
    """
    from xmodal.data.base import assemble

    request.check_task("nyu", "multiclass")
    report = Report()
    if not settings.modalities and not any(has_colours(folder) for folder in packed_parts(Path(root)).values()):
        settings = settings.model_copy(update={"modalities": ("depth",)})
    contents = inspect(Path(root), settings, report)
    report.stop_on_errors()
    assert contents is not None  # no contents are an error
    places = contents.shapes["target_lr"][::-1]
    targets = read_targets(contents.files, places)
    scored = Regions(contents.files, places)
    data = assemble(
        _columns(contents, settings),
        dict.fromkeys(settings.wanted, targets),
        {split: dict.fromkeys(settings.wanted, rows) for split, rows in split_rows(contents, settings).items()},
        task="multiclass",
        layouts={"depth": "image", "rgb": "image"},
        inner=len(settings.wanted) * CHANNELS * FACTOR**3 * math.prod(places),
        class_names=CLASSES,
        request=request,
        ignore=UNKNOWN,
        class_weights=CLASS_WEIGHTS,
        scored=dict.fromkeys(settings.wanted, scored),
        metrics="scenes",
        select=("mean_iou_reference", "max") if settings.as_published else None,
    )
    data.ids = [path.stem.removesuffix("_voxels") for path in contents.files]
    data.warnings += report.warnings
    if settings.valid_is_test:
        data.warnings.append(
            "The test frames choose the epoch, as published: test figures are too good by an unknown amount."
        )
    return data


def _columns(contents: Contents, settings: NyuSettings) -> dict[str, Column]:
    """The modalities, then the positions of depth and rgb."""
    shapes, files = contents.shapes, contents.files
    columns: dict[str, Column] = {}
    for name in settings.wanted:
        if name == "tsdf":
            columns[name] = Distances(files, (1, *shapes["tsdf_hr"]), contents.axes)
        else:
            columns[name] = Stored(files, name, shapes[name])
    # The same object for both pictures: the loader reads it once per batch.
    position = Positions(files, shapes["position"], tuple(FACTOR * side for side in shapes["tsdf_lr"]))
    return {**columns, **{f"{name}.position": position for name in settings.wanted if name != "tsdf"}}


def has_colours(folder: Path) -> bool:
    """Whether the first frame of a folder has colours; the others must have the same arrays."""
    first = next(iter(packed_files(folder)), None)
    return first is not None and "rgb" in FrameFile(first).names()


def is_frames(folder: Path) -> bool:
    """Whether a folder holds prepared frames directly, such as NYUtest_npz."""
    return folder.is_dir() and any(path.name.endswith(SUFFIX) for path in packed_files(folder))


def open_frames(folder: Path, needs: Sequence[str]) -> tuple[dict[str, Column], list[str]]:
    """The inputs of all frames of a folder, with or without labels, and the names of the frames.

    Args:
        folder: with ``…_voxels.npz``.
        needs: inputs, such as ``depth`` and ``depth.position``.
    """
    files, report = packed_files(folder), Report()
    wanted = [name for name in MODALITIES if name in {need.partition(".")[0] for need in needs}]
    settings = NyuSettings(modalities=tuple(wanted))
    if "rgb" in wanted and not has_colours(folder):
        raise InputError(f"{folder} was prepared without colours, and the student reads rgb. Choose one that does not.")
    keys = [*(KEYS[name] for name in settings.wanted), "position", "tsdf_lr"]
    shapes = _shapes(files, keys, report)
    axes = _axes(files, settings, report) if "tsdf" in wanted and shapes else []
    report.stop_on_errors()
    if axes and axes[0] == "XHY":
        shapes["tsdf_hr"] = shapes["tsdf_hr"][::-1]
    columns = _columns(Contents(files, 0, shapes, axes), settings)
    absent = [name for name in needs if name not in columns]
    if absent:
        raise InputError(f"The student reads {', '.join(absent)}, which the frames in {folder} do not have.")
    return {name: columns[name] for name in needs}, [path.name.removesuffix(SUFFIX) for path in files]


def read_targets(files: Sequence[Path], places: tuple[int, ...]) -> NDArray[np.uint8]:
    """The labels of all frames, (n, D, H, W)."""
    targets, problems = np.empty((len(files), *places), np.uint8), []
    for place, path in enumerate(files):
        stored = FrameFile(path).arrays(["target_lr"])["target_lr"]
        problem = invalid_class(path, "target_lr", stored)
        problems += [problem] if problem else []
        targets[place] = UNKNOWN if problem else stored.transpose(2, 1, 0)
    if problems:
        raise InputError(few(problems))
    return targets


def invalid_class(path: Path, key: str, labels: NDArray[Any]) -> str:
    """The problem if labels contain other values than the 12 classes and 255; otherwise an empty string."""
    invalid = labels[~((labels >= 0) & (labels < len(CLASSES)) | (labels == UNKNOWN))]
    if not len(invalid):
        return ""
    expected = f"0 to {len(CLASSES) - 1} and {UNKNOWN} were expected"
    return f"{path} has a voxel of class {invalid[0]} in {key}: {expected}. Prepare it again."


def split_rows(contents: Contents, settings: NyuSettings) -> dict[str, NDArray[np.int64]]:
    """Rows of the three splits; the last training frames by name are held out to choose the epoch."""
    train, test = np.arange(contents.train), np.arange(contents.train, len(contents.files))
    if settings.valid_is_test:
        return {"train": train, "valid": test, "test": test}
    if len(train) < 2:
        raise InputError(
            f"{len(train)} training frame is too few to hold some out for choosing the epoch: 2 were expected. Add "
            "frames, or give --nyu.valid-is-test."
        )
    count = held_out(len(train), settings.valid_share)
    return {"train": train[:-count], "valid": train[-count:], "test": test}


def inspect(root: Path, settings: NyuSettings, report: Report) -> Contents | None:
    """Find the frames and check the shapes of the arrays to open; None and errors if they cannot be used.

    Args:
        root: the folder.
        settings: frames and modalities to open.
        report: receives errors and warnings.
    """
    kind, parts = "NYUCAD" if settings.cad else "NYU", packed_parts(root)
    _interrupted(root, parts, report)
    files: dict[str, list[Path]] = {}
    for split in ("train", "test"):
        folder = parts.get(f"{kind}{split}")
        files[split] = packed_files(folder) if folder else []
        if not files[split]:
            others = f" There are {', '.join(path.name for path in parts.values())}." if parts else ""
            report.errors.append(
                f"{root} has no frames in {kind}{split}{PACKED}: files such as NYU0001_0000_voxels.npz were "
                f"expected.{others} Prepare them: xmodal data prepare nyu RAW {root}."
            )
    if report.errors:
        return None
    if "rgb" in settings.wanted and not any(has_colours(path.parent) for path in (files["train"][0], files["test"][0])):
        report.errors.append(
            f"{root} was prepared without colours, and rgb is to be read. Prepare it again from raw files with "
            "NYU0001_rgb.png or NYU0001_colors.png, or choose networks that read depth alone: ddrnet_depth, palnet."
        )
        return None
    all_files = [*files["train"], *files["test"]]
    unlabelled = [path for path in all_files if "target_lr" not in FrameFile(path).names()]
    report.errors += few(
        [
            f"{path} has no labels (target_lr): it can be predicted (xmodal predict STUDENT {path.parent}), and not be "
            "trained or scored on."
            for path in unlabelled
        ]
    )
    if unlabelled:
        return None
    keys = [*(KEYS[name] for name in settings.wanted), "position", "tsdf_lr", "target_lr"]
    shapes = _shapes(all_files, keys, report)
    axes = _axes(all_files, settings, report) if "tsdf" in settings.wanted and shapes else []
    if report.errors:
        return None
    if axes and axes[0] == "XHY":
        shapes["tsdf_hr"] = shapes["tsdf_hr"][::-1]
    return Contents(all_files, len(files["train"]), shapes, axes)


def _interrupted(root: Path, parts: dict[str, Path], report: Report) -> None:
    """Report an interrupted preparation, and files that were removed since."""
    counts = read_json(root / FACTS).get("frames") if (root / FACTS).is_file() else None
    for part, folder in parts.items():
        present = len(packed_files(folder))
        if (folder / MARKERS).is_dir() and not isinstance(counts, dict):
            report.errors.append(
                f"The preparation of {root} was interrupted. Run xmodal data prepare nyu RAW {root} again."
            )
            return
        if isinstance(counts, dict) and part in counts and counts[part] != present:
            report.warnings.append(f"{folder} was prepared with {counts[part]} frames and has {present} now.")


def _shapes(files: Sequence[Path], keys: Sequence[str], report: Report) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of the first file; errors for files with other shapes."""
    expected: dict[str, tuple[int, ...]] = {}
    problems = []
    for path in files:
        try:
            headers = {name: shape for name, (shape, _) in FrameFile(path).headers(keys).items()}
            if "tsdf_hr" in headers:
                headers["tsdf_hr"] = volume_shape(headers["tsdf_hr"], f"{path}: tsdf_hr")
            expected = expected or _fitting(headers, path)
        except InputError as error:
            problems += error.problems
            continue
        problems += [
            f"{path} has a {name} of shape {shape}, the first frame {expected[name]}: the same for all was expected."
            for name, shape in headers.items()
            if shape != expected[name]
        ]
    report.errors += few(problems)
    return expected


def _fitting(headers: dict[str, tuple[int, ...]], path: Path) -> dict[str, tuple[int, ...]]:
    """The given shapes. Raises an `InputError` if they are inconsistent."""
    problems = []
    image, blocks = headers["position"], headers["tsdf_lr"]
    for name, channels in (("depth", 1), ("rgb", 3)):
        if name in headers and headers[name] != (channels, *image):
            problems.append(
                f"{path} has a {name} of shape {headers[name]} and positions of {image}: ({channels}, height, width) "
                "and (height, width) were expected."
            )
    if len(blocks) != 3 or headers.get("target_lr", blocks) != blocks:
        problems.append(
            f"{path} has a target_lr of shape {headers.get('target_lr', blocks)} and a tsdf_lr of {blocks}: two equal "
            "shapes of three axes were expected."
        )
    elif "tsdf_hr" in headers and sorted(headers["tsdf_hr"]) != sorted(FACTOR * size for size in blocks):
        problems.append(
            f"{path} has a tsdf_hr of shape {headers['tsdf_hr']} and a target_lr of {blocks}: {FACTOR} times as many "
            "voxels along each axis were expected."
        )
    if problems:
        raise InputError(problems)
    return headers


def _axes(files: Sequence[Path], settings: NyuSettings, report: Report) -> list[str]:
    """The order of ``tsdf_hr`` in each file; for files that do not state it, the order inferred from the first one."""
    if settings.tsdf_axes != "auto":
        return [settings.tsdf_axes] * len(files)
    stated = [FrameFile(path).axes() for path in files]
    # Inferred from a single file: the check decompresses and downsamples its whole volume.
    unstated = [path for path, axes in zip(files, stated, strict=True) if not axes]
    if not unstated:
        return stated
    inferred = resolve_axes(unstated[0])
    if not inferred:
        report.errors.append(
            f"{unstated[0]} does not state the order of the axes of tsdf_hr (no key axes), two axes have the same "
            "length, and neither order, or both, agree with tsdf_lr: the order is ambiguous. Give --nyu.tsdf-axes XHY "
            "or DHW."
        )
    else:
        report.warnings.append(
            f"{len(unstated)} of {len(files)} files do not state the order of the axes of tsdf_hr, which is ambiguous: "
            f"two have the same length. {inferred} is used, which agrees with tsdf_lr in {unstated[0].name}."
        )
    return [axes or inferred for axes in stated]


def few(problems: Sequence[str]) -> list[str]:
    """The first problems, and the number of further ones."""
    rest = [f"… and {len(problems) - NAMED} more problems of this kind."] if problems[NAMED:] else []
    return [*problems[:NAMED], *rest]

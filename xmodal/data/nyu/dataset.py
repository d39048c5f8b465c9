"""NYU Depth V2: the voxels of a room, seen and unseen, from one picture with colours and depth.

    nyu_root/
    ├── NYUtrain_npz/NYU0001_0000_voxels.npz      795 frames, see `xmodal.data.nyu.frames`
    ├── NYUtest_npz/NYU0002_0000_voxels.npz       654 frames
    └── NYUCADtrain_npz/  NYUCADtest_npz/         the same rooms, with the depth of their models (option ``cad``)

    depth           (1, 480, 640)        metres
    rgb             (3, 480, 640)        normalised with the numbers of ImageNet
    tsdf            (1, 240, 144, 240)   flipped TSDF along D, H, W; only where it is asked for
    depth.position  (480, 640)           number of the voxel that each pixel shows, counted along X, H, Y = W, H, D;
    rgb.position                         the same tensor; a pixel without one has 0, or -1 by the correct rule

The target is a map (60, 36, 60) along D, H, W: 0 empty, eleven classes, 255 unknown (``DataInfo.ignore``). Losses of
labels look at all voxels with one. Metrics look at ``Batch.scored``, a map of bytes for each modality: 0 nowhere
(visible free space, or hidden and unknown), 1 hidden behind a surface, 2 on a surface. "Nonempty" in the published code
is ``scored > 0``; voxels on a surface that are unknown are 2 as well, and drop out where the target is 255.
``DataInfo.target_shape`` is the shape of the target; the volume of positions has four times as many voxels along
each axis.

`xmodal.data.nyu.files` makes the .npz files from the raw ones, `xmodal.data.nyu.synthetic` makes rooms.

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

from xmodal.data.nyu.files import FACTS, PACKED, kept_back, packed_files, packed_parts
from xmodal.data.nyu.frames import FrameFile, network_order, told_axes, volume_shape
from xmodal.data.nyu.raw import CLASSES
from xmodal.data.nyu.voxels import FACTOR, UNKNOWN, regions
from xmodal.data.prepare import MARKERS
from xmodal.data.report import Report
from xmodal.errors import InputError
from xmodal.files import read_json

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.split import Column

MODALITIES = ("depth", "rgb", "tsdf")
CLASS_WEIGHTS = (0.05, *[1.0] * 11)  # of the published training
CHANNELS = 8  # that the published networks put into the volume of each modality
KEYS = {"depth": "depth", "rgb": "rgb", "tsdf": "tsdf_hr"}
NAMED = 3  # problems of one kind that are told one by one


class NyuSettings(BaseModel):
    """Options of NYU Depth V2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="folder with NYUtrain_npz and NYUtest_npz")
    modalities: tuple[Literal["depth", "rgb", "tsdf"], ...] = Field(
        ("depth", "rgb"), description="which to open; tsdf has 33 MB a frame at full size"
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
        if not self.modalities:
            raise ValueError("modalities names none: some of depth, rgb and tsdf were expected.")
        if self.as_published:
            object.__setattr__(self, "valid_is_test", True)
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities in one order, each once."""
        return tuple(name for name in MODALITIES if name in self.modalities)


class Stored:
    """One array of every frame (n, …), decompressed when asked for.

    Args:
        files: the .npz of each frame.
        key: of the array.
        shape: of one.
        kind: NumPy's name of the type that is given.
    """

    def __init__(self, files: Sequence[Path], key: str, shape: tuple[int, ...], kind: str = "float32") -> None:
        self.files, self.key = list(files), key
        self.shape, self.dtype = (len(self.files), *shape), np.dtype(kind)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        numbers = np.arange(len(self.files))[rows]
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place, number in enumerate(numbers.tolist()):
            found[place] = self.read(number)
        return found

    def read(self, number: int) -> NDArray[Any]:
        """The array of one frame."""
        return FrameFile(self.files[number]).arrays([self.key])[self.key]


class Distances(Stored):
    """``tsdf_hr`` (n, 1, D, H, W), whatever the order of its axes in each file."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], axes: Sequence[str]) -> None:
        super().__init__(files, "tsdf_hr", shape)
        self.axes = list(axes)

    def read(self, number: int) -> NDArray[Any]:
        """The volume of one frame."""
        return network_order(super().read(number), self.axes[number])


class Positions(Stored):
    """``position`` (n, height, width), whose numbers are voxels of the volume, or -1."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], volume: tuple[int, ...]) -> None:
        super().__init__(files, "position", shape, "int32")
        self.volume = volume

    def read(self, number: int) -> NDArray[Any]:
        """The positions of one frame; those of no voxel are refused here, since a GPU would only stop on them."""
        found = super().read(number)
        size = math.prod(self.volume)
        outside = found[(found < -1) | (found >= size)]
        if len(outside):
            raise InputError(
                f"{self.files[number]} has a pixel that shows voxel {outside[0]}: -1 to {size - 1} were "
                f"expected, the volume has {'x'.join(map(str, self.volume))} voxels. Prepare it again, or give xmodal "
                "data prepare --repair-positions."
            )
        return found


class Regions(Stored):
    """Where metrics look (n, D, H, W), from ``tsdf_lr`` and ``target_lr``."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...]) -> None:
        super().__init__(files, "tsdf_lr", shape, "uint8")

    def read(self, number: int) -> NDArray[Any]:
        """The regions of one frame."""
        found = FrameFile(self.files[number]).arrays(["tsdf_lr", "target_lr"])
        return regions(found["tsdf_lr"], found["target_lr"]).transpose(2, 1, 0)


@dataclass(frozen=True)
class Contents:
    """The frames of a folder.

    Attributes:
        files: the .npz of each frame, those of the training split first.
        train: how many of them are of the training split.
        shapes: key → shape in all files; that of ``tsdf_hr`` along D, H, W.
        axes: order of the axes of ``tsdf_hr`` in each file; empty where it is not asked for.
    """

    files: list[Path]
    train: int
    shapes: dict[str, tuple[int, ...]]
    axes: list[str]


def load(
    root: str,
    settings: NyuSettings,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits; ``ids`` are the names of the frames.

    Args:
        root: the folder.
        settings: which frames and modalities, and what chooses the epoch.
        task: empty or ``multiclass``.
        train_fraction: share of the training frames to keep.
        augment: operations for training batches, see `Augment.parse`; those that move pixels are refused.
        seed: of the train fraction and the augmentation.
    """
    from xmodal.data.base import assemble

    if task not in ("", "multiclass"):
        raise InputError(f"NYU Depth V2 has the task multiclass; {task} was asked for. Leave the task out.")
    report = Report()
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
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
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
    """Modalities first, then the positions that go with pictures, one column for both."""
    shapes, files = contents.shapes, contents.files
    columns: dict[str, Column] = {}
    for name in settings.wanted:
        if name == "tsdf":
            columns[name] = Distances(files, (1, *shapes["tsdf_hr"]), contents.axes)
        else:
            columns[name] = Stored(files, name, shapes[name])
    position = Positions(files, shapes["position"], tuple(FACTOR * side for side in shapes["target_lr"]))
    return {**columns, **{f"{name}.position": position for name in settings.wanted if name != "tsdf"}}


def read_targets(files: Sequence[Path], places: tuple[int, ...]) -> NDArray[np.uint8]:
    """The labels of all frames, (n, D, H, W)."""
    found, problems = np.empty((len(files), *places), np.uint8), []
    for place, path in enumerate(files):
        stored = FrameFile(path).arrays(["target_lr"])["target_lr"]
        problem = strange_class(path, "target_lr", stored)
        problems += [problem] if problem else []
        found[place] = UNKNOWN if problem else stored.transpose(2, 1, 0)
    if problems:
        raise InputError(few(problems))
    return found


def strange_class(path: Path, key: str, labels: NDArray[Any]) -> str:
    """What is wrong with labels that are not all among the 12 classes and 255; empty: nothing."""
    strange = labels[~((labels >= 0) & (labels < len(CLASSES)) | (labels == UNKNOWN))]
    if not len(strange):
        return ""
    expected = f"0 to {len(CLASSES) - 1} and {UNKNOWN} were expected"
    return f"{path} has a voxel of class {strange[0]} in {key}: {expected}. Prepare it again."


def split_rows(contents: Contents, settings: NyuSettings) -> dict[str, NDArray[np.int64]]:
    """Rows of the three splits: the last training frames by name choose the epoch."""
    train, test = np.arange(contents.train), np.arange(contents.train, len(contents.files))
    if settings.valid_is_test:
        return {"train": train, "valid": test, "test": test}
    if len(train) < 2:
        raise InputError(
            f"{len(train)} training frame is too few to keep some back for choosing the epoch: 2 were expected. Add "
            "frames, or give --nyu.valid-is-test."
        )
    kept = kept_back(len(train), settings.valid_share)
    return {"train": train[:-kept], "valid": train[-kept:], "test": test}


def inspect(root: Path, settings: NyuSettings, report: Report) -> Contents | None:
    """Find the frames, and look at the shapes of what is asked for; None, and sentences, where that can't be used.

    Args:
        root: the folder.
        settings: which frames and modalities.
        report: receives what is wrong.
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
                f"{root} has no frames in {kind}{split}{PACKED}: NYU0001_0000_voxels.npz and the like were "
                f"expected.{others} Prepare them: xmodal data prepare nyu RAW {root}."
            )
    if report.errors:
        return None
    every = [*files["train"], *files["test"]]
    wanted = [*(KEYS[name] for name in settings.wanted), "position", "tsdf_lr", "target_lr"]
    shapes = _shapes(every, wanted, report)
    axes = _axes(every, settings, report) if "tsdf" in settings.wanted and shapes else []
    if report.errors:
        return None
    if axes and axes[0] == "XHY":
        shapes["tsdf_hr"] = shapes["tsdf_hr"][::-1]
    return Contents(every, len(files["train"]), shapes, axes)


def _interrupted(root: Path, parts: dict[str, Path], report: Report) -> None:
    """Say that preparing was not finished, or that files went since."""
    said = read_json(root / FACTS).get("frames") if (root / FACTS).is_file() else None
    for part, folder in parts.items():
        there = len(packed_files(folder))
        if (folder / MARKERS).is_dir() and not isinstance(said, dict):
            report.errors.append(f"{root} was not prepared to its end. Run xmodal data prepare nyu RAW {root} again.")
            return
        if isinstance(said, dict) and part in said and said[part] != there:
            report.warnings.append(f"{folder} was prepared with {said[part]} frames, and {there} are there.")


def _shapes(files: Sequence[Path], keys: Sequence[str], report: Report) -> dict[str, tuple[int, ...]]:
    """The shapes that all files have in common; the first file says which."""
    usual: dict[str, tuple[int, ...]] = {}
    problems = []
    for path in files:
        try:
            headers = {name: shape for name, (shape, _) in FrameFile(path).headers(keys).items()}
            if "tsdf_hr" in headers:
                headers["tsdf_hr"] = volume_shape(headers["tsdf_hr"], f"{path}: tsdf_hr")
            usual = usual or _fitting(headers, path)
        except InputError as error:
            problems += error.problems
            continue
        problems += [
            f"{path} has a {name} of shape {shape}, the first frame {usual[name]}: one for all was expected."
            for name, shape in headers.items()
            if shape != usual[name]
        ]
    report.errors += few(problems)
    return usual


def _fitting(headers: dict[str, tuple[int, ...]], path: Path) -> dict[str, tuple[int, ...]]:
    """The same shapes, once they fit to one another."""
    problems = []
    image, blocks = headers["position"], headers["target_lr"]
    for name, channels in (("depth", 1), ("rgb", 3)):
        if name in headers and headers[name] != (channels, *image):
            problems.append(
                f"{path} has a {name} of shape {headers[name]} and positions of {image}: ({channels}, height, width) "
                "and (height, width) were expected."
            )
    if len(blocks) != 3 or headers["tsdf_lr"] != blocks:
        problems.append(
            f"{path} has a target_lr of shape {blocks} and a tsdf_lr of {headers['tsdf_lr']}: three axes each, as long "
            "as one another, were expected."
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
    """The order of ``tsdf_hr`` in each file; files that do not say it are all taken to be like the first of them."""
    if settings.tsdf_axes != "auto":
        return [settings.tsdf_axes] * len(files)
    said = [FrameFile(path).axes() for path in files]
    silent = [path for path, axes in zip(files, said, strict=True) if not axes]
    if not silent:
        return said
    told = told_axes(silent[0])
    if not told:
        report.errors.append(
            f"{silent[0]} does not say the order of the axes of tsdf_hr (no key axes), two of them are as long, and "
            "neither order, or both, agree with tsdf_lr: the order is ambiguous. Give --nyu.tsdf-axes XHY or DHW."
        )
    else:
        report.warnings.append(
            f"{len(silent)} of {len(files)} files do not say the order of the axes of tsdf_hr, which is ambiguous "
            f"since two are as long. {told} is taken, which agrees with tsdf_lr in {silent[0].name}."
        )
    return [axes or told for axes in said]


def few(problems: Sequence[str]) -> list[str]:
    """The first problems, and how many more there are."""
    rest = [f"… and {len(problems) - NAMED} more problems of this kind."] if problems[NAMED:] else []
    return [*problems[:NAMED], *rest]

"""The files of SemanticKITTI: which frames a folder holds, how each is read, and what is wrong with them.

    sequences/00/ … 21/
        velodyne/000000.bin    points: x, y, z and remission, float32, little endian
        labels/000000.label    one word of 32 bits per point: class and instance, see `data.semantic_kitti.classes`
        image_2/000000.png     the left colour camera
        calib.txt              P0 to P3 and Tr, twelve numbers each; poses.txt and times.txt are not read

A point p of the scanner lies at the pixel (a / d, b / d) of the camera, (a, b, d) = P2 Tr (p, 1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xmodal.data.report import Report
from xmodal.data.semantic_kitti.classes import training_classes
from xmodal.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

R = TypeVar("R")
CLOUDS, LABELS, IMAGES, CALIBRATION = "velodyne", "labels", "image_2", "calib.txt"
SUFFIXES = {CLOUDS: ".bin", LABELS: ".label", IMAGES: ".png"}
POINT_BYTES, WORD_BYTES = 16, 4
DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are none of its own
NAMED = 3  # problems of one kind that are told one by one; the others are counted
DECODED = 200  # frames of a folder whose points, labels and pixels are all looked at
TREE = "Expected: sequences/00 … 21 with velodyne/<frame>.bin, labels/<frame>.label, image_2/<frame>.png and calib.txt."


@dataclass(frozen=True)
class Frame:
    """One turn of the scanner and what the camera saw meanwhile.

    Attributes:
        sequence: number of the drive.
        name: of its files, without suffix.
        cloud: file of the points.
        image: file of the picture.
        labels: file of the labels; None where nobody labelled.
    """

    sequence: int
    name: str
    cloud: Path
    image: Path
    labels: Path | None

    @property
    def id(self) -> str:
        """``08/000123``."""
        return f"{self.sequence:02d}/{self.name}"


@dataclass
class Contents:
    """What was found in a folder; complete when the report holds no error.

    Attributes:
        report: errors and warnings.
        frames: number of a sequence → its frames, in their order.
        matrices: number of a sequence → P2 Tr (3, 4).
        sizes: number of a sequence → height and width of its first picture.
    """

    report: Report
    frames: dict[int, list[Frame]] = field(default_factory=dict)
    matrices: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)


def read_cloud(path: Path) -> NDArray[np.float32]:
    """Points (n, 4): x forward, y to the left, z up, in metres, and remission."""
    raw = _read(path)
    if len(raw) % POINT_BYTES or not raw:
        raise InputError(
            f"{path} has {len(raw)} bytes: points of {POINT_BYTES} bytes each were expected (four float32 numbers). It "
            "was cut off; copy it again."
        )
    points = np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(-1, 4)
    if not np.isfinite(points).all():
        raise InputError(f"{path} holds points that are not finite. Copy it again, or remove the frame.")
    return points


def read_words(path: Path, points: int) -> NDArray[np.uint32]:
    """The words of a label file (points,)."""
    raw = _read(path)
    if len(raw) != WORD_BYTES * points:
        raise InputError(
            f"{path} has {len(raw)} bytes: {WORD_BYTES * points} were expected, {WORD_BYTES} for each of {points} "
            "points. Copy it again."
        )
    return np.frombuffer(raw, "<u4").astype(np.uint32, copy=False)


def read_classes(path: Path, points: int) -> NDArray[np.uint8]:
    """The classes of training (points,)."""
    return training_classes(read_words(path, points), str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from None


def read_calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    """Key → (3, 4); what stands behind the first empty line is not looked at."""
    found: dict[str, NDArray[np.float64]] = {}
    text = _read(path).decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            break
        key, _, values = line.partition(":")
        try:
            found[key.strip()] = np.array(values.split(), dtype=np.float64).reshape(3, 4)
        except ValueError:
            raise InputError(
                f"{path} line {number} is '{line.strip()[:40]}': a key, a colon and twelve numbers were expected."
            ) from None
    return found


def camera_matrix(path: Path) -> NDArray[np.float64]:
    """P2 Tr (3, 4) of a calib.txt."""
    found = read_calibration(path)
    for key in ("P2", "Tr"):
        if key not in found:
            raise InputError(
                f"{path} has no line '{key}:', and points can't be projected without it. P0 to P3 and Tr with twelve "
                "numbers each were expected, without an empty line between them."
            )
        if not np.isfinite(found[key]).all():
            raise InputError(f"{path}: '{key}' holds numbers that are not finite.")
    whole = np.vstack([found["Tr"], [0.0, 0.0, 0.0, 1.0]])
    matrix: NDArray[np.float64] = found["P2"] @ whole
    return matrix


def open_picture(path: Path) -> Picture:
    """A picture in red, green and blue, decoded."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except DAMAGED as error:
        raise InputError(f"{path} is no picture that can be read ({error}).") from None


def image_size(path: Path) -> tuple[int, int]:
    """Height and width, from the first bytes of the file."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except DAMAGED as error:
        raise InputError(f"{path} is no picture that can be read ({error}).") from None


def few(problems: Sequence[str], where: str) -> list[str]:
    """The first problems, and how many more there are."""
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return [*problems[:NAMED], *more]


# ---- which frames there are


def parse_sequences(text: str, what: str) -> tuple[int, ...]:
    """Numbers of sequences from ``0-7,9,10``.

    Example:
        >>> parse_sequences("0-2,8", "train")
        (0, 1, 2, 8)
    """
    found: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ends = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", part)
        if not ends:
            raise InputError(f"{what} is '{text}': numbers of sequences were expected, as in 0-7,9,10.")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(dict.fromkeys(found))


def sequences_folder(root: Path) -> Path | None:
    """The folder with the sequences, which may be the root itself; None if there is none."""
    for folder in (root / "sequences", root):
        if folder.is_dir() and any((part / CLOUDS).is_dir() for part in _numbered(folder).values()):
            return folder
    return None


def _numbered(folder: Path) -> dict[int, Path]:
    found = {int(path.name): path for path in folder.iterdir() if re.fullmatch(r"\d\d", path.name) and path.is_dir()}
    return dict(sorted(found.items()))


def inspect(root: Path, sequences: Sequence[int] | None = None, *, thorough: bool = False) -> Contents:
    """Find the frames and look at the sizes of their files.

    Args:
        root: the folder, or its folder ``sequences``.
        sequences: numbers of those to look at; None: all.
        thorough: read points, labels and pixels as well, of up to 200 frames that are evenly spread.
    """
    contents = Contents(Report())
    folder = sequences_folder(root)
    if folder is None:
        contents.report.errors.append(f"{root} holds no sequence with points. {TREE}")
        return contents
    for number, path in _numbered(folder).items():
        if sequences is None or number in sequences:
            _look_at_sequence(number, path, contents)
    if thorough:
        _look_inside(root, contents)
    return contents


def _look_at_sequence(number: int, path: Path, contents: Contents) -> None:
    problems: list[str] = []
    files = {part: _files(path / part, suffix) for part, suffix in SUFFIXES.items()}
    try:
        contents.matrices[number] = camera_matrix(path / CALIBRATION)
    except InputError as error:
        problems += error.problems
    clouds, words, pictures = files.values()
    labelled = bool(words) or (path / LABELS).is_dir()
    for part in (IMAGES, LABELS) if labelled else (IMAGES,):
        problems += _differences(path, part, clouds, files[part])
    for name, size in clouds.items():
        if size % POINT_BYTES or not size:
            problems.append(
                f"{path / CLOUDS / name}.bin has {size} bytes: points of {POINT_BYTES} bytes each were expected. It "
                "was cut off; copy it again."
            )
        elif name in words and words[name] * POINT_BYTES != size * WORD_BYTES:
            problems.append(
                f"{path / LABELS / name}.label has {words[name]} bytes: {size * WORD_BYTES // POINT_BYTES} were "
                f"expected, {WORD_BYTES} for each of {size // POINT_BYTES} points."
            )
    if not clouds:
        problems.append(f"{path / CLOUDS} holds no .bin file.")
    if pictures:
        try:
            contents.sizes[number] = image_size(path / IMAGES / f"{min(pictures)}.png")
        except InputError as error:
            problems += error.problems
    contents.report.errors += few(problems, str(path))
    contents.frames[number] = [
        Frame(
            number,
            name,
            path / CLOUDS / f"{name}.bin",
            path / IMAGES / f"{name}.png",
            path / LABELS / f"{name}.label" if labelled else None,
        )
        for name in sorted(clouds)
    ]


def _files(folder: Path, suffix: str) -> dict[str, int]:
    """Name without suffix → size, of a folder that may be missing."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {
            entry.name.removesuffix(suffix): entry.stat().st_size
            for entry in entries
            if entry.name.endswith(suffix) and not entry.name.startswith(".")
        }


def _differences(path: Path, part: str, clouds: dict[str, int], others: dict[str, int]) -> list[str]:
    """What to say where clouds and pictures or labels don't belong together."""
    lacking, spare = sorted(clouds.keys() - others.keys()), sorted(others.keys() - clouds.keys())
    if not lacking and not spare:
        return []
    first = f"{part}/{lacking[0]}{SUFFIXES[part]}" if lacking else f"{CLOUDS}/{spare[0]}.bin"
    return [
        f"{path} has {len(clouds)} clouds in {CLOUDS} and {len(others)} files in {part}: one of each for every frame "
        f"was expected. {first} is missing, for one."
    ]


def _look_inside(root: Path, contents: Contents) -> None:
    """Read frames to the last number: all, or so many that are evenly spread over a large folder."""
    frames = [frame for found in contents.frames.values() for frame in found]
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), DECODED)).round().astype(int))
    problems: list[str] = []
    for place in chosen.tolist():
        problems += _frame_problems(frames[place], contents.sizes)
    known = set(contents.report.errors)
    contents.report.errors += few([problem for problem in problems if problem not in known], str(root))
    if len(chosen) < len(frames):
        contents.report.warnings.append(f"{len(chosen)} of {len(frames)} frames were read to their end, evenly spread.")


def _frame_problems(frame: Frame, sizes: dict[int, tuple[int, int]]) -> list[str]:
    problems: list[str] = []
    sizes_fit = frame.cloud.stat().st_size % POINT_BYTES == 0  # else it was told already
    points = frame.cloud.stat().st_size // POINT_BYTES
    if sizes_fit:
        _collect(problems, read_cloud, frame.cloud)
    if frame.image.is_file():
        picture = _collect(problems, open_picture, frame.image)
        usual = sizes.get(frame.sequence)
        if picture is not None and usual and (picture.height, picture.width) != usual:
            problems.append(
                f"{frame.image} has {picture.height}x{picture.width} pixels, the first picture of its sequence "
                f"{usual[0]}x{usual[1]}: one size for all was expected, since one calib.txt holds for all."
            )
    if frame.labels and frame.labels.is_file() and frame.labels.stat().st_size == WORD_BYTES * points:
        _collect(problems, read_classes, frame.labels, points)
    return problems


def _collect(problems: list[str], read: Callable[..., R], *given: Any) -> R | None:
    """What was read; None, and the problems, where it can't be."""
    try:
        return read(*given)
    except InputError as error:
        problems += error.problems
        return None


def check(root: Path) -> Report | None:
    """What is wrong with a folder of SemanticKITTI; None if it is none."""
    if sequences_folder(root) is None:
        return None
    return inspect(root, thorough=True).report

"""The files of SemanticKITTI: listing the frames of a folder, reading and checking them.

    sequences/00/ … 21/
        velodyne/000000.bin    points: x, y, z and remission, float32, little endian
        labels/000000.label    a 32-bit word per point: class and instance, see `data.semantic_kitti.classes`
        image_2/000000.png     the left colour camera
        calib.txt              P0 to P3 and Tr, twelve numbers each; poses.txt and times.txt are not read

A point p of the scanner is projected to the pixel (a / d, b / d) of the camera, (a, b, d) = P2 Tr (p, 1).
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
# Focal length in pixels of KITTI's left colour camera on its three days of recording → height and width of pictures.
CAMERAS = {718.856: (376, 1241), 721.5377: (375, 1242), 707.0912: (370, 1226)}
# Pillow raises any of these for damaged files, even SyntaxError (for a broken PNG chunk).
DAMAGED = (OSError, ValueError, SyntaxError)
# Problems of one kind that are listed; the rest are counted.
NAMED = 3
# Frames of a folder whose points, labels and pixels are all read by the check: the data set has 43,000.
DECODED = 200
TREE = "Expected: sequences/00 … 21 with velodyne/<frame>.bin, labels/<frame>.label, image_2/<frame>.png and calib.txt."


@dataclass(frozen=True)
class Frame:
    """A revolution of the scanner with the camera picture of the same moment.

    Attributes:
        sequence: number of the drive.
        name: name of its files, without suffix.
        cloud: file of the points.
        image: file of the picture; it need not exist where LiDAR alone is read.
        labels: file of the labels; None if the sequence is unlabelled.
    """

    sequence: int
    name: str
    cloud: Path
    image: Path
    labels: Path | None

    @property
    def id(self) -> str:
        """Sequence and name, such as ``08/000123``."""
        return f"{self.sequence:02d}/{self.name}"


@dataclass
class Contents:
    """The contents of a folder; complete if the report holds no error.

    Attributes:
        report: errors and warnings.
        frames: sequence → its frames, in order.
        matrices: sequence → P2 Tr (3, 4).
        sizes: sequence → height and width of its first picture, or of its camera's where it has no pictures.
        pictured: the sequences with pictures.
    """

    report: Report
    frames: dict[int, list[Frame]] = field(default_factory=dict)
    matrices: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    pictured: set[int] = field(default_factory=set)


def read_cloud(path: Path) -> NDArray[np.float32]:
    """Read points (n, 4): x forward, y to the left, z up, in metres, and remission."""
    raw = _read(path)
    if len(raw) % POINT_BYTES or not raw:
        raise InputError(
            f"{path} has {len(raw)} bytes: points of {POINT_BYTES} bytes each were expected (four float32 numbers). It "
            "is cut off; copy it again."
        )
    points = np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(-1, 4)
    if not np.isfinite(points).all():
        raise InputError(f"{path} holds non-finite points. Copy it again, or remove the frame.")
    return points


def read_words(path: Path, points: int) -> NDArray[np.uint32]:
    """Read the words of a label file, (points,)."""
    raw = _read(path)
    if len(raw) != WORD_BYTES * points:
        raise InputError(
            f"{path} has {len(raw)} bytes: {WORD_BYTES * points} were expected, {WORD_BYTES} for each of {points} "
            "points. Copy it again."
        )
    # Unsigned: the published loader reads int32, in which large instance numbers are negative.
    return np.frombuffer(raw, "<u4").astype(np.uint32, copy=False)


def read_classes(path: Path, points: int) -> NDArray[np.uint8]:
    """Read the training classes of a label file, (points,)."""
    return training_classes(read_words(path, points), str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def read_calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read the matrices of a calib.txt, key → (3, 4), up to the first empty line."""
    matrices: dict[str, NDArray[np.float64]] = {}
    text = _read(path).decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            break
        key, _, values = line.partition(":")
        try:
            matrices[key.strip()] = np.array(values.split(), dtype=np.float64).reshape(3, 4)
        except ValueError:
            raise InputError(
                f"{path} line {number} is '{line.strip()[:40]}': a key, a colon and twelve numbers were expected."
            ) from None
    return matrices


def camera_matrix(path: Path) -> NDArray[np.float64]:
    """P2 Tr (3, 4) of a calib.txt."""
    matrices = read_calibration(path)
    for key in ("P2", "Tr"):
        if key not in matrices:
            raise InputError(
                f"{path} has no line '{key}:', and points cannot be projected without it. P0 to P3 and Tr with twelve "
                "numbers each were expected, without an empty line between them."
            )
        if not np.isfinite(matrices[key]).all():
            raise InputError(f"{path}: '{key}' holds non-finite numbers. Copy the file again.")
    transform = np.vstack([matrices["Tr"], [0.0, 0.0, 0.0, 1.0]])
    matrix: NDArray[np.float64] = matrices["P2"] @ transform
    return matrix


def size_of_camera(path: Path) -> tuple[int, int]:
    """Height and width of the pictures of a calib.txt without any picture: by the focal length, for KITTI's cameras."""
    focal = float(read_calibration(path)["P2"][0, 0])
    for known, size in CAMERAS.items():
        if abs(focal - known) < 0.01:
            return size
    raise InputError(
        f"{path} is of a camera with a focal length of {focal:g} pixels, which is none of KITTI's, and there is no "
        "picture in image_2 to read its size from. Give it: --semantic-kitti.picture-height and "
        "--semantic-kitti.picture-width."
    )


def open_picture(path: Path) -> Picture:
    """Read a picture, decoded and converted to RGB."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as a picture ({error}).") from None


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as a picture ({error}).") from None


def few(problems: Sequence[str], where: str) -> list[str]:
    """The first problems, and the number of further ones."""
    more = [f"… and {len(problems) - NAMED} more problems in {where}."] if len(problems) > NAMED else []
    return [*problems[:NAMED], *more]


# ---- listing frames


def parse_sequences(text: str, name: str) -> tuple[int, ...]:
    """Numbers of sequences from ``0-7,9,10``.

    Example:
        >>> parse_sequences("0-2,8", "train")
        (0, 1, 2, 8)
    """
    numbers: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ends = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", part)
        if not ends:
            raise InputError(f"{name} is '{text}': numbers of sequences were expected, as in 0-7,9,10.")
        numbers += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(dict.fromkeys(numbers))


def sequences_folder(root: Path) -> Path | None:
    """The folder with the sequences, which may be the root itself; None if there is none."""
    for folder in (root / "sequences", root):
        if folder.is_dir() and any((part / CLOUDS).is_dir() for part in _numbered(folder).values()):
            return folder
    return None


def _numbered(folder: Path) -> dict[int, Path]:
    folders = {int(path.name): path for path in folder.iterdir() if re.fullmatch(r"\d\d", path.name) and path.is_dir()}
    return dict(sorted(folders.items()))


def has_pictures(root: Path, sequences: Sequence[int] | None = None) -> bool:
    """Whether any of these sequences has a folder of pictures; None: any of all."""
    folder = sequences_folder(root)
    parts = {} if folder is None else _numbered(folder)
    return any((path / IMAGES).is_dir() for number, path in parts.items() if sequences is None or number in sequences)


def inspect(
    root: Path,
    sequences: Sequence[int] | None = None,
    *,
    pictures: bool = True,
    calibration: bool = True,
    size: tuple[int, int] | None = None,
    thorough: bool = False,
) -> Contents:
    """List the frames and check the sizes of their files.

    Args:
        root: the folder, or its folder ``sequences``.
        sequences: numbers of the sequences to inspect; None: all.
        pictures: whether every frame must have one.
        calibration: whether every sequence must have a calib.txt: the range view needs none.
        size: height and width of the pictures of sequences without any; None: those of KITTI's cameras.
        thorough: also read points, labels and pixels of up to 200 frames, evenly spread.
    """
    contents = Contents(Report())
    folder = sequences_folder(root)
    if folder is None:
        contents.report.errors.append(f"{root} holds no sequence with points. {TREE}")
        return contents
    for number, path in _numbered(folder).items():
        if sequences is None or number in sequences:
            _inspect_sequence(number, path, contents, pictures=pictures, calibration=calibration, size=size)
    if thorough:
        _decode(root, contents)
    return contents


def _inspect_sequence(
    number: int, path: Path, contents: Contents, *, pictures: bool, calibration: bool, size: tuple[int, int] | None
) -> None:
    problems: list[str] = []
    files = {part: _files(path / part, suffix) for part, suffix in SUFFIXES.items()}
    clouds, words, images = files.values()
    try:
        if calibration:
            contents.matrices[number] = camera_matrix(path / CALIBRATION)
            if not pictures and not images:
                contents.sizes[number] = size or size_of_camera(path / CALIBRATION)
    except InputError as error:
        problems += error.problems
    labelled = bool(words) or (path / LABELS).is_dir()
    for part in (*((IMAGES,) if pictures else ()), *((LABELS,) if labelled else ())):
        problems += _differences(path, part, clouds, files[part])
    for name, count in clouds.items():
        if count % POINT_BYTES or not count:
            problems.append(
                f"{path / CLOUDS / name}.bin has {count} bytes: points of {POINT_BYTES} bytes each were expected. It "
                "is cut off; copy it again."
            )
        elif name in words and words[name] * POINT_BYTES != count * WORD_BYTES:
            problems.append(
                f"{path / LABELS / name}.label has {words[name]} bytes: {count * WORD_BYTES // POINT_BYTES} were "
                f"expected, {WORD_BYTES} for each of {count // POINT_BYTES} points."
            )
    if not clouds:
        problems.append(f"{path / CLOUDS} holds no .bin file.")
    if images:
        contents.pictured.add(number)
        try:
            contents.sizes[number] = image_size(path / IMAGES / f"{min(images)}.png")
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
    """Name without suffix → size in bytes, for the files of a folder; empty if the folder is missing."""
    if not folder.is_dir():
        return {}
    # scandir, because a sequence has thousands of files: on some systems it returns sizes without a further call.
    with os.scandir(folder) as entries:
        return {
            entry.name.removesuffix(suffix): entry.stat().st_size
            for entry in entries
            if entry.name.endswith(suffix) and not entry.name.startswith(".")
        }


def _differences(path: Path, part: str, clouds: dict[str, int], others: dict[str, int]) -> list[str]:
    """A problem if clouds do not have the same names as pictures or labels."""
    missing, extra = sorted(clouds.keys() - others.keys()), sorted(others.keys() - clouds.keys())
    if not missing and not extra:
        return []
    example = f"{part}/{missing[0]}{SUFFIXES[part]}" if missing else f"{CLOUDS}/{extra[0]}.bin"
    return [
        f"{path} has {len(clouds)} clouds in {CLOUDS} and {len(others)} files in {part}: one of each for every frame "
        f"was expected. {example} is missing, for example."
    ]


def _decode(root: Path, contents: Contents) -> None:
    """Read all data of the frames, or of a sample that is spread evenly over a large folder."""
    frames = [frame for sequence_frames in contents.frames.values() for frame in sequence_frames]
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), DECODED)).round().astype(int))
    problems: list[str] = []
    for place in chosen.tolist():
        problems += _frame_problems(frames[place], contents.sizes)
    reported = set(contents.report.errors)
    contents.report.errors += few([problem for problem in problems if problem not in reported], str(root))
    if len(chosen) < len(frames):
        contents.report.warnings.append(
            f"{len(chosen)} of {len(frames)} frames, evenly spread, were read to their end."
        )


def _frame_problems(frame: Frame, sizes: dict[int, tuple[int, int]]) -> list[str]:
    problems: list[str] = []
    points = frame.cloud.stat().st_size // POINT_BYTES
    # A cloud of another size is already reported by `_inspect_sequence`.
    if frame.cloud.stat().st_size % POINT_BYTES == 0:
        _collect(problems, read_cloud, frame.cloud)
    if frame.image.is_file():
        picture = _collect(problems, open_picture, frame.image)
        expected = sizes.get(frame.sequence)
        if picture is not None and expected and (picture.height, picture.width) != expected:
            problems.append(
                f"{frame.image} has {picture.height}x{picture.width} pixels, the first picture of its sequence "
                f"{expected[0]}x{expected[1]}: the same size was expected, since all share a calib.txt."
            )
    if frame.labels and frame.labels.is_file() and frame.labels.stat().st_size == WORD_BYTES * points:
        _collect(problems, read_classes, frame.labels, points)
    return problems


def _collect(problems: list[str], read: Callable[..., R], *arguments: Any) -> R | None:
    """The result of a read function; None, with its problems added, if it raises an `InputError`."""
    try:
        return read(*arguments)
    except InputError as error:
        problems += error.problems
        return None


def check(root: Path) -> Report | None:
    """Check a folder of SemanticKITTI; None if it is not one."""
    if sequences_folder(root) is None:
        return None
    pictures = has_pictures(root)
    # without any picture the folder is one of LiDAR alone, whose range view needs no calibration either
    report = inspect(root, pictures=pictures, calibration=pictures, thorough=True).report
    if not pictures:
        report.warnings.append(f"{root} has no pictures ({IMAGES}): only networks that read LiDAR alone can use it.")
    return report

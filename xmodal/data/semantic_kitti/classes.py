"""Classes of SemanticKITTI: 34 raw classes in the files, 20 in training, their names, colours and shares of the points.

A 32-bit word of a label file contains the raw class in its low 16 bits and the instance in its high 16 bits. Moving
and static objects are the same class in training; rare raw classes that the benchmark does not evaluate become
``unlabeled``, which losses and metrics ignore.

Behley et al.: SemanticKITTI, ICCV 2019, arXiv 1904.01416.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

CLASSES = (
    *("unlabeled", "car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist"),
    *("road", "parking", "sidewalk", "other-ground", "building", "fence", "vegetation", "trunk", "terrain", "pole"),
    "traffic-sign",
)
IGNORE = 0
INSTANCE_BITS = 16
# Entry of the lookup table for numbers that are not raw classes.
UNKNOWN = 255


@dataclass(frozen=True)
class Kind:
    """A raw class.

    Attributes:
        raw: its number in the files.
        name: its name.
        train: its number in training.
        share: its share of the points of the labelled sequences.
        colour: red, green and blue in which it is displayed.
    """

    raw: int
    name: str
    train: int
    share: float
    colour: tuple[int, int, int]


# The table of the public SemanticKITTI API, whose colours are in the order blue, green, red.
KINDS = tuple(
    Kind(*facts)
    for facts in (
        (0, "unlabeled", 0, 0.018889854628292943, (255, 255, 255)),
        (1, "outlier", 0, 0.0002937197336781505, (255, 0, 0)),
        (10, "car", 1, 0.040818519255974316, (100, 150, 245)),
        (11, "bicycle", 2, 0.00016609538710764618, (100, 230, 245)),
        (13, "bus", 5, 2.7879693665067774e-05, (100, 80, 250)),
        (15, "motorcycle", 3, 0.00039838616015114444, (30, 60, 150)),
        (16, "on-rails", 5, 0.0, (0, 0, 255)),
        (18, "truck", 4, 0.0020633612104619787, (80, 30, 180)),
        (20, "other-vehicle", 5, 0.0016218197275284021, (0, 0, 255)),
        (30, "person", 6, 0.00017698551338515307, (255, 30, 30)),
        (31, "bicyclist", 7, 1.1065903904919655e-08, (255, 40, 200)),
        (32, "motorcyclist", 8, 5.532951952459828e-09, (150, 30, 90)),
        (40, "road", 9, 0.1987493871255525, (255, 0, 255)),
        (44, "parking", 10, 0.014717169549888214, (255, 150, 255)),
        (48, "sidewalk", 11, 0.14392298360372, (75, 0, 75)),
        (49, "other-ground", 12, 0.0039048553037472045, (175, 0, 75)),
        (50, "building", 13, 0.1326861944777486, (255, 200, 0)),
        (51, "fence", 14, 0.0723592229456223, (255, 120, 50)),
        (52, "other-structure", 0, 0.002395131480328884, (255, 150, 0)),
        (60, "lane-marking", 9, 4.7084144280367186e-05, (150, 255, 170)),
        (70, "vegetation", 15, 0.26681502148037506, (0, 175, 0)),
        (71, "trunk", 16, 0.006035012012626033, (135, 60, 0)),
        (72, "terrain", 17, 0.07814222006271769, (150, 240, 80)),
        (80, "pole", 18, 0.002855498193863172, (255, 240, 150)),
        (81, "traffic-sign", 19, 0.0006155958086189918, (255, 0, 0)),
        (99, "other-object", 0, 0.009923127583046915, (50, 255, 255)),
        (252, "moving-car", 1, 0.001789309418528068, (100, 150, 245)),
        (253, "moving-bicyclist", 7, 0.00012709999297008662, (255, 40, 200)),
        (254, "moving-person", 6, 0.00016059776092534436, (255, 30, 30)),
        (255, "moving-motorcyclist", 8, 3.745553104802113e-05, (150, 30, 90)),
        (256, "moving-on-rails", 5, 0.0, (0, 0, 255)),
        (257, "moving-bus", 5, 0.00011351574470342043, (100, 80, 250)),
        (258, "moving-truck", 4, 0.00010157861367183268, (80, 30, 180)),
        (259, "moving-other-vehicle", 5, 4.3840131989471124e-05, (0, 0, 255)),
    )
)
# Training class → raw class, as in prediction files; of merged raw classes, the benchmark expects the one given here.
RAW = (0, 10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81)
# Looked up by raw class: the published list takes the first 20 colours in order, and gives bicycles the car's.
COLOURS = tuple(next(kind.colour for kind in KINDS if kind.raw == raw) for raw in RAW)


def shares() -> tuple[float, ...]:
    """Published share of the points of each training class, from which its weight in the loss is derived."""
    totals = np.zeros(len(CLASSES), np.float32)
    for kind in KINDS:
        totals[kind.train] += np.float32(kind.share)
    return tuple(totals.tolist())


@functools.cache
def _table() -> NDArray[np.uint8]:
    # An entry for every 16-bit number: the published table is shorter, and fails with an index error on other numbers.
    table = np.full(2**INSTANCE_BITS, UNKNOWN, np.uint8)
    table[[kind.raw for kind in KINDS]] = [kind.train for kind in KINDS]
    return table


def training_classes(words: NDArray[np.integer[Any]], where: str = "The labels") -> NDArray[np.uint8]:
    """Training classes of the words of a label file.

    Args:
        words: raw classes, with or without instances in the high bits.
        where: name of the file in messages.

    Example:
        >>> training_classes(np.array([10, 252, (7 << 16) + 40])).tolist()  # car, moving car, road (instance 7)
        [1, 1, 9]
    """
    raw = (words & (2**INSTANCE_BITS - 1)).astype(np.uint16)
    classes: NDArray[np.uint8] = _table()[raw]
    if (classes == UNKNOWN).any():
        wrong = np.unique(raw[classes == UNKNOWN]).tolist()
        raise InputError(
            f"{where} holds the class {wrong[0]}{f' and {len(wrong) - 1} more' if wrong[1:] else ''} that "
            "SemanticKITTI does not have. Its classes are numbers such as 10 (car) or 40 (road), in the low 16 bits of "
            "each word."
        )
    return classes


def raw_classes(classes: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Raw classes of training classes, as in prediction files.

    Example:
        >>> raw_classes(np.array([0, 1, 9])).tolist()
        [0, 10, 40]
    """
    raw: NDArray[np.int32] = np.array(RAW, np.int32)[classes]
    return raw


def coloured(classes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Colours (…, 3) of training classes (…); unlabeled is black."""
    palette = np.array(COLOURS, np.uint8)
    palette[IGNORE] = 0
    colours: NDArray[np.uint8] = palette[classes]
    return colours

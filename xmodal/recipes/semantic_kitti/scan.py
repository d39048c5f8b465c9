"""One LiDAR scan without anything else: a class for every point, from a student that reads LiDAR alone.

    xmodal predict STUDENT scan.bin --calib calib.txt      the camera's view, as in training by default
    xmodal predict STUDENT scan.bin                        the range view, which needs no calibration

The scan is projected like the frames that the student was trained on: a student in a run folder brings the options of
its data, and flags such as ``--semantic-kitti.view range`` replace them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.data.options import validated
from xmodal.data.semantic_kitti.classes import CLASSES
from xmodal.data.semantic_kitti.dataset import SemanticKittiSettings, rules_of
from xmodal.data.semantic_kitti.files import Frame, camera_matrix, size_of_camera
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.semantic_kitti.split import FrameSplit
    from xmodal.types import Student

LIDAR = "lidar"


@dataclass(frozen=True)
class Labelled:
    """What was predicted for a scan.

    Attributes:
        points: number of points in the file.
        outside: how many of them are not in the view, and so have the class 0 (unlabeled).
        classes: name → number of points with this class, the most frequent first.
    """

    points: int
    outside: int
    classes: dict[str, int]


def predict_scan(
    student: Student, scan: Path, out: Path, *, calibration: Path | None, options: Mapping[str, Any]
) -> Labelled:
    """Write the class of every point of a scan, as 32-bit words in the order of the points.

    Args:
        student: reads LiDAR alone.
        scan: ``.bin`` file of the points.
        out: ``.label`` file to write.
        calibration: calib.txt of the camera; None: the range view.
        options: of the data that the student was trained on.
    """
    import torch

    from xmodal.deploy import deployed
    from xmodal.models.network import evaluating
    from xmodal.recipes.semantic_kitti.scoring import classes_of_points, outputs_of, write_labels
    from xmodal.recipes.semantic_kitti.settings import KittiEvaluation
    from xmodal.types import Student as Plain

    if student.needs != (LIDAR,):
        raise InputError(
            f"The student reads {', '.join(student.needs)}, and {scan} is a LiDAR scan alone. Choose a student that "
            f"reads {LIDAR}, or predict a folder with all that it reads: xmodal predict STUDENT semantic-kitti."
        )
    split = open_scan(scan, calibration, validated(SemanticKittiSettings, options, "semantic-kitti"))
    whole = split.raw().whole(0)
    # a deployed student normalises raw values itself
    raw = Plain(deployed(student), student.needs, student.target)
    with evaluating(raw.module):
        (logits,) = outputs_of({"": raw}, whole, torch.device("cpu")).values()
    classes = classes_of_points(logits.argmax(dim=0), whole.points, None, KittiEvaluation())
    write_labels(out, classes)
    counts = np.bincount(classes[whole.points.seen], minlength=len(CLASSES))
    ordered = sorted(range(len(CLASSES)), key=lambda number: (-counts[number], number))
    named = {CLASSES[number]: int(counts[number]) for number in ordered if counts[number]}
    return Labelled(len(classes), int((~whole.points.seen).sum()), named)


def open_scan(scan: Path, calibration: Path | None, settings: SemanticKittiSettings) -> FrameSplit:
    """A split with one frame, which is a scan without picture and labels."""
    from xmodal.data.semantic_kitti.frames import Frames
    from xmodal.data.semantic_kitti.split import Canvas, FrameSplit

    perspective = settings.view == "perspective"
    if perspective and calibration is None:
        raise InputError(
            f"{scan}: the student sees points where the camera would, which needs the calibration: add --calib "
            "calib.txt. For a student of the range view: --semantic-kitti.view range."
        )
    frame = Frame(0, scan.stem, scan, scan.with_suffix(".png"), None)
    matrices, sizes = {}, {}
    if perspective:
        assert calibration is not None
        matrices[0] = camera_matrix(calibration)
        sizes[0] = settings.picture or size_of_camera(calibration)
    frames = Frames([frame], matrices, rules_of(settings), sizes=sizes)
    # whole frames are read, so the size of samples has no effect
    return FrameSplit(frames, np.zeros(1, np.int64), modalities=(LIDAR,), canvas=Canvas(*frames.size(0)))

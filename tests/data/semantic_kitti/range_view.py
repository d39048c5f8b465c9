"""Scans in the range view, read from files by the classes that a training reads them with."""

import numpy as np
from kitti_bytes import calibration, write_frame

from xmodal.data.semantic_kitti.files import inspect
from xmodal.data.semantic_kitti.frames import Frames, Rules
from xmodal.data.semantic_kitti.projection import draw


def range_frames(folder, points, *, height, width, field, lose_first=False):
    """The frame of some points, in a folder of its own."""
    sequence = folder / "sequences" / "00"
    if not sequence.is_dir():
        write_frame(sequence, "000000", points, [0] * len(points), np.zeros((2, 2, 3)))
        (sequence / "calib.txt").write_text(calibration())
    contents = inspect(folder)
    assert contents.report.errors == []
    rules = Rules(view="range", height=height, width=width, field=tuple(field), lose_first=lose_first)
    return Frames(contents.frames[0], contents.matrices, rules)


def range_maps(folder, points, **size):
    """``range`` and ``idx`` of the nearest points, -1 where there is none, and the ``mask`` of pixels with a point."""
    frames = range_frames(folder, points, **size)
    drawn, height, width = frames.points(0), size["height"], size["width"]
    row, col = drawn["row"], drawn["col"]
    mask = draw(row, col, np.ones(len(drawn), np.int32), height=height, width=width)
    idx = draw(row, col, drawn["number"].astype(np.int32), height=height, width=width)
    distance = draw(row, col, drawn["features"][:, 0], height=height, width=width)
    empty = mask == 0
    return {"range": np.where(empty, -1, distance), "idx": np.where(empty, -1, idx), "mask": mask}

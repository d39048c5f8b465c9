"""Projection, samples and augmentation, compared with outputs of the published code.

Reads every ``*kitti*.json`` of tests/golden with its arrays, or of the folder in XMODAL_GOLDEN.
"""

import re

import numpy as np
from array_golden import golden_cases
from kitti_bytes import calibration, write_frame
from range_view import range_frames, range_maps

from xmodal.data.loader import in_order
from xmodal.data.semantic_kitti.augment import flipped, rotated, rotation, translated
from xmodal.data.semantic_kitti.dataset import SemanticKittiSettings, class_weights, statistics_of
from xmodal.data.semantic_kitti.files import camera_matrix, inspect
from xmodal.data.semantic_kitti.frames import Frames, Rules
from xmodal.data.semantic_kitti.projection import camera_pixels, draw, to_camera
from xmodal.data.semantic_kitti.split import Canvas, FrameSplit
from xmodal.types import Normalisation


def arrays(case, *names):
    return [case.given(name).numpy() for name in names]


def matrix_of(case):
    p2, tr = arrays(case, "P2", "Tr")
    return p2[:, :3] @ tr[:3] + p2[:, 3:] * [0, 0, 0, 1]


def sampled(case, name, maps, *default):
    """Every n-th row and column, as stated in the note of the case."""
    match = re.search(rf"{name} sampled \[:, ::(\d+), ::(\d+)\]", case.facts.get("note", ""))
    rows, cols = map(int, match.groups()) if match else default
    return maps[:, ::rows, ::cols]


def test_golden_kitti_project():
    for case in golden_cases("kitti/project"):
        p, (points,) = case.params, arrays(case, "points")
        size = {"height": p["img_h"], "width": p["img_w"], "x_min": p.get("min_x", 0.0)}

        place, keep, depth = to_camera(points, matrix_of(case), **size, behind=True)
        quick = camera_pixels(points, matrix_of(case), **size, behind=True)

        assert case.check(row_col=place, keep_mask=keep, camera_depth=depth)
        assert quick.number.tolist() == np.flatnonzero(keep).tolist()
        assert np.array_equal(np.stack([quick.row, quick.col], 1), place.astype(int))


def test_golden_kitti_project_without_points_behind_the_camera():
    for case in golden_cases("kitti/project"):
        p, (points,) = case.params, arrays(case, "points")
        size = {"height": p["img_h"], "width": p["img_w"], "x_min": p.get("min_x", 0.0)}

        _, keep, depth = to_camera(points, matrix_of(case), **size)
        _, published, _ = to_camera(points, matrix_of(case), **size, behind=True)

        assert np.array_equal(keep, published & (depth > 0))


def stored(case, folder):
    """The frame of a case, written to files and opened with the published rules."""
    points, labels, image, p2, tr = arrays(case, "points", "label_raw", "image", "P2", "Tr")
    sequence = folder / "sequences" / "00"
    write_frame(sequence, "000000", points, labels.tolist(), image)
    (sequence / "calib.txt").write_text(calibration(p2, tr[:3]))
    contents = inspect(folder)
    assert contents.report.errors == []
    np.testing.assert_allclose(camera_matrix(sequence / "calib.txt"), matrix_of(case), rtol=1e-12)
    return Frames(contents.frames[0], contents.matrices, Rules(duplicates="file", behind=True))


def statistics(params):
    mean, std = params.get("img_mean"), params.get("img_stds")
    default = statistics_of(SemanticKittiSettings())
    if mean is None:
        return default
    mean, std = ([[[number]] for number in part] for part in (mean, std))
    return default | {"lidar": Normalisation(mean, std, empty=True)}


def test_golden_kitti_perspective_view(tmp_path):
    for number, case in enumerate(golden_cases("kitti/perspective")):
        p = case.params
        frames = stored(case, tmp_path / str(number))
        size, stored_points = frames.size(0), frames.stored(0)
        drawn = frames.points(0)
        row, col = stored_points.row[stored_points.seen], stored_points.col[stored_points.seen]
        maps = draw(drawn["row"], drawn["col"], drawn["features"], height=size[0], width=size[1])
        labels = draw(drawn["row"], drawn["col"], drawn["label"], height=size[0], width=size[1])
        mask = draw(drawn["row"], drawn["col"], np.ones(len(drawn)), height=size[0], width=size[1])
        canvas = Canvas(p["proj_h"], p["proj_w"], p["h_pad"], p["w_pad"])
        split = FrameSplit(
            frames, np.array([0]), modalities=("lidar", "image"), canvas=canvas, normalisation=statistics(p)
        )
        (batch,) = in_order(split, batch_size=1)
        lidar, rgb = batch.inputs["lidar"][0].numpy(), batch.inputs["image"][0].numpy()

        assert case.check(
            row=row,
            col=col,
            depth=stored_points.range,
            pcd=maps[:, row, col],
            label_at=labels[row, col],
            mask_sum=mask.sum(),
            label_hist=np.bincount(labels.reshape(-1), minlength=20),
            rgb_mean=np.asarray(frames.picture(0)).reshape(-1, 3).mean(0) / 255,
            val_shape=(len(lidar) + len(rgb), *rgb.shape[1:]),
            val_mask=batch.valid["lidar"][0].numpy(),
            val_label=batch.target[0].numpy(),
            val_pcd_norm=sampled(case, "val_pcd_norm", lidar, 2, 3),
            val_rgb=sampled(case, "val_rgb", rgb, 6, 8),
        )


def test_golden_kitti_range_projection(tmp_path):
    for number, case in enumerate(golden_cases("kitti/range")):
        p, (points,) = case.params, arrays(case, "points")
        field = tuple(p[f"fov_{side}"] for side in ("up", "down", "left", "right"))
        size = {"height": p["proj_h"], "width": p["proj_w"], "field": field}
        folder = tmp_path / str(number)

        every, published = range_maps(folder, points, **size), range_maps(folder, points, **size, lose_first=True)
        stored = range_frames(folder, points, **size).stored(0)

        assert stored.seen.all()
        pixels = {"px": stored.col, "py": stored.row, "depth": stored.range}
        # theirs loses the first point in the mask alone, which decides what a training sees
        assert case.check(range=every["range"], idx=every["idx"], mask=published["mask"], **pixels)
        assert np.array_equal(every["mask"] > 0, every["range"] >= 0)


def test_golden_kitti_augmentor():
    for case in golden_cases("kitti/augmentor"):
        p, (points,) = case.params, arrays(case, "points")

        assert case.check(
            rotated=rotated(points, rotation(p["roll"], p["pitch"], p["yaw"])),
            translated=translated(points, tuple(p["trans"])),
            flipx=flipped(points, 0),
            flipy=flipped(points, 1),
        )


def test_golden_kitti_class_weights_of_the_data_set():
    for case in golden_cases("kitti/class_weights"):
        assert case.check(focal_alpha=np.array(class_weights()))

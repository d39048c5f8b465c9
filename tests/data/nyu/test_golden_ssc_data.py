"""Geometry and labels of NYU Depth V2, compared with outputs of the published code.

Reads every ``*nyu*.json`` of tests/golden with its arrays, or of the folder in XMODAL_GOLDEN.
"""

import numpy as np
import pytest
from array_golden import golden_cases

from xmodal.data.nyu.raw import decode_room, metres
from xmodal.data.nyu.tsdf import flipped, occupied_voxels, tsdf
from xmodal.data.nyu.voxels import FACTOR, Grid, coarse_labels, coarse_tsdf, positions, regions

# Share of voxels that may be rounded differently, as stated in the golden files.
BORDERS = 0.002


def array(case, name):
    return case.arrays[f"{case.id}/in/{name}"]


def grid_of(case):
    p, image = case.params, array(case, "depth").shape
    (fx, _, cx), (_, fy, cy), _ = p["cam_k"]
    return Grid(tuple(p["voxel_size"]), p["voxel_unit"], image, (fx, fy), (cx, cy), p.get("margin", 0.24))


def agree(case, **outputs):
    """Compare all outputs of a case; cases without outputs are skipped."""
    compared = case.check(**outputs)
    assert compared or not any(name.startswith(f"{case.id}/out/") for name in case.arrays), case.id


def view_of(case):
    return array(case, "depth"), array(case, "cam_pose"), array(case, "vox_origin")


def test_golden_ssc_runs_of_a_bin_file():
    for case in golden_cases("ssc/rle_bin", system="nyu"):
        room = decode_room(array(case, "file_bytes").tobytes(), grid=Grid(tuple(case.params["voxel_size"])))

        agree(case, vox_origin=room.origin, cam_pose=room.pose, label_hr=room.labels)


def test_golden_ssc_depth_pictures():
    for case in golden_cases("ssc/depth_png", system="nyu"):
        raw = array(case, "raw")

        depth = metres(raw)

        # v / 8000 is the depth only below 8.192 m.
        short = np.where(raw % 8 == 0, depth, raw / 8000)
        agree(case, metres_rotate=depth, metres_div8000=short)


def test_golden_ssc_positions():
    for case in golden_cases("ssc/position", system="nyu"):
        grid = grid_of(case)

        reference = positions(*view_of(case), grid=grid)
        correct = positions(*view_of(case), grid=grid, rule="correct")

        binary = np.zeros(grid.voxels, np.uint8)
        binary[reference[reference > 0]] = 1
        agree(case, position=reference)
        shown = case.arrays.get(f"{case.id}/out/voxel_binary")
        assert shown is None or np.array_equal(binary[1:], shown.ravel()[1:])
        assert np.array_equal(correct[correct > 0], reference[correct > 0])


def test_golden_ssc_tsdf():
    for case in golden_cases("ssc/tsdf", system="nyu"):
        grid = grid_of(case)
        values = tsdf(*view_of(case), grid=grid)
        outputs = {
            "occupied": occupied_voxels(*view_of(case), grid=grid),
            "tsdf": values,
            "tsdf_flipped": flipped(values),
        }

        for name, actual in outputs.items():
            if case.has(name):
                expected = case.arrays[f"{case.id}/out/{name}"].astype(np.float64)
                same = np.isclose(actual.astype(np.float64), expected, rtol=case.facts["rtol"], atol=case.facts["atol"])
                assert same.mean() >= 1 - BORDERS, (case.id, name, int((~same).sum()))


@pytest.mark.parametrize(
    ("start", "compute"),
    [
        ("downsample_label", lambda case, f: {"label_lr": coarse_labels(array(case, "label_hr"), f)}),
        ("downsample_tsdf", lambda case, f: {"tsdf_lr": coarse_tsdf(array(case, "tsdf_hr"), f)}),
    ],
)
def test_golden_ssc_blocks(start, compute):
    for case in golden_cases(f"ssc/{start}", system="nyu"):
        agree(case, **compute(case, case.params.get("downscale", FACTOR)))


def test_golden_ssc_evaluation_masks():
    for case in golden_cases("ssc/nonempty", system="nyu"):
        both = array(case, "tsdf_lr"), array(case, "target_lr")

        agree(case, nonempty2=regions(*both) > 0, nonempty=regions(*both, rule="box") > 0)


def test_golden_ssc_wrong_values_fail():
    for case in golden_cases("ssc/downsample_label", system="nyu"):
        wrong = coarse_labels(array(case, "label_hr"), case.params.get("downscale", FACTOR))
        wrong.flat[0] += 1
        if case.has("label_lr"):
            with pytest.raises(AssertionError):
                case.check(label_lr=wrong)

"""What rooms of NYU Depth V2 are made of, against numbers of the published code, through what `prepare` and `load` use.

Reads every ``*nyu*.json`` of tests/golden with its arrays, or of the folder that XMODAL_GOLDEN names.
"""

import numpy as np
import pytest
from array_golden import golden_cases

from xmodal.data.nyu.raw import decode_room, metres
from xmodal.data.nyu.tsdf import flipped, occupied_voxels, tsdf
from xmodal.data.nyu.voxels import FACTOR, Grid, coarse_labels, coarse_tsdf, positions, regions

BORDERS = 0.002  # share of voxels that may be rounded otherwise, as the files say


def array(case, name):
    return case.arrays[f"{case.id}/in/{name}"]


def grid_of(case):
    p, image = case.params, array(case, "depth").shape
    (fx, _, cx), (_, fy, cy), _ = p["cam_k"]
    return Grid(tuple(p["voxel_size"]), p["voxel_unit"], image, (fx, fy), (cx, cy), p.get("margin", 0.24))


def agree(case, **found):
    """Compare all outputs that the case holds; one without outputs proves nothing and breaks nothing."""
    compared = case.check(**found)
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

        found = metres(raw)

        short = np.where(raw % 8 == 0, found, raw / 8000)  # v / 8000 is the depth below 8.192 m
        agree(case, metres_rotate=found, metres_div8000=short)


def test_golden_ssc_positions():
    for case in golden_cases("ssc/position", system="nyu"):
        grid = grid_of(case)

        found = positions(*view_of(case), grid=grid)
        correct = positions(*view_of(case), grid=grid, rule="correct")

        binary = np.zeros(grid.voxels, np.uint8)
        binary[found[found > 0]] = 1
        agree(case, position=found)
        shown = case.arrays.get(f"{case.id}/out/voxel_binary")
        assert shown is None or np.array_equal(binary[1:], shown.ravel()[1:])
        assert np.array_equal(correct[correct > 0], found[correct > 0])


def test_golden_ssc_tsdf():
    for case in golden_cases("ssc/tsdf", system="nyu"):
        grid = grid_of(case)
        values = tsdf(*view_of(case), grid=grid)
        found = {
            "occupied": occupied_voxels(*view_of(case), grid=grid),
            "tsdf": values,
            "tsdf_flipped": flipped(values),
        }

        for name, mine in found.items():
            if case.has(name):
                expected = case.arrays[f"{case.id}/out/{name}"].astype(np.float64)
                same = np.isclose(mine.astype(np.float64), expected, rtol=case.facts["rtol"], atol=case.facts["atol"])
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


def test_golden_ssc_values_that_are_wrong_fail():
    for case in golden_cases("ssc/downsample_label", system="nyu"):
        wrong = coarse_labels(array(case, "label_hr"), case.params.get("downscale", FACTOR))
        wrong.flat[0] += 1
        if case.has("label_lr"):
            with pytest.raises(AssertionError):
                case.check(label_lr=wrong)

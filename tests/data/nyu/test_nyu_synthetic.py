import filecmp
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.nyu.raw import MERGED, TABLE, read_depth, read_room
from xmodal.data.nyu.synthetic import (
    COLOURS,
    THINGS,
    draw_scene,
    hide_labels,
    label,
    look,
    make,
    origin_of,
    paint,
    patches,
    pose_of,
    rooms,
)
from xmodal.data.nyu.tsdf import flipped, tsdf
from xmodal.data.nyu.voxels import TINY, coarse_labels, coarse_tsdf, positions, regions
from xmodal.errors import InputError


def files(root):
    return sorted(path.relative_to(root) for path in Path(root).rglob("*") if path.is_file())


def test_a_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    first = make(tmp_path / "one", format="prepared", train=2, test=1)
    second = make(tmp_path / "other", format="prepared", train=2, test=1, workers=2)
    third = make(tmp_path / "third", train=2, test=1, seed=1)

    names = [name for name in files(first) if ".prepared" not in name.parts]
    # Without the markers, which contain times.
    assert len(names) == 16 and names == [name for name in files(second) if ".prepared" not in name.parts]
    assert filecmp.cmpfiles(first, second, names, shallow=False)[0] == names
    assert filecmp.cmpfiles(first, third, names, shallow=False)[0] == []


def test_training_frames_have_few_labels_and_held_out_frames_all(synthetic_nyu):
    shares = {}
    for path in sorted((synthetic_nyu / "depthbin").glob("NYU[!C]*/*.bin")):
        labels = coarse_labels(read_room(path, grid=TINY).labels)
        shares[path.stem] = (labels != 255).mean()

    assert [name[:7] for name in shares] == ["NYU0005", "NYU0006", "NYU0001", "NYU0002", "NYU0003", "NYU0004"]
    few, all_of_them = ([shares[f"NYU000{n}_0000"] for n in numbers] for numbers in ((1, 2, 3), (4, 5, 6)))
    assert max(few) < 0.08 and min(all_of_them) > 0.3


def test_nyucad_has_the_same_rooms_and_a_depth_everywhere(synthetic_nyu):
    base = synthetic_nyu / "depthbin"
    for path in sorted((base / "NYUtest").glob("*_0000.png")):
        measured, complete = (read_depth(base / part / path.name, grid=TINY) for part in ("NYUtest", "NYUCADtest"))
        rooms_of = [(base / part / f"{path.stem}.bin").read_bytes() for part in ("NYUtest", "NYUCADtest")]

        assert rooms_of[0] == rooms_of[1]
        missing = measured == 0
        assert (
            0.02 < missing.mean() < 0.25
            and np.array_equal(measured[~missing], complete[~missing])
            and complete.min() > 0.5
        )


@pytest.mark.parametrize("seed", range(5))
def test_depth_and_labels_are_consistent(seed):
    random = np.random.default_rng(seed)
    scene = draw_scene(random)
    depth, classes = look(scene, TINY)
    labels = label(scene, TINY)
    origin = origin_of(scene.pose, TINY)

    voxels = positions(depth / 1000, scene.pose, origin, grid=TINY, rule="correct")
    inside = voxels >= 0
    assert inside.mean() > 0.6 and 500 < depth.min() and depth.max() < 8000
    hit_labels = labels.ravel()[voxels[inside]]
    occupied = np.isin(hit_labels, (0, 255), invert=True)
    # Rounding moves some points by half a voxel, into empty or unknown ones.
    assert occupied.mean() > 0.6
    assert (hit_labels == classes[inside])[occupied].mean() > 0.85


def test_visible_surfaces_are_labelled_and_hidden_voxels_are_scored():
    shares = []
    for scene in rooms(6):
        depth, _ = look(scene, TINY)
        labels = coarse_labels(TABLE[label(scene, TINY)])
        sharp = flipped(tsdf((depth / 1000).astype(np.float32), scene.pose, origin_of(scene.pose, TINY), grid=TINY))
        scored = regions(coarse_tsdf(sharp), labels)
        shares.append([(labels[scored == 2] > 0).mean(), (scored == 1).mean(), (scored == 2).mean()])

    surface, hidden, visible = np.mean(shares, axis=0)
    assert surface > 0.8 and 0.03 < hidden < 0.3 and 0.03 < visible < 0.2


def test_the_window_is_visible_in_colour_and_not_in_depth():
    scene = draw_scene(np.random.default_rng(0))
    closed = scene.__class__(scene.sides, scene.back, scene.ceiling, (0, 0, 0, 0), scene.things, scene.pose)

    (depth, classes), (depth_without, classes_without) = look(scene, TINY), look(closed, TINY)

    assert (
        np.array_equal(depth, depth_without)
        and (classes != classes_without).any()
        and set(classes[classes != classes_without]) == {4}
    )
    assert set(classes_without[classes != classes_without]) == {3}


def test_a_pose_with_yaw_and_pitch_is_a_rotation():
    pose = pose_of(1.3, np.radians(9), np.radians(12)).astype(np.float64)

    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1, abs=1e-6)
    assert pose[2, 2] < 0 < pose[1, 2] and pose[2, 0] == 0 and pose[2, 1] < -0.9  # pitched down, without roll
    assert pose[0, 2] < 0  # turned to the left


def test_the_volume_is_centred_ahead_of_the_camera():
    pose = pose_of(1.3, 0.1, 0.2)

    middle = origin_of(pose, TINY)[:2] + 0.5 * 60 * 0.08

    np.testing.assert_allclose(middle, pose[:2, 2] * (0.5 * 60 * 0.08 + 1), atol=1e-6)
    assert origin_of(pose, TINY)[2] == np.float32(-0.05)


def test_all_kinds_of_furniture_occur_and_are_inside_of_their_rooms():
    scenes = rooms(40)

    kinds = {kind for scene in scenes for kind, _, _ in scene.things}
    assert kinds == set(THINGS) and {3, 4, 5, 6} == {len(scene.things) for scene in scenes}
    for scene in scenes:
        for _, low, high in scene.things:
            assert scene.sides[0] <= low[0] < high[0] <= scene.sides[1] and 0 <= low[2]
            assert high[1] <= scene.back + 1e-9


def test_labels_are_hidden_by_blocks():
    raw = np.zeros((60, 36, 60), np.uint8)

    kept = hide_labels(raw, 0.05, np.random.default_rng(0)) == 0

    by_block = kept.reshape(15, 4, 9, 4, 15, 4).mean(axis=(1, 3, 5))
    assert set(np.unique(by_block)) == {0.0, 1.0} and by_block.mean() == pytest.approx(0.05, abs=0.02)


def test_a_share_of_zero_gives_no_holes():
    assert not patches(TINY, 0.0, np.random.default_rng(0)).any()


def test_pixels_have_the_colours_of_their_classes():
    classes = np.array([[2] * 200, [9] * 200], np.uint8)

    pixels = paint(classes, np.random.default_rng(0))

    for row, raw in ((0, 2), (1, 9)):
        np.testing.assert_allclose(pixels[row].mean(axis=0), COLOURS[MERGED[raw]], atol=3)
        assert 5 < pixels[row].std(axis=0).max() < 12


def test_all_wrong_arguments_are_reported_together(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")

    with pytest.raises(InputError) as caught:
        make(tmp_path / "full", format="npz", size="tyny", train=1, test=0, labelled=0)

    message = str(caught.value)
    assert len(caught.value.problems) == 6
    assert (
        "Did you mean 'tiny'" in message
        and "train is 1" in message
        and "test is 0" in message
        and "labelled is 0" in message
    )
    assert "already exists" in message

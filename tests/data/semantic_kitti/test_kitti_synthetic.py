import hashlib

import numpy as np
import pytest
from PIL import Image

from xmodal.data.semantic_kitti.classes import training_classes
from xmodal.data.semantic_kitti.files import camera_matrix, check, read_cloud, read_words
from xmodal.data.semantic_kitti.projection import camera_pixels
from xmodal.data.semantic_kitti.synthetic import (
    CAR,
    GROUND,
    PALETTE,
    PERSON,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    Scene,
    cast,
    draw_scene,
    make,
)
from xmodal.errors import InputError

SMALL = {"sequences": "0,8", "frames": 2, "width": 160, "height": 48, "beams": 32, "turns": 256}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return make(tmp_path_factory.mktemp("synthetic") / "root", **SMALL)


def bytes_of(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def frame(root, sequence=8, number=0):
    folder = root / "sequences" / f"{sequence:02d}"
    points = read_cloud(folder / "velodyne" / f"{number:06d}.bin")
    words = read_words(folder / "labels" / f"{number:06d}.label", len(points))
    pixels = np.asarray(Image.open(folder / "image_2" / f"{number:06d}.png"))
    return points, words, pixels, camera_matrix(folder / "calib.txt")


def test_synthetic_drives_have_the_published_layout(synthetic):
    names = list(bytes_of(synthetic))

    assert [name for name in names if name.startswith("sequences/00")] == [
        "sequences/00/calib.txt",
        *(f"sequences/00/image_2/00000{number}.png" for number in range(2)),
        *(f"sequences/00/labels/00000{number}.label" for number in range(2)),
        *(f"sequences/00/velodyne/00000{number}.bin" for number in range(2)),
    ]
    report = check(synthetic)
    assert report.errors == report.warnings == []


def test_a_seed_gives_the_same_bytes_with_any_number_of_workers(synthetic, tmp_path):
    assert bytes_of(make(tmp_path / "again", **SMALL, workers=2)) == bytes_of(synthetic)


def test_another_seed_gives_other_files(synthetic, tmp_path):
    other = bytes_of(make(tmp_path / "other", **SMALL, seed=1))

    assert all(digest != other[name] for name, digest in bytes_of(synthetic).items() if not name.endswith("calib.txt"))


def test_colours_show_the_classes_of_the_points(synthetic):
    correct = total = 0
    for number in range(2):
        points, words, pixels, matrix = frame(synthetic, number=number)
        visible = camera_pixels(points, matrix, height=48, width=160)
        colours = pixels[visible.row, visible.col].astype(float)
        kinds, palette = [*PALETTE, 0], np.array([*PALETTE.values(), SKY], float)
        nearest_kinds = np.array(kinds)[np.linalg.norm(colours[:, None] - palette, axis=2).argmin(axis=1)]
        correct, total = correct + (nearest_kinds == words[visible.number] % 65536).sum(), total + len(nearest_kinds)

    assert total > 1000 and correct / total > 0.9


def test_training_sequences_keep_few_labels_and_test_sequences_all(synthetic, tmp_path):
    few, every = (frame(synthetic, sequence)[1] for sequence in (0, 8))
    many = frame(make(tmp_path / "many", **{**SMALL, "frames": 1}, keep=0.5), 0)[1]

    assert 0.005 < np.mean(few > 0) < 0.05 and np.all(every > 0) and 0.45 < np.mean(many > 0) < 0.55


def test_points_are_in_all_directions_and_a_fifth_is_in_the_picture(synthetic):
    points, _, _, matrix = frame(synthetic)
    share = len(camera_pixels(points, matrix, height=48, width=160).number) / len(points)

    assert 0.1 < share < 0.3 and {(x > 0, y > 0) for x, y in points[:, :2]} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert points[:, 2].min() > GROUND - 0.1 and ((points[:, 3] >= 0) & (points[:, 3] <= 1)).all()


def test_cars_and_persons_have_instances_in_the_high_bits(synthetic):
    words = np.concatenate([frame(synthetic, number=number)[1] for number in range(2)])
    raw, instance = words % 65536, words >> 16

    assert (instance[np.isin(raw, [CAR, PERSON])] > 0).all() and not instance[~np.isin(raw, [CAR, PERSON])].any()
    assert len(np.unique(instance[raw == CAR])) > 1 and training_classes(words).min() > 0


def test_ground_classes_have_almost_the_same_remission(synthetic):
    points, words, _, _ = frame(synthetic)
    road, walk = (points[words % 65536 == kind][:, 3] for kind in (ROAD, SIDEWALK))

    assert abs(road.mean() - walk.mean()) < 0.5 * road.std()


# ---- rays


SCENE = Scene(
    low=np.array([[5.0, -1, GROUND], [8, -1, GROUND]]),
    high=np.array([[6.0, 1, 0], [9, 1, 2]]),
    kinds=np.array([CAR, PERSON]),
    road=(-2.0, 2.0),
    walks=(-4.0, 3.0),
)


def test_rays_hit_the_expected_boxes_and_ground():
    rays = np.array([[1, 0, -0.1], [1, 0, 0.15], [1, 0, 1], [1, 0.1, -1], [0, 1, -0.7], [0, -1, -0.5], [-1, 9, -2]])

    distance, kinds, box = cast(SCENE, np.zeros(3), rays)

    assert kinds.tolist() == [CAR, PERSON, 0, ROAD, SIDEWALK, SIDEWALK, TERRAIN]
    assert distance[:3].tolist() == [5, 8, np.inf] and distance[3] == pytest.approx(1.73)
    assert box.tolist() == [0, 1, -1, -1, -1, -1, -1]


def slow_cast(scene, origin, ray):
    """The nearest intersection, computed plane by plane."""
    hits = [((GROUND - origin[2]) / ray[2], -1)] if ray[2] < 0 else []
    for number, (low, high) in enumerate(zip(scene.low, scene.high, strict=True)):
        for axis in range(3):
            for side in (low[axis], high[axis]):
                t = (side - origin[axis]) / ray[axis]
                point = origin + t * ray
                others = [other for other in range(3) if other != axis]
                if t > 0 and all(low[other] <= point[other] <= high[other] for other in others):
                    hits.append((t, number))
    return min(hits, default=(np.inf, -1))


@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (0.27, 0.05, -0.08)])
def test_rays_together_hit_the_same_as_one_by_one(origin):
    random = np.random.default_rng(0)
    scene, rays = draw_scene(random), random.normal(size=(300, 3)) * [1, 1, 0.3]

    distance, _, box = cast(scene, np.array(origin), rays)

    expected = [slow_cast(scene, np.array(origin), ray) for ray in rays]
    np.testing.assert_allclose(distance, [t for t, _ in expected])
    assert box.tolist() == [number for _, number in expected] and len(set(box.tolist())) > 5


def test_no_box_is_at_the_scanner():
    for seed in range(30):
        scene = draw_scene(np.random.default_rng(seed))

        assert ((scene.low[:, :2] > 0.5) | (scene.high[:, :2] < -0.5)).any(axis=1).all()


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames is 0: at least 1"),
        ({"width": 8}, "width is 8: at least 16"),
        ({"keep": 1.5}, "keep is 1.5: a share from 0 to 1"),
        ({"sequences": "30"}, "numbers from 0 to 21"),
        ({"format": "prepared"}, "format is 'prepared'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "none", **{**SMALL, **options})
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(InputError, match="already exists"):
        make(tmp_path, **SMALL)

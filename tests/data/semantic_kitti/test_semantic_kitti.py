from dataclasses import replace

import numpy as np
import pytest
import torch
from kitti_bytes import pixels, write_root, write_sequence
from PIL import Image, ImageEnhance

from xmodal.data import DATA, open_data, reopen
from xmodal.data.loader import Batches, Loader, Pick, in_order
from xmodal.data.semantic_kitti.classes import CLASSES, KINDS
from xmodal.data.semantic_kitti.dataset import MEAN, STD, SemanticKittiSettings, canvases, class_weights, hold_back
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.errors import InputError
from xmodal.losses.task import label_terms
from xmodal.metrics.task import Scores
from xmodal.models.network import build_for
from xmodal.seeding import mix

BOTH = ("lidar", "image")
HEIGHT, WIDTH = 48, 112
OTHER = {"nearest": "file", "file": "nearest"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two small drives with all their labels; not to be written to."""
    return make(
        tmp_path_factory.mktemp("kitti") / "root",
        sequences="0,8",
        frames=5,
        width=WIDTH,
        height=HEIGHT,
        beams=16,
        turns=200,
        keep=1.0,
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Two drives with many points per pixel, in random order, written without the code of the package."""
    random, raw = np.random.default_rng(0), [kind.raw for kind in KINDS if kind.train]
    x, y, z, remission = random.uniform([3, -0.6, -0.3, 0], [20, 0.6, 0.3, 1], (2500, 4)).T
    points = np.stack([x, x * y, x * z, remission], axis=1).tolist()
    return write_root(
        tmp_path_factory.mktemp("dense"),
        points=[*points, (-5, 0, 0, 1)],
        labels=[*random.choice(raw, 2500).tolist(), 10],
        height=HEIGHT,
        width=WIDTH,
        p2=[100, 0, 56, 2, 0, 100, 24, 0, 0, 0, 1, 0],
    )


def opened(root, *, seed=0, train_fraction=1.0, **options):
    return open_data("semantic-kitti", options={"root": root, **options}, seed=seed, train_fraction=train_fraction)


def pick(rows, epoch=None, names=BOTH):
    return Pick(dict.fromkeys(names, torch.tensor(rows)), epoch)


def picture_of(frames, number):
    return np.asarray(Image.open(frames.frames[number].image))


# ---- a slow implementation, step by step


def classes_of(frame):
    words, training_class = np.fromfile(frame.labels, "<u4") % 65536, {kind.raw: kind.train for kind in KINDS}
    return np.array([training_class[word] for word in words.tolist()])


def ten_maps(frame, matrix, recoloured, rule):
    """Range, x, y, z, remission, red, green, blue, mask and class of a whole picture, point by point."""
    maps = np.zeros((10, HEIGHT, WIDTH), np.float32)
    maps[5:8] = np.asarray(recoloured, np.float32).transpose(2, 0, 1) / np.float32(255)
    points = np.fromfile(frame.cloud, "<f4").reshape(-1, 4)
    nearest = np.full((HEIGHT, WIDTH), np.inf)
    for point, label in zip(points, classes_of(frame), strict=True):
        a, b, d = matrix @ [*point[:3].astype(float), 1.0]
        distance = np.linalg.norm(point[:3])
        if point[0] <= 0 or d <= 0 or not (0 < a / d < WIDTH and 0 < b / d < HEIGHT):
            continue
        place = int(b / d), int(a / d)
        if rule == "file" or distance <= nearest[place]:
            nearest[place] = distance
            maps[(slice(0, 5), *place)] = [distance, *point]
            maps[(slice(8, 10), *place)] = [1, label]
    return maps


def rotated_maps(maps, degrees):
    angle, (cy, cx) = np.deg2rad(degrees), ((HEIGHT - 1) / 2, (WIDTH - 1) / 2)
    rotated = np.zeros_like(maps)
    for i in range(HEIGHT):
        for j in range(WIDTH):
            x = round(np.cos(angle) * (j - cx) - np.sin(angle) * (i - cy) + cx)
            y = round(np.sin(angle) * (j - cx) + np.cos(angle) * (i - cy) + cy)
            if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                rotated[:, i, j] = maps[:, y, x]
    return rotated


def training_item(frame, matrix, *, key, sizes, pads, rule="nearest"):
    """A training item, one step after the other, with the draws of a generator with this key."""
    random = np.random.Generator(np.random.Philox(key=key))
    height, width = sizes[0] - 2 * pads[0], sizes[1] - 2 * pads[1]
    flip, degrees = random.random() < 0.5, random.uniform(-15, 15)
    top, left = random.integers(0, HEIGHT - height + 1), random.integers(0, WIDTH - width + 1)
    order, factors = random.permutation(3), [random.uniform(0.6, 1.4) for _ in range(3)]
    picture = Image.open(frame.image)
    for number in order:
        change = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
        picture = change(picture).enhance(factors[number])
    maps = ten_maps(frame, matrix, picture, rule)
    maps = rotated_maps(maps[:, :, ::-1] if flip else maps, degrees)
    maps = np.pad(maps[:, top : top + height, left : left + width], ((0, 0), (pads[0],) * 2, (pads[1],) * 2))
    mean, std = (np.array(part, np.float32)[:, None, None] for part in (MEAN, STD))
    maps[:5] = (maps[:5] - mean) / std * maps[8]
    return maps


def drawn_item(data, row, epoch):
    batch = data.train[pick([row], epoch)]
    parts = [batch.inputs["lidar"][0], batch.inputs["image"][0], batch.valid["lidar"], batch.target]
    return torch.cat([part.float() for part in parts]).numpy()


@pytest.mark.parametrize("rule", ["nearest", "file"])
def test_training_items_equal_those_of_the_slow_implementation(dense, rule):
    sizes, pads = (32, 80), (3, 2)
    data = opened(
        dense, seed=5, duplicates=rule, train_height=sizes[0], train_width=sizes[1], pad_rows=pads[0], pad_cols=pads[1]
    )
    frames, flips = data.train.frames, set()

    for epoch, row in [(0, 0), (0, 2), (1, 1), (2, 0)]:
        number, key = int(data.train.numbers["lidar"][row]), mix(5, epoch, row, "frame")
        expected = training_item(frames.frames[number], frames.matrices[0], key=key, sizes=sizes, pads=pads, rule=rule)
        flips.add(np.random.Generator(np.random.Philox(key=key)).random() < 0.5)

        np.testing.assert_allclose(drawn_item(data, row, epoch), expected, rtol=1e-5, atol=1e-6)
    assert len(flips) == 2
    other = training_item(frames.frames[number], frames.matrices[0], key=key, sizes=sizes, pads=pads, rule=OTHER[rule])
    assert 0.01 < np.mean(expected[0] != other[0]) < 0.2


def test_duplicates_chooses_the_nearest_point_or_the_last_one_in_the_file(tmp_path):
    root, classes = write_root(tmp_path, height=16, width=16), {}
    for rule in ("nearest", "file"):
        batch = opened(root, duplicates=rule).test[pick([0])]
        classes[rule] = CLASSES[int(batch.target[0, 2, 3])]

    assert classes == {"nearest": "car", "file": "building"}


def test_evaluation_samples_are_centre_crops(root):
    # Higher than the pictures, and narrower.
    data = opened(root, height=64, width=80, pad_rows=4, pad_cols=2)
    number = int(data.test.numbers["lidar"][1])
    frame, matrix = data.test.frames.frames[number], data.test.frames.matrices[8]
    maps = ten_maps(frame, matrix, Image.open(frame.image), "nearest")
    expected = np.zeros((10, 64, 80), np.float32)
    expected[:, 8:56, 2:78] = maps[:, :, 18:94]

    batch = data.test[pick([1])]
    lidar = batch.inputs["lidar"][0].numpy()

    std, mean = (np.array(part, np.float32)[:, None, None] for part in (STD, MEAN))
    np.testing.assert_allclose(lidar * std + mean * expected[8], expected[:5], atol=1e-5)
    np.testing.assert_allclose(batch.inputs["image"][0], expected[5:8], atol=1e-6)
    assert np.array_equal(batch.valid["image"][0], expected[8]) and np.array_equal(batch.target[0], expected[9])


# ---- inputs of networks and losses


def test_the_info_describes_classes_losses_and_sizes(root):
    info = opened(root).info

    assert (info.task, info.dense, info.classes, info.ignore) == ("multiclass", True, 20, 0)
    assert info.class_names == CLASSES and info.select == ("mean_iou", "max") and info.paired
    assert info.label_losses == {"focal": 1.0, "lovasz": 1.0} and info.class_weights == class_weights()
    assert info.inputs["lidar"].shape == (5, 48, 112) and info.inputs["image"].shape == (3, 48, 112)
    assert info.rows == {
        "train": dict.fromkeys(BOTH, 4),
        "valid": dict.fromkeys(BOTH, 1),
        "test": dict.fromkeys(BOTH, 5),
    }


def test_both_networks_are_trained_on_a_batch_and_scored(root):
    data = opened(root)
    batch = data.train[pick([0, 1], epoch=0)]

    for name, encoder, numbers in (("lidar", "salsanext", {"width": 4}), ("image", "camera_resnet10", {})):
        student = build_for(data.info, [name], encoder=encoder, numbers=numbers)
        outputs = student.module({name: batch.inputs[name]})
        terms = label_terms(outputs, batch.target, data.info, valid=batch.valid[name], gather=lambda rows: rows)
        sum(loss for loss, _ in terms.values()).backward()
        scores = Scores(data.info)
        scores.update(outputs.detach(), batch.targets[name], batch.valid[name])

        assert set(terms) == {"task focal", "task lovasz"} and all(
            loss.isfinite() and loss > 0 for loss, _ in terms.values()
        )
        assert 0 <= scores.compute()["mean_iou"] <= 1


def test_both_modalities_share_target_and_mask(root):
    batch = opened(root).test[pick([0, 3])]

    assert batch.targets["lidar"] is batch.targets["image"] and batch.valid["lidar"] is batch.valid["image"]
    assert (batch.target[~batch.valid["lidar"]] == 0).all() and (batch.target[batch.valid["lidar"]] > 0).all()


def test_empty_pixels_are_zero_after_normalisation(root):
    batch = opened(root).test[pick([0])]
    empty = ~batch.valid["lidar"][:, None].expand_as(batch.inputs["lidar"])

    assert (batch.inputs["lidar"][empty] == 0).all() and 0.05 < batch.valid["lidar"].float().mean() < 0.9


def test_image_statistics_normalises_pictures_by_those_of_imagenet(root):
    plain, imagenet = (opened(root, image_statistics=option, height=64) for option in ("none", "imagenet"))
    plain_image, imagenet_image = (data.test[pick([0])].inputs["image"] for data in (plain, imagenet))

    mean, std = (torch.tensor(part)[:, None, None] for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(imagenet_image, (plain_image - mean) / std, rtol=1e-4, atol=1e-5)


def test_raw_samples_are_those_of_the_files(root):
    data = opened(root)
    normalised, raw = data.test[pick([2])], data.test.raw()[pick([2])]
    number = int(data.test.numbers["image"][2])

    assert torch.equal(raw.inputs["image"][0], torch.tensor(picture_of(data.test.frames, number)).permute(2, 0, 1))
    mean, std = data.info.normalisation["lidar"].tensors()
    expected = (raw.inputs["lidar"] - mean) / std * raw.valid["lidar"][:, None]
    torch.testing.assert_close(normalised.inputs["lidar"], expected)
    for name in BOTH:
        assert np.array_equal(data.test.columns[name][data.test.numbers[name][[2]]], raw.inputs[name])
        assert np.array_equal(data.test.columns[name][int(number)], raw.inputs[name][0])


# ---- random draws


def batches(data, epoch, *, workers=0, rank=0, world=1):
    sampler = Batches(data.train.rows, paired=True, batch_size=2, seed=0, rank=rank, world=world)
    return list(Loader(data.train, sampler, workers=workers).epoch(epoch))


def test_an_epoch_is_the_same_with_workers(root):
    data = opened(root)

    for expected, actual in zip(batches(data, 3), batches(opened(root), 3, workers=1), strict=True):
        assert all(torch.equal(expected.inputs[name], actual.inputs[name]) for name in BOTH)
        assert torch.equal(expected.target, actual.target) and torch.equal(
            expected.valid["lidar"], actual.valid["lidar"]
        )


def test_processes_share_the_batches_of_a_single_process(root):
    data = opened(root)
    whole = batches(data, 1)
    parts = [batches(data, 1, rank=rank, world=2) for rank in range(2)]

    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.inputs["lidar"][0::2], first.inputs["lidar"])
        assert torch.equal(batch.inputs["lidar"][1::2], second.inputs["lidar"])


def test_epoch_row_and_seed_change_the_draws(root):
    data, other = opened(root), opened(root, seed=1)

    items = [drawn_item(data, 0, 0), drawn_item(data, 0, 1), drawn_item(data, 1, 0), drawn_item(other, 0, 0)]

    assert all(not np.array_equal(a, b) for n, a in enumerate(items) for b in items[n + 1 :])
    assert np.array_equal(drawn_item(data, 0, 0), items[0])


def test_a_single_modality_is_drawn_in_the_same_way_as_both(root):
    data = opened(root)

    alone = data.train[pick([1, 2], 4, ["lidar"])]

    assert list(alone.inputs) == ["lidar"]
    assert torch.equal(alone.inputs["lidar"], data.train[pick([1, 2], 4)].inputs["lidar"])


def test_unpaired_rows_have_different_targets(root):
    data = opened(root).apart()

    batch = data.test[Pick({"lidar": torch.tensor([0]), "image": torch.tensor([3])}, None)]

    assert torch.equal(batch.targets["lidar"], data.test[pick([0])].target)
    assert torch.equal(batch.targets["image"], data.test[pick([3])].target)
    assert not torch.equal(batch.targets["lidar"], batch.targets["image"])


def test_an_empty_share_of_a_batch_has_no_rows(root):
    batch = opened(root).test[Pick(dict.fromkeys(BOTH, torch.zeros(0, dtype=torch.long)), None)]

    assert batch.inputs["lidar"].shape == (0, 5, 48, 112) and batch.target.shape == (0, 48, 112)


def test_without_augmentation_training_samples_equal_evaluation_samples(root):
    data = opened(root, augment=False)

    trained, ordered = data.train[pick([0], 7)], next(in_order(data.train, batch_size=1))

    assert not data.train.augmented and opened(root).train.augmented and not opened(root).test.augmented
    assert torch.equal(trained.inputs["lidar"], ordered.inputs["lidar"]) and torch.equal(trained.target, ordered.target)


def test_a_cache_does_not_change_samples(root, tmp_path):
    plain = drawn_item(opened(root), 1, 1)

    for _ in range(2):
        cached = opened(root, cache=tmp_path / "cache", cache_pictures=True, keep_mb=0)

        assert np.array_equal(drawn_item(cached, 1, 1), plain)


# ---- whole frames


def test_a_whole_frame_has_a_pixel_for_every_visible_point(tmp_path):
    root = write_root(tmp_path, height=20, width=40)
    data = opened(root, height=16, width=16, train_height=16, train_width=16)

    whole = data.test.whole(1)

    points, raw = whole.points, data.test.raw().whole(1).inputs["lidar"][0]
    assert whole.frame.id == "08/000001" and whole.inputs["image"].shape == (1, 3, 32, 48)
    assert (whole.top, whole.left) == (6, 4)
    drawn_ranges = raw[0, points.row[points.seen] + whole.top, points.col[points.seen] + whole.left]
    assert points.seen.sum() == 4 and (drawn_ranges <= torch.tensor(points.range[points.seen]) + 1e-6).all()
    torch.testing.assert_close(
        data.test.raw().whole(1).inputs["image"][0, :, 6:26, 4:44],
        torch.tensor(pixels(801, 20, 40)).permute(2, 0, 1).float(),
    )


# ---- range view


def test_the_range_view_has_only_lidar(root):
    data = opened(root, view="range", range_height=16, range_width=64)
    batch = data.test[pick([0], names=["lidar"])]

    assert data.info.modalities == ("lidar",) and batch.inputs["lidar"].shape == (1, 5, 16, 64)
    assert not data.train.augmented and batch.valid["lidar"].any()


def test_the_option_points_augments_clouds_in_the_range_view(root):
    data = opened(root, view="range", range_height=16, range_width=64, points=True)
    first, second, again = (data.train[pick([0], epoch, ["lidar"])].inputs["lidar"] for epoch in (0, 1, 0))

    assert data.train.augmented and torch.equal(first, again) and not torch.equal(first, second)


def test_the_option_points_is_refused_in_the_perspective_view():
    with pytest.raises(ValueError, match="points would move away from their pixels"):
        SemanticKittiSettings(points=True)


# ---- splits


def test_the_last_frames_of_each_training_sequence_are_held_out(tmp_path):
    root = write_root(tmp_path, train=10, height=16, width=32)
    write_sequence(root, 3, frames=20, height=16, width=32)
    data = opened(root)

    names = {split: [data.ids[row] for row in data.split(split).numbers["lidar"]] for split in ("valid", "test")}

    assert names == {"valid": ["00/000009", "03/000018", "03/000019"], "test": ["08/000000", "08/000001"]}
    assert data.groups[data.train.numbers["lidar"]].tolist() == [0] * 9 + [3] * 18


def test_no_training_sequence_is_held_out_completely():
    train, valid = hold_back(np.array([0, 1, 1]), np.arange(3), 0.9)

    assert train.tolist() == [0, 1] and valid.tolist() == [2]


def test_as_published_sets_the_published_options(root):
    data = opened(root, as_published=True)
    rules = data.train.frames.rules

    assert (rules.duplicates, rules.behind, rules.lose_first) == ("file", True, True)
    assert data.valid.numbers["lidar"].tolist() == data.test.numbers["lidar"].tolist()
    assert "The test frames choose the epoch" in data.warnings[0]


def test_sequences_without_labels_can_be_predicted(root, tmp_path):
    write_root(tmp_path, height=16, width=32)
    write_sequence(tmp_path, 11, labels=None, height=16, width=32)
    data = opened(tmp_path, test="11-21")

    assert data.test.rows == dict.fromkeys(BOTH, 1) and not data.test[pick([0])].target.any()
    assert "Test sequences have no labels" in data.warnings[0]


def test_the_train_fraction_keeps_a_share_of_the_frames(root):
    assert opened(root, train_fraction=0.5).info.rows["train"] == dict.fromkeys(BOTH, 2)


def test_data_are_reopened_from_their_source(root):
    data = opened(root, rotate=3, seed=2)

    assert np.array_equal(drawn_item(reopen(data.source), 2, 1), drawn_item(data, 2, 1))


def test_pictures_of_published_size_get_published_sample_sizes():
    settings = SemanticKittiSettings()

    whole, training = canvases(settings, [(370, 1226), (376, 1241)])

    assert (whole.height, whole.width, *whole.window) == (384, 1232, 370, 1226)
    assert (training.height, training.width, *training.window) == (256, 1024, 242, 1018)


def test_small_pictures_get_smaller_samples():
    whole, training = canvases(SemanticKittiSettings(), [(96, 320), (100, 330)])

    assert (whole.window, training.window) == ((96, 320), (64, 256))


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "1,2"}, "no sequence for train: 1,2 expected, 08 present"),
        ({"test": "9"}, "no sequence for test: 9 expected"),
        ({"train": "0,8"}, "Sequence 08 is in train and in valid or test"),
        ({"train_height": 64}, "The training crop has 64x80 pixels, and a picture has only 48x112"),
        ({"pad_rows": 24}, "Samples of 48x112 pixels consist only of padding"),
        ({"height": 50}, "height is 50: a multiple of 16 was expected"),
        ({"view": "range", "modalities": ["image"]}, "the range view has no image"),
        ({"duplicates": "farthest"}, "duplicates"),
        ({"train": "all"}, "train is 'all': numbers of sequences were expected"),
    ],
)
def test_wrong_options_are_refused(root, options, message):
    with pytest.raises(InputError, match=message):
        opened(root, **options)


def test_a_training_sequence_without_labels_is_refused(tmp_path):
    write_root(tmp_path)
    write_sequence(tmp_path, 11, labels=None)

    with pytest.raises(InputError, match="Sequence 11 has no labels to learn from"):
        opened(tmp_path, train="0,11")


def test_a_single_training_frame_is_too_few(tmp_path):
    with pytest.raises(InputError, match="too few frames in .*: valid would be empty"):
        opened(write_root(tmp_path, train=1, height=16, width=16))


def test_all_problems_of_the_files_are_reported_together(tmp_path):
    root = write_root(tmp_path)
    (root / "sequences" / "00" / "calib.txt").unlink()
    (root / "sequences" / "08" / "velodyne" / "000000.bin").write_bytes(b"cut")

    with pytest.raises(InputError) as caught:
        opened(root)

    assert len(caught.value.problems) == 2


def test_an_unknown_class_is_refused_when_its_frame_is_read(tmp_path):
    root = write_root(tmp_path, labels=[2] * 6, height=16, width=16)

    with pytest.raises(InputError, match="holds the class 2 that SemanticKITTI does not have"):
        opened(root).test[pick([0])]


def test_another_augmentation_and_another_task_are_refused(root):
    for options, message in (
        ({"augment": "noise:0.1"}, "would leave the classes"),
        ({"task": "binary"}, "multiclass"),
    ):
        with pytest.raises(InputError, match=message):
            open_data("semantic-kitti", options={"root": root}, **options)


def test_a_folder_without_sequences_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no sequence with points"):
        opened(tmp_path)


def test_the_card_names_the_modalities():
    assert DATA["semantic-kitti"].modalities == BOTH


def test_settings_can_be_replaced_in_a_description(root):
    assert replace(opened(root).info, label_losses={}).label_losses == {}

"""Scoring every stored point: against a slow count from the files, what is written, votes, both rules, the teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from xmodal.data import open_data
from xmodal.data.semantic_kitti.classes import RAW
from xmodal.data.semantic_kitti.files import camera_matrix
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.diagnostics.divergence import from_logits
from xmodal.engine.processes.launch import launch
from xmodal.errors import InputError
from xmodal.recipes.semantic_kitti.scoring import evaluate, label_map, outputs_of, range_map
from xmodal.recipes.semantic_kitti.settings import KittiEvaluation
from xmodal.types import Student


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two drives of two small frames, whose sides are no multiples of 16."""
    return make(
        tmp_path_factory.mktemp("made") / "kitti",
        sequences="0,8",
        frames=3,
        width=70,
        height=38,
        beams=16,
        turns=256,
        keep=0.5,
    )


@pytest.fixture(scope="module")
def data(root):
    return open_data("semantic-kitti", options={"root": root, "augment": False})


@pytest.fixture(scope="module")
def fabric():
    return launch()


class ByRange(nn.Module):
    """Tells the class 1 + ⌊range⌋ mod 19 at each pixel, unlabeled beyond some range, or one class everywhere."""

    def __init__(self, always=None, soft=1.0, far=1000.0):
        super().__init__()
        self.always, self.soft, self.far = always, soft, far

    def forward(self, inputs):
        picture = inputs["lidar"][:, 0]
        classes = (1 + picture.floor().long() % 19) * (picture < self.far)
        if self.always is not None:
            classes = torch.full_like(classes, self.always)
        return self.soft * nn.functional.one_hot(classes, 20).movedim(-1, 1).float()


def student(**settings):
    return Student(ByRange(**settings).eval(), ("lidar",), "lidar")


def scored(data, fabric, tmp_path=None, *, split="test", students=None, teachers=None, **options):
    students = students or {"it": student()}
    folders = {} if tmp_path is None else {name: tmp_path / name for name in students}
    settings = KittiEvaluation(**options)
    return evaluate(students, data, split, settings, fabric=fabric, folders=folders, teachers=teachers or {})


def slow(root, number=8):
    """Frame by frame: told and true class of every point, whether it is in the picture, and of every pixel."""
    folder = root / "sequences" / f"{number:02d}"
    matrix, train = camera_matrix(folder / "calib.txt"), {raw: place for place, raw in enumerate(RAW)}
    for cloud in sorted((folder / "velodyne").glob("*.bin")):
        with Image.open(folder / "image_2" / f"{cloud.stem}.png") as picture:
            width, height = picture.size
        points = np.fromfile(cloud, "<f4").reshape(-1, 4)
        words = np.fromfile(folder / "labels" / f"{cloud.stem}.label", "<u4") & 0xFFFF
        pixel, nearest = [], {}
        for place, (x, y, z, _) in enumerate(points):
            a, b, d = matrix @ [float(x), float(y), float(z), 1.0]
            inside = x > 0 and d > 0 and 0 < a / d < width and 0 < b / d < height
            pixel.append((int(b / d), int(a / d)) if inside else None)
            distance = np.float32(np.sqrt(np.float32(x * x + y * y + z * z)))
            if inside and (pixel[-1] not in nearest or distance < nearest[pixel[-1]][0]):
                nearest[pixel[-1]] = distance, place
        said = {where: 1 + int(distance) % 19 for where, (distance, _) in nearest.items()}
        true = [train[int(word)] for word in words]
        told = [0 if where is None else said[where] for where in pixel]
        yield (
            cloud.stem,
            told,
            true,
            [where is not None for where in pixel],
            {where: (said[where], true[place]) for where, (_, place) in nearest.items()},
        )


def counted(pairs):
    table = np.zeros((20, 20), dtype=int)
    for told, true in pairs:
        if true:
            table[true, told] += 1
    return table


def test_points_and_pixels_are_counted_as_a_slow_loop_over_the_files_counts_them(root, data, fabric):
    points, pixels = [], []
    for _, told, true, seen, picture in slow(root):
        points += [(a, b) for a, b, inside in zip(told, true, seen, strict=True) if inside]
        pixels += picture.values()

    found, _ = scored(data, fabric)

    tables = found["it"].tables
    assert np.array_equal(tables["points"]["confusion"], counted(points))
    assert np.array_equal(tables["pixels"]["confusion"], counted(pixels))
    assert counted(points).sum() > counted(pixels).sum() > 100  # several points share a pixel


def test_the_scores_are_those_of_the_counts(data, fabric):
    found, _ = scored(data, fabric)

    table = np.array(found["it"].tables["points"]["confusion"], dtype=float)
    right = np.diag(table)
    iou = right / np.maximum(table.sum(0) + table.sum(1) - right, 1)
    share = table.sum(1) / table.sum()
    assert found["it"].scores["mean_iou"] == pytest.approx(iou[1:].mean())
    assert found["it"].scores["weighted_iou"] == pytest.approx((iou * share).sum())
    assert found["it"].scores["pixel_mean_iou"] == found["it"].tables["pixels"]["mean_iou"]
    lines = "\n".join(found["it"].lines)
    assert "road" in lines and "3-D IoU" in lines and "motorcyclist" in lines and "unlabeled" not in lines


def test_every_stored_point_is_written_as_the_benchmark_reads_it(root, data, fabric, tmp_path):
    found, notes = scored(data, fabric, tmp_path)

    for name, told, _, seen, _ in slow(root):
        path = tmp_path / "it" / "sequences" / "08" / "predictions" / f"{name}.label"
        written = np.frombuffer(path.read_bytes(), "<i4")
        assert written.tolist() == [RAW[number] for number in told]
        assert path.stat().st_size == (root / "sequences/08/labels" / f"{name}.label").stat().st_size
        assert not all(seen) and "outside of the image" in notes[0]
    assert found["it"].written == tmp_path / "it" / "sequences"
    assert len(list(found["it"].written.rglob("*"))) == 5  # nothing is left beside the three files


def test_nothing_is_written_if_nothing_is_asked_for(data, fabric, tmp_path):
    found, _ = scored(data, fabric, tmp_path, predictions=False)

    assert list(tmp_path.iterdir()) == [] and found["it"].written is None


def test_a_vote_of_the_own_pixel_alone_changes_nothing(data, fabric):
    plain, _ = scored(data, fabric)
    alone, _ = scored(data, fabric, knn=True, knn_neighbours=1, knn_search=1)
    voted, _ = scored(data, fabric, knn=True)

    assert alone["it"].tables["points"] == plain["it"].tables["points"]
    assert voted["it"].tables["points"] != plain["it"].tables["points"]
    assert voted["it"].tables["pixels"] == plain["it"].tables["pixels"]
    assert "5 neighbours of 5x5" in voted["it"].lines[0] and "their pixel" in plain["it"].lines[0]


def test_rules_differ_where_labelled_points_are_called_unlabeled(data, fabric):
    students = {"shy": student(far=12.0), "it": student()}

    ours, _ = scored(data, fabric, students=students)
    theirs, _ = scored(data, fabric, students=students, metric="reference")

    assert ours["shy"].scores["mean_recall"] < theirs["shy"].scores["mean_recall"]
    assert ours["shy"].scores["mean_precision"] == theirs["shy"].scores["mean_precision"]
    assert theirs["shy"].scores["mean_iou"] == ours["shy"].scores["mean_iou_reference"]
    assert ours["it"].scores == theirs["it"].scores  # it never says unlabeled
    assert "reference rule" in theirs["it"].lines[0]


def test_the_divergence_from_the_teacher_is_that_of_all_labelled_pixels(data, fabric):
    students = {"teacher": student(soft=2.0), "it": student(soft=0.5), "other": student(always=3)}

    found, _ = scored(data, fabric, students=students, teachers={"it": "teacher", "other": "teacher"})

    mine, theirs, target = [], [], []
    for row in range(len(data.test)):
        whole = data.test.raw().whole(row)
        said = outputs_of(students, whole, torch.device("cpu"))
        labels = label_map(data.test.frames.points(int(data.test.numbers["lidar"][row])), whole.points.size)
        mine.append(said["it"][:, labels > 0].T)
        theirs.append(said["teacher"][:, labels > 0].T)
        target.append(labels[labels > 0])
    expected = from_logits(*map(torch.cat, (mine, theirs, target)), samples=1)
    assert found["it"].scores["ncjsd"] == pytest.approx(expected.non_target_mean, abs=1e-6)
    assert found["it"].scores["tcjsd"] == pytest.approx(expected.target_mean, abs=1e-6)
    assert found["other"].scores["ncjsd"] > 0 and "ncjsd" not in found["teacher"].scores


def test_frames_without_labels_are_predicted_and_not_scored(root, data, fabric, tmp_path):
    frames = data.test.frames
    unlabelled = [replace(frame, labels=None) for frame in frames.frames]
    part = replace(data)
    part.test.frames.frames = unlabelled
    try:
        part.test.frames._kept.clear()
        found, notes = scored(part, fabric, tmp_path)
    finally:
        frames.frames = [replace(frame, labels=label_of(frame)) for frame in unlabelled]
        frames._kept.clear()

    assert found["it"].scores == {} and not found["it"].lines and "no labels" in notes[-1]
    assert len(list((tmp_path / "it").rglob("*.label"))) == 3


def label_of(frame):
    return Path(str(frame.cloud).replace("velodyne", "labels")).with_suffix(".label")


def test_in_the_view_of_directions_every_point_is_in_the_picture(root, fabric, tmp_path):
    options = {"root": root, "view": "range", "range_height": 16, "range_width": 64}

    found, notes = scored(open_data("semantic-kitti", options=options), fabric, tmp_path, knn=True)

    labels = sorted((root / "sequences/08/labels").iterdir())
    written = sorted((tmp_path / "it" / "sequences/08/predictions").iterdir())
    assert [path.stat().st_size for path in written] == [path.stat().st_size for path in labels]
    assert not notes and 0 not in np.frombuffer(written[0].read_bytes(), "<i4")
    told, labelled = found["it"].tables["points"]["confusion"], [np.fromfile(path, "<u4") & 0xFFFF for path in labels]
    assert np.sum(told) == sum((each > 0).sum() for each in labelled)


def test_answers_to_a_whole_picture_come_without_its_padding(data):
    whole = data.test.raw().whole(0)

    said = outputs_of({"it": student()}, whole, torch.device("cpu"))["it"]

    seen = whole.points.seen
    pixel = whole.points.row[seen], whole.points.col[seen]
    assert whole.inputs["lidar"].shape == (1, 5, 48, 80) and said.shape == (20, 38, 70)
    told = said.argmax(dim=0).numpy()[pixel]
    nearest = whole.inputs["lidar"][0, 0].numpy()[pixel[0] + whole.top, pixel[1] + whole.left]
    assert np.array_equal(told, 1 + nearest.astype(int) % 19) and (nearest > 0).all()


def test_ranges_and_classes_of_pixels_are_those_of_the_nearest_point(data):
    frames, number = data.test.frames, int(data.test.numbers["lidar"][0])
    stored = frames.stored(number)
    nearest = {}
    for place in np.flatnonzero(stored.seen):
        pixel = int(stored.row[place]), int(stored.col[place])
        nearest[pixel] = min(nearest.get(pixel, (np.inf, 0)), (stored.range[place], stored.labels[place]))

    ranges, labels = (draw(frames.points(number), stored.size) for draw in (range_map, label_map))

    assert (ranges == -1).sum() == 38 * 70 - len(nearest) and not labels[ranges == -1].any()
    assert all((ranges[pixel], labels[pixel]) == found for pixel, found in nearest.items())


def test_other_data_is_refused(fabric):
    with pytest.raises(InputError, match="no frames of SemanticKITTI"):
        scored(open_data("digits"), fabric)

"""What recipes with a class for every place share: stages, what the student hears, and their tables."""

import pytest
from pydantic import ValidationError

from xmodal.recipes.nyu_ssc.settings import Settings as Rooms
from xmodal.recipes.semantic_kitti.settings import Settings as Drives
from xmodal.study.dense import class_table, gap_table, teacher_file


@pytest.fixture(params=[Rooms, Drives])
def settings(request):
    return request.param


def row(name, role, seed, iou, confusion=((1, 0, 0), (0, 2, 1), (0, 0, 0))):
    test = {"iou": iou, "mean_iou": sum(iou) / len(iou), "confusion": [list(line) for line in confusion]}
    return {"name": name, "role": role, "seed": seed, "test": test}


def test_stages_end_where_they_are_told_to(settings):
    def stages(**flags):
        comparison = settings(**flags).comparison()
        return comparison.train_teacher, comparison.train_control, comparison.train_students

    assert stages() == (True, True, True)
    assert stages(until="control") == (True, True, False)
    assert stages(kd_loss=("none",)) == (False, True, True)
    assert stages(kd_loss=("none",), until="teacher") == (True, False, False)


def test_how_far_a_run_goes_is_no_part_of_what_it_is(settings):
    assert settings(until="teacher").described() == settings().described()


def test_masks_choose_the_method_and_its_options(settings):
    (plain,) = settings(kd_loss=("kl", "dkd"), kd_weight=3).comparison().entries
    assert (plain.name, plain.method) == ("kd kl+dkd", "kd")
    assert (plain.options["kd_weight"], plain.options["task_weight"], "ratio" in plain.options) == (3, 1, False)

    (masked,) = settings(kd_mask="topk", kd_ratio=0.5).comparison().entries
    assert (masked.name, masked.method) == ("kd kl, topk", "ntdh")
    assert (masked.options["mask"], masked.options["remove"], masked.options["ratio"]) == ("channels", "least", 0.5)

    assert settings(kd_loss=("none",)).comparison().entries == ()


def test_each_recipe_says_where_the_loss_of_the_teacher_is_computed():
    assert Rooms(kd_voxels="nonempty").comparison().entries[0].options["pixels"] == "scored"
    assert Drives(kd_mask="pssm").comparison().entries[0].options["cosine"] == "probabilities"
    assert "cosine" not in Drives().comparison().entries[0].options


def test_no_loss_beside_none(settings):
    with pytest.raises(ValidationError, match="none stands alone"):
        settings(kd_loss=("none", "kl"))


def test_the_teacher_of_the_same_seed_comes_first_then_any(tmp_path):
    def finished(seed):
        folder = tmp_path / f"seed-{seed}" / "teacher" / "students" / "image"
        folder.mkdir(parents=True)
        (folder / "student.safetensors").touch()
        return folder / "student.safetensors"

    assert teacher_file(tmp_path, "image", 4) is None
    third = finished(3)
    assert teacher_file(tmp_path, "image", 4) == third
    fourth = finished(4)
    assert teacher_file(tmp_path, "image", 4) == fourth
    assert teacher_file(tmp_path / "seed-3" / "teacher", "image", 4) == third  # a training in it


def test_the_table_of_classes_averages_seeds_and_leaves_out_what_never_occurs():
    rows = [
        row("teacher", "teacher", 0, [0.5, 0.2, 0.0]),
        row("teacher", "teacher", 1, [0.7, 0.4, 0.0]),
        row("kd (shuffled teacher)", "shuffled", 0, [0.1, 0.1, 0.1]),
    ]

    table = class_table(rows, ["empty", "car", "tram"])
    assert table["header"] == ["class", "share of pixels (%)", "teacher (%)"]
    assert table["rows"] == [["empty", "25.0", "60.0"], ["car", "75.0", "30.0"], ["mean of these", "100.0", "45.0"]]

    named = class_table(rows, ["empty", "car", "tram"], mean="mean_iou", skip=1, places="voxels")
    assert named["rows"] == [["car", "100.0", "30.0"], ["mean of these", "100.0", "30.0"]]


def test_the_gap_stands_beside_the_gain_over_the_control_of_the_same_seed():
    rows = [
        row("no-KD", "control", 0, [0.2, 0.2]),
        row("no-KD", "control", 1, [0.4, 0.4]),
        row("kd kl", "method", 0, [0.3, 0.3]),
        row("kd kl", "method", 1, [0.7, 0.7]),
    ]
    gaps = [
        {"seed": seed, "name": name, "ncjsd": 0.1 + seed / 10, "tcjsd": 0.5}
        for name in ("no-KD", "kd kl")
        for seed in (0, 1)
    ]

    table = gap_table(rows, gaps, ("mean_iou",), where="labelled pixels")

    assert [line[:3] for line in table["rows"]] == [["no-KD", "0.150", "0.500"], ["kd kl", "0.150", "0.500"]]
    assert table["rows"][0][3] == "–" and "20.0" in table["rows"][1][3]  # the mean of 10 and 30 points
    assert "labelled pixels of the first test frames" in table["caption"]

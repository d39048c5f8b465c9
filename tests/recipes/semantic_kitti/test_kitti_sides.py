"""Who teaches whom on SemanticKITTI, and files of the authors' code as teachers and as networks to score."""

import json
import re

import pytest
import torch
from authors_golden import authors_networks

from xmodal.cli.main import answer
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.errors import InputError
from xmodal.recipes.semantic_kitti import experiment
from xmodal.recipes.semantic_kitti.experiment import earlier_teacher
from xmodal.recipes.semantic_kitti.settings import Settings

TINY = {
    "preset": "small",
    "epochs": 1,
    "batch_size": 2,
    "student_width": 2,
    "seeds": (0,),
    "accelerator": "cpu",
    "gap_frames": 1,
    "pictures": 0,
    "shuffled": False,
    "untrained": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four frames to train on, one that chooses the epoch, two to test on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kitti") / "root"
    return make(folder, sequences="0,8", frames=3, width=64, height=32, beams=16, turns=128, keep=0.3)


@pytest.fixture(scope="module")
def tiny(root):
    return lambda **more: Settings(**{**TINY, "options": {"semantic-kitti": {"root": str(root)}}, **more})


def rows_of(result):
    return [(row["name"], row["role"], row["needs"]) for row in result["rows"]]


@pytest.mark.slow
def test_pmfnet_teaches_the_camera_and_a_run_that_is_given_it_gets_the_same_student(tiny, tmp_path):
    sides = {"teacher_network": "pmf", "student_network": "camera"}
    trained = experiment.run(tiny(**sides, out=tmp_path / "trained"))
    given = experiment.run(tiny(**sides, out=tmp_path / "given", teacher_checkpoint=tmp_path / "trained"))

    assert rows_of(trained) == [
        ("teacher", "teacher", ["lidar", "image"]),
        ("no-KD", "control", ["image"]),
        ("kd kl", "method", ["image"]),
    ]
    assert [row["test"] for row in given["rows"]] == [row["test"] for row in trained["rows"]]
    assert trained["title"] == "SemanticKITTI: a camera taught by both"
    # the whole network was trained as one: its history has the losses of both streams
    history = (tmp_path / "trained" / "seed-0" / "teacher" / "history.jsonl").read_text()
    assert {"perception", "camera task focal"} <= json.loads(history.splitlines()[0])["losses"].keys()


@pytest.mark.slow
def test_lidar_teaches_the_camera(tiny, tmp_path):
    result = experiment.run(tiny(teacher_network="lidar", student_network="camera", out=tmp_path / "run"))

    assert rows_of(result)[0] == ("teacher", "teacher", ["lidar"]) and rows_of(result)[2][2] == ["image"]


def test_each_side_has_the_network_for_its_pictures():
    settings = Settings(teacher_network="lidar", student_network="camera", preset="small")
    sides = {side: settings.plan().network(side)["encoder"] for side in ("teacher", "student")}
    assert sides == {"teacher": "salsanext", "student": "camera_resnet10"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"student_network": "camera"}, "teacher and student both are the camera network"),
        (
            {"teacher_network": "lidar", "student_network": "camera", "imagenet": "resnet34.pth"},
            "the LiDAR's network has no ImageNet weights",
        ),
    ],
)
def test_sides_that_do_not_go_together_are_refused(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(**asked)


def as_authors(path, name, *, filled=True):
    """A checkpoint in the authors' names, as their trainers write it on several devices."""
    golden = authors_networks(name)[0]
    # unfilled tensors are views of one number: a file of a few bytes
    tensors = golden.state() if filled else {k: torch.ones(()).expand(shape) for k, shape in golden.shapes.items()}
    named = {f"module.{key}": tensor for key, tensor in tensors.items()}
    torch.save({"model": named, "optimizer": {"param_groups": []}, "epoch": 49}, path)
    return path


def test_a_checkpoint_of_the_authors_is_scored_and_its_points_are_written(root, tmp_path, capsys):
    file = as_authors(tmp_path / "best_IOU_model.pth", "SalsaNext")
    command = ["evaluate", str(file), "semantic-kitti", "--semantic-kitti.root", str(root), "--json"]

    assert answer(command) == 0
    result = json.loads(capsys.readouterr().out)

    (row,) = result["rows"]
    assert row["name"] == "best_IOU_model.pth" and 0 <= row["scores"]["mean_iou"] <= 1
    words = sorted(tmp_path.glob("preds/**/08/predictions/*.label"))
    clouds = sorted((root / "sequences" / "08" / "velodyne").iterdir())
    assert [path.stat().st_size for path in words] == [path.stat().st_size // 4 for path in clouds]


def test_a_checkpoint_of_pmfnet_gives_the_teacher_that_is_asked_for(tmp_path):
    file = as_authors(tmp_path / "checkpoint.pth", "PMFNet", filled=False)

    (both,) = earlier_teacher(file, 0, "pmf").weights["teacher"].items()
    (camera,) = earlier_teacher(file, 0).weights["teacher"].items()

    assert (both[0], camera[0]) == ("lidar+image", "image")
    assert (both[1]["camera_head.weight"] == 1).all() and (camera[1]["head.weight"] == 1).all()
    with pytest.raises(InputError, match="holds PMFNet, whose LiDAR stream reads the camera's maps"):
        earlier_teacher(file, 0, "lidar")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.pth", "semantic-kitti"], "There is no file none.pth"),
        (["none.pth"], "none.pth names no data. Give it"),
        (["none.pth", "digits"], "weights of an authors' code are scored on semantic-kitti or nyu"),
        (["none.pth", "semantic-kitti", "--network", "pfm"], "There is no network 'pfm' .* Did you mean 'pmf'"),
        (["runs", "semantic-kitti", "--network", "pmf"], "--network is for a .pth file"),
    ],
)
def test_weights_that_cannot_be_scored_are_refused_with_what_to_give(
    words, sentence, root, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ["--semantic-kitti.root", str(root)] if "semantic-kitti" in words else []

    assert answer(["evaluate", *words, *options]) == 2

    assert re.search(sentence, " ".join(capsys.readouterr().err.split()))

"""The authors' files and command lines on VGGSound: folders and checkpoints as their code writes them."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from authors_golden import authors_networks
from PIL import Image

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.errors import InputError
from xmodal.models.student_file import load_student
from xmodal.recipes.vggsound import experiment

CLASSES, WIDTH, FRAMES = ("dog", "rain"), 16, 2
ORIGINAL = f"run vggsound-original --gpu -1 --narrow --epoch 1 --batch-size 4 --nb-frames {FRAMES} --seconds 1"


def authors_folder(root):
    """Train and Test with clips of two classes, and the classes in label_tiny.json, all written here."""
    random = np.random.default_rng(0)
    for split, part, count in (("Train", "audio_npy", 6), ("Test", "audio", 2)):
        for folder in ("video_jpg", part):
            (root / split / folder).mkdir(parents=True)
        for number, name in enumerate(CLASSES * count):
            stem = f"id_{split}{number:02d}_{name}_000010"
            tall = random.integers(0, 256, (FRAMES * 16, 16, 3)).astype(np.uint8)
            Image.fromarray(tall).save(root / split / "video_jpg" / f"{stem}.jpg")
            wave = random.normal(size=16_000).astype(np.float32) / 10
            if split == "Train":
                np.save(root / split / part / f"{stem}.npy", wave[None])
            else:
                soundfile.write(root / split / part / f"{stem}.wav", wave, 16_000)
    (root / "label_tiny.json").write_text(json.dumps({name: number for number, name in enumerate(CLASSES)}))
    return root


def checkpoint(path, modality):
    """A narrow checkpoint in the authors' names and order, as distributed training saves it."""
    part, head = {"audio": ("AudioModel", "fc_avg"), "video": ("VideoModel", "proj")}[modality]
    (golden, *_) = authors_networks(f"vggsound/{part}")
    state = {}
    for name, shape in golden.shapes.items():
        # every width of the published network divided by 512 / WIDTH, and as many classes as the labels have
        narrow = [max(side * WIDTH // 512, 1) if side >= 64 else side for side in shape]
        if name.startswith(head):
            narrow[0] = len(CLASSES)
        state[f"module.{name}"] = torch.rand(narrow) * 0.1 + (0.5 if name.endswith("running_var") else 0.0)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder, both checkpoints and the saliency; not to be written to."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    root = authors_folder(tmp_path_factory.mktemp("authors") / "vggsound")
    np.save(root / "audio_permute.npy", np.arange(WIDTH) * 3.0)
    checkpoint(root / "audio_12_0.5.pt", "audio")
    checkpoint(root / "video_7_0.25.pt", "video")
    return root


def folders(files):
    return f"--train_dataset {files}/Train --test_dataset {files}/Test"


def test_a_student_learns_from_the_authors_checkpoint_and_saliency(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = f"--a_ckpt {files}/audio_12_0.5.pt --v_ckpt {files}/video_7_0.25.pt"

    words = f"{ORIGINAL} --stage mfh_kd {folders(files)} {given} --modality_general {files}/audio_permute.npy"
    assert answer(words.split()) == 0

    run = tmp_path / "runs" / "vggsound-001"
    result = json.loads((run / "result.json").read_text())
    assert [(row["name"], row["best_epoch"]) for row in result["rows"]] == [
        ("teacher", -1),
        ("no-KD", -1),
        ("least 0.5", 0),
    ]
    kept = json.loads((run / "seed-0/least-0.5/result.json").read_text())["method"]["channels"]
    assert kept["keep"] == [False] * 8 + [True] * 8 and kept["note"] == "The ranking was read from audio_permute.npy."
    assert result["ranking"]["seeds"][0]["value"] == pytest.approx(np.arange(WIDTH) / (WIDTH - 1))
    # the weights that ran are those of the file, each under its own name
    theirs = torch.load(files / "video_7_0.25.pt", weights_only=True)
    student, _ = load_student(run / "seed-0/no-KD/students/video/student.safetensors")
    ours = student.module.state_dict()
    assert torch.equal(ours["head.weight"], theirs["module.proj.weight"])
    assert torch.equal(
        ours["encoders.from_video.layer2.1.bn2.weight"], theirs["module.layer2.1.conv.4.weight"]
    ) and torch.equal(ours["encoders.from_video.layer2.1.conv1.weight"], theirs["module.layer2.1.conv.0.weight"])
    (written,) = (tmp_path / "close_permute_overlap_50").iterdir()
    assert re.fullmatch(r"video_0_[\d.]+\.pt", written.name)
    assert {*torch.load(written, weights_only=True)} == {name.removeprefix("module.") for name in theirs}


@pytest.mark.slow
def test_the_stages_hand_their_files_to_each_other(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for stage in ("audio", "video"):
        assert answer(f"{ORIGINAL} --stage {stage} {folders(files)}".split()) == 0
    (audio,), (video,) = (list((tmp_path / "ckpt").glob(f"{name}_0_*.pt")) for name in ("audio", "video"))
    given = f"--a_ckpt {audio} --v_ckpt {video}"
    assert answer(f"{ORIGINAL} --stage modality_general {folders(files)} {given}".split()) == 0

    stages = [
        [entry["name"] for entry in json.loads((run / "result.json").read_text())["stages"][0]["stages"]]
        for run in sorted((tmp_path / "runs").iterdir())
    ]
    assert stages == [["teacher"], ["no-KD"], ["teacher", "no-KD"]]
    saliency = np.load(tmp_path / "audio_permute.npy")
    assert saliency.shape == (WIDTH,) and (saliency > 0).all()
    last = f"{ORIGINAL} --stage mfh_kd {folders(files)} --a_ckpt {audio} --modality_general audio_permute.npy"
    assert answer([*last.split(), "--as-published", "--out_dir", "here"]) == 0
    rows = json.loads((tmp_path / "runs" / "vggsound-004" / "result.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["teacher", "index 0.5"] and list((tmp_path / "here").glob("video_0_*.pt"))


def test_original_flags_become_settings():
    words = "--stage video --train_dataset a --test-dataset b --nb_workers 16 --nb-class 100 --lr 0.1 --epoch 3"

    settings, _ = read_settings("vggsound-original", words.split(), prog="xmodal run vggsound-original")
    ours = settings.experiment()

    assert (ours.start, ours.until, ours.workers, ours.learning_rate, ours.epochs) == ("video", "video", 16, 0.1, 3)
    assert ours.options["vggsound"] == {"train": "a", "test": "b", "frames": 32, "classes": "100"}
    assert not ours.needs_teacher and ours.needs_video
    published = settings.model_copy(update={"stage": "mfh_kd", "as_published": True}).experiment()
    assert (published.remove, published.fill, published.within, published.keep) == (("index",), "zero", 64, "last")


def settings(files, **changes):
    data = {"train": str(files / "Train"), "test": str(files / "Test"), "seconds": 1, "window": 256, "hop": 256}
    narrow = {"teacher_width": WIDTH, "student_width": WIDTH, "epochs": 1, "accelerator": "cpu"}
    return experiment.Settings(**narrow, options={"vggsound": data}, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"teacher_weights": "nowhere.pt"}, "There is no file nowhere.pt"),
        ({"video_weights": "nowhere.pt"}, "There is no file nowhere.pt"),
        ({"saliency": "nowhere.npy"}, "There is no file nowhere.npy. Expected: a NumPy array"),
        ({"saliency": "short.npy"}, "short.npy holds 3 numbers, and the teacher has 16 pooled channels"),
        ({"saliency": "words.npy"}, r"words.npy holds \(2,\) of <U1: finite numbers"),
        ({"teacher_weights": "video_7_0.25.pt"}, "The weights in .*video_7_0.25.pt do not fit this network"),
        ({"video_weights": "audio_12_0.5.pt"}, "The weights in .*audio_12_0.5.pt do not fit this network"),
        ({"start": "students", "until": "teacher"}, "start is students and until is teacher"),
    ],
)
def test_files_that_are_missing_or_of_another_kind_are_named(changes, expected, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "short.npy", np.arange(3.0))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    changes = {key: files / name if str(name).endswith("5.pt") else name for key, name in changes.items()}

    with pytest.raises((InputError, ValueError), match=expected):
        experiment.run(settings(files, **changes))

    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "add --stage, one of audio, video, modality_general, mfh_kd"),
        ("--stage mfh_kd --train_dataset a --test_dataset b", "needs --a_ckpt FILE"),
        ("--stage modality_general --a_ckpt f --train_dataset a --test_dataset b", "needs --v_ckpt FILE"),
        ("--stage audio --test_dataset b", "--train_dataset DIR is missing"),
        ("--stage audio --train_dataset nowhere --test_dataset gone", "no folder"),
    ],
)
def test_an_original_command_that_lacks_something_is_told(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert answer(["run", "vggsound-original", *words.split()]) == 2
    assert expected in capsys.readouterr().err

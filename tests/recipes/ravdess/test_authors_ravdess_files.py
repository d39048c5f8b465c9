"""Files of the authors' RAVDESS code, as bytes in their format: what each command needs of them, and what it does."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xmodal.cli.main import answer
from xmodal.recipes.ravdess import experiment
from xmodal.study.bench import folder_name

NARROW = {"teacher_width": 8, "student_width": 8, "hidden": 8, "channels": 2}
FAST = {**NARROW, "preset": "mfh-small", "epochs": 1, "accelerator": "cpu", "batch_size": 8, "seeds": "1"}
KERNELS = {"audio": (7, 5, 5), "image": (3, 3, 3)}
TAG, TEACHER, STUDENT = (
    "overlap_tag_teacher_place5_repeat10.npy",
    "teacher_mod_1_overlap.pkl",
    "student_mod_0_overlap.pkl",
)


def state(modality, *, channels=2, hidden=8, width=8):
    """A state dict of the authors' network, in their order: conv1 to conv3, fc1 to fc3."""
    random, sizes = torch.Generator().manual_seed(len(modality) + channels), (channels, 2 * channels, 4 * channels)
    inputs = {"audio": 1, "image": 3}[modality]
    shapes = [
        (size, before, kernel, kernel)
        for size, before, kernel in zip(sizes, (inputs, *sizes), KERNELS[modality], strict=False)
    ]
    shapes += [(hidden, 7 * 14 * sizes[-1]), (width, hidden), (8, width)]
    named = OrderedDict()
    for layer, shape in zip(("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"), shapes, strict=True):
        named[f"{layer}.weight"] = 0.3 * torch.randn(shape, generator=random)
        named[f"{layer}.bias"] = 0.1 * torch.randn(shape[0], generator=random)
    return named


def write(folder, *names, **sizes):
    """The files of these names in a new folder; the tag rises from channel to channel."""
    folder.mkdir()
    for name in names:
        if name == TAG:
            np.save(folder / name, np.linspace(0, 1, sizes.get("width", 8)))
        else:
            torch.save(state("audio" if name == TEACHER else "image", **sizes), folder / name)
    return folder


def run(ravdess_root, out, **changes):
    settings = {**FAST, "options": {"ravdess": {"root": str(ravdess_root)}}, "out": out, **changes}
    result = experiment.run(experiment.Settings(**settings))
    rows = {row["name"]: row for row in result["rows"]}
    return result, rows


def kept(out, name):
    content = json.loads((out / "seed-0" / folder_name(name) / "result.json").read_text())
    return content["method"]["channels"]


def test_students_need_the_teacher_and_the_tag_and_no_student(ravdess_root, tmp_path):
    two, three = write(tmp_path / "two", TEACHER, TAG), write(tmp_path / "three", TEACHER, TAG, STUDENT)

    result, rows = run(ravdess_root, tmp_path / "first", saliency=two, mode="general,specific")
    _, same = run(ravdess_root, tmp_path / "second", saliency=three, mode="general,specific")

    scored = {name: row["test"] for name, row in rows.items()}
    assert scored == {name: row["test"] for name, row in same.items()} and "teacher" in scored
    # a rising tag: the channels 6 and 7 of 8 are general
    assert kept(tmp_path / "first", "kl:1, general")["keep"] == [False] * 6 + [True] * 2
    assert kept(tmp_path / "first", "kl:1, specific")["keep"] == [True] * 2 + [False] * 6
    assert not list((tmp_path / "first").glob("seed-0/mfh-joint*"))
    assert any(f"The teacher and the ranking were taken from {two}" in note for note in result["notes"])


def test_the_teacher_alone_is_enough_for_random_and_all_channels(ravdess_root, tmp_path):
    folder = write(tmp_path / "results", TEACHER)

    result, rows = run(ravdess_root, tmp_path / "run", saliency=folder, mode="none,random")

    assert {"kl:1", "kl:1, random"} <= rows.keys() and "ranking" not in result
    assert sum(kept(tmp_path / "run", "kl:1, random")["keep"]) == 2 and all(kept(tmp_path / "run", "kl:1")["keep"])
    assert "Saliency by channel" not in (tmp_path / "run" / "report.html").read_text()


ORIGINAL = "run ravdess-original --gpu -1 --narrow --num-epochs 1 --batch-size 0 --data {} --results {}"


@pytest.mark.parametrize(
    ("names", "flags", "missing"),
    [
        ((TEACHER,), "--mode 1 --eval_tag", TAG),
        ((TEACHER,), "--mode 2 --eval_tag", TAG),
        ((TAG, STUDENT), "--mode 0 --eval_tag", TEACHER),
        ((TEACHER, TAG), "--cal_tag", STUDENT),
        ((TEACHER,), "--system ntdh --mode 1", TAG),
    ],
)
def test_one_missing_file_is_one_sentence_that_names_it(
    names, flags, missing, ravdess_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "results", *names, channels=8, hidden=64, width=32)

    status = answer([*ORIGINAL.format(ravdess_root, folder).split(), *flags.split()])

    error = capsys.readouterr().err
    others = {TEACHER, STUDENT, TAG} - {missing}
    assert status == 2 and f"{folder / missing} is missing" in error and not any(name in error for name in others)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("--mode 1 --eval_tag", "kl:0.125, general"),
        pytest.param("--system ntdh --mode -1 --distill kd", "kd", marks=pytest.mark.slow),
        ("--system ntdh --mode 2 --as-published", "hint, specific"),
    ],
)
def test_the_documented_files_go_through_the_command_to_a_table(
    flags, name, ravdess_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "results", TEACHER, TAG, channels=8, hidden=64, width=32)

    status = answer([*ORIGINAL.format(ravdess_root, folder).split(), *flags.split()])

    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert any(line.startswith(name) for line in printed.out.splitlines()) and "report.html" in printed.out


@pytest.mark.parametrize("suffix", [".pkl", pytest.param(".safetensors", marks=pytest.mark.slow)])
def test_a_teacher_that_was_trained_alone_is_used_and_ranked_here(suffix, ravdess_root, tmp_path):
    path = tmp_path / f"audio{suffix}"
    if suffix == ".pkl":
        # as torch.nn.DataParallel names them
        torch.save({f"module.{name}": tensor for name, tensor in state("audio").items()}, path)
    else:
        ours = {name.replace("fc3", "head"): tensor for name, tensor in state("audio").items()}
        save_file({name if "head" in name else f"encoders.from_audio.{name}": x for name, x in ours.items()}, path)

    result, rows = run(ravdess_root, tmp_path / "run", teacher_weights=path, mode="general")

    assert list((tmp_path / "run").glob("seed-0/mfh-joint*")), (
        "the ranking compares with the student of a joint training"
    )
    value = np.array(result["ranking"]["seeds"][0]["value"])
    keep = np.array(kept(tmp_path / "run", "kl:1, general")["keep"])
    assert value[keep].min() >= value[~keep].max() and keep.sum() == 2
    saved = load_file(next((tmp_path / "run" / "seed-0" / "teacher").rglob("*.safetensors")))
    head = next(tensor for name, tensor in saved.items() if name.endswith("head.weight"))
    assert torch.equal(head, state("audio")["fc3.weight"]) and rows["teacher"]["role"] == "teacher"
    assert any(f"The teacher was taken from {path}" in note for note in result["notes"])


@pytest.mark.slow
def test_a_teacher_can_be_trained_alone_here(ravdess_root, tmp_path):
    result, rows = run(ravdess_root, tmp_path / "run", joint=False, mode="general")

    assert rows["teacher"]["role"] == "teacher" and (tmp_path / "run" / "seed-0" / "teacher").is_dir()
    assert result["ranking"]["seeds"][0]["value"]


def test_a_ranking_of_another_teacher_is_refused(ravdess_root, tmp_path, capsys):
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "settings.json").write_text("{}")
    folder = write(tmp_path / "results", TEACHER)
    words = f"run ravdess --ravdess.root {ravdess_root} --saliency {tmp_path / 'earlier'}"

    status = answer([*words.split(), "--teacher-weights", str(folder / TEACHER), "--preset", "mfh-small"])

    assert status == 2 and "is about the teacher of that run" in capsys.readouterr().err


def test_weights_of_other_widths_are_told(ravdess_root, tmp_path, capsys):
    folder = write(tmp_path / "results", TEACHER, TAG, hidden=9)
    words = f"run ravdess --ravdess.root {ravdess_root} --saliency {folder} --out {tmp_path / 'run'} --preset mfh-small"

    status = answer(words.split())

    assert status == 2 and "do not fit this network" in capsys.readouterr().err and not (tmp_path / "run").exists()

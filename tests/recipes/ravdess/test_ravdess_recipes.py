"""The recipes on RAVDESS, on made recordings and with networks of a few channels."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.errors import InputError
from xmodal.recipes.ravdess import experiment, original, saliency
from xmodal.recipes.ravdess.authors_files import earlier_seed, read_weights
from xmodal.study.channels import LOSSES
from xmodal.study.ranking_file import read_ranking

NARROW = {"teacher_width": 8, "student_width": 8, "hidden": 8, "channels": 2}
FAST = {**NARROW, "preset": "mfh-small", "epochs": 1, "accelerator": "cpu", "batch_size": 8}


def options(root):
    return {"options": {"ravdess": {"root": str(root)}}}


@pytest.fixture(scope="module")
def ranked(ravdess_root, tmp_path_factory):
    """A run of ravdess-saliency with one seed and the authors' files."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("saliency") / "run"
    settings = saliency.Settings(**FAST, **options(ravdess_root), out=out, published_files=True)
    return saliency.run(settings), out


@pytest.fixture(scope="module")
def teacher_outputs(ravdess_root, tmp_path_factory):
    """A run of ravdess with all modes and two seeds, each with networks of its own."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("students") / "run"
    settings = experiment.Settings(**FAST, **options(ravdess_root), seeds="2", out=out)
    return experiment.run(settings), out


def findings(out, seed, name):
    content = json.loads((out / f"seed-{seed}" / name / "result.json").read_text())
    return content["method"]["channels"]


def test_saliency_leaves_the_files_of_the_authors_beside_ours(ranked):
    result, out = ranked

    tag = np.load(out / "seed-0" / "overlap_tag_teacher_place5_repeat10.npy", allow_pickle=False)
    name, found = read_ranking(out / "seed-0" / "saliency.npz")

    assert tag.dtype == np.float64 and tag.shape == (8,) and tag.min() == 0 and tag.max() == 1
    assert tag.tolist() == found.value.tolist() == result["ranking"]["seeds"][0]["value"]
    assert found.draws.shape == (10, 8) and found.form == "closed" and "fc2_relu" in name
    assert {path.name for path in (out / "seed-0").glob("*.pkl")} == {
        "teacher_mod_1_overlap.pkl",
        "student_mod_0_overlap.pkl",
    }


def test_the_authors_weights_have_their_names_and_come_back_under_ours(ranked):
    _, out = ranked

    theirs = torch.load(out / "seed-0" / "teacher_mod_1_overlap.pkl", weights_only=True)
    ours = load_file(out / "seed-0" / "teacher.safetensors")
    back = read_weights(out / "seed-0" / "teacher_mod_1_overlap.pkl", "audio")

    layers = ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3")
    assert list(theirs) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert back.keys() == ours.keys() and all(torch.equal(back[name], ours[name]) for name in ours)


def test_the_page_draws_the_ranking_by_channel_and_sorted(ranked):
    result, out = ranked
    page = (out / "report.html").read_text()

    assert "Saliency by channel, place 5" in page and "The same, sorted" in page and page.count("<svg") == 2
    assert "the lowest and the highest 25" in page and "no method to judge" not in page
    assert [table["title"] for table in result["tables"]] == ["The two networks of the joint training"]


def test_the_saliency_does_not_read_the_test_split(ranked):
    result, _ = ranked

    assert result["rows"] == [] and "test split is not read" in result["tables"][0]["caption"]


@pytest.mark.parametrize(("place", "channels"), [(1, 2), (3, 8), (4, 8)])
def test_channels_of_every_place_are_ranked_maps_as_a_whole(place, channels, ranked, ravdess_root, tmp_path):
    settings = {**FAST, **options(ravdess_root), "place": place, "permutations": 2, "networks": ranked[1]}

    result = saliency.run(saliency.Settings(**settings, out=tmp_path / "run"))

    assert len(result["ranking"]["seeds"][0]["value"]) == channels
    assert (tmp_path / "run" / "seed-0" / f"overlap_tag_teacher_place{place}_repeat2.npy").exists()


def test_networks_of_another_run_are_ranked_as_they_are(ranked, ravdess_root, tmp_path):
    before, out = ranked
    settings = {**FAST, **options(ravdess_root), "networks": out, "out": tmp_path / "run"}

    result = saliency.run(saliency.Settings(**settings))

    assert result["ranking"]["seeds"][0]["value"] == before["ranking"]["seeds"][0]["value"]
    assert not (tmp_path / "run" / "seed-0" / "mfh-joint-training").exists()


def test_the_table_has_every_mode_beside_its_control_and_no_other_teacher(teacher_outputs):
    result, _ = teacher_outputs

    assert [(entry["name"], entry["role"], entry["n"]) for entry in result["summary"]] == [
        ("no-KD", "control", 2),
        ("kl:1", "method", 2),
        ("kl:1, random", "method", 2),
        ("kl:1, general", "method", 2),
        ("kl:1, specific", "method", 2),
    ]


def test_modes_remove_the_channels_that_they_say(teacher_outputs):
    _, out = teacher_outputs
    folders = {mode: f"kl-1{'-' if mode else ''}{mode}" for mode in ("", "random", "general", "specific")}

    found = {mode: findings(out, 0, folder) for mode, folder in folders.items()}

    saliency = np.array(found[""]["saliency"])
    keep = {mode: np.array(content["keep"]) for mode, content in found.items()}
    assert all(content["saliency"] == found[""]["saliency"] for content in found.values())
    assert keep[""].all() and [keep[mode].sum() for mode in ("random", "general", "specific")] == [2, 2, 2]
    assert saliency[keep["general"]].min() >= saliency[~keep["general"]].max()
    assert saliency[keep["specific"]].max() <= saliency[~keep["specific"]].min()


def test_every_seed_has_its_own_pair_of_networks_trained_once(teacher_outputs):
    result, out = teacher_outputs

    joint = [load_file(out / f"seed-{seed}" / "mfh-joint-training" / "best" / "teacher.safetensors") for seed in (0, 1)]

    assert not torch.equal(joint[0]["head.weight"], joint[1]["head.weight"])
    assert result["ranking"]["seeds"][0]["value"] != result["ranking"]["seeds"][1]["value"]
    assert not any("share one pair" in note for note in result["notes"])


def test_what_the_authors_expect_is_tested_against_each_of_the_others(teacher_outputs):
    result, out = teacher_outputs
    (expected,) = result["expectations"]
    scores = {(row["name"], row["seed"]): row["test"]["accuracy"] for row in result["rows"]}

    assert [test["second"] for test in expected["tests"]] == ["kl:1, specific", "kl:1, random", "kl:1"]
    gaps = [scores["kl:1, general", seed] - scores["kl:1, specific", seed] for seed in (0, 1)]
    assert expected["tests"][0]["difference"] == pytest.approx(np.mean(gaps))
    page = (out / "report.html").read_text()
    assert "The authors expect (kl:1)" in page and "General against the others" in page
    assert "<h2>Channels of the teacher</h2>" not in page and page.count("Saliency by channel") == 1


def test_students_of_an_earlier_saliency_hear_its_teacher(ranked, ravdess_root, tmp_path):
    _, out = ranked
    settings = {**FAST, **options(ravdess_root), "seeds": "2", "mode": "general", "saliency": out}

    result = experiment.run(experiment.Settings(**settings, out=tmp_path / "run"))

    value = read_ranking(out / "seed-0" / "saliency.npz")[1].value.tolist()
    assert [one["value"] for one in result["ranking"]["seeds"]] == [value, value]
    assert not list((tmp_path / "run").glob("seed-*/mfh-joint-training"))
    assert any("taken from" in note for note in result["notes"])
    assert any("share one pair of networks" in note for note in result["notes"])


def test_a_resumed_run_ends_with_the_same_result(teacher_outputs, ravdess_root, tmp_path):
    result, out = teacher_outputs
    copy = tmp_path / "cut"
    shutil.copytree(out, copy)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "seed-1" / "kl-1-specific")

    again = experiment.run(experiment.Settings(**FAST, **options(ravdess_root), seeds="2", out=copy, resume=True))

    same = ("rows", "tables", "expectations", "ranking")
    assert {key: again[key] for key in same} == {key: result[key] for key in same}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden": 9}, "hidden was 8 and is now 9"),
        ({"teacher": ("image",), "student": ("audio",)}, "teacher was"),
        ({"options": {"ravdess": {"root": "elsewhere"}}}, "the data was different"),
    ],
)
def test_networks_of_another_kind_are_refused(changes, sentence, ranked, ravdess_root):
    settings = experiment.Settings(**{**FAST, **options(ravdess_root), **changes})

    with pytest.raises(InputError, match=sentence):
        earlier_seed(ranked[1], 0, settings)


def test_folders_that_hold_no_networks_are_refused(teacher_outputs, ravdess_root, tmp_path):
    settings = experiment.Settings(**FAST, **options(ravdess_root))

    with pytest.raises(InputError, match="is a run of 'ravdess'"):
        earlier_seed(teacher_outputs[1], 0, settings)
    with pytest.raises(InputError, match="teacher_mod_1_overlap.pkl, .*student_mod_0_overlap.pkl are missing"):
        earlier_seed(tmp_path, 0, settings)
    (tmp_path / "teacher_mod_1_overlap.pkl").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="can't be read as tensors"):
        read_weights(tmp_path / "teacher_mod_1_overlap.pkl", "audio")


ORIGINAL = "run ravdess-original --gpu -1 --narrow --num-epochs 1 --num-permute 2 --batch-size 0"


def test_the_original_command_lines_run_word_for_word(ravdess_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ravdess_root, tmp_path / "data")

    first = answer([*ORIGINAL.split(), "--place", "5", "--first_time", "--cal_tag"])
    second = answer([*ORIGINAL.split(), "--ratio", "0.75", "--mode", "1", "--eval_tag"])

    assert (first, second) == (0, 0)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "overlap_tag_teacher_place5_repeat2.npy",
        "student_mod_0_overlap.pkl",
        "teacher_mod_1_overlap.pkl",
    ]
    rows = json.loads((tmp_path / "runs" / "ravdess-001" / "result.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["no-KD", "teacher", "kl:0.125, general"]


def test_original_flags_become_settings():
    words = "--first-time --num_runs 3 --stu-type 1 --mode -1 --gt_weight 0.5 --distill dkd --num-workers 2 --seed 4"

    settings, _ = read_settings("ravdess-original", words.split(), prog="xmodal run ravdess-original")
    students, ranking = settings.students(), settings.ranking()

    assert students.mode == ("none",) and students.seeds == (4, 5, 6) and students.loss == ("dkd",)
    assert (students.teacher, students.student) == (("image",), ("audio",))
    assert (students.task_weight, students.kd_weight, students.workers, students.epochs) == (0.5, 1.0, 2, 40)
    assert students.comparison().entries[0].options["loss"] == LOSSES["dkd"] and students.fill == "zero"
    assert ranking.networks is None and ranking.seeds == (4,) and ranking.optimizer == "sgd"
    assert original.Settings(mode=2).students().epochs == 100 and original.Settings().students().workers == 0
    assert original.Settings(num_workers=10).students().workers == 10


def test_the_system_ntdh_has_the_defaults_of_its_script():
    settings, _ = read_settings("ravdess-original", ["--system", "ntdh"], prog="xmodal run ravdess-original")
    students = settings.students()

    assert (settings.eval_tag, settings.first_time, settings.batch_size2) == (True, False, 256)
    assert (students.preset, students.mode, students.epochs, students.loss) == ("ntdh", ("random",), 40, ("hint",))
    # the script ranks by the squared difference, and discards the divergence that it computes as well
    assert (students.fill, students.distance) == ("zero", "mse")
    assert original.Settings(distill="rkd") == original.Settings(system="ntdh", distill="rkd")
    with pytest.raises(InputError, match="--distill is a flag of NTDH's main.py"):
        read_settings("ravdess-original", "--system mfh --distill hint".split(), prog="xmodal run ravdess-original")


def test_kd_is_the_authors_synonym_of_kl():
    kd, kl = (original.Settings(distill=name).students().comparison().entries[0] for name in ("kd", "kl"))

    assert kd.options == kl.options and kl.options["loss"] == ("kl:1",)


def test_an_original_command_that_asks_for_nothing_is_told(capsys):
    assert answer(["run", "ravdess-original"]) == 2
    assert "--first-time and --cal-tag, or --eval-tag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"epochs": 100, "loss": ("kl:0.125",), "fill": "mean", "hidden": 1024, "distance": "mse"}),
        ("--preset ntdh", {"epochs": 40, "loss": ("hint",), "fill": "zero", "distance": "ncjsd", "channels": 32}),
        ("--preset mfh-small", {"epochs": 30, "loss": ("kl:1",), "fill": "mean", "hidden": 64, "optimizer": "adam"}),
        ("--preset ntdh-small --epochs 3", {"epochs": 3, "loss": ("hint",), "channels": 8}),
        ("--mode -1,0,1,2", {"mode": ("none", "random", "general", "specific")}),
        ("--loss dkd(alpha=1,beta=8):2,sp+kl:0.5", {"loss": ("dkd(alpha=1,beta=8):2", "sp+kl:0.5")}),
    ],
)
def test_a_preset_sets_flags_and_flags_go_on_top(words, expected):
    settings, _ = read_settings("ravdess", words.split(), prog="xmodal run ravdess")

    assert {name: getattr(settings, name) for name in expected} == expected


def test_losses_are_those_of_the_zoo_or_of_the_authors():
    zoo, authors = (experiment.Settings(preset=preset, loss=("hint", "sp+kl:0.5")) for preset in ("mfh", "ntdh"))

    assert [zoo.terms(loss) for loss in zoo.loss] == [("hint",), ("sp", "kl:0.5")]
    assert [authors.terms(loss) for loss in authors.loss] == [LOSSES["hint"], ("sp", "kl:0.5")]
    assert {entry.options["fill"] for entry in experiment.Settings(as_published=True).comparison().entries} == {
        "batch_mean"
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--mode generel", "Did you mean 'general'"),
        ("--preset mhf", "Did you mean 'mfh'"),
        ("--ratio 1", "--ratio is 1"),
        ("--place 7", "--place is 7"),
        ("--teacher audio --student audio", "expected audio for one of them and image for the other"),
        ("--methods kd", "no option --methods"),
    ],
)
def test_wrong_flags_are_sentences(words, sentence):
    with pytest.raises(InputError) as caught:
        read_settings("ravdess", words.split(), prog="xmodal run ravdess")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("change", "sentence"), [({"loss": ("kll",)}, "kll"), ({"options": {}}, "--ravdess.root DIR")])
def test_what_cannot_be_trained_leaves_no_folder(change, sentence, ravdess_root, tmp_path):
    with pytest.raises(InputError, match=sentence):
        experiment.run(experiment.Settings(**{**FAST, **options(ravdess_root), **change}, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()

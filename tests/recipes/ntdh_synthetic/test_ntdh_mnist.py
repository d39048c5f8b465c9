import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.data import open_data
from xmodal.errors import InputError
from xmodal.models.mlp import layer_name
from xmodal.recipes.ntdh_synthetic.mnist import Settings, run
from xmodal.study.bench import Bench
from xmodal.study.channels import LOSSES

FAST = {
    "train_fraction": 0.04,
    "epochs": 1,
    "teacher_width": 4,
    "student_width": 4,
    "accelerator": "cpu",
    "batch_size": 32,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run with two seeds and all modes."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("ntdh-mnist") / "run"
    return run(Settings(**FAST, seeds="2", out=out)), out


def test_the_table_has_every_mode_beside_its_control(finished):
    result, _ = finished

    assert [(entry["name"], entry["role"], entry["n"]) for entry in result["summary"]] == [
        ("teacher", "teacher", 2),
        ("no-KD", "control", 2),
        ("kl", "method", 2),
        ("kl, random", "method", 2),
        ("kl, general", "method", 2),
        ("kl, specific", "method", 2),
    ]
    assert result["data"] == "mnist" and "stand-in" in result["title"]
    assert any("procedural" in note for note in result["notes"])


def test_modes_remove_the_channels_that_they_say(finished):
    _, out = finished

    def channels(mode):
        name = f"kl-{mode}" if mode else "kl"
        folder = next(path for path in (out / "seed-0").iterdir() if path.name.replace(",", "") == name)
        return json.loads((folder / "result.json").read_text())["method"]["channels"]

    found = {mode: channels(mode) for mode in ("", "random", "general", "specific")}

    saliency = np.array(found[""]["saliency"])
    keep = {mode: np.array(content["keep"]) for mode, content in found.items()}
    assert found["random"]["saliency"] == [], "what is drawn needs no ranking"
    assert all(found[mode]["saliency"] == found[""]["saliency"] for mode in ("general", "specific"))
    assert len(saliency) == 16 and keep[""].all()
    assert [keep[mode].sum() for mode in ("random", "general", "specific")] == [4, 4, 4]
    assert saliency[keep["general"]].min() >= saliency[~keep["general"]].max()
    assert saliency[keep["specific"]].max() <= saliency[~keep["specific"]].min()
    assert {content["place"] for content in found.values()} == {layer_name(1, "mnist")}


def test_both_networks_are_trained_jointly_once_per_seed(finished):
    _, out = finished

    stages = [path for path in (out / "seed-1").iterdir() if path.name.startswith("ntdh")]

    assert [path.name for path in stages] == ["ntdh-joint-training-ncjsd"]


def test_rows_say_what_was_heard_and_the_table_averages_it(finished):
    result, _ = finished

    heard = [row["channels"] for row in result["rows"] if row["name"] == "kl, random"]

    assert all(0 <= entry["teacher_accuracy"] <= 1 and entry["ncjsd"] > 0 for entry in heard)
    (table,) = result["tables"]
    line = next(row for row in table["rows"] if row[0] == "kl, random")
    assert line[2].startswith(f"{np.mean([entry['ncjsd'] for entry in heard]):.3f} (")
    assert len(table["rows"]) == 4 and "75 % of the channels" in table["caption"]


def test_heat_maps_are_kept_for_every_mode_and_drawn_on_the_page(finished):
    result, out = finished

    with np.load(out / "heat_maps.npz") as arrays:
        maps, pictures, labels = arrays["maps"], arrays["pictures"], arrays["labels"]
    page = (out / "report.html").read_text()

    assert maps.shape == (4, 10, 28, 28) and pictures.shape == (10, 1, 28, 28)
    assert labels.tolist() == list(range(10)) and 0 <= pictures.min() and pictures.max() <= 255.01
    assert maps.min() == 0 and maps.max() == 1 and not np.allclose(maps[0], maps[1])
    assert result["heat_maps"]["names"] == ["kl", "kl, random", "kl, general", "kl, specific"]
    assert (
        page.count("data:image/png") == 5
        and "Where the teacher looks" in page
        and "Teachers without the removed channels" in page
    )


def test_a_resumed_run_ends_with_the_same_result(finished, tmp_path):
    result, out = finished
    copy = tmp_path / "cut"
    shutil.copytree(out, copy)
    (copy / "result.json").unlink()
    for folder in (copy / "seed-1").iterdir():
        if folder.name.startswith(("kl-specific", "kl,-specific")):
            shutil.rmtree(folder)

    again = run(Settings(**FAST, seeds="2", out=copy, resume=True))

    assert again["rows"] == result["rows"] and again["tables"] == result["tables"]
    assert (copy / "heat_maps.npz").exists()


def test_all_losses_of_the_authors_and_crd_are_trained_from_the_command_line(tmp_path):
    flags = "--train-fraction 0.04 --epochs 1 --teacher-width 4 --student-width 4 --seeds 1 --accelerator cpu"
    words = ["run", "ntdh-mnist", *flags.split(), "--modes", "general", "--distill", ",".join(LOSSES)]

    assert answer([*words, "--out", str(tmp_path / "run")]) == 0

    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    assert [row["name"] for row in rows[2:]] == [f"{loss}, general" for loss in LOSSES]


def test_sides_can_be_exchanged():
    entries = Settings(teacher="mnist_m", student="mnist", modes="random").comparison().entries

    assert entries[0].options["layer"] == layer_name(1, "mnist_m")


def test_as_published_networks_end_in_an_activation_and_test_digits_choose_the_epoch():
    plain, published = (Settings(**FAST, as_published=flag) for flag in (False, True))
    data = open_data("mnist", options={"stand_in": True, "noise": 0.0})

    heads = [Bench(data, one.plan(), seed=0, fabric=None).network(("mnist",)).module.head for one in (plain, published)]

    assert isinstance(heads[0], nn.Linear) and isinstance(heads[1][1], nn.LeakyReLU)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"epochs": 8, "noise": 0.2, "stand_in": True, "distill": ("kl",), "student_width": 64}),
        ("--preset published", {"epochs": 50, "noise": 1.0, "stand_in": False, "distill": ("similarity",)}),
        ("--preset published --epochs 3 --mnist.noise 0.5", {"epochs": 3, "noise": 0.5, "student_width": 256}),
        ("--preset quick --mnist.noise 0.1 --distill kl,dkd", {"noise": 0.1, "distill": ("kl", "dkd")}),
    ],
)
def test_a_preset_sets_flags_and_flags_go_on_top(words, expected):
    settings, _ = read_settings("ntdh-mnist", words.split(), prog="xmodal run ntdh-mnist")

    found = {**settings.model_dump(), **settings.options["mnist"]}
    assert {name: found[name] for name in expected} == expected


def test_presets_hold_in_python_too():
    published = Settings(preset="published", options={"mnist": {"root": "somewhere"}})

    assert published.epochs == 50 and published.options == {"mnist": {"noise": 1.0, "root": "somewhere"}}
    assert Settings(options={"mnist": {"noise": 0.4}}).options["mnist"] == {"stand_in": True, "noise": 0.4}
    assert Settings.model_validate(published.model_dump()) == published


def test_published_preset_asks_for_the_real_files(tmp_path):
    with pytest.raises(InputError, match="Give --mnist.root DIR"):
        run(Settings(preset="published", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--distill kll", "Did you mean 'kl'"),
        ("--modes generel", "Did you mean 'general'"),
        ("--preset quik", "Did you mean 'quick'"),
        ("--ratio 1", "--ratio is 1"),
        ("--methods kd", "no option --methods"),
        ("digits", "does not know what to do with 'digits'"),
    ],
)
def test_wrong_flags_are_sentences(words, sentence):
    with pytest.raises(InputError) as caught:
        read_settings("ntdh-mnist", words.split(), prog="xmodal run ntdh-mnist")
    assert sentence in str(caught.value)

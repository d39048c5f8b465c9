"""NTDH's files and command lines on MNIST: pickles, networks and rankings as its code writes them."""

import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.errors import InputError
from xmodal.methods.ntdh import joint_stage
from xmodal.recipes.ntdh_synthetic import mnist
from xmodal.recipes.ntdh_synthetic.mnist_files import read_earlier

WIDTH = 16
ORIGINAL = "run ntdh-mnist-original --gpu -1 --narrow --num-epochs 1 --batch-size 32"
FILES = ("overlap_tag_teacher_place1_repeat10.npy", "student_mod_0_overlap.pkl", "teacher_mod_1_overlap.pkl")


def authors_data(root):
    """The two pickles of the authors: 120 digits for training, 20 as val."""
    random = np.random.default_rng(0)
    for name in ("MNIST/mnist_data.pkl", "MNIST_M/mnist_m_data.pkl"):
        content = {}
        for part, count in (("train", 120), ("val", 20)):
            labels = (np.arange(count) % 10).astype(np.int32)
            # a digit is as bright as its label is large
            noise = random.integers(0, 30, (count, 28, 28, 1)) + 20 * labels[:, None, None, None]
            content[part], content[f"{part}_label"] = np.repeat(noise, 3, axis=3).astype(np.uint8), labels
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(pickle.dumps(content))


def authors_network(pixels, seed):
    """A state dict of their three layers; the names are any."""
    random = torch.Generator().manual_seed(seed)
    widths = (pixels, 4 * WIDTH, WIDTH, 10)
    tensors = OrderedDict()
    for number in range(3):
        tensors[f"any{number}.weight"] = torch.randn(widths[number + 1], widths[number], generator=random) / 20
        tensors[f"any{number}.bias"] = torch.randn(widths[number + 1], generator=random) / 20
    return tensors


def authors_results(folder):
    folder.mkdir()
    torch.save(authors_network(784, 1), folder / "teacher_mod_1_overlap.pkl")
    torch.save(authors_network(2352, 0), folder / "student_mod_0_overlap.pkl")
    np.save(folder / FILES[0], np.linspace(0, 1, 4 * WIDTH))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder in which the authors' script could run."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    authors_data(tmp_path)
    authors_results(tmp_path / "results")
    return tmp_path


def settings(here, **changes):
    data = {"mnist": {"root": str(here), "noise": 0.1}}
    fast = {"epochs": 1, "teacher_width": WIDTH, "student_width": WIDTH, "seeds": (0,), "accelerator": "cpu"}
    return mnist.Settings(**{**fast, "options": data, "modes": ("general",), **changes})


def test_a_student_learns_from_the_authors_teacher_without_the_channels_of_their_ranking(here):
    (here / "results" / FILES[1]).unlink()  # only a ranking needs the student

    assert answer([*ORIGINAL.split(), "--distill", "kd", "--mode", "1"]) == 0

    run = here / "runs" / "ntdh-mnist-001"
    rows = json.loads((run / "result.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["teacher", "no-KD", "kd, general"]
    (folder,) = (run / "seed-0").glob("kd*general")
    kept = json.loads((folder / "result.json").read_text())["method"]["channels"]
    assert kept["keep"] == [False] * 48 + [True] * 16 and kept["note"] == f"The ranking was read from {FILES[0]}."
    assert not list((run / "seed-0").glob("ntdh-joint-training*")), "nothing is trained jointly"


def test_weights_of_the_file_are_those_of_the_teacher_that_is_used(here):
    earlier = read_earlier(settings(here, saliency=here / "results"), seed=0)

    (weights,) = earlier.weights.values()
    expected = authors_network(784, 1)
    assert list(weights) == ["teacher"] and torch.equal(weights["teacher"]["head.bias"], expected["any2.bias"])
    assert torch.equal(weights["teacher"]["encoders.from_mnist.body.layer2.weight"], expected["any1.weight"])
    (saliency,) = earlier.measured.values()
    assert saliency.value.tolist() == np.linspace(0, 1, 4 * WIDTH).tolist()


def test_files_are_written_and_read_back(here):
    for path in (here / "results").iterdir():
        path.unlink()

    assert answer([*ORIGINAL.split(), "--first_time", "--cal_tag", "--no-eval-tag", "--num_permute", "3"]) == 0

    written = {path.name for path in (here / "results").iterdir()}
    assert written == {FILES[0].replace("10", "3"), *FILES[1:]}
    ranked = settings(here, saliency=here / "results", as_published=False)
    weights = read_earlier(ranked, seed=0).weights[joint_stage(ranked.masks())]["teacher"]
    stored = torch.load(here / "results" / FILES[2], weights_only=True)
    assert [*weights.values()][0].shape == (4 * WIDTH, 784)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights.values(), stored.values(), strict=True))
    result = json.loads((here / "runs/ntdh-mnist-001/result.json").read_text())
    assert result["rows"] == [] and result["tables"][0]["title"] == "The two networks of the joint training"
    value = np.load(here / "results" / FILES[0].replace("10", "3"))
    assert result["ranking"]["seeds"][0]["value"] == value.tolist() and value.max() == 1
    # ranking networks that are read gives what ranking them at once gave
    again = mnist.run(settings(here, until="saliency", networks=here / "runs/ntdh-mnist-001", **same(result, here)))
    assert again["ranking"]["seeds"][0]["value"] == pytest.approx(value.tolist(), abs=1e-5)


def same(result, here):
    """The settings that decide the rows and the noise of a run."""
    stored = json.loads((here / "runs/ntdh-mnist-001/settings.json").read_text())["settings"]
    return {"options": stored["options"], "batch_size": stored["batch_size"]}


def test_random_channels_need_no_ranking(here):
    (here / "results" / FILES[0]).unlink()

    assert answer([*ORIGINAL.split(), "--mode", "0"]) == 0


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        (FILES[0], {"saliency": "results"}, f"{FILES[0]} is missing"),
        (FILES[2], {"saliency": "results"}, f"{FILES[2]} is missing"),
        (FILES[1], {"networks": "results"}, f"{FILES[1]} is missing"),
        ("", {"saliency": "nowhere"}, "There is no folder nowhere"),
        ("", {"saliency": "results", "place": 2}, "place2_repeat10.npy is missing"),
        ("", {"saliency": "results", "networks": "results"}, "give one of the two"),
        ("", {"saliency": "results", "teacher_width": 8}, "do not fit this network"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(name, changes, expected, here):
    if name:
        (here / "results" / name).unlink()
    changes = {key: here / "results" if value == "results" else value for key, value in changes.items()}

    with pytest.raises((InputError, ValueError), match=expected):
        mnist.run(settings(here, **changes))
    assert not (here / "runs").exists()


def test_files_of_other_content_are_refused(here):
    state = authors_network(784, 1)
    swapped = OrderedDict(reversed(state.items()))
    np.save(here / "results" / FILES[0], np.zeros(5))
    with pytest.raises(InputError, match="holds 5 numbers, and the teacher has 64 channels at place 1"):
        mnist.run(settings(here, saliency=here / "results"))
    torch.save(swapped, here / "results" / FILES[2])
    with pytest.raises(InputError, match=r"holds 6 tensors of the shapes \(10,\), \(10, 16\).*six were expected"):
        mnist.run(settings(here, saliency=here / "results"))
    torch.save({"network": print}, here / "results" / FILES[2])
    with pytest.raises(InputError, match="contains more than tensors"):
        mnist.run(settings(here, saliency=here / "results"))


def test_original_flags_become_settings():
    words = "--stu-type 1 --num_runs 2 --mode -3 --noise-level 0.2 --distill hint --num-workers 3 --nce_k 5 --seed 4"

    parsed, _ = read_settings("ntdh-mnist-original", words.split(), prog="xmodal run ntdh-mnist-original")
    students = parsed.students()

    assert (students.teacher, students.student, students.modes) == (("mnist_m",), ("mnist",), ("none",))
    assert (students.seeds, students.workers, students.epochs, students.batch_size) == ((4, 5), 3, 50, 128)
    assert (students.teacher_width, students.kd_weight, students.task_weight) == (256, 0.5, 0.5)
    assert students.options["mnist"]["noise"] == 0.2 and parsed.ranking().seeds == (4,)
    published = parsed.model_copy(update={"as_published": True}).students().comparison().entries[0]
    assert published.options["loss"] == ("hint(batchnorm_relu=true):0.1", "kl:1")


def test_an_original_command_that_asks_for_nothing_is_told(capsys):
    assert answer(["run", "ntdh-mnist-original", "--no-eval-tag"]) == 2
    assert "These flags run no stage" in capsys.readouterr().err

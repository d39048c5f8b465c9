"""What `distill` and `compare` return."""

import re
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

import xmodal
from xmodal.errors import InputError

SIDES = {"teacher": "clear", "student": "faint"}


@pytest.fixture(scope="module")
def done(views, splits):
    inputs, label = views
    return xmodal.distill(inputs, label, **SIDES, splits=splits, epochs=15, learning_rate=0.01)


@pytest.fixture(scope="module")
def compared(views, splits):
    inputs, label = views
    methods = ("kd", "discom")
    return xmodal.compare(inputs, label, **SIDES, splits=splits, methods=methods, seeds=(3, 5), epochs=2)


def test_predict_takes_raw_samples_and_is_as_good_as_the_table_says(done, views, splits):
    inputs, label = views
    test = splits["test"]

    predicted = done.predict({name: array[test] for name, array in inputs.items()})

    assert predicted.shape == (50,)
    assert (predicted == label[test]).mean() == pytest.approx(done.scores["kd"]) and done.scores["kd"] > 0.7


def test_a_student_of_one_modality_takes_its_array_alone(done, views):
    faint = views[0]["faint"]

    assert np.array_equal(done.predict(faint), done.predict({"faint": faint}))
    assert np.array_equal(done.predict(torch.tensor(faint)), done.predict(faint))


def test_probabilities_sum_to_one_and_agree_with_the_labels(done, views):
    chances = done.predict_proba(views[0])

    assert chances.shape == (240, 3) and chances.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-6)
    assert np.array_equal(chances.argmax(axis=1), done.predict(views[0]))


def test_the_student_and_its_module_normalise(done, views):
    raw = torch.tensor(views[0]["faint"], dtype=torch.float32)
    statistics = done.info.normalisation["faint"]
    mean, std = statistics.tensors()

    outputs = done.student(views[0])

    by_hand = done.student.inner.module({"faint": (raw - mean) / std}).detach()
    torch.testing.assert_close(outputs, by_hand)
    torch.testing.assert_close(done.student.module({"faint": raw}).detach(), outputs)
    torch.testing.assert_close(done.student.module(raw).detach(), outputs)
    assert not torch.allclose(done.student.inner.module({"faint": raw}), outputs, atol=0.1)


def test_a_student_of_two_modalities_asks_for_their_names(views):
    inputs, label = views
    both = xmodal.distill(inputs, label, student=("clear", "faint"), epochs=1)

    with pytest.raises(InputError, match="reads clear, faint: a dictionary with these names was expected"):
        both.predict(inputs["faint"])


@pytest.mark.parametrize(
    ("path", "arguments", "written"),
    [
        ("folder", {}, "folder/student.safetensors"),
        ("mine.safetensors", {}, "mine.safetensors"),
        pytest.param("folder", {"format": "onnx"}, "folder/student.onnx", marks=pytest.mark.slow),
        pytest.param("deep/mine.onnx", {}, "deep/mine.onnx", marks=pytest.mark.slow),
    ],
)
def test_a_saved_student_predicts_the_same(done, views, tmp_path, path, arguments, written):
    file = done.save(tmp_path / path, **arguments)

    assert file == tmp_path / written and file.with_suffix(".json").is_file()
    assert sorted(tmp_path.rglob(".*")) == []
    opened = xmodal.open_student(file)
    expected = done.student.predict(views[0])
    assert np.allclose(opened.predict(views[0]).outputs, expected.outputs, atol=1e-5)
    assert opened.needs == done.student.needs


def test_wrong_names_of_files_are_refused_before_anything_is_written(done, tmp_path):
    with pytest.raises(InputError, match=r"a name of the format onnx, and format is safetensors"):
        done.save(tmp_path / "a.onnx", format="safetensors")
    with pytest.raises(InputError, match=r"a.pkl: a folder, or a name with one of .safetensors"):
        done.save(tmp_path / "a.pkl")
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_written_without_a_run_folder(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    pages = [done.report(), done.report(tmp_path / "mine.html")]

    assert [page.resolve() for page in pages] == [tmp_path / "report.html", tmp_path / "mine.html"]
    texts = [page.read_text() for page in pages]
    assert texts[0] == texts[1] and texts[0].count("<svg") >= 3 and "Sub-folders are missing" not in texts[0]


@pytest.mark.slow
def test_the_page_is_that_of_the_run_folder_also_without_one(views, splits, tmp_path):
    inputs, label = views
    calls = [{"out": tmp_path / "run"}, {}]
    call = {**SIDES, "splits": splits, "epochs": 2, "training": {"shuffled": False}}
    written, kept = (xmodal.distill(inputs, label, **call, **each) for each in calls)

    pages = [written.report(), kept.report(tmp_path / "page.html")]

    assert pages == [tmp_path / "run" / "report.html", tmp_path / "page.html"]
    drawn = [re.findall(r"<svg.*?</svg>", page.read_text(), flags=re.DOTALL) for page in pages]
    assert len(drawn[0]) >= 3 and drawn[0] == drawn[1]
    tables = [re.findall(r"<table.*?</table>", page.read_text(), flags=re.DOTALL) for page in pages]
    assert tables[0] == tables[1]


def test_the_text_of_a_result_is_short_and_says_the_scores(done, compared):
    assert re.fullmatch(r"Distilled\(faint taught by clear: accuracy \(%\) teacher \d.*, kd \d.*\)", repr(done))
    assert repr(compared).startswith("Compared(faint taught by clear: accuracy (%) teacher ")
    assert repr(done.student) == "TrainedStudent(faint → 3 classes)"
    assert "kd" in done.verdict and "The student to ship: " in done.verdict


def test_a_notebook_shows_table_and_figure_without_the_network(done, compared):
    cells = [done._repr_html_(), compared._repr_html_()]

    for cell in cells:
        assert cell.count("<table") == 1 and cell.count("<svg") == 1
        links = {link for link in re.findall(r"https?://[^\s\"'<]+", cell) if "w3.org" not in link}
        assert links == set() and not re.search(r"<(script|link|img|iframe)", cell)
    # an identifier applies to the whole notebook, where the next figure has it again
    assert not any(re.search(r"\bid=", cell) for cell in cells)


def test_markup_in_a_name_is_text_in_a_notebook():
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2

    done = xmodal.distill({"a": x, "b": x}, y, epochs=1, training={"shuffled": False})
    done.result["verdict"] = ["<b>bold</b>"]

    assert "&lt;b&gt;bold" in done._repr_html_()


def test_a_comparison_has_a_row_per_seed_and_network(compared):
    names = ["teacher", "no-KD", "kd", "kd (shuffled teacher)", "discom"]

    assert [name for name in compared.scores if name in names] == names
    assert {row["seed"] for row in compared.rows} == {3, 5}
    of_kd = [row["test"]["accuracy"] for row in compared.rows if row["name"] == "kd"]
    assert compared.scores["kd"] == pytest.approx(sum(of_kd) / 2)
    assert compared.table().splitlines()[2].split()[0] == "teacher"


def test_the_student_of_a_comparison_is_the_one_to_ship(compared, views, tmp_path):
    name = re.search(r"The student to ship: (.+), seed (\d)\.", compared.verdict)
    shipped = compared.student_of(name[1], seed=int(name[2]))

    outputs = compared.student(views[0])

    assert torch.equal(outputs, shipped(views[0]))
    other = next(seed for seed in (3, 5) if seed != int(name[2]))
    assert not torch.equal(outputs, compared.student_of(name[1], seed=other)(views[0]))
    file = compared.save(tmp_path / "control.safetensors", name="no-KD", seed=5)
    predicted = xmodal.open_student(file).predict(views[0]).classes
    assert np.array_equal(predicted, compared.student_of("no-KD", seed=5).predict(views[0]).classes)


def test_a_ship_card_decides_which_student_it_is(compared, views):
    card = {"name": "no-KD", "seed": 5, "student": "faint", "role": "control", "why": "Nothing is better."}
    before = compared.result["ship"]
    compared.result["ship"] = card

    assert torch.equal(compared.student(views[0]), compared.student_of("no-KD", seed=5)(views[0]))
    assert compared.verdict.endswith("The student to ship: no-KD, seed 5. Nothing is better.")
    compared.result["ship"] = before


def test_rows_and_seeds_that_are_not_there_are_refused(compared):
    with pytest.raises(InputError, match=r"no row 'discon'. Did you mean 'discom'"):
        compared.student_of("discon")
    with pytest.raises(InputError, match="no seed 4: the seeds are 3, 5"):
        compared.student_of("kd", seed=4)


def test_the_student_of_distill_is_that_of_its_method(views, splits):
    inputs, label = views

    done = xmodal.distill(inputs, label, **SIDES, splits=splits, epochs=2)
    done.result["ship"] = {"name": "no-KD", "seed": 0, "student": "faint", "role": "control"}

    row = next(row for row in done.rows if row["name"] == "kd")
    predicted = done.predict(inputs["faint"][splits["test"]])
    assert (predicted == label[splits["test"]]).mean() == pytest.approx(row["test"]["accuracy"])
    assert done.verdict.endswith("The student to ship: no-KD.")


@pytest.mark.parametrize("task", ["regression", "binary", "multilabel"])
def test_predictions_have_the_form_of_the_target(views, task):
    inputs, label = views
    target = {
        "regression": label.astype(float) + 0.5,
        "binary": (label > 0).astype(int),
        "multilabel": np.stack([label > 0, label == 1], axis=1).astype(int),
    }[task]

    done = xmodal.distill(inputs, target, **SIDES, task=task, epochs=1)

    assert done.predict(inputs["faint"]).shape == target.shape
    if task == "regression":
        with pytest.raises(InputError, match="predicts values and no probabilities"):
            done.predict_proba(inputs["faint"])
        return
    chances = done.predict_proba(inputs["faint"])
    assert chances.shape == (240, 2)
    if task == "binary":
        assert chances.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-6)
        assert np.array_equal(chances.argmax(axis=1), done.predict(inputs["faint"]))


def test_a_table_for_pandas_without_pandas_is_one_sentence(done, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(InputError, match="needs the package 'pandas', which is not installed"):
        done.to_frame()


def test_a_student_trained_in_64_bits_is_deployed_in_32(views, tmp_path):
    inputs, label = views

    done = xmodal.distill(inputs, label, **SIDES, epochs=1, training={"precision": "64"})

    assert {parameter.dtype for parameter in done.student.module.parameters()} == {torch.float32}
    with safe_open(done.save(tmp_path), framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} <= {torch.float32, torch.int64}  # noqa: SIM118

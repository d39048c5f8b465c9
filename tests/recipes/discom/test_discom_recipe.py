"""The recipe of DisCoM-KD: its format, its files, its controls, and what it refuses before training."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.data.discom import make
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.files import read_rows
from xmodal.models.resnet import load_weights
from xmodal.models.student_file import load_student
from xmodal.recipes.discom import experiment
from xmodal.recipes.discom.authors_files import lines
from xmodal.study.references import read_references

FAST = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3, "width": 8, "threads": 1, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in the published format, and what a run of two of its splits left there."""
    here = tmp_path_factory.mktemp("discom")
    folder = make(here / "DIR", splits=2)
    settings = experiment.Settings(data=str(folder), modalities=("ROWS", "FOU"), splits="0-1", **FAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        result = experiment.run(settings)
    return folder, result | {"folder": str(here / result["folder"])}


def test_the_published_call_has_the_published_defaults():
    settings = experiment.Settings(data="DIR", modalities=("FIRST", "SECOND"))

    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (300, 128, 1e-4)
    assert (settings.optimizer, settings.weight_decay, settings.schedule, settings.clip) == (
        "adam",
        0,
        "constant",
        None,
    )
    terms = ("task", "auxiliary", "adversarial", "modality")
    weights = [getattr(settings, f"{term}_weight") for term in terms]
    assert [*weights, settings.orthogonality_weight, settings.reversal] == [1.0] * 6
    assert (settings.domain_targets, settings.augment, settings.seeds) == ("index", "published", (0,))


def test_without_a_folder_it_is_the_demo_and_flags_go_on_top():
    demo, changed = experiment.Settings(), experiment.Settings(epochs=3)

    assert (demo.epochs, demo.batch_size, demo.learning_rate, demo.width, len(demo.seeds)) == (60, 32, 1e-3, 64, 5)
    assert (changed.epochs, changed.batch_size) == (3, 32)
    assert experiment.published().seeds == tuple(range(20))


def test_every_split_gives_the_method_and_two_controls_per_modality(made):
    _, result = made

    names = [
        (entry["name"].rpartition(", ")[0] or entry["name"], entry["role"], entry["n"]) for entry in result["summary"]
    ]
    expected = [(f"discom: {name}", "method", 2) for name in ("ROWS", "FOU")]
    for name in ("ROWS", "FOU"):
        expected += [(f"no-KD: {name}", "control", 2), (f"no-KD: {name}", "matched", 2)]
    assert names == expected
    sizes = {row["name"]: row["parameters"] for row in result["rows"] if row["seed"] == 0}
    for row in result["rows"]:
        if row["role"] == "method":
            control, matched = sizes[f"no-KD: {row['student']}"], sizes[row["matched"]]
            assert control < row["parameters"] <= matched < 1.1 * row["parameters"]
    assert any("a control of the same size" in said for said in result["verdict"])
    assert (result["metric"], result["student"], result["seeds"]) == ("weighted_f1", ["ROWS", "FOU"], [0, 1])


def test_both_modalities_leave_their_files_beside_the_data(made):
    folder, result = made

    for name, width in (("ROWS", 64), ("FOU", 40)):
        there = folder / f"OUR-DisCoM-KD_{name}"
        assert {path.name for path in there.iterdir()} == {
            "WEIGHTS.pth",
            "model.json",
            "metrics.json",
            "predictions.npy",
        }
        model = json.loads((there / "model.json").read_text())
        assert (model["builder"], model["classes"], model["modalities"]) == ("discom", 10, ["ROWS", "FOU"])
        expected = {"encoder": "mlp", "shape": [width], "width": 8, "dropout": 0.0, "bias": False}
        assert model["arguments"]["encoder"] == expected
        metrics = json.loads((there / "metrics.json").read_text())
        assert len(metrics["epochs"]) == 2 and metrics["settings"]["epochs"] == 2
        assert metrics["valid"] == metrics["epochs"][metrics["best_epoch"]]
        rows = [row for row in result["rows"] if row["name"] == f"discom: {name}"]
        assert metrics["valid"]["weighted_f1"] == max(row["valid"]["weighted_f1"] for row in rows)
    run = json.loads((folder / "run.json").read_text())
    assert run["settings"]["data"] == str(folder) and len(run["rows"]) == 12 and len(run["folders"]) == 2


def test_the_weights_are_tensors_alone_and_belong_to_one_modality(made):
    folder, _ = made

    stored = torch.load(folder / "OUR-DisCoM-KD_FOU" / "WEIGHTS.pth", weights_only=True)

    assert {name.split(".")[0] for name in stored} == {"invariant", "specific", "projection", "head"}
    assert stored["head.weight"].shape == (10, 8)


def test_a_student_loads_with_the_other_modality_deleted_and_repeats_its_predictions(made, tmp_path):
    folder, result = made
    copy = tmp_path / "alone"
    shutil.copytree(folder, copy)
    for path in [*copy.glob("*ROWS*"), copy / "labels.npy"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    metrics = json.loads((copy / "OUR-DisCoM-KD_FOU" / "metrics.json").read_text())
    fit = Path(result["folder"]) / f"seed-{metrics['seed']}" / "discom"

    student, _ = load_student(fit / "students" / "FOU")
    published = student.module
    load_weights(published, copy / "OUR-DisCoM-KD_FOU" / "WEIGHTS.pth")
    table = np.load(copy / "OUR-DisCoM-KD_FOU" / "predictions.npy")
    seen = np.load(copy / "FOU_data_normalized.npy")[table[:, 0].astype(int)]

    probabilities = published.eval()({"FOU": torch.from_numpy(seen)}).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, table[:, 3:], atol=1e-5)
    assert (table[:, 2] == table[:, 3:].argmax(axis=1)).all()
    accuracy = (table[:, 1] == table[:, 2]).mean()
    assert accuracy == pytest.approx(metrics["test"]["accuracy"])


def test_a_reloaded_student_has_its_recorded_validation_score(made):
    folder, result = made
    from xmodal.data import open_data
    from xmodal.engine.evaluate import evaluate
    from xmodal.engine.processes.launch import launch

    for row in result["rows"]:
        if row["role"] != "method":
            continue
        data = open_data(str(folder), options={"split": row["seed"]})
        student, _ = load_student(Path(result["folder"]) / row["folder"] / "students" / row["student"])
        found = evaluate({row["student"]: student}, data.valid, data.info, fabric=launch())

        # what was recorded in training is a mean over the classes of many students at once
        assert found[row["student"]]["weighted_f1"] == pytest.approx(row["valid"]["weighted_f1"], abs=1e-6)


def test_what_the_branches_contain_is_on_the_page(made):
    _, result = made

    content = result["branches"]["content"]
    assert set(content) == {"heads", "modality", "classes", "auxiliary", "cosines"}
    assert result["branches"]["seeds"] == 2 and len(result["branches"]["points"]) == 6
    page = (Path(result["folder"]) / "report.html").read_text()
    assert "What the parts of the embeddings contain" in page


def losses(result):
    """Name and seed → loss of the last epoch: unlike the best epoch it moves no further than rounding does."""
    folders = {(row["name"], row["seed"]): Path(result["folder"]) / row["folder"] for row in result["rows"]}
    return {key: read_rows(folder / "history.jsonl")[-1]["loss"] for key, folder in folders.items()}


def test_splits_side_by_side_end_like_splits_one_by_one(made, tmp_path):
    folder, together = made
    settings = {"data": str(folder), "modalities": ("ROWS", "FOU"), "splits": "0-1", **FAST}

    apart = experiment.run(experiment.Settings(**settings, together=False, out=tmp_path / "apart"))

    assert together["notes"] == apart["notes"] == []
    # Adam turns the rounding in the gradient of a bias in front of a normalisation into steps of full size
    assert losses(together) == pytest.approx(losses(apart), rel=1e-3)
    for one, other in ((row["folder"], Path(together["folder"])) for row in together["rows"]):
        there, here = (
            {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
            for root in (other / one, tmp_path / "apart" / one)
        )
        assert there == here


def test_an_interrupted_run_of_splits_ends_with_the_same_numbers(made, tmp_path):
    folder, before = made
    copy = tmp_path / "run"
    shutil.copytree(before["folder"], copy)
    for name in ("discom", "no-KD-FOU"):
        (copy / "seed-1" / name / "result.json").unlink()
    (copy / "result.json").unlink()
    settings = {"data": str(folder), "modalities": ("ROWS", "FOU"), "splits": "0-1", **FAST}

    again = experiment.run(experiment.Settings(**settings, out=copy, resume=True))

    assert again["rows"] == before["rows"]


REASONS = {
    "augmented": ({"augment": "noise:0.1"}, "the samples are augmented"),
    "patience": ({"patience": 2}, "patience stops each model"),
    "ramp": ({"reversal_ramp": True}, "it changes its settings from epoch to epoch"),
}


@pytest.mark.parametrize("condition", REASONS)
def test_seeds_that_can_not_be_stacked_are_trained_one_by_one_and_the_report_says_why(condition, made, tmp_path):
    changes, reason = REASONS[condition]
    folder, _ = made
    settings = {"data": str(folder), "modalities": ("ROWS", "FOU"), "seeds": (0, 1), "control": False, **FAST}

    result = experiment.run(experiment.Settings(**{**settings, **changes, "out": tmp_path / "run"}))

    (note,) = result["notes"]
    assert note.startswith("Seeds were trained one by one, not side by side: ") and reason in note


def test_networks_that_gain_nothing_are_trained_one_by_one_and_the_report_names_them(tmp_path):
    random, root, y = np.random.default_rng(0), tmp_path / "DIR", np.arange(40) % 2
    root.mkdir()
    for name in ("ONE", "TWO"):
        np.save(root / f"{name}_data_normalized.npy", random.normal(size=(40, 3, 28, 28)))
    np.save(root / "labels.npy", y)
    for split, part in zip(("train", "valid", "test"), np.split(np.arange(40), [32, 36]), strict=True):
        np.save(root / f"{split}_idx.npy", part)
    settings = FAST | {"width": None, "epochs": 1, "batch_size": 32, "augment": "none", "control": False}

    result = experiment.run(experiment.Settings(data=str(root), seeds=(0, 1), out=tmp_path / "run", **settings))

    (note,) = result["notes"]
    assert note.startswith("discom: Trained alone, not in a stack: a step of one fills the cache")


def test_splits_with_other_numbers_of_rows_are_trained_one_by_one(made, tmp_path):
    folder, _ = made
    copy = tmp_path / "DIR"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("OUR-*", "run.json"))
    rows = np.load(copy / "train_idx_1.npy")
    np.save(copy / "train_idx_1.npy", rows[:-3])
    settings = {"data": str(copy), "modalities": ("ROWS", "FOU"), "splits": "0-1", "control": False, **FAST}

    result = experiment.run(experiment.Settings(**settings, out=tmp_path / "run"))

    assert result["notes"] == ["Splits were trained one by one, not side by side: they have different numbers of rows."]


def test_unpaired_modalities_of_unequal_length_are_trained_side_by_side_too(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / "DIR"
    root.mkdir()
    for name, width, rows in (("LEFT", 6, 60), ("RIGHT", 4, 44)):
        y = np.arange(rows) % 3
        np.save(root / f"{name}_data_normalized.npy", random.normal(size=(rows, width)) + 2.0 * np.eye(width)[y])
        np.save(root / f"{name}_labels.npy", y)
        for split, part in zip(("train", "valid", "test"), np.split(np.arange(rows), [20, 30]), strict=True):
            np.save(root / f"{name}_{split}_idx.npy", part)
    np.save(root / "RIGHT_train_idx.npy", np.arange(13))
    settings = {"data": str(root), "modalities": ("LEFT", "RIGHT"), "seeds": (0, 1), **{**FAST, "batch_size": 8}}
    settings |= {"optimizer": "sgd", "learning_rate": 0.05, "control": False}
    told = io.StringIO()

    together, apart = (
        experiment.run(
            experiment.Settings(**settings, together=how, out=tmp_path / f"{how}"), progress=Progress(stream=told)
        )
        for how in (True, False)
    )

    assert together["notes"] == [] and told.getvalue().count("discom, 2 models at once: epoch 2/2") == 1
    assert losses(together) == pytest.approx(losses(apart), rel=1e-4)


def test_a_second_run_is_refused_unless_it_may_overwrite(made):
    folder, _ = made
    settings = {"data": str(folder), "modalities": ("ROWS", "FOU"), "control": False, **FAST}
    before = (folder / "OUR-DisCoM-KD_ROWS" / "metrics.json").read_text()

    with pytest.raises(InputError, match="exist already"):
        experiment.run(experiment.Settings(**settings))
    assert (folder / "OUR-DisCoM-KD_ROWS" / "metrics.json").read_text() == before


def test_with_out_the_files_go_there_and_the_same_seed_gives_the_same_numbers(made, tmp_path):
    folder, _ = made
    settings = experiment.Settings(data=str(folder), modalities=("FOU", "ROWS"), control=False, **FAST)
    results = [
        experiment.run(settings.model_copy(update={"out": tmp_path / name, "seeds": (seed,)}))
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    ]

    one, same, other = ([row["test"] for row in result["rows"]] for result in results)
    assert one == same and one != other
    assert (tmp_path / "one" / "OUR-DisCoM-KD_FOU" / "WEIGHTS.pth").is_file()
    assert [row["student"] for row in results[0]["rows"]] == ["FOU", "ROWS"]  # the first word is the first modality


def test_released_targets_are_named_in_the_title_and_in_the_terms(made, tmp_path):
    folder, _ = made
    settings = experiment.Settings(
        data=str(folder),
        modalities=("ROWS", "FOU"),
        domain_targets="released",
        control=False,
        **FAST,
        out=tmp_path / "r",
    )

    result = experiment.run(settings)

    assert "released targets" in result["title"]
    history = (tmp_path / "r" / "seed-0" / "discom" / "history.jsonl").read_text()
    assert "adversarial, released targets" in history


def unpaired_folder(root):
    """Pictures and sequences and vectors with samples of their own."""
    random = np.random.default_rng(0)
    root.mkdir()
    for name, shape, rows in (("PIX", (1, 8, 8), 60), ("MOVE", (2, 16), 45), ("TAB", (5,), 81)):
        y = np.arange(rows) % 3
        np.save(
            root / f"{name}_data_normalized.npy", random.normal(size=(rows, *shape)) + y.reshape(-1, *[1] * len(shape))
        )
        np.save(root / f"{name}_labels.npy", y)
        order = random.permutation(rows)
        for split, part in zip(("train", "valid", "test"), np.split(order, [rows // 2, 3 * rows // 4]), strict=True):
            np.save(root / f"{name}_{split}_idx.npy", part)
    return root


@pytest.mark.parametrize("unequal", ["recycle", "cut"])
def test_three_unpaired_modalities_of_three_shapes_train_with_different_numbers_of_rows(tmp_path, unequal):
    folder = unpaired_folder(tmp_path / "DIR")
    settings = experiment.Settings(
        data=str(folder),
        modalities=("PIX", "MOVE", "TAB"),
        control=False,
        unequal=unequal,
        **{**FAST, "batch_size": 16},
    )

    result = experiment.run(settings)

    assert [row["student"] for row in result["rows"]] == ["PIX", "MOVE", "TAB"]
    assert len(np.load(folder / "OUR-DisCoM-KD_MOVE" / "predictions.npy")) == 12
    assert result["branches"]["modalities"] == 3


def test_pictures_are_mirrored_and_turned_and_spectrograms_are_not(tmp_path):
    from xmodal.data.arrays import from_arrays

    x = np.zeros((20, 1, 4, 4))
    info = from_arrays({"RGB": x, "SPECTRO": x, "TAB": x[:, 0, 0]}, np.arange(20) % 2).info

    assert experiment.published_augmentation(info) == "RGB.geometric:0.5"


# ---- refusals: exit 2, one sentence, before anything is trained


def spoil(folder, name, change):
    array = np.load(folder / f"{name}.npy")
    np.save(folder / f"{name}.npy", change(array))


def put(place, value):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


def keep_objects(folder):
    np.save(folder / "ROWS_data_normalized.npy", np.array([1, "a"], object), allow_pickle=True)


ROWS = "ROWS_data_normalized"
REFUSED = {  # condition → what spoils the folder, flags, what the sentence names
    "no directory": (shutil.rmtree, "", "There is no data set called 'DIR'"),
    "no data": (
        lambda d: (d / f"{ROWS}.npy").unlink(),
        "",
        "has no file ROWS.npy or ROWS_data_normalized.npy. Known: FOU",
    ),
    "no labels": (lambda d: (d / "labels.npy").unlink(), "", "labels.npy is missing"),
    "no index": (lambda d: (d / "valid_idx.npy").unlink(), "", "valid_idx.npy is missing"),
    "no array": (lambda d: (d / "labels.npy").write_bytes(b"text"), "", "labels.npy is not a NumPy array file"),
    "objects": (keep_objects, "", "ROWS_data_normalized.npy holds Python objects"),
    "one prefix": (lambda d: None, "ROWS", "expected two or more, and one was given"),
    "the same twice": (lambda d: None, "ROWS ROWS", "each of them once"),
    "row counts": (lambda d: spoil(d, ROWS, lambda a: a[:-2]), "", "has 1795, FOU_data_normalized.npy has 1797"),
    "rank 1": (lambda d: spoil(d, ROWS, lambda a: a[:, 0]), "", "store the shape (1797, 1)"),
    "rank 5": (
        lambda d: spoil(d, ROWS, lambda a: a.reshape(-1, 2, 4, 4, 2)),
        "",
        "is the default for 'ROWS'",
    ),
    "rank 3, ambiguous": (
        lambda d: spoil(d, ROWS, lambda a: a.reshape(-1, 8, 8)),
        "",
        "a picture without a channel axis",
    ),
    "empty axis": (lambda d: spoil(d, ROWS, lambda a: a[:, :0]), "", "ROWS_data_normalized.npy is empty"),
    "text": (lambda d: spoil(d, ROWS, lambda a: a.astype(str)), "", "ROWS_data_normalized.npy holds text"),
    "NaN": (lambda d: spoil(d, ROWS, put((5, 2), np.nan)), "", "in 1 of 1797 samples; the first is sample 5"),
    "labels of halves": (
        lambda d: spoil(d, "labels", lambda a: a + 0.5),
        "",
        "labels.npy holds 0.5, which is no class",
    ),
    "labels in a table": (
        lambda d: spoil(d, "labels", lambda a: a[:, None].repeat(2, 1)),
        "",
        "labels.npy has the shape",
    ),
    "one class": (lambda d: spoil(d, "labels", lambda a: a * 0), "", "labels.npy holds a single class (0)"),
    "one class trains": (
        lambda d: np.save(d / "train_idx.npy", np.flatnonzero(np.load(d / "labels.npy") == 3)[:9]),
        "",
        "train_idx.npy selects a single class",
    ),
    "index of floats": (lambda d: spoil(d, "train_idx", lambda a: a * 1.0), "", "train_idx.npy holds float64 numbers"),
    "index in a table": (lambda d: spoil(d, "train_idx", lambda a: a[:, None]), "", "train_idx.npy has the shape"),
    "index empty": (lambda d: spoil(d, "test_idx", lambda a: a[:0]), "", "test_idx.npy is empty"),
    "index too large": (lambda d: spoil(d, "test_idx", put(3, 1797)), "", "test_idx.npy holds the row 1797"),
    "index negative": (lambda d: spoil(d, "test_idx", put(3, -4)), "", "test_idx.npy holds the negative row -4"),
    "overlap": (
        lambda d: np.save(d / "test_idx.npy", np.load(d / "train_idx.npy")[:3]),
        "",
        "train_idx.npy and test_idx.npy share 3 rows",
    ),
    "one training row": (lambda d: spoil(d, "train_idx", lambda a: a[:1]), "", "train_idx.npy selects 1 row"),
    "batch of 1": (lambda d: None, "ROWS FOU --batch-size 1", "--batch-size is 1"),
    "no epochs": (lambda d: None, "ROWS FOU --epochs 0", "--epochs is 0"),
    "rate 0": (lambda d: None, "ROWS FOU --learning-rate 0", "--learning-rate is 0"),
    "odd width": (lambda d: None, "ROWS FOU --width 7", "expected the same even number"),
    "weight -1": (lambda d: None, "ROWS FOU --task-weight=-1", "--task-weight is -1"),
    "weight nan": (lambda d: None, "ROWS FOU --modality-weight nan", "--modality-weight is 'nan'"),
    "too small a picture": (
        lambda d: spoil(d, ROWS, lambda a: a.reshape(-1, 1, 8, 8)),
        "ROWS FOU --encoder lenet",
        "at least 12 x 12 positions",
    ),
    "wrong encoder": (lambda d: None, "ROWS FOU --encoder mlpp", "Did you mean 'mlp'"),
    "no such split": (lambda d: None, "ROWS FOU --splits 3-4", "train_idx_3.npy is missing: there is no split 3"),
    "splits and seeds": (lambda d: None, "ROWS FOU --splits 0-1 --seeds 3", "Give one of the two"),
    "released with three": (
        lambda d: shutil.copy(d / f"{ROWS}.npy", d / "MORE_data_normalized.npy"),
        "ROWS FOU MORE --domain-targets released",
        "defined for two modalities",
    ),
    "no such metric": (lambda d: None, "ROWS FOU --select weighted", "Did you mean 'weighted_f1'"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make(tmp_path_factory.mktemp("template") / "DIR", splits=1)


@pytest.mark.parametrize("condition", REFUSED)
def test_what_can_not_be_trained_ends_with_status_2(condition, template, tmp_path, monkeypatch, capsys):
    change, words, sentence = REFUSED[condition]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(template, "DIR")
    change(Path("DIR"))

    status = answer(["run", "discom", "DIR", *(words or "ROWS FOU").split(), "--threads", "1"])

    complained = capsys.readouterr().err
    assert status == 2 and sentence in complained, complained
    assert "Traceback" not in complained and not list(Path().glob("**/OUR-*")) and not Path("runs").exists()


WARNED = {
    "a negative class": (lambda d: spoil(d, "labels", lambda a: a * 10 - 5), "holds the label -5, which counts as"),
    "a class that does not train": (
        lambda d: np.save(
            d / "train_idx.npy", [r for r in np.load(d / "train_idx.npy") if np.load(d / "labels.npy")[r] != 4]
        ),
        "train_idx.npy selects no sample of the class 4",
    ),
    "a repeated row": (lambda d: spoil(d, "train_idx", lambda a: np.append(a, a[0])), "each is taken once"),
    "not normalised": (lambda d: spoil(d, ROWS, lambda a: a * 100), "does not look normalised"),
    "integers": (lambda d: spoil(d, ROWS, lambda a: (a * 255).astype(np.uint8)), "does not look normalised"),
    "NaN that may be dropped": (lambda d: spoil(d, ROWS, put((5, 2), np.nan)), "they are left out"),
    "overlap that is allowed": (
        lambda d: np.save(d / "test_idx.npy", np.append(np.load(d / "test_idx.npy"), np.load(d / "train_idx.npy")[0])),
        "share 1 rows",
    ),
}


@pytest.mark.parametrize("condition", WARNED)
def test_what_is_only_worth_knowing_is_a_warning(condition, template, tmp_path):
    change, sentence = WARNED[condition]
    shutil.copytree(template, tmp_path / "DIR")
    change(tmp_path / "DIR")
    settings = experiment.Settings(
        data=str(tmp_path / "DIR"), modalities=("ROWS", "FOU"), nan="drop", allow_overlap=True
    )

    data = experiment.open_split(settings, 0)

    assert any(sentence in said for said in data.warnings), data.warnings
    assert not data.info.paired and data.info.classes == 10


def test_numbers_that_fail_end_with_status_3(template, tmp_path, capsys):
    words = f"run discom {template} ROWS FOU --learning-rate 1e30 --threads 1 --out {tmp_path / 'run'}"

    assert answer(words.split()) == 3
    assert "became non-finite in epoch 1" in capsys.readouterr().err


# ---- small parts


def test_lines_of_every_kind_of_target():
    rows, half = np.array([3, 5]), np.log(3.0)

    binary = lines(rows, np.array([0, 1]), np.array([[half], [-half]]), task="binary")
    several = lines(rows, np.array([[0, 1], [1, 1]]), np.array([[0.0, half], [0.0, 0.0]]), task="multilabel")
    values = lines(rows, np.array([[1.5], [2.5]]), np.array([[1.0], [2.0]]), task="regression")

    np.testing.assert_allclose(binary, [[3, 0, 1, 0.25, 0.75], [5, 1, 0, 0.75, 0.25]])
    np.testing.assert_allclose(several, [[3, 0, 1, 0.5, 0.75], [5, 1, 1, 0.5, 0.5]])
    assert values.tolist() == [[3, 1.5, 1.0], [5, 2.5, 2.0]]


def test_the_packaged_references_are_those_of_both_modalities_and_of_the_parts(made):
    references = read_references("xmodal.recipes:references/discom.json")
    _, result = made

    scores = {f"{name}: {view}.weighted_f1" for name in ("discom", "no-KD") for view in ("ROWS", "FOU")}
    differences = {f"discom: {view} - no-KD: {view}.weighted_f1" for view in ("ROWS", "FOU")}
    parts = {f"head {name}" for name in ("adversary", "informative", "irrelevant")}
    parts |= {f"cosine {name}" for name in ("invariant", "irrelevant")}
    assert {reference.key for reference in references} == scores | differences | parts
    # a run produces all of them, and an error where its tolerance is in standard errors
    assert scores | differences | parts <= set(result["figures"])
    assert differences <= set(result["standard_errors"])

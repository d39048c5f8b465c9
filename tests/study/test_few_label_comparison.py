"""`compare` with hidden labels: its trainings, controls, curve, notes, and what a resumed run does."""

import json
from dataclasses import replace

import pytest

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.recipes import compare
from xmodal.recipes.compare import Settings
from xmodal.study.few_labels import further_trainings, labels_used, still_improving, with_curve

VIEWS = {"digits": {"views": ("image", "fourier")}}
USUAL = {"teacher": ("image",), "student": ("fourier",), "options": VIEWS, "threads": 1, "epochs": 2, "seeds": (0, 1)}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "run"
    settings = Settings(**USUAL, methods=("kd", "mfh"), labelled="30", curve=("100",), out=folder)
    return settings, compare.run(settings), folder


def test_every_row_has_its_role_and_the_same_updates(done):
    _, result, _ = done

    roles = {row["name"]: row["role"] for row in result["rows"]}
    assert roles == {
        "teacher": "teacher",
        "no-KD": "control",
        "kd": "method",
        "kd (labelled rows only)": "labelled",
        "kd (same-modality teacher)": "same-modality",
        "kd (permuted pairs)": "permuted",
        "kd (shuffled teacher)": "shuffled",
        "mfh": "method",
    }
    assert {row["updates"] for row in [*result["rows"], *result["curve_rows"]]} == {20}


def test_the_curve_has_the_control_at_every_number_and_the_method_at_the_first(done):
    _, result, folder = done

    lines = {line["name"]: [point["x"] for point in line["points"]] for line in result["curve"]["series"]}
    assert lines == {"no-KD": [30, 100, 1258], "kd": [30], "kd (same-modality teacher)": [30]}
    assert result["labels"] == {"train": 30, "valid": 30, "rows": 1258}
    assert {"labels", "worth", "low", "high"} <= set(result["labels_saved"])
    assert (folder / "labelled-all/seed-1/no-KD/result.json").is_file()
    assert any("Labels used: 30 + 30" in sentence for sentence in result["verdict"])


def test_the_all_labels_run_is_an_ordinary_one(done):
    _, result, _ = done
    plain = compare.run(Settings(**{**USUAL, "seeds": (0,)}, methods=("supervised",), keep="best"))

    (row,) = [row for row in result["curve_rows"] if row["count"] == "all" and row["seed"] == 0]
    (other,) = [row for row in plain["rows"] if row["name"] == "no-KD"]
    assert row["test"] == other["test"]


def test_a_finished_run_is_read_back(done):
    settings, result, _ = done

    again = compare.run(settings.model_copy(update={"resume": True}))

    assert json.loads(json.dumps(again["rows"])) == json.loads(json.dumps(result["rows"]))
    assert again["labels_saved"] == result["labels_saved"]


def test_a_list_of_numbers_trains_method_and_self_training_at_each(tmp_path):
    settings = Settings(**{**USUAL, "seeds": (0,), "epochs": 1}, labelled="10,30,all", controls="none")

    result = compare.run(settings)

    lines = {line["name"]: [point["x"] for point in line["points"]] for line in result["curve"]["series"]}
    assert lines == {"no-KD": [10, 30, 1258], "kd": [10, 30, 1258]}


@pytest.mark.parametrize(
    ("counts", "alone", "fits"), [(("100", "all"), True, 2), (("100", "all"), False, 2 * 4 - 1), ((), True, 0)]
)
def test_the_number_of_trainings_is_known_before(counts, alone, fits):
    comparison = Settings(**USUAL, labelled="30").comparison()

    assert further_trainings(comparison, counts, control_alone=alone) == fits


def test_the_number_and_length_of_trainings_are_announced_first(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "compare digits --digits.views image,fourier --teacher image --student fourier --methods supervised"

    assert answer([*words.split(), "--labelled", "30", "--epochs", "1", "--seeds", "1", "--out", "run"]) == 0

    first = capsys.readouterr().err.splitlines()[0]
    assert first == "2 trainings of 10 updates (2 for each seed): about a minute here."


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--labelled 9", "the training rows have 10 classes"),
        ("--labelled 9999", "there are 1258 training rows"),
        ("--labelled few", "a number of rows (30), a share with a decimal point (0.1)"),
        ("--labelled 30 --train-fraction 0.5", "Give one of the two"),
        ("--labelled 30 --labelled-groups 2", "--labelled-groups"),
        ("--labelled-groups 2", "this data has no groups"),
        ("--labelled 30 --curve 5", "the training rows have 10 classes"),
        ("--labelled 30 --patience 3", "Leave --patience out"),
    ],
)
def test_what_can_not_be_hidden_is_a_sentence(flags, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    status = answer(["compare", "digits", "--epochs", "1", "--seeds", "1", *flags.split()])

    complained = capsys.readouterr().err
    assert status == 2 and sentence in complained and "Traceback" not in complained
    assert not list(tmp_path.rglob("result.json"))


def test_a_training_that_still_improves_at_its_end_is_named():
    late = ((0.04, "100"), (0.02, "100"), (0.0, "300"))
    rows = [{"name": "no-KD", "late_gain": gain, "count": count} for gain, count in late]

    (note,) = still_improving(rows, "accuracy")

    assert "no-KD with 100 labels (+3.0)" in note and "300" not in note
    assert still_improving(rows, "mse") == []
    assert still_improving([{"name": "kd", "late_gain": 0.005}], "accuracy") == []


def test_a_run_finds_its_data_again_with_the_same_hidden_labels():
    data = open_data("digits", options={"views": ["fourier"]}, labelled=30, seed=3)
    source = data.source

    from xmodal.data import reopen

    again = reopen(source)
    assert again.info.labelled == {"fourier": 30}
    assert (again.train.labelled["fourier"] == data.train.labelled["fourier"]).all()
    assert replace(again.info, train_targets={}) == replace(data.info, train_targets={})


def test_distill_hides_labels_of_arrays_too():
    from xmodal import distill

    data = open_data("digits", options=VIEWS["digits"])

    done = distill(data=data, teacher="image", student="fourier", epochs=1, training={"labelled": "30"})

    assert done.result["labels"] == {"train": 30, "valid": 30, "rows": 1258}
    assert "kd (same-modality teacher)" in done.scores


def test_seeds_with_splits_of_other_sizes_share_the_points_of_the_curve():
    rows = [
        {"name": name, "role": role, "seed": seed, "labels": labels, "valid_labels": 9, "training_rows": 100 + seed}
        | {"late_gain": 0.0, "test": {"accuracy": score}}
        | ({"count": count} if count else {})
        for seed in (0, 2)
        for name, role, labels, score, count in (
            ("no-KD", "control", 20 + seed, 0.5, ""),
            ("kd", "method", 20 + seed, 0.6, ""),
            ("no-KD", "control", 100 + seed, 0.7, "all"),
        )
    ]
    headline = [row for row in rows if "count" not in row]
    result = {"rows": headline, "metric": "accuracy", "direction": "max", "notes": [], "figures": {}}
    result |= {"labels": labels_used(headline)}

    complete = with_curve(result, open_data("gaussian"), [row for row in rows if "count" in row])

    lines = {
        line["name"]: [(point["x"], point["n"]) for point in line["points"]] for line in complete["curve"]["series"]
    }
    assert lines == {"no-KD": [(21, 2), (101, 2)], "kd": [(21, 2)]}
    assert complete["labels"] == {"train": 21, "valid": 9, "rows": 101}
    assert complete["labels_saved"]["worth"] == round((21 * 101) ** 0.5)
    assert complete["figures"]["all labels - no-KD.accuracy"] == pytest.approx(20.0)

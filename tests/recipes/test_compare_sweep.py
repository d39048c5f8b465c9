"""A comparison at several values of one setting."""

import json
import math

import pytest

from xmodal.cli.main import answer
from xmodal.errors import InputError
from xmodal.recipes import compare
from xmodal.reports.page import write_page
from xmodal.study import sweep

SMALL = {
    "teacher": ("rows",),
    "student": ("fourier",),
    "epochs": 5,
    "threads": 1,
    "seeds": (0, 1),
    "shuffled": False,
    "methods": ("kd",),
    "options": {"digits": {"views": ["rows", "fourier"]}},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    settings = compare.Settings(**SMALL, sweep="train_fraction=0.1,0.6", out=tmp_path_factory.mktemp("sweep") / "run")
    return settings, compare.run(settings)


def test_every_value_and_seed_is_a_comparison_with_its_divergence(swept):
    settings, result = swept

    names = {"teacher", "no-KD", "kd"}
    assert {(row["train_fraction"], row["seed"], row["name"]) for row in result["rows"]} == {
        (value, seed, name) for value in (0.1, 0.6) for seed in (0, 1) for name in names
    }
    assert [(one["train_fraction"], one["seed"]) for one in result["divergences"]] == [
        (0.1, 0),
        (0.1, 1),
        (0.6, 0),
        (0.6, 1),
    ]
    assert all(0 < one["non_target"] < math.log(2) and 0 < one["target"] < math.log(2) for one in result["divergences"])
    assert all((settings.out / row["folder"] / "result.json").is_file() for row in result["rows"])


def test_more_rows_make_better_networks(swept):
    (found,) = swept[1]["sweeps"]

    means = {one["name"]: [point["mean"] for point in one["points"]] for one in found["series"]}
    assert all(few < many for few, many in means.values())


def test_the_gain_is_that_of_the_same_seed_and_value(swept):
    result = swept[1]
    (relation,) = result["relations"]
    scores = {(row["train_fraction"], row["seed"], row["name"]): row["test"]["accuracy"] for row in result["rows"]}

    assert relation["name"] == "kd" and relation["n"] == 4
    for point in relation["points"]:
        key = point["at"], point["seed"]
        assert point["y"] == pytest.approx(scores[(*key, "kd")] - scores[(*key, "no-KD")])


def test_the_divergence_is_that_of_teacher_and_control_on_validation(swept, make_bench):
    from xmodal.data import open_data
    from xmodal.data.loader import in_order
    from xmodal.diagnostics.divergence import measure_divergence
    from xmodal.models.student_file import load_student

    settings, result = swept
    one = result["divergences"][2]
    folder = settings.out / one["folder"]
    data = open_data("digits", options=SMALL["options"]["digits"], train_fraction=0.6, seed=0)
    teacher, _ = load_student(folder / "teacher" / "students" / "rows" / "student.safetensors")
    control, _ = load_student(folder / "no-KD" / "students" / "fourier" / "student.safetensors")

    found = measure_divergence(control.module, teacher.module, in_order(data.valid, batch_size=64))

    assert one["non_target"] == pytest.approx(found.non_target_mean, rel=1e-5)


def test_the_page_draws_sweep_and_relation(swept, tmp_path):
    page = write_page([swept[0].out], tmp_path / "page.html").read_text()

    assert "accuracy by train_fraction" in page and "gain by non-target divergence" in page


def test_a_resumed_sweep_trains_nothing_again(swept):
    settings, result = swept

    again = compare.run(settings.model_copy(update={"resume": True}))

    assert again["rows"] == result["rows"] and again["relations"] == result["relations"]


def test_fields_of_methods_and_data_reach_them():
    settings = compare.Settings(**SMALL, sweep="kd.temperature=1,2")

    by_owner = sweep.changed(settings, "kd.temperature", "2")
    alone = sweep.changed(settings, "temperature", "2")
    of_data = sweep.changed(settings, "digits.noisy_noise", "0.3")

    assert by_owner.options["kd"]["temperature"] == alone.options["kd"]["temperature"] == 2.0
    assert of_data.options["digits"]["noisy_noise"] == 0.3 and of_data.options["digits"]["views"] == ["rows", "fourier"]
    assert by_owner.sweep == "" and settings.options.keys() == {"digits"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs", "expected FIELD=A,B"),
        ("epochs=1", "two or more different numbers"),
        ("epochs=1,1", "two or more different numbers"),
        ("epochs=1,two", "two or more different numbers"),
        ("epoch=1,2", "no setting 'epoch' to sweep. Did you mean 'epochs'"),
        ("kd.tau=1,2", "no setting 'kd.tau' to sweep"),
        ("train_fraction=0.5,7", "less than or equal to 1"),
        ("threads=1,2", "no setting 'threads' to sweep"),
        ("kd.temperature=-1,1", "greater than 0"),
    ],
)
def test_what_can_not_be_swept_is_told_before_anything_is_written(text, words, tmp_path):
    with pytest.raises(InputError, match=words):
        compare.run(compare.Settings(**SMALL, sweep=text, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_name_that_several_have_asks_whose():
    settings = compare.Settings(**{**SMALL, "methods": ("kd", "mfh")}, sweep="temperature=1,2")

    with pytest.raises(InputError, match=r"Name one of kd\.temperature, mfh\.temperature"):
        compare.run(settings)


def test_a_teacher_and_classes_are_needed(tmp_path):
    with pytest.raises(InputError, match="name a method with a frozen one, such as kd"):
        compare.run(compare.Settings(**{**SMALL, "methods": ("supervised",)}, sweep="epochs=1,2"))


def test_the_command_prints_table_and_sentence(tmp_path, capsys):
    words = "compare digits --digits.views rows,fourier --teacher rows --student fourier --methods kd --no-shuffled"
    more = f"--epochs 1 --seeds 2 --threads 1 --sweep kd.temperature=1,4 --out {tmp_path / 'run'}"

    status = answer([*words.split(), *more.split()])

    told = capsys.readouterr().out
    assert status == 0 and "kd - no-KD" in told and "rank correlation of non-target divergence" in told
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [point["x"] for point in saved["sweeps"][0]["series"][0]["points"]] == [1.0, 4.0]

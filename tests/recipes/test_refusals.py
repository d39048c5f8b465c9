"""What can't work is refused before anything is trained or written."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.api.distill import distill
from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.arrays import from_arrays
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.recipes.compare import Settings
from xmodal.study.comparison import check

X, Y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inputs": X, "target": Y}, "a dictionary from modality to array"),
        ({"inputs": {"a": X}, "target": Y, "epochs": 0}, "epochs"),
        ({"inputs": {"a": X}, "target": Y, "batch_size": 1}, "Raise --batch-size"),
        ({"inputs": {"a": X}, "target": Y, "seed": -1}, "seed"),
        ({"inputs": {3: X}, "target": Y}, "3"),
        ({"inputs": {"a": X}, "target": Y, "splits": [1]}, "train, valid, test were expected"),
        ({"inputs": {"a": np.ma.masked_less(X, 0)}, "target": Y}, "masked"),
        ({"inputs": {"a": X}, "target": [object()] * len(X)}, "text, booleans, integers or floats were expected"),
        ({"inputs": {"a": X}, "target": Y, "method": "kdd"}, "Did you mean 'kd'"),
    ],
)
def test_wrong_arguments_are_sentences(arguments, words):
    with pytest.raises(InputError, match=words):
        distill(**arguments)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--batch-size 1", "batch"),
        ("--optimizer adam --nesterov", "nesterov needs the optimizer sgd"),
        ("--schedule multistep", "schedule_at"),
        ("--accelerator mps", "mps"),
        ("--precision bf16-true", "precision"),
        ("--digits.no-paired", "needs paired samples"),
        ("--metric acuracy", "Did you mean 'accuracy'"),
        ("--student-encoder image_cnn", "image_cnn"),
        ("--teacher rows,nothing", "nothing"),
        ("--folds 1", "--folds is 1: 2 or more were expected"),
        ("--folds 5 --seeds 3", "--folds divides the rows in place of --seeds"),
        ("--folds 5 --sweep kd.temperature=1,2", "--folds divides the rows in place of --sweep"),
        ("--folds 200", "labelled rows, and each of 200 folds needs one"),
    ],
)
def test_flags_that_cannot_work_leave_no_folder(flags, words, tmp_path, capsys):
    out = tmp_path / "run"
    line = f"compare digits --teacher rows --student fourier --epochs 1 {flags} --out {out}"

    status = answer(line.split())

    assert (status, out.exists()) == (2, False)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_resume_needs_the_folder_to_go_on_with(capsys):
    assert answer(["distill", "digits", "--resume"]) == 2
    assert "no --out was given" in capsys.readouterr().err


def test_short_names_of_precision():
    assert FitSettings(precision="bf16").precision == "bf16-mixed"
    assert FitSettings(precision="32").precision == "32-true"
    assert FitSettings(precision="64").precision == "64-true"


def test_values_that_float32_cannot_hold_are_refused():
    with pytest.raises(InputError, match="beyond 3.4e38"):
        from_arrays({"a": np.full((30, 2), 1e300)}, Y)


def test_warnings_of_the_data_are_in_the_result():
    splits = {"train": np.arange(18), "valid": np.arange(18, 24), "test": np.array([24, 27])}

    done = distill({"a": X, "b": X}, Y, splits=splits, epochs=1)

    assert any("class" in note for note in done.result["notes"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("kd --student-layer nope", "no layer called 'nope'"),
        ("mfh --layer nope", "no layer called 'nope'"),
        ("mfh --channels 3,900", "The option channels names 900, and 'embedding' has the channels 0 to"),
        ("mfh --permutations 0", "permutations"),
        ("ntdh --mask samples --loss nope", "no loss called 'nope'"),
    ],
)
def test_what_a_method_refuses_is_told_before_anything_is_trained_or_written(options, words, tmp_path, capsys):
    line = f"distill digits --teacher rows --student fourier --out {tmp_path / 'run'} --method {options}"

    status = answer(line.split())

    told = capsys.readouterr().err
    assert status == 2 and words in told and "epoch" not in told
    assert not (tmp_path / "run").exists()


def test_problems_of_names_modalities_losses_and_labels_are_told_together_and_before_devices(tmp_path, capsys):
    out = tmp_path / "run"
    names = "--teacher rws --student forier --methods kdd,kd,pmf --losses xx --vary kd.foo=1 --metric acuracy"

    status = answer(
        [
            "compare",
            "digits",
            *names.split(),
            "--labelled",
            "30",
            "--curve",
            "5",
            "--accelerator",
            "mps",
            "--out",
            str(out),
        ]
    )

    told = capsys.readouterr().err
    assert (status, out.exists()) == (2, False)
    hints = (
        "'kdd'. Did you mean 'kd'",
        "'xx'",
        "no setting 'foo'",
        "Did you mean 'rows'",
        "'fourier'",
        "'accuracy'",
        "5 labels",
    )
    assert [hint for hint in hints if hint not in told] == []
    # mps does not exist here, which only a start of the devices would tell
    assert "mps" not in told


def test_a_wrong_value_does_not_hide_a_wrong_method(capsys):
    assert answer("compare digits --methods kdd,kd --kd.temperature -1".split()) == 2

    told = capsys.readouterr().err
    assert "no method called 'kdd'" in told and "--kd.temperature is -1" in told


def test_if_no_method_fits_the_data_all_reasons_are_told(tmp_path, capsys):
    line = (
        f"compare digits --digits.no-paired --teacher rows --student fourier --methods kd,pmf --out {tmp_path / 'run'}"
    )

    assert answer(line.split()) == 2

    told = capsys.readouterr().err
    assert "The method 'kd' needs paired samples" in told and "The method 'pmf' predicts for every pixel" in told


def test_an_option_that_cannot_work_is_no_reason_to_leave_a_method_out(tmp_path, capsys):
    line = f"compare digits --teacher rows --student fourier --methods kd,mfh --out {tmp_path / 'run'}"

    assert answer([*line.split(), "--kd.student-layer", "nope"]) == 2
    assert "no layer called 'nope'" in capsys.readouterr().err


def left_of(methods, views, **options):
    """The comparison of these methods that the checks leave."""
    settings = Settings(teacher=views[0], student=views[-1], methods=methods, options={"digits": {"views": views}})
    given = settings.model_copy(update={"options": {**settings.options, **options}}).comparison()
    return check(given, open_data("digits", options={"views": views, **options.get("digits", {})}), launch())


@pytest.mark.parametrize("options", [{}, {"dmd": {"distil_weight": 0.1}}])
def test_what_cannot_be_built_with_any_options_is_left_out(options):
    left = left_of("kd,dmd", ("image", "fourier"), **options)

    assert [entry.name for entry in left.entries] == ["kd"] and left.train_teacher
    (note,) = left.skipped
    assert note.startswith("dmd is left out: DMD reads sequences of one length")


def test_a_teacher_that_no_method_is_left_for_is_not_trained():
    left = left_of("kd,discom", ("rows", "fourier"), digits={"views": ("rows", "fourier"), "paired": False})

    assert [entry.name for entry in left.entries] == ["discom"] and not left.train_teacher
    assert [card.name for card in left.methods] == ["discom"]

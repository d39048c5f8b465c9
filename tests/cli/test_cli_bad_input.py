"""Wrong command lines: exit status 2, one sentence per problem, nothing left behind."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmodal.cli.main import COMMANDS

BAD = {
    "distil digits": "no command 'distil'. Did you mean 'distill'?",
    "distill diggits": "Did you mean 'digits'?",
    "distill no/such/folder": "no/such/folder",
    "distill digits --teecher rows": "no option --teecher. Did you mean --teacher?",
    "distill digits --digits.noisy-nois 1": "Did you mean --digits.noisy-noise?",
    "distill digits --tempreture 2": "Did you mean --temperature?",
    "distill digits --kd.temperature 2": "no option --kd.temperature",
    "distill digits --methods kd": "Did you mean --method?",
    "distill digits --method kdd": "no method called 'kdd'. Did you mean 'kd'?",
    "distill digits --epochs 0": "--epochs is 0: expected a value greater than or equal to 1.",
    "distill digits --epochs ten": "--epochs is 'ten': expected a valid integer.",
    "distill digits --epochs": "--epochs needs a value",
    "distill digits --learning-rate=-1": "--learning-rate is -1",
    "distill digits --learning-rate -1": "--learning-rate is -1",
    "distill digits --temperature 0": "--temperature is 0",
    "distill digits --optimizer adm": "--optimizer is 'adm'. Did you mean 'adam'?",
    "distill digits --labels=no": "--labels takes no value",
    "distill digits more": "does not know what to do with 'more': expected words are DATA.",
    "distill digits --student forier": "Did you mean 'fourier'?",
    "distill digits --teacher rows,imag": "Did you mean 'image'?",
    "distill digits --student-encoder mlpp": "Did you mean 'mlp'?",
    "distill digits --digits.views rows,colums": "there is no view 'colums'",
    "distill digits --digits.train-share 0.9": "add up to 1.2: 1 was expected",
    "distill digits --augment nois:0.1": "Did you mean 'noise'?",
    "distill digits --settings nowhere.json": "nowhere.json",
    "compare digits --methods kd,supervized": "Did you mean 'supervised'?",
    "compare digits --seeds 5-2": "--seeds: seeds '5-2'",
    "compare digits --methods supervised --kd.temperature 2": "no option --kd.temperature",
    "run": "needs the name of a recipe",
    "run digits-kdd": "Did you mean 'digits-kd'?",
    "run digits-kd --devices 0": "--devices is 0",
    "run gauss-removal --dims 10-5": "'10-5' is no pair of numbers",
    "run gauss-removal --mode alg2": "there is no mode 'alg2'. Did you mean 'alg1'?",
    "run gauss-gamma --kl-reduction sum": "--kl-reduction is 'sum'",
    "reproduce distil": "Did you mean 'distill'?",
    "reproduce compare": "has no reference figures. With figures: few-labels, digits-kd, gauss-gamma",
    "reproduce digits-kd distill --references x.json": "--references goes with one recipe",
    "list kdd": "Did you mean 'kd'?",
    "evaluate": "xmodal evaluate needs RUN",
    "evaluate nowhere": "no run folder nowhere",
    "evaluate RUN --split tests": "--split is 'tests'. Did you mean 'test'?",
    "evaluate RUN diggits": "Did you mean 'digits'?",
    "report": "xmodal report needs RUNS",
    "report nowhere": "no run folder nowhere",
    "export RUN --format onx": "Did you mean 'onnx'?",
    "export RUN --name kdd": "their names are teacher, no-KD, kd",
    "export RUN --student fourie": "matches (modalities any, name any, seed any, student fourie)",
    "export RUN --seed 7": "matches (modalities any, name any, seed 7, student any)",
    "export nowhere": "no run folder nowhere",
    "predict nowhere.safetensors digits": "nowhere.safetensors",
    "predict . digits": "holds neither student.safetensors nor student.onnx",
    "predict RUN digits --modalities rows,fourier": "Its students read",
    "predict STUDENT": "xmodal predict needs DATA",
    "predict STUDENT nowhere.npy": "no file nowhere.npy",
    "predict STUDENT diggits": "Did you mean 'digits'?",
    "predict STUDENT digits --split tset": "--split is 'tset'. Did you mean 'test'?",
    "predict STUDENT digits --out RUN": "is a folder",
    "predict STUDENT digits --digits.views rows": "fourier",
    "embed STUDENT": "xmodal embed needs DATA",
    "teacher-table SOURCE": "xmodal teacher-table needs DATA",
    "embed STUDENT digits --out parts.csv": "the name of a .npz file was expected",
    "run discom DIR A B": "no data set called 'DIR'",
    "run discom discom ROWS FUO": "Did you mean 'FOU'",
    "run discom --domain-targets relased": "Did you mean 'released'",
    "data": "needs a command: make, prepare, check",
    "data mak": "Did you mean 'make'?",
    "data make": "needs the name of a data set",
    "data make diggits X": "Did you mean 'digits'?",
    "data make digits": "needs ROOT",
    "data make digits X --format raww": "raww",
    "data make digits X --seed -1": "--seed is -1",
    "data make digits RUN": "is there already",
    "data prepare digits nowhere X": "holds no digits",
    "data prepare digits nowhere X --workers -1": "--workers is -1",
    "doctor --verbose": "no option --verbose",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_command_line_is_a_sentence(line: str, call, run_folder: Path) -> None:
    before = sorted(run_folder.rglob("*"))
    named = line.replace("RUN", str(run_folder)).replace("STUDENT", str(run_folder / "seed-0/kd/students/fourier"))

    status, said, complained = call(named)

    assert status == 2
    assert BAD[line] in complained
    assert "Traceback" not in complained and "xmodal: " in complained
    assert said == ""
    assert sorted(Path.cwd().rglob("*")) == []
    assert sorted(run_folder.rglob("*")) == before


def test_all_problems_are_said_at_once(call) -> None:
    status, _, complained = call("distill digits --epochs 0 --batch-size x --optimizer adm --teecher a --temperature 0")

    assert status == 2
    assert len(complained.splitlines()) == 5


def test_a_word_too_many_makes_no_other_complaint(call) -> None:
    status, _, complained = call("run vggsound --vggsound.root root extra")

    assert status == 2
    assert complained == (
        "xmodal: xmodal run vggsound does not know what to do with 'extra': expected words are none.\n"
    )


def test_every_command_has_a_wrong_line_and_help(call) -> None:
    assert {line.split()[0] for line in BAD} >= set(COMMANDS) - {"distil"}
    for name in COMMANDS:
        status, said, complained = call(f"{name} --help")
        assert (status, complained) == (0, "")
        assert f"usage: xmodal {name}" in said


@pytest.mark.parametrize(
    "line", ["run digits-kd", "data make", "data make digits", "data prepare digits", "data check"]
)
def test_help_below_a_command(line: str, call) -> None:
    status, said, _ = call(f"{line} --help")

    assert status == 0
    assert said.startswith(f"usage: xmodal {line}")


def test_help_names_every_flag_of_methods_and_data(call) -> None:
    _, said, _ = call("compare digits --methods kd --help")

    for flag in ("--kd.temperature", "--kd.no-labels", "--digits.noisy-noise", "--seeds", "--settings", "--json"):
        assert flag in said


def test_errors_as_json_are_one_document(call) -> None:
    status, said, complained = call("distill digits --epochs 0 --batch-size 0 --json")

    found = json.loads(said)
    assert status == found["status"] == 2
    assert [f"xmodal: {problem}" for problem in found["errors"]] == complained.splitlines()
    assert len(found["errors"]) == 2


def test_error_of_ours_leaves_a_report(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "broken", ("xmodal.cli.no_such_module:command", "a card with a broken path"))

    status, said, complained = call("broken --flag")

    (report,) = Path.cwd().iterdir()
    assert status == 4 and said == ""
    assert report.name in complained and "Traceback" not in complained
    assert "Traceback" in report.read_text() and "broken --flag" in report.read_text()


def test_files_where_folders_were_expected(call, run_folder: Path) -> None:
    Path("file").touch()
    for line in (
        "distill digits --teacher rows --student fourier --epochs 1 --out file",
        f"report {run_folder} --out file/page.html",
        f"evaluate {run_folder} --out {run_folder}",
        f"export {run_folder} --out file",
    ):
        status, _, complained = call(line)
        assert status == 2, line
        assert "Traceback" not in complained and len(complained.splitlines()) == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["file"]


def test_other_shape_or_classes_are_refused(call, run_folder: Path) -> None:
    folder = Path("other")
    folder.mkdir()
    np.save(folder / "fourier.npy", np.ones((240, 7)) + np.arange(240)[:, None])
    np.save(folder / "labels.npy", np.arange(240) % 12)

    status, _, complained = call(f"evaluate {run_folder} other")

    assert status == 2
    assert "reads 'fourier' of shape (40,), and this data has (7,)" in complained
    assert "knows 10 classes, and this data has 12" in complained


def _folder(root: Path) -> Path:
    root.mkdir()
    np.save(root / "a.npy", np.random.default_rng(0).normal(size=(40, 3)))
    np.save(root / "b.npy", np.random.default_rng(1).normal(size=(40, 2)))
    np.save(root / "labels.npy", np.arange(40) % 2)
    for split, rows in {"train": np.arange(28), "valid": np.arange(28, 32), "test": np.arange(32, 40)}.items():
        np.save(root / f"{split}_idx.npy", rows)
    return root


@pytest.mark.parametrize(
    ("rows", "words", "sentence"),
    [
        ([29], "", "1 of 4 rows of valid_idx.npy have no label"),
        ([35, 36], "", "2 of 8 rows of test_idx.npy have no label"),
        (range(0, 28, 2), "", "No labelled row of train_idx.npy has the class 0"),
        (range(28), "", "No row of train_idx.npy has a label"),
        (range(40), "", "labels.npy has no label in any of its 40 rows"),
        (range(0, 40, 2), "", "Labels are -1 and 1; -1 means unlabelled. Use 0 and 1, or `unlabelled_label=None`."),
        ([3], "--folder.unlabelled-label none --task binary", "holds the classes -1, 0, 1: a binary task has two"),
        ([], "--folder.split-by-group", "the folder has no groups"),
    ],
)
def test_faults_of_labels_and_groups_are_sentences(rows, words: str, sentence: str, call, tmp_path: Path) -> None:
    root = _folder(tmp_path / "data")
    labels = np.load(root / "labels.npy")
    labels[list(rows)] = -1
    np.save(root / "labels.npy", labels)

    status, said, complained = call(f"distill {root} --teacher a --student b {words}")

    assert status == 2 and said == ""
    assert sentence in complained and "Traceback" not in complained

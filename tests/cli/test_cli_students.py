"""From a finished run to a student elsewhere: evaluate, report, export, predict."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import xmodal.export
from xmodal.data import reopen
from xmodal.data.digits import VIEWS


@pytest.fixture(scope="module")
def stored(run_folder: Path):
    """The run's own predictions on the test split."""
    return np.load(run_folder / "seed-0/kd/predictions/fourier.npz", allow_pickle=False)


def softmax(outputs: np.ndarray) -> np.ndarray:
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_exported_student_predicts_what_the_run_did(form: str, run_folder: Path, stored, call) -> None:
    name = f"student.{form}"
    status, said, _ = call(f"export {run_folder} --name kd --format {form} --out there")
    assert status == 0
    assert "kd, seed 0: chosen by flags" in said and f"Written: there/{name}" in said

    status, said, _ = call(f"predict there/{name} digits --split test")

    rows = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
    assert status == 0 and said.startswith(f"{len(stored['rows'])} samples: ")
    assert [int(row["row"]) for row in rows] == stored["rows"].tolist()
    assert [int(row["class"]) for row in rows] == stored["outputs"].argmax(axis=1).tolist()
    assert [row["name"] for row in rows] == [row["class"] for row in rows]
    # 32-bit arithmetic in another order
    assert np.allclose([float(row["probability"]) for row in rows], softmax(stored["outputs"]).max(axis=1), atol=1e-5)


def test_one_seed_exports_the_student_of_labels_alone_and_says_why(run_folder: Path, call, read) -> None:
    status, said, _ = call(f"export {run_folder} --out there --json")

    card = read(run_folder / "result.json")["ship"]
    assert status == 0
    assert json.loads(said)["student"] == str(run_folder / "seed-0/no-KD/students/fourier/student.safetensors")
    assert json.loads(said)["why"] == f"no-KD, seed 0: {card['why']}"
    assert card["why"].startswith("One seed cannot show whether kd is better than no-KD") and card["instead"] == "kd"


def test_torch_export_compares_and_writes(run_folder: Path, call) -> None:
    status, said, _ = call(f"export {run_folder} --format torch --out there --json")

    found = json.loads(said)
    assert status == 0
    assert [Path(file).name for file in found["files"]] == ["student.pt2", "student.json"]
    assert found["rows"] == 64 and found["difference"] < 1e-4


def test_export_from_fit_and_student_folders(run_folder: Path, call) -> None:
    for folder in ("seed-0/teacher", "seed-0/no-KD/students/fourier", "seed-0/kd/students/fourier/student.safetensors"):
        status, said, _ = call(f"export {run_folder / folder} --out there")
        assert status == 0 and "the only one" in said


def test_failed_comparison_is_status_1(run_folder: Path, call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmodal.export, "TOLERANCE", -1.0)  # nothing is equal enough

    status, said, complained = call(f"export {run_folder} --out there")

    assert status == 1 and said == ""
    assert "differs from the student" in complained
    assert list(Path("there").iterdir()) == []


def test_export_of_a_run_from_memory_asks_for_data(run_folder: Path, call, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    for file in (run_folder / "seed-0/kd/students/fourier").iterdir():
        (lone / file.name).write_bytes(file.read_bytes())

    refused = call(f"export {lone}")
    given = call(f"export {lone} --data digits")

    assert refused[0] == 2 and "--data" in refused[2]
    assert given[0] == 0 and "64 rows" in given[1]


def test_predict_folder_array_and_data_set_agree(run_folder: Path, stored, call) -> None:
    student = run_folder / "seed-0/kd/students/fourier"
    assert call("data make digits made")[0] == 0
    for name in VIEWS:
        if name != "fourier":
            Path(f"made/{name}.npy").unlink()
    Path("made/labels.npy").rename("labels.npy")  # not needed

    answers = [
        json.loads(call(f"predict {student} {data} --json")[1]) for data in ("made", "made/fourier.npy", "digits")
    ]

    classes = [[row["class"] for row in found["predictions"]] for found in answers]
    assert classes[0] == classes[1] == classes[2] and len(classes[0]) == 1797
    assert [classes[0][row] for row in stored["rows"]] == stored["outputs"].argmax(axis=1).tolist()


def test_predict_says_which_row_is_not_finite(run_folder: Path, call) -> None:
    samples = np.ones((1500, 40), dtype=np.float32)
    samples[1300, 3] = np.nan
    np.save("samples.npy", samples)

    status, _, complained = call(f"predict {run_folder / 'seed-0/kd/students/fourier'} samples.npy")

    assert status == 2 and "Row 1300 of 'fourier'" in complained
    assert not Path("predictions.csv").exists()


def test_evaluate_repeats_the_numbers_of_the_run(run_folder: Path, call, read) -> None:
    before = (run_folder / "result.json").read_bytes()

    status, said, _ = call(f"evaluate {run_folder}")

    assert status == 0 and "teacher" in said
    expected = {row["name"]: row["test"] for row in read(run_folder / "result.json")["rows"]}
    found = {row["name"]: row["scores"] for row in read(run_folder / "evaluation.json")["rows"]}
    assert found.keys() == expected.keys()
    for name, scores in found.items():
        assert scores["confusion"] == expected[name]["confusion"]
        assert scores["cross_entropy"] == pytest.approx(expected[name]["cross_entropy"], abs=1e-5)
    assert (run_folder / "result.json").read_bytes() == before


def test_evaluate_on_data_without_the_teachers_modality(run_folder: Path, call) -> None:
    status, said, _ = call(f"evaluate {run_folder} digits --digits.views fourier --split valid --out e.json --json")

    found = json.loads(said)
    assert status == 0
    assert [row["name"] for row in found["rows"]] == ["no-KD", "kd", "kd (shuffled teacher)"]
    assert found["notes"] == ["teacher reads rows, which this data does not have: left out."]
    assert len(reopen(found["data"]).valid) == sum(map(sum, found["rows"][0]["scores"]["confusion"]))


def test_report_is_redrawn(run_folder: Path, call) -> None:
    status, said, _ = call(f"report {run_folder} --out page.html")
    assert status == 0 and said == "Report: page.html\n"
    assert Path("page.html").read_bytes() == (run_folder / "report.html").read_bytes()

    status, said, _ = call(f"report {run_folder} {run_folder / 'seed-0/kd'} --json")
    assert status == 0 and json.loads(said)["file"] == "report.html"


def test_predict_takes_a_run_folder_and_names_the_student_that_it_chose(run_folder: Path, call) -> None:
    fit = next(run_folder.glob("seed-*/kd"))

    chosen = call("predict", run_folder, "digits", "--split", "test", "--out", "run.csv")
    named = call("predict", run_folder, "digits", "--split", "test", "--name", "kd", "--out", "named.csv")
    alone = call("predict", fit, "digits", "--split", "test", "--out", "fit.csv")

    assert [said[0] for said in (chosen, named, alone)] == [0, 0, 0]
    assert "/no-KD/students/" in chosen[1] and "/kd/students/" in named[1] and "/kd/students/" in alone[1]


def test_choosing_a_student_needs_a_run_folder_that_has_it(run_folder: Path, call) -> None:
    student = next(run_folder.glob("seed-*/kd/students/*"))

    status, _, outside = call("predict", student, "digits", "--modalities", "fourier")
    other, _, missing = call("predict", run_folder, "digits", "--modalities", "rows,fourier")

    assert (status, other) == (2, 2)
    assert "choose among the students of a run folder" in outside
    assert "No student of" in missing and "Its students read" in missing

"""Cross-validation in a comparison: fold k takes the place of seed k."""

import json

import numpy as np
import pytest

from xmodal.cli.main import answer
from xmodal.errors import InputError
from xmodal.reports.tables import comparison_table
from xmodal.reports.verdicts import verdict

FAST = "--teacher rows --student fourier --epochs 1 --no-shuffled --threads 1 --accelerator cpu"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "run"
    assert answer(["compare", "digits", *FAST.split(), "--folds", "3", "--out", str(out)]) == 0
    return out


def result_of(run):
    return json.loads((run / "result.json").read_text())


def test_every_row_of_the_data_is_tested_once_by_each_network(run):
    tested = [np.load(run / f"seed-{fold}/kd/predictions/fourier.npz")["rows"] for fold in range(3)]

    assert sorted(np.concatenate(tested).tolist()) == list(range(1797))


def test_the_result_pairs_the_rows_of_a_fold_and_says_folds(run):
    result = result_of(run)
    kd = next(entry for entry in result["summary"] if entry["name"] == "kd")

    accuracies = {
        name: [row["test"]["accuracy"] for row in result["rows"] if row["name"] == name] for name in ("kd", "no-KD")
    }
    assert result["folds"] == 3 and result["seeds"] == [0, 1, 2] and kd["n"] == 3
    assert kd["difference"]["difference"] == pytest.approx(np.mean(accuracies["kd"]) - np.mean(accuracies["no-KD"]))
    assert any("1797 labelled rows of all splits are divided into 3 folds" in said for said in result["notes"])
    assert any("intervals and p-values over them are approximate" in said for said in result["notes"])
    assert comparison_table(result)[0][2] == "folds" and any("3 folds" in said for said in verdict(result))
    assert "seed" not in " ".join(verdict(result))
    page = (run / "report.html").read_text()
    assert "3 folds" in page and "fold 2" in page


def test_a_comparison_of_folds_is_resumed_and_its_students_are_exported_on_their_own_split(run, capsys):
    before = result_of(run)
    (run / "result.json").unlink()
    (run / "seed-2" / "kd" / "result.json").unlink()

    line = ["compare", "digits", *FAST.split(), "--folds", "3", "--out", str(run), "--resume"]
    assert answer(line) == 0
    assert result_of(run)["rows"] == before["rows"]
    assert answer(["export", str(run), "--name", "kd", "--seed", "1", "--out", str(run / "export")]) == 0
    assert "largest difference 0" in capsys.readouterr().out


def test_saved_settings_of_folds_can_be_repeated(run, tmp_path):
    settings = json.loads((run / "settings.json").read_text())["settings"]

    assert settings["folds"] == 3 and "seeds" not in settings
    line = ["compare", "--settings", str(run / "settings.json"), "--out", str(tmp_path / "again"), "--json"]
    assert answer(line) == 0
    assert result_of(tmp_path / "again")["rows"] == result_of(run)["rows"]


def test_data_that_brings_its_splits_along_is_refused(tmp_path):
    from xmodal.data import open_data

    assert (
        answer(["data", "make", "semantic-kitti", str(tmp_path / "kitti"), "--sequences", "0,8", "--frames", "2"]) == 0
    )
    with pytest.raises(InputError, match="splits of its own, which can't be divided into folds"):
        open_data("semantic-kitti", options={"root": tmp_path / "kitti"}, folds=2)

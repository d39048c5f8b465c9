"""The two examples that report to a tracker, against the real packages and without a network."""

import importlib.util
import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ["teacher seed 0", "no-KD seed 0", "kd seed 0", "kd (shuffled teacher) seed 0"]

# the packages have warnings of their own
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def run(package, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        required = os.environ.get("XMODAL_REQUIRE_EXTRAS") == "1" or os.environ.get("CI") == "true"
        stop = pytest.fail if required else pytest.skip
        stop(f"{package} is not installed: pip install -c constraints.txt -e '.[trackers]'")
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(ROOT / "examples" / f"track_{package}.py"))


def test_mlflow_has_a_run_per_training_with_a_loss_per_epoch_and_a_test_score(tmp_path, monkeypatch, capsys):
    example = run("mlflow", tmp_path, monkeypatch)

    example["main"]()

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'tracked.db'}")
    runs = {found.info.run_name: found for found in client.search_runs(["0"])}
    assert sorted(runs) == sorted(NAMES)
    for found in runs.values():
        losses = client.get_metric_history(found.info.run_id, "loss")
        assert sorted(loss.step for loss in losses) == [0, 1, 2, 3, 4]
        assert {"accuracy", "test_accuracy"} <= found.data.metrics.keys()
        assert found.info.status == "FINISHED"
    score = f"teacher {100 * runs['teacher seed 0'].data.metrics['test_accuracy']:.1f}"
    assert score in capsys.readouterr().out


def test_wandb_has_a_run_per_training_in_a_folder(tmp_path, monkeypatch, capsys):
    # its folder with settings is in the home of the user otherwise
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    example = run("wandb", tmp_path, monkeypatch)

    example["main"]()

    written = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 4
    content = b"".join(file.read_bytes() for file in written)
    for name in NAMES:
        assert name.encode() in content
    assert content.count(b"accuracy") >= 4 * 5
    assert "teacher" in capsys.readouterr().out

"""The claim on made drives: a camera teaches a LiDAR network, an untrained teacher or one of other frames does not.

Drives and seeds are others than those on which the small preset was chosen (data seed 100, seeds 0 and 1).
"""

import json
import time

import pytest

from xmodal.cli.main import answer

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]


def in_seconds(*words):
    before = time.process_time()
    assert answer([str(word) for word in words]) == 0
    return time.process_time() - before


def means(rows, metric="mean_iou"):
    found = {}
    for row in rows:
        found.setdefault(row["name"], []).append(100 * row["test"][metric])
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_from_nothing_to_scores_a_student_learns_from_the_camera_and_not_from_other_teachers(tmp_path, capsys):
    root, out = tmp_path / "root", tmp_path / "run"

    seconds = {
        "make": in_seconds("data", "make", "semantic-kitti", root, "--width", 160, "--height", 48, "--seed", 7),
        "run": in_seconds(
            *("run", "semantic-kitti", "--preset", "small", "--semantic-kitti.root", root, "--accelerator", "cpu"),
            *("--seeds", "40-42", "--out", out),
        ),
        "evaluate": in_seconds("evaluate", out),
    }

    result = json.loads((out / "result.json").read_text())
    scores = means(result["rows"])
    with capsys.disabled():
        print(f"\nprocessor seconds {seconds}")
        for row in result["rows"]:
            print(row["seed"], row["name"], f"{100 * row['test']['mean_iou']:.1f} % mIoU")
        print(scores)
    assert scores["teacher"] > scores["kd kl"] > scores["no-KD"] + 2
    for other in ("kd kl (shuffled teacher)", "kd kl (untrained teacher)"):
        assert scores[other] < scores["no-KD"] + 1 and scores[other] < scores["kd kl"] - 2
    assert len((out / "preds").rglob("*.label").__iter__().__next__().read_bytes()) % 4 == 0

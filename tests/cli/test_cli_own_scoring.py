"""`evaluate` on data that is scored in a way of its own: flags, files, tables, the gain, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal import files
from xmodal.data import open_data
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.engine.fit import as_it_is
from xmodal.engine.run.folder import open_folder
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for

ROLES = {"teacher": ("teacher", "image"), "no-KD": ("control", "lidar"), "kd": ("method", "lidar")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two small drives, and a comparison of untrained networks on them."""
    root, run = (tmp_path_factory.mktemp("own") / name for name in ("kitti", "run"))
    make(root, sequences="0,8", frames=3, width=70, height=38, beams=16, turns=96)
    data = open_data("semantic-kitti", options={"root": root})
    open_folder(run, {"recipe": "compare", "settings": {}}, resume=False)
    rows = []
    for seed, (name, (role, modality)) in enumerate(ROLES.items()):
        torch.manual_seed(seed)
        encoder = "salsanext" if modality == "lidar" else "camera_resnet10"
        method = Supervised(build_for(data.info, [modality], encoder=encoder, width=2), data.info)
        done = as_it_is(method, data, folder=run / "seed-0" / name)
        facts = {"name": name, "role": role, "seed": 0, "student": modality, "folder": f"seed-0/{name}"}
        rows.append({**facts, "needs": [modality], "test": {}, "valid": done.best[modality]["valid"]})
    result = {"rows": rows, "metric": "mean_iou", "direction": "max", "source": data.source}
    files.write_json(run / "result.json", result)
    return root, run


def test_a_run_is_scored_on_the_points_of_its_own_data(made, call, read):
    root, run = made

    status, said, _ = call(f"evaluate {run} --metric reference")

    found = read(run / "evaluation.json")
    assert status == 0 and "3-D IoU" in said and "reference rule" in said and "kd, seed 0" in said
    assert "gain in mean iou (%)" in said and "ncjsd" in said
    scores = {row["name"]: row["scores"] for row in found["rows"]}
    gains = {row["name"]: row["gains"] for row in found["rows"] if "gains" in row}
    assert gains == {"kd": {"mean_iou": pytest.approx(scores["kd"]["mean_iou"] - scores["no-KD"]["mean_iou"])}}
    assert "ncjsd" in scores["no-KD"] and "ncjsd" not in scores["teacher"]
    assert found["options"]["metric"] == "reference" and not found["options"]["knn"]
    for row in found["rows"]:
        labels = sorted(Path(row["written"]).rglob("*.label"))
        assert [path.name for path in labels] == ["000000.label", "000001.label", "000002.label"]
        for path in labels:
            assert path.stat().st_size == (root / "sequences/08/labels" / path.name).stat().st_size
        assert np.sum(row["tables"]["points"]["confusion"]) > 0


def test_data_and_flags_may_be_given_in_any_order(made, call, read):
    root, run = made
    flags = f"--semantic-kitti.root {root} --no-predictions --out votes.json"

    first = call(f"evaluate --knn {run} semantic-kitti {flags}")
    second = call(f"evaluate {run} semantic-kitti --knn-search 3 --knn {flags.replace('votes', 'more')}")

    assert (first[0], second[0]) == (0, 0)
    votes, more = read(Path("votes.json")), read(Path("more.json"))
    assert votes["options"]["knn"] and votes["options"]["knn_search"] == 5 and more["options"]["knn_search"] == 3
    assert not Path("preds").exists() and votes["rows"][0]["written"] is None
    assert "5 neighbours of 5x5" in first[1] and "5 neighbours of 3x3" in second[1]


def test_a_single_student_and_other_splits_are_scored_too(made, call, read):
    root, run = made

    status, said, _ = call(
        f"evaluate {run / 'seed-0/kd'} semantic-kitti --semantic-kitti.root {root} --split valid --out one/e.json"
    )

    (row,) = read(Path("one/e.json"))["rows"]
    assert status == 0 and "gain" not in said and "ncjsd" not in row["scores"]
    assert [path.name for path in Path("one/preds").rglob("*.label")] == ["000002.label"]  # held back from drive 00


def test_help_lists_the_flags_of_the_way_and_other_data_has_none(made, call):
    root, run = made

    _, with_run, _ = call(f"evaluate {run} --help")
    _, with_data, _ = call("evaluate anything semantic-kitti --help")
    status, _, complained = call(f"evaluate {run} digits --knn")

    assert "--knn-cutoff" in with_run and "--knn-cutoff" in with_data and "--semantic-kitti.root" in with_data
    assert status == 2 and "no option --knn" in complained


def test_what_is_wrong_with_a_flag_is_said(made, call):
    _, run = made

    status, _, complained = call(f"evaluate {run} --metric bench --knn-neighbours 0")

    assert status == 2 and "Did you mean 'benchmark'" in complained and "--knn-neighbours is 0" in complained


def test_an_even_window_is_refused_before_anything_is_read(made, call):
    _, run = made

    status, _, complained = call(f"evaluate {run} --knn --knn-search 4")

    assert status == 2 and "odd" in complained

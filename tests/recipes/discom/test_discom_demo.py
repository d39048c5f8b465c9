"""The demo of DisCoM-KD at its full length: accuracies beside the reference, and what the branches contain."""

import pytest

from xmodal.data.discom import make
from xmodal.recipes.discom import experiment

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]


def test_the_demo_reaches_its_scores_and_prints_the_control_of_the_same_size(tmp_path):
    published = experiment.published()
    result = experiment.run(published.model_copy(update={"out": tmp_path / "demo"}))

    mean = {entry["name"].partition(", ")[0] + f" {entry['role']}": 100 * entry["mean"] for entry in result["summary"]}
    assert mean["discom: ROWS method"] >= 92.0 and mean["discom: FOU method"] >= 80.0
    for name in ("ROWS", "FOU"):
        assert mean[f"discom: {name} method"] >= mean[f"no-KD: {name} control"] - 1.0
        assert f"no-KD: {name} matched" in mean
    assert len(result["references"]) == 11 and all(row["ok"] for row in result["references"])


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return make(tmp_path_factory.mktemp("half") / "DIR", train_share=0.5)


def contents(half, out, **changes):
    settings = {"epochs": 40, "batch_size": 128, "learning_rate": 1e-3, "width": 64, "threads": 1, "splits": "0-2"}
    settings |= {"data": str(half), "modalities": ("ROWS", "FOU"), "control": False, "out": out}
    return experiment.run(experiment.Settings(**settings, **changes))["branches"]["content"]


def test_the_branches_contain_what_the_terms_ask_for(half, tmp_path):
    found = contents(half, tmp_path / "all")

    assert min(found["heads"]["informative"], found["heads"]["irrelevant"]) >= 0.95
    assert 0.40 <= found["heads"]["adversary"] <= 0.60
    assert found["cosines"]["irrelevant"] <= 0.05 and found["cosines"]["invariant"] <= 0.20
    assert min(found["auxiliary"].values()) >= 0.90


def test_without_orthogonality_the_parts_say_the_same(half, tmp_path):
    found = contents(half, tmp_path / "none", orthogonality_weight=0.0)

    assert found["cosines"]["irrelevant"] >= 0.20 and found["cosines"]["invariant"] >= 0.50


def test_released_targets_leave_the_heads_at_chance(half, tmp_path):
    found = contents(half, tmp_path / "released", domain_targets="released")

    assert all(0.40 <= accuracy <= 0.60 for accuracy in found["heads"].values())

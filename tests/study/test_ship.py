"""The ship card: what is deployed, decided on fixed rows of results, and measured once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xmodal.api.distill import distill
from xmodal.data import open_data
from xmodal.recipes import compare
from xmodal.reports.summary import summarise
from xmodal.study.ship import OWN_SPLITS, ship_card
from xmodal.study.speed import measure
from xmodal.types import DataInfo, InputInfo, Normalisation, Student

SELECT = ("accuracy", "max")
Scores = dict[str, tuple[list[float], list[float]]]  # name → scores on validation and on the test split, by seed
CONTROL = [0.60, 0.62, 0.61, 0.63, 0.60]
ABOVE = [0.64, 0.65, 0.66, 0.66, 0.65]
SPREAD = [0.70, 0.55, 0.68, 0.57, 0.66]  # above the control in the mean, and not beyond noise


def result_of(scores: Scores, *, needs: dict[str, list[str]] | None = None) -> dict[str, Any]:
    roles = {"no-KD": "control", "teacher": "teacher"}
    rows = [
        {
            "seed": seed,
            "name": name,
            "role": roles.get(name, "method"),
            "student": "a",
            "needs": (needs or {}).get(name, ["a"]),
            "folder": f"seed-{seed}/{name}",
            "parameters": 10,
            "valid": {"accuracy": on_valid},
            "test": {"accuracy": on_test},
        }
        for name, splits in scores.items()
        for seed, (on_valid, on_test) in enumerate(zip(*splits, strict=True))
    ]
    summary = summarise(rows, metric="accuracy", direction="max")
    return {"metric": "accuracy", "direction": "max", "student": ["a"], "rows": rows, "summary": summary}


def card_of(scores: Scores, **more: Any) -> dict[str, Any]:
    card = ship_card(result_of(scores, **more), SELECT)
    assert card is not None
    return card


def test_without_a_gain_beyond_noise_the_student_of_labels_alone_is_shipped() -> None:
    # kd has the better mean, on both splits, and the best single score of all
    card = card_of({"no-KD": (CONTROL, CONTROL), "kd": (SPREAD, SPREAD)})

    assert (card["name"], card["role"], card["instead"]) == ("no-KD", "control", "kd")
    assert card["why"].startswith(
        "kd is not shown to be better than no-KD (+2.0 points on the test split, 95 % interval"
    )
    assert card["seed"] == 3 and "Of its 5 seeds, seed 3 is the best on validation." in card["why"]


def test_a_control_that_is_better_is_shipped() -> None:
    card = card_of({"no-KD": (ABOVE, ABOVE), "kd": (CONTROL, CONTROL)})

    assert card["file"] == "seed-2/no-KD/students/a/student.safetensors"


def test_a_method_that_is_better_beyond_noise_is_shipped_with_its_best_seed_on_validation() -> None:
    valid = [0.64, 0.69, 0.66, 0.66, 0.65]
    card = card_of({"no-KD": (CONTROL, CONTROL), "kd": (valid, ABOVE)})

    assert (card["name"], card["seed"], card["instead"]) == ("kd", 1, "")
    assert card["why"].startswith("kd is better than no-KD beyond noise (+4.0 points on the test split, 95 % interval")
    assert "Mean on validation: 66.0 % accuracy, no-KD 61.2 % accuracy." in card["why"]


def test_the_method_is_chosen_by_its_mean_on_validation_and_not_by_its_best_seed() -> None:
    steady, lucky = [0.66, 0.66, 0.67, 0.66, 0.66], [0.64, 0.64, 0.80, 0.56, 0.64]
    # on the test split it is the other way round, which must not matter
    better = [value + 0.02 for value in ABOVE]
    card = card_of({"no-KD": (CONTROL, CONTROL), "lucky": (lucky, better), "steady": (steady, ABOVE)})

    assert (card["name"], card["seed"]) == ("steady", 2)
    assert "Of 2 such methods it has the best mean on validation (66.2 % accuracy)." in card["why"]


def test_of_several_methods_only_those_that_are_shown_to_be_better_can_be_shipped() -> None:
    # the best mean on validation has the wide interval
    wide = [value + 0.1 for value in SPREAD]
    card = card_of({"no-KD": (CONTROL, CONTROL), "wide": (wide, SPREAD), "kd": (ABOVE, ABOVE)})

    assert card["name"] == "kd"


def test_no_method_of_several_is_named_by_the_best_on_validation() -> None:
    card = card_of({"no-KD": (CONTROL, CONTROL), "a": (CONTROL, SPREAD), "b": (SPREAD, SPREAD)})

    assert card["instead"] == "b"
    assert card["why"].startswith("No method is shown to be better than no-KD (best on validation is b: +2.0 points")


def test_one_seed_shows_no_gain() -> None:
    card = card_of({"no-KD": ([0.6], [0.6]), "kd": ([0.9], [0.9]), "teacher": ([0.99], [0.99])})

    assert (card["name"], card["instead"]) == ("no-KD", "kd")
    assert card["why"].startswith(
        "One seed cannot show whether kd is better than no-KD (+30.0 points on the test split)"
    )


def test_a_score_that_is_not_finite_is_never_the_best() -> None:
    valid: list[Any] = [float("nan"), 0.6, None, 0.7, 0.5]
    card = card_of({"no-KD": (valid, CONTROL)})

    assert card["seed"] == 3 and card["why"].startswith("No method was compared with it.")


def test_without_a_control_the_best_method_on_validation_is_shipped_and_nothing_is_claimed() -> None:
    card = card_of({"kd": (ABOVE, ABOVE), "dkd": (CONTROL, CONTROL)})

    assert card["name"] == "kd" and "so whether distillation helps is not known" in card["why"]


def test_only_students_of_the_deployed_modalities_are_shipped() -> None:
    scores: Scores = {"kd: both": (ABOVE, ABOVE), "kd": (CONTROL, CONTROL)}

    assert card_of(scores)["name"] == "kd: both"
    assert card_of(scores, needs={"kd: both": ["a", "b"], "kd": ["a", "a.lengths"]})["name"] == "kd"


def test_a_smaller_error_is_better() -> None:
    result = result_of({"no-KD": (CONTROL, CONTROL)})

    assert ship_card(result, ("accuracy", "min"))["seed"] == 0  # type: ignore[index]


def test_teachers_alone_have_no_card() -> None:
    assert ship_card(result_of({"teacher": (CONTROL, CONTROL)}), SELECT) is None


# ---- size and speed


class Slow(nn.Module):
    """Counts its calls, and reads what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.seen: list[torch.Tensor] = []

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        assert torch.get_num_threads() == 1
        self.seen.append(inputs["a"])
        return self.layer(inputs["a"])


def test_a_normalised_sample_of_one_row_is_measured_with_one_thread_in_float32() -> None:
    network, threads = Slow(), torch.get_num_threads()
    info = DataInfo({"a": InputInfo((3,), "float64")}, task="multiclass", classes=2, rows={})
    torch.set_num_threads(2)
    student = Student(network, ("a",), "a", normalisation={"a": Normalisation([1.0] * 3, [2.0] * 3)})
    try:
        measured = measure(student, info)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)

    assert 0 < measured["ms_median"] <= measured["ms_p95"]
    # 2 x 3 weights and 2 biases, and the two statistics of three numbers, 4 bytes each
    assert measured["parameters"] == 8 and measured["bytes"] == 4 * (8 + 6)
    assert network.seen == [] and network.layer.weight.dtype == torch.float64, "a copy is measured"


FAST = {"teacher": "rows", "student": "fourier", "epochs": 1, "threads": 1, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two seeds."""
    out = tmp_path_factory.mktemp("ship") / "a run"
    compare.run(compare.Settings(**FAST, seeds="2", methods="supervised,kd,pmf", out=out))
    return out


def test_a_run_has_a_card_with_size_speed_and_a_command(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    card = result["ship"]

    assert card["command"] == f"xmodal export '{run}'"
    assert result["deploy"] == card["file"] and (run / card["file"]).stat().st_size == card["bytes"]
    assert 0 < card["ms_median"] <= card["ms_p95"] and card["parameters"] > 1000
    # digits draw other splits for each seed
    assert card["name"] == "no-KD" and card["why"].endswith(OWN_SPLITS)


def test_a_finished_run_is_not_measured_again(run: Path) -> None:
    before = json.loads((run / "result.json").read_text())
    again = compare.run(compare.Settings(**FAST, seeds="2", methods="supervised,kd,pmf", out=run, resume=True))

    assert again["ship"] == before["ship"]


def test_a_method_that_does_not_fit_the_data_is_left_out_with_a_note(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())

    assert [entry["name"] for entry in result["summary"]] == ["teacher", "no-KD", "kd", "kd (shuffled teacher)"]
    assert any(
        note.startswith("pmf is left out: The method 'pmf' predicts for every pixel") for note in result["notes"]
    )


def test_what_is_not_written_has_no_file_and_no_command() -> None:
    data = open_data("digits", options={"views": ["rows", "fourier"]})
    done = distill(data=data, teacher="rows", student="fourier", epochs=1, training={"threads": 1})
    card = done.result["ship"]

    assert (card["name"], card["file"], card["folder"], card["command"]) == ("no-KD", "", "", "")
    assert done.result["deploy"] == "" and card["bytes"] > 4 * card["parameters"] - 1 and card["ms_median"] > 0

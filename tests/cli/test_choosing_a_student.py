"""Which student of a run is exported, on run folders whose scores are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xmodal.cli.students import Wanted, choose
from xmodal.errors import InputError
from xmodal.files import write_json

# name → validation score of seeds 0 and 1
SCORES = {"teacher": (0.99, 0.99), "no-KD": (0.70, 0.71), "kd": (0.90, 0.80), "discom": (0.85, 0.86)}
ROLES = {"teacher": "teacher", "no-KD": "control"}


def run_of(folder: Path, **more: Any) -> Path:
    """A finished comparison; the files of its students are empty."""
    rows = [
        {
            "seed": seed,
            "name": name,
            "role": ROLES.get(name, "method"),
            "student": "audio",
            "needs": ["audio"] + ["image"] * (name == "teacher"),
            "folder": f"seed-{seed}/{name}",
            "valid": {"accuracy": score},
            "test": {"accuracy": 0.5},
        }
        for name, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    write_json(folder / "settings.json", {})
    write_json(folder / "environment.json", {})
    write_json(folder / "result.json", {"metric": "accuracy", "direction": "max", "rows": rows, **more})
    for row in rows:
        fit = folder / row["folder"]
        for name in ("settings", "environment"):
            write_json(fit / f"{name}.json", {})
        write_json(fit / "result.json", {"students": {}, "seed": row["seed"]})
        (fit / "history.jsonl").touch()
        (fit / "students" / "audio").mkdir(parents=True)
        (fit / "students" / "audio" / "student.safetensors").touch()
    return folder


CARD = {
    "name": "no-KD",
    "role": "control",
    "seed": 1,
    "student": "audio",
    "folder": "seed-1/no-KD",
    "file": "seed-1/no-KD/students/audio/student.safetensors",
    "why": "kd is not shown to be better than no-KD.",
    "instead": "kd",
    "command": "xmodal export run",
}


@pytest.mark.parametrize(
    ("wanted", "name", "seed"),
    [
        (Wanted(), "no-KD", 1),
        (Wanted(modalities=("audio",)), "no-KD", 1),
        (Wanted(seed=0), "no-KD", 0),
        (Wanted(name="kd"), "kd", 0),
        (Wanted(name="kd", seed=1), "kd", 1),
        (Wanted(name="teacher"), "teacher", 0),
        (Wanted(modalities=("image", "audio")), "teacher", 0),
    ],
)
def test_the_ship_card_decides_unless_flags_name_another(tmp_path: Path, wanted: Wanted, name: str, seed: int) -> None:
    student, _ = choose(run_of(tmp_path / "run", ship=CARD), wanted, one_kind=True)

    assert (student.name, student.seed) == (name, seed)


def test_the_reason_is_that_of_the_card_or_says_that_flags_chose(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ship=CARD)

    assert choose(run, Wanted())[1] == f"no-KD, seed 1: {CARD['why']}"
    assert choose(run, Wanted(name="kd"))[1] == "kd, seed 0: the best match on the validation split"
    assert choose(run, Wanted(name="kd", seed=1))[1] == "kd, seed 1: chosen by flags"


def test_a_run_without_a_card_names_its_file(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", deploy="seed-1/kd/students/audio/student.safetensors")

    student, why = choose(run, Wanted(), one_kind=True)

    assert (student.name, student.seed) == ("kd", 1)
    assert why == "kd, seed 1: the student that the run chose on the validation split"


def test_several_methods_are_no_choice_of_an_export_and_one_of_a_prediction(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")

    with pytest.raises(InputError, match="Several students .* Choose one of: --name 'teacher' --seed 0"):
        choose(run, Wanted(), one_kind=True)
    # of the methods, the best on the validation split
    assert choose(run, Wanted())[0].path == run / "seed-0/kd/students/audio/student.safetensors"
    assert choose(run, Wanted(seed=1))[0].name == "discom"


def test_flags_that_fit_no_student_are_told_also_for_a_student_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ship=CARD)
    alone = run / "seed-0/kd/students/audio"

    assert choose(alone, Wanted()) == (choose(alone, Wanted(name="kd"))[0], "the only one")
    with pytest.raises(InputError, match="name dkd, seed any"):
        choose(alone, Wanted(name="dkd"))

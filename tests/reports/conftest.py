"""Run folders in the documented format, written without training and without the engine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from xmodal.reports import summarise

NAMES = (
    ("teacher", "teacher", "rows"),
    ("no-KD", "control", "fourier"),
    ("kd (shuffled teacher)", "shuffled", "fourier"),
    ("kd", "method", "fourier"),
)
LEVELS = {"teacher": 0.962, "no-KD": 0.905, "kd (shuffled teacher)": 0.9, "kd": 0.926}
SEEDS = range(5)
CLASSES = 10
EPOCHS = 12
ENVIRONMENT = {
    "schema": 1,
    "xmodal": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "platform": "Linux",
    "threads": 2,
    "devices": ["cpu"],
    "precision": "32-true",
    "started": "2026-01-01T00:00:00",
}


def wobble(*numbers: int) -> float:
    """A number in [-1, 1] that looks random and is always the same."""
    return math.sin(sum((place + 1.7) * (number + 1) * 12.9898 for place, number in enumerate(numbers)))


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def metrics(name: str, seed: int) -> dict[str, Any]:
    """A test score whose accuracy, recalls and confusion agree: 50 samples per class."""
    confusion = [[0] * CLASSES for _ in range(CLASSES)]
    for true in range(CLASSES):
        share = (
            LEVELS[name]
            + 0.04 * wobble(true, 3)
            + 0.02 * wobble(seed, len(name), true)
            + 0.012 * wobble(seed, len(name))
        )
        wrong = min(50, max(0, round(50 * (1 - share))))
        confusion[true][true] = 50 - wrong
        confusion[true][(true + 3) % CLASSES] += wrong - wrong // 3
        confusion[true][(true + 5) % CLASSES] += wrong // 3
    recalls = [confusion[true][true] / 50 for true in range(CLASSES)]
    accuracy = sum(recalls) / CLASSES
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.003,
        "weighted_f1": accuracy - 0.002,
        "cross_entropy": 1.9 * (1 - accuracy) + 0.05,
        "per_class": recalls,
        "confusion": confusion,
    }


def write_fit(folder: Path, name: str, seed: int, student: str) -> dict[str, Any]:
    """One trained method; returns its test metrics."""
    test = metrics(name, seed)
    write(folder / "settings.json", {"schema": 1, "fit": {"epochs": EPOCHS, "batch_size": 64, "learning_rate": 0.001}})
    write(folder / "environment.json", ENVIRONMENT)
    lines = [json.dumps(epoch_row(name, seed, epoch, student)) + "\n" for epoch in range(EPOCHS)]
    (folder / "history.jsonl").write_text("".join(lines), encoding="utf-8")
    scalars = {key: value for key, value in test.items() if isinstance(value, float)}
    scored = {"needs": [student], "best_epoch": EPOCHS - 2, "valid": scalars, "test": test}
    result = {"schema": 1, "seed": seed, "epochs": EPOCHS, "stopped": "epochs", "seconds": 1.2}
    write(folder / "result.json", result | {"students": {student: scored}})
    return test


def epoch_row(name: str, seed: int, epoch: int, student: str) -> dict[str, Any]:
    reached = 1 - math.exp(-(epoch + 1) / 3)
    accuracy = 0.1 + (LEVELS[name] - 0.1) * reached + 0.008 * wobble(seed, epoch, len(name))
    losses = {"cross_entropy": 2.2 * (1 - reached) + 0.1}
    if name.startswith("kd"):
        losses["kl"] = 0.9 * (1 - reached) + 0.2
    valid = {student: {"accuracy": accuracy, "macro_f1": accuracy - 0.003, "cross_entropy": 2 * (1 - accuracy)}}
    row = {"epoch": epoch, "steps": 12 * (epoch + 1), "loss": sum(losses.values()), "losses": losses, "logs": {}}
    return row | {"lr": [0.001], "valid": valid, "seconds": 0.05}


def write_comparison(folder: Path) -> Path:
    """A finished comparison: five seeds, four names, ten classes, with a folder per fit."""
    rows = []
    for seed in SEEDS:
        for name, role, student in NAMES:
            inside = f"seed-{seed}/{name.replace(' ', '-').replace('(', '').replace(')', '')}"
            test = write_fit(folder / inside, name, seed, student)
            row = {"seed": seed, "name": name, "role": role, "needs": [student], "folder": inside, "test": test}
            rows.append(row)
    result = {
        "schema": 1,
        "recipe": "compare",
        "title": "Does distillation from rows help a student on fourier?",
        "data": "digits",
        "task": "multiclass",
        "class_names": [str(place) for place in range(CLASSES)],
        "metric": "accuracy",
        "direction": "max",
        "teacher": ["rows"],
        "student": ["fourier"],
        "seeds": list(SEEDS),
        "rows": rows,
        "summary": summarise(rows, metric="accuracy", direction="max"),
        "notes": ["The validation split chose each epoch; the test split was read once, at the end."],
    }
    write(folder / "result.json", result)
    settings = {"teacher": ["rows"], "student": ["fourier"], "methods": ["kd"], "fit": {"epochs": EPOCHS}}
    write(folder / "settings.json", {"schema": 1, "recipe": "compare", "settings": settings})
    write(folder / "environment.json", ENVIRONMENT)
    return folder


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison folder, read only: a test that damages files copies it first."""
    return write_comparison(tmp_path_factory.mktemp("runs") / "digits-compare")

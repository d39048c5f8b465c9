"""Time of training many small models as stacks, relative to training them one after the other.

The work is that of the first two synthetic experiments on the modality focusing hypothesis (MFH): a linear teacher, a
control and a distilled student for each of 11 settings and 10 seeds, 1000 full-batch steps each, 330 models in all; and
that of the Gaussian experiment on non-target divergence (NTDH), 6 settings, 180 models. The straightforward code is a
loop written from their description: a module, an optimiser, a backward pass, teacher outputs in every step, and
the accuracy on training and test rows after every epoch, as in the authors' code; it is also run without those
evaluations. Ours starts from the arrays too and includes everything: data sets, methods, stacking, recording, the
finished runs and their test accuracies. Both start from the same weights, and all test accuracies must be equal.

The loop takes minutes, so it is run for two seeds and the time of the others is extrapolated; ``--full`` runs them all.

    python benchmarks/fit_many.py [--full]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import student_of

TRAIN, TEST, EPOCHS, RATE = 200, 1000, 1000, 0.1
SEEDS, TIMED = 10, 2
ROLES = ("teacher", "no-KD", "KD")
SETTINGS = FitSettings(epochs=EPOCHS, batch_size=TRAIN, optimizer="sgd", learning_rate=RATE, momentum=0.0, keep="last")


@dataclass(frozen=True)
class Setting:
    """One setting of an experiment: its decisive columns, which of them are in each modality, and the distillation.

    Attributes:
        deciding: columns that decide the label.
        teacher_width: columns of the teacher's modality.
        teacher_sees: the deciding columns in the teacher's modality.
        student_width: columns of the student's modality.
        temperature: of the divergence of outputs, without the factor τ².
        weight: of that divergence, a mean over rows.
    """

    deciding: int
    teacher_width: int
    teacher_sees: range
    student_width: int = 50
    temperature: float = 1.0
    weight: float = 0.5  # a mean over both classes too

    student_sees = range(10)


GAMMA = [Setting(20, 25, range(10 - overlap, 20 - overlap)) for overlap in (0, 2, 4, 6, 8, 10)]
ALPHA = [Setting(50, 50, range(own + 10)) for own in (0, 10, 20, 30, 40)]
NTDH = [Setting(20, 25, setting.teacher_sees, student_width=25, temperature=0.7, weight=1.0) for setting in GAMMA]
STUDIES = {"MFH": [*GAMMA, *ALPHA], "NTDH": NTDH}


@dataclass
class Problem:
    """Data of one setting and seed, and the three networks with their initial weights."""

    setting: Setting
    x: dict[str, NDArray[np.float32]]  # training rows first
    y: NDArray[np.int64]
    networks: dict[str, nn.Linear] = field(default_factory=dict)


def make_problem(setting: Setting, seed: int) -> Problem:
    """All draws in the order of the description, from NumPy's legacy generator; those of the networks from torch's."""
    random = np.random.RandomState(seed)
    plane = random.randn(500)[: setting.deciding]
    train = _split(setting, plane, random, TRAIN)
    test = _split(setting, plane, np.random.RandomState(seed + 1), TEST)
    torch.manual_seed(seed + 1)
    widths = {"teacher": setting.teacher_width, "KD": setting.student_width, "no-KD": setting.student_width}
    networks = {role: nn.Linear(width, 2) for role, width in widths.items()}
    a, b, y = (np.concatenate([first, second]) for first, second in zip(train, test, strict=True))
    return Problem(setting, {"a": a.astype(np.float32), "b": b.astype(np.float32)}, y, networks)


def _split(
    setting: Setting, plane: NDArray[np.float64], random: np.random.RandomState, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    deciding = random.randn(rows, setting.deciding)
    b, a = random.randn(rows, setting.student_width), random.randn(rows, setting.teacher_width)
    a[:, setting.teacher_sees] = deciding[:, setting.teacher_sees]
    b[:, setting.student_sees] = deciding[:, setting.student_sees]
    return a, b, (deciding @ plane > 0).astype(np.int64)


def one_by_one(problem: Problem, *, evaluate: bool) -> dict[str, float]:
    """A straightforward loop; test accuracies by role."""
    x = {name: torch.from_numpy(values) for name, values in problem.x.items()}
    y = torch.from_numpy(problem.y)
    networks = {role: nn.Linear(network.in_features, 2) for role, network in problem.networks.items()}
    accuracies, setting = {}, problem.setting
    for role in ("teacher", "KD", "no-KD"):
        network, rows = networks[role], x["a" if role == "teacher" else "b"]
        network.load_state_dict(problem.networks[role].state_dict())
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
        for _ in range(EPOCHS):
            logits = network(rows[:TRAIN])
            loss = F.cross_entropy(logits, y[:TRAIN])
            if role == "KD":
                with torch.no_grad():
                    teacher_outputs = networks["teacher"](x["a"][:TRAIN])
                student, teacher = logits / setting.temperature, teacher_outputs / setting.temperature
                divergence = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
                loss = loss + setting.weight * divergence
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if evaluate:
                accuracy(network, rows[:TRAIN], y[:TRAIN])
                accuracy(network, rows[TRAIN:], y[TRAIN:])
        accuracies[role] = accuracy(network, rows[TRAIN:], y[TRAIN:])
    return accuracies


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of rows that a network classifies correctly."""
    return (network(x).argmax(1) == y).double().mean().item()


def stacked(problems: Sequence[Problem]) -> list[dict[str, float]]:
    """Ours: three calls of `fit_many`, from arrays to test accuracies by role."""
    data = [as_data(problem) for problem in problems]
    runs: dict[str, list[Run]] = {}
    runs["teacher"] = train([supervised(p, d, "teacher", "a") for p, d in zip(problems, data, strict=True)], data)
    runs["no-KD"] = train([supervised(p, d, "no-KD", "b") for p, d in zip(problems, data, strict=True)], data)
    students = [
        KD(
            student_of(copy_of(problem.networks["KD"]), arrays.info, ["b"]),
            run.students["a"].module,
            arrays.info,
            DistillationOptions(
                losses=("kl(scale=none):1",),
                temperature=problem.setting.temperature,
                kd_weight=problem.setting.weight,
                task_weight=1.0,
            ),
        )
        for problem, arrays, run in zip(problems, data, runs["teacher"], strict=True)
    ]
    runs["KD"] = train(students, data)
    return [
        {role: test_accuracy(runs[role][number], problem) for role in ROLES} for number, problem in enumerate(problems)
    ]


def as_data(problem: Problem) -> Data:
    """Arrays as a data set; the description has no validation split, so its single row is not used."""
    splits = {
        "train": np.arange(TRAIN),
        "valid": np.arange(TRAIN, TRAIN + 1),
        "test": np.arange(TRAIN + 1, TRAIN + TEST),
    }
    return from_arrays(problem.x, problem.y, splits=splits, normalise="none")


def supervised(problem: Problem, data: Data, role: str, modality: str) -> Supervised:
    """A network that learns from labels alone."""
    return Supervised(student_of(copy_of(problem.networks[role]), data.info, [modality]), data.info)


def copy_of(network: nn.Linear) -> nn.Linear:
    """A network with the same weights, so that a problem can be solved twice."""
    copy = nn.Linear(network.in_features, network.out_features)
    copy.load_state_dict(network.state_dict())
    return copy


def train(methods: Sequence[Method], data: Sequence[Data]) -> list[Run]:
    """One stack per shape."""
    runs = fit_many(methods, data, SETTINGS, score=False)
    assert not any(run.notes for run in runs), "a method was not stacked"
    return runs


def test_accuracy(run: Run, problem: Problem) -> float:
    """Test accuracy of the final student of a run."""
    ((modality, student),) = run.students.items()
    x = torch.from_numpy(problem.x[modality][TRAIN:])
    with torch.no_grad():
        right = student.module({modality: x}).argmax(1) == torch.from_numpy(problem.y[TRAIN:])
    return right.double().mean().item()


def main() -> None:
    """Measure both variants for each study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run the loop for all seeds")
    timed = SEEDS if parser.parse_args().full else TIMED
    torch.set_num_threads(1)
    first = 0.0
    for name, settings in STUDIES.items():
        problems = [make_problem(setting, seed) for seed in range(SEEDS) for setting in settings]
        if not first:
            began = time.perf_counter()
            stacked(problems[:1])  # imports what the first training of a process imports, with `fit` too
            first = time.perf_counter() - began
        compare(name, problems, problems[: timed * len(settings)], first)


def compare(name: str, problems: Sequence[Problem], some: Sequence[Problem], first: float) -> None:
    """Measure both variants; the loop for some of the problems.

    Args:
        name: of the study.
        problems: all of them.
        some: the first of them.
        first: seconds of the first use in a process.
    """
    gc.collect()
    began = time.perf_counter()
    ours = stacked(problems)
    ours_seconds = time.perf_counter() - began

    one_by_one(some[0], evaluate=False)
    seconds = {}
    for evaluate in (True, False):
        began = time.perf_counter()
        loop_accuracies = [one_by_one(problem, evaluate=evaluate) for problem in some]
        seconds[evaluate] = (time.perf_counter() - began) * len(problems) / len(some)
        different = sum(
            our[role] != their[role] for our, their in zip(ours, loop_accuracies, strict=False) for role in ROLES
        )
        assert not different, f"{different} of {len(some) * len(ROLES)} accuracies differ"

    part = (
        "all of it run" if len(some) == len(problems) else f"{len(some)} of {len(problems)} problems run, extrapolated"
    )
    models = len(problems) * len(ROLES)
    print(f"{name}: {models} linear models, {EPOCHS} full-batch steps each, one thread; loop: {part}")
    print(f"test accuracies compared: {len(some) * len(ROLES)}, different: 0")
    print(f"stacked: {ours_seconds:.2f} s (and {first:.2f} s once per process, for one problem and all imports)")
    for evaluate, words in ((True, "with the evaluations of every epoch"), (False, "without them")):
        print(
            f"loop {words}: {seconds[evaluate]:.1f} s, {seconds[evaluate] / ours_seconds:.1f} times as long "
            f"({seconds[evaluate] / (ours_seconds + first):.1f} with the first use counted)"
        )


if __name__ == "__main__":
    main()

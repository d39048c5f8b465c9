"""Time of training many small models as stacks, relative to batching them by hand and to one after the other.

The work is that of the first two synthetic experiments on the modality focusing hypothesis (MFH): a linear teacher, a
control and a distilled student for each of 11 settings and 10 seeds, 1000 full-batch steps each, 330 models in all; and
that of the Gaussian experiment on non-target divergence (NTDH), 6 settings, 180 models.

- Fair peer: the models of a shape as one tensor of weights and one `baddbmm`, the teachers' outputs computed once,
  autograd, a step of gradient descent by hand.
- Published way: a loop written from their description: a module, an optimiser, a backward pass, teacher outputs in
  every step, and the accuracy on training and test rows after every epoch. It is run without those evaluations too.

All start from arrays and the same weights; ours includes data sets, methods, stacking, recording, the finished runs and
their test accuracies. All test accuracies of ours and the loop must be equal; those of the peer, which sums in another
order, may differ by a row. CPU times on one thread.

The loop takes minutes, so it is run for some problems and the time of the others is extrapolated; ``--full`` runs
all, and ours and the peer three times.

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
from plain.timing import Row, show, turns
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
SEEDS = 10
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


def by_hand(problems: Sequence[Problem]) -> list[dict[str, float]]:
    """The fair peer: the models of one shape at a time; test accuracies by role."""
    accuracies: list[dict[str, float]] = [{} for _ in problems]
    labels = torch.from_numpy(np.stack([problem.y for problem in problems]))
    outputs = torch.empty(len(problems), TRAIN, 2)
    for role in ("teacher", "no-KD", "KD"):
        widths = [problem.networks[role].in_features for problem in problems]
        for width in sorted(set(widths)):
            places = [number for number, other in enumerate(widths) if other == width]
            some = [problems[place] for place in places]
            x = torch.from_numpy(np.stack([problem.x["a" if role == "teacher" else "b"] for problem in some]))
            weight = torch.stack([problem.networks[role].weight.detach().T for problem in some]).requires_grad_()
            bias = torch.stack([problem.networks[role].bias.detach()[None] for problem in some]).requires_grad_()
            kd = (some, outputs[places]) if role == "KD" else None
            descend(x[:, :TRAIN].contiguous(), labels[places, :TRAIN], weight, bias, kd)
            with torch.no_grad():
                logits = torch.baddbmm(bias, x, weight)
            if role == "teacher":
                outputs[places] = logits[:, :TRAIN]
            right = (logits[:, TRAIN:].argmax(2) == labels[places, TRAIN:]).double().mean(1)
            for place, share in zip(places, right.tolist(), strict=True):
                accuracies[place][role] = share
    return accuracies


def descend(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, kd: tuple[Sequence[Problem], Tensor] | None = None
) -> None:
    """Gradient descent of models (models, …), with the outputs of their teachers or without."""
    target, temperatures, probabilities, factors = y.flatten(), y, y, y
    if kd is not None:
        problems, teacher = kd
        temperatures = torch.tensor([problem.setting.temperature for problem in problems])[:, None, None]
        factors = torch.tensor([problem.setting.weight for problem in problems])[:, None, None]
        probabilities = (teacher / temperatures).softmax(2)
    for _ in range(EPOCHS):
        logits = torch.baddbmm(bias, x, weight)
        loss = F.cross_entropy(logits.flatten(0, 1), target, reduction="sum") / TRAIN
        if kd is not None:
            log_student = (logits / temperatures).log_softmax(2)
            loss = loss + (factors * F.kl_div(log_student, probabilities, reduction="none")).sum() / TRAIN
        gradients = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            for parameter, gradient in zip((weight, bias), gradients, strict=True):
                parameter -= RATE * gradient


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
    """Measure all ways for each study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run the loop for all problems")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    began = time.process_time()
    stacked([make_problem(ALPHA[0], 0)])  # imports what the first training of a process imports, with `fit` too
    first = time.process_time() - began
    rows = []
    for name, settings in STUDIES.items():
        problems = [make_problem(setting, seed) for seed in range(SEEDS) for setting in settings]
        rows.append(compare(name, problems, problems if full else problems[: len(settings) // 2]))
    show(rows, published="a loop with evaluations")
    print(f"\nonce per process, for one problem and all imports: {first:.2f} s")


def compare(name: str, problems: Sequence[Problem], some: Sequence[Problem]) -> Row:
    """Measure all ways; the loop for some of the problems."""
    results: dict[str, list[dict[str, float]]] = {}
    ways = {
        "ours": lambda: results.update(ours=stacked(problems)),
        "peer": lambda: results.update(peer=by_hand(problems)),
    }
    gc.collect()
    seconds = turns(ways, 3 if len(some) == len(problems) else 1, warm=0)
    ours = results["ours"]
    apart = max(
        abs(our[role] - their[role]) for our, their in zip(ours, results["peer"], strict=True) for role in ROLES
    )
    assert apart <= 2 / TEST, f"accuracies of the peer differ by up to {apart}"
    one_by_one(some[0], evaluate=False)
    loops = {}
    for evaluate in (True, False):
        began = time.process_time()
        loop_accuracies = [one_by_one(problem, evaluate=evaluate) for problem in some]
        loops[evaluate] = (time.process_time() - began) * len(problems) / len(some)
        different = sum(
            our[role] != their[role] for our, their in zip(ours, loop_accuracies, strict=False) for role in ROLES
        )
        assert not different, f"{different} of {len(some) * len(ROLES)} accuracies differ"
    part = "all of it run" if len(some) == len(problems) else f"{len(some)} of {len(problems)} problems run"
    return Row(
        f"{name}, {len(problems) * len(ROLES)} linear models, {EPOCHS} steps each",
        seconds["ours"],
        seconds["peer"],
        loops[True],
        f"without evaluations the loop takes {loops[False]:.1f} s; of it, {part}",
    )


if __name__ == "__main__":
    main()

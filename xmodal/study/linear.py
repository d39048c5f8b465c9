"""Shared by the Gaussian recipes: linear networks with the authors' initial weights, their training and their scores.

The authors' protocol: one affine layer per network, PyTorch's default initial weights drawn in a fixed order, gradient
descent on the full batch, test accuracy after the last step. The loss of the students is

    L = CE(z, y) + KL_mean,    KL_mean = 1/(n K) Σ_n Σ_k p_nk (log p_nk - log q_nk)

It divides by the number of elements, so that with K = 2 classes it is half of the divergence
(`StudySettings.kl_reduction`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.models.network import build_network
from xmodal.reports.numbers import in_percent
from xmodal.study.references import Reference
from xmodal.study.settings import StudySettings
from xmodal.types import DataInfo, Student

if TYPE_CHECKING:
    from xmodal.study.opening import Study

K = TypeVar("K")


class Stream:
    """A random stream of torch, as one run of the authors' code draws from it: each call continues after the last one.

    The state of the global generator is kept.

    Example:
        >>> stream = Stream(3)
        >>> first, second = stream.linear("a", 4), stream.linear("b", 4)
        >>> _ = torch.manual_seed(3)
        >>> torch.equal(first.module.head.weight, torch.nn.Linear(4, 2).weight)
        True
        >>> torch.equal(second.module.head.bias, torch.nn.Linear(4, 2).bias)
        True
    """

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def continued(self) -> Iterator[None]:
        """A block in which torch draws the next numbers of this stream."""
        # by way of the global generator: the initial weights of a layer are drawn from no other
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            yield
            self.state = torch.get_rng_state()

    def linear(self, modality: str, width: int, *, classes: int = 2) -> Student:
        """A fresh affine layer on one modality; its weights are drawn first, its bias second."""
        arguments: dict[str, Any] = {"inputs": {modality: {"encoder": "linear", "shape": [width]}}, "outputs": classes}
        with self.continued():
            return Student(build_network(**arguments), (modality,), modality, "network", arguments)

    def permutations(self, draws: int, channels: int, rows: int) -> tuple[Tensor, Tensor]:
        """Permutations of the rows for Algorithm 1, of the student and of the teacher: (draws, channels, rows) each."""
        # the authors' order: in each draw all channels of the student, then all channels of the teacher
        with self.continued():
            drawn = [torch.randperm(rows) for _ in range(draws * 2 * channels)]
        both = torch.stack(drawn).view(draws, 2, channels, rows)
        return both[:, 0], both[:, 1]


def distillation(student: Student, teacher: Run, info: DataInfo, settings: StudySettings) -> KD:
    """The method of a student that learns the labels and the logits of a finished teacher."""
    return KD(
        student,
        only(teacher).module,
        info,
        DistillationOptions(
            losses=("kl",),
            temperature=1.0,
            # KL_mean is the divergence per row, divided by the classes
            kd_weight=1.0 if settings.kl_reduction == "batchmean" else 1.0 / info.classes,
            task_weight=float(settings.kd_labels),
        ),
    )


def train(
    title: str,
    methods: Mapping[K, Method],
    data: Mapping[K, Data],
    settings: FitSettings,
    study: Study,
) -> dict[K, Run]:
    """Train many methods together, each on the data of its key."""
    runs = fit_many(
        list(methods.values()),
        [data[key] for key in methods],
        settings,
        # no validation after each epoch: the last weights are kept, and an evaluation costs more than such a step
        score=False,
        fabric=study.fabric,
        progress=study.progress,
        title=title,
    )
    return dict(zip(methods, runs, strict=True))


def only(run: Run) -> Student:
    """The student of a run with a single student."""
    (student,) = run.students.values()
    return student


@torch.no_grad()
def accuracy(run: Run, data: Data) -> float:
    """Accuracy of the student of a run on the test split."""
    student = only(run)
    (test,) = in_order(data.test, batch_size=len(data.test))
    correct = student.module({name: test.input(name) for name in student.needs}).argmax(dim=1) == test.target
    # in float64: the share of 703 of 1000 rows is written as 0.703, which float32 would turn into 0.7030000090599060
    return float(correct.double().mean())


def row(name: str, role: str, seed: int, accuracy: float, **facts: Any) -> dict[str, Any]:
    """The row of one network and seed in `result.json`."""
    return {"seed": seed, "name": name, "role": role, **facts, "test": {"accuracy": accuracy}}


def with_paper(sweep: dict[str, Any], references: Sequence[Reference], prefix: str = "") -> dict[str, Any]:
    """A sweep, with the points of the paper for each of its series that the references contain.

    Args:
        sweep: ours.
        references: of the recipe.
        prefix: of the keys of these references.
    """
    published = {reference.key: reference for reference in references if reference.paper is not None}
    scale = 100.0 if in_percent(sweep["metric"]) else 1.0
    for series in sweep["series"]:
        keys = {point["x"]: f"{prefix}{series['name']}.{point['x']:.2f}" for point in series["points"]}
        by_x = {x: published[key] for x, key in keys.items() if key in published}
        points = [{"x": x, "mean": (reference.paper or 0.0) / scale} for x, reference in by_x.items()]
        if points:
            source = next(iter(by_x.values())).source
            sweep["published"].append({"name": series["name"], "source": source, "points": points})
    return sweep

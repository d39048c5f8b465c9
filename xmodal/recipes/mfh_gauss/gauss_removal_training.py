"""What `gauss_removal` trains: regular teachers, Algorithm 1, and students of teachers that see some channels alone.

Random numbers come in the order of the authors' code. NumPy's stream: training set 1, test set, training set 2, random
channels. Torch's stream: teacher; for Algorithm 1 its two networks and permutations; no-KD student, KD student, MG
teacher, its student. So Algorithm 1 has a stream of its own, and the random and the truly shared channels have one in
common, with the same regular teacher, no-KD and KD student.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import Data
from xmodal.data.gaussian.dataset import as_data
from xmodal.data.gaussian.draws import Design, Pairs, draw_removal
from xmodal.data.loader import in_order
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.methods.joint import Joint
from xmodal.methods.supervised import Supervised
from xmodal.recipes.mfh_gauss.settings import WIDTH, Settings
from xmodal.study.linear import Stream, accuracy, distillation, row, train

if TYPE_CHECKING:
    from xmodal.study.opening import Study

Channels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """Samples of one design and seed.

    Attributes:
        design: who sees what.
        seed: of both streams.
        pairs: training sets ``train`` and ``again``, ``valid`` and ``test``.
        guess: channels of the random teacher.
    """

    design: Design
    seed: int
    pairs: dict[str, Pairs]
    guess: Channels

    def data(self, train: str, *, swapped: bool = False, channels: Channels | None = None) -> Data:
        """With one of the training sets; its modalities exchanged, or some channels of a alone, in this order."""
        pairs = {**self.pairs, "train": self.pairs[train]}
        if swapped:
            pairs["train"] = pairs["train"].exchanged()
        return as_data(pairs if channels is None else {name: part.keep(channels) for name, part in pairs.items()})


def drawn(settings: Settings, design: Design, seed: int) -> Case:
    """All samples, and after them the random channels."""
    random, count = np.random.RandomState(seed), settings.kept(design)
    pairs = draw_removal(design, seed, train=settings.train, test=settings.test, random=random)
    guess = random.randint(0, WIDTH, count) if settings.replacement else random.permutation(WIDTH)[:count]
    return Case(design, seed, pairs, guess.astype(np.int64))


def trained(settings: Settings, seeds: Sequence[int], study: Study) -> list[dict[str, Any]]:
    """Everything of some seeds; one row per network with its test accuracy."""
    # samples and streams
    cases = [drawn(settings, design, seed) for design in settings.designs for seed in seeds]
    kind = {mode: "alg1" if mode == "alg1" else "plain" for mode in settings.mode}
    streams = {(case, name): Stream(case.seed) for case in cases for name in dict.fromkeys(kind.values())}
    first = {case: case.data("train") for case in cases}
    again = {case: case.data("again") for case in cases}
    fit, info = settings.fit(), first[cases[0]].info

    # the regular teacher, on training set 1; every stream begins with it
    fresh = {case: stream.linear("a", WIDTH) for (case, _), stream in streams.items()}
    labels = {case: Supervised(network, info) for case, network in fresh.items()}
    teachers = train("teachers", labels, first, fit, study)

    # Algorithm 1, on training set 1
    of_algorithm = {case: stream for (case, name), stream in streams.items() if name == "alg1"}
    ranked = algorithm_1(settings, of_algorithm, first, study) if of_algorithm else {}

    # no-KD and regular KD, on training set 2
    blank = {key: [stream.linear("b", WIDTH), stream.linear("b", WIDTH)] for key, stream in streams.items()}
    alone = {key: Supervised(control, info) for key, (control, _) in blank.items()}
    controls = train("no-KD", alone, {key: again[key[0]] for key in alone}, fit, study)
    regular = {case: case.data("again", swapped=True) for case in cases} if settings.swapped else again
    distilled = {key: distillation(student, teachers[key[0]], info, settings) for key, (_, student) in blank.items()}
    students = train("KD", distilled, {key: regular[key[0]] for key in distilled}, fit, study)

    # the MG teacher, which sees the channels that stay and nothing else, and its student
    blank = {
        key: [stream.linear("a", settings.kept(key[0].design)), stream.linear("b", WIDTH)]
        for key, stream in streams.items()
    }
    stay = {(case, mode): staying(case, mode, ranked) for case in cases for mode in settings.mode}
    visible = {key: key[0].data("again", channels=channels) for key, channels in stay.items()}
    earlier = settings.mg_teacher_set == 1
    learns = {key: key[0].data("train", channels=kept) for key, kept in stay.items()} if earlier else visible
    pairs = {(case, mode): copy.deepcopy(blank[case, kind[mode]]) for case, mode in stay}
    general = {key: Supervised(network, visible[key].info) for key, (network, _) in pairs.items()}
    mg_teachers = train("MG teachers", general, learns, fit, study)
    advised = {
        key: distillation(student, mg_teachers[key], visible[key].info, settings) for key, (_, student) in pairs.items()
    }
    mg_students = train("MG-KD", advised, visible, fit, study)

    # one look at the test splits
    rows = []
    for case, mode in stay:
        key = case, kind[mode]
        facts = {"mode": mode, "gamma": case.design.gamma, "shared": len(case.design.shared)}
        if mode == "alg1":
            facts |= {f"found_{name}": found_share(case, order) for name, order in ranked[case].items()}
        rows += [
            row("teacher", "teacher", case.seed, accuracy(teachers[case], first[case]), **facts),
            row("no-KD", "control", case.seed, accuracy(controls[key], again[case]), **facts),
            row("KD", "method", case.seed, accuracy(students[key], again[case]), **facts),
            row("MG teacher", "general", case.seed, accuracy(mg_teachers[case, mode], visible[case, mode]), **facts),
            row("MG-KD", "method", case.seed, accuracy(mg_students[case, mode], visible[case, mode]), **facts),
        ]
    return rows


def algorithm_1(
    settings: Settings, streams: Mapping[Case, Stream], data: Mapping[Case, Data], study: Study
) -> dict[Case, dict[str, Channels]]:
    """Channels of each modality, the most salient first: what two networks lean on that were trained to agree."""
    fit = settings.fit(learning_rate=settings.joint_learning_rate, momentum=0.9)
    joint = {
        case: Joint(stream.linear("a", WIDTH), stream.linear("b", WIDTH), data[case].info)
        for case, stream in streams.items()
    }
    runs = train("Algorithm 1", joint, data, fit, study)
    ranked = {}
    for case, run in runs.items():
        rows = list(in_order(data[case].train, batch_size=settings.train))
        shuffles: dict[str, Any] = {"a": "exact", "b": "exact"}
        if isinstance(settings.permutations, int):
            drawn = streams[case].permutations(settings.permutations, WIDTH, settings.train)
            shuffles = dict(zip("ba", drawn, strict=True))
        networks = run.students["teacher"].module, run.students["student"].module
        saliencies = {
            "a": measure_saliency(*networks, rows, "input:a", side="teacher", permutations=shuffles["a"]),
            "b": measure_saliency(*networks, rows, "input:b", side="student", permutations=shuffles["b"]),
        }
        ranked[case] = {name: np.argsort(-saliency.raw, kind="stable") for name, saliency in saliencies.items()}
    return ranked


def staying(case: Case, mode: str, ranked: Mapping[Case, Mapping[str, Channels]]) -> Channels:
    """Channels of a that the MG teacher sees."""
    if mode == "random":
        return case.guess
    count = len(case.guess)
    return np.arange(count) if mode == "gt" else ranked[case]["a"][:count]


def found_share(case: Case, order: Channels) -> float:
    """Share of the first channels of an order that are truly shared."""
    count = len(case.guess)
    return float(np.isin(order[:count], case.design.shared).mean())

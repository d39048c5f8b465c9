"""Training for `gauss_removal`: regular teachers, Algorithm 1, and students of teachers that see some channels alone.

Random numbers are drawn in the order of the authors' code. NumPy's stream: training set 1, test set, training set 2,
random channels. Torch's stream: teacher; for Algorithm 1 its two networks and permutations; no-KD student, KD student,
MG teacher, its student. So Algorithm 1, which draws more, has its own stream; the random and the truly shared channels
have one in common, and with it the same regular teacher, no-KD student and KD student.
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
        design: decisive channels of both modalities.
        seed: of NumPy's and torch's streams.
        pairs: training sets ``train`` and ``again``, ``valid`` and ``test``.
        guess: channels of the random teacher.
    """

    design: Design
    seed: int
    pairs: dict[str, Pairs]
    guess: Channels

    def data(self, train: str, *, swapped: bool = False, channels: Channels | None = None) -> Data:
        """The data with one of the training sets.

        Args:
            train: ``train`` or ``again``.
            swapped: exchange the modalities of the training set, as in the published regular KD.
            channels: channels of a to keep, in this order; None: all.
        """
        pairs = {**self.pairs, "train": self.pairs[train]}
        if swapped:
            pairs["train"] = pairs["train"].exchanged()
        return as_data(pairs if channels is None else {name: part.keep(channels) for name, part in pairs.items()})


def drawn(settings: Settings, design: Design, seed: int) -> Case:
    """All samples, and the random channels, which the same stream draws after them."""
    random, count = np.random.RandomState(seed), settings.kept(design)
    pairs = draw_removal(design, seed, train=settings.train, test=settings.test, random=random)
    # the authors' code draws with replacement, so that the random teacher has fewer channels than the others (G2)
    guess = random.randint(0, WIDTH, count) if settings.replacement else random.permutation(WIDTH)[:count]
    return Case(design, seed, pairs, guess.astype(np.int64))


def trained(settings: Settings, seeds: Sequence[int], study: Study) -> list[dict[str, Any]]:
    """Train and score everything of some seeds; one row per network."""
    # samples, and a stream of torch for each case: one for Algorithm 1, one for the other modes
    cases = [drawn(settings, design, seed) for design in settings.designs for seed in seeds]
    stream_of = {mode: "alg1" if mode == "alg1" else "plain" for mode in settings.mode}
    streams = {(case, name): Stream(case.seed) for case in cases for name in dict.fromkeys(stream_of.values())}
    first = {case: case.data("train") for case in cases}
    again = {case: case.data("again") for case in cases}
    fit, info = settings.fit(), first[cases[0]].info

    # the regular teacher, on training set 1; every stream draws it first, so both draw the same weights
    fresh = {case: stream.linear("a", WIDTH) for (case, _), stream in streams.items()}
    labels = {case: Supervised(network, info) for case, network in fresh.items()}
    teachers = train("teachers", labels, first, fit, study)

    # Algorithm 1, on training set 1
    of_algorithm = {case: stream for (case, name), stream in streams.items() if name == "alg1"}
    ranked = algorithm_1(settings, of_algorithm, first, study) if of_algorithm else {}

    # no-KD and regular KD, on training set 2
    students = {key: [stream.linear("b", WIDTH), stream.linear("b", WIDTH)] for key, stream in streams.items()}
    plain = {key: Supervised(control, info) for key, (control, _) in students.items()}
    controls = train("no-KD", plain, {key: again[key[0]] for key in plain}, fit, study)
    # the published call exchanges the modalities: the teacher reads b, the student learns on a and is tested on b (G1)
    regular = {case: case.data("again", swapped=True) for case in cases} if settings.swapped else again
    kd = {key: distillation(student, teachers[key[0]], info, settings) for key, (_, student) in students.items()}
    kd_students = train("KD", kd, {key: regular[key[0]] for key in kd}, fit, study)

    # the MG teacher, which sees the channels that stay and no others, and its student
    drawn_pairs = {
        key: [stream.linear("a", settings.kept(key[0].design)), stream.linear("b", WIDTH)]
        for key, stream in streams.items()
    }
    channels = {(case, mode): visible_channels(case, mode, ranked) for case in cases for mode in settings.mode}
    visible = {key: key[0].data("again", channels=kept) for key, kept in channels.items()}
    # published is training set 2, which the MG teacher then shares with its student, unlike the regular one (G4)
    of_teacher = visible
    if settings.mg_teacher_set == 1:
        of_teacher = {key: key[0].data("train", channels=kept) for key, kept in channels.items()}
    # copies, because two modes that share a stream start from the same networks
    pairs = {(case, mode): copy.deepcopy(drawn_pairs[case, stream_of[mode]]) for case, mode in channels}
    general = {key: Supervised(network, visible[key].info) for key, (network, _) in pairs.items()}
    mg_teachers = train("MG teachers", general, of_teacher, fit, study)
    mg_kd = {
        key: distillation(student, mg_teachers[key], visible[key].info, settings) for key, (_, student) in pairs.items()
    }
    mg_students = train("MG-KD", mg_kd, visible, fit, study)

    # scores on the test splits
    rows = []
    for case, mode in channels:
        key, mg_key = (case, stream_of[mode]), (case, mode)
        facts = {"mode": mode, "gamma": case.design.gamma, "shared": len(case.design.shared)}
        if mode == "alg1":
            facts |= {f"found_{name}": identified_share(case, order) for name, order in ranked[case].items()}
        rows += [
            row("teacher", "teacher", case.seed, accuracy(teachers[case], first[case]), **facts),
            row("no-KD", "control", case.seed, accuracy(controls[key], again[case]), **facts),
            row("KD", "method", case.seed, accuracy(kd_students[key], again[case]), **facts),
            row("MG teacher", "general", case.seed, accuracy(mg_teachers[mg_key], visible[mg_key]), **facts),
            row("MG-KD", "method", case.seed, accuracy(mg_students[mg_key], visible[mg_key]), **facts),
        ]
    return rows


def algorithm_1(
    settings: Settings, streams: Mapping[Case, Stream], data: Mapping[Case, Data], study: Study
) -> dict[Case, dict[str, Channels]]:
    """Channels of each modality, the most salient first, from two networks that are trained to agree."""
    fit = settings.fit(learning_rate=settings.joint_learning_rate, momentum=0.9)
    # teacher first, then student, as in the authors' code
    joint = {
        case: Joint(stream.linear("a", WIDTH), stream.linear("b", WIDTH), data[case].info)
        for case, stream in streams.items()
    }
    runs = train("Algorithm 1", joint, data, fit, study)
    ranked = {}
    for case, run in runs.items():
        rows = list(in_order(data[case].train, batch_size=settings.train))
        permutations: dict[str, Any] = {"a": "exact", "b": "exact"}
        if isinstance(settings.permutations, int):
            # the stream draws those of the student, b, first
            drawn = streams[case].permutations(settings.permutations, WIDTH, settings.train)
            permutations = dict(zip("ba", drawn, strict=True))
        networks = run.students["teacher"].module, run.students["student"].module
        saliencies = {
            "a": measure_saliency(*networks, rows, "input:a", side="teacher", permutations=permutations["a"]),
            "b": measure_saliency(*networks, rows, "input:b", side="student", permutations=permutations["b"]),
        }
        # stable: channels of equal saliency keep their order, on every machine
        ranked[case] = {name: np.argsort(-saliency.raw, kind="stable") for name, saliency in saliencies.items()}
    return ranked


def visible_channels(case: Case, mode: str, ranked: Mapping[Case, Mapping[str, Channels]]) -> Channels:
    """Channels of a that the MG teacher sees."""
    if mode == "random":
        return case.guess
    # the shared channels of a are its first ones (`draw_removal`)
    count = len(case.guess)
    return np.arange(count) if mode == "gt" else ranked[case]["a"][:count]


def identified_share(case: Case, order: Channels) -> float:
    """Share of the channels ranked first that are truly shared."""
    count = len(case.guess)
    return float(np.isin(order[:count], case.design.shared).mean())

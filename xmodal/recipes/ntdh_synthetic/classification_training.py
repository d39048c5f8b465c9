"""What `ntdh_classification` trains: networks that see all columns, two that agree on wrong classes, teachers of few.

Published networks draw their weights by the run's seed, each from the beginning of the stream, with a layer that is
never used between the second and the head; ``same_start`` does so here. Otherwise teacher and student come one after
the other, so that a teacher is no relative of its student.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xmodal.data.base import Data, assemble
from xmodal.data.classification import CLASSES, SEEN, WIDTH, columns_of, draw
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.engine.settings import FitSettings
from xmodal.methods.joint import Joint
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_network
from xmodal.recipes.ntdh_synthetic.divergence import (
    TEACHER,
    cmd_of_inputs,
    distillation,
    non_target_divergence,
    scored_row,
    train_all,
    whole,
)
from xmodal.recipes.ntdh_synthetic.settings import Settings
from xmodal.study.linear import Stream, accuracy, only, row, train
from xmodal.types import Student

if TYPE_CHECKING:
    from xmodal.study.opening import Study

HIDDEN = 16
JOINT_SEED = 42  # of the two networks that rank the columns, as published
Case = tuple[int, int]  # shared columns, seed
Columns = NDArray[np.int64]


def trained(settings: Settings, study: Study) -> list[dict[str, Any]]:
    """Everything; one row per network with its test accuracy and what was measured on the training rows."""
    # samples, the same for all seeds, and initial networks
    shared = {count: samples(settings, count) for count in settings.shared}
    data = {(count, seed): views for count, views in shared.items() for seed in settings.seeds}
    fresh = {case: initial(settings, case[1]) for case in data}
    begin = {case: {name: copy.deepcopy(networks[name]) for name in ("b", "few")} for case, networks in fresh.items()}
    fit = settings.descent(whole(next(iter(shared.values()))).rows, momentum=settings.momentum)
    study.progress.expect(bool(settings.mask) * (2 + len(settings.mode)))

    # networks that see all columns
    trained = train_all(settings, data, fresh, fit, study)
    distance = {count: cmd_of_inputs(views) for count, views in shared.items()}
    rows = []
    for case in data:
        for name, runs in trained.runs.items():
            facts: dict[str, Any] = {"gamma": case[0] / SEEN}
            if name == TEACHER:
                facts["cmd"] = distance[case[0]]
            else:
                facts["ncjsd"] = non_target_divergence(runs[case], trained.runs[TEACHER][case], data[case])
            rows.append(scored_row(trained, name, case, **facts))

    # teachers that see some columns, and their students
    return rows + (masked(settings, shared, begin, fit, study) if settings.mask else [])


def samples(settings: Settings, shared: int, *, kept: Columns | None = None) -> Data:
    """The samples of one γ; of a some columns alone, in this order. No epoch is chosen, so all training rows train."""
    drawn = draw(
        shared=shared,
        samples=settings.samples,
        random_state=settings.data_seed,
        noise_seed=settings.data_seed,
        scale_on_all=settings.scale_on_all,
    )
    train, test = drawn["train"], drawn["test"]
    a, b = (np.concatenate([getattr(part, name) for part in (train, test)]).astype(np.float32) for name in "ab")
    label = np.concatenate([train.label, test.label])
    rows = {"train": np.arange(len(train.label)), "valid": np.arange(0, len(train.label), 10)}
    rows["test"] = np.arange(len(train.label), len(label))
    return assemble(
        {"a": a if kept is None else np.ascontiguousarray(a[:, kept]), "b": b},
        dict.fromkeys("ab", label),
        {split: dict.fromkeys("ab", numbers) for split, numbers in rows.items()},
        class_names=tuple(str(number) for number in range(CLASSES)),
    )


def initial(settings: Settings, seed: int) -> dict[str, Student]:
    """Fresh networks of one seed: teacher ``a``, student ``b``, ``b control``, and ``few``, a teacher of few columns.

    Student and control begin with the same weights, so that their difference is what the teacher did.
    """
    widths, stream, found = {"a": WIDTH, "b": WIDTH, "few": settings.mask_dim}, Stream(seed), {}
    for name, width in widths.items():
        stream = Stream(seed) if settings.same_start else stream
        found[name] = network("b" if name == "b" else "a", width, stream, spare=settings.same_start)
    return {**found, "b control": copy.deepcopy(found["b"])}


def network(modality: str, width: int, stream: Stream, *, spare: bool) -> Student:
    """A fresh network of three layers; with ``spare`` numbers for another layer are drawn before the head."""
    inputs = {modality: {"encoder": "relu_mlp", "shape": [width], "width": HIDDEN}}
    arguments: dict[str, Any] = {"inputs": inputs, "outputs": CLASSES}
    with torch.random.fork_rng(devices=[]):
        built, unused = build_network(**arguments), nn.Linear(HIDDEN, HIDDEN)
    layers = [layer for layer in built.modules() if isinstance(layer, nn.Linear)]
    with stream.continued():
        for layer in [*layers[:-1], *[unused] * spare, layers[-1]]:
            layer.reset_parameters()
    return Student(built, (modality,), modality, "network", arguments)


# ---- teachers that see some columns


def masked(
    settings: Settings,
    shared: Mapping[int, Data],
    begin: Mapping[Case, Mapping[str, Student]],
    fit: FitSettings,
    study: Study,
) -> list[dict[str, Any]]:
    """Rows of the teachers that see some columns of a, and of their students."""
    ranked = ranks(settings, shared, study) if {"alg1", "reverse"} & set(settings.mask) else {}
    cases = list(itertools.product(settings.mask, begin))
    kept = {(mask, case): chosen(settings, mask, case, ranked) for mask, case in cases}
    views: dict[tuple[int, tuple[int, ...]], Data] = {}  # those of several seeds may be the same
    data = {}
    for key, columns in kept.items():
        view = key[1][0], tuple(columns.tolist())
        if view not in views:
            views[view] = samples(settings, view[0], kept=columns)
        data[key] = views[view]

    labels = {key: Supervised(copy.deepcopy(begin[key[1]]["few"]), data[key].info) for key in data}
    teachers = train("teacher of few columns", labels, data, fit, study)
    rows = []
    for key, run in teachers.items():
        facts = {"mask": key[0], "gamma": key[1][0] / SEEN, "kept": kept[key].tolist()}
        if key[0] == "alg1":
            facts |= {f"found_{name}": found_share(order, key[1][0]) for name, order in ranked[key[1][0]].items()}
        rows.append(row(f"teacher of {key[0]}", "general", key[1][1], accuracy(run, data[key]), **facts))
    for mode in settings.mode:
        methods = {
            key: distillation(begin[key[1]]["b"], only(teachers[key]), views.info, mode, settings, key[1][1])
            for key, views in data.items()
        }
        runs = train(f"{mode} from few columns", methods, data, fit, study)
        for key, run in runs.items():
            apart = non_target_divergence(run, teachers[key], data[key])
            facts = {"mask": key[0], "gamma": key[1][0] / SEEN, "ncjsd": apart}
            rows.append(row(f"{mode} of {key[0]}", "method", key[1][1], accuracy(run, data[key]), **facts))
    return rows


def ranks(settings: Settings, shared: Mapping[int, Data], study: Study) -> dict[int, dict[str, Columns]]:
    """Columns of both modalities, first those without which two networks disagree most about wrong classes."""
    fit = settings.descent(whole(next(iter(shared.values()))).rows, momentum=0.9)
    joint = {}
    for count, data in shared.items():
        stream = Stream(JOINT_SEED)
        first = network("a", WIDTH, stream, spare=settings.same_start)
        stream = Stream(JOINT_SEED) if settings.same_start else stream
        second = network("b", WIDTH, stream, spare=settings.same_start)
        joint[count] = Joint(first, second, data.info, agreement="ncjsd")
    runs = train("two that agree on wrong classes", joint, shared, fit, study)
    return {count: ranked(settings, run.students, shared[count]) for count, run in runs.items()}


def ranked(settings: Settings, networks: Mapping[str, Student], data: Data) -> dict[str, Columns]:
    """The same for one pair of networks."""
    orders = {}
    for name, side in (("a", "teacher"), ("b", "student")):
        found = measure_saliency(
            networks["teacher"].module,
            networks["student"].module,
            [whole(data)],
            f"input:{name}",
            side="teacher" if side == "teacher" else "student",
            distance="ncjsd",
            permutations=settings.permutations,
            seed=JOINT_SEED,
        )
        orders[name] = np.argsort(-found.raw, kind="stable")
    return orders


def chosen(settings: Settings, mask: str, case: Case, ranked: Mapping[int, Mapping[str, Columns]]) -> Columns:
    """Columns of a that a reduced teacher sees, in the order of their rank."""
    if mask == "random":
        random, count = np.random.default_rng([case[1], JOINT_SEED]), settings.mask_dim
        return random.integers(0, WIDTH, count) if settings.replacement else random.permutation(WIDTH)[:count]
    order = ranked[case[0]]["a"]
    return order[: settings.mask_dim] if mask == "alg1" else order[::-1][: settings.mask_dim]


def found_share(order: Columns, shared: int) -> float | None:
    """Share of the shared columns among as many that rank first; None where nothing is shared."""
    common = set(columns_of("a", shared)) & set(columns_of("b", shared))
    return float(np.isin(order[:shared], list(common)).mean()) if common else None

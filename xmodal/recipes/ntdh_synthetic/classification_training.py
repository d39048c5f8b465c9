"""Training for `classification`: networks of all columns, two that agree on wrong classes, teachers of some columns.

The authors' code draws the weights of each network from the seed of the run, always from the beginning of the stream,
and with a layer that is never used between the second layer and the head; ``same_start`` does the same. Otherwise the
weights of teacher and student are drawn one after the other, so that they are unrelated.
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
JOINT_SEED = 42  # of the two networks that rank the columns, as in the authors' code
Case = tuple[int, int]  # shared columns, seed
Columns = NDArray[np.int64]


def trained(settings: Settings, study: Study) -> list[dict[str, Any]]:
    """Train, score and measure everything; one row per network."""
    # samples, which are the same for all seeds, and initial networks
    shared = {count: samples(settings, count) for count in settings.shared}
    data = {(count, seed): views for count, views in shared.items() for seed in settings.seeds}
    fresh = {case: initial(settings, case[1]) for case in data}
    # copies for the teachers of some columns: training changes the networks in place
    begin = {case: {name: copy.deepcopy(networks[name]) for name in ("b", "few")} for case, networks in fresh.items()}
    fit = settings.descent(whole(next(iter(shared.values()))).rows, momentum=settings.momentum)
    study.progress.expect(bool(settings.mask) * (2 + len(settings.mode)))

    # networks of all columns
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

    # teachers of some columns, and their students
    return rows + (masked(settings, shared, begin, fit, study) if settings.mask else [])


def samples(settings: Settings, shared: int, *, kept: Columns | None = None) -> Data:
    """The samples of one γ.

    Args:
        settings: of the recipe.
        shared: number of common columns.
        kept: columns of a to keep, in this order; None: all.
    """
    drawn = draw(
        shared=shared,
        samples=settings.samples,
        random_state=settings.data_seed,
        split_seed=settings.split_seed,
        noise_seed=settings.data_seed,
        scale_on_all=settings.scale_on_all,
    )
    train, test = drawn["train"], drawn["test"]
    a, b = (np.concatenate([getattr(part, name) for part in (train, test)]).astype(np.float32) for name in "ab")
    label = np.concatenate([train.label, test.label])
    # every training row trains, also those of the validation split: no epoch is selected, the last weights are kept
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

    Student and control have the same initial weights, so that they differ in the teacher alone.
    """
    widths, stream, networks = {"a": WIDTH, "b": WIDTH, "few": settings.mask_dim}, Stream(seed), {}
    for name, width in widths.items():
        stream = Stream(seed) if settings.same_start else stream
        networks[name] = network("b" if name == "b" else "a", width, stream, spare=settings.same_start)
    return {**networks, "b control": copy.deepcopy(networks["b"])}


def network(modality: str, width: int, stream: Stream, *, spare: bool) -> Student:
    """A fresh network of three layers; with ``spare`` the stream also draws an unused layer before the head."""
    inputs = {modality: {"encoder": "relu_mlp", "shape": [width], "width": HIDDEN}}
    arguments: dict[str, Any] = {"inputs": inputs, "outputs": CLASSES}
    # built outside of the stream, then drawn again in the authors' order, in which the unused layer has its place
    with torch.random.fork_rng(devices=[]):
        built, unused = build_network(**arguments), nn.Linear(HIDDEN, HIDDEN)
    layers = [layer for layer in built.modules() if isinstance(layer, nn.Linear)]
    with stream.continued():
        for layer in [*layers[:-1], *[unused] * spare, layers[-1]]:
            layer.reset_parameters()
    return Student(built, (modality,), modality, "network", arguments)


# ---- teachers of some columns


def masked(
    settings: Settings,
    shared: Mapping[int, Data],
    begin: Mapping[Case, Mapping[str, Student]],
    fit: FitSettings,
    study: Study,
) -> list[dict[str, Any]]:
    """Train and score the teachers of some columns of a, and their students; one row per network."""
    ranked = ranks(settings, shared, study) if {"alg1", "reverse"} & set(settings.mask) else {}
    cases = list(itertools.product(settings.mask, begin))
    kept = {(mask, case): chosen(settings, mask, case, ranked) for mask, case in cases}
    # several seeds may keep the same columns: their data is made once
    by_columns: dict[tuple[int, tuple[int, ...]], Data] = {}
    data = {}
    for (mask, case), columns in kept.items():
        view = case[0], tuple(columns.tolist())
        if view not in by_columns:
            by_columns[view] = samples(settings, case[0], kept=columns)
        data[mask, case] = by_columns[view]

    # these teachers, on labels
    labels = {key: Supervised(copy.deepcopy(begin[key[1]]["few"]), data[key].info) for key in data}
    teachers = train("teacher of few columns", labels, data, fit, study)
    rows = []
    for key, run in teachers.items():
        mask, (count, seed) = key
        facts = {"mask": mask, "gamma": count / SEEN, "kept": kept[key].tolist()}
        if mask == "alg1":
            facts |= {f"found_{name}": identified_share(order, count) for name, order in ranked[count].items()}
        rows.append(row(f"teacher of {mask}", "general", seed, accuracy(run, data[key]), **facts))

    # their students, which read all columns of b
    for mode in settings.mode:
        methods = {
            key: distillation(begin[key[1]]["b"], only(teachers[key]), views.info, mode, settings, key[1][1])
            for key, views in data.items()
        }
        runs = train(f"{mode} from few columns", methods, data, fit, study)
        for key, run in runs.items():
            mask, (count, seed) = key
            divergence = non_target_divergence(run, teachers[key], data[key])
            facts = {"mask": mask, "gamma": count / SEEN, "ncjsd": divergence}
            rows.append(row(f"{mode} of {mask}", "method", seed, accuracy(run, data[key]), **facts))
    return rows


def ranks(settings: Settings, shared: Mapping[int, Data], study: Study) -> dict[int, dict[str, Columns]]:
    """γ → columns of both modalities, ranked: without the first ones two networks disagree most about wrong classes."""
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
    """The ranked columns of both modalities for one pair of networks."""
    orders = {}
    for name, side in (("a", "teacher"), ("b", "student")):
        saliency = measure_saliency(
            networks["teacher"].module,
            networks["student"].module,
            [whole(data)],
            f"input:{name}",
            side="teacher" if side == "teacher" else "student",
            distance="ncjsd",
            permutations=settings.permutations,
            seed=JOINT_SEED,
        )
        # stable: columns of equal saliency keep their order, on every machine
        orders[name] = np.argsort(-saliency.raw, kind="stable")
    return orders


def chosen(settings: Settings, mask: str, case: Case, ranked: Mapping[int, Mapping[str, Columns]]) -> Columns:
    """The columns of a that a reduced teacher reads, in the order of their rank."""
    if mask == "random":
        # the authors' code draws with replacement, so that its random teacher may have fewer columns (10)
        random, count = np.random.default_rng([case[1], JOINT_SEED]), settings.mask_dim
        return random.integers(0, WIDTH, count) if settings.replacement else random.permutation(WIDTH)[:count]
    order = ranked[case[0]]["a"]
    return order[: settings.mask_dim] if mask == "alg1" else order[::-1][: settings.mask_dim]


def identified_share(order: Columns, shared: int) -> float | None:
    """Share of the shared columns among as many columns ranked first; None if none are shared."""
    common = set(columns_of("a", shared)) & set(columns_of("b", shared))
    return float(np.isin(order[:shared], list(common)).mean()) if common else None

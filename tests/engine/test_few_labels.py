"""Trainings in which some rows have no label: budget, composition of batches, stacks, accumulation, resuming."""

from __future__ import annotations

import copy
import math
import signal
from pathlib import Path

import pytest
import torch
from networks import image_student, pictures, vector_student
from safetensors.torch import load_file
from torch import Tensor

from xmodal.data.base import Data
from xmodal.data.labels import hide_labels
from xmodal.data.loader import in_order
from xmodal.data.streams import batches_for
from xmodal.engine.fit import fit
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.engine.teacher_cache import TeacherCache
from xmodal.errors import InputError, Interrupted
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.supervised import Supervised
from xmodal.seeding import mix

LABELS = 30


def few(labels: int = LABELS, *, seed: int = 0) -> Data:
    return hide_labels(pictures(), labelled=str(labels), valid_labels="all", seed=seed)


def kd(data: Data, *, dropout: float = 0.0) -> KD:
    return KD(image_student(dropout=dropout), vector_student().module, data.info)


def supervised(data: Data) -> Supervised:
    return Supervised(vector_student(), data.info)


def weights(method: Method) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def test_every_training_has_the_same_updates_and_looks_at_validation_whatever_it_reads() -> None:
    data, settings = few(), FitSettings(epochs=3, batch_size=32)
    rows = {}
    for method in (kd(data), supervised(data)):
        seen: list[int] = []
        plain = method.training_step
        method.training_step = lambda batch, outputs, plain=plain, seen=seen: (  # type: ignore[method-assign]
            seen.append(batch.rows),
            plain(batch, outputs),
        )[1]
        run = fit(method, data, settings)
        rows[type(method).__name__] = seen
        # 131 rows in batches of 32 are 5 updates
        assert [row["steps"] for row in run.history] == [5, 5, 5]

    # 16 labelled and 16 unlabelled rows; all 30 labelled ones
    assert set(rows["KD"]) == {32} and set(rows["Supervised"]) == {30}


def test_a_number_of_updates_ends_every_training_after_as_many() -> None:
    data, settings = few(), FitSettings(updates=7, batch_size=32, epochs=1)

    for method in (kd(data), supervised(data)):
        run = fit(method, data, settings)
        assert [row["steps"] for row in run.history] == [5, 2]


def test_a_cosine_reaches_its_end_with_the_last_of_the_updates() -> None:
    data = few()
    settings = FitSettings(updates=7, batch_size=32, schedule="cosine", learning_rate=1.0, optimizer="sgd")

    rate = fit(supervised(data), data, settings).history[-1]["lr"]

    # six of seven updates are done before the last one
    assert rate == [pytest.approx((1 + math.cos(math.pi * 6 / 7)) / 2)]


def test_patience_is_refused_because_it_would_stop_trainings_at_different_updates() -> None:
    with pytest.raises(InputError, match="Leave --patience out"):
        fit(kd(few()), few(), FitSettings(patience=2))


def test_the_last_weights_are_kept_where_labels_are_missing_and_the_best_elsewhere() -> None:
    settings = FitSettings(epochs=4, learning_rate=0.05)
    data, whole = few(), pictures()

    assert fit(supervised(data), data, settings).best["vector"]["epoch"] == 3
    best = fit(supervised(whole), whole, settings)
    scores = [row["valid"]["vector"]["accuracy"] for row in best.history]
    assert best.best["vector"]["epoch"] == scores.index(max(scores))
    chosen = fit(supervised(data), data, settings.model_copy(update={"keep": "best"}))
    scores = [row["valid"]["vector"]["accuracy"] for row in chosen.history]
    assert chosen.best["vector"]["epoch"] == scores.index(max(scores))


def test_an_update_of_two_batches_is_that_of_their_rows_together() -> None:
    data = few()
    settings = FitSettings(updates=1, batch_size=20, accumulate=2, optimizer="sgd", learning_rate=0.1, momentum=0.0)
    method = KD(vector_student(), vector_student(seed=2).module, data.info)
    method.network.net[1] = torch.nn.Identity()  # batch statistics are those of each part
    by_hand = copy.deepcopy(method)

    fit(method, data, settings, seed=3)

    sampler = batches_for(
        data.train.rows,
        data.train.labelled,
        unlabelled=True,
        paired=True,
        batch_size=20,
        seed=mix(3, "order"),
    )
    batches = [data.train[pick] for pick in list(sampler.at(0))[:2]]
    by_hand.train()
    loss = torch.zeros(())
    for batch in batches:
        step = by_hand(batch, by_hand.teach(batch))
        loss = loss + sum(step.losses.values()) / 2
    loss.backward()
    for name, parameter in by_hand.network.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(method.network.get_parameter(name).detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [kd, supervised])
def test_stacked_models_end_like_each_alone(make: object) -> None:
    settings = FitSettings(epochs=3, batch_size=32, optimizer="sgd", learning_rate=0.05)
    data = [few(seed=seed) for seed in range(2)]

    many = fit_many([make(each) for each in data], data, settings)  # type: ignore[operator]

    for number, (each, run) in enumerate(zip(data, many, strict=True)):
        alone = fit(make(each), each, settings, seed=number)  # type: ignore[operator]
        assert not run.notes
        for name, tensor in weights(alone.method).items():
            torch.testing.assert_close(run.method.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_models_with_other_numbers_of_labels_are_other_stacks() -> None:
    settings = FitSettings(epochs=1, batch_size=32, optimizer="sgd")
    data = [few(30), few(10)]

    for each, run in zip(data, fit_many([kd(each) for each in data], data, settings, seeds=[0, 0]), strict=True):
        alone = fit(kd(each), each, settings)
        for name, tensor in weights(alone.method).items():
            torch.testing.assert_close(run.method.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_an_interrupted_training_ends_with_the_bits_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = few(), FitSettings(epochs=3, batch_size=32)
    fit(kd(data, dropout=0.3), data, settings, folder=tmp_path / "whole")
    steps = iter([0] * 7 + [signal.SIGTERM])
    monkeypatch.setattr(interrupt, "pending", lambda: next(steps, 0))

    with pytest.raises(Interrupted):
        fit(kd(data, dropout=0.3), data, settings, folder=tmp_path / "cut")
    fit(kd(data, dropout=0.3), data, settings, folder=tmp_path / "cut", resume=True)

    whole, cut = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_exchanged_teachers_keep_the_predicted_class_or_nothing() -> None:
    data, fabric = few(), launch()
    teacher = fit(supervised(data), data, FitSettings(epochs=10, batch_size=32)).students["vector"].module
    method = KD(image_student(), teacher, data.info)
    batch = next(iter(in_order(data.train, batch_size=200)))
    tables = {
        exchange: TeacherCache(method, data.train, data.info, fabric, cache="on", exchange=exchange, seed=0)(batch)[
            "outputs"
        ]
        for exchange in ("", "class", "all")
    }

    honest = tables[""]
    changed = (tables["class"] != honest).any(dim=1)
    assert changed.float().mean() > 0.9
    assert torch.equal(tables["class"].argmax(dim=1), honest.argmax(dim=1))
    assert (tables["all"] != honest).any(dim=1).all()
    assert (tables["all"].argmax(dim=1) != honest.argmax(dim=1)).any()
    # a permutation: no output is lost
    for exchanged in (tables["class"], tables["all"]):
        assert torch.equal(exchanged.sort(dim=0).values, honest.sort(dim=0).values)

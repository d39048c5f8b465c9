"""Trainings in which some rows lack a modality: who learns from which row, by hand, stacked, cached, resumed."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Vectors, image_student, vector_student
from safetensors.torch import load_file
from torch import Tensor

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.data.streams import Needs, batches_for
from xmodal.engine.fit import fit
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.engine.teacher_cache import TeacherCache
from xmodal.errors import InputError, Interrupted, NonFinite
from xmodal.losses import LOSSES
from xmodal.losses.logits import kl
from xmodal.method import Method
from xmodal.methods.discom import DisCoM
from xmodal.methods.joint import Joint
from xmodal.methods.kd import KD
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.methods.terms import WHOLE
from xmodal.models.discom_net import branches_for
from xmodal.models.network import Reads
from xmodal.seeding import mix
from xmodal.types import Batch

ALONE, PAIRS, PICTURES = (
    range(60),
    range(60, 120),
    range(120, 150),
)  # labelled sounds, unlabelled pairs, labelled pictures
TRAIN, SCORED = range(150), range(150, 240)


def gaps(*, labelled: bool = False, lonely: int = 3) -> Data:
    """Sounds with a label, pairs without one, pictures with a label: the class shows in both modalities.

    Args:
        labelled: whether pairs have a label too.
        lonely: classes from this one on have a label in the sounds alone.
    """
    vector, image, label = raw()
    vector[PICTURES] = np.nan
    image[ALONE] = np.nan
    target = label.astype(float)
    if not labelled:
        target[PAIRS] = np.nan
    pictures = np.array(PICTURES)
    target[pictures[label[pictures] >= lonely]] = np.nan
    return from_arrays(
        {"vector": vector, "image": image},
        target,
        splits={"train": np.array(TRAIN), "valid": np.array(SCORED[:30]), "test": np.array(SCORED[30:])},
        normalise="none",
        task="multiclass",
    )


def kd(data: Data, teacher: torch.nn.Module | None = None, *, kind: type[KD] = KD, **options: object) -> KD:
    module = Reads(vector_student().module.net, ("vector",)) if teacher is None else teacher
    return kind(image_student(dropout=0.0), module, data.info, DistillationOptions(**options))  # type: ignore[arg-type]


def rows_seen(method: Method, data: Data, **settings: object) -> list[list[int]]:
    """Rows of every batch that a method trains on."""
    seen: list[list[int]] = []
    plain = method.training_step

    def step(batch: Batch, teacher_outputs: dict[str, Tensor]) -> object:
        seen.append(next(iter(batch.index.values())).tolist())
        return plain(batch, teacher_outputs)

    method.training_step = step  # type: ignore[method-assign, assignment]
    fit(method, data, FitSettings(epochs=2, batch_size=32, **settings))  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_student_learns_what_a_loop_by_hand_teaches_it(optimizer: str) -> None:
    data, settings = gaps(), FitSettings(epochs=3, batch_size=32, optimizer=optimizer, learning_rate=0.05)  # type: ignore[arg-type]
    vector, image, label = (torch.from_numpy(part).float() for part in raw())
    # the teacher: sounds alone have labels
    teacher = fit(Supervised(vector_student(), data.info), data, settings, seed=7).students["vector"].module
    by_hand = vector_student().module.train()
    update = rule(by_hand, optimizer)
    for rows in orders(data, seed=7, unlabelled=False, modality="vector"):
        assert max(rows) < 60
        update(F.cross_entropy(by_hand({"vector": vector[rows]}), label[rows].long()))
    assert_same_bits(teacher, by_hand)

    method = kd(data, Reads(copy.deepcopy(teacher).net, ("vector",)))
    fit(method, data, settings, seed=7)

    student = image_student(dropout=0.0).module.train()
    update = rule(student, optimizer)
    with torch.no_grad():
        outputs = by_hand.eval()({"vector": vector[:120]})
    for rows in orders(data, seed=7, unlabelled=True, modality="image"):
        pairs, known = [row for row in rows if row in PAIRS], [row for row in rows if row in PICTURES]
        assert rows == known + pairs and len(pairs) == len(known) == 16
        logits = student({"image": image[rows]})
        distance = kl(logits[len(known) :], outputs[pairs], temperature=4.0)
        update(0.5 * distance + 0.5 * F.cross_entropy(logits[: len(known)], label[known].long()))
    assert_same_bits(method.network, student)


def raw() -> tuple[np.ndarray, ...]:
    """Sounds, pictures and classes of `gaps`, with all modalities and labels."""
    random = np.random.default_rng(0)
    label = np.arange(240) % 3
    vector, image = random.normal(size=(240, 5)), random.normal(size=(240, 1, 6, 6))
    vector[np.arange(240), label] += 3.0
    image[np.arange(240), 0, label, label] += 4.0
    return vector, image, label


def orders(data: Data, *, seed: int, unlabelled: bool, modality: str) -> list[list[int]]:
    """Rows of all batches of three epochs."""
    batches = batches_for(
        data.train.rows,
        data.train.labelled,
        unlabelled=unlabelled,
        paired=True,
        batch_size=32,
        seed=mix(seed, "order"),
        present=data.train.present,
        needs=Needs((modality,), ("vector", "image") if unlabelled else (modality,)),
    )
    return [pick.rows[modality].tolist() for epoch in range(3) for pick in batches.at(epoch)]


def rule(module: torch.nn.Module, name: str) -> Callable[[Tensor], None]:
    """An update of the weights, as the engine's optimiser makes it."""
    kinds = {"sgd": lambda each: torch.optim.SGD(each, lr=0.05, momentum=0.9), "adam": torch.optim.Adam}
    optimiser = kinds[name](module.parameters())
    for group in optimiser.param_groups:
        group["lr"] = 0.05

    def update(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return update


def assert_same_bits(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


def test_every_term_gets_the_rows_that_it_can_use() -> None:
    data = gaps()

    sounds = {row for rows in rows_seen(Supervised(vector_student(), data.info), data) for row in rows}
    pictures = {row for rows in rows_seen(Supervised(image_student(), data.info), data) for row in rows}
    both = {row for rows in rows_seen(kd(data), data) for row in rows}
    unlabelled_alone = {row for rows in rows_seen(kd(data, task_weight=0.0), data) for row in rows}
    joint = {row for rows in rows_seen(Joint(vector_student(), image_student(), data.info), data) for row in rows}

    assert sounds == {*ALONE} and pictures == {*PICTURES}
    assert both == {*PICTURES, *PAIRS} and unlabelled_alone == joint == {*PAIRS}


def test_methods_that_say_nothing_get_rows_with_all_that_their_students_read() -> None:
    data = gaps(labelled=True)
    mlp = {
        "vector": {"encoder": "mlp", "shape": [5], "width": 8},
        "image": {"encoder": "image_cnn", "shape": [1, 6, 6], "width": 8},
    }
    discom = DisCoM({name: branches_for(data.info, name, mlp[name]) for name in mlp}, data.info)

    assert {row for rows in rows_seen(discom, data) for row in rows} == {*PAIRS}
    assert discom.row_needs(labelled=True) == ("vector", "image")


def test_a_teacher_of_an_unknown_kind_reads_every_modality() -> None:
    data = gaps()
    method = kd(data, Vectors())

    assert method.taught_by() is None and method.row_needs(labelled=False) is None
    assert method.row_needs(labelled=True) == ("image",)


def test_every_batch_has_the_same_numbers_of_rows_of_each_kind() -> None:
    data = gaps(labelled=True)

    kinds = {
        (sum(row in PAIRS for row in rows), sum(row in PICTURES for row in rows)) for rows in rows_seen(kd(data), data)
    }

    # all labelled: 60 rows with both modalities and 30 with a picture alone
    assert kinds == {(21, 11)}


def test_a_teacher_learns_a_class_from_rows_that_no_student_sees() -> None:
    data, settings = gaps(lonely=2), FitSettings(epochs=20, batch_size=32, learning_rate=0.02)

    teacher = fit(Supervised(vector_student(), data.info), data, settings).students["vector"].module
    taught = fit(kd(data, Reads(teacher.net, ("vector",)), task_weight=0.1), data, settings).students["image"].module
    alone = fit(Supervised(image_student(dropout=0.0), data.info), data, settings).students["image"].module

    batch = next(in_order(data.test, batch_size=60))
    third = batch.target == 2
    found = {
        name: (module.eval()(batch.inputs).argmax(dim=1)[third] == 2).float().mean().item()
        for name, module in (("teacher", teacher), ("taught", taught), ("alone", alone))
    }
    assert found["teacher"] > 0.9 and found["taught"] > 0.7 and found["alone"] == 0.0


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_rows_without_the_teachers_modality_have_no_outputs(cache: str, tmp_path: Path) -> None:
    data = gaps()
    method = kd(data)
    table = TeacherCache(method, data.train, data.info, launch(), cache=cache, exchange="", seed=0, disk=tmp_path)
    batch = next(in_order(data.train, batch_size=150))

    outputs = table(batch)["outputs"]

    assert outputs[120:].isnan().all()
    torch.testing.assert_close(outputs[:120], method.teach(batch.take(slice(0, 120)))["outputs"])
    none = table(batch.take(torch.arange(125, 130)))["outputs"]
    assert none.shape == (5, 3) and none.isnan().all()


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("exchange", ["class", "all"])
def test_outputs_are_exchanged_among_the_rows_that_have_some(exchange: str, cache: str, tmp_path: Path) -> None:
    data = gaps(labelled=True)
    # rows without outputs are anywhere
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    train = data.train.subset(dict.fromkeys(data.train.rows, order))
    info = replace(data.info, train_targets=train.targets)
    method = kd(data)
    honest, exchanged = (
        TeacherCache(method, train, info, launch(), cache=cache, exchange=each, seed=0, disk=tmp_path)
        for each in ("", exchange)
    )
    batch = next(in_order(train, batch_size=150))

    before, after = honest(batch)["outputs"], exchanged(batch)["outputs"]

    assert torch.equal(after.isnan().all(dim=1), order >= 120)
    before, after, target = (part[order < 120] for part in (before, after, batch.target))
    assert torch.equal(after.sort(dim=0).values, before.sort(dim=0).values)
    moved = [int((before == row).all(dim=1).nonzero()) for row in after]
    assert all(row != place for row, place in enumerate(moved))
    assert torch.equal(target[moved], target) == (exchange == "class")


def test_trainings_with_either_cache_end_with_the_same_weights(tmp_path: Path) -> None:
    data = gaps()
    methods = {cache: kd(data) for cache in ("memory", "disk", "off")}

    for cache, method in methods.items():
        settings = FitSettings(epochs=2, batch_size=32, optimizer="sgd", cache=cache)  # type: ignore[arg-type]
        fit(method, data, settings, folder=tmp_path / cache)

    assert_same_bits(methods["memory"].network, methods["disk"].network)
    for name, tensor in methods["off"].network.state_dict().items():
        torch.testing.assert_close(tensor, methods["memory"].network.state_dict()[name], rtol=1e-5, atol=1e-6)


# the teacher of these tests has no maps, and a memory is refused
COMPARED = [name for name, card in LOSSES.items() if card.inputs not in WHOLE and "memory" not in card.needs]


@pytest.mark.parametrize("name", ["ntdh", *COMPARED])
def test_a_batch_without_a_pair_teaches_labels_alone(name: str) -> None:
    data = gaps()
    method = kd(data, losses=(name,)) if name != "ntdh" else kd(data, kind=NTDH)
    batch = next(in_order(data.train, batch_size=150)).take(slice(120, 150))

    step = method.train()(batch, {name: torch.full((30, *shape), torch.nan) for name, shape in shapes(method).items()})

    assert all(value == 0 and step.counts[name] == 0 for name, value in step.losses.items() if name != "task")
    assert step.losses["task"] > 0 and step.counts["task"] == 30
    sum(step.losses.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad.isfinite().all() for parameter in method.network.parameters())  # type: ignore[union-attr]


def shapes(method: KD) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(part.shape[1:]) for name, part in method.teach(Batch({"vector": torch.zeros(2, 5)}, {})).items()
    }


def test_rows_are_selected_before_the_forward_pass() -> None:
    """Rows of zeros would change what BatchNorm makes of the others."""
    data = gaps()
    method = kd(data, task_weight=1.0).train()
    whole = next(in_order(data.train, batch_size=150))
    table = TeacherCache(method, data.train, data.info, launch(), cache="on", exchange="", seed=0)

    step = method(whole, table(whole))
    usable = whole.take(slice(60, 150))
    expected = method(usable, table(usable))

    assert step.losses.keys() == expected.losses.keys()
    assert all(torch.equal(step.losses[name], expected.losses[name]) for name in step.losses)
    sounds = Supervised(vector_student(), data.info).train()
    assert torch.equal(sounds(whole, {}).losses["task"], sounds(whole.take(slice(0, 120)), {}).losses["task"])


def test_stacks_leave_such_data_to_single_trainings() -> None:
    data, settings = gaps(), FitSettings(epochs=1, batch_size=32, optimizer="sgd")
    methods = [kd(data), kd(data)]

    runs = fit_many(methods, data, settings)

    assert all("some rows lack a modality" in run.notes[0] for run in runs)
    for seed, method in enumerate(methods):
        assert_same_bits(method.network, fit(kd(data), data, settings, seed=seed).students["image"].module)


def test_an_interrupted_training_ends_with_the_bits_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = gaps(), FitSettings(epochs=3, batch_size=32)
    fit(kd(data), data, settings, folder=tmp_path / "whole")
    steps = iter([0] * 7 + [signal.SIGTERM])
    monkeypatch.setattr(interrupt, "pending", lambda: next(steps, 0))

    with pytest.raises(Interrupted):
        fit(kd(data), data, settings, folder=tmp_path / "cut")
    fit(kd(data), data, settings, folder=tmp_path / "cut", resume=True)

    whole, cut = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_an_update_of_two_batches_counts_every_row_alike() -> None:
    data = gaps(labelled=True)
    settings = FitSettings(updates=1, batch_size=20, accumulate=2, optimizer="sgd", learning_rate=0.1, momentum=0.0)
    method = KD(image_student(dropout=0.0), Reads(Vectors().net, ("vector",)), data.info)
    method.network.net[1] = torch.nn.Identity()  # batch statistics are those of each part
    by_hand = copy.deepcopy(method).train()

    fit(method, data, settings, seed=3)

    needs = Needs(("image",), ("image", "vector"))
    sampler = batches_for(
        data.train.rows,
        {},
        unlabelled=True,
        paired=True,
        batch_size=20,
        seed=mix(3, "order"),
        present=data.train.present,
        needs=needs,
    )
    rows = torch.cat([pick.rows["image"] for pick in list(sampler.at(0))[:2]])
    whole = next(in_order(data.train, batch_size=150)).take(rows)
    outputs = {name: part.new_zeros(len(rows), 3) for name, part in by_hand.teach(whole).items()}
    pairs = rows < 120
    outputs["outputs"][pairs] = by_hand.teach(whole.take(pairs))["outputs"]
    sum(by_hand(whole, outputs).losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in by_hand.network.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad  # type: ignore[operator]
        torch.testing.assert_close(method.network.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-6)


def test_a_broken_step_names_the_rows_that_are_broken_and_not_those_that_lack_something() -> None:
    data = gaps()
    data.train._kept("image")[70 - 60] = torch.inf

    with pytest.raises(NonFinite) as caught:
        fit(kd(data), data, FitSettings(epochs=3, batch_size=32))

    # rows from 120 on lack the vector
    assert "image is not finite in training rows 70." in str(caught.value) and "vector" not in str(caught.value)


def test_trainings_that_no_row_fits_are_refused() -> None:
    data = gaps()
    for_none = data.train.subset(dict.fromkeys(data.train.rows, torch.tensor([*ALONE, *PICTURES])))
    unpaired = Data(for_none, data.valid, data.test, data.info)
    unknown = data.train.subset(dict.fromkeys(data.train.rows, torch.tensor([*ALONE, *PAIRS])))
    transfer = Data(unknown, data.valid, data.test, data.info)

    with pytest.raises(InputError, match="No training row has image and vector together, so the teacher would teach"):
        fit(kd(unpaired), unpaired, FitSettings(epochs=1, batch_size=32))
    with pytest.raises(InputError, match="0 training rows have a label and image: this training can use no others"):
        fit(Supervised(image_student(), data.info), transfer, FitSettings(epochs=1, batch_size=32))
    with pytest.raises(InputError, match="0 training rows have a label and vector and image, or vector and image and"):
        fit(Joint(vector_student(), image_student(), data.info), unpaired, FitSettings(epochs=1, batch_size=32))
    with pytest.raises(InputError, match="The loss crd stores all training rows, and some of them lack a modality"):
        kd(data, losses=("crd",))
    # sounds with a label and pairs without one: the teacher alone knows classes
    assert {row for rows in rows_seen(kd(transfer), transfer) for row in rows} == {*range(60, 120)}

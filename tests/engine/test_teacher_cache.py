from __future__ import annotations

import torch
from networks import Vectors, image_student, pictures, vector_student

from xmodal.data.base import Data
from xmodal.data.loader import Pick, in_order
from xmodal.engine.launch import launch
from xmodal.engine.teacher_cache import Teaching, exchange, refusal, strata
from xmodal.methods.kd import KD
from xmodal.models.network import wrap
from xmodal.types import DataInfo, InputInfo


def test_exchange_keeps_classes_and_moves_every_row_that_has_a_partner() -> None:
    classes = torch.tensor([0, 1, 2, 0, 1, 0, 1, 0])

    rows = exchange(classes, seed=4)

    assert torch.equal(classes[rows], classes)
    assert sorted(rows.tolist()) == list(range(8))
    moved = rows != torch.arange(8)
    assert moved.tolist() == [True, True, False, True, True, True, True, True]


def test_exchange_is_drawn_from_its_seed() -> None:
    classes = torch.zeros(50, dtype=torch.long)

    assert torch.equal(exchange(classes, 1), exchange(classes, 1))
    assert not torch.equal(exchange(classes, 1), exchange(classes, 2))


def info_with(target: torch.Tensor, task: str) -> DataInfo:
    return DataInfo({"a": InputInfo((1,))}, task, 2, {"train": {"a": len(target)}}, train_targets={"a": target})


def test_strata_of_regression_are_deciles_and_of_labels_combinations() -> None:
    values = torch.arange(40.0).flip(0)[:, None]
    labels = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 1]])

    assert strata(info_with(values, "regression")).tolist() == [9 - row // 4 for row in range(40)]
    found = strata(info_with(labels, "multilabel"))
    assert found[0] == found[2] and len(set(found.tolist())) == 3


def test_the_shuffled_teacher_answers_for_another_row_of_the_class() -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    fabric = launch()
    honest = Teaching(method, data.train, data.info, fabric, cache="on", shuffle=False, seed=0)
    shuffled = Teaching(method, data.train, data.info, fabric, cache="auto", shuffle=True, seed=0)
    rows = exchange(data.train.targets["vector"], 0)

    for batch in in_order(data.train, batch_size=40):
        index = batch.index["image"]
        torch.testing.assert_close(honest(batch)["outputs"], method.teach(batch)["outputs"])
        assert honest.table is not None
        torch.testing.assert_close(shuffled(batch)["outputs"], honest.table["outputs"][rows[index]])


def test_refusals_name_their_reason() -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    assert refusal(method, data.train) == ""

    method.teacher.net[1].track_running_stats = False  # type: ignore[index]
    assert "statistics of its batch" in refusal(method, data.train)
    assert "augmented" in refusal(method, pictures(augment="noise:1").train)


def by_vectors(augment: str) -> tuple[KD, Data]:
    """Distillation from a network that says what it reads, and the data."""
    data = pictures(augment=augment)
    return KD(image_student(), wrap(Vectors().net, ["vector"]), data.info), data


def test_what_the_teacher_does_not_read_may_be_augmented() -> None:
    for augment in ("image.noise:1", "image.shift:1,image.noise:0.1"):
        method, data = by_vectors(augment)
        assert data.train.changing == {"image"} and data.train.augmented
        assert method.teach_inputs == ("vector",) and refusal(method, data.train) == ""
    for augment in ("vector.noise:1", "image.shift:1,noise:0.1"):
        method, data = by_vectors(augment)
        assert "vector" in data.train.changing and "augmented" in refusal(method, data.train)


def test_a_teacher_that_does_not_say_what_it_reads_may_read_anything() -> None:
    data = pictures(augment="image.noise:1")
    method = KD(image_student(), vector_student().module, data.info)

    assert method.teach_inputs is None and "augmented" in refusal(method, data.train)


def test_an_augmented_student_learns_from_the_table_and_from_the_exchanged_one() -> None:
    method, data = by_vectors("image.noise:1")
    plain, exchanged = (
        Teaching(method, data.train, data.info, launch(), cache="on", shuffle=shuffle, seed=0)
        for shuffle in (False, True)
    )
    batch = data.train[Pick(dict.fromkeys(("vector", "image"), torch.arange(9)), epoch=3)]

    assert not torch.equal(batch.inputs["image"], pictures().train[Pick(batch.index, None)].inputs["image"])
    torch.testing.assert_close(plain(batch)["outputs"], method.teach(batch)["outputs"])
    assert plain.table is not None
    rows = exchange(data.train.targets["vector"], 0)[:9]
    torch.testing.assert_close(exchanged(batch)["outputs"], plain.table["outputs"][rows])

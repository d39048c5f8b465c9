from __future__ import annotations

import torch
from networks import image_student, pictures, vector_student

from xmodal.data.loader import in_order
from xmodal.engine.launch import launch
from xmodal.engine.teacher_cache import Teaching, exchange, refusal, strata
from xmodal.methods.kd import KD
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

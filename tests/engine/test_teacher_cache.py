from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import Vectors, image_student, pictures, vector_student

from xmodal.data.base import Data
from xmodal.data.loader import Pick, in_order
from xmodal.engine import teacher_cache, teacher_disk
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.engine.teacher_cache import TeacherCache, exchange, refusal, strata
from xmodal.engine.teacher_disk import blocks_of
from xmodal.errors import InputError
from xmodal.methods.kd import KD
from xmodal.models.network import wrap
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo, InputInfo


def test_exchange_keeps_classes_and_moves_every_row_that_has_a_partner() -> None:
    classes = torch.tensor([0, 1, 2, 0, 1, 0, 1, 0])

    rows = exchange(classes, seed=4)

    assert torch.equal(classes[rows], classes)
    assert sorted(rows.tolist()) == list(range(8))
    moved = rows != torch.arange(8)
    assert moved.tolist() == [True, True, False, True, True, True, True, True]


def test_exchange_by_one_sort_is_that_of_class_after_class() -> None:
    classes = torch.from_numpy(np.random.default_rng(0).integers(0, 40, 500))
    generator = torch.Generator().manual_seed(mix(7, "exchange"))
    expected = torch.arange(500)
    for value in range(40):
        members = (classes == value).nonzero().flatten()
        cycle = members[torch.randperm(len(members), generator=generator)]
        for place, row in enumerate(cycle.tolist()):
            expected[row] = cycle[place - 1]

    assert torch.equal(exchange(classes, 7), expected)


def test_each_of_several_processes_computes_blocks_of_its_own() -> None:
    data = pictures()
    starts = [
        [rows.start for rows in blocks_of(data.train, 10, SimpleNamespace(global_rank=rank, world_size=3))]
        for rank in range(3)
    ]
    assert all(starts)

    assert sorted(sum(starts, [])) == list(range(0, len(data.train), 10))


def test_exchange_is_drawn_from_its_seed() -> None:
    classes = torch.zeros(50, dtype=torch.long)

    assert torch.equal(exchange(classes, 1), exchange(classes, 1))
    assert not torch.equal(exchange(classes, 1), exchange(classes, 2))


def info_with(target: torch.Tensor, task: str) -> DataInfo:
    return DataInfo({"a": InputInfo((1,))}, task, 2, {"train": {"a": len(target)}}, train_targets={"a": target})


def test_strata_of_regression_are_deciles_and_of_labels_combinations() -> None:
    values = torch.arange(40.0).flip(0)[:, None]
    labels = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 1]])

    assert strata(info_with(values, "regression"), values).tolist() == [9 - row // 4 for row in range(40)]
    combinations = strata(info_with(labels, "multilabel"), labels)
    assert combinations[0] == combinations[2] and len(set(combinations.tolist())) == 3


def test_the_shuffled_teacher_returns_outputs_of_another_row_of_the_class() -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    fabric = launch()
    honest = TeacherCache(method, data.train, data.info, fabric, cache="on", exchange="", seed=0)
    shuffled = TeacherCache(method, data.train, data.info, fabric, cache="auto", exchange="class", seed=0)
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
    """Distillation from a network that names the inputs it reads, and the data."""
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


def test_a_teacher_that_does_not_name_its_inputs_may_read_any() -> None:
    data = pictures(augment="image.noise:1")
    method = KD(image_student(), vector_student().module, data.info)

    assert method.teach_inputs is None and "augmented" in refusal(method, data.train)


def test_an_augmented_student_learns_from_the_table_and_from_the_exchanged_one() -> None:
    method, data = by_vectors("image.noise:1")
    plain, exchanged = (
        TeacherCache(method, data.train, data.info, launch(), cache="on", exchange="class" * shuffle, seed=0)
        for shuffle in (False, True)
    )
    batch = data.train[Pick(dict.fromkeys(("vector", "image"), torch.arange(9)), epoch=3)]

    assert not torch.equal(batch.inputs["image"], pictures().train[Pick(batch.index, None)].inputs["image"])
    torch.testing.assert_close(plain(batch)["outputs"], method.teach(batch)["outputs"])
    assert plain.table is not None
    rows = exchange(data.train.targets["vector"], 0)[:9]
    torch.testing.assert_close(exchanged(batch)["outputs"], plain.table["outputs"][rows])


# ---- on disk


@pytest.fixture
def computed_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call of ``teach``."""
    rows: list[int] = []
    teach = KD.teach

    def counting(self: KD, batch: Batch) -> dict[str, torch.Tensor]:
        rows.append(batch.rows)
        return teach(self, batch)

    monkeypatch.setattr(KD, "teach", counting)
    return rows


def build_cache(disk: Path | None, cache: str = "disk", *, method: KD | None = None, **more: Any) -> TeacherCache:
    data = pictures(**more)
    method = method or KD(image_student(), vector_student().module, data.info)
    return TeacherCache(method, data.train, data.info, launch(), cache=cache, exchange="", seed=0, disk=disk)


def all_outputs(cache: TeacherCache) -> dict[str, torch.Tensor]:
    (batch,) = in_order(pictures().train, batch_size=1000)
    return cache(batch)


def test_outputs_on_disk_are_those_in_memory_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (256, 50):  # 131 rows: one block, three uneven ones
        monkeypatch.setattr(teacher_cache, "BLOCK", block)
        disk, memory = build_cache(tmp_path / str(block)), build_cache(None, "memory")

        assert disk.table is None and memory.disk_table is None
        assert torch.equal(all_outputs(disk)["outputs"], all_outputs(memory)["outputs"])
        picked = Batch({}, {}, {}, {"image": torch.tensor([130, 0, 7, 7])})
        assert torch.equal(disk(picked)["outputs"], all_outputs(memory)["outputs"][[130, 0, 7, 7]])
    online = build_cache(None, "off")
    torch.testing.assert_close(all_outputs(disk)["outputs"], all_outputs(online)["outputs"], atol=1e-5, rtol=0)


def test_of_a_table_that_exists_only_the_probe_is_computed(
    tmp_path: Path, computed_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "BLOCK", 30)
    first = all_outputs(build_cache(tmp_path))
    assert computed_rows == [30, 30, 30, 30, 30, 11]  # the probe, then every row once
    (tmp_path / ".0.part").mkdir()
    computed_rows.clear()

    again = all_outputs(build_cache(tmp_path))

    assert computed_rows == [30] and torch.equal(first["outputs"], again["outputs"])
    assert len([path for path in tmp_path.iterdir() if not path.name.startswith(".")]) == 1


def test_whatever_changes_the_teachers_outputs_leads_to_another_table(tmp_path: Path) -> None:
    info = pictures().info
    masked = KD(image_student(), vector_student().module, info)
    masked.register_buffer("keep", torch.tensor([True, False]))

    class Doubled(KD):
        def teach(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {name: 2 * output for name, output in super().teach(batch).items()}

    def doubled() -> KD:
        method = Doubled(image_student(), vector_student().module, info)
        method.__class__.__qualname__ = "KD"  # only its outputs differ
        return method

    variants: list[tuple[KD | None, dict[str, Any]]] = [
        (None, {}),
        (KD(image_student(), vector_student(seed=2).module, info), {}),
        (masked, {}),
        (doubled(), {}),
        (None, {"seed": 1}),  # other samples
        (None, {"rows": 130}),
    ]
    for count, (method, more) in enumerate(variants, start=1):
        build_cache(tmp_path, method=method, **more)
        assert len(list(tmp_path.iterdir())) == count
    build_cache(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(variants)


def test_a_table_too_large_for_memory_goes_to_disk_or_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 131 * 3 * 4
    monkeypatch.setattr(teacher_cache, "LIMIT", size)
    assert build_cache(tmp_path, "auto").table is not None
    monkeypatch.setattr(teacher_cache, "LIMIT", size - 1)
    for cache in ("auto", "on"):
        assert build_cache(tmp_path, cache).disk_table is not None
    online = build_cache(None, "auto")
    assert online.table is None and online.disk_table is None
    for cache, disk, sentence in (
        ("memory", tmp_path, "more than the .* for memory. Use --cache off"),
        ("on", None, "more than the .* for memory"),
        ("disk", None, "kept in the run folder, and this training has none"),
    ):
        with pytest.raises(InputError, match=sentence):
            build_cache(disk, cache)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_disk, "free_bytes", lambda folder: 131 * 3 * 4 - 1)
    with pytest.raises(InputError, match="has no room for the teacher's outputs"):
        build_cache(tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


def test_the_exchanged_table_is_read_from_the_same_file(tmp_path: Path) -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    common: dict[str, Any] = {"exchange": "class", "seed": 0, "disk": tmp_path}
    disk, memory = (
        TeacherCache(method, data.train, data.info, launch(), cache=cache, **common) for cache in ("disk", "memory")
    )

    assert torch.equal(all_outputs(disk)["outputs"], all_outputs(memory)["outputs"])
    build_cache(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_half_precision_outputs_keep_their_bits(tmp_path: Path) -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    fabric = launch(precision="bf16-mixed")
    disk, memory = (
        TeacherCache(method, data.train, data.info, fabric, cache=cache, exchange="", seed=0, disk=tmp_path)
        for cache in ("disk", "memory")
    )

    outputs = all_outputs(disk)["outputs"]
    assert outputs.dtype == torch.bfloat16 and torch.equal(outputs, all_outputs(memory)["outputs"])


def test_trainings_with_either_cache_end_with_the_same_bits(tmp_path: Path) -> None:
    runs = {}
    for cache in ("disk", "memory", "off"):
        data = pictures()
        method = KD(image_student(), vector_student().module, data.info)
        settings = FitSettings(epochs=2, batch_size=25, optimizer="sgd", cache=cache)  # type: ignore[arg-type]
        runs[cache] = fit(method, data, settings, folder=tmp_path / cache)

    weights = {cache: run.method.state_dict() for cache, run in runs.items()}
    for name, tensor in weights["disk"].items():
        assert torch.equal(tensor, weights["memory"][name])
        torch.testing.assert_close(tensor, weights["off"][name], atol=1e-5, rtol=0)
    assert (tmp_path / "disk" / "answers").is_dir() and not (tmp_path / "memory" / "answers").exists()

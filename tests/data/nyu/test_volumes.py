"""Volumes as targets, and the scored regions of batches, for any data set."""

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays, from_batches
from xmodal.data.base import assemble
from xmodal.data.loader import Pick
from xmodal.data.split import Split
from xmodal.engine.evaluate import counting
from xmodal.errors import InputError
from xmodal.metrics.task import Scores
from xmodal.types import Batch, DataInfo, InputInfo


def volumes(rows=20, kind=np.int64):
    random = np.random.default_rng(0)
    target = random.integers(0, 3, (rows, 4, 2, 3)).astype(kind)
    return {"scan": random.normal(size=(rows, 1, 4, 2, 3))}, target


def picked(split, *rows):
    return split[Pick(dict.fromkeys(split.rows, torch.tensor(rows)), None)]


def test_a_target_of_voxels_is_dense_and_has_a_shape():
    inputs, target = volumes()
    target[:, 0] = 255

    info = from_arrays(inputs, target, ignore=255).info

    assert (info.dense, info.task, info.classes, info.target_shape) == (True, "multiclass", 3, (4, 2, 3))
    assert info.select == ("mean_iou", "max")
    assert from_arrays({"x": np.zeros((20, 2))}, np.arange(20) % 2).info.target_shape == ()


def test_targets_of_bytes_become_int64_only_in_batches():
    inputs, target = volumes(kind=np.uint8)
    wide = from_arrays(*volumes())

    data = from_arrays(inputs, target)

    assert data.train.targets["scan"].dtype == torch.uint8
    assert wide.train.targets["scan"].dtype == torch.int64
    narrow_target, wide_target = (picked(each.train, 3, 1).target for each in (data, wide))
    assert narrow_target.dtype == torch.int64 and torch.equal(narrow_target, wide_target)


def assembled(scored, **more):
    inputs, target = volumes()
    rows = {"train": np.arange(10), "valid": np.arange(10, 15), "test": np.arange(15, 20)}
    both = {"scan": inputs["scan"], "other": 2 * inputs["scan"], **more}
    modalities = ("scan", "other")
    return assemble(
        both,
        dict.fromkeys(modalities, target),
        {split: dict.fromkeys(modalities, numbers) for split, numbers in rows.items()},
        scored=dict.fromkeys(modalities, scored),
    )


def test_regions_follow_the_rows_of_their_split():
    scored = np.arange(20 * 24).reshape(20, 4, 2, 3).astype(np.uint8) % 3
    data = assembled(scored)

    batch = picked(data.test, 2, 0)

    assert np.array_equal(batch.scored["scan"], scored[[17, 15]]) and batch.scored["other"] is batch.scored["scan"]
    assert np.array_equal(picked(data.valid, 1).scored["scan"], scored[[11]])
    assert np.array_equal(picked(data.train, 3).scored["other"], scored[[3]])


def test_a_column_of_two_modalities_is_read_once_per_batch():
    class Counting:
        shape, dtype, read = (20, 6), np.dtype("int32"), 0

        def __getitem__(self, rows):
            Counting.read += 1
            return np.repeat(np.arange(20, dtype=np.int32)[rows][:, None], 6, axis=1)

    where = Counting()
    data = assembled(np.ones((20, 4, 2, 3), np.uint8), **{"scan.where": where, "other.where": where})

    batch = picked(data.train, 4, 2)

    assert batch.inputs["scan.where"] is batch.inputs["other.where"] and Counting.read == 1
    assert batch.inputs["scan.where"][:, 0].tolist() == [4, 2] and batch.inputs["scan.where"].dtype == torch.int64


def test_a_shared_column_gives_different_rows_to_unpaired_modalities():
    where = np.arange(12).reshape(6, 2)
    columns = {"a": np.zeros((6, 3)), "b": np.zeros((6, 3)), "a.where": where, "b.where": where}
    split = Split(columns, {}, {"a": np.arange(6), "b": np.arange(6)[::-1].copy()}, paired=False)

    batch = split[Pick({"a": torch.tensor([0, 1]), "b": torch.tensor([0, 1])}, None)]

    assert batch.inputs["a.where"].tolist() == [[0, 1], [2, 3]] and batch.inputs["b.where"].tolist() == [
        [10, 11],
        [8, 9],
    ]


def test_metrics_use_only_scored_places():
    info = DataInfo({}, "multiclass", 3, {}, dense=True, ignore=255)
    target = torch.tensor([[[0, 1, 2, 255]]])
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 2, 2, 1]]]), 3).movedim(-1, 1).float()
    scores = Scores(info), Scores(info)

    scores[0].update(logits, target)
    scores[1].update(logits, target, None, torch.tensor([[[2, 0, 1, 1]]], dtype=torch.uint8))

    assert scores[0].compute()["accuracy"] == pytest.approx(2 / 3) and scores[1].compute()["accuracy"] == 1
    masked = Scores(info)
    masked.update(logits, target, target == 2, torch.tensor([[[2, 0, 0, 1]]]))
    # No place is both valid and scored.
    assert masked.compute()["accuracy"] == 0


def test_metrics_get_valid_and_scored_masks_only_if_there_are_any():
    valid, scored = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.uint8)
    batch = Batch({}, {}, {"a": valid}, {}, {"b": scored})

    assert counting(batch, "a") == (valid,) and counting(batch, "b") == (None, scored)
    assert counting(batch, "c") == (None,)


def test_regions_move_with_their_batch_and_stay_shared():
    scored = torch.ones(1, 2, dtype=torch.uint8)
    batch = Batch({}, {}, {}, {}, {"a": scored, "b": scored})

    moved = batch.to("meta")

    assert moved.scored["a"] is moved.scored["b"] and moved.scored["a"].device.type == "meta"


def test_batches_with_regions_cannot_be_joined():
    batch = Batch({"a": torch.zeros(2, 3)}, {"a": torch.tensor([0, 1])}, scored={"a": torch.ones(2)})

    with pytest.raises(InputError, match="invalid or scored"):
        from_batches([batch], [batch], [batch])


def test_the_block_size_counts_the_places_of_the_target_if_its_shape_is_set():
    pictures = {"x": InputInfo((1, 480, 640))}
    many = DataInfo(pictures, "multiclass", 12, {}, dense=True, target_shape=(60, 36, 60))

    assert many.block(512) == 2**28 // (4 * (480 * 640 + 12 * 60 * 36 * 60))
    assert DataInfo(pictures, "multiclass", 12, {}, dense=True, target_shape=(60, 36, 60), inner=2**26).block(512) == 1
    assert DataInfo(pictures, "multiclass", 12, {}, dense=True).block(512) == 2**28 // (4 * 13 * 480 * 640)

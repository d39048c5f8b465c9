import pickle

import numpy as np
import pytest
import torch

from xmodal.data.base import assemble
from xmodal.data.loader import Batches, Loader, Pick, in_order
from xmodal.data.mnist.noisy import NoisyColumn, noisy
from xmodal.data.split import Redrawn

CLEAN = np.random.default_rng(0).integers(0, 256, (60, 2, 5, 4)).astype(np.uint8)
LABEL = np.arange(60) % 3


def column(**options):
    return NoisyColumn(CLEAN, "camera", **{"level": 0.5, "seed": 3, **options})


def data(**options):
    rows = {"train": np.arange(0, 40), "valid": np.arange(40, 50), "test": np.arange(50, 60)}
    columns = {"camera": column(**options), "other": NoisyColumn(CLEAN, "other", level=0.5, seed=3)}
    return assemble(
        columns, dict.fromkeys(columns, LABEL), {split: dict.fromkeys(columns, found) for split, found in rows.items()}
    )


def batches(split, *, epoch, workers=0, size=7):
    sampler = Batches(split.rows, paired=True, batch_size=size, seed=0)
    found = list(Loader(split, sampler, workers=workers).epoch(epoch))
    order = torch.cat([batch.index["camera"] for batch in found]).argsort()
    return torch.cat([batch.inputs["camera"] for batch in found])[order]


def test_noise_is_added_cut_off_at_white_and_rounded_down():
    pixels = np.array([[0, 51, 102], [255, 200, 10]], np.uint8)
    uniform = np.array([[0.25, 0.5, 1.0], [0.9, 0.0, 0.01]])

    # 255 (x/255 + 2u) = x + 510 u
    assert noisy(pixels, uniform, 2.0).tolist() == [[127, 255, 255], [255, 200, 15]]


def test_no_noise_leaves_every_value_as_it_is():
    pixels = np.arange(256, dtype=np.uint8)

    assert np.array_equal(noisy(pixels, np.ones(256), 0.0), pixels)
    assert np.array_equal(column(level=0.0)[np.arange(60)], CLEAN)


def test_a_row_is_the_same_whatever_it_is_read_with():
    still = column()

    assert np.array_equal(still[np.array([7, 3, 7])], np.stack([still[7], still[3], still[7]]))
    assert np.array_equal(still[:], still[np.arange(60)]) and np.array_equal(still[10:12], still[:][10:12])
    assert np.array_equal(still.redrawn(np.array([5, 9]), 4)[1], still.redrawn(np.array([9]), 4)[0])


def test_noise_depends_on_seed_epoch_row_and_modality():
    rows = np.arange(10)
    grey = np.full_like(CLEAN, 40)
    first = NoisyColumn(grey, "camera", level=0.5, seed=3)

    found = {
        "first": first.redrawn(rows, 0),
        "epoch": first.redrawn(rows, 1),
        "still": first[rows],
        "seed": NoisyColumn(grey, "camera", level=0.5, seed=4).redrawn(rows, 0),
        "modality": NoisyColumn(grey, "radar", level=0.5, seed=3).redrawn(rows, 0),
        "row": first.redrawn(rows + 10, 0),
    }

    assert len({values.tobytes() for values in found.values()}) == 6
    assert len({values.tobytes() for values in found["first"]}) == 10


def test_noise_is_uniform_per_pixel_and_channel():
    grey = NoisyColumn(np.zeros((400, 3, 10, 10), np.uint8), "camera", level=1.0, seed=0)

    found = grey[:].astype(float)

    assert found.mean() == pytest.approx(127, abs=0.7) and found.std() == pytest.approx(255 / 12**0.5, rel=0.01)
    assert abs(np.corrcoef(found[:, 0].ravel(), found[:, 1].ravel())[0, 1]) < 0.02


def test_training_sees_new_noise_each_epoch_and_everything_else_one_draw():
    split = data().train

    first, again, later = (batches(split, epoch=epoch) for epoch in (0, 0, 1))

    assert torch.equal(first, again) and not torch.equal(first, later)
    ordered = [torch.cat([batch.inputs["camera"] for batch in in_order(split, batch_size=9)]) for _ in range(2)]
    assert torch.equal(*ordered) and torch.equal(ordered[0], torch.from_numpy(column()[:40]).float())
    assert split.augmented and split.changing == {"camera", "other"}


@pytest.mark.parametrize("change", [{"workers": 2}, {"size": 40}])
def test_workers_and_batch_size_change_nothing(change):
    split = data().train

    assert torch.equal(batches(split, epoch=2), batches(split, epoch=2, **change))


def test_fixed_noise_is_the_same_in_every_epoch():
    split = data(fresh=False).train

    assert torch.equal(batches(split, epoch=0), batches(split, epoch=1))
    assert isinstance(column(fresh=False), Redrawn) and not column(fresh=False).redraws
    assert np.array_equal(column(fresh=False).redrawn(np.arange(4), 9), column()[np.arange(4)])


def test_other_columns_are_read_as_before():
    plain = assemble({"a": CLEAN}, {"a": LABEL}, {split: {"a": np.arange(60)} for split in ("train", "valid", "test")})

    batch = plain.train[Pick({"a": torch.tensor([4])}, epoch=1)]

    assert torch.equal(batch.inputs["a"][0], torch.from_numpy(CLEAN[4]).float()) and not plain.train.augmented


def test_a_column_travels_to_another_process():
    again = pickle.loads(pickle.dumps(column()))

    assert np.array_equal(again.redrawn(np.arange(5), 2), column().redrawn(np.arange(5), 2))


def test_many_rows_are_noised_in_parts(monkeypatch):
    expected = column()[:]
    monkeypatch.setattr("xmodal.data.mnist.noisy.ROWS", 7)

    assert np.array_equal(column()[:], expected)

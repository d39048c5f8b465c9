import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.loader import Batches, Loader, in_order
from xmodal.errors import InputError


def picks(sampler):
    return [pick.rows for pick in sampler]


def paired(**changes):
    arguments = {"paired": True, "batch_size": 4, "seed": 5} | changes
    return Batches({"a": 21, "b": 21}, **arguments)


def data(rows=42, augment=""):
    random = np.random.default_rng(0)
    inputs = {"wave": random.normal(size=(rows, 2, 16)), "image": random.normal(size=(rows, 1, 6, 6))}
    return from_arrays(inputs, np.arange(rows) % 3, augment=augment, seed=1)


def same(one, two):
    return all(
        torch.equal(left[name], right[name])
        for left, right in ((one.inputs, two.inputs), (one.targets, two.targets), (one.index, two.index))
        for name in left
    )


def test_paired_modalities_share_one_order_and_every_row_comes_once():
    found = picks(paired().at(0))

    assert all(rows["a"] is rows["b"] for rows in found)
    assert sorted(torch.cat([rows["a"] for rows in found]).tolist()) == list(range(21))


def test_order_depends_on_seed_and_epoch_alone():
    first, again = (torch.cat([rows["a"] for rows in picks(paired().at(2))]) for _ in range(2))
    other_epoch = torch.cat([rows["a"] for rows in picks(paired().at(3))])
    other_seed = torch.cat([rows["a"] for rows in picks(paired(seed=6).at(2))])

    assert torch.equal(first, again)
    assert not torch.equal(first, other_epoch) and not torch.equal(first, other_seed)


def test_a_tail_of_one_row_joins_the_batch_before():
    found = picks(paired().at(0))

    assert [len(rows["a"]) for rows in found] == [4, 4, 4, 4, 5] and len(paired()) == 5


def test_a_longer_tail_stays_a_batch():
    found = picks(paired(batch_size=6).at(0))

    assert [len(rows["a"]) for rows in found] == [6, 6, 6, 3]


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_resuming_yields_the_rest_of_the_epoch(start):
    whole = picks(paired().at(7))

    rest = picks(paired().at(7, start))

    assert len(rest) == len(whole) - start
    assert all(torch.equal(one["a"], two["a"]) for one, two in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("batch_size", [4, 5, 10, 64])
@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_processes_make_the_batches_of_one(world, batch_size):
    alone = picks(paired(batch_size=batch_size).at(1))
    shares = [picks(paired(batch_size=batch_size, rank=rank, world=world).at(1)) for rank in range(world)]

    joined = [torch.cat([share[step]["a"] for share in shares]) for step in range(len(shares[0]))]

    assert all(len(share[step]["a"]) for share in shares for step in range(len(joined)))
    assert sorted(torch.cat(joined).tolist()) == sorted(torch.cat([rows["a"] for rows in alone]).tolist())
    for one, rows in zip(alone[: len(joined) - 1], joined, strict=False):
        assert sorted(one["a"].tolist()) == sorted(rows.tolist())


def test_unpaired_modalities_recycle_or_are_cut():
    rows = {"long": 10, "short": 4}
    arguments = {"paired": False, "batch_size": 5, "seed": 0}

    recycled = picks(Batches(rows, unequal="recycle", **arguments).at(0))
    cut = picks(Batches(rows, unequal="cut", **arguments).at(0))

    counts = torch.bincount(torch.cat([part["short"] for part in recycled]))
    assert sorted(torch.cat([part["long"] for part in recycled]).tolist()) == list(range(10))
    assert counts.sum() == 10 and counts.max() - counts.min() <= 1  # each lap shows every row once
    assert [len(part["long"]) for part in cut] == [4] and sorted(cut[0]["short"].tolist()) == [0, 1, 2, 3]


def test_unpaired_modalities_are_shuffled_independently():
    found = picks(Batches({"a": 50, "b": 50}, paired=False, batch_size=50, seed=0).at(0))[0]

    assert not torch.equal(found["a"], found["b"])


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="at least 3"):
        Batches({"a": 2}, paired=True, batch_size=2, seed=0, world=3)
    with pytest.raises(InputError, match="0 rows"):
        Batches({"a": 0}, paired=True, batch_size=2, seed=0)


def test_workers_make_the_same_bits_also_in_the_middle_of_an_augmented_epoch():
    augmented = data(augment="noise:0.1,shift:2,scale:0.3")

    def sampler():
        return Batches(augmented.train.rows, paired=True, batch_size=4, seed=3)

    alone, helped = Loader(augmented.train, sampler()), Loader(augmented.train, sampler(), workers=2)

    for epoch, start in ((0, 0), (1, 2)):
        pairs = list(zip(alone.epoch(epoch, start), helped.epoch(epoch, start), strict=True))
        assert len(pairs) == len(alone) - start
        assert all(same(one, two) for one, two in pairs)


def test_in_order_shows_every_row_once_and_never_augments():
    augmented, plain = data(augment="noise:1"), data()

    found = list(in_order(augmented.train, batch_size=8))

    index = torch.cat([batch.index["wave"] for batch in found])
    assert torch.equal(index, torch.arange(augmented.train.rows["wave"]))
    assert all(same(one, two) for one, two in zip(found, in_order(plain.train, batch_size=8), strict=True))


def test_in_order_shares_of_two_processes_make_the_whole():
    split = data().test

    found = [batch.index["wave"] for rank in (0, 1) for batch in in_order(split, batch_size=4, rank=rank, world=2)]

    assert sorted(torch.cat(found).tolist()) == list(range(split.rows["wave"]))


def test_in_order_takes_unpaired_modalities_one_by_one():
    inputs = {"a": np.arange(40.0).reshape(20, 2), "b": np.arange(60.0).reshape(30, 2)}
    unpaired = from_arrays(inputs, {"a": np.arange(20) % 2, "b": np.arange(30) % 2})

    found = list(in_order(unpaired.train, batch_size=100))

    assert [list(batch.inputs) for batch in found] == [["a"], ["b"]]
    assert [batch.rows for batch in found] == [14, 20]  # 70 % of 15 per class, rounded to even


def test_paired_batches_share_one_target():
    batch = next(iter(in_order(data().train, batch_size=4)))

    assert batch.targets["wave"] is batch.targets["image"] and batch.paired

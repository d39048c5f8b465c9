"""Batches of labelled and unlabelled rows: what is in each, and that nothing but seed and epoch decides."""

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.labels import hide_labels
from xmodal.data.loader import Loader
from xmodal.data.streams import Stream, Streams, batches_of, labelled_per_batch
from xmodal.errors import InputError

LABELLED = torch.arange(0, 100, 7)  # 15 rows
WITHOUT = torch.tensor([row for row in range(100) if row % 7])


def streams(*, paired=True, batch_size=20, sizes=(10, 10), **changes):
    parts = [Stream("labelled", LABELLED, sizes[0]), Stream("unlabelled", WITHOUT, sizes[1])]
    rows = {"a": 100, "b": 100}
    return Streams({name: parts for name in rows}, rows, paired=paired, batch_size=batch_size, seed=4, **changes)


def picks(sampler):
    return [pick.rows for pick in sampler]


def test_half_of_a_batch_is_labelled_or_all_labelled_rows():
    assert labelled_per_batch(30, 2000, 128) == (30, 98)
    assert labelled_per_batch(500, 2000, 128) == (64, 64)
    assert labelled_per_batch(500, 2000, 33) == (16, 17)
    assert labelled_per_batch(500, 0, 128) == (128, 0) and labelled_per_batch(30, 0, 128) == (30, 0)


def test_every_batch_has_its_labelled_and_unlabelled_rows():
    found = picks(streams().at(3))

    assert len(found) == len(streams()) == 5  # 100 rows in batches of 20
    for rows in found:
        assert torch.isin(rows["a"][:10], LABELLED).all() and torch.isin(rows["a"][10:], WITHOUT).all()
        assert rows["a"] is rows["b"]
        assert len(rows["a"].unique()) == 20


@pytest.mark.parametrize(("size", "rows"), [(4, 7), (3, 3), (5, 23), (1, 2)])
def test_no_row_is_twice_in_a_batch_and_all_are_used_about_equally(size, rows):
    for batches in (1, 3, 10, 41):
        found = batches_of(size, rows, batches, torch.Generator().manual_seed(batches))

        assert found.shape == (batches, size)
        assert all(len(batch.unique()) == size for batch in found)
        counts = found.flatten().bincount(minlength=rows)
        assert counts.max() - counts.min() <= 1


def test_the_order_is_a_function_of_seed_and_epoch():
    first, again, other = (torch.cat([rows["a"] for rows in picks(streams().at(epoch))]) for epoch in (1, 1, 2))

    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("start", [0, 2, 5])
def test_resuming_yields_the_rest_of_the_epoch(start):
    whole, rest = picks(streams().at(1)), picks(streams().at(1, start))

    assert len(rest) == 5 - start
    assert all(torch.equal(one["b"], two["b"]) for one, two in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_processes_make_the_batch_of_one(world):
    alone = picks(streams(sizes=(7, 12)).at(1))
    shares = [picks(streams(sizes=(7, 12), rank=rank, world=world).at(1)) for rank in range(world)]

    for step, rows in enumerate(alone):
        joined = torch.empty(19, dtype=torch.long)
        for rank in range(world):
            joined[rank::world] = shares[rank][step]["a"]
        assert torch.equal(joined, rows["a"])
        labelled = [int(torch.isin(share[step]["a"], LABELLED).sum()) for share in shares]
        assert max(labelled) - min(labelled) <= 1


def test_unpaired_modalities_have_orders_of_their_own():
    rows = picks(streams(paired=False).at(0))[0]

    assert not torch.equal(rows["a"], rows["b"])
    assert torch.isin(rows["b"][:10], LABELLED).all()


def test_every_update_counts_the_same_rows():
    sampler = streams(sizes=(7, 12))

    assert [sampler.rows_in(step) for step in range(5)] == [19] * 5
    assert sampler.parts(0, 2) == 2.0 and sampler.parts(4, 2) == 1.0


def test_labelled_rows_alone_keep_the_length_of_an_epoch():
    sampler = streams(sizes=(15, 0))

    assert [len(rows["a"]) for rows in picks(sampler.at(0))] == [15] * 5


def test_a_batch_of_one_row_is_refused():
    with pytest.raises(InputError, match="at least 2 were expected"):
        streams(sizes=(1, 0))
    with pytest.raises(InputError, match="at least 4 were expected"):
        streams(sizes=(3, 0), world=4)


def test_workers_give_the_same_batches_with_the_same_masks():
    random = np.random.default_rng(0)
    inputs = {"a": random.normal(size=(143, 3)), "b": random.normal(size=(143, 2))}
    split = hide_labels(from_arrays(inputs, np.arange(143) % 3, augment="noise:0.1"), labelled="15").train
    mask = split.labelled["a"]

    def sampler():
        parts = [Stream("labelled", mask.nonzero().flatten(), 8), Stream("rest", (~mask).nonzero().flatten(), 8)]
        return Streams({name: parts for name in split.rows}, split.rows, paired=True, batch_size=16, seed=1)

    alone, helped = (list(Loader(split, sampler(), workers=workers).epoch(2, 3)) for workers in (0, 2))

    assert len(alone) == len(helped) > 2
    for one, other in zip(alone, helped, strict=True):
        assert one.labelled["a"].tolist() == [True] * 8 + [False] * 8
        for key, part in one.parts().items():
            assert all(torch.equal(part[name], getattr(other, key)[name]) for name in part)

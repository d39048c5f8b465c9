"""The bench on data in which some rows lack a modality: every method trains, and measurements read complete rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.engine.fit import fit
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.study.plan import method_settings
from xmodal.study.rehearsal import Rehearsal

CARDS = [card for card in METHODS.values() if card.targets != "place"]


@pytest.fixture
def make_gaps(make_bench):
    """A bench whose training rows lack 'clear', 'faint' or the label, in turns of eight."""

    def make(**settings):
        bench = make_bench(epochs=1, **settings)
        rows = np.arange(240)
        inputs = {name: np.array(column[rows]) for name, column in bench.data.train.columns.items()}
        inputs["clear"][rows % 4 == 1] = np.nan
        inputs["faint"][rows % 4 == 2] = np.nan
        target = np.where(rows % 8 >= 4, -1, rows % 3)
        whole = rows[rows % 8 == 0]
        splits = {"train": np.sort([*rows[rows % 8 != 0], *whole[:5]]), "valid": whole[5:15], "test": whole[15:]}
        bench.data = from_arrays(inputs, target, splits=splits)
        bench.info = bench.data.info
        return bench

    return make


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_method_trains_on_the_rows_that_it_can_use(card, make_gaps, build_method):
    bench = make_gaps()
    bench.dry_run()

    method = build_method(card, bench)
    run = fit(method, bench.data, bench.plan.fit(), fabric=bench.fabric)

    assert all(np.isfinite(value) for value in run.history[0]["losses"].values())
    assert all(tensor.isfinite().all() for tensor in run.method.state_dict().values())


def test_measurements_read_rows_with_a_label_and_all_modalities(make_gaps):
    bench = make_gaps()

    (batch,) = bench.batches()

    numbers = bench.data.train.complete().numbers["faint"]
    assert set(numbers % 8) == {0, 3} and len(numbers) == sum(bench.data.train.numbers["faint"] % 8 == 3) + 5
    assert batch.rows == len(numbers) and batch.target.tolist() == (numbers % 3).tolist()
    assert all(values.isfinite().all() for values in batch.inputs.values()) and not batch.present


def test_data_without_such_a_row_trains_all_that_measures_nothing(make_gaps, build_method):
    bench = make_gaps()
    train = bench.data.train
    rest = (~torch.isin(torch.from_numpy(train.numbers["faint"] % 8), torch.tensor([0, 3]))).nonzero().flatten()
    bench.data = replace(bench.data, train=train.subset(dict.fromkeys(train.rows, rest)))
    bench.info = replace(bench.info, train_targets=bench.data.train.targets)
    rehearsal = Rehearsal(bench.data, bench.plan, seed=0, fabric=bench.fabric)

    assert fit(build_method(METHODS["kd"], rehearsal), bench.data, bench.plan.fit()).history
    with pytest.raises(InputError, match="No training row has a label and all modalities, and this method measures"):
        rehearsal.rehearse(METHODS["mfh"], method_settings(METHODS["mfh"], {}))

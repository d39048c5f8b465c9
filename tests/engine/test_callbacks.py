"""Objects that are told of epochs and of the end."""

import pytest

import xmodal
from xmodal.engine.callbacks import check_callbacks
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for


class Listener:
    def __init__(self):
        self.rows, self.ends = [], []

    def on_epoch(self, row):
        self.rows.append(row)

    def on_end(self, result):
        self.ends.append(result)


def one_training(data, **arguments):
    return fit(Supervised(build_for(data.info, ("faint",)), data.info), data, FitSettings(epochs=3), **arguments)


def test_a_training_tells_every_epoch_and_then_its_run(make_toy):
    listener = Listener()

    run = one_training(make_toy(), seed=4, title="mine", callbacks=[listener])

    named = [{**row, "name": "mine", "seed": 4} for row in run.history]
    assert listener.rows == named and listener.ends == [run]


def test_a_row_is_a_copy_and_either_method_may_be_missing(make_toy):
    class Spoils:
        def on_epoch(self, row):
            row.clear()

    class Ends:
        ended = 0

        def on_end(self, result):
            self.ended += 1

    listener, ends = Listener(), Ends()

    one_training(make_toy(), callbacks=[Spoils(), listener, ends])

    assert [row["epoch"] for row in listener.rows] == [0, 1, 2] and ends.ended == 1


def test_an_error_in_a_callback_ends_the_training(make_toy):
    class Fails:
        def on_epoch(self, row):
            raise ConnectionError("no server")

    with pytest.raises(ConnectionError, match="no server"):
        one_training(make_toy(), callbacks=[Fails()])


def test_a_finished_run_tells_its_end_alone(make_toy, tmp_path):
    listener = Listener()
    one_training(make_toy(), folder=tmp_path / "run")

    run = one_training(make_toy(), folder=tmp_path / "run", resume=True, callbacks=[listener])

    assert listener.rows == [] and listener.ends == [run]


def test_a_comparison_says_which_training_a_row_belongs_to_and_ends_once(make_toy):
    listener = Listener()

    done = xmodal.compare(
        data=make_toy(), teacher="clear", student="faint", methods="kd", seeds=(2, 3), epochs=2, callbacks=[listener]
    )

    told = [(row["name"], row["seed"], row["epoch"]) for row in listener.rows]
    names = ("teacher", "no-KD", "kd", "kd (shuffled teacher)")
    assert told == [(name, seed, epoch) for seed in (2, 3) for name in names for epoch in (0, 1)]
    assert listener.ends == [done.result]


def test_objects_that_would_never_be_called_are_refused():
    with pytest.raises(InputError, match="The callback dict has neither"):
        check_callbacks([Listener(), {}])

"""Tables that are permuted, cut, damaged or made for other data are refused with one sentence."""

import numpy as np
import pytest

from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError
from xmodal.teachers.given import open_teacher
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.tabulate import write_outputs


def refused(source, data, match, **request):
    with pytest.raises(InputError, match=match) as caught:
        open_teacher(TeacherRequest(source=source, **request), data, ("clear",))
    assert len(caught.value.problems) == 1


@pytest.fixture
def named(toy):
    """The toy with a name for each row."""
    toy.ids = [f"clip{row:03}" for row in range(240)]
    yield toy
    toy.ids = ()


@pytest.fixture
def written(toy, logits, tmp_path):
    given = open_teacher(TeacherRequest(source=logits), toy, ("clear",))
    write_outputs(tmp_path / "teacher.npz", given, toy)
    write_outputs(tmp_path / "teacher.npy", given, toy)
    return tmp_path


SHUFFLED = np.random.default_rng(0).permutation(240)


def other_rows(toy, order):
    inputs = {name: np.asarray(toy.train.columns[name])[order] for name in ("clear", "faint")}
    return from_arrays(inputs, (np.arange(240) % 3)[order], seed=0)


def test_bare_table_in_another_order(toy, logits):
    refused(logits[SHUFFLED], toy, "right on .*, where chance gives .* probably not in the order of the data")


def test_bare_table_that_is_cut(toy, logits):
    refused(logits[:200], toy, "has 200 rows, and the data has 240")


def test_written_table_whose_rows_were_exchanged(toy, written):
    values = np.load(written / "teacher.npy")
    np.save(written / "teacher.npy", values[SHUFFLED])

    refused(written / "teacher.npy", toy, "was changed after it was written")


def test_written_table_that_is_cut(toy, written):
    np.save(written / "teacher.npy", np.load(written / "teacher.npy")[:100])

    refused(written / "teacher.npy", toy, "was changed after it was written")


def test_written_table_of_which_all_arrays_are_cut(toy, written):
    arrays = dict(np.load(written / "teacher.npz"))
    cut = {name: array[:100] if array.ndim and len(array) == 240 else array for name, array in arrays.items()}
    np.savez(written / "teacher.npz", **cut)

    refused(written / "teacher.npz", toy, "was changed after it was written")


@pytest.mark.parametrize("file", ["teacher.npz", "teacher.npy"])
def test_written_table_for_data_in_another_order(toy, written, file):
    refused(written / file, other_rows(toy, SHUFFLED), "was made for other data: 'clear' differs in")


def test_written_table_for_data_of_which_one_row_changed(toy, written):
    inputs = {name: np.asarray(toy.train.columns[name]).copy() for name in ("clear", "faint")}
    inputs["clear"][7, 0] += 1
    changed = from_arrays(inputs, np.arange(240) % 3, seed=0)

    refused(written / "teacher.npz", changed, "differs in 1 of 240 compared rows, the first is row 7")


def test_written_table_for_data_without_its_modalities(toy, written):
    other = from_arrays({"sound": np.asarray(toy.train.columns["faint"])}, np.arange(240) % 3, seed=0)

    with pytest.raises(InputError, match="made from clear, faint, and this data has sound"):
        open_teacher(TeacherRequest(source=written / "teacher.npz"), other, ())


def test_rows_outside_the_data(toy, logits):
    refused({"logits": logits, "rows": np.arange(240) + 1}, toy, "about row 240, and the data has 240 rows")


def test_rows_named_twice(toy, logits):
    refused({"logits": logits[:2], "rows": [5, 5]}, toy, "two outputs for row 5")


def test_ids_of_other_data(named, logits):
    ids = [f"other{row:03}" for row in range(240)]

    refused({"logits": logits, "ids": ids}, named, "240 of 240 ids .* are not in the data")


def test_ids_named_twice(named, logits):
    refused({"logits": logits[:2], "ids": ["clip001", "clip001"]}, named, "two outputs with the same id")


def test_ids_for_data_without_ids(toy, logits):
    refused({"logits": logits, "ids": list("a" * 240)}, toy, "names its rows by ids, and this data has none")


def test_ids_find_their_rows_in_any_order(named, logits):
    ids = np.array(named.ids)[SHUFFLED]

    given = open_teacher(TeacherRequest(source={"logits": logits[SHUFFLED], "ids": ids}), named, ("clear",))

    assert np.array_equal(given.data.train.columns["teacher_answers"][np.arange(240)], logits)


def test_too_many_columns(toy, logits):
    refused(np.repeat(logits, 2, axis=1), toy, "has 6 columns, and 3 were expected")


def test_rows_that_are_partly_nan(toy, logits):
    logits[3, 1] = np.nan
    refused(logits, toy, "Row 3 of .* is NaN in some of its values")


def test_infinite_values(toy, logits):
    logits[3, 1] = np.inf
    refused(logits, toy, "infinite values, first in row 3")


def test_no_answer_for_any_training_row(toy, logits):
    rows = toy.test.numbers["clear"]
    refused({"logits": logits[rows], "rows": rows}, toy, "no answer for any training row")


def test_probabilities_that_do_not_sum_to_one(toy, logits):
    refused(np.exp(logits), toy, "holds no probabilities", outputs="probabilities")


def test_logits_declared_as_embeddings_and_the_reverse(toy, logits):
    refused({"logits": logits}, toy, "says that it holds logits, and embeddings were asked for", outputs="embeddings")
    refused({"embeddings": logits}, toy, "--teacher-classes names classes, and embeddings have none", classes=["a"])


def test_classes_outside_the_data(toy):
    refused(np.full(240, 3), toy, "is class 3: whole numbers from 0 to 2")


def test_unknown_array_in_a_file(toy, logits, tmp_path):
    np.savez(tmp_path / "t.npz", logits=logits, id=np.arange(240))
    refused(tmp_path / "t.npz", toy, "holds 'id', which is no part of a table. Did you mean 'ids'")


def test_two_kinds_of_outputs(toy, logits):
    refused({"logits": logits, "embeddings": logits}, toy, "exactly one of")


def test_objects_are_not_unpickled(toy, tmp_path):
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(tmp_path / "t.npy", toy, "is no file of plain NumPy arrays")


def test_damaged_file(toy, logits, tmp_path):
    np.savez(tmp_path / "t.npz", logits=logits)
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:500])
    refused(tmp_path / "t.npz", toy, "is no file of plain NumPy arrays")


def test_table_of_text_without_the_names_of_classes(toy):
    refused(np.array(["cat"] * 240), toy, "predicts 'cat', which is no class")


def test_top_k_of_logits(toy, logits):
    best = np.argsort(-logits, axis=1)[:, :2]
    stored = {"logits": np.take_along_axis(logits, best, 1), "indices": best}
    refused(stored, toy, "say nothing of the other classes")


def test_top_k_that_names_a_class_twice(toy):
    stored = {"probabilities": np.full((240, 2), 0.5), "indices": np.ones((240, 2), dtype=int)}
    refused(stored, toy, "names a class twice")


def test_one_row_number_less_than_outputs(toy, logits):
    refused({"logits": logits, "rows": np.arange(239)}, toy, "has 240 outputs and 239 rows")


def test_unpaired_data(make_toy, logits):
    with pytest.raises(InputError, match="this data is unpaired"):
        open_teacher(TeacherRequest(source=logits), make_toy(paired=False), ("clear",))

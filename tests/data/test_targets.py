"""Labels of any type: which class number each becomes, and that students and files give them back."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset

from xmodal import distill, open_data
from xmodal.data.arrays import from_arrays, from_dataset
from xmodal.data.targets import infer_task, read_target, target_sentence, why_no_classes
from xmodal.errors import InputError

ROWS = 30
NUMBERS = np.arange(ROWS) % 3
TEXT = np.array(["dog", "ape", "cat"])[NUMBERS]
SPLITS = {"train": np.arange(18), "valid": np.arange(18, 24), "test": np.arange(24, 30)}


def inputs():
    random = np.random.default_rng(0)
    return {"a": random.normal(size=(ROWS, 3)), "b": NUMBERS[:, None] + 0.1 * random.normal(size=(ROWS, 2))}


def opened(target, **options):
    return from_arrays(inputs(), target, splits=SPLITS, **options)


def labels_of(data):
    """The labels of the training rows, from class numbers; None where there is no label."""
    values = data.info.label_values or range(data.info.classes)
    return [None if number < 0 else values[number] for number in data.train.targets["a"].tolist()]


SORTED = ("ape", "cat", "dog")
KINDS = {
    "text": (TEXT, SORTED),
    "list of text": (TEXT.tolist(), SORTED),
    "text of Python objects": (TEXT.astype(object), SORTED),
    "bytes": (TEXT.astype("S"), SORTED),
    "one column": (TEXT[:, None], SORTED),
    "booleans": (NUMBERS == 1, (False, True)),
    "booleans of torch": (torch.from_numpy(NUMBERS == 1), (False, True)),
    "other integers": (NUMBERS * 4 + 3, (3, 7, 11)),
    "list of integers": ((NUMBERS * 4 + 3).tolist(), (3, 7, 11)),
    "negative integers": (NUMBERS - 7, (-7, -6, -5)),
    "codes": (np.array([70123, 5, 999_999_999_999])[NUMBERS], (5, 70123, 999_999_999_999)),
    "whole floats": (NUMBERS * 1.0, (0.0, 1.0, 2.0)),
    "tensors in a list": ([torch.tensor(each * 4 + 3) for each in NUMBERS.tolist()], (3, 7, 11)),
    "pandas text": (pd.Series(TEXT), SORTED),
    "pandas text of objects": (pd.Series(TEXT, dtype=object), SORTED),
    "pandas integers": (pd.Series(NUMBERS + 1, dtype="Int64"), (1, 2, 3)),
    "pandas booleans": (pd.Series(NUMBERS == 1, dtype="boolean"), (False, True)),
    "pandas frame of one column": (pd.DataFrame({"animal": TEXT}), SORTED),
    "pandas with another index": (pd.Series(TEXT, index=np.arange(ROWS)[::-1]), SORTED),
    "pandas categories": (pd.Series(pd.Categorical(TEXT, ["dog", "cat", "ape"])), ("dog", "cat", "ape")),
    "pandas Categorical": (pd.Categorical(TEXT, ["dog", "cat", "ape"]), ("dog", "cat", "ape")),
    "pandas categories of integers": (pd.Series(NUMBERS).astype("category"), (0, 1, 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_type_become_class_numbers_and_are_kept(kind):
    target, expected = KINDS[kind]

    data = opened(target)

    assert data.info.task == "multiclass" and data.info.classes == len(expected)
    assert (data.info.label_values or tuple(range(data.info.classes))) == expected
    assert labels_of(data) == [each for each in plain(target)][:18]
    # JSON has the type of the labels
    assert json.loads(json.dumps(data.info.label_values)) == list(data.info.label_values)


def plain(target):
    """The labels as Python values."""
    flat = np.asarray(target).reshape(-1)
    return [each.decode() if isinstance(each, bytes) else each for each in flat.tolist()]


def test_class_numbers_stand_for_themselves():
    data = opened(NUMBERS)

    assert data.info.label_values == () and data.info.class_names == ()
    assert data.train.targets["a"].tolist() == NUMBERS[:18].tolist()


GAPS = {
    "None in a list of text": ([None, *TEXT[1:].tolist()], TEXT.tolist()),
    "empty text": (np.array(["", *TEXT[1:]]), TEXT.tolist()),
    "None in integers": ([None, *(NUMBERS[1:] + 5).tolist()], (NUMBERS + 5).tolist()),
    "None and -1 in integers": ([None, -1, *(NUMBERS[2:] + 5).tolist()], (NUMBERS + 5).tolist()),
    "None in booleans": ([None, *(NUMBERS[1:] == 1).tolist()], (NUMBERS == 1).tolist()),
    "NaN in floats": (np.array([np.nan, *NUMBERS[1:]]), (NUMBERS * 1.0).tolist()),
    "pandas NA": (pd.Series([pd.NA, *(NUMBERS[1:] + 5)], dtype="Int64"), (NUMBERS + 5).tolist()),
    "pandas text": (pd.Series([None, *TEXT[1:]]), TEXT.tolist()),
    "pandas NaN": (pd.Series([np.nan, *NUMBERS[1:]]), (NUMBERS * 1.0).tolist()),
    "pandas categories": (pd.Series([None, *TEXT[1:]]).astype("category"), TEXT.tolist()),
    "pandas categories of integers": (
        pd.Series([None, *(NUMBERS[1:] + 5)], dtype="Int64").astype("category"),
        (NUMBERS + 5).tolist(),
    ),
}


@pytest.mark.parametrize("kind", GAPS)
def test_labels_of_every_type_may_be_missing(kind):
    target, labels = GAPS[kind]
    missing = 2 if "-1" in kind else 1

    data = opened(target)

    assert labels_of(data) == [None] * missing + labels[missing:18]
    assert data.info.labelled == {"a": 18 - missing, "b": 18 - missing}
    assert type(data.info.label_values[0] if data.info.label_values else 0) is type(labels[0])


FLOATS = {
    "whole numbers": ([0.0, 1.0, 0.0, 1.0], ""),
    "with NaN": ([2.0, np.nan, 2.0, 5.0, 5.0], ""),
    "a fraction": ([0.0, 0.5, 0.0, 0.5], "some are not whole"),
    "a negative number": ([-1.0, 1.0, -1.0, 1.0], "some are negative"),
    "50 numbers": (np.repeat(np.arange(50.0), 2), ""),
    "51 numbers": (np.repeat(np.arange(51.0), 2), "more than 50 are distinct"),
    "one that occurs once": ([0.0, 1.0, 0.0, 1.0, 2.0], "some occur once"),
    "infinity": ([0.0, 0.0, np.inf, np.inf], "some are not whole"),
}


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_classes_only_if_they_look_like_class_numbers(name):
    values, reason = FLOATS[name]

    assert why_no_classes(np.array(values)) == reason
    assert infer_task(np.array(values)) == ("regression" if reason else "multiclass")


def test_task_decides_about_floats_and_about_integers():
    assert opened(NUMBERS * 1.0, task="regression").info.task == "regression"
    assert opened(NUMBERS, task="regression").train.targets["a"].dtype == torch.float32
    # values that the rule takes as a regression
    signed = opened(NUMBERS * 2.0 - 2.0, task="multiclass")
    assert signed.info.label_values == (-2.0, 0.0, 2.0)
    with pytest.raises(InputError, match="holds 0.5, which is no class"):
        opened(NUMBERS / 2, task="multiclass")


def test_a_guess_about_whole_floats_is_a_warning():
    assert any("taken as multiclass" in said for said in opened(NUMBERS * 1.0).warnings)
    negative = opened(NUMBERS * 2.0 - 2.0)
    assert negative.info.task == "regression"
    assert any("some are negative, so the task is taken as regression" in said for said in negative.warnings)
    assert opened(NUMBERS / 7.0).warnings == opened(NUMBERS * 1.0, task="multiclass").warnings == []


def test_a_table_of_zeros_and_ones_is_multilabel_whatever_its_type():
    table = np.stack([NUMBERS == 0, NUMBERS != 2], axis=1)

    tasks = {
        opened(values).info.task for values in (table, table.astype(int), table.astype(float), pd.DataFrame(table))
    }

    assert tasks == {"multilabel"} and opened(table * 2.0).info.task == "regression"


def test_class_names_order_text_and_keep_classes_without_a_row():
    data = opened(TEXT, class_names=["dog", "emu", "cat", "ape"])

    assert data.info.label_values == data.info.class_names == ("dog", "emu", "cat", "ape")
    assert labels_of(data) == TEXT[:18].tolist()
    assert any("no sample of emu, which class_names lists" in said for said in data.warnings)


def test_class_names_are_positions_for_class_numbers_and_names_in_order_for_others():
    counted = opened(NUMBERS, class_names=["x", "y", "z", "w"])
    others = opened(NUMBERS * 4 + 3, class_names=np.array(["x", "y", "z"]))

    assert counted.info.label_values == () and counted.info.classes == 4
    assert counted.train.targets["a"].tolist() == NUMBERS[:18].tolist()
    assert others.info.label_values == (3, 7, 11) and others.info.class_names == ("x", "y", "z")


def test_categories_without_a_row_are_no_classes_unless_class_names_lists_them():
    target = pd.Series(pd.Categorical(TEXT, ["emu", "dog", "cat", "ape"]))
    numbers = pd.Series(pd.Categorical(NUMBERS + 5, [9, 5, 6, 7]))

    dropped, kept = opened(target), opened(target, class_names=target.cat.categories)
    kept_numbers = opened(numbers, class_names=numbers.cat.categories)

    assert dropped.info.label_values == ("dog", "cat", "ape")
    assert any("no sample of the categories emu, so these are no classes" in said for said in dropped.warnings)
    assert kept.info.label_values == ("emu", "dog", "cat", "ape") and kept_numbers.info.label_values == (9, 5, 6, 7)
    assert labels_of(kept_numbers) == (NUMBERS + 5)[:18].tolist()
    assert any("no sample of 9, which class_names lists" in said for said in kept_numbers.warnings)


def test_unpaired_modalities_share_their_classes_and_need_one_type():
    other = np.array(["emu", "ape"])[np.arange(ROWS) % 2]

    data = opened({"a": TEXT, "b": other})

    assert data.info.label_values == ("ape", "cat", "dog", "emu")
    assert set(data.train.targets["b"].tolist()) == {0, 3}
    with pytest.raises(InputError, match=r"target\['a'\] has strings .*, target\['b'\] has integers"):
        opened({"a": TEXT, "b": NUMBERS})


def test_many_labels_that_hardly_repeat_are_refused_without_a_task():
    x, ids = {"a": np.arange(240.0).reshape(120, 2)}, np.arange(120)

    with pytest.raises(InputError, match="120 different labels in 120 rows.*set task to regression"):
        from_arrays(x, ids)
    with pytest.raises(InputError, match="120 different labels"):
        from_arrays(x, [f"row {number}" for number in ids])


def test_samples_of_a_dataset_may_have_text_as_target():
    class Animals(Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, row):
            return {name: array[row] for name, array in inputs().items()}, None if row == 0 else str(TEXT[row])

    data = from_dataset(Animals(), splits=SPLITS)

    assert data.info.label_values == SORTED and labels_of(data) == [None, *TEXT[1:18].tolist()]


def test_a_folder_may_have_text_and_booleans_as_labels(tmp_path):
    for name, array in inputs().items():
        np.save(tmp_path / f"{name}.npy", array)
    for split, rows in SPLITS.items():
        np.save(tmp_path / f"{split}_idx.npy", rows)
    np.save(tmp_path / "labels.npy", np.where(np.arange(ROWS) == 4, "", TEXT))

    text = open_data(str(tmp_path))
    np.save(tmp_path / "labels.npy", NUMBERS == 1)
    booleans = open_data(str(tmp_path))

    assert text.info.label_values == text.info.class_names == SORTED
    assert labels_of(text) == [None if row == 4 else label for row, label in enumerate(TEXT[:18].tolist())]
    assert booleans.info.label_values == (False, True) and booleans.info.class_names == ("False", "True")


def test_the_sentence_says_what_was_decided():
    sentences = [target_sentence(data.info, data.labels_from) for data in map(opened, (TEXT, NUMBERS, NUMBERS / 7))]
    named = opened(NUMBERS * 4 + 3, class_names=["x", "y", "z"])

    assert sentences == [
        "Targets: 3 classes (ape, cat, dog), from strings.",
        "Targets: 3 classes (0, 1, 2), from integers.",
        "Targets: 1 value per sample (regression), from floats.",
    ]
    assert target_sentence(named.info, named.labels_from) == (
        "Targets: 3 classes (3 = x, 7 = y, 11 = z), from integers."
    )


def test_a_pandas_column_goes_in_and_its_labels_come_back(tmp_path, capsys):
    from xmodal.deploy import open_student

    frame = pd.DataFrame(inputs()["b"], columns=["x", "y"]).assign(animal=pd.Categorical(TEXT, ["dog", "cat", "ape"]))
    frame = pd.concat([frame] * 4, ignore_index=True)

    done = distill(
        {"full": frame[["x", "y"]], "part": frame[["x"]]},
        frame["animal"],
        epochs=15,
        batch_size=16,
        learning_rate=1e-2,
        training={"shuffled": False},
        out=tmp_path / "run",
        verbose=True,
    )
    student = open_student(tmp_path / "run" / done.result["deploy"])
    predicted = student.predict({"part": frame[["x"]].to_numpy()}).predicted

    assert done.result["target"]["labels"] == ["dog", "cat", "ape"]
    assert done.result["target"]["sentence"] == "Targets: 3 classes (dog, cat, ape), from categories."
    assert done.result["target"]["sentence"] in capsys.readouterr().err
    assert predicted.dtype.kind == "U" and (predicted == frame["animal"].to_numpy()).mean() > 0.9


def test_the_values_of_read_targets_are_those_that_were_given():
    assert read_target("y", np.array([[1], [2]])).values.tolist() == [1, 2]
    assert read_target("y", [1, 0.5, True]).kind == "floats" and read_target("y", [2, True]).kind == "integers"
    assert read_target("y", [[0, 1], None]).values.tolist()[0] == [0.0, 1.0]
    assert read_target("y", [[0, None], [1, 1]]).values.shape == (2, 2)

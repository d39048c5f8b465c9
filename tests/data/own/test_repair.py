"""What is put right in a folder when asked for, and only then."""

import numpy as np
import pytest

from xmodal.data import open_data
from xmodal.data.own.repair import Zeroed, bad_rows, once
from xmodal.errors import InputError


def put(root, file, place, value):
    array = np.load(root / file)
    array[place] = value
    np.save(root / file, array)


def numbered(root, number, train=range(12), valid=range(12, 16), test=range(16, 20)):
    for split, rows in (("train", train), ("valid", valid), ("test", test)):
        np.save(root / f"{split}_idx_{number}.npy", np.array(rows))


# ---- NaN


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_a_batch_can_not_carry_is_bad_and_reads_as_zero(value):
    column = np.array([[1.0, 2.0], [value, 3.0], [4.0, 5.0]])

    assert bad_rows(column).tolist() == [1]
    assert Zeroed(column)[np.arange(3)].tolist() == [[1.0, 2.0], [0.0, 3.0], [4.0, 5.0]]
    assert len(Zeroed(column)) == 3 and Zeroed(column).dtype == np.float64


def test_integers_have_no_bad_rows():
    assert bad_rows(np.arange(6).reshape(3, 2)).tolist() == []


def test_nan_is_refused_unless_asked_for(folder):
    put(folder, "audio.npy", 13, np.nan)

    with pytest.raises(InputError, match="NaN or infinite values in 1 of 20 samples; the first is sample 13"):
        open_data(str(folder))


def test_dropped_samples_leave_every_paired_modality(folder):
    put(folder, "audio.npy", (13, 0), np.nan)
    put(folder, "image.npy", 2, np.inf)

    data = open_data(str(folder), options={"nan": "drop"})

    assert data.train.numbers["audio"].tolist() == data.train.numbers["image"].tolist()
    assert 2 not in data.train.numbers["audio"] and data.info.rows["train"] == {"audio": 11, "image": 11}
    assert data.valid.numbers["image"].tolist() == [12, 14, 15]
    assert any("audio.npy holds NaN" in said and "they are left out" in said for said in data.warnings)
    assert np.isfinite(data.info.normalisation["image"].mean).all()


def test_dropped_samples_of_one_modality_stay_in_an_unpaired_other(folder):
    labels = np.load(folder / "labels.npy")
    (folder / "labels.npy").unlink()
    for name in ("audio", "image"):
        np.save(folder / f"{name}_labels.npy", labels)
    put(folder, "audio.npy", 3, np.nan)

    data = open_data(str(folder), options={"nan": "drop"})

    assert data.info.rows["train"] == {"audio": 11, "image": 12}


def test_zeroed_samples_stay(folder):
    put(folder, "audio.npy", (13, 0), np.nan)

    data = open_data(str(folder), options={"nan": "zero"})

    assert data.info.rows["valid"]["audio"] == 4
    assert (data.valid.columns["audio"][13][0] == 0).all()
    assert any("these values read as 0" in said for said in data.warnings)


def test_a_split_that_lost_all_its_samples_is_an_error(folder):
    put(folder, "audio.npy", slice(12, 16), np.nan)

    with pytest.raises(InputError, match="valid split of audio without samples that hold NaN is empty"):
        open_data(str(folder), options={"nan": "drop"})


def test_nan_in_a_row_that_no_split_uses_does_not_matter(folder):
    put(folder, "audio.npy", 19, np.nan)
    np.save(folder / "test_idx.npy", np.array([16, 17, 18]))

    assert open_data(str(folder)).info.rows["test"]["audio"] == 3


# ---- class numbers


def test_classes_with_gaps_are_counted_anew_and_keep_their_numbers(folder):
    np.save(folder / "labels.npy", np.array([-5, 40, 7])[np.arange(20) % 3])

    data = open_data(str(folder))

    assert data.info.classes == 3 and data.info.class_names == ("-5", "7", "40")
    assert data.info.label_values == (-5, 7, 40)
    assert data.train.targets["audio"][:3].tolist() == [0, 2, 1]


def test_classes_of_unpaired_modalities_are_counted_over_all_of_them(folder):
    (folder / "labels.npy").unlink()
    np.save(folder / "audio_labels.npy", np.array([1, 5])[np.arange(20) % 2])
    np.save(folder / "image_labels.npy", np.array([1, 3, 5])[np.arange(20) % 3])

    data = open_data(str(folder))

    assert data.info.label_values == (1, 3, 5)
    assert set(data.train.targets["audio"].tolist()) == {0, 2}


def test_classes_without_gaps_are_left_alone_and_the_option_of_earlier_runs_is_accepted(folder):
    data = open_data(str(folder), options={"renumber": True})

    assert data.info.class_names == () and data.info.label_values == () and data.warnings == []


# ---- rows


def test_a_repeated_row_counts_once_if_asked_for(folder):
    put(folder, "train_idx.npy", 5, 3)

    twice, single = (open_data(str(folder), options={"repeated": how}) for how in ("count", "once"))

    assert (twice.info.rows["train"]["audio"], single.info.rows["train"]["audio"]) == (12, 11)
    assert any("repeats 1 of 12 rows; each is taken once" in said for said in single.warnings)
    assert once(np.array([5, 2, 5, 5])).tolist() == [5, 2]


def test_overlap_becomes_a_warning_if_asked_for(folder):
    put(folder, "test_idx.npy", 0, 5)

    with pytest.raises(InputError, match="share 1 rows, the first is 5"):
        open_data(str(folder))
    data = open_data(str(folder), options={"allow_overlap": True})

    assert any("share 1 rows, the first is 5" in said for said in data.warnings)


def test_one_training_row_is_too_few(folder):
    np.save(folder / "train_idx.npy", np.array([4]))

    with pytest.raises(InputError, match="train_idx.npy selects 1 row: training needs at least two"):
        open_data(str(folder))


def test_the_first_bad_row_number_is_named(folder):
    put(folder, "test_idx.npy", slice(1, 3), [31, 99])

    with pytest.raises(InputError, match="test_idx.npy holds the row 31, but there are 20 samples"):
        open_data(str(folder))


# ---- numbered splits


def test_a_numbered_split_is_read_and_the_others_are_not(folder):
    numbered(folder, 0)
    numbered(folder, 7, train=range(2, 14), valid=(0, 1, 14), test=range(15, 20))

    assert open_data(str(folder), options={"split": 7}).valid.numbers["audio"].tolist() == [0, 1, 14]
    assert open_data(str(folder)).info.modalities == ("audio", "image")


def test_numbered_splits_of_unpaired_modalities(folder):
    numbered(folder, 1)
    for split in ("train", "valid", "test"):
        (folder / f"{split}_idx.npy").unlink()
        (folder / f"{split}_idx_1.npy").rename(folder / f"audio_{split}_idx_1.npy")
        np.save(folder / f"image_{split}_idx_1.npy", np.load(folder / f"audio_{split}_idx_1.npy")[1:])

    data = open_data(str(folder), options={"split": 1})

    assert not data.info.paired and data.info.rows["train"] == {"audio": 12, "image": 11}


def test_a_split_that_is_not_there_and_one_that_was_not_chosen_are_sentences(folder):
    numbered(folder, 0)
    numbered(folder, 3)

    with pytest.raises(InputError, match=r"train_idx_5.npy is missing: there is no split 5. Numbered splits: 0, 3"):
        open_data(str(folder), options={"split": 5})
    for split in ("train", "valid", "test"):
        (folder / f"{split}_idx.npy").unlink()
    with pytest.raises(InputError, match="no split was chosen. Choose one of 0, 3"):
        open_data(str(folder))


def test_students_left_beside_the_data_are_no_modality(folder):
    (folder / "OUR-DisCoM-KD_audio").mkdir()
    np.save(folder / "OUR-DisCoM-KD_audio" / "predictions.npy", np.zeros((4, 5)))

    assert open_data(str(folder)).info.modalities == ("audio", "image")


# ---- apart


def test_data_taken_apart_has_the_same_rows_and_no_pairs(folder):
    data = open_data(str(folder))

    apart = data.apart()

    assert data.info.paired and data.train.paired and not apart.info.paired and not apart.train.paired
    assert np.array_equal(apart.test.numbers["image"], data.test.numbers["image"])

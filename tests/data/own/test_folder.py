import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from xmodal.data import open_data, reopen
from xmodal.data.base import statistics_of
from xmodal.data.columns import ArrayFile, ArrayFolder
from xmodal.data.loader import in_order
from xmodal.data.own.folder import FolderSettings, load_folder, read_inputs
from xmodal.data.request import DataRequest
from xmodal.errors import InputError


def settings(root, **values):
    (root / "data.json").write_text(json.dumps(values))


def first_batch(data, rows=100):
    return next(iter(in_order(data.train, batch_size=rows)))


def test_a_batch_holds_the_normalised_rows_of_its_split(folder):
    data = load_folder(folder)
    audio, labels = np.load(folder / "audio.npy")[:12], np.load(folder / "labels.npy")[:12]

    batch = first_batch(data)

    mean, std = audio.mean(axis=(0, 2), keepdims=True), audio.std(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(batch.inputs["audio"].numpy(), (audio - mean) / std, atol=1e-5)
    assert batch.target.tolist() == labels.tolist()
    assert batch.target is batch.targets["image"]


def test_info_describes_the_folder(folder):
    settings(folder, name="toy", class_names=["a", "b", "c"], modalities=["image", "audio"])

    info = load_folder(folder).info

    assert info.modalities == ("image", "audio") and info.class_names == ("a", "b", "c")
    assert (info.inputs["audio"].layout, info.inputs["image"].layout) == ("sequence", "image")
    assert info.rows["valid"] == {"image": 4, "audio": 4} and info.classes == 3 and info.task == "multiclass"


def test_statistics_come_from_the_training_split_alone(folder):
    before = load_folder(folder)
    audio = np.load(folder / "audio.npy")
    audio[12:] += 1000
    np.save(folder / "audio.npy", audio)

    after = load_folder(folder)

    assert after.info.normalisation["audio"] == before.info.normalisation["audio"]
    audio[0] += 1
    np.save(folder / "audio.npy", audio)
    assert load_folder(folder).info.normalisation["audio"] != before.info.normalisation["audio"]


def test_normalised_arrays_and_those_that_data_json_names_are_used_as_they_are(folder):
    (folder / "audio.npy").rename(folder / "audio_data_normalized.npy")
    settings(folder, normalise={"image": "none"})

    data = load_folder(folder)

    assert data.info.modalities == ("audio", "image") and not data.info.normalisation
    expected = np.load(folder / "audio_data_normalized.npy")[:12]
    assert np.array_equal(first_batch(data).inputs["audio"].numpy(), expected)


def test_a_constant_channel_does_not_explode(folder):
    audio = np.load(folder / "audio.npy")
    audio[:, 0] = 7
    np.save(folder / "audio.npy", audio)

    batch = first_batch(load_folder(folder))

    assert batch.inputs["audio"][:, 0].abs().max() == 0 and batch.inputs["audio"].isfinite().all()


def test_a_large_array_is_mapped_and_read_by_rows(tmp_path):
    """A sparse file of 8 GiB, of which a few rows hold anything: reading it whole would not go unnoticed."""
    rows, width = 2**21, 1024
    array = np.lib.format.open_memmap(tmp_path / "audio.npy", mode="w+", dtype=np.float32, shape=(rows, width))
    array[[5, rows - 1]] = [[1.0], [2.0]]
    del array

    column = ArrayFile(tmp_path / "audio.npy")

    assert isinstance(column.array, np.memmap) and not column.array.flags.writeable
    assert column[np.array([rows - 1, 5])][:, 0].tolist() == [2.0, 1.0]
    (tmp_path / "audio.npy").unlink()


def test_a_mapped_column_travels_as_its_path(folder):
    column = ArrayFile(folder / "audio.npy")
    whole = column[:]

    sent = pickle.dumps(column)

    assert len(sent) < 500 < whole.nbytes and np.array_equal(pickle.loads(sent)[:], whole)


def test_a_folder_of_samples_reads_only_the_rows_it_is_asked_for(folder):
    audio = np.load(folder / "audio.npy")
    (folder / "audio.npy").unlink()
    (folder / "audio").mkdir()
    for row, sample in enumerate(audio):
        np.save(folder / "audio" / f"clip{row:02d}.npy", sample)
    column = ArrayFolder(folder / "audio")
    (folder / "audio" / "clip03.npy").write_bytes(b"broken")

    assert np.array_equal(column[np.array([7, 2])], audio[[7, 2]])
    assert np.array_equal(column[4:6], audio[4:6]) and np.array_equal(column[9], audio[9])
    with pytest.raises(InputError, match="clip03.npy is not a NumPy array file"):
        column[np.array([2, 3])]


def test_a_folder_of_samples_equals_one_array(folder):
    whole = load_folder(folder)
    audio = np.load(folder / "audio.npy")
    (folder / "audio.npy").unlink()
    (folder / "audio").mkdir()
    for row, sample in enumerate(audio):
        np.save(folder / "audio" / f"clip{row:02d}.npy", sample)

    parts = load_folder(folder)

    assert parts.info.normalisation == whole.info.normalisation
    assert torch.equal(first_batch(parts).inputs["audio"], first_batch(whole).inputs["audio"])


def test_a_sample_that_changed_its_shape_while_training_is_a_sentence(folder):
    (folder / "depth").mkdir()
    for row in range(20):
        np.save(folder / "depth" / f"{row:02d}.npy", np.ones((2, 8)))
    column = ArrayFolder(folder / "depth")
    np.save(folder / "depth" / "04.npy", np.ones((2, 9)))

    with pytest.raises(InputError, match=r"depth/04.npy has the shape \(2, 9\), the first file of this folder"):
        column[np.arange(5)]


def by_hand(array, *, version=(1, 0), descr, fortran=False):
    """The bytes of a .npy file, written from the description of the format, not by NumPy."""
    fields = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {array.shape}, }}"
    size = struct.Struct("<H" if version == (1, 0) else "<I")
    padding = -(8 + size.size + len(fields) + 1) % 64
    header = fields + " " * padding + "\n"
    body = b"".join(struct.pack(descr[0] + "f", value) for value in array.ravel("F" if fortran else "C").tolist())
    return b"\x93NUMPY" + bytes(version) + size.pack(len(header)) + header.encode("utf-8") + body


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("descr", ["<f4", ">f4"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_files_that_our_writer_did_not_write_are_read(folder, version, descr, fortran):
    audio = np.load(folder / "audio.npy")
    usual = first_batch(load_folder(folder)).inputs["audio"]

    (folder / "audio.npy").write_bytes(by_hand(audio, version=version, descr=descr, fortran=fortran))

    assert torch.allclose(first_batch(load_folder(folder)).inputs["audio"], usual, atol=1e-6)


def test_without_index_files_the_splits_are_drawn_from_the_seed(folder):
    for split in ("train", "valid", "test"):
        (folder / f"{split}_idx.npy").unlink()
    labels = np.load(folder / "labels.npy")

    first, again, other = (load_folder(folder, request=DataRequest(seed=seed)) for seed in (0, 0, 1))

    rows = {split: first.split(split).numbers["audio"] for split in ("train", "valid", "test")}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(20))
    assert np.bincount(labels[rows["train"]]).tolist() == [5, 5, 4]
    assert np.array_equal(rows["train"], again.train.numbers["audio"])
    assert not np.array_equal(rows["train"], other.train.numbers["audio"])


def test_too_few_samples_to_draw_splits_from(folder):
    for split in ("train", "valid", "test"):
        (folder / f"{split}_idx.npy").unlink()
    for name in ("audio", "image", "labels"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:6])

    with pytest.raises(InputError, match="6 samples are too few"):
        load_folder(folder)


def test_train_fraction_thins_the_training_split(folder):
    data = load_folder(folder, request=DataRequest(train_fraction=0.5))

    assert data.info.rows["train"]["audio"] == 6 and data.info.rows["test"]["audio"] == 4
    assert torch.bincount(data.info.train_targets["audio"]).tolist() == [2, 2, 2]


def make_unpaired(root):
    random = np.random.default_rng(1)
    np.save(root / "image.npy", random.normal(size=(30, 1, 4, 4)))
    (root / "labels.npy").rename(root / "audio_labels.npy")
    np.save(root / "image_labels.npy", np.arange(30) % 3)
    for split, rows in {"train": np.arange(20), "valid": np.arange(20, 25), "test": np.arange(25, 30)}.items():
        np.save(root / f"image_{split}_idx.npy", rows)


def test_unpaired_modalities_have_labels_and_splits_of_their_own(folder):
    make_unpaired(folder)

    data = load_folder(folder)

    assert not data.info.paired and data.info.rows["train"] == {"audio": 12, "image": 20}
    audio, image = in_order(data.train, batch_size=100)
    assert audio.targets["audio"].tolist() == [row % 3 for row in range(12)]
    assert image.targets["image"].tolist() == [row % 3 for row in range(20)]


def test_paired_files_may_be_used_as_unpaired_data(folder):
    settings(folder, paired=False)

    data = load_folder(folder)

    assert not data.info.paired and data.info.rows["train"] == {"audio": 12, "image": 12}


def test_floats_are_regression_and_a_table_of_integers_is_multilabel(folder):
    np.save(folder / "labels.npy", np.linspace(-1, 1, 20))
    regression = load_folder(folder)
    np.save(folder / "labels.npy", np.stack([np.arange(20) % 2, np.arange(20) % 3 == 0], axis=1).astype(int))
    multilabel = load_folder(folder)

    assert (regression.info.task, regression.info.outputs) == ("regression", 1)
    assert first_batch(regression).target.shape == (12, 1) and first_batch(regression).target.dtype == torch.float32
    assert (multilabel.info.task, multilabel.info.outputs) == ("multilabel", 2)


@pytest.mark.parametrize("kind", ["?", "i1", "u2", "i8", "f2", "f8"])
def test_all_kinds_of_real_numbers_are_taken(folder, kind):
    np.save(folder / "audio.npy", (np.load(folder / "audio.npy") > 3).astype(kind))
    np.save(folder / "labels.npy", (np.arange(20) % 2).astype("?" if kind == "?" else "u1"))

    data = load_folder(folder)

    assert first_batch(data).inputs["audio"].dtype == torch.float32
    assert data.info.task == "multiclass" and first_batch(data).target.tolist() == [0, 1] * 6


def test_unpaired_labels_with_shared_index_files_are_checked_one_by_one(folder):
    (folder / "labels.npy").rename(folder / "audio_labels.npy")
    np.save(folder / "image_labels.npy", np.arange(20) // 12)

    with pytest.raises(InputError, match="train_idx.npy selects a single class"):
        load_folder(folder)


def test_statistics_of_a_large_sample_are_read_row_by_row():
    class Wide:
        """Two million numbers per sample; remembers how many samples it was asked for at once."""

        shape, dtype, most = (6, 2_000_000), np.dtype("f4"), 0

        def __getitem__(self, rows):
            self.most = max(self.most, len(rows))
            return np.broadcast_to(np.asarray(rows, dtype=np.float32)[:, None], (len(rows), 2_000_000))

    column = Wide()

    found = statistics_of(column, np.arange(6), "other")

    assert column.most == 4 and found.mean == [2.5] and found.std == pytest.approx([np.std(np.arange(6))])


def test_a_task_given_by_name_goes_before_the_folder(folder):
    np.save(folder / "labels.npy", np.arange(20) % 2)

    assert load_folder(folder, request=DataRequest(task="binary")).info.outputs == 1
    with pytest.raises(InputError, match="Did you mean 'binary'"):
        load_folder(folder, request=DataRequest(task="binry"))


def test_chosen_modalities_are_all_that_is_looked_at(folder):
    (folder / "image.npy").write_bytes(b"broken")

    data = load_folder(folder, FolderSettings(modalities=("audio",)))

    assert data.info.modalities == ("audio",)


def test_source_opens_the_same_folder_again(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    data = open_data("./data", options={"modalities": ["audio"]}, train_fraction=0.5, seed=2)

    again = reopen(json.loads(json.dumps(data.source)))

    assert data.source["data"] == str(folder)
    assert again.source == data.source and torch.equal(
        first_batch(again).inputs["audio"], first_batch(data).inputs["audio"]
    )


def test_read_inputs_needs_neither_labels_nor_other_modalities(folder):
    for name in ("labels", "image", "train_idx", "valid_idx", "test_idx"):
        (folder / f"{name}.npy").unlink()

    columns = read_inputs(folder, ["audio"])

    assert list(columns) == ["audio"] and np.array_equal(columns["audio"][:], np.load(folder / "audio.npy"))


def test_read_inputs_says_what_is_missing(folder):
    with pytest.raises(InputError) as caught:
        read_inputs(folder, ["audio", "imag", "depth"])

    assert "no imag.npy. Did you mean 'image'" in str(caught.value) and "no depth.npy" in str(caught.value)
    assert "Needed: audio.npy, imag.npy, depth.npy; labels are not" in str(caught.value)
    with pytest.raises(InputError, match="is not a folder"):
        read_inputs(folder / "none", ["audio"])


def test_read_inputs_checks_numbers_and_counts(folder):
    audio = np.load(folder / "audio.npy")[:19]
    audio[3] = np.nan
    np.save(folder / "audio.npy", audio)

    with pytest.raises(InputError) as caught:
        read_inputs(folder, ["audio", "image"])

    assert "the first is sample 3" in str(caught.value) and "audio has 19, image has 20" in str(caught.value)


def test_the_list_of_data_sets_imports_nothing_heavy():
    heavy = ("torch", "numpy", "sklearn", "pydantic")
    code = f"import sys, xmodal.data; print([name for name in {heavy} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"

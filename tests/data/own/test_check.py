import json
import os
import pickle
import struct

import numpy as np
import pytest

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.own.check import check_folder
from xmodal.errors import InputError


def settings(root, **values):
    (root / "data.json").write_text(json.dumps(values))


def edit(root, name, change):
    array = np.load(root / name)
    np.save(root / name, change(array))


def put(root, name, position, value):
    array = np.load(root / name)
    array[position] = value
    np.save(root / name, array)


def put_text(root, last):
    """Labels that are text, a class of its own in the last rows."""
    np.save(root / "labels.npy", np.array(["cat", "dog", last])[np.arange(20) % 3])


def shorten(path, count):
    path.write_bytes(path.read_bytes()[:-count])


def samples(root, shapes=((2, 8),) * 20, name="depth", digits=2):
    (root / name).mkdir()
    for row, shape in enumerate(shapes):
        np.save(root / name / f"{row:0{digits}d}.npy", np.ones(shape, np.float32))


def unpaired(root):
    (root / "labels.npy").rename(root / "audio_labels.npy")


class Loud:
    """Would leave a folder behind if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def malicious(path, trace):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (20,), }".ljust(117) + "\n"
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + pickle.dumps(Loud(trace))
    )


FAULTS = {
    "audio without numbers": (
        lambda r: edit(r, "audio.npy", lambda a: a[:, :0]),
        "audio.npy is empty (shape (20, 0, 8))",
    ),
    "audio without samples": (lambda r: edit(r, "audio.npy", lambda a: a[:0]), "audio.npy is empty (shape (0, 2, 8))"),
    "audio scalar": (lambda r: np.save(r / "audio.npy", np.float32(3)), "audio.npy is a single number"),
    "audio flat": (lambda r: np.save(r / "audio.npy", np.ones(20)), "store the shape (20, 1)"),
    "audio too short": (lambda r: edit(r, "audio.npy", lambda a: a[:-1]), "audio.npy has 19, image.npy has 20"),
    "audio NaN": (
        lambda r: put(r, "audio.npy", (7, 0), np.nan),
        "NaN or infinite values in 1 of 20 samples; the first is sample 7",
    ),
    "audio infinite": (
        lambda r: put(r, "audio.npy", (slice(3, 5), 1), np.inf),
        "in 2 of 20 samples; the first is sample 3",
    ),
    "audio text": (lambda r: np.save(r / "audio.npy", np.array(["a"] * 20)), "audio.npy holds text"),
    "audio bytes": (lambda r: np.save(r / "audio.npy", np.array([b"a"] * 20)), "audio.npy holds text"),
    "audio complex": (lambda r: edit(r, "audio.npy", lambda a: a * 1j), "audio.npy holds complex numbers"),
    "audio dates": (lambda r: np.save(r / "audio.npy", np.zeros((20, 2), "M8[s]")), "has the type datetime64[s]"),
    "audio table": (lambda r: np.save(r / "audio.npy", np.zeros(20, [("x", "f4")])), "Save integers or floats"),
    "audio objects": (
        lambda r: np.save(r / "audio.npy", np.array([1, "a"], object), allow_pickle=True),
        "holds Python objects",
    ),
    "audio cut off": (
        lambda r: shorten(r / "audio.npy", 10),
        "audio.npy is cut off: its header promises 1408 bytes, the file has 1398",
    ),
    "audio header cut off": (
        lambda r: (r / "audio.npy").write_bytes(b"\x93NUMPY\x01\x00\x76"),
        "audio.npy is not a NumPy array file",
    ),
    "audio of no bytes": (lambda r: (r / "audio.npy").write_bytes(b""), "audio.npy is not a NumPy array file"),
    "audio a zip": (
        lambda r: (r / "audio.npy").write_bytes(b"PK\x03\x04 and more"),
        "audio.npy is not a NumPy array file",
    ),
    "picture without channels": (
        lambda r: edit(r, "image.npy", lambda a: a[:, 0]),
        "could be a picture without a channel axis",
    ),
    "two audios": (lambda r: edit(r, "audio_data_normalized.npy", lambda a: a), "'audio' has 2 sources"),
    "name with a dot": (
        lambda r: (r / "image.npy").rename(r / "rgb.left.npy"),
        "'rgb.left' can't be the name of a modality",
    ),
    "name with a space": (
        lambda r: (r / "image.npy").rename(r / "my image.npy"),
        "'my image' can't be the name of a modality",
    ),
    "no modality": (
        lambda r: [(r / f"{m}.npy").unlink() for m in ("audio", "image")],
        "holds no modality. Expected: <modality>.npy",
    ),
    "no labels": (lambda r: (r / "labels.npy").unlink(), "labels.npy is missing: no labels for audio, image"),
    "labels too short": (lambda r: edit(r, "labels.npy", lambda a: a[:18]), "labels.npy has 18"),
    "labels empty": (lambda r: edit(r, "labels.npy", lambda a: a[:0]), "labels.npy is empty"),
    "labels of objects": (
        lambda r: np.save(r / "labels.npy", np.array(["cat", None] * 10, dtype=object), allow_pickle=True),
        "labels.npy holds Python objects, which are never opened",
    ),
    "labels complex": (lambda r: np.save(r / "labels.npy", np.full(20, 1j)), "labels.npy holds complex numbers"),
    "labels of one class and -1": (
        lambda r: edit(r, "labels.npy", lambda a: np.where(a == 0, -1, 1)),
        "labels.npy: Labels are -1 and 1; -1 means unlabelled. Use 0 and 1, or `unlabelled_label=None`.",
    ),
    "labels text for a regression": (
        lambda r: (put_text(r, "dog"), settings(r, task="regression")),
        "labels.npy holds text, and the task regression needs numbers",
    ),
    "no label at all": (
        lambda r: edit(r, "labels.npy", lambda a: a * 0 - 1),
        "labels.npy has no label in any of its 20 rows (all are -1)",
    ),
    "no label in training": (
        lambda r: put(r, "labels.npy", slice(0, 12), -1),
        "No row of train_idx.npy has a label",
    ),
    "a validation row without a label": (
        lambda r: put(r, "labels.npy", 13, -1),
        "1 of 4 rows of valid_idx.npy have no label",
    ),
    "test rows without a label": (
        lambda r: edit(r, "labels.npy", lambda a: np.where(np.arange(20) > 17, np.nan, a)),
        "2 of 4 rows of test_idx.npy have no label",
    ),
    "a class without a label": (
        lambda r: edit(r, "labels.npy", lambda a: np.where((np.arange(20) < 12) & (a == 2), -1, a)),
        "No labelled row of train_idx.npy has the class 2",
    ),
    "a table with parts of a label": (
        lambda r: np.save(r / "labels.npy", np.where(np.arange(40).reshape(20, 2) == 5, -1, 1)),
        "labels.npy lacks some of the 2 values of row 2 (-1), and has others",
    ),
    "numbers with parts of a label": (
        lambda r: np.save(r / "labels.npy", np.where(np.arange(40).reshape(20, 2) == 5, np.nan, 0.5)),
        "labels.npy lacks some of the 2 values of row 2 (NaN), and has others",
    ),
    "groups of another number": (lambda r: np.save(r / "groups.npy", np.arange(19)), "groups.npy has 19 values"),
    "groups are numbers": (lambda r: np.save(r / "groups.npy", np.ones(20)), "integers or text were expected"),
    "groups are objects": (
        lambda r: np.save(r / "groups.npy", np.array(["a", 1] * 10, object), allow_pickle=True),
        "groups.npy can't be read",
    ),
    "labels one class": (lambda r: edit(r, "labels.npy", np.zeros_like), "labels.npy holds a single class (0)"),
    "labels NaN": (
        lambda r: np.save(r / "labels.npy", np.where(np.arange(20) == 6, np.inf, 0.5)),
        "the first is in row 6",
    ),
    "labels between classes": (
        lambda r: (np.save(r / "labels.npy", np.arange(20) / 2), settings(r, task="multiclass")),
        "labels.npy holds 0.5, which is no class",
    ),
    "labels one-hot": (
        lambda r: (np.save(r / "labels.npy", np.eye(4, dtype=int)[np.arange(20) % 4]), settings(r, task="multiclass")),
        "Take the argmax of one-hot rows",
    ),
    "labels not binary": (lambda r: settings(r, task="binary"), "a binary task has two"),
    "labels flat for multilabel": (
        lambda r: settings(r, task="multilabel"),
        "(samples, labels) was expected for multilabel",
    ),
    "labels not multilabel": (lambda r: np.save(r / "labels.npy", np.full((20, 2), 3)), "values other than 0 and 1"),
    "labels deep regression": (
        lambda r: (np.save(r / "labels.npy", np.ones((20, 2, 2))), settings(r, task="regression")),
        "(samples,) or (samples, values) was expected",
    ),
    "too few class names": (
        lambda r: settings(r, class_names=["a", "b"]),
        "holds the class 2, but class_names lists 2",
    ),
    "other number of label names": (
        lambda r: (np.save(r / "labels.npy", np.eye(2, dtype=int)[np.arange(20) % 2]), settings(r, class_names=["a"])),
        "has 2 labels, but class_names lists 1",
    ),
    "index out of range": (
        lambda r: put(r, "test_idx.npy", 0, 20),
        "test_idx.npy holds the row 20, but there are 20 samples",
    ),
    "index negative": (lambda r: put(r, "test_idx.npy", 0, -1), "test_idx.npy holds the negative row -1"),
    "index float": (lambda r: edit(r, "test_idx.npy", lambda a: a * 1.0), "test_idx.npy holds float64 numbers"),
    "index mask": (lambda r: np.save(r / "test_idx.npy", np.ones(20, bool)), "Use numpy.flatnonzero"),
    "index empty": (lambda r: edit(r, "valid_idx.npy", lambda a: a[:0]), "valid_idx.npy is empty"),
    "index table": (lambda r: edit(r, "valid_idx.npy", lambda a: a[:, None]), "valid_idx.npy has the shape (4, 1)"),
    "index missing": (lambda r: (r / "valid_idx.npy").unlink(), "valid_idx.npy is missing (for audio, image)"),
    "index of other name": (lambda r: np.save(r / "val_idx.npy", np.arange(3)), "Did you mean 'valid_idx'"),
    "splits overlap": (
        lambda r: put(r, "test_idx.npy", [0, 1], [5, 2]),
        "train_idx.npy and test_idx.npy share 2 rows, the first is 2",
    ),
    "training of one class": (
        lambda r: np.save(r / "train_idx.npy", np.arange(0, 12, 3)),
        "train_idx.npy selects a single class",
    ),
    "no JSON": (lambda r: (r / "data.json").write_text("{task: 1}"), "data.json is not valid JSON"),
    "JSON list": (lambda r: (r / "data.json").write_text("[]"), "data.json holds a list"),
    "unknown key": (lambda r: settings(r, tsk="binary"), "data.json has no key 'tsk'. Did you mean 'task'"),
    "unknown task": (lambda r: settings(r, task="multi-class"), "'task' is 'multi-class'. Did you mean 'multiclass'"),
    "newer schema": (lambda r: settings(r, schema=2), "data.json: 'schema' is 2"),
    "unknown layout": (lambda r: settings(r, layout={"audio": "sequenc"}), "Did you mean 'sequence'"),
    "wrong layout": (
        lambda r: settings(r, layout={"audio": "image"}),
        "its layout is set to 'image', which has 3 axes",
    ),
    "unknown normalisation": (lambda r: settings(r, normalise={"audio": "minmax"}), "'normalise.audio' is 'minmax'"),
    "normalise unknown": (
        lambda r: settings(r, normalise={"adio": "none"}),
        "names the modality 'adio', which is not there. Did you mean 'audio'",
    ),
    "modality unknown": (
        lambda r: settings(r, modalities=["audio", "imge"]),
        "The modality 'imge' has no file imge.npy or imge_data_normalized.npy. Did you mean 'image'",
    ),
    "samples of two shapes": (
        lambda r: samples(r, [(2, 8)] * 19 + [(2, 9)]),
        "depth/19.npy has the shape (2, 9), the first sample has (2, 8)",
    ),
    "sample cut off": (lambda r: (samples(r), shorten(r / "depth" / "03.npy", 4)), "depth/03.npy is cut off"),
    "sample no array": (lambda r: (samples(r), (r / "depth" / "a.wav").write_text("")), "The folder depth holds a.wav"),
    "too few samples": (lambda r: samples(r, [(2, 8)] * 5), "depth has 5"),
    "paired with own labels": (
        lambda r: (unpaired(r), settings(r, paired=True)),
        "data.json says that the data is paired",
    ),
    "unpaired without labels": (unpaired, "image_labels.npy is missing: no labels for image"),
    "own labels too short": (
        lambda r: np.save(r / "audio_labels.npy", np.arange(9) % 3),
        "audio.npy has 20, audio_labels.npy has 9",
    ),
    "labels of nothing": (
        lambda r: np.save(r / "adio_labels.npy", np.arange(20) % 3),
        "adio_labels.npy belongs to no modality. Did you mean 'audio'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_a_sentence(folder, fault):
    spoil, sentence = FAULTS[fault]
    if fault == "two audios":
        np.save(folder / "audio_data_normalized.npy", np.load(folder / "audio.npy"))

    spoil(folder)

    errors = check_folder(folder).errors
    assert any(sentence in error for error in errors), errors
    with pytest.raises(InputError) as caught:
        open_data(str(folder))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_the_command_with_status_2_and_no_traceback(folder, fault, capsys):
    spoil, sentence = FAULTS[fault]
    if fault == "two audios":
        np.save(folder / "audio_data_normalized.npy", np.load(folder / "audio.npy"))
    spoil(folder)

    status = answer(["data", "check", str(folder)])

    said = "".join(capsys.readouterr())
    assert status == 2
    assert sentence in said and "Traceback" not in said


def test_there_are_many_faults():
    assert len(FAULTS) >= 34


def test_a_good_folder_has_nothing_to_say(folder):
    report = check_folder(folder)

    assert report.errors == [] and report.warnings == []


def test_all_faults_are_reported_at_once(folder):
    chosen = ["audio NaN", "labels complex", "index out of range", "index missing", "samples of two shapes"]
    chosen += ["name with a space", "unknown key"]

    for fault in chosen:
        FAULTS[fault][0](folder)
    errors = check_folder(folder).errors

    for fault in chosen:
        sentence = FAULTS[fault][1].replace("audio, image", "audio, depth, my image")
        assert any(sentence in error for error in errors), (fault, errors)
    with pytest.raises(InputError) as caught:
        open_data(str(folder))
    assert caught.value.problems == errors


def test_no_fault_is_said_twice(folder):
    put(folder, "test_idx.npy", 0, 99)
    edit(folder, "labels.npy", lambda a: a * 0)

    assert len(check_folder(folder).errors) == 2


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda r: put(r, "train_idx.npy", 1, 0), "train_idx.npy repeats 1 of 12 rows"),
        (
            lambda r: np.save(r / "test_idx.npy", np.array([16, 19])),
            "test_idx.npy selects no sample of the classes 0, 2",
        ),
        (lambda r: edit(r, "labels.npy", lambda a: a * 1.0), "the task is taken as multiclass"),
        (lambda r: edit(r, "labels.npy", lambda a: a * -1.0), "and some are negative, so the task is taken as reg"),
        (lambda r: put(r, "labels.npy", 4, -999), "labels.npy holds the label -999, which counts as a class"),
        (lambda r: put_text(r, "nan"), "labels.npy holds the text 'nan', which counts as a class"),
        (lambda r: settings(r, class_names=["a", "b", "c", "d"]), "no sample of d, which class_names lists"),
        (lambda r: samples(r, digits=1), "so 0.npy is followed by 1.npy"),
        (lambda r: (samples(r), samples(r, name="other", digits=3)), "Row 0 is 00.npy in depth and 000.npy in other"),
        (lambda r: (r / "pictures").mkdir(), "The folder pictures holds no .npy files"),
        (
            lambda r: (
                edit(r, "image.npy", lambda a: a * 100),
                (r / "image.npy").rename(r / "image_data_normalized.npy"),
            ),
            "image_data_normalized.npy is used without normalisation and holds values up to",
        ),
    ],
)
def test_warnings_do_not_stop_loading_and_travel_with_the_data(folder, spoil, sentence):
    spoil(folder)

    report = check_folder(folder)

    assert report.errors == []
    assert any(sentence in warning for warning in report.warnings), report.warnings
    assert open_data(str(folder)).warnings == report.warnings


def test_missing_folder_and_file_in_its_place(tmp_path):
    (tmp_path / "file").write_text("")

    assert "does not exist. Expected: <modality>.npy" in check_folder(tmp_path / "none").errors[0]
    assert "is a file, a folder was expected" in check_folder(tmp_path / "file").errors[0]


@pytest.mark.parametrize("name", ["audio.npy", "labels.npy", "train_idx.npy"])
def test_an_object_array_is_refused_and_never_unpickled(folder, tmp_path, name):
    trace = tmp_path / "executed"
    malicious(folder / name, trace)

    errors = check_folder(folder).errors

    assert any(f"{name} holds Python objects, which are never opened" in error for error in errors)
    with pytest.raises(InputError):
        open_data(str(folder))
    assert not trace.exists()
    pickle.loads((folder / name).read_bytes()[128:])  # the file is no dummy: who unpickles it, executes it
    assert trace.exists()


def test_a_whole_bag_of_broken_samples_is_counted(folder):
    samples(folder, [(2, 8)] * 10 + [(2, 9)] * 10)

    errors = check_folder(folder).errors

    assert len([error for error in errors if "has the shape" in error]) == 3
    assert any("7 more problems in the folder depth" in error for error in errors)

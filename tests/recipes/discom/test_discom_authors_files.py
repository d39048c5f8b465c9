"""Files of the authors of DisCoM-KD through the command: weights, names of modalities, a described folder."""

import json

import numpy as np
import pytest
import torch
from joint_discom import CLASSES, joint_file, lenet_shapes, outputs_of

from xmodal.cli.main import answer
from xmodal.errors import InputError
from xmodal.files import read_json
from xmodal.recipes.discom import experiment
from xmodal.recipes.discom.encoders import chosen_encoders, note_on_encoders
from xmodal.types import DataInfo, InputInfo

ROWS = 60


@pytest.fixture
def folder(tmp_path):
    """A data folder with two trained networks in it: MNIST's and MNIST-M's best epochs are different files."""
    data = tmp_path / "DIR"
    random = np.random.default_rng(0)
    data.mkdir()
    np.save(data / "MNIST_data_normalized.npy", random.random((ROWS, 1, 28, 28), dtype=np.float32))
    np.save(data / "MNISTM_data_normalized.npy", random.random((ROWS, 3, 28, 28), dtype=np.float32))
    np.save(data / "labels.npy", np.arange(ROWS) % CLASSES)
    for split, rows in {"train": range(20), "valid": range(20, 40), "test": range(40, 60)}.items():
        np.save(data / f"{split}_idx.npy", np.array(rows))
    tensors = joint_file(lenet_shapes(1, 28), lenet_shapes(3, 28))
    later = {name: tensor * 1.25 if name.endswith("weight") and ".l2." not in name else tensor
             for name, tensor in tensors.items()}  # fmt: skip
    for name, file in (("MNIST", tensors), ("MNISTM", later)):
        (data / f"OUR-DisCoM-KD_{name}").mkdir()
        torch.save(file, data / f"OUR-DisCoM-KD_{name}" / "WEIGHTS.pth")
    return data, tensors, later


def scored(run, name):
    with np.load(run / "seed-0" / "discom" / "predictions" / f"{name}.npz") as arrays:
        return torch.from_numpy(arrays["outputs"]), arrays["rows"]


def test_the_weights_of_a_folder_are_scored_without_training(folder, tmp_path):
    data, tensors, later = folder
    call = ["run", "discom", str(data), "MNIST", "MNISTM", "--threads", "1", "--no-train"]

    statuses = [
        answer([*call, "--weights", str(data), "--out", str(tmp_path / "both")]),
        answer([*call, "--weights", str(data / "OUR-DisCoM-KD_MNIST/WEIGHTS.pth"), "--out", str(tmp_path / "one")]),
    ]

    assert statuses == [0, 0]
    expected = {"both": (tensors, later), "one": (tensors, tensors)}
    for run, files in expected.items():
        for name, side, file in zip(("MNIST", "MNISTM"), ("first", "second"), files, strict=True):
            outputs, rows = scored(tmp_path / run, name)
            samples = torch.from_numpy(np.load(data / f"{name}_data_normalized.npy")[rows])
            theirs = outputs_of(file, side, samples)
            assert torch.allclose(outputs, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert (tmp_path / "both/seed-0/discom/students/MNIST/student.safetensors").is_file()
    # nothing was trained, and the authors' files are as they were
    result = read_json(tmp_path / "both/result.json")
    assert {row["role"] for row in result["rows"]} == {"method"}
    assert "published_files" not in result
    assert any("MNIST lenet" in note and "--encoder auto" in note for note in result["notes"])


def test_a_missing_file_is_one_sentence_with_its_name(folder, capsys):
    data, *_ = folder
    (data / "OUR-DisCoM-KD_MNISTM/WEIGHTS.pth").unlink()

    status = answer(["run", "discom", str(data), "MNIST", "MNISTM", "--weights", str(data), "--no-train"])

    (problem,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert str(data / "OUR-DisCoM-KD_MNISTM/WEIGHTS.pth") in problem and "OUR-DisCoM-KD_MNIST/" not in problem


def test_scoring_needs_weights(capsys):
    assert answer(["run", "discom", "DIR", "A", "B", "--no-train"]) == 2
    assert "Name it with --weights" in capsys.readouterr().err


def test_a_described_modality_need_not_be_used(folder):
    data, *_ = folder
    np.save(data / "SOUND.npy", np.zeros((ROWS, 4), dtype=np.float32))
    described = {"normalise": {"SOUND": "none"}, "layout": {"SOUND": "vector"}}
    (data / "data.json").write_text(json.dumps(described))
    settings = experiment.Settings(data=str(data), modalities=("MNIST", "MNISTM"))

    assert experiment.open_split(settings, 0).info.modalities == ("MNIST", "MNISTM")

    (data / "data.json").write_text(json.dumps({"layout": {"SUOND": "vector"}}))
    with pytest.raises(InputError, match="'SUOND', which is not there"):
        experiment.open_split(settings, 0)


INFO = DataInfo(
    {
        "RGB": InputInfo((3, 28, 28), layout="image"),
        "DEPTH": InputInfo((8,), layout="vector"),
        "other": InputInfo((1, 28, 28), layout="image"),
    },
    "multiclass",
    3,
    rows={},
)
NAMES = ("RGB", "DEPTH", "other")


@pytest.mark.parametrize(
    ("setting", "expected", "named"),
    [
        # 28 pixels: by its shape RGB would be a LeNet, and the encoder of the authors' DEPTH can't read vectors
        ("published", ("resnet18", "auto", "auto"), True),
        ("auto", ("auto", "auto", "auto"), False),
        ("lenet", ("lenet", "lenet", "lenet"), False),
        ("DEPTH=mlp,other=lenet", ("resnet18", "mlp", "lenet"), True),
        ("RGB=lenet", ("lenet", "auto", "auto"), False),
    ],
)
def test_encoders_by_name_by_shape_and_as_given(setting, expected, named):
    assert chosen_encoders(setting, NAMES, INFO) == dict(zip(NAMES, expected, strict=True))
    notes = note_on_encoders(setting, NAMES, INFO)
    assert len(notes) == named and all("RGB resnet18." in note for note in notes)


def test_encoders_that_do_not_exist_are_known_before_the_data_is_opened(capsys):
    assert answer(["run", "discom", "nowhere", "A", "B", "--encoder", "A=lenet,B=lennet"]) == 2
    assert "no encoder called 'lennet'. Did you mean 'lenet'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("RGB=lenet,DEPHT=mlp", "'DEPHT', which does not train here. Did you mean 'DEPTH'"),
        ("RGB=lenet,mlp", "'mlp' is not MODALITY=NAME"),
        ("RGB=lenet,RGB=resnet18", "names 'RGB' twice"),
    ],
)
def test_wrong_encoders_are_refused(setting, said):
    with pytest.raises(InputError) as raised:
        chosen_encoders(setting, NAMES, INFO)

    assert said in str(raised.value)

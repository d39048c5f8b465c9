"""Training in 64 bits: what is converted, what comes back from a folder, and what stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import image_student, pictures, vector_student
from safetensors.torch import load_file
from torch import Tensor

from xmodal.cli.main import answer
from xmodal.data.arrays import from_arrays
from xmodal.data.base import assemble
from xmodal.data.loader import Pick
from xmodal.engine.fit import Run, as_it_is, fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings, MachineSettings
from xmodal.errors import InputError
from xmodal.files import read_json
from xmodal.methods.kd import KD
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for
from xmodal.types import Batch

SETTINGS = FitSettings(epochs=3, batch_size=16, precision="64")
SINGLE, DOUBLE, WHOLE = torch.float32, torch.float64, torch.int64


def trained(**more: Any) -> Run:
    data = pictures()
    return fit(KD(image_student(), vector_student().module, data.info), data, SETTINGS, **more)


def kinds(weights: dict[str, Tensor]) -> set[torch.dtype]:
    return {tensor.dtype for tensor in weights.values()}


def test_batches_carry_the_same_numbers_in_64_bits() -> None:
    data = pictures(augment="noise:0.1")
    wide = data.doubled()

    for epoch in (None, 3):  # as they are, and augmented
        pick = Pick(dict.fromkeys(("vector", "image"), torch.tensor([5, 2])), epoch)
        narrow, batch = data.train[pick], wide.train[pick]
        for name, values in narrow.inputs.items():
            assert (values.dtype, batch.inputs[name].dtype) == (SINGLE, DOUBLE)
            assert torch.equal(batch.inputs[name], values.double())
        assert batch.target is batch.targets["image"] and batch.target.dtype == WHOLE
    assert {info.dtype for info in wide.info.inputs.values()} == {"float64"} and not data.info.doubled
    assert wide.doubled() is wide and wide.train.raw()[pick].inputs["vector"].dtype == SINGLE


def test_whole_numbers_stay_whole_and_targets_that_are_broken_do_not() -> None:
    target = torch.rand(30, 2).numpy()
    data = from_arrays({"sound": target, "text": target}, target).doubled()
    pick = Pick(dict.fromkeys(data.train.rows, torch.tensor([0])), None)

    batch = data.train[pick]

    assert batch.target.dtype == DOUBLE and batch.targets["sound"] is batch.targets["text"]
    lengths = Batch({"sound.lengths": torch.ones(2, dtype=WHOLE)}, {}, {"sound": torch.ones(2, dtype=torch.bool)})
    assert lengths.doubled().inputs["sound.lengths"] is lengths.inputs["sound.lengths"]
    assert lengths.doubled().valid == lengths.valid


def test_everything_is_trained_in_64_bits_and_scored_in_them() -> None:
    run = trained()

    assert kinds(run.method.state_dict()) == kinds(run.students["image"].module.state_dict()) == {DOUBLE, WHOLE}
    again = trained()
    assert run.history[-1]["losses"] == again.history[-1]["losses"]


def test_a_run_comes_back_from_its_folder_to_the_bit_and_deploys_in_32(tmp_path: Path) -> None:
    run = trained(folder=tmp_path)
    back = trained(folder=tmp_path, resume=True)

    weights, read = (each.students["image"].module.state_dict() for each in (run, back))
    assert all(torch.equal(weights[name], read[name]) for name in weights) and kinds(read) == {DOUBLE, WHOLE}
    deployed = load_file(tmp_path / "students" / "image" / "student.safetensors")
    assert kinds(deployed) == {SINGLE, WHOLE}
    assert all(torch.equal(deployed[name], weights[name].to(deployed[name].dtype)) for name in weights)
    described = read_json(tmp_path / "students" / "image" / "student.json")
    assert described["inputs"]["image"]["dtype"] == "float32"


def test_weights_from_elsewhere_are_scored_in_the_bits_of_the_data() -> None:
    data = pictures()

    scores = [
        as_it_is(Supervised(image_student(), own.info), own).best["image"]["valid"] for own in (data, data.doubled())
    ]

    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert scores[0]["cross_entropy"] == pytest.approx(scores[1]["cross_entropy"], rel=1e-6)


def test_weighted_classes_and_volumes_take_64_bits_too() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (24, 16, 16), generator=random).numpy()
    maps = (torch.randn(24, 1, 16, 16, generator=random) + torch.tensor(target)[:, None]).numpy()
    rows = {split: {"lidar": torch.arange(24).numpy()} for split in ("train", "valid", "test")}
    data = assemble(
        {"lidar": maps}, {"lidar": target}, rows, class_weights=(1.0, 2.0, 0.5), label_losses={"focal": 1.0}
    )
    torch.manual_seed(0)
    method = Supervised(build_for(data.info, ("lidar",), width=4), data.info)
    run = fit(method, data, FitSettings(epochs=2, batch_size=8, precision="64"))

    assert run.history[1]["loss"] < run.history[0]["loss"] and kinds(run.method.state_dict()) == {DOUBLE, WHOLE}


def test_a_command_in_64_bits_ends_with_a_run_that_is_evaluated_and_predicts(tmp_path, capsys) -> None:
    out = str(tmp_path / "run")
    words = ["--teacher", "rows", "--student", "fourier", "--epochs", "2", "--threads", "1", "--accelerator", "cpu"]
    assert answer(["distill", "digits", "--method", "kd", *words, "--precision", "64", "--out", out]) == 0

    assert answer(["evaluate", out, "digits", "--json"]) == 0
    assert answer(["predict", out, "digits", "--out", str(tmp_path / "predictions.csv")]) == 0

    table = read_json(Path(out) / "result.json")
    assert {row["role"] for row in table["rows"]} >= {"teacher", "control", "method"}
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) > 100


def test_a_device_without_64_bits_is_refused() -> None:
    with pytest.raises(InputError, match="needs float64, which mps does not have"):
        launch(MachineSettings(accelerator="mps"), precision="64-true")

"""Two gloo processes end with the weights of one: masks, BatchNorm, accumulation, uneven batches, gathered terms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from xmodal.losses import LOSSES

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
SCRIPT = str(HERE / "two_processes.py")


def launched(words: list[str], out: Path, devices: int) -> Path:
    out.mkdir()
    done = subprocess.run(
        [*words, str(out), str(devices)],
        env={**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched([sys.executable, "-W", "error", SCRIPT], tmp_path_factory.mktemp("one") / "run", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched([sys.executable, "-W", "error", SCRIPT], tmp_path_factory.mktemp("two") / "run", 2)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def assert_same_weights(first: Path, second: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        single, several = load_file(first / name), load_file(second / name)
        assert single.keys() == several.keys()
        for key in single:
            np.testing.assert_allclose(single[key], several[key], rtol=0, atol=1e-6, err_msg=key)


def test_two_processes_end_with_the_weights_of_one(one: Path, two: Path) -> None:
    assert_same_weights(one, two)


@pytest.mark.parametrize("name", ["few-kd", "few-labels", "gaps-kd", "gaps-labels"])
def test_two_processes_share_the_rows_of_every_kind_of_every_batch(name: str, one: Path, two: Path) -> None:
    single, several = load_file(one / f"{name}.safetensors"), load_file(two / f"{name}.safetensors")

    for key in single:
        np.testing.assert_allclose(single[key], several[key], rtol=0, atol=1e-6, err_msg=key)


def test_in_64_bits_large_steps_too_end_where_one_process_does(one: Path, two: Path) -> None:
    apart = {}
    for precision in ("32-true", "64-true"):
        single, several = (load_file(folder / f"{precision}.safetensors") for folder in (one, two))
        apart[precision] = max(
            np.abs(single[key] - several[key]).max() for key in single if single[key].dtype.kind == "f"
        )
        assert {part.dtype for part in several.values()} <= {np.dtype(f"f{int(precision[:2]) // 8}"), np.dtype("i8")}
    assert apart["64-true"] < 1e-8 and apart["64-true"] < 1e-5 * apart["32-true"]
    first, second = (read(folder, "64-true.json") for folder in (one, two))
    for single, several in zip(first["history"], second["history"], strict=True):
        assert single["losses"] == pytest.approx(several["losses"], rel=1e-8)
        assert single["valid"]["image"] == pytest.approx(several["valid"]["image"], rel=1e-6)  # summed in 32 bits
    assert first["scores"]["image"]["accuracy"] == second["scores"]["image"]["accuracy"]


MIXING = [name for name, card in LOSSES.items() if card.samples == "mixing" or "memory" in card.needs]
ORDERED = [name for name, card in LOSSES.items() if card.samples == "ordered"]


@pytest.mark.parametrize("kind", ["KD", "Trusting"])
@pytest.mark.parametrize("name", MIXING)
def test_losses_that_mix_samples_take_the_steps_of_one_process(name: str, kind: str, one: Path, two: Path) -> None:
    single, several = (load_file(folder / f"{name}-{kind}.safetensors") for folder in (one, two))

    assert single.keys() == several.keys()
    for key in single:
        np.testing.assert_allclose(single[key], several[key], rtol=1e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ORDERED)
def test_losses_that_compare_neighbours_have_other_neighbours_in_two_processes(name: str, one: Path, two: Path) -> None:
    single, several = (load_file(folder / f"{name}-KD.safetensors") for folder in (one, two))

    assert all(np.isfinite(part).all() for part in several.values())
    assert max(np.abs(single[key] - several[key]).max() for key in single if single[key].dtype.kind == "f") > 1e-5


def test_two_processes_measure_what_one_measures(one: Path, two: Path) -> None:
    single, several = (read(folder, "scores.json")["test"]["image"] for folder in (one, two))
    assert single.pop("cross_entropy") == pytest.approx(several.pop("cross_entropy"), abs=1e-6)
    assert single == several
    for single, several in zip(read(one, "scores.json")["history"], read(two, "scores.json")["history"], strict=True):
        assert single["losses"] == pytest.approx(several["losses"], abs=1e-6)
        assert single["valid"]["image"]["accuracy"] == several["valid"]["image"]["accuracy"]


def test_two_processes_learn_and_count_pixels_as_one_does(one: Path, two: Path) -> None:
    single, several = (load_file(folder / "dense" / "last.safetensors") for folder in (one, two))
    for key in single:
        np.testing.assert_allclose(single[key], several[key], rtol=0, atol=5e-6, err_msg=key)
    first, second = (read(folder / "dense", "scores.json") for folder in (one, two))
    assert first["history"][0]["losses"] == pytest.approx(second["history"][0]["losses"], abs=1e-5)
    counted, again = (scores["untrained"]["lidar"] for scores in (first, second))
    assert counted.pop("cross_entropy") == pytest.approx(again.pop("cross_entropy"), rel=1e-5)
    assert counted == again and np.sum(counted["confusion"]) > 0
    assert first["classes"] == second["classes"] and np.shape(first["classes"]["lidar"])[1:] == (16, 16)


def test_two_processes_train_two_streams_as_one_does(one: Path, two: Path) -> None:
    first, second = (read(folder / "dense", "streams.json")["losses"] for folder in (one, two))
    assert first == pytest.approx(second, abs=1e-5) and len(first) == 5
    single, several = (load_file(folder / "dense" / "streams.safetensors") for folder in (one, two))
    for key in single:
        np.testing.assert_allclose(single[key], several[key], rtol=0, atol=5e-6, err_msg=key)


def test_two_processes_score_and_write_points_as_one_does(one: Path, two: Path) -> None:
    first, second = (read(folder / "dense", "points.json") for folder in (one, two))
    for name in ("teacher", "student"):
        scores, tables = first[name]
        assert scores == pytest.approx(second[name][0], rel=1e-6)
        assert tables == second[name][1] and np.sum(tables["points"]["confusion"]) > 0
    assert "ncjsd" in first["student"][0]
    single, several = (
        {path.relative_to(folder / "dense"): path.read_bytes() for path in (folder / "dense").rglob("*.label")}
        for folder in (one, two)
    )
    assert single == several and len(single) == 2 * 3 + 6  # of two students, and those of the data


def test_processes_write_one_table_of_answers_together_and_learn_from_it(one: Path, two: Path) -> None:
    single, several = (
        {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "answers").rglob("*.npy")}
        for folder in (one, two)
    )

    assert single == several and len(single) == 1
    first, second = (load_file(folder / "disk.safetensors") for folder in (one, two))
    for key in first:
        np.testing.assert_allclose(first[key], second[key], rtol=0, atol=1e-6, err_msg=key)


def test_outputs_of_all_processes_come_back_in_order(one: Path, two: Path) -> None:
    single, several = (np.array(read(folder, "outputs.json")["outputs"]) for folder in (one, two))

    np.testing.assert_allclose(single, several, atol=1e-5)


def test_only_the_first_process_writes_the_history(two: Path) -> None:
    epochs = [json.loads(line)["epoch"] for line in (two / "run" / "history.jsonl").read_text().splitlines()]

    assert epochs == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["headless", "says-so"])
def test_a_method_that_declares_unused_parameters_trains_as_in_one_process(name: str, one: Path, two: Path) -> None:
    single, several = (load_file(folder / f"{name}.safetensors") for folder in (one, two))

    for key in single:
        np.testing.assert_allclose(single[key], several[key], rtol=0, atol=1e-6, err_msg=key)


def test_a_method_that_does_not_declare_them_is_told_how(one: Path, two: Path) -> None:
    alone, together = (read(folder, "idle.json")["sentence"] for folder in (one, two))

    assert not alone
    assert "of Idle these got none: spare.weight, spare.bias." in together
    assert "set `unused_parameters = True` in the class of the method" in together


@pytest.mark.slow
def test_torchrun_ends_with_the_weights_of_one(one: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]

    assert_same_weights(one, launched(torchrun, tmp_path / "run", 2))

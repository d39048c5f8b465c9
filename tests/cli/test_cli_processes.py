"""What only a real process shows: imports, pipes, several devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.datasets import load_digits

XMODAL = Path(sys.executable).with_name("xmodal")
LIGHT = """
import sys
from xmodal.cli.main import answer
for line in ("--help", "list", "list methods", "run --help", "data --help", "data make digits --help", "doctor --help",
             "reproduce --help", "evaluate --help", "export --help", "predict --help", "report --help", "distil",
             "report RUN --out PAGE", "run digits-kd --help", "distill --help", "compare digits --help", "list kd"):
    status = answer(line.replace("RUN", sys.argv[1]).replace("PAGE", sys.argv[2]).split())
    assert status == (2 if line == "distil" else 0), line
    heavy = {"torch", "sklearn", "lightning_fabric", "torchmetrics"} & set(sys.modules)
    assert not heavy, (line, heavy)
"""


def test_lists_helps_and_reports_import_nothing_heavy(run_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIGHT, str(run_folder), str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr


TRAINS = """
import sys
from xmodal.cli.main import answer
words = "distill digits --teacher rows --student fourier --epochs 1 --threads 1"
assert answer([*words.split(), "--digits.views", "rows,fourier", "--out", sys.argv[1]]) == 0
heavy = {"torchmetrics", "transformers", "scipy.signal", "scipy.stats", "matplotlib", "lightning_fabric", "sklearn"}
heavy |= {"torch._dynamo"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""


def test_a_training_in_one_process_imports_what_it_uses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINS, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def test_reader_that_leaves_is_no_error() -> None:
    for words in ("list", "--help", "list --json"):
        line = f"{XMODAL} {words} | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)

        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1


def test_closed_reader_is_no_error() -> None:
    process = subprocess.Popen([XMODAL, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before anything is written

    assert process.wait() == 0
    assert process.stderr.read() == ""
    process.stderr.close()


PRECISIONS = [("32", 1e-4), pytest.param("64", 1e-6, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("precision", "near"), PRECISIONS)
def test_two_devices_print_once_and_end_with_the_weights_of_one(precision: str, near: float, tmp_path: Path) -> None:
    words = "compare digits --student fourier --methods supervised,kd --no-shuffled --seeds 1 --epochs 2 --json"
    for devices in "12":
        more = f"--accelerator cpu --precision {precision} --devices {devices} --out {devices}"
        done = subprocess.run([XMODAL, *words.split(), *more.split()], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["folder"] == devices
        assert sum("kd (3/3): epoch 2/2" in line for line in done.stderr.splitlines()) == 1

    files = sorted((tmp_path / "1").rglob("student.safetensors"))
    assert len(files) == 3  # teacher, control, kd
    for file in files:
        one, two = load_file(file), load_file(tmp_path / "2" / file.relative_to(tmp_path / "1"))
        assert max((one[name] - two[name]).abs().max().item() for name in one) < near
    rows = [json.loads((tmp_path / devices / "result.json").read_text())["rows"] for devices in "12"]
    for row, other in zip(*rows, strict=True):
        assert row["test"]["accuracy"] == other["test"]["accuracy"]


def test_wrong_words_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run([XMODAL, "distil"], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("xmodal: There is no command 'distil'.")


@pytest.mark.slow
def test_two_devices_learn_the_same_from_a_table_that_lacks_rows(tmp_path: Path) -> None:
    answers = np.random.default_rng(0).normal(size=(1797, 10)) + 4 * np.eye(10)[load_digits(return_X_y=True)[1]]
    answers[::3] = np.nan
    np.save(tmp_path / "teacher.npy", answers)
    words = "distill digits --student fourier --epochs 2 --teacher-from teacher.npy --precision 64 --labelled 100"
    for devices in "12":
        more = f"--accelerator cpu --devices {devices} --out {devices}"
        done = subprocess.run([XMODAL, *words.split(), *more.split()], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    files = sorted((tmp_path / "1").rglob("student.safetensors"))
    for file in files:
        one, two = load_file(file), load_file(tmp_path / "2" / file.relative_to(tmp_path / "1"))
        assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6
    assert len(files) > 2

"""What only a real process shows: imports, pipes, several devices."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_two_devices_print_once(tmp_path: Path) -> None:
    words = "distill digits --teacher rows --student fourier --digits.views rows,fourier --epochs 1 --threads 1"
    more = "--no-shuffled --accelerator cpu --devices 2 --out run --json"
    done = subprocess.run([XMODAL, *words.split(), *more.split()], capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == "run"
    assert sum("kd (3/3): epoch 1/1" in line for line in done.stderr.splitlines()) == 1


def test_wrong_words_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run([XMODAL, "distil"], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("xmodal: There is no command 'distil'.")

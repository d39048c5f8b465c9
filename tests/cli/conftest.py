"""One small run that most tests look at, and a way to call commands in this process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from xmodal.cli.main import answer

Said = tuple[int, str, str]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished `xmodal distill`."""
    threads, out = torch.get_num_threads(), tmp_path_factory.mktemp("cli") / "run"
    words = "distill digits --teacher rows --student fourier --epochs 2 --threads 1 --temperature 2 --no-labels"
    assert answer([*words.split(), "--digits.views", "rows,fourier,coarse", "--out", str(out)]) == 0
    yield out
    torch.set_num_threads(threads)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Call a command line in an empty folder: exit status, standard output, standard error."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(line: str, *more: Any) -> Said:
        capsys.readouterr()
        status = answer([*line.split(), *map(str, more)])
        return status, *capsys.readouterr()

    return call


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def read() -> Callable[[Path], Any]:
    """A JSON file."""
    return load

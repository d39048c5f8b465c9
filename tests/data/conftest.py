from pathlib import Path

import numpy as np
import pytest


def write_folder(root: Path, *, rows: int = 20) -> Path:
    """A small folder without any fault: two paired modalities, three classes."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "audio.npy", random.normal(3, 2, size=(rows, 2, 8)).astype(np.float32))
    np.save(root / "image.npy", random.normal(size=(rows, 1, 4, 4)))
    np.save(root / "labels.npy", np.arange(rows) % 3)
    np.save(root / "train_idx.npy", np.arange(0, 12))
    np.save(root / "valid_idx.npy", np.arange(12, 16))
    np.save(root / "test_idx.npy", np.arange(16, rows))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic recordings of RAVDESS: 4 actors, one clip of each emotion."""
    from xmodal.data.ravdess.synthetic import make

    return make(tmp_path_factory.mktemp("ravdess") / "raw", actors=4, clips=1, seconds=0.7)


@pytest.fixture(scope="session")
def prepared(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small features and pictures of them; not to be changed."""
    from xmodal.data.ravdess.files import prepare
    from xmodal.data.ravdess.synthetic import SMALL

    prepare(recordings, root := tmp_path_factory.mktemp("ravdess") / "root", settings=SMALL)
    return root


@pytest.fixture(scope="session")
def synthetic_vggsound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty small clips of four classes, prepared, with the raw ones in a folder: not to be written to."""
    from xmodal.data.vggsound.synthetic import make

    return make(
        tmp_path_factory.mktemp("synthetic") / "vgg", format="prepared", clips=3, test_clips=2, seconds=1, size=32
    )


@pytest.fixture(scope="session")
def synthetic_nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training rooms and two test rooms, raw and prepared, NYUCAD too: not to be written to."""
    from xmodal.data.nyu.synthetic import make

    root = tmp_path_factory.mktemp("synthetic") / "nyu"
    return make(root, format="prepared", train=4, test=2, holes=0.1, cad=True)

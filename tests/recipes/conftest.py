"""Made recordings of RAVDESS and made clips of VGGSound, small and prepared once for all tests of their recipes."""

import pytest

from xmodal.data.ravdess.synthetic import make
from xmodal.data.vggsound.synthetic import make as make_vggsound


@pytest.fixture(scope="session")
def ravdess_root(tmp_path_factory):
    """24 clips of three actors: one trains, one chooses the epoch, one is the test."""
    return make(tmp_path_factory.mktemp("ravdess") / "root", format="prepared", actors=3, clips=1, seconds=0.6)


@pytest.fixture(scope="session")
def vggsound_root(tmp_path_factory):
    """Twelve clips of four classes for training, of which four choose the epoch, and eight for testing."""
    folder = tmp_path_factory.mktemp("vggsound") / "root"
    return make_vggsound(folder, format="prepared", clips=3, test_clips=2, seconds=1, size=32)

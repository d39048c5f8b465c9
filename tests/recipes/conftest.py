"""Made recordings of RAVDESS, small and prepared once for all tests of the recipes on it."""

import pytest

from xmodal.data.ravdess_made import make


@pytest.fixture(scope="session")
def ravdess_root(tmp_path_factory):
    """24 clips of three actors: one trains, one chooses the epoch, one is the test."""
    return make(tmp_path_factory.mktemp("ravdess") / "root", format="prepared", actors=3, clips=1, seconds=0.6)

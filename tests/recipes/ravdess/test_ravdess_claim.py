"""The claim of MFH on made recordings with known cues: general channels teach, specific ones do not; and its control.

Seeds and recordings are others than those on which the small networks' training was chosen.
"""

import pytest

from xmodal.data.ravdess.synthetic import make
from xmodal.recipes.ravdess import experiment

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]


def general_against_specific(folder, *, shared):
    """The paired test of five seeds, each with its own pair of networks."""
    root = make(folder / "root", format="prepared", seed=7, shared=shared)
    result = experiment.run(
        experiment.Settings(
            preset="mfh-small",
            mode=("general", "specific"),
            seeds="50-54",
            accelerator="cpu",
            options={"ravdess": {"root": str(root)}},
            out=folder / "run",
        )
    )
    return result["expectations"][0]["tests"][0]


def test_a_student_learns_from_general_channels_and_not_from_specific_ones(tmp_path):
    found = general_against_specific(tmp_path, shared=1.0)

    assert found["n"] == 5 and found["low"] > 0.0 and found["difference"] > 0.1


def test_without_shared_cues_general_channels_teach_no_better(tmp_path):
    found = general_against_specific(tmp_path, shared=0.0)

    assert found["low"] <= 0.0 and found["difference"] < 0.05

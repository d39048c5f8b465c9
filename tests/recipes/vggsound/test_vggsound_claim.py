"""The claim of MFH on made clips with known cues: general channels teach a video network, specific ones do not.

Seeds and clips are others than those on which the small networks' training was chosen.
"""

import pytest

from xmodal.data.vggsound.synthetic import make
from xmodal.recipes.vggsound import experiment

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]


def test_a_student_learns_from_general_channels_and_not_from_specific_ones(tmp_path):
    root = make(
        tmp_path / "root", format="prepared", seed=7, classes=8, clips=60, test_clips=25, seconds=1.0, workers=2
    )

    result = experiment.run(
        experiment.Settings(
            preset="small",
            precision="32",  # twice as fast; what it says is not about bits
            remove=("least", "most"),
            seeds="50-52",
            shuffled=False,
            accelerator="cpu",
            options={"vggsound": {"root": str(root)}},
            out=tmp_path / "run",
        )
    )

    (found,) = result["expectations"][0]["tests"]
    assert found["second"] == "most 0.75" and found["n"] == 3 and found["difference"] > 0.05
    accuracy = {entry["name"]: entry["mean"] for entry in result["summary"]}
    assert accuracy["teacher"] > accuracy["no-KD"] > 0.25  # two classes in eight: one bit

"""The command `embed`."""

import json
from pathlib import Path

import numpy as np

from xmodal.recipes.discom.estimator import DisCoMKD


def test_embed_writes_the_three_parts_of_every_row(call) -> None:
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    inputs = {"left": random.normal(size=(60, 5)) + y[:, None], "right": random.normal(size=(60, 3)) + y[:, None]}
    model = DisCoMKD(width=6, epochs=1, batch_size=16).fit(inputs, y)
    model.export("left", "student")
    np.save("left.npy", inputs["left"])

    status, said, _ = call("embed student left.npy --out parts.npz --json")

    assert status == 0
    assert json.loads(said)["shapes"] == dict.fromkeys(["invariant", "informative", "irrelevant"], [60, 3])
    with np.load("parts.npz", allow_pickle=False) as found:
        assert found["rows"].tolist() == list(range(60))
        for name, part in model.embed("left", inputs["left"]).items():
            np.testing.assert_allclose(found[name], part, atol=1e-6)


def test_a_student_without_parts_is_a_sentence(call, run_folder: Path) -> None:
    status, _, complained = call(f"embed {run_folder / 'seed-0/kd/students/fourier'} digits")

    assert status == 2 and "Students of the method discom have the parts" in complained
    assert list(Path.cwd().iterdir()) == []

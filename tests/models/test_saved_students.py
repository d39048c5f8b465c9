"""Students in `saved/` were written before the package was reorganised (commit 64f07b6); they still load."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmodal.deploy import open_student
from xmodal.models.student_file import load_student

SAVED = Path(__file__).parent / "saved"


@pytest.mark.parametrize("name", ["vector", "sequence"])
def test_a_student_of_an_earlier_version_loads_and_predicts_the_same(name):
    expected = json.loads((SAVED / "outputs.json").read_text())[name]

    student, description = load_student(SAVED / f"{name}.safetensors")
    outputs = open_student(SAVED / f"{name}.safetensors").predict({name: np.array(expected["inputs"], np.float32)})

    assert (student.needs, description["task"], description["classes"]) == ((name,), "multiclass", 3)
    # written on another machine, whose kernels round differently
    np.testing.assert_allclose(outputs.outputs, expected["outputs"], rtol=1e-5, atol=1e-6)

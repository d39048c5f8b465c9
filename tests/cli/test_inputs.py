import numpy as np
import pytest

from xmodal.cli.inputs import open_samples
from xmodal.data.mosi.files import make
from xmodal.data.mosi.synthetic import SyntheticSettings
from xmodal.errors import InputError

NEEDS = ["audio", "audio.lengths"]


@pytest.fixture
def root(tmp_path):
    settings = SyntheticSettings(samples=(12, 4, 4), steps=5, unaligned=True)
    return make(tmp_path / "root", format="prepared", settings=settings)


@pytest.mark.parametrize("split", ["all", "test"])
def test_a_student_gets_lengths_with_its_modality_by_name_and_by_folder(root, split):
    rows = {"all": slice(None), "test": slice(16, 20)}[split]
    expected = {name: np.load(root / f"{name}.npy")[rows] for name in NEEDS}

    for data, options in (("mosi", {"root": str(root)}), (str(root), None)):
        samples = open_samples(data, NEEDS, split=split, options=options)

        found = samples.take(0, len(samples.rows))
        assert all(np.array_equal(found[name], expected[name]) for name in NEEDS)


def test_files_of_other_modalities_are_not_needed(root):
    for name in ("text", "vision"):
        (root / f"{name}.npy").unlink()
        (root / f"{name}.lengths.npy").unlink()

    assert open_samples(str(root), NEEDS).take(0, 20)["audio"].shape == (20, 5, 8)
    assert len(open_samples("mosi", NEEDS, options={"root": str(root), "modalities": ["audio"]}).rows) == 20


def test_what_the_data_does_not_have_is_named(root):
    with pytest.raises(InputError, match="reads 'audio.tokens', which this data does not have"):
        open_samples("mosi", ["audio", "audio.tokens"], options={"root": str(root)})
    with pytest.raises(InputError, match="is 'depth'. Known: audio, text, vision"):
        open_samples("mosi", ["depth"], options={"root": str(root)})

from pathlib import Path

import pytest
import torch

from xmodal.cards import load
from xmodal.errors import InputError
from xmodal.models import BUILDERS, ENCODERS

SHAPES = {
    "linear": (3, 4),
    "mlp": (20,),
    "sequence_cnn": (3, 30),
    "image_cnn": (1, 8, 9),
    "lenet": (1, 28, 28),
    "audio_cnn": (1, 16, 24),
    "resnet18": (2, 33, 40),
}
WIDTHS = {"linear": 12, "mlp": 128, "sequence_cnn": 128, "image_cnn": 128, "lenet": 512, "audio_cnn": 128}


def build(name, shape=None, **numbers):
    torch.manual_seed(0)
    return load(ENCODERS[name])(shape or SHAPES[name], **numbers)


@pytest.mark.parametrize("name", SHAPES)
def test_encoder_maps_any_number_of_samples_to_its_width(name):
    encoder = build(name).eval()

    for rows in (1, 2, 5):
        assert encoder(torch.randn(rows, *SHAPES[name])).shape == (rows, encoder.width)
    assert encoder.width == WIDTHS.get(name, 512)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "linear"])
def test_eval_is_deterministic_and_independent_of_the_batch_while_dropout_varies_in_training(name):
    encoder = build(name, dropout=0.5)
    samples = torch.randn(4, *SHAPES[name])

    assert not torch.equal(encoder(samples), encoder(samples))
    encoder.eval()
    assert torch.equal(encoder(samples), encoder(samples))
    torch.testing.assert_close(encoder(samples)[:1], encoder(samples[:1]), rtol=1e-4, atol=1e-5)  # float32 sums


@pytest.mark.parametrize("name", ["mlp", "sequence_cnn", "image_cnn", "lenet", "audio_cnn"])
def test_width_is_a_number_of_the_builder_and_dropout_changes_no_name(name):
    assert build(name, width=7).eval()(torch.randn(2, *SHAPES[name])).shape == (2, 7)
    assert list(build(name).state_dict()) == list(build(name, dropout=0.3).state_dict())


def test_linear_returns_the_samples_themselves():
    samples = torch.randn(2, 3, 4)

    assert torch.equal(build("linear")(samples), samples.reshape(2, 12))


@pytest.mark.parametrize(("name", "other"), [("sequence_cnn", (3, 71)), ("audio_cnn", (1, 16, 57))])
def test_pooling_encoders_read_other_durations(name, other):
    assert build(name).eval()(torch.randn(2, *other)).shape == (2, 128)


@pytest.mark.parametrize(
    ("name", "smallest"), [("image_cnn", (2, 4, 4)), ("lenet", (1, 12, 12)), ("audio_cnn", (1, 8, 8))]
)
def test_smallest_picture_is_read_and_a_smaller_one_refused(name, smallest):
    assert build(name, smallest).eval()(torch.randn(1, *smallest)).shape[0] == 1
    with pytest.raises(InputError, match=f"'{name}' reads .*at least"):
        build(name, (smallest[0], smallest[1] - 1, smallest[2]))


@pytest.mark.parametrize("name", ["sequence_cnn", "image_cnn", "lenet", "audio_cnn", "resnet18"])
def test_a_vector_is_refused_with_both_shapes(name):
    with pytest.raises(InputError, match=r"reads samples of shape \(channels.*shape \(64,\)"):
        build(name, (64,))


def test_lists_name_what_exists_and_import_no_torch():
    assert all(callable(load(path)) for path in (*ENCODERS.values(), *BUILDERS.values()))
    source = Path(load("xmodal.models:__file__")).read_text(encoding="utf-8")
    assert "import" not in source.split('"""')[2]

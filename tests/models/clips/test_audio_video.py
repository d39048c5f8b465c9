"""The networks of RAVDESS: published sizes, layers, and the way through a student's file."""

import pytest
import torch

from xmodal.diagnostics.saliency import measure_saliency
from xmodal.errors import InputError
from xmodal.models.clips.audio_video import build_ravdess, ravdess_layer
from xmodal.models.layers import output_shapes
from xmodal.models.network import build_for, rebuild
from xmodal.types import Batch, DataInfo, InputInfo

MEANT = torch.device("meta")  # shapes without memory


def info_of_both():
    """Small sounds and pictures of three classes."""
    inputs = {"audio": InputInfo((1, 24, 24), layout="image"), "image": InputInfo((3, 8, 8), layout="image")}
    return DataInfo(inputs, "multiclass", 3, {})


@pytest.mark.parametrize(("modality", "parameters"), [("audio", 13_236_104), ("image", 13_071_560)])
def test_the_published_sizes(modality, parameters):
    with MEANT:
        module = build_ravdess(modality).module

    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize(
    ("modality", "shape", "shapes"),
    [
        ("audio", (1, 40, 256), [(32, 18, 126), (64, 8, 62), (128, 7, 14), (16,), (12,), (8,)]),
        ("image", (3, 256, 512), [(32, 128, 256), (64, 64, 128), (128, 7, 14), (16,), (12,), (8,)]),
    ],
)
def test_features_have_the_shapes_of_the_published_table(modality, shape, shapes):
    with MEANT:
        module = build_ravdess(modality, width=12, hidden=16).module
        found = output_shapes(module, {modality: torch.zeros(2, *shape)})

    assert [found[ravdess_layer(number, modality)] for number in range(1, 7)] == shapes
    assert ravdess_layer(0, modality) == f"input:{modality}"


@pytest.mark.parametrize(("modality", "shape"), [("audio", (1, 20, 20)), ("image", (3, 8, 8))])
def test_samples_may_have_any_size_from_the_smallest_on(modality, shape):
    module = build_ravdess(modality, shape=shape, classes=3, width=4, hidden=4).module

    assert module({modality: torch.zeros(2, *shape)}).shape == (2, 3)


def test_the_weights_of_a_seed_are_drawn_layer_by_layer():
    torch.manual_seed(0)
    module = build_ravdess("image", shape=(3, 8, 8), width=4, hidden=4).module
    torch.manual_seed(0)
    first = torch.nn.Conv2d(3, 32, 3, padding=1)

    assert torch.equal(module.encoders["from_image"].conv1.weight, first.weight)


def test_a_student_is_rebuilt_from_its_description():
    student = build_ravdess("audio", shape=(1, 20, 20), classes=3, width=4, hidden=4)
    described = {
        "needs": list(student.needs),
        "target": student.target,
        "builder": student.builder,
        "arguments": student.arguments,
    }

    rebuilt = rebuild(described)

    rebuilt.module.load_state_dict(student.module.state_dict())
    sound = {"audio": torch.randn(2, 1, 20, 20)}
    assert torch.equal(rebuilt.module(sound), student.module(sound))


def test_it_is_an_encoder_by_name():
    inputs = {"audio": InputInfo((1, 20, 24), layout="image")}

    student = build_for(DataInfo(inputs, "multiclass", 3, {}), ["audio"], encoder="ravdess_audio", width=6)

    assert student.module.head.in_features == 6 and student.arguments["inputs"]["audio"]["hidden"] == 1024


def test_wrong_asks_are_refused():
    with pytest.raises(InputError, match="audio or image, not 'video'"):
        build_ravdess("video")
    with pytest.raises(InputError, match="at least 20 x 20"):
        build_ravdess("audio", shape=(1, 19, 40))
    with pytest.raises(InputError, match="The layer is 7: expected a number from 0"):
        ravdess_layer(7, "audio")


def test_narrower_networks_have_the_same_layers():
    narrow = build_for(
        info_of_both(), ["audio"], encoder="ravdess_audio", width=6, numbers={"channels": 2, "hidden": 5}
    )

    shapes = output_shapes(narrow.module, {"audio": torch.zeros(1, 1, 24, 24)})

    assert [shapes[ravdess_layer(number, "audio")][0] for number in range(1, 7)] == [2, 4, 8, 5, 6, 3]
    assert narrow.arguments["inputs"]["audio"]["channels"] == 2 and narrow.arguments["inputs"]["audio"]["hidden"] == 5


def test_a_number_that_an_encoder_does_not_know_is_a_sentence():
    with pytest.raises(InputError, match="has no number 'hidden'"):
        build_for(info_of_both(), ["audio"], encoder="audio_cnn", numbers={"hidden": 5})


@pytest.mark.parametrize(
    ("place", "distance"), [(1, "mse"), (2, "l1"), (3, "mse"), (4, "mse"), (5, "mse"), (5, "ncjsd")]
)
def test_the_saliency_of_every_layer_is_that_of_the_loop_over_whole_networks(place, distance):
    torch.manual_seed(0)
    numbers = {"channels": 2, "hidden": 5}
    teacher = build_for(info_of_both(), ["audio"], encoder="ravdess_audio", width=6, numbers=numbers).module
    student = build_for(info_of_both(), ["image"], encoder="ravdess_image", width=6, numbers=numbers).module
    inputs = {"audio": torch.randn(40, 1, 24, 24), "image": torch.randn(40, 3, 8, 8)}
    batch = Batch(inputs, dict.fromkeys(inputs, torch.arange(40) % 3))
    how = {"distance": distance, "permutations": 2, "seed": 3}

    quick = measure_saliency(teacher, student, [batch], ravdess_layer(place, "audio"), **how)
    slow = measure_saliency(teacher, student, [batch], ravdess_layer(place, "audio"), method="naive", **how)

    assert quick.form != "naive" and quick.draws == pytest.approx(slow.draws, rel=1e-5)

"""The networks of DisCoM-KD: widths, parameter counts by the formula, encoders of your own, files."""

import numpy as np
import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.models.discom_net import Branches, SharedHeads, branches_for, branches_of, build_branches
from xmodal.models.network import build_encoder
from xmodal.models.student_file import load_student, save_student
from xmodal.types import DataInfo, InputInfo

MLP = {"encoder": "mlp", "shape": [6], "width": 8}
LENET = {"encoder": "lenet", "shape": [1, 28, 28]}
SHAPES = {"vector": (6,), "sequence": (3, 20), "image": (1, 8, 8)}
ENCODERS = {"vector": "mlp", "sequence": "sequence_cnn", "image": "image_cnn"}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def info_of(task="multiclass", classes=3, **facts):
    inputs = {name: InputInfo(shape, layout=name) for name, shape in SHAPES.items()}
    return DataInfo(inputs, task, classes, {}, **facts)


def branches(width=8, outputs=3):
    torch.manual_seed(0)
    return build_branches(modality="vector", encoder={**MLP, "width": width}, outputs=outputs)


def test_an_embedding_is_split_in_three_parts_of_half_the_width():
    """D = 512 and C = 10: parts of 256, a head from 512 to 10."""
    network = build_branches(modality="digit", encoder=LENET, outputs=10)

    parts = network.embed({"digit": torch.zeros(2, 1, 28, 28)})

    assert [tuple(part.shape) for part in parts] == [(2, 256)] * 3
    assert tuple(network.head.weight.shape) == (10, 512) and network.part_width == 256


def test_informative_and_irrelevant_are_the_halves_of_one_embedding_and_invariant_is_projected():
    network, samples = branches().eval(), torch.randn(4, 6)

    parts = network.embed({"vector": samples})

    specific = network.specific(samples)
    assert torch.equal(torch.cat([parts.informative, parts.irrelevant], dim=1), specific)
    assert torch.equal(parts.invariant, network.projection(network.invariant(samples)))
    assert all((part >= 0).all() for part in parts)


def test_the_irrelevant_part_is_not_used():
    network, samples = branches().eval(), torch.randn(4, 6)
    parts = network.embed({"vector": samples})

    spoilt = parts._replace(irrelevant=torch.full_like(parts.irrelevant, torch.nan))

    assert torch.equal(network.answer(spoilt), network({"vector": samples}))


@pytest.mark.parametrize(
    ("encoder", "width", "classes", "modalities"), [(LENET, 512, 10, 2), (MLP, 8, 3, 2), (MLP, 8, 2, 3)]
)
def test_the_number_of_parameters_is_that_of_the_formula(encoder, width, classes, modalities):
    """2 M encoders + M projections + M heads + the auxiliary head + three heads of modalities."""
    half, one = width // 2, count(build_encoder("x", encoder))

    networks = [build_branches(modality="x", encoder=encoder, outputs=classes) for _ in range(modalities)]
    found = sum(map(count, networks)) + count(SharedHeads(half, classes, modalities))

    expected = 2 * modalities * one
    expected += modalities * (width * half + half + 2 * half) + modalities * (width * classes + classes)
    expected += (half * classes + classes) + 3 * (half * modalities + modalities)
    assert found == expected


def test_the_encoders_of_the_paper_have_their_published_sizes():
    lenet, resnet = build_encoder("x", LENET), build_encoder("x", {"encoder": "resnet18", "shape": [3, 32, 32]})

    assert count(lenet) == (6 * 25 + 6) + (16 * 6 * 25 + 16) + (16 * 5 * 5 * 512 + 512)
    assert count(resnet) == 11_176_512 and lenet.width == resnet.width == 512


def test_a_hidden_layer_of_the_adversary_is_extra():
    heads = SharedHeads(4, 3, 2, adversary_hidden=5)

    assert count(heads.adversary) == (4 * 5 + 5) + 2 * 5 + (5 * 2 + 2)
    assert heads.adversary(torch.randn(6, 4)).shape == (6, 2)


@pytest.mark.parametrize("layout", SHAPES)
def test_vectors_sequences_and_pictures_work_one_by_one_too(layout):
    encoder = {"encoder": ENCODERS[layout], "shape": list(SHAPES[layout])}
    student = branches_for(info_of(), layout, encoder)

    outputs = student.module.eval()({layout: torch.randn(5, *SHAPES[layout])})
    alone = student.module({layout: torch.randn(1, *SHAPES[layout])})

    assert outputs.shape == (5, 3) and alone.shape == (1, 3)


def test_both_encoders_start_with_weights_of_their_own():
    network = branches()

    first, second = (next(encoder.parameters()) for encoder in (network.invariant, network.specific))
    assert not torch.equal(first, second)


def test_an_odd_width_is_refused():
    with pytest.raises(InputError, match="embeddings of 7 and 7 numbers: expected the same even number"):
        branches(width=7)


def test_encoders_of_your_own_are_measured_by_a_trial():
    info = info_of()
    mine = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh()) for _ in range(2)]

    student = branches_of(*mine, info, "image")

    assert student.module.part_width == 5 and student.builder is None
    assert student.module({"image": torch.randn(3, 1, 8, 8)}).shape == (3, 3)


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (nn.Linear(5, 4), "cannot read two samples of zeros"),
        (nn.Unflatten(1, (2, 3)), r"computes \(2, 2, 3\): expected \(2, width\)"),
        (nn.Linear(6, 3), "expected the same even number"),
    ],
)
def test_encoders_that_do_not_fit_are_sentences(encoder, sentence):
    import copy

    with pytest.raises(InputError, match=sentence):
        branches_of(encoder, copy.deepcopy(encoder), info_of(), "vector")


def test_one_encoder_twice_is_refused():
    encoder = nn.Linear(6, 4)

    with pytest.raises(InputError, match="are one object"):
        branches_of(encoder, encoder, info_of(), "vector")


def test_a_student_of_one_modality_is_rebuilt_from_its_file_alone(tmp_path):
    info, samples = info_of(), torch.randn(3, 6)
    student = branches_for(info, "vector", MLP)
    student.module.eval()

    loaded, description = load_student(save_student(tmp_path / "student.safetensors", student, info))

    assert isinstance(loaded.module, Branches) and description["builder"] == "discom"
    assert torch.equal(loaded.module({"vector": samples}), student.module({"vector": samples}))
    for one, other in zip(
        loaded.module.embed({"vector": samples}), student.module.embed({"vector": samples}), strict=True
    ):
        assert torch.equal(one, other)
    assert list(description["inputs"]) == ["vector"]


def test_regression_is_answered_in_the_units_of_the_targets(tmp_path):
    targets = torch.tensor(np.array([[10.0, -1.0], [30.0, -1.0]]), dtype=torch.float32)
    info = info_of("regression", 2, train_targets={"vector": targets})
    student = branches_for(info, "vector", MLP)
    network = student.module.eval()

    answers = network.answer(network.embed({"vector": torch.zeros(2, 6)}))
    loaded, _ = load_student(save_student(tmp_path / "student.safetensors", student, info))

    assert network.shift.tolist() == [20.0, -1.0] and network.scale.tolist() == [10.0, 1.0]  # a constant keeps its 1
    torch.testing.assert_close(
        network({"vector": torch.zeros(2, 6)}), 10.0 * answers * torch.tensor([1, 0.1]) + network.shift
    )
    assert network.standardised(targets).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert torch.equal(loaded.module.scale, network.scale)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"outputs": 0}, "outputs is 0"),
        ({"encoder": "mlp"}, "expected a whole number and an encoder"),
        ({"shift": [1.0]}, "shift and scale have 1 and 0 numbers"),
        ({"shift": [1.0, 2.0, 3.0]}, "go together"),
        ({"encoder": {"encoder": "mpl", "shape": [6]}}, "Did you mean 'mlp'"),
        ({"encoder": {"encoder": "lenet", "shape": [1, 8, 8]}}, "'mlp' reads every fixed shape"),
    ],
)
def test_a_description_that_can_not_be_is_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        build_branches(**{"modality": "vector", "encoder": MLP, "outputs": 3, **changes})

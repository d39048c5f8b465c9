import json

import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.models.network import Network, build_for, build_network, choose_encoder, evaluating, rebuild, student_of
from xmodal.models.small import Encoder
from xmodal.types import DataInfo, InputInfo, Normalisation

INPUTS = {
    "audio": InputInfo((20,), layout="vector"),
    "gyro": InputInfo((3, 30), layout="sequence"),
    "image": InputInfo((1, 8, 8), layout="image"),
    "values": InputInfo((6,), layout="vector"),
}


def info(*, task="multiclass", classes=4, inputs=INPUTS, normalisation=None):
    return DataInfo(inputs, task, classes, {}, normalisation=normalisation or {})


def linear(*, fusion="sum", outputs=3, **sizes):
    asked = {name: {"encoder": "linear", "shape": [size]} for name, size in sizes.items()}
    return build_network(inputs=asked, outputs=outputs, fusion=fusion)


def test_one_linear_modality_is_a_matrix_product():
    network = linear(audio=2)
    network.load_state_dict(
        {"head.weight": torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]), "head.bias": torch.tensor([0.0, 1.0, 2.0])}
    )

    outputs = network({"audio": torch.tensor([[2.0, 4.0], [1.0, 0.0]])})

    assert outputs.tolist() == [[10.0, -3.0, 10.0], [1.0, 1.0, 5.0]]


def test_sum_of_two_modalities_by_hand():
    network = linear(audio=2, image=2, outputs=1)
    network.head.weight.data, network.head.bias.data = torch.tensor([[1.0, 10.0]]), torch.tensor([0.5])
    inputs = {"audio": torch.tensor([[1.0, 2.0]]), "image": torch.tensor([[3.0, 4.0]])}

    assert network.features(inputs).tolist() == [[4.0, 6.0]]
    assert network(inputs).tolist() == [[64.5]]


def test_concatenation_keeps_the_order_of_the_modalities():
    network = linear(image=1, audio=2, fusion="concat")
    inputs = {"audio": torch.tensor([[1.0, 2.0]]), "image": torch.tensor([[3.0]])}

    assert network.features(inputs).tolist() == [[3.0, 1.0, 2.0]]
    assert network.width == network.head.in_features == 3


def test_sum_of_unlike_widths_projects_to_the_largest():
    network = linear(audio=2, image=3)
    inputs = {"audio": torch.randn(4, 2), "image": torch.randn(4, 3)}

    projected = [network.projections[f"from_{name}"](inputs[name]) for name in ("audio", "image")]

    assert network.width == 3
    assert torch.equal(network.features(inputs), projected[0] + projected[1])


def test_an_input_that_is_not_needed_is_not_read():
    network = build_for(info(), ("audio",)).module.eval()
    audio = torch.randn(3, 20)

    alone = network({"audio": audio})
    beside = network({"audio": audio, "image": torch.full((3, 1, 8, 8), torch.nan)})

    assert torch.equal(alone, beside)


def test_a_missing_input_is_a_sentence():
    with pytest.raises(InputError, match="reads 'audio'.*Known: image"):
        linear(audio=2)({"image": torch.zeros(1, 2)})


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_rebuilt_from_json_it_gives_the_same_outputs(fusion):
    student = build_for(info(), ("audio", "gyro", "values"), fusion=fusion, dropout=0.2)
    description = json.loads(
        json.dumps({"needs": student.needs, "target": "audio", "builder": "network", "arguments": student.arguments})
    )

    again = rebuild(description)
    again.module.load_state_dict(student.module.state_dict())

    inputs = {name: torch.randn(4, *INPUTS[name].shape) for name in student.needs}
    assert torch.equal(again.module.eval()(inputs), student.module.eval()(inputs))
    assert (again.needs, again.target, again.arguments) == (student.needs, student.target, student.arguments)


def test_arguments_hold_the_defaults_too():
    arguments = build_for(info(), ("audio",)).arguments

    assert arguments["inputs"]["audio"] == {
        "encoder": "mlp",
        "shape": [20],
        "width": 128,
        "dropout": 0.0,
        "bias": False,
    }


@pytest.mark.parametrize(
    ("layout", "shape", "encoder"),
    [
        ("vector", (20,), "mlp"),
        ("sequence", (3, 125), "sequence_cnn"),
        ("image", (1, 3, 9), "mlp"),
        ("image", (1, 8, 30), "image_cnn"),
        ("image", (1, 28, 28), "lenet"),
        ("image", (3, 64, 48), "resnet18"),
    ],
)
def test_auto_chooses_by_layout_and_shorter_side(layout, shape, encoder):
    assert choose_encoder("x", InputInfo(shape, layout=layout)) == encoder


def test_auto_averages_over_axes_that_vary_and_asks_when_it_cannot_know():
    assert choose_encoder("x", InputInfo((1, 40, 100), layout="image", dynamic=(2,))) == "audio_cnn"
    with pytest.raises(InputError, match="No encoder is the default for 'x'"):
        choose_encoder("x", InputInfo((2, 3, 4, 5)))


def test_student_carries_what_it_needs_and_no_more():
    statistics = {name: Normalisation([0.0], [1.0]) for name in ("audio", "image")}

    student = build_for(info(task="binary", classes=2, normalisation=statistics), ("audio", "values"))

    assert student.needs == ("audio", "values") and student.target == "audio"
    assert list(student.normalisation) == ["audio"]
    assert student.module.head.out_features == 1


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"encoder": "mpl"}, "Did you mean 'mlp'"),
        ({"encoder": "image_cnn"}, "'image_cnn' reads samples of shape"),
        ({"encoder": "linear", "width": 8}, "'linear' .* has no number 'width'"),
        ({"dropout": 1.5}, "dropout of the encoder 'mlp'"),
        ({"width": 0}, "width of the encoder 'mlp'"),
        ({"numbers": {"bias": 1}}, "bias of the encoder 'mlp' .* is 1: expected True or False"),
        ({"fusion": "concta"}, "Did you mean 'concat'"),
    ],
)
def test_wrong_wishes_are_sentences(asked, sentence):
    with pytest.raises(InputError, match=sentence):
        build_for(info(), ("audio",), **asked)


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"a": {"encoder": "os:system", "shape": [2]}}, "outputs": 2},
        {"inputs": {"a": {"encoder": "mlp", "shape": []}}, "outputs": 2},
        {"inputs": {"a": {"encoder": "mlp", "shape": [2], "width": "8"}}, "outputs": 2},
        {"inputs": {"a": "mlp"}, "outputs": 2},
        {"inputs": {"a.lengths": {"encoder": "mlp", "shape": [2]}}, "outputs": 2},
        {"inputs": {}, "outputs": 2},
        {"inputs": {"a": {"encoder": "mlp", "shape": [2]}}, "outputs": True},
    ],
)
def test_arguments_that_make_no_network_are_refused(arguments):
    with pytest.raises(InputError):
        build_network(**arguments)


def test_an_unknown_builder_or_argument_is_refused_and_nothing_imported():
    base = {"needs": ["a"], "target": "a"}

    with pytest.raises(InputError, match="no builder of students called 'os:system'. Known: "):
        rebuild({**base, "builder": "os:system", "arguments": {"command": "true"}})
    with pytest.raises(InputError, match="cannot take the arguments"):
        rebuild({**base, "builder": "network", "arguments": {"comand": 1}})


def test_a_module_of_ones_own_reads_one_tensor_or_a_dictionary():
    class Both(nn.Module):
        def forward(self, inputs):
            return inputs["audio"][:, :4] + inputs["values"][:, :4]

    one = student_of(nn.Linear(20, 4), info(), ("audio",))
    both = student_of(Both(), info(), ("audio", "values"))
    inputs = {"audio": torch.ones(2, 20), "values": torch.ones(2, 6), "image": torch.ones(2, 1, 8, 8)}

    assert one.module(inputs).shape == (2, 4) and one.builder is None
    assert torch.equal(both.module(inputs), torch.full((2, 4), 2.0))


def test_dry_run_says_what_was_expected_and_leaves_the_module_alone():
    module = nn.Sequential(nn.BatchNorm1d(20), nn.Dropout(0.5), nn.Linear(20, 3))
    module[0].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    with pytest.raises(InputError, match=r"computes \(2, 3\), but \(2, 4\) was expected: 4 output"):
        student_of(module, info(), ("audio",))

    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.training and not module[0].training and module[1].training


def test_dry_run_turns_a_module_that_cannot_read_the_data_into_a_sentence():
    with pytest.raises(InputError, match=r"cannot read two samples of zeros \('audio' \(2, 20\)\)"):
        student_of(nn.Linear(19, 4), info(), ("audio",))


def test_an_unknown_modality_is_a_sentence():
    with pytest.raises(InputError, match="Did you mean 'audio'"):
        build_for(info(), ("adio",))


def test_an_encoder_without_a_width_is_refused():
    with pytest.raises(InputError, match="'width'"):
        Network({"audio": nn.Linear(2, 2)}, nn.Linear(2, 1))
    assert Network({"audio": Encoder(nn.Linear(2, 2), 2)}, nn.Linear(2, 1)).width == 2


def test_evaluating_restores_each_part_after_an_error():
    module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    with pytest.raises(ZeroDivisionError), evaluating(module):
        assert not module[0].training
        1 / 0  # noqa: B018

    assert module.training and module[0].training and not module[1].training

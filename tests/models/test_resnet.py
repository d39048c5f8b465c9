import math
import os

import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.models.resnet import VIDEO, BasicBlock, Bottleneck, ResNet, build_resnet18, load_weights

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# torchvision's documented numbers of parameters, 3 channels and 1000 classes
COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


def whole(depth, *, channels=3, outputs=1000):
    return ResNet(BasicBlock if depth < 50 else Bottleneck, DEPTHS[depth], channels=channels, outputs=outputs)


@pytest.mark.parametrize("depth", COUNTS)
def test_number_of_parameters_is_the_published_one(depth):
    with torch.device("meta"):
        network = whole(depth)

    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[depth]


def expected_names(depths, convolutions, shortcut_in_first):
    """Written from torchvision's files: the rule in an explicit loop, with nothing of ours."""
    names = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            for number in range(1, convolutions + 1):
                place = f"layer{stage}.{block}"
                names += [f"{place}.conv{number}.weight", f"{place}.bn{number}.weight", f"{place}.bn{number}.bias"]
            if block == 0 and (stage > 1 or shortcut_in_first):
                place = f"layer{stage}.0.downsample"
                names += [f"{place}.0.weight", f"{place}.1.weight", f"{place}.1.bias"]
    return [*names, "fc.weight", "fc.bias"]


def test_parameter_names_are_those_of_torchvision():
    with torch.device("meta"):
        small, large = whole(18), whole(50)

    assert [name for name, _ in small.named_parameters()] == expected_names((2, 2, 2, 2), 2, False)
    assert [name for name, _ in large.named_parameters()] == expected_names((3, 4, 6, 3), 3, True)
    assert len(list(small.parameters())) == 62 and len(list(large.parameters())) == 161
    assert len(small.state_dict()) == 122 and len(large.state_dict()) == 320
    assert large.layer3[0].conv2.stride == (2, 2) and large.layer3[0].conv1.stride == (1, 1)


def test_picture_shrinks_to_a_thirty_second():
    trunk = build_resnet18((1, 64, 96)).eval()
    seen = []
    trunk.layer4.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))

    assert trunk(torch.randn(2, 1, 64, 96)).shape == (2, 512)
    assert seen == [(2, 512, 2, 3)]


def test_weights_of_a_distributed_run_with_a_classification_layer_load_into_a_trunk(tmp_path):
    source = whole(18, outputs=5)
    stored = {f"module.{name}": tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "weights.pth")
    trunk = build_resnet18((3, 64, 64))

    load_weights(trunk, tmp_path / "weights.pth")

    pictures = torch.randn(2, 3, 64, 64)
    source.fc = nn.Identity()
    assert torch.equal(trunk.eval()(pictures), source.eval()(pictures))


def test_mismatches_are_named_and_nothing_is_loaded(tmp_path):
    stored = whole(18, outputs=5).state_dict()
    stored["extra.weight"] = stored.pop("layer1.0.conv1.weight")
    torch.save(stored, tmp_path / "weights.pth")
    network = whole(18, channels=1, outputs=5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    with pytest.raises(InputError) as refusal:
        load_weights(network, tmp_path / "weights.pth")

    missing, unknown, shapes = refusal.value.problems
    assert "1 missing in the file: layer1.0.conv1.weight" in missing
    assert "1 unknown to the network: extra.weight" in unknown
    assert "conv1.weight (expected (64, 1, 7, 7), file (64, 3, 7, 7))" in shapes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("channels", [1, 5])
def test_first_convolution_is_adapted_when_asked_and_answers_grey_pictures_alike(tmp_path, channels):
    source = build_resnet18((3, 64, 64)).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    trunk = build_resnet18((channels, 64, 64)).eval()
    grey = torch.randn(2, 1, 64, 64)

    load_weights(trunk, tmp_path / "weights.pth", adapt_first=True)

    expected = source(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(trunk(grey.expand(-1, channels, -1, -1)), expected, rtol=1e-3, atol=1e-4)  # other order


def test_convolutions_of_pictures_inflate_to_videos_that_stand_still(tmp_path):
    """Away from the first and last frame the response to a still video is that of its picture."""
    source = ResNet(BasicBlock, (1, 1, 1, 1), width=16).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = ResNet(BasicBlock, (1, 1, 1, 1), width=16, padding=(1, 3, 3), axes=VIDEO).eval()
    picture = torch.randn(2, 3, 32, 32)

    load_weights(network, tmp_path / "weights.pth", inflate=True)

    still = picture[:, :, None].expand(-1, -1, 21, -1, -1)
    torch.testing.assert_close(network.conv1(still)[:, :, 5], source.conv1(picture), rtol=1e-3, atol=1e-5)
    frames = network.stages(still)[0]
    torch.testing.assert_close(frames[:, :, 3], source.stages(picture)[0], rtol=1e-3, atol=1e-4)  # other order of sums
    assert torch.equal(network.bn1.running_mean, source.bn1.running_mean)


def test_pictures_do_not_inflate_unless_asked(tmp_path):
    torch.save(ResNet(BasicBlock, (1, 1, 1, 1), width=16).state_dict(), tmp_path / "weights.pth")
    network = ResNet(BasicBlock, (1, 1, 1, 1), width=16, padding=(1, 3, 3), axes=VIDEO)

    with pytest.raises(InputError, match=r"conv1.weight \(expected \(2, 3, 3, 7, 7\), file \(2, 3, 7, 7\)\)"):
        load_weights(network, tmp_path / "weights.pth")


def test_first_convolution_is_adapted_and_inflated_at_once(tmp_path):
    source = ResNet(BasicBlock, (1, 1, 1, 1), width=16)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = ResNet(BasicBlock, (1, 1, 1, 1), width=16, channels=1, padding=(1, 3, 3), axes=VIDEO)

    load_weights(network, tmp_path / "weights.pth", adapt_first=True, inflate=True)

    torch.testing.assert_close(network.conv1.weight.sum(dim=(1, 2)), source.conv1.weight.sum(dim=1))


@pytest.mark.parametrize(("block", "width"), [(BasicBlock, 12), (BasicBlock, 5), (Bottleneck, 64), (Bottleneck, 9)])
def test_a_width_is_that_of_the_embedding_and_halves_from_stage_to_stage(block, width):
    network = ResNet(block, (1, 1, 1, 1), width=width).eval()

    stages = network.stages(torch.randn(2, 3, 64, 96))

    assert [stage.shape[1] for stage in stages] == [math.ceil(width / parts) for parts in (8, 4, 2, 1)]
    assert [tuple(stage.shape[2:]) for stage in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert network(torch.randn(2, 3, 64, 96)).shape == (2, width)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": Malicious(str(tmp_path / "executed"))}, tmp_path / "weights.pth")

    with pytest.raises(InputError, match="could run code, so it is refused"):
        load_weights(build_resnet18((3, 32, 32)), tmp_path / "weights.pth")

    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip file"])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)

    with pytest.raises(InputError, match="weights.pth"):
        load_weights(nn.Linear(1, 1), tmp_path / "weights.pth")


def test_other_contents_and_a_missing_file_are_sentences(tmp_path):
    torch.save({"weight": [1.0]}, tmp_path / "list.pth")

    with pytest.raises(InputError, match="dictionary of tensors"):
        load_weights(nn.Linear(1, 1), tmp_path / "list.pth")
    with pytest.raises(InputError, match="There is no file"):
        load_weights(nn.Linear(1, 1), tmp_path / "absent.pth")


def test_tensors_without_names_are_a_sentence(tmp_path):
    torch.save({1: torch.ones(1), "bias": torch.ones(1)}, tmp_path / "weights.pth")

    with pytest.raises(InputError, match=r"weights.pth contains tensors without a name \(1\)"):
        load_weights(nn.Linear(1, 1), tmp_path / "weights.pth")


@pytest.mark.parametrize("shape", [(), (64,)])
def test_a_first_convolution_of_too_few_axes_is_told_with_the_other_shapes(tmp_path, shape):
    trunk = build_resnet18((1, 32, 32), width=16)
    torch.save(trunk.state_dict() | {"conv1.weight": torch.ones(shape)}, tmp_path / "weights.pth")

    with pytest.raises(InputError, match=r"1 of another shape: conv1.weight \(expected"):
        load_weights(trunk, tmp_path / "weights.pth", adapt_first=True)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.tensor([[float("nan")]]), "are not finite: weight"),
        (torch.tensor([[float("inf")]]), "are not finite: weight"),
        (torch.tensor([[1]]), "are no floating-point numbers: weight"),
        (torch.tensor([[1j]]), "are no floating-point numbers: weight"),
    ],
)
def test_what_can_be_no_weight_is_a_sentence_and_nothing_is_loaded(tmp_path, weight, said):
    torch.save({"weight": weight, "bias": torch.full((1,), 7.0)}, tmp_path / "weights.pth")
    network = nn.Linear(1, 1)

    with pytest.raises(InputError, match=f"1 weights in .*weights.pth {said}"):
        load_weights(network, tmp_path / "weights.pth")

    assert network.bias.item() != 7.0


def test_weights_of_half_precision_load(tmp_path):
    torch.save({"weight": torch.tensor([[0.5]]).half(), "bias": torch.zeros(1).half()}, tmp_path / "weights.pth")
    load_weights(network := nn.Linear(1, 1), tmp_path / "weights.pth")

    assert network.weight.item() == 0.5 and network.weight.dtype == torch.float32

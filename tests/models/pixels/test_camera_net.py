import pytest
import torch

from xmodal.errors import InputError
from xmodal.models.network import build_network
from xmodal.models.pixels.camera_net import CameraEncoder, build_camera_resnet10, load_imagenet, stage_widths
from xmodal.models.resnet import DEPTHS, ResNet


def camera(encoder="camera_resnet10", **numbers):
    asked = {"encoder": encoder, "shape": [3, 32, 48], **numbers}
    return build_network(inputs={"image": asked}, outputs=5, dense=True)


def published(tmp_path, depth=10, width=64, change=lambda weights: weights):
    """A file as torchvision's: a classification layer, no counters of batches, and a prefix."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = ResNet(*DEPTHS[depth], outputs=1000, width=width).state_dict()
    kept = {f"module.{name}": tensor for name, tensor in weights.items() if "num_batches" not in name}
    torch.save({"state_dict": change(kept)}, tmp_path / "resnet.pth")
    return tmp_path / "resnet.pth", weights


def test_the_encoder_halves_once_before_its_stages_and_the_decoder_comes_all_the_way_back():
    net = build_camera_resnet10((3, 32, 48), channels=64)
    samples = torch.zeros(2, 3, 32, 48)

    shapes = [tuple(maps.shape[1:]) for maps in net.encoder.stages(samples)]

    assert shapes == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
    assert stage_widths(net.encoder) == (8, 16, 32, 64)
    assert net(samples).shape == (2, 16, 32, 48)


def test_the_last_stage_reads_what_dropout_left_of_the_one_before():
    block, depths = DEPTHS[10]
    encoder = CameraEncoder(block, depths, channels=3, width=16, dropout=0.9)
    encoder.eval()
    seen = {}
    encoder.layer4.register_forward_pre_hook(lambda layer, given: seen.update(read=given[0]))
    encoder.drop3.train()

    stages = encoder.stages(torch.rand(1, 3, 32, 32))

    assert torch.equal(seen["read"], stages[2])
    assert (stages[2] == 0).float().mean() > 0.5


def test_the_head_looks_at_three_by_three_places():
    assert camera().head.kernel_size == (3, 3) and camera()({"image": torch.zeros(1, 3, 32, 48)}).shape == (
        1,
        5,
        32,
        48,
    )


def test_imagenet_weights_load_without_their_classification_layer(tmp_path):
    path, weights = published(tmp_path)
    network = camera()

    load_imagenet(network, path)

    encoder = network.encoders["from_image"].encoder
    assert torch.equal(encoder.conv1.weight, weights["conv1.weight"])
    assert torch.equal(encoder.layer4[0].bn2.running_var, weights["layer4.0.bn2.running_var"])


def test_weights_of_another_network_are_refused_with_names_and_nothing_is_loaded(tmp_path):
    def spoil(weights):
        weights = {**weights, "module.layer9.conv.weight": torch.zeros(1)}
        del weights["module.layer2.0.conv1.weight"]
        return {**weights, "module.conv1.weight": torch.zeros(8, 4, 7, 7)}

    path, _ = published(tmp_path, change=spoil)
    network = camera()
    before = network.encoders["from_image"].encoder.conv1.weight.clone()

    with pytest.raises(InputError) as error:
        load_imagenet(network, path)

    said = str(error.value)
    assert "missing in the file: layer2.0.conv1.weight" in said and "layer9.conv.weight" in said
    assert "conv1.weight (expected (8, 3, 7, 7), file (8, 4, 7, 7))" in said
    assert torch.equal(network.encoders["from_image"].encoder.conv1.weight, before)


def test_asking_for_weights_without_a_file_says_how_to_give_one(tmp_path):
    with pytest.raises(InputError, match="requested without a file, and nothing is downloaded"):
        load_imagenet(camera(), None)
    with pytest.raises(InputError, match="There is no file"):
        load_imagenet(camera(), tmp_path / "absent.pth")
    with pytest.raises(InputError, match="has 0 camera encoders"):
        load_imagenet(torch.nn.Linear(1, 1), tmp_path / "absent.pth")

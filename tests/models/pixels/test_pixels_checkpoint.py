"""The authors' files of PMFNet and SalsaNext: their names, their outputs, and files that do not fit."""

import pytest
import torch
import torch.nn.functional as F
from authors_golden import authors_networks, swaps

from xmodal.errors import InputError
from xmodal.models.network import build_network
from xmodal.models.pixels.authors_weights import load_published, ours
from xmodal.models.pixels.pmf_net import build_pmf_net


def lidar_network(side, width=32):
    salsanext = {"encoder": "salsanext", "shape": [5, *side], "width": width}
    return build_network(inputs={"lidar": salsanext}, outputs=20, dense=True).double().eval()


def camera_network(side):
    camera = {"encoder": "camera_resnet34", "shape": [3, *side]}
    return build_network(inputs={"image": camera}, outputs=20, dense=True).double().eval()


def both_networks(side):
    camera = {"name": "image", "encoder": "camera_resnet34", "shape": [3, *side]}
    return build_pmf_net(lidar={"name": "lidar", "shape": [5, *side]}, camera=camera, outputs=20).double().eval()


def saved(path, tensors, *, prefix="", whole=False):
    """A checkpoint of the authors' trainers: tensors alone (the best), or with the optimiser (of every epoch)."""
    named = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    state = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    torch.save({"model": named, "optimizer": state, "epoch": 3} if whole else named, path)
    return path


@pytest.fixture(scope="module")
def salsanext():
    return authors_networks("SalsaNext")


@torch.no_grad()
def test_salsanext_of_the_authors_computes_their_outputs(salsanext, tmp_path):
    for golden in salsanext:
        (points,) = golden.inputs()
        network = lidar_network(points.shape[2:])
        load_published(network, saved(tmp_path / "best_IOU_model.pth", golden.state()))

        golden.check(network({"lidar": points}).softmax(dim=1))


@torch.no_grad()
def test_pmfnet_of_the_authors_computes_the_outputs_of_both_streams(tmp_path):
    for golden in authors_networks("PMFNet"):
        path = saved(tmp_path / "checkpoint.pth", golden.state(), prefix="module.", whole=True)
        points, picture = golden.inputs()
        network = both_networks(points.shape[2:])
        load_published(network, path)

        outputs = network.streams({"lidar": points, "image": picture})
        golden.check(*(logits.softmax(dim=1) for logits in outputs))


def convolved(x, tensors, name, *, dilation=1):
    """A convolution of the authors' file that keeps height and width."""
    weight = tensors[f"{name}.weight"]
    return F.conv2d(
        x, weight, tensors[f"{name}.bias"], padding=dilation * (weight.shape[-1] - 1) // 2, dilation=dilation
    )


def normed(x, tensors, name):
    mean, var, weight, bias = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def scales(x, tensors, block, numbers):
    """The four convolutions of a block: two of side 3, one of side 2 and one that joins them."""
    parts = []
    for norm, (number, dilation) in enumerate(zip(numbers[:3], (1, 2, 2), strict=True), start=1):
        x = normed(
            F.leaky_relu(convolved(x, tensors, f"{block}.conv{number}", dilation=dilation)),
            tensors,
            f"{block}.bn{norm}",
        )
        parts.append(x)
    return normed(
        F.leaky_relu(convolved(torch.cat(parts, 1), tensors, f"{block}.conv{numbers[3]}")), tensors, f"{block}.bn4"
    )


def salsanext_by_their_names(x, tensors):
    """SalsaNext, written from its description a second time, on the tensors of a file under the authors' names."""
    for block in ("downCntx", "downCntx2", "downCntx3"):
        shortcut = F.leaky_relu(convolved(x, tensors, f"{block}.conv1"))
        near = normed(F.leaky_relu(convolved(shortcut, tensors, f"{block}.conv2")), tensors, f"{block}.bn1")
        far = F.leaky_relu(convolved(near, tensors, f"{block}.conv3", dilation=2))
        x = shortcut + normed(far, tensors, f"{block}.bn2")
    skips = []
    for number in range(1, 6):
        block = f"resBlock{number}"
        x = F.leaky_relu(convolved(x, tensors, f"{block}.conv1")) + scales(x, tensors, block, (2, 3, 4, 5))
        if number < 5:
            skips.append(x)
            x = F.avg_pool2d(x, 3, stride=2, padding=1)
    for number in range(1, 5):
        x = scales(torch.cat([F.pixel_shuffle(x, 2), skips[4 - number]], 1), tensors, f"upBlock{number}", (1, 2, 3, 4))
    return convolved(x, tensors, "logits")


@torch.no_grad()
def test_two_exchanged_tensors_of_one_shape_change_the_outputs_wherever_they_stand(salsanext, tmp_path):
    """The golden weights hide the deepest stages behind 1e-8; these random ones hide none, in a network of width 4."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in salsanext[0].shapes.items():
        # 5 channels and 20 classes stay, all other widths are divided by 8
        narrow = [size if size in (5, 20) or axis > 1 else size // 8 for axis, size in enumerate(shape)]
        drawn = torch.rand(narrow, generator=random, dtype=torch.float64)
        tensors[name] = drawn + 0.5 if drawn.ndim < 2 else (2 * drawn - 1) / drawn[0].numel() ** 0.5
    points = torch.rand(1, 5, 32, 32, generator=random, dtype=torch.float64)
    network = lidar_network([32, 32], width=4)

    load_published(network, saved(tmp_path / "narrow.pth", tensors, prefix="lidar_stream.", whole=True))
    expected = salsanext_by_their_names(points, tensors)
    torch.testing.assert_close(network({"lidar": points}), expected, rtol=1e-10, atol=1e-10)
    pairs = swaps(tensors)
    assert len(pairs) > 200
    for first, second in pairs[::16]:
        network.load_state_dict(ours(network, {**tensors, first: tensors[second], second: tensors[first]}, "a file"))
        assert (network({"lidar": points}) - expected).abs().max() > 1e-6, (first, second)


def test_every_tensor_of_pmfnet_has_a_place_of_its_own():
    network = both_networks([32, 32])
    for golden in authors_networks("PMFNet"):
        numbered = {name: torch.full((1,), float(place)) for place, name in enumerate(golden.shapes)}
        renamed = ours(network, numbered, "a file")

        assert renamed.keys() == network.state_dict().keys() and len(renamed) == len(golden.shapes)
        # the golden outputs hide an exchange of these: the deepest stage changes them by less than 1e-8
        for theirs, mine in [
            ("aspp.conv", "pyramid.everywhere"),
            ("aspp.atrous_block1", "pyramid.place"),
            ("aspp.atrous_block6", "pyramid.rings.0"),
            ("aspp.atrous_block12", "pyramid.rings.1"),
            ("aspp.atrous_block18", "pyramid.rings.2"),
            ("fusionblock_3.fuse_conv.0", "fusions.2.join.0"),
            ("fusionblock_4.attention.3", "fusions.3.gate.3"),
        ]:
            assert renamed[f"{mine}.weight"] is numbered[f"lidar_stream.{theirs}.weight"], theirs
        # the same file holds the camera network, which reads pictures alone
        camera = camera_network([32, 32])
        alone = ours(camera, numbered, "a file")
        assert alone.keys() == camera.state_dict().keys()
        assert alone["encoders.from_image.up3.0.weight"] is numbered["camera_stream_decoder.up_3a.0.weight"]


def test_files_of_other_networks_are_refused_with_what_they_hold(salsanext, tmp_path):
    # views of one number: files of a few bytes for tensors of any shape
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in salsanext[0].shapes.items()}
    pmf = {name: torch.zeros(()).expand(shape) for name, shape in authors_networks("PMFNet")[0].shapes.items()}

    path = saved(tmp_path / "salsanext.pth", tensors)
    with pytest.raises(InputError, match="holds the LiDAR stream, and this network needs the camera stream"):
        load_published(camera_network([32, 32]), path)
    with pytest.raises(InputError, match="of another shape: encoders.from_lidar.context1"):
        load_published(lidar_network([32, 32], width=8), path)
    with pytest.raises(InputError, match="holds PMFNet, whose LiDAR stream reads the camera's maps"):
        load_published(lidar_network([32, 32]), saved(tmp_path / "pmf.pth", pmf))
    with pytest.raises(InputError, match="holds none of the authors' names"):
        load_published(both_networks([32, 32]), saved(tmp_path / "other.pth", {"fc.weight": torch.zeros(2)}))
    del tensors["upBlock1.conv1.weight"]
    with pytest.raises(InputError, match="1 missing in the file: encoders.from_lidar.up1.scales.near.0.weight"):
        load_published(lidar_network([32, 32]), saved(tmp_path / "less.pth", tensors))
    with pytest.raises(InputError, match="There is no file"):
        load_published(lidar_network([32, 32]), tmp_path / "none.pth")

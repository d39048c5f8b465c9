"""Files named as the public code of the networks names them. No file of the authors is at hand: these are made."""

import pytest
import torch

from xmodal.errors import InputError
from xmodal.models.scenes.authors_weights import load_published, our_name
from xmodal.models.scenes.build import build_scene
from xmodal.types import DataInfo, InputInfo

NETWORKS = {
    "ddrnet_rgbd": ("ddrnet", ["depth", "rgb"]),
    "ddrnet_depth": ("ddrnet", ["depth"]),
    "aicnet": ("aicnet", ["depth", "rgb"]),
    "grfnet": ("grfnet", ["depth", "rgb"]),
    "palnet": ("palnet", ["depth"]),
}
BLOCK2D = ["conv_in.weight", *(f"{line}.{part}" for line in ("conv_1xk", "conv_kx1") for part in ("weight", "bias"))]
BLOCK2D += ["conv_out.weight"]
LINES = [f"{line}.{part}" for line in ("conv1x1x3", "conv1x3x1", "conv3x1x1") for part in ("weight", "bias")]
BLOCK3D = ["conv_in.weight", *LINES, "conv_out.weight"]
AIC = ["conv_in.weight", "basic_aic.conv_mx.weight", "conv_out.weight"] + [
    f"basic_aic.{line}.{number}.{part}"
    for line in ("conv_1x1xk", "conv_1xkx1", "conv_kx1x1")
    for number in range(3)
    for part in ("weight", "bias")
]


def below(first, rest):
    return [f"{first}.{name}" for name in rest]


def both(*names):
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def published_names(name):
    """All names in a file of the authors."""
    if name == "palnet":
        heads = ["conv4_1", "conv4_2", "fc12", "s_conv1_depth", "pool2", "conv2d_depth.0"]
        found = both(*heads, *(f"res_depth.{number}" for number in (0, 2, 4)))
        found += [f"reduction{level}_{side}.weight" for level in (2, 3) for side in (1, 2)]
        plain = [f"conv{level}_{side}" for level, side in ((2, 1), (2, 2), (3, 1), (3, 2), (3, 3))]
        found += both(*(f"{block}.{number}" for block in plain for number in (0, 2, 4)))
        return found + both(*(f"{block}.{number}" for block in ("conv3_5", "conv3_7") for number in (0, 2, 3, 5)))
    block = AIC if name == "aicnet" else BLOCK3D
    found = []
    for side in ("dep",) if name == "ddrnet_depth" else ("dep", "rgb"):
        found += both(f"{side}_feature2d.0")
        found += below(f"{side}_feature2d.1", BLOCK2D) + below(f"{side}_feature2d.2", BLOCK2D)
        found += [f"{side}_feature3d.0.conv.weight", f"{side}_feature3d.2.conv.weight"]
        found += below(f"{side}_feature3d.1", BLOCK3D) + below(f"{side}_feature3d.3", BLOCK3D)
    for letter in "dr":  # those of both modalities, whether it has both or not
        for number in (1, 2, 3):
            found += below(f"res3d_{number}{letter}", block)
    if name == "aicnet":
        found += below("aspp_1", AIC) + below("aspp_2", AIC)
    else:
        found += ["aspp.aspp0.weight", "aspp.global_avg_pool.1.weight"]
        found += [one for number in (1, 2, 3) for one in below(f"aspp.aspp{number}", BLOCK3D)]
    found += both("gru.in_conv", "gru.out_conv") if name == "grfnet" else []
    return found + both(*(f"conv_out.{number}" for number in ((0, 2) if name == "grfnet" else (0, 2, 4))))


def build(name, *, unused=False):
    position = InputInfo((4, 4), dtype="int64")
    inputs = {
        "depth": InputInfo((1, 4, 4)),
        "rgb": InputInfo((3, 4, 4)),
        "depth.tsdf": InputInfo((1, 4, 4, 4)),
        "depth.position": position,
    }
    info = DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=(1, 1, 1))
    kind, modalities = NETWORKS[name]
    return build_scene(info, modalities, network=kind, unused=unused and kind == "ddrnet").module


def made_file(name, path, *, nested=True):
    """A file as the authors' code writes it: every tensor of one of our networks under its published name."""
    network = build(name, unused=name == "ddrnet_depth")
    ours = network.state_dict()
    found = {f"module.{theirs}": ours[our_name(network, theirs)] for theirs in published_names(name)}
    torch.save({"state_dict": found} if nested else found, path)
    return network, found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_published_name_means_one_tensor_and_all_of_ours_are_meant(name, tmp_path):
    network, found = made_file(name, tmp_path / "cp.pth.tar")

    mine = {our_name(network, theirs.removeprefix("module.")) for theirs in found}

    assert mine == set(network.state_dict()) and len(mine) == len(found)


def test_the_published_depth_variant_has_112_tensors_and_168232_numbers(tmp_path):
    _, found = made_file("ddrnet_depth", tmp_path / "cp.pth.tar")

    assert len(found) == 112 and sum(tensor.numel() for tensor in found.values()) == 168232


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("nested", [True, False])
def test_a_file_is_read_into_a_network_and_blocks_that_nothing_reads_are_dropped(name, nested, tmp_path):
    source, _ = made_file(name, tmp_path / "cp.pth.tar", nested=nested)
    network = build(name)

    load_published(network, tmp_path / "cp.pth.tar")

    mine, theirs = network.state_dict(), source.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


def test_unused_blocks_are_read_where_the_network_has_them(tmp_path):
    source, _ = made_file("ddrnet_depth", tmp_path / "cp.pth.tar")
    network = build("ddrnet_depth", unused=True)

    load_published(network, tmp_path / "cp.pth.tar")

    assert all(map(torch.equal, network.state_dict().values(), source.state_dict().values()))


def test_a_file_of_another_network_is_refused_with_names(tmp_path):
    made_file("grfnet", tmp_path / "cp.pth.tar")

    with pytest.raises(InputError, match=r"unknown to the network: .*cell\.gates"):
        load_published(build("ddrnet_rgbd"), tmp_path / "cp.pth.tar")

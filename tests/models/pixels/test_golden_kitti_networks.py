"""SalsaNext, the camera network and PMFNet against numbers of the published code, through the builders of students."""

import functools
import re

import pytest
import torch
from array_golden import filled, golden_cases, hashed, parameter_counts, uniform

from xmodal.models.capacity import count_parameters
from xmodal.models.network import build_network
from xmodal.models.pixels.camera_net import CameraEncoder
from xmodal.models.pixels.pmf_net import Fusion, Pyramid, build_pmf_net
from xmodal.models.resnet import DEPTHS


def salsanext(channels, width, outputs, side=(32, 64)):
    asked = {"encoder": "salsanext", "shape": [channels, *side], "width": width}
    return build_network(inputs={"lidar": asked}, outputs=outputs, dense=True)


def camera(backbone, outputs=20, side=(32, 64)):
    asked = {"encoder": f"camera_{backbone}", "shape": [3, *side]}
    return build_network(inputs={"image": asked}, outputs=outputs, dense=True)


def pmf(backbone, width, outputs=20, side=(32, 64)):
    lidar = {"name": "lidar", "shape": [5, *side], "width": width}
    image = {"name": "image", "encoder": f"camera_{backbone}", "shape": [3, *side]}
    return build_pmf_net(lidar=lidar, camera=image, outputs=outputs)


@functools.cache
def without_memory(build, *numbers):
    """A network whose tensors are shapes alone."""
    with torch.device("meta"):
        return build(*numbers)


def size_of(name):
    """Parameters of what a name stands for; None for networks of other experiments."""
    backbone = (re.findall(r"resnet\d+", name) or [""])[0]
    numbers = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", name)}
    if name.startswith("SalsaNext"):
        return count_parameters(without_memory(salsanext, numbers["in"], numbers["base"], numbers["classes"]))
    if name.startswith("camera_"):
        network = without_memory(camera, backbone)
        encoder = count_parameters(network.encoders["from_image"].encoder)
        return encoder if "encoder" in name else count_parameters(network) - encoder
    if name.startswith(("PMFNet", "lidar_stream")):
        network = without_memory(pmf, backbone, numbers["base"])
        return (
            count_parameters(network) if name.startswith("PMF") else sum(p.numel() for p in network.lidar_parameters())
        )
    return None


def features(maps):
    """What the golden files hold of a list of maps."""
    return {
        "feat_shapes": [list(part.shape) for part in maps],
        "feat_mean": [part.double().mean().item() for part in maps],
        "feat_std": [part.double().std().item() for part in maps],
        "feat_last": maps[-1].detach().numpy(),
    }


def sampled(answers):
    return answers.detach()[:, :, ::4, ::4].numpy()


def test_golden_kitti_networks_have_as_many_parameters():
    counts = {name: (size_of(name), count) for name, count in parameter_counts().items()}
    known = {name: pair for name, pair in counts.items() if pair[0] is not None}

    assert {name: mine for name, (mine, _) in known.items()} == {name: count for name, (_, count) in known.items()}


@torch.no_grad()
def test_golden_kitti_salsanext_answers():
    for case in golden_cases("kitti/net_salsanext"):
        p = case.params
        network = filled(
            salsanext(p["in_channels"], p["base_channels"], p["nclasses"]), gain=p["gain"], offset=case.offset
        )
        samples = hashed(p["input_salt"], p["input"], signed=p.get("input_signed", True))

        answers = network({"lidar": samples})

        assert count_parameters(network) == p.get("params", count_parameters(network))
        found = {"logits": sampled(answers), "prob": sampled(answers.softmax(dim=1))}
        assert case.check(**found)


@torch.no_grad()
def test_golden_kitti_camera_network_answers():
    for case in golden_cases("kitti/net_camera"):
        p = case.params
        network = filled(camera(p["backbone"], p["nclasses"]), gain=p["gain"], offset=case.offset)
        samples = hashed(p["input_salt"], p["input"], signed=p.get("input_signed", False))

        answers = network({"image": samples}).softmax(dim=1)

        found = {"prob": sampled(answers), **features(network.encoders["from_image"].encoder.stages(samples))}
        assert case.check(**found)
        assert count_parameters(network) == p.get("params", count_parameters(network))


@torch.no_grad()
def test_golden_kitti_pmf_network_answers():
    for case in golden_cases("kitti/net_pmf"):
        p = case.params
        network = filled(pmf(p["backbone"], p["base_channels"], p["nclasses"]), gain=p["gain"], offset=case.offset)
        pictures = {
            "lidar": hashed(p["pcd_salt"], (1, 5, *p["input_hw"])),
            "image": hashed(p["img_salt"], (1, 3, *p["input_hw"]), signed=False),
        }

        both = network.streams(pictures)

        found = {"lidar_prob": sampled(both.lidar.softmax(1)), "camera_prob": sampled(both.camera.softmax(1))}
        assert case.check(**found)
        assert torch.equal(network(pictures), both.lidar)
        assert count_parameters(network) == p.get("params", count_parameters(network))


@torch.no_grad()
def test_golden_kitti_fusion_and_pyramid_answer():
    for case in golden_cases("kitti/net_fusion"):
        p = case.params
        mine, others = p["pcd_channels"], p["img_channels"]
        block = filled(Fusion(mine, others), gain=p["gain"], offset=case.offset)
        maps = hashed(p["pcd_salt"], (1, mine, *p["shape"])), hashed(p["img_salt"], (1, others, *p["shape"]))
        assert case.check(out=block(*maps))
    for case in golden_cases("kitti/net_aspp"):
        p = case.params
        block = filled(Pyramid(p["in_channel"]), gain=p["gain"], offset=case.offset)
        assert case.check(out=block(hashed(p["salt"], (1, p["in_channel"], *p["shape"]))))


@torch.no_grad()
def test_golden_kitti_encoders_give_the_maps():
    for case in golden_cases("kitti/net_encoder"):
        p, depth = case.params, int(case.id.rpartition("resnet")[2])
        kind, depths = DEPTHS[depth]
        encoder = CameraEncoder(kind, depths, channels=3, width=512 * kind.expansion, dropout=0.2)
        filled(encoder, gain=p["gain"], offset=case.offset)

        maps = encoder.stages(hashed(p["salt"], p["input"], signed=False))

        assert case.check(**features(maps))
        assert count_parameters(encoder) == p.get("params", count_parameters(encoder))


def test_golden_kitti_answers_of_a_disturbed_network_fail():
    for case in golden_cases("kitti/net_fusion"):
        p = case.params
        block = filled(Fusion(p["pcd_channels"], p["img_channels"]), gain=1.01 * p["gain"], offset=case.offset)
        maps = [hashed(p[f"{side}_salt"], (1, p[f"{side}_channels"], *p["shape"])) for side in ("pcd", "img")]
        with pytest.raises(AssertionError):
            case.check(out=block(*maps).detach())


def test_golden_kitti_fill_has_the_published_first_values():
    for case in golden_cases("fill_check"):
        found = {f"first10_salt{salt}": uniform(salt + case.offset, (10,)) for salt in (1, 7)}
        assert case.check(**found, sum1000_salt1=uniform(1 + case.offset, (1000,)).sum())

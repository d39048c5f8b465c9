"""The networks for scenes and the projection against numbers of the published code, through the builder of students."""

import functools

import pytest
import torch
from array_golden import filled, golden_cases, hashed, parameter_counts

from xmodal.models.capacity import count_parameters
from xmodal.models.scenes.build import build_scene
from xmodal.models.scenes.projection import project, project_occupied
from xmodal.types import DataInfo, InputInfo

SIDES = {  # name in the golden files → network, modalities, whether the published one has blocks that nothing reads
    "ddrnet_rgbd": ("ddrnet", ("depth", "rgb"), False),
    "ddrnet_rgb": ("ddrnet", ("rgb",), True),
    "ddrnet_depth": ("ddrnet", ("depth",), True),
    "palnet": ("palnet", ("depth",), False),
    "aicnet": ("aicnet", ("depth", "rgb"), False),
    "grfnet": ("grfnet", ("depth", "rgb"), False),
}


@functools.cache
def build(name, volume=(8, 8, 8), picture=(6, 8), sparse=True):
    network, modalities, unused = SIDES[name]
    wide, high, deep = volume
    inputs = {
        "depth": InputInfo((1, *picture), layout="image"),
        "depth.position": InputInfo(picture, dtype="int64"),
        "depth.tsdf": InputInfo((1, deep, high, wide)),
        "rgb": InputInfo((3, *picture), layout="image"),
    }
    places = (deep // 4, high // 4, wide // 4)
    info = DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=places)
    return build_scene(info, modalities, network=network, unused=unused, sparse=sparse).module


def answers(case, *, sparse=True, gain=1.0):
    p = case.params
    (wide, high, deep), picture = p["volume_whd"], tuple(p["image_hw"])
    network = build(case.id.partition("net_")[2], (wide, high, deep), picture, sparse)
    filled(network, gain=gain * p["gain"], offset=case.offset)
    inputs = {
        "depth": hashed(p["depth_salt"], (1, 1, *picture)),
        "rgb": hashed(p["rgb_salt"], (1, 3, *picture)),
        "depth.tsdf": hashed(p["tsdf_salt"], (1, 1, deep, high, wide)),
        "depth.position": case.given("position"),
    }
    with torch.no_grad():
        return network, network(inputs)


def test_golden_ssc_networks_have_as_many_parameters():
    published = {name: count for name, count in parameter_counts().items() if name in SIDES}

    assert {name: count_parameters(build(name)) for name in published} == published


@pytest.mark.parametrize("name", SIDES)
def test_golden_ssc_network_answers(name):
    for case in golden_cases(f"ssc/net_{name}"):
        if case.id != f"ssc/net_{name}":
            continue
        network, logits = answers(case)

        assert case.check(logits=logits.numpy())
        assert count_parameters(network) == case.params.get("params", count_parameters(network))


def test_golden_ssc_network_answers_the_same_without_the_sparse_first_stage():
    for case in golden_cases("ssc/net_ddrnet_depth"):
        assert case.check(logits=answers(case, sparse=False)[1].numpy())


def test_golden_ssc_answers_of_a_disturbed_network_fail():
    for case in golden_cases("ssc/net_ddrnet_depth"):
        with pytest.raises(AssertionError):
            case.check(logits=answers(case, gain=1.01)[1].numpy())


def test_golden_ssc_projection_keeps_the_largest_feature_of_each_voxel():
    for case in golden_cases("ssc/projection_layer"):
        p = case.params
        features, position, volume = case.given("x2d"), case.given("position"), (p["w"], p["h"], p["d"])

        assert case.check(x3d=project(features, position, volume))
        assert case.check(x3d=project_occupied(features, position, volume).volume())

"""The networks of VGGSound against the published implementation: sizes, answers, pooled channels, their removal.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names; keys that a file lacks are left
out.
"""

import functools
import re

import numpy as np
import pytest
import torch
from hash_fill import golden_files, hash_tensor, hash_weights

from xmodal.models.clips.vggsound import LAYER, build_vggsound
from xmodal.models.layers import tapped
from xmodal.models.masking import masked
from xmodal.models.network import evaluating

FILES = {name: file for name, file in golden_files().items() if "vggsound" in file}
NETWORKS = {"AudioModel": "audio", "VideoModel": "video"}
FORWARD = {name: file for name, file in FILES.items() if "forward" in file["vggsound"]}
SIZED = [(name, net) for name, file in FILES.items() for net in file["vggsound"].get("param_shapes", {})]
COUNTED = [(name, net) for name, file in FILES.items() for net in file["vggsound"].get("param_count", {})]
ZEROED = [
    (name, key) for name, file in FORWARD.items() for key in file["vggsound"]["forward"] if "_zero_channels_" in key
]


def having(*keys):
    """The files whose forward passes have all of these keys."""
    return pytest.mark.parametrize(
        "name", [name for name, file in FORWARD.items() if set(keys) <= set(file["vggsound"]["forward"])]
    )


def classes_of(file, network):
    shapes = file["vggsound"].get("param_shapes", {}).get(network)
    return shapes[-1][0] if shapes else 100


def shapes_of(name, network):
    with torch.device("meta"):
        module = build_vggsound(NETWORKS[network], classes=classes_of(FILES[name], network)).module
    return [list(parameter.shape) for parameter in module.parameters()]


@functools.cache
def filled(name, network):
    """A network with the file's weights, and the file's samples."""
    file, modality = FILES[name], NETWORKS[network]
    case, offset = file["vggsound"]["forward"], file.get("key_offset", 0)
    samples = hash_tensor(case[f"{modality}_key"], case[f"{modality}_shape"], offset)
    student = build_vggsound(modality, shape=samples.shape[1:], classes=classes_of(file, network))
    return hash_weights(student.module, offset).eval(), {modality: samples}


def close(found, wanted, rel=1e-4):
    """Equal to a tolerance relative to the largest number."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(np.asarray(found).ravel(), wanted.ravel(), rtol=rel, atol=rel * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "network"), SIZED)
def test_golden_vggsound_parameter_shapes(name, network):
    assert shapes_of(name, network) == FILES[name]["vggsound"]["param_shapes"][network]


@pytest.mark.parametrize(("name", "network"), COUNTED)
def test_golden_vggsound_parameter_count(name, network):
    count = sum(int(np.prod(shape)) for shape in shapes_of(name, network))

    assert count == FILES[name]["vggsound"]["param_count"][network]


@having("audio_logits")
def test_golden_vggsound_audio_forward(name):
    case = FILES[name]["vggsound"]["forward"]
    module, inputs = filled(name, "AudioModel")

    with evaluating(module), tapped(module, [LAYER]) as seen:
        answers = module(inputs)

    close(answers, case["audio_logits"])
    if "audio_feature" in case:
        close(seen[LAYER], case["audio_feature"])


@having("video_logits")
def test_golden_vggsound_video_forward(name):
    case = FILES[name]["vggsound"]["forward"]
    module, inputs = filled(name, "VideoModel")

    with evaluating(module), tapped(module, ["encoders.from_video.layer4"]) as seen:
        answers = module(inputs)

    close(answers, case["video_logits"])
    last = seen["encoders.from_video.layer4"]
    assert list(last.shape) == case.get("video_h4_shape", list(last.shape))


@pytest.mark.parametrize(("name", "key"), ZEROED)
def test_golden_vggsound_zeroed_channels(name, key):
    module, inputs = filled(name, "AudioModel")
    first, last = map(int, re.findall(r"\d+", key))
    keep = torch.ones(module.head.in_features, dtype=torch.bool)
    keep[first : last + 1] = False

    with evaluating(module), masked(module, LAYER, keep, fill="zero"):
        close(module(inputs), FILES[name]["vggsound"]["forward"][key])

"""The authors' VGGSound checkpoints, read by the function that the command uses: outputs equal to the reference."""

import pytest
import torch
from authors_golden import authors_networks, swaps

from xmodal.errors import InputError
from xmodal.models.clips.authors_weights import HEAD, authors_state, our_name
from xmodal.models.clips.vggsound import build_vggsound
from xmodal.models.network import evaluating
from xmodal.models.resnet import load_checked
from xmodal.recipes.vggsound.authors_files import read_given
from xmodal.recipes.vggsound.settings import VggsoundSettings
from xmodal.study.bench import CONTROL
from xmodal.study.plan import TEACHER

NETWORKS = [
    # a checkpoint of the video network has 417 MB
    pytest.param(
        *(golden, modality), id=f"{golden.name}, salt {golden.salt!r}", marks=[pytest.mark.slow] * (modality == "video")
    )
    for part, modality in (("vggsound/AudioModel", "audio"), ("vggsound/VideoModel", "video"))
    for golden in authors_networks(part)
]


def classes_of(golden, modality):
    return golden.shapes[f"{HEAD[modality]}.bias"][0]


def loaded(golden, modality, path):
    """Our network in float64 with the weights of a file of the authors."""
    module = build_vggsound(modality, classes=classes_of(golden, modality), shape=golden.given[0][1:]).module.double()
    load_checked(module, given(path, modality), str(path))
    return module


def given(path, modality):
    """The weights of a file as the commands read them."""
    flag, stage = {"audio": ("teacher_weights", TEACHER), "video": ("video_weights", CONTROL)}[modality]
    return read_given(VggsoundSettings(**{flag: path}), "the ranking").weights[stage][modality]


def outputs(module, golden, modality):
    with evaluating(module):
        return module({modality: golden.inputs()[0]})


@pytest.mark.parametrize(("golden", "modality"), NETWORKS)
def test_outputs_of_an_authors_checkpoint_are_those_of_the_authors_network(golden, modality, tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in golden.state().items()}, tmp_path / "ckpt.pt")

    module = loaded(golden, modality, tmp_path / "ckpt.pt")

    golden.check(outputs(module, golden, modality))


@pytest.mark.parametrize(("part", "modality"), [("AudioModel", "audio"), ("VideoModel", "video")])
def test_names_and_shapes_are_those_of_the_authors_networks(part, modality):
    (golden, *_) = authors_networks(f"vggsound/{part}")
    with torch.device("meta"):
        module = build_vggsound(modality, classes=classes_of(golden, modality), shape=golden.given[0][1:]).module
        theirs = {name: torch.empty(shape) for name, shape in golden.shapes.items()}

    ours = module.state_dict()

    assert {name: tuple(tensor.shape) for name, tensor in authors_state(ours, modality).items()} == golden.shapes
    assert {our_name(name, modality) for name in theirs} == set(ours)


def check_swaps(pairs, golden, path):
    state = golden.state()
    torch.save(state, path)
    module = loaded(golden, "audio", path)
    golden.check(outputs(module, golden, "audio"))
    for first, second in pairs:
        torch.save(state | {first: state[second], second: state[first]}, path)
        load_checked(module, given(path, "audio"), str(path))
        with pytest.raises(AssertionError):
            golden.check(outputs(module, golden, "audio"))


def test_two_exchanged_tensors_of_one_shape_are_noticed(tmp_path):
    (golden, *_) = authors_networks("vggsound/AudioModel")
    pairs = [("layer1.0.conv1.weight", "layer1.0.conv2.weight"), ("inconv.1.running_var", "layer1.1.bn2.running_var")]

    check_swaps(pairs, golden, tmp_path / "ckpt.pt")


@pytest.mark.slow
def test_every_exchange_of_two_tensors_of_one_shape_is_noticed(tmp_path):
    (golden, *_) = authors_networks("vggsound/AudioModel")

    check_swaps(swaps(golden.state()), golden, tmp_path / "ckpt.pt")


@pytest.mark.parametrize(("change", "expected"), [("left out", "1 missing in the file: head.bias"), ("other", "bogus")])
def test_a_checkpoint_of_another_network_is_refused(change, expected, tmp_path):
    (golden, *_) = authors_networks("vggsound/AudioModel")
    state = {name: torch.zeros(shape) for name, shape in golden.shapes.items()}
    bias = state.pop("fc_avg.bias")
    torch.save(state if change == "left out" else state | {"bogus": bias}, tmp_path / "ckpt.pt")

    with pytest.raises(InputError, match=expected):
        loaded(golden, "audio", tmp_path / "ckpt.pt")

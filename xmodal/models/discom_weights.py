"""Weights of DisCoM-KD in the layout of the authors' code: which of their names belongs to which tensor of ours.

Their file ``WEIGHTS.pth`` is the state dict of the joint network: the encoders, projections and heads of both
modalities, which are called first and second, and the shared heads. Each projection has a second linear layer that
nothing uses; its tensors have no values, and are left out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.discom_net import Branches, SharedHeads
from xmodal.models.resnet import ResNet, mismatches, read_weights

SIDES = ("first", "second")
PROJECTIONS = {"first": "projF", "second": "projS"}
TASK_HEADS = {"first": "task_cl", "second": "task_cl2"}
SHARED = {  # our head → theirs
    "auxiliary": "task_cl3.block.0",
    "adversary": "discr.block.0",
    "informative": "task_dom.block.0",
    "irrelevant": "task_dom2.block.0",
}
# the parts of a ResNet-18 are numbered in their file, since it is stored as a sequence without its last layer
RESNET = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
LENET = {"body.0": "conv1", "body.3": "conv2", "body.8": "fc1"}


def read_joint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of the authors' code by their names, without those that nothing uses."""
    # the unused layer was never given a shape, and is stored as a parameter of this type: it holds no code
    with torch.serialization.safe_globals([nn.UninitializedParameter]):
        stored = read_weights(path)
    names = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    unused = tuple(f"{projection}.l2." for projection in PROJECTIONS.values())
    return {name: tensor for name, tensor in names.items() if not name.startswith(unused)}


def joint_names(branches: Sequence[Branches], heads: SharedHeads) -> dict[str, tuple[nn.Module, str]]:
    """Name in the authors' file → module of ours, and the name of the tensor in it.

    Args:
        branches: of the first and the second modality, in the order of the training.
        heads: shared by both.
    """
    if len(branches) != len(SIDES):
        raise InputError(
            f"The authors' file holds two modalities, and {len(branches)} are named here. Name the two that it was "
            "trained on, in the same order."
        )
    return dict(_names(branches, heads))


def _names(branches: Sequence[Branches], heads: SharedHeads) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    for side, branch in zip(SIDES, branches, strict=True):
        for part, encoder in (("inv", branch.invariant), ("spec", branch.specific)):
            renamed = _encoder_names(branch.modality, encoder)
            for name in encoder.state_dict():
                ours = next(prefix for prefix in renamed if name.startswith(f"{prefix}."))
                yield f"{side}_enc_{part}.{renamed[ours]}{name.removeprefix(ours)}", (encoder, name)
        for number, layer in (("0", "l1"), ("1", "bn1")):
            module = branch.projection.get_submodule(number)
            for name in module.state_dict():
                yield f"{PROJECTIONS[side]}.{layer}.{name}", (module, name)
        for name in branch.head.state_dict():
            yield f"{TASK_HEADS[side]}.{name}", (branch.head, name)
    for head, theirs in SHARED.items():
        module = heads.get_submodule(head)
        for name in module.state_dict():
            yield f"{theirs}.{name}", (module, name)


def _encoder_names(modality: str, encoder: nn.Module) -> dict[str, str]:
    """Part of an encoder of ours → its name in theirs."""
    if isinstance(encoder, ResNet):
        return RESNET
    # by its parameters, since all small encoders are of one class
    if {name.rpartition(".")[0] for name in encoder.state_dict()} == set(LENET):
        return LENET
    raise InputError(
        f"The encoder of '{modality}' is neither ResNet-18 nor LeNet, and the authors' code has no other. Choose one "
        f"of them: --encoder {modality}=resnet18 or --encoder {modality}=lenet."
    )


def load_joint(branches: Sequence[Branches], heads: SharedHeads, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load the authors' weights into the networks, all of them or none.

    Args:
        branches: of the first and the second modality.
        heads: shared by both.
        tensors: as `read_joint` returns them.
        where: path of the file, for messages.
    """
    places = joint_names(branches, heads)
    expected = {theirs: module.state_dict()[name] for theirs, (module, name) in places.items()}
    if problems := mismatches(expected, tensors):
        raise InputError(
            [f"The weights in {where} do not fit this network: {problem}" for problem in problems]
            + ["Name the modalities in the order of that training; their encoders must be those of that training too."]
        )
    with torch.no_grad():
        # the tensors of a state dict share their memory with the network
        for theirs, tensor in expected.items():
            tensor.copy_(tensors[theirs])

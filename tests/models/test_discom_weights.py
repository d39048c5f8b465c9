"""The authors' joint file of DisCoM-KD: names, values, and the layers without values."""

import pytest
import torch
from joint_discom import joint_file, lenet_shapes, outputs_of, resnet_shapes

from xmodal.errors import InputError
from xmodal.models.discom_net import SharedHeads, branches_for
from xmodal.models.discom_weights import joint_names, load_joint, read_joint
from xmodal.types import DataInfo, InputInfo

INFO = DataInfo(
    {
        "RGB": InputInfo((3, 33, 33), layout="image"),
        "MNIST": InputInfo((1, 28, 28), layout="image"),
        "MNIST_M": InputInfo((3, 28, 28), layout="image"),
    },
    "multiclass",
    10,
    rows={},
    paired=False,
)
KINDS = {"RGB": "resnet18", "MNIST": "lenet", "MNIST_M": "lenet"}


def networks(*order):
    encoders = {name: {"encoder": KINDS[name], "shape": list(INFO.inputs[name].shape)} for name in order}
    return [branches_for(INFO, name, encoders[name]).module.eval() for name in order], SharedHeads(256, 10, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    tensors = joint_file(resnet_shapes(3), lenet_shapes(1, 28))
    path = tmp_path_factory.mktemp("authors") / "WEIGHTS.pth"
    torch.save(tensors, path)
    return path, tensors


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The same of two small networks."""
    tensors = joint_file(lenet_shapes(1, 28), lenet_shapes(3, 28))
    path = tmp_path_factory.mktemp("small") / "WEIGHTS.pth"
    torch.save(tensors, path)
    return path, tensors


def close(ours, theirs):
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_outputs_are_those_of_the_authors_network(file):
    path, theirs = file
    branches, heads = networks("RGB", "MNIST")
    generator = torch.Generator().manual_seed(0)
    samples = {name: torch.rand(3, *INFO.inputs[name].shape, generator=generator) for name in ("RGB", "MNIST")}

    load_joint(branches, heads, read_joint(path), str(path))

    for side, branch in zip(("first", "second"), branches, strict=True):
        with torch.no_grad():
            ours = branch(samples)
            assert close(ours, outputs_of(theirs, side, samples[branch.modality]))
            # equal shapes hide a swap of encoders: the values must notice it
            swapped = {name.replace("_inv.", "_X.").replace("_spec.", "_inv.").replace("_X.", "_spec."): tensor
                       for name, tensor in theirs.items()}  # fmt: skip
            assert not close(ours, outputs_of(swapped, side, samples[branch.modality]))
    assert torch.equal(heads.auxiliary.weight, theirs["task_cl3.block.0.weight"])
    assert torch.equal(heads.adversary.weight, theirs["discr.block.0.weight"])
    assert torch.equal(heads.informative.weight, theirs["task_dom.block.0.weight"])
    assert torch.equal(heads.irrelevant.bias, theirs["task_dom2.block.0.bias"])


def test_modalities_in_another_order_are_refused_and_nothing_is_loaded(small):
    path, _ = small
    branches, heads = networks("MNIST_M", "MNIST")
    before = branches[0].head.weight.clone()

    with pytest.raises(InputError, match=r"do not fit this network.*\n?.*order of that training"):
        load_joint(branches, heads, read_joint(path), str(path))

    assert torch.equal(branches[0].head.weight, before)


def test_other_encoders_and_a_third_modality_are_refused():
    other = branches_for(INFO, "MNIST", {"encoder": "mlp", "shape": [1, 28, 28], "width": 512}).module
    (lenet,), heads = networks("MNIST")

    with pytest.raises(InputError, match="'MNIST' is neither ResNet-18 nor LeNet"):
        joint_names([other, lenet], heads)
    with pytest.raises(InputError, match="holds two modalities, and 3 are named"):
        joint_names([lenet, lenet, lenet], heads)


def test_layers_without_values_and_prefixes_of_distributed_training_are_left_out(small, tmp_path):
    path, theirs = small
    torch.save({f"module.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "w.pth")

    expected = {name for name in theirs if ".l2." not in name}

    assert len(theirs) == len(expected) + 4
    assert set(read_joint(path)) == set(read_joint(tmp_path / "w.pth")) == expected
    assert set(joint_names(*networks("MNIST", "MNIST_M"))) == expected

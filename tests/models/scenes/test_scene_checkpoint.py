"""Files named as the public code of the networks names them."""

import pytest
import torch
from authors_rooms import NETWORKS, build, made_file

from xmodal.errors import InputError
from xmodal.models.scenes.authors_weights import load_published, our_name


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


@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
def test_a_file_that_was_saved_on_a_gpu_is_read_without_one(place, tmp_path, monkeypatch):
    # what torch.save writes about a tensor on a GPU is the name of its device
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: place)
    source, _ = made_file("ddrnet_rgbd", tmp_path / "cp.pth.tar")
    monkeypatch.undo()
    network = build("ddrnet_rgbd")

    load_published(network, tmp_path / "cp.pth.tar")

    assert all(map(torch.equal, network.state_dict().values(), source.state_dict().values()))

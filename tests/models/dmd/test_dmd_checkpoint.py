"""Published files of DMD's weights: read whole or refused with a sentence, and never executed."""

import os

import pytest
import torch
from dmd_fill import published_state

from xmodal.errors import InputError
from xmodal.models.dmd.authors_weights import BUFFERS, load_published, published_places, read_published
from xmodal.models.dmd.net import DMDNet, DMDNumbers, SequenceInput

NAMES = ("text", "vision", "audio")
NUMBERS = DMDNumbers(width=8, heads=2, layers=1)


def make_net(*, names=NAMES, length=6, numbers=NUMBERS, as_published=True, seed=0):
    torch.manual_seed(seed)
    inputs = {name: SequenceInput(place + 3, length, 2) for place, name in enumerate(names)}
    return DMDNet(inputs, numbers, as_published=as_published)


def with_buffers(state):
    """As the authors' code writes it: encoders have a version and some memory that was never set."""
    encoders = {name.split(".layers.")[0] for name in state if ".layers." in name}
    return state | {f"{name}{buffer}": torch.full((1,), torch.nan) for name in encoders for buffer in BUFFERS}


def test_a_file_is_read_back_with_its_buffers_ignored(tmp_path):
    theirs, mine = make_net(), make_net(seed=1)
    torch.save(with_buffers(published_state(theirs)), tmp_path / "dmd.pth")

    load_published(mine, read_published(tmp_path / "dmd.pth"))

    for (name, one), (_, two) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_every_weight_has_one_published_name():
    net = make_net()
    places = published_places(net)

    assert sum(place.tensor.numel() for place in places.values()) == sum(x.numel() for x in net.parameters())
    with torch.no_grad():
        for number, place in enumerate(places.values()):
            place.tensor.fill_(float(number))
    assert [place.tensor.flatten()[0].item() for place in places.values()] == list(range(len(places)))


def test_a_network_without_the_unused_projections_reads_the_file_too():
    theirs, mine = make_net(), make_net(as_published=False, seed=1)

    load_published(mine, published_state(theirs))

    inputs = {name: torch.randn(2, sizes.width, 6) for name, sizes in mine.inputs.items()}
    with torch.no_grad():
        assert torch.equal(mine.eval()(inputs).fused, theirs.eval()(inputs).fused)


def test_the_first_three_letters_follow_the_order_and_not_the_names():
    net = make_net(names=("words", "video", "sound"))

    assert published_places(net)["proj_v.weight"].parameter is net.fused.projection("video").convolution.weight
    member = net.fused.pairs.index(("words", "sound"))
    assert published_places(net)["trans_l_with_a.layer_norm.weight"].part == (member,)


def test_a_refused_file_leaves_the_network_as_it_was():
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = {name: torch.zeros_like(value) for name, value in published_state(net).items()}
    del state["out_layer.bias"]

    with pytest.raises(InputError):
        load_published(net, state)

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_missing_unknown_and_unlike_entries_are_reported_together():
    net = make_net()
    state = published_state(net)
    state["oout_layer.bias"] = state.pop("out_layer.bias")
    state["proj_l.weight"] = torch.zeros(8, 300, 2)

    with pytest.raises(InputError) as caught:
        load_published(net, state, "dmd.pth")

    missing, unknown, shapes = caught.value.problems
    assert "weights in dmd.pth do not fit this network: 1 missing in the file: out_layer.bias" in missing
    assert "1 unknown to the network: oout_layer.bias" in unknown
    assert "proj_l.weight (expected (8, 3, 2), file (8, 300, 2))" in shapes and "widths and lengths" in shapes


def test_a_file_of_another_length_is_named_with_some_of_its_entries():
    with pytest.raises(InputError, match=r"align_c_l\.weight \(expected \(8, 48\), file \(8, 40\)\).* and \d+ more"):
        load_published(make_net(length=7), published_state(make_net()))


def test_a_text_encoder_without_a_place_is_refused_or_left_out():
    net = make_net()
    state = published_state(net) | {"text_model.model.embeddings.word_embeddings.weight": torch.zeros(5, 3)}

    with pytest.raises(InputError, match=r"contains a text encoder \(1 entries.*skip_text=True"):
        load_published(net, state)
    load_published(net, state, skip_text=True)


def test_only_three_modalities_have_published_names():
    with pytest.raises(InputError, match="layout has three modalities, and this network has 2"):
        published_places(make_net(names=("text", "audio")))


class Payload:
    def __reduce__(self):
        return os.mkdir, ("must-not-exist",)


def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"proj_l.weight": Payload()}, "dmd.pth")

    with pytest.raises(InputError, match="could run code, so it is refused"):
        read_published("dmd.pth")

    assert not (tmp_path / "must-not-exist").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_files_that_hold_something_else_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "dmd.pth")

    with pytest.raises(InputError, match="does not contain a dictionary of tensors"):
        read_published(tmp_path / "dmd.pth")


def test_missing_and_damaged_files_are_refused(tmp_path):
    (tmp_path / "dmd.pth").write_bytes(b"PK not a file of torch")

    with pytest.raises(InputError, match="or is damaged"):
        read_published(tmp_path / "dmd.pth")
    with pytest.raises(InputError, match="There is no file"):
        read_published(tmp_path / "other.pth")

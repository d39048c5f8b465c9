import pytest
import torch
from torch import nn

from xmodal.engine.processes.sync_batchnorm import SyncedBatchNorm, synchronise_batchnorm
from xmodal.errors import InputError
from xmodal.export import export_student
from xmodal.models.layers import output_shapes
from xmodal.models.masking import masked
from xmodal.models.network import build_for, build_network
from xmodal.models.pixels.salsanext import SalsaNext
from xmodal.models.student_file import load_student, save_student
from xmodal.types import DataInfo, InputInfo

PARTS = {  # parameters of the published network, part by part
    "context1": 18816,
    "context2": 19680,
    "context3": 19680,
    "res1": 86848,
    "res2": 345728,
    "res3": 1379584,
    "res4": 1707264,
    "res5": 1707264,
    "up1": 632320,
    "up2": 595456,
    "up3": 158464,
    "up4": 39808,
}


@pytest.fixture
def info():
    inputs = {name: InputInfo((channels, 16, 32), layout="image") for name, channels in (("lidar", 2), ("image", 3))}
    return DataInfo(inputs, "multiclass", 3, {}, dense=True)


def pictures(rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"lidar": torch.randn(rows, 2, 16, 32, generator=generator), "image": torch.randn(rows, 3, 16, 32)}


def test_every_part_has_the_published_number_of_parameters():
    network = SalsaNext(5)

    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}

    assert {name: count for name, count in counts.items() if count} == PARTS


def test_maps_have_the_resolutions_and_channels_of_the_table():
    network = build_network(
        inputs={"lidar": {"encoder": "salsanext", "shape": [5, 32, 64], "width": 4}}, outputs=20, dense=True
    )

    shapes = output_shapes(network, {"lidar": torch.zeros(2, 5, 32, 64)})

    found = {
        name: shapes[f"encoders.from_lidar.{name}"] for name in ("context3", "res1", "pool1", "res4", "pool4", "res5")
    }
    assert found == {
        "context3": (4, 32, 64),
        "res1": (8, 32, 64),
        "pool1": (8, 16, 32),
        "res4": (32, 4, 8),
        "pool4": (32, 2, 4),
        "res5": (32, 2, 4),
    }
    ups = [shapes[f"encoders.from_lidar.up{number}"] for number in (1, 2, 3, 4)]
    assert ups == [(16, 4, 8), (16, 8, 16), (8, 16, 32), (4, 32, 64)]
    assert shapes["embedding"] == (4, 32, 64) and shapes["head"] == (20, 32, 64)


def test_pooling_counts_what_stands_outside_as_zeros():
    pool = SalsaNext(1, width=2).pool1

    assert pool(torch.ones(1, 1, 2, 2)).item() == pytest.approx(4 / 9)


def test_the_first_stage_and_the_last_drop_no_maps():
    network = SalsaNext(2, width=2)
    rates = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout2d)}

    none = {name for name, rate in rates.items() if rate == 0}

    assert none == {"drop1", "up4.drop_grown", "up4.drop_joined", "up4.drop"}
    assert set(rates.values()) == {0.0, 0.2} and len(rates) == 5 + 4 * 3


@pytest.mark.parametrize("shape", [(5, 24, 32), (5, 8, 32), (5, 32)])
def test_pictures_that_cannot_be_halved_four_times_are_refused(shape):
    with pytest.raises(InputError, match="salsanext"):
        build_network(inputs={"lidar": {"encoder": "salsanext", "shape": list(shape)}}, outputs=2, dense=True)


def test_an_odd_width_is_refused():
    with pytest.raises(InputError, match="width of SalsaNext is 3: a multiple of 2"):
        SalsaNext(5, width=3)


def test_dense_targets_choose_a_network_of_maps_and_others_do_not(info):
    flat = DataInfo(info.inputs, "multiclass", 3, {})

    assert build_for(info, ["lidar"], width=2).arguments["inputs"]["lidar"]["encoder"] == "salsanext"
    assert build_for(flat, ["lidar"]).arguments["inputs"]["lidar"]["encoder"] != "salsanext"
    with pytest.raises(InputError, match=r"'mlp' \(for 'lidar'\) produces one embedding for a whole sample"):
        build_for(info, ["lidar"], encoder="mlp")
    with pytest.raises(InputError, match=r"'salsanext' \(for 'lidar'\) produces an embedding for every pixel"):
        build_for(flat, ["lidar"], encoder="salsanext")


@pytest.mark.parametrize(("fusion", "width"), [("sum", 4), ("concat", 8)])
def test_maps_of_two_modalities_are_fused_place_by_place(info, fusion, width):
    student = build_for(info, ["lidar", "image"], width=4, fusion=fusion)

    assert student.module(pictures()).shape == (2, 3, 16, 32)
    assert student.module.features(pictures()).shape == (2, width, 16, 32)


def test_maps_of_unlike_width_are_projected_before_their_sum(info):
    student = build_for(
        info, ["lidar", "image"], encoder={"lidar": "salsanext", "image": "camera_resnet10"}, width=None
    )

    assert isinstance(student.module.projections["from_image"], nn.Conv2d)
    assert student.module(pictures()).shape == (2, 3, 16, 32)


def test_a_saved_student_is_rebuilt_and_answers_with_the_same_bits(info, tmp_path):
    student = build_for(info, ["lidar"], width=4)
    student.module.eval()

    loaded, description = load_student(save_student(tmp_path / "student.safetensors", student, info))

    assert torch.equal(loaded.module(pictures()), student.module(pictures()))
    assert description["dense"] and description["arguments"]["dense"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_an_exported_student_answers_for_every_pixel(info, form, tmp_path):
    student = build_for(info, ["lidar"], width=2)

    written = export_student(student, info, tmp_path, format=form, samples={"lidar": pictures(4)["lidar"]})

    assert written["difference"] < 1e-5 and written["batch_sizes"] == [1, 4]


def test_channels_can_be_removed_at_every_stage(info):
    network = build_for(info, ["lidar"], width=2).module.eval()
    keep = torch.tensor([True, False, True, False])

    with masked(network, "encoders.from_lidar.res1", keep, fill="zero"):
        without = network(pictures())

    assert not torch.equal(without, network(pictures()))


def test_batch_statistics_can_be_shared_by_processes(info):
    network = build_for(info, ["lidar"], width=2).module
    names = set(network.state_dict())
    before = network.eval()(pictures()).detach()
    network.train()

    synchronise_batchnorm(network)

    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, SyncedBatchNorm) for module in network.modules())
    assert set(network.state_dict()) == names
    torch.testing.assert_close(network.eval()(pictures()), before)

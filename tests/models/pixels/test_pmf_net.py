import pytest
import torch

from xmodal.errors import InputError
from xmodal.export import export_student
from xmodal.models.pixels.pmf_net import Fusion, Pyramid, build_pmf, build_pmf_net
from xmodal.models.student_file import load_student, save_student
from xmodal.types import DataInfo, InputInfo

SIDE = (16, 32)


@pytest.fixture
def info():
    inputs = {name: InputInfo((channels, *SIDE), layout="image") for name, channels in (("lidar", 5), ("image", 3))}
    return DataInfo(inputs, "multiclass", 4, {}, dense=True)


@pytest.fixture
def student(info):
    torch.manual_seed(0)
    found = build_pmf(info, backbone="camera_resnet10", width=2, channels=16)
    found.module.eval()
    return found


def pictures(rows=2):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(rows, channels, *SIDE, generator=generator) for name, channels in (("lidar", 5), ("image", 3))
    }


def test_both_streams_answer_and_the_student_answers_with_the_lidar(student):
    both = student.module.streams(pictures())

    assert both.lidar.shape == both.camera.shape == (2, 4, *SIDE)
    assert torch.equal(student.module(pictures()), both.lidar)
    assert student.needs == ("lidar", "image") and student.target == "lidar"


def test_the_lidar_stream_takes_in_the_camera_and_not_the_other_way_round(student):
    first = student.module.streams(pictures())
    other = {**pictures(), "image": 1 - pictures()["image"]}
    dark = {**pictures(), "lidar": 0 * pictures()["lidar"]}

    assert not torch.equal(student.module.streams(other).lidar, first.lidar)
    assert torch.equal(student.module.streams(dark).camera, first.camera)


def test_the_two_optimisers_share_all_parameters_between_them(student):
    lidar, camera = student.module.lidar_parameters(), student.module.camera_parameters()

    assert {id(p) for p in [*lidar, *camera]} == {id(p) for p in student.module.parameters()}
    assert len(lidar) + len(camera) == len(list(student.module.parameters()))


def test_a_closed_gate_leaves_the_maps_as_they_are():
    block = Fusion(3, 2).eval()
    torch.nn.init.constant_(block.gate[4].bias, -1e4)
    maps = torch.rand(1, 3, 4, 4)

    assert torch.equal(block(maps, torch.rand(1, 2, 4, 4)), maps)


@torch.no_grad()
def test_the_pyramid_sees_the_mean_of_all_places_everywhere():
    block = Pyramid(2)
    for part in (block.place, *block.rings):
        part.weight.zero_()
    x = torch.rand(1, 2, 3, 4)

    out = block(x)

    assert torch.allclose(out, out[:, :, :1, :1].expand_as(out), atol=1e-6)
    assert not torch.allclose(out, block(2 * x), atol=1e-3)


def test_a_saved_student_is_rebuilt_with_the_same_answers(info, student, tmp_path):
    loaded, description = load_student(save_student(tmp_path / "student.safetensors", student, info))

    assert torch.equal(loaded.module(pictures()), student.module(pictures()))
    assert description["builder"] == "pmf" and description["arguments"]["camera"]["channels"] == 16


@pytest.mark.slow
def test_a_student_is_exported_to_onnx(info, student, tmp_path):
    raw = {name: values.numpy() for name, values in pictures(4).items()}

    assert export_student(student, info, tmp_path, format="onnx", samples=raw)["difference"] < 1e-4


def test_unknown_cameras_and_unlike_sizes_are_refused():
    lidar = {"name": "lidar", "shape": [5, 16, 32], "width": 2}
    with pytest.raises(InputError, match="no camera network called 'camera_resnet11'. Did you mean 'camera_resnet1"):
        build_pmf_net(lidar=lidar, camera={"name": "i", "encoder": "camera_resnet11", "shape": [3, 16, 32]}, outputs=2)
    with pytest.raises(InputError, match=r"'i' of \(3, 32, 32\): the same height and width"):
        build_pmf_net(lidar=lidar, camera={"name": "i", "encoder": "camera_resnet10", "shape": [3, 32, 32]}, outputs=2)

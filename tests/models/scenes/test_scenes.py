import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.export import export_student
from xmodal.models.capacity import count_parameters
from xmodal.models.cut import split
from xmodal.models.network import build_for
from xmodal.models.scenes.aicnet import Anisotropic
from xmodal.models.scenes.build import SCENES, build_scene
from xmodal.models.scenes.grfnet import Cell
from xmodal.models.scenes.palnet import PALNet
from xmodal.models.scenes.streams import check_volume
from xmodal.models.student_file import load_student, save_student
from xmodal.types import DataInfo, InputInfo

PLACES = (3, 2, 4)  # D, H, W; the volume of positions is (16, 8, 12) along X, H, Y
SIDES = {"ddrnet": ("depth", "rgb"), "aicnet": ("depth", "rgb"), "grfnet": ("depth", "rgb"), "palnet": ("depth",)}


def facts(**changes):
    position = InputInfo((6, 8), dtype="int64")
    inputs = {
        "depth": InputInfo((1, 6, 8), layout="image"),
        "rgb": InputInfo((3, 6, 8), layout="image"),
        "tsdf": InputInfo((1, 12, 8, 16)),
        "depth.position": position,
        "rgb.position": position,
    }
    return DataInfo(inputs, "multiclass", 5, {}, **{"dense": True, "target_shape": PLACES, "ignore": 255, **changes})


def rooms(rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: info.shape for name, info in facts().inputs.items() if "." not in name}
    found = {name: torch.randn(rows, *shape, generator=generator) for name, shape in shapes.items()}
    position = torch.randint(16 * 8 * 12, (rows, 6, 8), generator=generator)
    return {**found, "depth.position": position, "rgb.position": position}


@pytest.mark.parametrize("name", SCENES)
def test_a_network_answers_for_every_voxel_and_its_gradient_reaches_all_weights(name):
    student = build_scene(facts(), SIDES[name], network=name)

    answers = student.module({need: rooms()[need] for need in student.needs})
    answers.square().sum().backward()

    assert answers.shape == (2, 5, *PLACES)
    assert all(weight.grad is not None for weight in student.module.parameters())


@pytest.mark.parametrize("name", SCENES)
def test_a_saved_student_is_rebuilt_and_answers_with_the_same_bits(name, tmp_path):
    student = build_scene(facts(), SIDES[name], network=name)
    student.module.eval()

    loaded, description = load_student(save_student(tmp_path / "student.safetensors", student, facts()))

    assert torch.equal(loaded.module(rooms()), student.module(rooms()))
    assert description["builder"] == name and loaded.needs == student.needs


@pytest.mark.parametrize("name", ["ddrnet", "aicnet", "grfnet"])
def test_less_memory_gives_the_same_numbers(name):
    found = {}
    for form in ({}, {"sparse": False}, {"recompute": True}):
        torch.manual_seed(0)
        module = build_scene(facts(), ["depth"], network=name, **form).module
        answers = module(rooms())
        answers.square().sum().backward()
        found[str(form)] = [answers.detach(), *(weight.grad for weight in module.parameters())]

    usual = found.pop("{}")
    for other in found.values():
        for mine, theirs in zip(usual, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(mine.abs().max()))


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("place", ["embedding", "head"])
def test_only_the_layers_behind_a_place_run_again(name, place):
    student = build_scene(facts(), SIDES[name], network=name)
    given = {need: rooms(3)[need] for need in student.needs}

    with torch.no_grad():
        cut, (features, context) = split(student.module.eval(), place, given)
        answers = cut.tail(features, context)

        assert {step.target for step in cut.tail_steps if step.op == "call_module"} <= {"network.head"}
        torch.testing.assert_close(answers, student.module(given), rtol=1e-4, atol=1e-5)


def test_blocks_that_nothing_reads_are_there_only_on_request():
    plain, published = (build_scene(facts(), ["depth"], unused=unused).module for unused in (False, True))

    assert count_parameters(published) - count_parameters(plain) == 13200
    assert {name for name, _ in published.named_parameters()} > {name for name, _ in plain.named_parameters()}


def test_networks_are_known_by_name_and_rooms_choose_one_by_themselves():
    assert build_for(facts(), ["rgb"]).builder == "ddrnet"
    assert build_for(facts(), ["depth"], encoder="palnet").needs == ("depth", "depth.position", "tsdf")
    assert build_for(facts(), ["depth"], numbers={"recompute": True}).arguments["recompute"]
    with pytest.raises(InputError, match="has one size and no dropout"):
        build_for(facts(), ["depth"], encoder="aicnet", width=8)
    with pytest.raises(InputError, match="ddrnet"):
        build_for(facts(), ["depth"], encoder="ddrnett")


def test_what_a_network_cannot_read_is_refused():
    with pytest.raises(InputError, match=r"reads pictures.*'tsdf' \(1, 12, 8, 16\).*choose palnet"):
        build_scene(facts(), ["tsdf"])
    with pytest.raises(InputError, match="'palnet' reads depth.*was given rgb"):
        build_scene(facts(), ["rgb"], network="palnet")
    with pytest.raises(InputError, match="no network for scenes called 'ddr'"):
        build_scene(facts(), ["depth"], network="ddr")
    with pytest.raises(InputError, match=r"every voxel of a volume.*the axes \(6, 8\)"):
        build_scene(facts(target_shape=(6, 8)), ["depth"])
    lacking = facts()
    without = {name: info for name, info in lacking.inputs.items() if "." not in name}
    with pytest.raises(InputError, match=r"'ddrnet' reads 'depth.position' together with 'depth'"):
        build_scene(DataInfo(without, "multiclass", 5, {}, dense=True, target_shape=PLACES), ["depth"])


@pytest.mark.parametrize("volume", [(6, 4, 4), (4, 4), (0, 4, 4)])
def test_volumes_that_do_not_halve_twice_are_refused(volume):
    with pytest.raises(InputError, match="three multiples of 4"):
        check_volume(volume)


def test_lengths_are_weighed_at_every_voxel_along_w_then_h_then_d():
    block = Anisotropic(2).double()
    x = torch.randn(1, 2, 3, 4, 5, dtype=torch.float64)
    shares = block.choice(x).view(1, 3, 3, 3, 4, 5).softmax(dim=2)

    y = x
    for place, axis in enumerate((2, 1, 0)):
        y = sum(shares[:, axis, k : k + 1] * block.axes[place][k](y).relu() for k in range(3))

    torch.testing.assert_close(block(x), (y + x).relu())
    assert [line.kernel_size for line in block.axes[0]] == [(1, 1, 3), (1, 1, 5), (1, 1, 7)]
    assert [line.kernel_size for line in block.axes[2]] == [(3, 1, 1), (5, 1, 1), (7, 1, 1)]


def test_a_cell_keeps_what_it_knows_where_its_gate_is_open():
    cell = Cell(2)
    x, memory = torch.randn(2, 1, 2, 2, 2, 2).unbind(0)
    with torch.no_grad():
        cell.gates.bias[2:] = 50.0  # of the second half, which keeps

    torch.testing.assert_close(cell(x, memory), memory)


def test_palnet_begins_with_the_published_spreads():
    torch.manual_seed(0)
    network = PALNet(["depth", "depth.position", "tsdf"], 12, volume=(8, 8, 8))

    spreads = [layer.weight.std().item() for layer in network.head if isinstance(layer, nn.Conv3d)]

    assert spreads == pytest.approx([0.1, 0.01, 0.01], rel=0.1)


def exported(student):
    """A program for any number of rows, and the module that it was made from."""
    module = student.module.eval()
    two = {name: rooms(2)[name] for name in student.needs}
    axes = {name: {0: torch.export.Dim("batch", min=1)} for name in two}
    with torch.no_grad():
        return torch.export.export(module, (two,), dynamic_shapes=(axes,)).module(), module


def test_a_traced_network_answers_for_any_number_of_rows():
    student = build_scene(facts(), ["depth"])

    program, module = exported(student)

    with torch.no_grad():
        for count in (1, 2, 3):
            given = {name: rooms(count, seed=count)[name] for name in student.needs}
            torch.testing.assert_close(program(given), module(given), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_every_network_is_traced_for_any_number_of_rows(name):
    student = build_scene(facts(), SIDES[name], network=name)

    program, module = exported(student)

    with torch.no_grad():
        given = {need: rooms(3)[need] for need in student.needs}
        torch.testing.assert_close(program(given), module(given), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_an_exported_student_answers_for_every_voxel(form, tmp_path):
    student = build_scene(facts(), ["depth"])

    samples = {name: rooms(4)[name] for name in student.needs}
    written = export_student(student, facts(), tmp_path, format=form, samples=samples)

    assert written["difference"] < 1e-4

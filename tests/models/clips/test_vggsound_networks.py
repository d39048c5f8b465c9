"""The networks of VGGSound: published sizes, layers, other depths and widths, and the way through a student's file."""

import pytest
import torch

from xmodal.diagnostics.saliency import measure_saliency
from xmodal.errors import InputError
from xmodal.export import export_student, load_student, save_student
from xmodal.models.capacity import count_parameters, width_for
from xmodal.models.clips.vggsound import LAYER, SHAPES, build_vggsound
from xmodal.models.layers import output_shapes
from xmodal.models.masking import masked
from xmodal.models.network import build_for, evaluating
from xmodal.models.resnet import BasicBlock, ResNet, load_weights
from xmodal.types import Batch, DataInfo, InputInfo

TINY = {"audio": (1, 33, 20), "video": (4, 3, 16, 16)}


def tiny(modality, **how):
    """A small network whose batch statistics are not those of a fresh one, in eval mode."""
    torch.manual_seed(0)
    student = build_vggsound(modality, classes=3, shape=TINY[modality], width=16, **how)
    with torch.no_grad():
        student.module.train()({modality: torch.randn(8, *TINY[modality])})
    student.module.eval()
    return student


def info_of(modality):
    return DataInfo({modality: InputInfo(TINY[modality])}, "multiclass", 3, {})


@pytest.mark.parametrize(
    ("modality", "encoder", "parameters"),
    [
        ("audio", None, 11_221_540),
        ("video", None, 52_022_052),
        # 3-D convolutions of side 3 have three times the weights, those of side 1 as many, the first one 3 x 9408
        ("video", "video_resnet18", 33_217_572),
        ("video", "video_resnet34", 63_527_204),
        ("video", "video_resnet50", 46_366_244),
    ],
)
def test_sizes_at_a_hundred_classes(modality, encoder, parameters):
    with torch.device("meta"):
        module = build_vggsound(modality, encoder=encoder).module

    assert count_parameters(module) == parameters


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_video_networks_have_the_layers_of_their_pictures_sisters(depth):
    with torch.device("meta"):
        shape = {"video": (8, 3, 64, 64), "picture": (3, 64, 64)}
        flat = build_for_shape("picture", shape["picture"], f"resnet{depth}")
        deep = build_for_shape("video", shape["video"], f"video_resnet{depth}")

    wanted = {
        name: [*tensor.shape[:2], *(min(side, 3) for side in tensor.shape[2:3]), *tensor.shape[2:]]  # time: at most 3
        for name, tensor in flat.named_parameters()
    }
    assert {name: list(tensor.shape) for name, tensor in deep.named_parameters()} == wanted


def build_for_shape(modality, shape, encoder):
    return build_for(
        DataInfo({modality: InputInfo(shape)}, "multiclass", 3, {}), [modality], encoder=encoder
    ).module.encoders[f"from_{modality}"]


@pytest.mark.parametrize(
    ("modality", "shapes"),
    [
        ("audio", [(64, 255, 155), (64, 128, 78), (64, 128, 78), (128, 64, 39), (256, 32, 20), (512, 16, 10)]),
        (
            "video",
            [(64, 16, 128, 128), (64, 8, 64, 64), (64, 8, 64, 64), (128, 4, 32, 32), (256, 2, 16, 16), (512, 1, 8, 8)],
        ),
    ],
)
def test_what_stands_behind_the_layers_at_the_published_size(modality, shapes):
    with torch.device("meta"):
        module = build_vggsound(modality).module
        found = output_shapes(module, {modality: torch.zeros(2, *SHAPES[modality])})

    layers = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    assert [found[f"encoders.from_{modality}.{name}"] for name in layers] == shapes
    assert found[LAYER] == (512,) and found["head"] == (100,)


@pytest.mark.parametrize(("modality", "shape"), [("audio", (1, 5, 5)), ("audio", (2, 9, 200)), ("video", (1, 1, 1, 2))])
def test_samples_may_have_nearly_any_size(modality, shape):
    module = build_vggsound(modality, shape=shape, classes=3, width=8).module.eval()

    assert module({modality: torch.zeros(2, *shape)}).shape == (2, 3)


def test_the_order_of_frames_counts_and_that_of_clips_does_not():
    module, clips = tiny("video").module, torch.randn(4, *TINY["video"])

    with torch.no_grad():
        answers, backwards, exchanged = (
            module({"video": video}) for video in (clips, clips.flip(1), clips.flip(0).contiguous())
        )

    assert not torch.allclose(answers, backwards, rtol=1e-3)
    torch.testing.assert_close(exchanged.flip(0), answers, rtol=1e-4, atol=1e-5)  # other order of sums


@pytest.mark.parametrize("width", [1, 7, 50, 64])
def test_any_width_can_be_asked_for_and_is_that_of_the_embedding(width):
    for encoder in ("vggsound_video", "video_resnet50"):
        module = build_vggsound("video", shape=(2, 3, 8, 8), encoder=encoder, width=width).module

        found = output_shapes(module, {"video": torch.zeros(2, 2, 3, 8, 8)})
        assert found[LAYER] == (width,) and module.head.in_features == width


def test_a_control_of_the_same_size_can_be_built():
    student = tiny("audio")

    width = width_for(student, 2 * count_parameters(student.module))

    larger = build_vggsound("audio", classes=3, shape=TINY["audio"], width=width).module
    smaller = build_vggsound("audio", classes=3, shape=TINY["audio"], width=width - 1).module
    assert count_parameters(larger) >= 2 * count_parameters(student.module) > count_parameters(smaller)


@pytest.mark.parametrize("modality", TINY)
def test_a_saved_student_answers_alike(modality, tmp_path):
    student = tiny(modality)
    samples = torch.randn(3, *TINY[modality])

    again, _ = load_student(save_student(tmp_path / "student.safetensors", student, info_of(modality)))

    assert again.arguments == student.arguments
    assert torch.equal(again.module({modality: samples}), student.module({modality: samples}))


@pytest.mark.parametrize("modality", [pytest.param("audio", marks=pytest.mark.slow), "video"])
def test_onnx_answers_alike_for_any_number_of_clips(modality, tmp_path):
    samples = torch.randn(5, *TINY[modality]).numpy()

    done = export_student(tiny(modality), info_of(modality), tmp_path, format="onnx", samples={modality: samples})

    assert done["batch_sizes"] == [1, 4, 5] and done["difference"] < 1e-5


@pytest.mark.parametrize("encoder", ["vggsound_audio", "resnet18"])
def test_image_weights_load_into_the_audio_network(encoder, tmp_path):
    source = ResNet(BasicBlock, (2, 2, 2, 2), outputs=4, width=16)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    trunk = tiny("audio", encoder=encoder).module.encoders["from_audio"]

    load_weights(trunk, tmp_path / "weights.pth", adapt_first=True)

    assert torch.equal(trunk.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    torch.testing.assert_close(trunk.conv1.weight[:, 0], source.conv1.weight.sum(dim=1))


def test_image_weights_that_do_not_fit_the_depth_are_said_by_name(tmp_path):
    torch.save(ResNet(BasicBlock, (2, 2, 2, 2), width=16).state_dict(), tmp_path / "weights.pth")
    trunk = tiny("video").module.encoders["from_video"]

    with pytest.raises(InputError, match=r"missing in the file: layer1\.2\.conv1\.weight"):
        load_weights(trunk, tmp_path / "weights.pth", inflate=True)


@pytest.mark.parametrize("disturb", ["permute", "zero"])
def test_the_saliency_of_pooled_channels_needs_no_permutation_and_equals_that_of_the_whole_network(disturb):
    teacher, student = tiny("audio").module, tiny("video").module
    batch = Batch({name: torch.randn(6, *shape) for name, shape in TINY.items()}, {})
    asked = {"distance": "l1", "disturb": disturb, "permutations": 2}

    quick, slow = (
        measure_saliency(teacher, student, [batch], LAYER, method=method, **asked) for method in ("auto", "naive")
    )
    exact = measure_saliency(teacher, student, [batch], LAYER, distance="l1")

    assert quick.form == exact.form == "closed" and exact.exact
    assert quick.raw == pytest.approx(slow.raw, rel=1e-5)


def test_the_answer_without_channels_is_the_head_on_the_others():
    student, sound = tiny("audio"), {"audio": torch.randn(3, *TINY["audio"])}
    module = student.module
    keep = torch.arange(16) % 3 > 0
    with evaluating(module), masked(module, LAYER, keep, fill="zero"):
        answers = module(sound)

    with torch.no_grad():
        expected = module.features(sound)[:, keep] @ module.head.weight[:, keep].T + module.head.bias
    torch.testing.assert_close(answers, expected)


def test_wrong_asks_are_refused():
    with pytest.raises(InputError, match="audio or video, not 'image'"):
        build_vggsound("image")
    with pytest.raises(InputError, match="at least 5 x 5"):
        build_vggsound("audio", shape=(1, 4, 40))
    with pytest.raises(InputError, match=r"\(frames, channels, height, width\)"):
        build_vggsound("video", shape=(3, 8, 8))
    with pytest.raises(InputError, match="Did you mean 'video_resnet34'"):
        build_vggsound("video", encoder="video_resnet43")
    with pytest.raises(InputError, match="width of the encoder"):
        build_vggsound("video", width=0)

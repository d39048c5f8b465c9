"""Two streams: the terms of the objective, what is deployed, the optimisers of each stream, and what is refused."""

from dataclasses import replace

import pytest
import torch
from scenes import scenes

from xmodal.cards import load
from xmodal.data.loader import Pick
from xmodal.engine.fit import fit
from xmodal.engine.optim import Optimisers
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses.segmentation import focal, lovasz, perception_aware
from xmodal.methods import METHODS
from xmodal.methods.pmf import PMF, build
from xmodal.methods.settings import PMFSettings
from xmodal.models.network import student_of
from xmodal.models.pixels.pmf_net import build_pmf
from xmodal.models.student_file import load_student, save_student
from xmodal.study.fitness import unfit
from xmodal.types import DataInfo, InputInfo

SMALL = {"backbone": "camera_resnet10", "width": 2, "channels": 16}


@pytest.fixture(scope="module")
def data():
    return scenes(8)


@pytest.fixture
def make(data):
    def made(info=None, **settings):
        torch.manual_seed(0)
        info = info or data.info
        return PMF(build_pmf(info, **SMALL), info, **settings)

    return made


@pytest.fixture
def batch(data):
    return data.train[Pick(dict.fromkeys(data.train.rows, torch.arange(4)), None)]


def test_the_objective_is_that_of_the_labels_for_both_streams_and_what_they_learn_from_one_another(make, batch):
    method = make(perception_weight=0.5, threshold=0.1).eval()

    found = method(batch, {})

    said, known = method.network.streams(batch.inputs), batch.target != 0
    rows = {name: answers.movedim(1, -1)[known] for name, answers in (("", said.lidar), ("camera ", said.camera))}
    for name, answers in rows.items():
        torch.testing.assert_close(found.losses[f"{name}task focal"], focal(answers, batch.target[known]))
        torch.testing.assert_close(found.losses[f"{name}task lovasz"], lovasz(answers, batch.target[known]))
        assert int(found.counts[f"{name}task focal"]) == int(known.sum())
    expected = 0.5 * perception_aware(said.lidar, said.camera, threshold=0.1)
    torch.testing.assert_close(found.losses["perception"], expected)
    assert len(found.losses) == 5 and found.logs.keys() == {"entropy lidar", "entropy image"}


def test_losses_that_the_data_names_go_first(data, make, batch):
    info = replace(data.info, label_losses={"cross_entropy": 2.0}, class_weights=(0.0, 1.0, 1.0, 1.0))
    method = make(info, perception_weight=0.0).eval()

    found = method(batch, {})

    assert set(found.losses) == {"task", "camera task"}
    known, said = batch.target != 0, method.network.streams(batch.inputs)
    plain = torch.nn.functional.cross_entropy(said.camera.movedim(1, -1)[known], batch.target[known])
    torch.testing.assert_close(found.losses["camera task"], 2 * plain)


def gradients(method, batch, *, part):
    """Gradient of the perception term alone with respect to the head of a stream."""
    method.zero_grad()
    method(batch, {}).losses["perception"].backward()
    return getattr(method.network, part).weight.grad


def test_a_stream_that_guides_is_a_constant_unless_told_otherwise(make, batch):
    """With the LiDAR stream sure of everything and the camera stream of nothing, only the camera stream learns."""
    found = {}
    for detach in (True, False):
        method = make(detach=detach).eval()
        with torch.no_grad():
            method.network.head.bias.copy_(torch.tensor([0.0, 3.5, 0.0, 0.0]))
            method.network.head.weight.mul_(0.1)
            method.network.camera_head.weight.mul_(0.01)
        found[detach] = {part: gradients(method, batch, part=part) for part in ("head", "camera_head")}

    assert all(each["camera_head"].abs().max() > 0 for each in found.values())
    assert found[True]["head"].abs().max() == 0 and found[False]["head"].abs().max() > 0


def test_the_published_optimisers_share_the_streams_between_them(make):
    method = make(camera_weight_decay=1e-4)

    ours = Optimisers(method.param_groups(), FitSettings(learning_rate=0.01, optimizer="rmsprop"), 1)

    kinds = {type(each).__name__: each.param_groups[0] for each in ours.optimizers}
    assert kinds.keys() == {"AdamW", "SGD"} and ours.rates == [0.01, 0.01]
    assert kinds["AdamW"]["weight_decay"] == 0.01 and kinds["SGD"]["weight_decay"] == 1e-4
    assert kinds["SGD"]["nesterov"] and kinds["SGD"]["momentum"] == 0.9
    assert {id(p) for p in ours.parameters} == {id(p) for p in method.parameters()}


def test_one_optimiser_does_for_both_if_asked(make):
    (group,) = make(hybrid=False).param_groups()

    assert set(group) == {"params"} and len(group["params"]) == len(list(make().parameters()))


def test_both_streams_are_deployed_and_the_camera_stream_alone_too(make, data, batch, tmp_path):
    method = make().eval()

    said = method.predict(batch.inputs)
    alone = method.predict({"image": batch.inputs["image"]})

    assert list(said) == ["lidar+image", "image"] and method.lead == "lidar+image" and list(alone) == ["image"]
    assert torch.equal(alone["image"], said["image"])
    for name, student in method.students().items():
        path = save_student(tmp_path / name / "student.safetensors", student, data.info)
        loaded, description = load_student(path)
        assert torch.equal(loaded.module(batch.inputs), said[name])
        assert description["needs"] == (["lidar", "image"] if "+" in name else ["image"])


def test_the_camera_stream_is_not_held_twice(make):
    method = make()

    shared = {id(p) for p in method.students()["image"].module.parameters()}

    assert shared == {id(p) for p in method.network.camera_parameters()}
    assert len(method.state_dict()) == len(method.network.state_dict())


class Counting(PMF):
    """Counts its steps, and breaks down at one of them if asked to."""

    steps, last = 0, 0

    def training_step(self, batch, teacher_outputs):
        self.steps += 1
        if self.steps == self.last:
            raise RuntimeError("no power")
        return super().training_step(batch, teacher_outputs)


def test_a_stopped_training_goes_on_with_both_optimisers_and_the_schedule_where_they_stood(data, tmp_path):
    settings = FitSettings(epochs=3, batch_size=3, schedule="cosine", warmup=1, schedule_point="end", save_every=1)

    def made(last=0):
        torch.manual_seed(0)
        method = Counting(build_pmf(data.info, **SMALL), data.info)
        method.last = last
        return method

    straight = fit(made(), data, settings, seed=1)
    with pytest.raises(RuntimeError, match="no power"):
        fit(made(last=4), data, settings, seed=1, folder=tmp_path / "run")
    resumed = fit(made(), data, settings, seed=1, folder=tmp_path / "run", resume=True)

    assert (straight.method.steps, resumed.method.steps) == (6, 3)
    assert [row["lr"] for row in resumed.history] == [row["lr"] for row in straight.history]
    assert straight.history[-1]["lr"] == [0.0, 0.0]  # the last update of all
    mine, theirs = resumed.method.state_dict(), straight.method.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class Lent:
    """What a recipe lends, as far as this method reads it."""

    def __init__(self, info, student=("lidar",), teaching=("image",), seed=0):
        self.info, self.student, self.teaching, self.seed = info, student, teaching, seed


def test_the_modalities_are_those_of_the_sides_unless_named(data):
    found = build(Lent(data.info), PMFSettings(**SMALL))
    both = build(Lent(data.info, ("lidar", "image"), ("lidar", "image")), PMFSettings(**SMALL))
    turned = build(Lent(data.info), PMFSettings(**SMALL, lidar="image", camera="lidar"))

    assert found.network.names == both.network.names == ("lidar", "image")
    assert turned.network.names == ("image", "lidar")


def test_what_has_no_pixels_or_no_second_modality_is_refused(data, make, tmp_path):
    vectors = DataInfo({"a": InputInfo((4,), layout="vector")}, "multiclass", 3, {})
    module = student_of(torch.nn.Conv2d(2, 4, 1), data.info, ("lidar",))

    assert "one target per sample" in unfit(METHODS["pmf"], vectors)[0]
    assert "a target for every pixel or voxel" in unfit(METHODS["dmd"], data.info)[0]
    assert not unfit(METHODS["pmf"], data.info)
    with pytest.raises(InputError, match="build_pmf"):
        PMF(module, data.info)
    with pytest.raises(InputError, match="other targets"):
        PMF(build_pmf(data.info, **SMALL), replace(data.info, dense=False))
    with pytest.raises(InputError, match="only 'lidar' is named on both sides"):
        build(Lent(data.info, teaching=("lidar",)), PMFSettings(**SMALL))
    with pytest.raises(InputError, match="nothing.pth"):
        build(Lent(data.info), PMFSettings(**SMALL, imagenet=tmp_path / "nothing.pth"))


def test_the_card_leads_to_the_method(data):
    method = load(METHODS["pmf"].path)(Lent(data.info), PMFSettings(**SMALL))

    assert isinstance(method, PMF) and METHODS["pmf"].targets == "place"

"""Distillation of dense outputs: their places are rows to every loss that asks for outputs."""

import pytest
import torch
from distilled import distilled
from torch import nn

from xmodal.diagnostics.divergence import from_logits, measure_divergence
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.losses.mask import pssm
from xmodal.methods.joint import Joint
from xmodal.methods.kd import KD
from xmodal.methods.mfh import Channels
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import Reads, build_for
from xmodal.types import Batch, DataInfo, InputInfo, Student

CLASSES, SIDE = 4, (3, 5)
OF_OUTPUTS = [name for name, card in LOSSES.items() if "logits" in card.needs and "memory" not in card.needs]
POINTWISE = [name for name in OF_OUTPUTS if LOSSES[name].samples == "pointwise" and name != "bernoulli_kl"]
MIXING = [name for name in OF_OUTPUTS if LOSSES[name].samples == "mixing"]


def says(name):
    """A network that answers with what it reads."""
    return Student(Reads(nn.Identity(), (name,)), (name,), name)


def info_of(ignore=None, *, dense=True, **facts):
    inputs = {name: InputInfo((CLASSES, *SIDE) if dense else (CLASSES,)) for name in ("lidar", "image")}
    return DataInfo(inputs, "multiclass", CLASSES, {}, dense=dense, ignore=ignore, **facts)


def scene(ignore=None, seed=0):
    """Answers of both, labels of which every third is unknown, and pixels at which something was measured."""
    generator = torch.Generator().manual_seed(seed)
    answers = {name: torch.randn(2, CLASSES, *SIDE, generator=generator) for name in ("lidar", "image")}
    target = torch.randint(1, CLASSES, (2, *SIDE), generator=generator)
    measured = torch.rand(target.shape, generator=generator) > 0.2
    if ignore is not None:
        target[torch.rand(target.shape, generator=generator) < 0.4] = ignore
    return Batch(answers, dict.fromkeys(answers, target), dict.fromkeys(answers, measured))


def term(kind, batch, info, **options):
    """Value of the teacher's term, what its mean counted, and the gradient of the student's answers."""
    given = {"kd_weight": 1.0, "task_weight": 0.0, **options}
    answers = {**batch.inputs, "lidar": batch.inputs["lidar"].clone().requires_grad_()}
    method = distilled(kind, says("lidar"), says("image").module, info, **given)
    asked = Batch(answers, batch.targets, batch.valid)
    step = method(asked, method.teach(asked))
    (value,), (count,) = step.losses.values(), step.counts.values()
    value.backward()
    return value.detach(), int(count), answers["lidar"].grad


def rows_of(batch, places):
    """The chosen places as samples of their own."""
    answers = {name: maps.movedim(1, -1)[places] for name, maps in batch.inputs.items()}
    return Batch(answers, dict.fromkeys(answers, batch.target[places]))


@pytest.mark.parametrize("name", [*POINTWISE, *MIXING])
@pytest.mark.parametrize("ignore", [0, 255])
def test_every_loss_of_outputs_sees_labelled_pixels_as_samples(name, ignore):
    batch = scene(ignore)
    places = batch.valid["lidar"] & (batch.target != ignore)

    value, count, gradient = term(KD, batch, info_of(ignore), losses=(name,))

    alone, rows, expected = term(KD, rows_of(batch, places), info_of(dense=False), losses=(name,))
    torch.testing.assert_close(value, alone)
    assert count == rows == int(places.sum())
    torch.testing.assert_close(gradient.movedim(1, -1)[places], expected)
    assert not gradient.movedim(1, -1)[~places].any()


def test_a_teacher_is_heard_at_labelled_measured_or_all_pixels():
    batch = scene(0)
    measured, labelled = batch.valid["lidar"], batch.target != 0
    places = {"labelled": measured & labelled, "projected": measured, "all": torch.ones_like(measured)}

    for pixels, chosen in places.items():
        value, count, _ = term(KD, batch, info_of(0), pixels=pixels)
        alone, _, _ = term(KD, rows_of(batch, chosen), info_of(dense=False))
        assert count == int(chosen.sum())
        torch.testing.assert_close(value, alone)


def test_the_published_mean_runs_over_all_pixels_and_classes():
    batch = scene(0)

    value, count, _ = term(KD, batch, info_of(0), reduction="reference")

    mean, labelled, _ = term(KD, batch, info_of(0))
    assert count == 2 * 15
    torch.testing.assert_close(value, mean * labelled / (30 * CLASSES))


@pytest.mark.parametrize("name", ["dkd", "ncjsd", "wsld"])
def test_losses_of_labels_leave_out_pixels_whose_label_is_no_class(name):
    batch = scene(255)

    value, count, _ = term(KD, batch, info_of(255), losses=(name,), pixels="all")

    known = batch.target != 255
    alone, _, _ = term(KD, rows_of(batch, known), info_of(dense=False), losses=(name,))
    assert count == int(known.sum())
    torch.testing.assert_close(value, alone)


@pytest.mark.parametrize("ignore", [0, 255])
@pytest.mark.parametrize("cosine", ["logits", "probabilities"])
def test_the_sample_mask_weighs_pixels_and_an_unknown_label_is_never_right(ignore, cosine):
    batch = scene(ignore)
    batch.inputs["lidar"][:, :, 0] = batch.inputs["image"][:, :, 0]  # one row of pixels agrees
    batch.inputs["image"][:, 0] -= 9  # the teacher never says 0

    value, count, _ = term(NTDH, batch, info_of(ignore), pixels="all", cosine=cosine, temperature=1.0)

    sides = [batch.inputs[name].movedim(1, -1).flatten(0, -2) for name in ("lidar", "image")]
    sides = [side.softmax(1) for side in sides] if cosine == "probabilities" else sides
    labels = batch.target.flatten()
    omega = pssm(*sides, labels.where(labels != ignore, torch.zeros_like(labels)))
    logs = [batch.inputs[name].movedim(1, -1).flatten(0, -2).log_softmax(1) for name in ("lidar", "image")]
    terms = (logs[1].exp() * (logs[1] - logs[0])).sum(1)
    torch.testing.assert_close(value, (omega * terms).mean())
    assert count == 30


def test_losses_with_the_mask_inside_take_pixels_too():
    batch = scene(0)

    value, _, _ = term(NTDH, batch, info_of(0), scale_logits=True, temperature=1.0)

    places = batch.valid["lidar"] & (batch.target != 0)
    alone, _, _ = term(NTDH, rows_of(batch, places), info_of(dense=False), scale_logits=True, temperature=1.0)
    torch.testing.assert_close(value, alone)


@pytest.mark.parametrize("name", [*POINTWISE, *MIXING])
@pytest.mark.parametrize("kind", [KD, NTDH])
def test_a_batch_without_labels_teaches_nothing_and_keeps_its_graph(name, kind):
    batch = scene(0)
    batch.targets = dict.fromkeys(batch.targets, torch.zeros_like(batch.target))

    value, count, gradient = term(kind, batch, info_of(0), losses=(name,))

    assert value == 0 and count == 0 and not gradient.any()


@pytest.mark.parametrize("name", ["hint", "cwd", "at", "rkd"])
def test_losses_of_features_compare_maps_of_dense_networks(name):
    inputs = {"lidar": InputInfo((2, 16, 16), layout="image"), "image": InputInfo((3, 16, 16), layout="image")}
    info = DataInfo(inputs, "multiclass", 3, {}, dense=True, ignore=0)
    student, teacher = build_for(info, ["lidar"], width=2), build_for(info, ["image"], width=4)
    samples = {key: torch.randn(3, *known.shape) for key, known in inputs.items()}
    batch = Batch(samples, dict.fromkeys(samples, torch.randint(3, (3, 16, 16))))
    method = KD(student, teacher.module, info, DistillationOptions(losses=(name,), task_weight=0.0))

    step = method(batch, method.teach(batch))
    step.losses["kd"].backward()

    assert step.losses["kd"].isfinite() and student.module.encoders["from_lidar"].res1.shortcut[0].weight.grad.any()


def test_maps_of_outputs_are_compared_as_maps_where_a_loss_asks_for_maps():
    batch = scene()

    value, _, _ = term(KD, batch, info_of(), losses=("cwd",), student_layer=("outputs",), teacher_layer=("outputs",))

    expected = LOSSES["cwd"].load()(batch.inputs["lidar"], batch.inputs["image"])
    torch.testing.assert_close(value, LOSSES["cwd"].weight * expected)


def test_a_teacher_without_some_channels_answers_for_every_pixel():
    info = DataInfo({"lidar": InputInfo((2, 16, 16), layout="image")}, "multiclass", 3, {}, dense=True)
    networks = [build_for(info, ["lidar"], width=2) for _ in range(2)]
    channels = Channels("embedding", torch.tensor([True, False]), "zero")
    method = NTDH(networks[0], networks[1].module, info, channels=channels, samples=False)
    samples = {"lidar": torch.randn(1, 2, 16, 16)}
    batch = Batch(samples, {"lidar": torch.zeros(1, 16, 16, dtype=torch.long)})

    teacher_outputs = method.teach(batch)["outputs"]

    whole = method.teacher.eval()
    kept = whole.features(samples) * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(teacher_outputs, whole.head(kept))


def test_data_names_the_losses_of_its_labels_for_every_method():
    batch, info = scene(0), info_of(0, label_losses={"focal": 1.0, "lovasz": 0.5}, class_weights=(0.0, 0.5, 1.0, 1.0))

    alone = Supervised(says("lidar"), info)(batch, {})
    kd = KD(says("lidar"), says("image").module, info, DistillationOptions(task_weight=2.0))
    teacher_outputs = kd(batch, kd.teach(batch))
    joint = Joint(says("image"), says("lidar"), info)(batch, {})

    assert set(alone.losses) == {"task focal", "task lovasz"}
    for name, value in alone.losses.items():
        torch.testing.assert_close(teacher_outputs.losses[name], 2 * value)
        torch.testing.assert_close(joint.losses[f"student {name}"], value)
        assert int(alone.counts[name]) == int((batch.valid["lidar"] & (batch.target != 0)).sum())


def test_methods_that_pick_pixels_are_trained_one_by_one():
    assert not KD(says("lidar"), says("image").module, info_of()).stackable
    assert not Supervised(says("lidar"), info_of(label_losses={"lovasz": 1.0})).stackable
    assert Supervised(says("lidar"), info_of()).stackable


def test_unknown_words_are_refused():
    with pytest.raises(InputError, match="no reduction called 'mean'. Known: pixel, reference"):
        DistillationOptions(reduction="mean")
    with pytest.raises(InputError, match="no choice of pixels called 'label'. Did you mean 'labelled'"):
        DistillationOptions(pixels="label")


@pytest.mark.parametrize("ignore", [0, 255])
def test_divergence_is_measured_at_labelled_pixels(ignore):
    batch = scene(ignore)
    places = batch.valid["lidar"] & (batch.target != ignore)
    sides = says("lidar").module, says("image").module

    found = measure_divergence(*sides, [batch], ignore=ignore, samples=10)

    alone = rows_of(batch, places)
    expected = from_logits(alone.inputs["lidar"], alone.inputs["image"], alone.target, samples=10)
    assert found.non_target_mean == pytest.approx(expected.non_target_mean)
    assert found.target_mean == pytest.approx(expected.target_mean) and len(found.targets) == int(places.sum())


def test_channels_are_ranked_by_the_agreement_at_labelled_pixels():
    batch = scene(255)
    networks = says("image").module, says("lidar").module
    batch.inputs["image"][:, 0] = 1.0  # says nothing, so that exchanging it breaks nothing

    found = measure_saliency(*networks, [batch], "input:image", distance="ncjsd", permutations=3, ignore=255)

    other = scene(255)
    other.inputs["image"][:, 0] = 1.0
    unknown = (other.target == 255) | ~other.valid["lidar"]
    for maps in other.inputs.values():
        maps.movedim(1, -1)[unknown] = 7.0  # what is said elsewhere does not matter
    same = measure_saliency(*networks, [other], "input:image", distance="ncjsd", permutations=3, ignore=255)
    assert found.raw[0] == pytest.approx(found.baseline) and found.raw[1:].min() > 0
    assert found.baseline == pytest.approx(same.baseline)

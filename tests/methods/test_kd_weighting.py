"""Places of dense outputs weigh what the class weighs that the teacher sees there; voxels are places like pixels."""

import pytest
import torch
from distilled import distilled
from torch import nn

from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.losses.task import label_terms
from xmodal.methods.kd import KD
from xmodal.methods.mfh import MFH
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import Reads
from xmodal.models.scenes.build import build_scene
from xmodal.types import Batch, DataInfo, InputInfo, Student

CLASSES, ROOM = 3, (3, 2, 4)  # D, H, W
WEIGHTS = (0.05, 1.0, 2.0)


def facts(**changes):
    inputs = {name: InputInfo((CLASSES, *ROOM)) for name in ("depth", "rgb")}
    given = {"dense": True, "target_shape": ROOM, "ignore": 255, "class_weights": WEIGHTS, **changes}
    return DataInfo(inputs, "multiclass", CLASSES, {}, **given)


def says(name):
    """A network that answers with what it reads."""
    return Student(Reads(nn.Identity(), (name,)), (name,), name)


def room(rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    answers = {name: torch.randn(rows, CLASSES, *ROOM, generator=generator) for name in ("depth", "rgb")}
    target = torch.randint(CLASSES, (rows, *ROOM), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.5] = 255
    regions = torch.randint(3, target.shape, generator=generator)
    return Batch(answers, dict.fromkeys(answers, target), {}, {}, dict.fromkeys(answers, regions))


def teacher_outputs(kind=KD, batch=None, info=None, **options):
    batch = batch or room()
    given = {"kd_weight": 1.0, "task_weight": 0.0, "temperature": 1.0, **options}
    method = distilled(kind, says("depth"), says("rgb").module, info or facts(), **given)
    return method(batch, method.teach(batch))


def by_hand(batch, chosen):
    """The weighted mean of the divergences at chosen voxels, and the sum of the weights."""
    s, t = (batch.inputs[name].movedim(1, -1)[chosen] for name in ("depth", "rgb"))
    p = t.softmax(-1)
    values = (p * (p.log() - s.log_softmax(-1))).sum(-1)
    weights = p @ torch.tensor(WEIGHTS)
    return (weights * values).sum() / weights.sum(), weights.sum()


@pytest.mark.parametrize("pixels", ["labelled", "scored", "all"])
def test_a_voxel_weighs_what_the_teacher_sees(pixels):
    batch = room()
    chosen = {
        "labelled": batch.target != 255,
        "scored": batch.scored["depth"] > 0,
        "all": torch.ones_like(batch.target, dtype=torch.bool),
    }[pixels]

    step = teacher_outputs(batch=batch, pixels=pixels, weighting="classes")

    value, total = by_hand(batch, chosen)
    torch.testing.assert_close(step.losses["kd"], value)
    torch.testing.assert_close(step.counts["kd"], total)


def test_two_halves_weighed_by_their_counts_are_the_whole():
    """What two processes do with half a batch each."""
    whole = room(4)
    halves = [
        Batch(*({name: part[at] for name, part in parts.items()} for parts in _parts(whole)))
        for at in (slice(0, 2), slice(2, 4))
    ]

    steps = [teacher_outputs(batch=half, weighting="classes") for half in halves]

    counts = torch.stack([step.counts["kd"] for step in steps])
    values = torch.stack([step.losses["kd"] for step in steps])
    torch.testing.assert_close(
        (counts * values).sum() / counts.sum(), teacher_outputs(batch=whole, weighting="classes").losses["kd"]
    )


def _parts(batch):
    return batch.inputs, batch.targets, batch.valid, batch.index, batch.scored


def test_class_weights_and_the_sample_mask_multiply():
    batch = room()

    plain, masked = (
        teacher_outputs(NTDH, batch, weighting="classes", samples=samples, threshold=2.0) for samples in (False, True)
    )

    chosen = batch.target != 255
    s, t = (batch.inputs[name].movedim(1, -1)[chosen] for name in ("depth", "rgb"))
    p = t.softmax(-1)
    weights = p @ torch.tensor(WEIGHTS)
    values = weights * (p * (p.log() - s.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(plain.losses["kd"], values.sum() / weights.sum())
    right = t.argmax(-1) == batch.target[chosen]
    torch.testing.assert_close(masked.losses["kd"], values[right].sum() / weights.sum())


def test_equal_weights_are_none():
    batch, info = room(), facts(class_weights=(1.0, 1.0, 1.0))

    weighed, alike = (teacher_outputs(batch=batch, info=info, weighting=kind) for kind in ("classes", "alike"))

    torch.testing.assert_close(weighed.losses["kd"], alike.losses["kd"])


def test_losses_that_compare_voxels_with_one_another_are_left_alone():
    batch = room()

    weighed, alike = (teacher_outputs(batch=batch, losses=["dist"], weighting=kind) for kind in ("classes", "alike"))

    torch.testing.assert_close(weighed.losses["kd"], alike.losses["kd"])


@pytest.mark.parametrize("kind", [KD, MFH, NTDH])
def test_every_method_with_a_teacher_takes_voxels(kind):
    step = teacher_outputs(kind, weighting="classes", task_weight=1.0, losses=["kl", "dkd"])

    assert set(step.losses) == {"kd 1 kl", "kd 2 dkd", "task"}
    assert all(torch.isfinite(value) for value in step.losses.values())


def test_labels_of_voxels_are_a_weighted_mean_over_all_that_are_known():
    batch = room()

    step = Supervised(says("depth"), facts())(batch, {})

    expected = torch.nn.functional.cross_entropy(
        batch.inputs["depth"], batch.target, weight=torch.tensor(WEIGHTS), ignore_index=255
    )
    torch.testing.assert_close(step.losses["task"], expected)
    torch.testing.assert_close(label_terms(batch.inputs["depth"], batch.target, facts())["task"][0], expected)


def test_a_batch_of_which_nothing_is_heard_costs_nothing():
    batch = room()
    for region in batch.scored.values():
        region.zero_()

    step = teacher_outputs(batch=batch, pixels="scored", weighting="classes")

    assert step.losses["kd"].item() == 0


def test_weightings_and_places_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="needs data with class weights"):
        teacher_outputs(info=facts(class_weights=()), weighting="classes")
    with pytest.raises(InputError, match="needs .* the reduction 'pixel'"):
        teacher_outputs(weighting="classes", reduction="reference")
    with pytest.raises(InputError, match="no weighting called 'class'"):
        teacher_outputs(weighting="class")
    without = room()
    without.scored.clear()
    with pytest.raises(InputError, match="does not say where metrics look in training"):
        teacher_outputs(batch=without, pixels="scored")


FEW = ("kl", "dkd", "hint", "at", "fsp", "rkd")  # of each kind one


@pytest.mark.parametrize(
    "loss", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in LOSSES]
)
def test_every_loss_of_the_zoo_takes_voxels_of_networks_for_rooms(loss):
    if LOSSES[loss].name == "bernoulli_kl":  # compares yes-or-no answers
        return
    position = InputInfo((6, 8), dtype="int64")
    inputs = {"depth": InputInfo((1, 6, 8)), "rgb": InputInfo((3, 6, 8))}
    places = (4, 2, 4)
    info = DataInfo(
        {**inputs, "depth.position": position, "rgb.position": position},
        "multiclass",
        CLASSES,
        {"train": {"depth": 3, "rgb": 3}},
        dense=True,
        target_shape=places,
        ignore=255,
        class_weights=WEIGHTS,
    )
    student, teacher = build_scene(info, ["depth"]), build_scene(info, ["rgb"])
    pictures = {name: torch.randn(3, *known.shape) for name, known in inputs.items()}
    at = torch.randint(16 * 8 * 16, (3, 6, 8))
    target = torch.randint(CLASSES, (3, *places))
    batch = Batch(
        {**pictures, "depth.position": at, "rgb.position": at},
        dict.fromkeys(inputs, target),
        {},
        dict.fromkeys(inputs, torch.arange(3)),
    )
    method = KD(student, teacher.module, info, DistillationOptions(losses=[loss], weighting="classes"))
    method.on_epoch_start(1, 2)

    step = method(batch, method.teach(batch))
    sum(step.losses.values()).backward()

    assert all(torch.isfinite(value) for value in step.losses.values())
    assert student.module.head[0].weight.grad is not None

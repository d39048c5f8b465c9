"""Distillation with masked channels, masked samples, and both."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from distilled import distilled

from xmodal.data import open_data
from xmodal.data.loader import in_order
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.losses.logits import kl
from xmodal.losses.mask import kl_pssm, pssm
from xmodal.losses.relational import rkd
from xmodal.methods.kd import KD
from xmodal.methods.mfh import Channels, stay_of
from xmodal.methods.ntdh import NTDH, build
from xmodal.methods.options import DistillationOptions
from xmodal.methods.settings import NTDHSettings
from xmodal.models.network import build_for

EYE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
# row by row: teacher right; teacher wrong and student elsewhere; teacher wrong and student almost the same; right
CLEAR = [[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
FAINT = [[0.0, 1.0, 0.3], [0.0, 1.0, 0.2], [0.01, 2.0, 0.0], [0.5, 0.0, 0.0]]
TARGET = [0, 1, 2, 2]


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", options={"views": ["image", "noisy"]}, train_fraction=0.1)


@pytest.fixture
def batch(make_batch):
    return make_batch(CLEAR, FAINT, TARGET)


@pytest.fixture
def make(linear_student, linear_teacher, make_info):
    def made(kind=NTDH, **options):
        info = make_info(classes=3, width=3, rows={"train": {"clear": 4, "faint": 4}})
        return distilled(kind, linear_student(EYE), linear_teacher(EYE), info, **options)

    return made


def run(method, batch):
    return method(batch, method.teach(batch)).losses


def omega(**options):
    return pssm(torch.tensor(FAINT), torch.tensor(CLEAR), torch.tensor(TARGET), **options)


def test_the_weights_of_the_example_are_what_they_should_be():
    cosine = F.cosine_similarity(torch.tensor(FAINT[2]), torch.tensor(CLEAR[2]), dim=0)

    torch.testing.assert_close(
        omega(), torch.stack([torch.tensor(1.0), torch.tensor(0.0), (1 + cosine) / 2, torch.tensor(1.0)])
    )


def test_each_value_is_multiplied_by_its_weight_and_the_divisor_stays(make, batch):
    values = kl(torch.tensor(FAINT), torch.tensor(CLEAR), temperature=2.0, reduction="none")

    losses = run(make(temperature=2.0, kd_weight=0.3), batch)

    torch.testing.assert_close(losses["kd"], 0.3 * (omega() * values).sum() / 4)


def test_losses_that_compare_samples_see_those_that_count_alone(make, batch):
    kept = torch.tensor([0, 2, 3])

    losses = run(make(losses=("rkd:1",), kd_weight=1.0, student_layer=("module",), teacher_layer=("module",)), batch)

    torch.testing.assert_close(losses["kd"], rkd(torch.tensor(FAINT)[kept], torch.tensor(CLEAR)[kept]))


@pytest.mark.parametrize("loss", ["kl", "rkd", "hint", "crd"])
def test_a_batch_of_which_no_sample_counts_teaches_nothing(make, make_batch, loss):
    batch = make_batch(CLEAR[1:2] * 2, FAINT[1:2] * 2, [1, 1])
    method = make(losses=(loss,), student_layer=("module",), teacher_layer=("module",), task_weight=0.0)

    losses = run(method, batch)
    losses["kd"].backward()

    assert losses["kd"].item() == 0
    assert all(torch.equal(part.grad, torch.zeros_like(part)) for part in method.network.parameters())


def test_where_the_teacher_is_right_it_is_kd(make, make_batch):
    batch = make_batch(CLEAR, FAINT, [0, 0, 1, 2])

    one, other = run(make(), batch), run(make(kind=KD), batch)

    assert torch.equal(one["kd"], other["kd"]) and torch.equal(one["task"], other["task"])


def test_without_masks_it_is_kd(make, batch):
    assert torch.equal(run(make(samples=False), batch)["kd"], run(make(kind=KD), batch)["kd"])


def test_no_gradient_flows_through_the_weights_unless_asked_for(make, batch):
    def gradient(**options):
        method = make(task_weight=0.0, **options)
        run(method, batch)["kd"].backward()
        return method.network.module.weight.grad

    still = make(task_weight=0.0)
    loss = 0.5 * (omega() * kl(still.network(batch.inputs), torch.tensor(CLEAR), temperature=4.0, reduction="none"))
    loss.mean().backward()

    torch.testing.assert_close(gradient(), still.network.module.weight.grad)
    assert not torch.allclose(gradient(detach=False, threshold=-1.0), gradient(threshold=-1.0))


def test_as_published_the_weights_multiply_the_logits(make, batch):
    settings = NTDHSettings(as_published=True)
    method = make(losses=("kl:1", "dkd:1"), kd_weight=1.0, detach=settings.detach, scale_logits=settings.scale_logits)

    losses = run(method, batch)

    expected = kl_pssm(torch.tensor(FAINT), torch.tensor(CLEAR), torch.tensor(TARGET))
    assert not settings.detach and [term.options["detach"] for term in method.terms] == [False, False]
    torch.testing.assert_close(losses["kd 1 kl_pssm"], expected)


def test_a_lower_threshold_lets_more_samples_count(make, batch):
    assert run(make(threshold=-1.0), batch)["kd"] > run(make(), batch)["kd"]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_carries_the_mask(name, digits):
    torch.manual_seed(0)
    student, teacher = build_for(digits.info, ["noisy"]), build_for(digits.info, ["image"])
    method = NTDH(student, teacher.module, digits.info, DistillationOptions(losses=(name,)))
    rows = next(iter(in_order(digits.train, batch_size=16)))

    losses = run(method, rows)
    losses["kd"].backward()

    wrong = method.teach(rows)["outputs"].argmax(dim=1) != rows.target
    assert 0 < wrong.sum() < 16  # an untrained teacher: the mask has something to do
    assert torch.isfinite(losses["kd"])
    assert any(part.grad is not None and torch.isfinite(part.grad).all() for part in student.module.parameters())


def test_both_masks_together(make, batch):
    channels = Channels("input:clear", torch.tensor([True, True, False]))
    method = make(channels=channels, temperature=1.0, kd_weight=1.0)
    heard = torch.tensor(CLEAR) * torch.tensor([1.0, 1.0, 0.0])

    losses = run(method, batch)

    weights = pssm(torch.tensor(FAINT), heard, torch.tensor(TARGET))
    assert weights[3] == 0 and omega()[3] == 1  # without its last channel the teacher is wrong about the last row
    torch.testing.assert_close(
        losses["kd"], (weights * kl(torch.tensor(FAINT), heard, temperature=1.0, reduction="none")).mean()
    )


@pytest.mark.parametrize("mask", ["channels", "samples", "both", "none"])
def test_masks_are_built_as_asked(mask, make_bench):
    bench = make_bench(epochs=2)

    method = build(bench, NTDHSettings(mask=mask, ratio=0.5, permutations=2))

    assert method.samples == (mask in ("samples", "both"))
    assert (method.channels is not None) == (mask in ("channels", "both")) == bool(method.findings)
    assert list(bench.stages) == (["ntdh joint training ncjsd"] if mask in ("channels", "both") else [])
    if method.channels is not None:
        assert method.keep.sum() == len(method.keep) / 2 and method.channels.fill == "zero"
    assert len(fit(method, bench.data, FitSettings(epochs=1), fabric=launch()).history) == 1


def test_the_lowest_are_removed_and_the_highest_on_request(make_bench):
    bench = make_bench(epochs=2)

    least, most = (build(bench, NTDHSettings(remove=which, ratio=0.75, permutations=2)) for which in ("least", "most"))

    saliency = torch.tensor(least.findings["saliency"])
    assert saliency[least.keep].min() >= saliency[~least.keep].max()
    assert saliency[most.keep].max() <= saliency[~most.keep].min()


@pytest.mark.parametrize("which", ["random", "index"])
def test_channels_that_are_chosen_without_a_saliency_have_none(which, make_bench):
    bench = make_bench(epochs=1)

    method = build(bench, NTDHSettings(remove=which, ratio=0.5))

    assert method.findings["saliency"] == [] and not [name for name in bench.measured if "saliency" in name]
    count = len(method.keep)
    assert method.keep.tolist() == stay_of(range(count), 0.5, which, bench.seed).tolist()


def test_two_classes_have_nothing_to_disagree_about(make_bench):
    bench = make_bench()
    bench.info = dataclasses.replace(bench.info, classes=2)

    with pytest.raises(InputError, match="there is one wrong class.*--mask samples, or --agreement mse"):
        build(bench, NTDHSettings())


def test_other_tasks_are_refused(linear_student, linear_teacher, make_info):
    with pytest.raises(InputError, match="compares the wrong classes, and the task is regression"):
        NTDH(linear_student(EYE), linear_teacher(EYE), make_info("regression"))

"""Batches in which some rows have no label: what each term makes of them, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call, vmap

from xmodal.data.labels import hide_labels
from xmodal.data.loader import in_order
from xmodal.data.split import unlabelled
from xmodal.diagnostics.branches import embed_batches
from xmodal.diagnostics.divergence import measure_divergence
from xmodal.diagnostics.heat_map import one_of_each
from xmodal.diagnostics.overlap import measure_overlap
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.errors import InputError
from xmodal.losses.logits import kl
from xmodal.losses.task import task_loss
from xmodal.methods.discom import DisCoM
from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.joint import Joint
from xmodal.methods.kd import KD
from xmodal.methods.mfh import MFH
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.pmf import PMF
from xmodal.methods.settings import DMDSettings
from xmodal.methods.supervised import Supervised
from xmodal.methods.terms import stored_rows
from xmodal.models.discom_net import branches_for
from xmodal.models.network import build_for
from xmodal.models.pixels.pmf_net import build_pmf
from xmodal.types import Batch, DataInfo, InputInfo

NAN = float("nan")
EYE = [[1.0, 0.0], [0.0, 1.0]]
CLEAR = [[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]
FAINT = [[0.0, 1.0], [4.0, 3.0], [1.0, 0.0]]
FIRST = [True, False, False]  # one labelled row and two without a label


def run(method, batch):
    return method(batch, method.teach(batch))


def some_labelled(batch, mask):
    """The batch with labels in these rows alone."""
    mask = torch.as_tensor(mask)
    target = unlabelled(batch.target, ~mask)
    return replace(batch, targets=dict.fromkeys(batch.targets, target), labelled=dict.fromkeys(batch.targets, mask))


def counts(step):
    return {name: int(count) for name, count in step.counts.items()}


@pytest.fixture
def make(linear_student, linear_teacher, make_info):
    def build_method(kind=KD, info=None, extra=None, student=EYE, **options):
        info = info or make_info(rows={"train": {"clear": 9, "faint": 9}})
        return kind(linear_student(student), linear_teacher(EYE), info, DistillationOptions(**options), **(extra or {}))

    return build_method


# ---- distillation from a frozen teacher


def test_one_labelled_and_two_unlabelled_rows_by_hand(make, make_batch):
    method = make(temperature=2.0, kd_weight=0.3, task_weight=0.7)
    batch = some_labelled(make_batch(CLEAR, FAINT, [1, 0, 1]), FIRST)

    step = run(method, batch)
    sum(step.losses.values()).backward()

    s, t = torch.tensor(FAINT), torch.tensor(CLEAR)
    p, q = (t / 2).softmax(1), (s / 2).softmax(1)
    assert step.losses["task"].item() == pytest.approx(0.7 * math.log(1 + math.exp(-1.0)))  # logits 0 and 1, class 1
    assert step.losses["kd"].item() == pytest.approx(0.3 * 4 * (p * (p / q).log()).sum().item() / 3)
    assert counts(step) == {"task": 1, "kd": 3}
    label_part = 0.7 * torch.outer(s[0].softmax(0) - torch.tensor([0.0, 1.0]), s[0])  # of one row, not a third of it
    teacher_part = 0.3 * 2 * (q - p).T @ s / 3
    torch.testing.assert_close(method.network.module.weight.grad, label_part + teacher_part)


def test_a_target_of_nan_leaves_the_gradient_a_number(make, make_batch, make_info):
    method = make(info=make_info("regression"), kd_weight=0.5, task_weight=0.5)
    batch = some_labelled(make_batch(CLEAR, FAINT, [[0.0, 3.0], [1.0, 1.0], [1.0, 1.0]]), FIRST)
    assert batch.target.isnan().any()

    step = run(method, batch)
    sum(step.losses.values()).backward()

    s, t = torch.tensor(FAINT), torch.tensor(CLEAR)
    assert step.losses["task"].item() == pytest.approx(0.5 * 2.0)  # (0, 1) against (0, 3)
    gradient = torch.outer(torch.tensor([0.0, 1.0 - 3.0]), s[0]) / 2 + (s - t).T @ s / 6
    torch.testing.assert_close(method.network.module.weight.grad, gradient)


@pytest.mark.parametrize("losses", [("dkd",), ("kl", "ncjsd", "crd")])
def test_terms_that_read_labels_use_the_labelled_rows_alone(losses, make, make_batch, make_info):
    info = make_info(classes=2, rows={"train": {"clear": 9, "faint": 9}})
    method = make(info=info, losses=losses, task_weight=0.0).eval()
    batch = some_labelled(make_batch(CLEAR, FAINT, [1, 0, 1]), [True, False, True])

    mixed, alone = run(method, batch), run(method, batch.take(torch.tensor([0, 2])))

    for name in mixed.losses:
        equal = torch.isclose(mixed.losses[name], alone.losses[name])
        assert equal == (not name.endswith("kl")) and counts(mixed)[name] == (3 if name.endswith("kl") else 2)


def test_the_divisor_of_published_sums_counts_labelled_rows(make, make_batch, make_info):
    method = make(losses=("dkd",), task_weight=0.0, reduction="reference")
    batch = some_labelled(make_batch(CLEAR, FAINT, [1, 0, 1]), FIRST)

    mixed, alone = run(method, batch), run(method, batch.take(slice(0, 1)))
    without = run(method, some_labelled(batch, [False] * 3))

    torch.testing.assert_close(mixed.losses["kd"], alone.losses["kd"])
    assert counts(mixed) == counts(alone) == {"kd": 1}
    assert without.losses["kd"].item() == 0.0 and counts(without) == {"kd": 0}


def pictures(make_info, **facts):
    """Two pictures of two pixels; the second has no label, and the first pixel of the first is ignored."""
    info = make_info(classes=2, width=2, dense=True, ignore=255, **facts)
    batch = Batch(
        {name: torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(n)) for n, name in enumerate(info.inputs)},
        dict.fromkeys(info.inputs, torch.tensor([[255, 1], [-1, -1]])),
        labelled=dict.fromkeys(info.inputs, torch.tensor([True, False])),
    )
    return info, batch


class Pixels(torch.nn.Module):
    """The inputs of a modality as outputs, times a weight."""

    def __init__(self, name):
        super().__init__()
        self.name, self.weight = name, torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.weight * inputs[self.name]


@pytest.fixture
def make_pixels(make_info, linear_student):
    def build_method(kind=KD, facts=None, **options):
        info, batch = pictures(make_info, **(facts or {}))
        student = replace(linear_student(EYE), module=Pixels("faint"), builder=None, arguments=None)
        return kind(student, Pixels("clear"), info, DistillationOptions(temperature=1.0, **options)), batch

    return build_method


def test_a_picture_without_labels_is_compared_everywhere_and_a_labelled_one_at_its_labels(make_pixels):
    method, batch = make_pixels(kd_weight=1.0, task_weight=1.0)

    step = run(method, batch)

    each = kl(batch.inputs["faint"], batch.inputs["clear"], temperature=1.0, reduction="none")
    torch.testing.assert_close(step.losses["kd"], (each[0, 1] + each[1].sum()) / 3)
    torch.testing.assert_close(step.losses["task"], -batch.inputs["faint"][0, :, 1].log_softmax(0)[1])
    assert counts(step) == {"kd": 3, "task": 1}


@pytest.mark.parametrize("options", [{}, {"weighting": "classes"}, {"reduction": "reference"}])
@pytest.mark.parametrize("losses", [("dkd",), ("kl",)])
def test_pixels_of_unlabelled_pictures_count_unless_the_loss_reads_labels(losses, options, make_pixels):
    method, batch = make_pixels(losses=losses, facts={"class_weights": (1.0, 3.0)}, **options)

    mixed, alone = run(method, batch), run(method, batch.take(slice(0, 1)))

    assert torch.isclose(mixed.losses["kd"], alone.losses["kd"]) == (losses == ("dkd",))
    assert torch.isclose(mixed.losses["task"], alone.losses["task"])
    assert (float(mixed.counts["kd"]) == float(alone.counts["kd"])) == (losses == ("dkd",))


def test_the_memory_of_crd_holds_the_labelled_rows_alone(make, make_batch, make_info):
    target = torch.tensor([-1, 0, -1, 1, -1, -1, 0, 1, -1])
    info = make_info(
        rows={"train": dict.fromkeys(("clear", "faint"), 9)},
        train_targets=dict.fromkeys(("clear", "faint"), target),
        labelled=dict.fromkeys(("clear", "faint"), 4),
    )
    method = make(info=info, losses=("crd(exact=true)", "kl"), task_weight=0.0).train()
    crd = method.terms[0].loss
    batch = make_batch(CLEAR, FAINT, [-1, 1, 1])
    batch = replace(batch, labelled=dict.fromkeys(batch.targets, torch.tensor([False, True, True])))
    batch.index = dict.fromkeys(batch.targets, torch.tensor([0, 3, 7]))
    before = crd.memory_student.clone()

    run(method, batch)

    assert stored_rows(info).tolist() == [-1, 0, -1, 1, -1, -1, 2, 3, -1]
    assert len(before) == crd.rows == 4 and not method.stackable
    assert (crd.memory_student != before).any(dim=1).tolist() == [False, True, False, True]
    assert not [name for name in method.state_dict() if "stored" in name]


def test_a_batch_without_labels_costs_nothing_where_labels_are_read_and_stays_in_the_graph(make, make_batch):
    method = make(losses=("crd", "dkd"))
    batch = some_labelled(make_batch(CLEAR, FAINT, [1, 0, 1]), [False] * 3)

    step = run(method, batch)
    sum(step.losses.values()).backward()

    assert {loss.item() for loss in step.losses.values()} == {0.0} and set(counts(step).values()) == {0}
    assert torch.equal(method.network.module.weight.grad, torch.zeros(2, 2))


def test_a_step_with_a_mask_is_the_same_for_a_stack_of_models(make, make_batch, make_info):
    info = make_info(labelled={"clear": 1, "faint": 1})
    method = make(info=info, losses=("kl", "dkd"))
    batch = some_labelled(make_batch(CLEAR, FAINT, [1, 0, 1]), FIRST)
    teacher_outputs, name = method.teach(batch), "network.module.weight"

    def losses(weight):
        return functional_call(method, {name: weight}, (batch, teacher_outputs)).losses

    weights = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    together = vmap(losses)(weights)

    assert method.stackable
    for number, weight in enumerate(weights):
        for term, value in losses(weight).items():
            torch.testing.assert_close(together[term][number], value)


# ---- the sample mask of ntdh


def test_without_a_label_ntdh_trusts_its_teacher_where_the_student_agrees(make, make_batch):
    method = make(NTDH, extra={"threshold": 0.7}, temperature=1.0, kd_weight=1.0)
    clear, faint = [[2.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [4.0, 3.0], [0.0, 1.0], [1.0, 0.0]]
    batch = some_labelled(make_batch(clear, faint, [0, 0, 0, 0]), [True, False, False, True])

    step = run(method, batch)

    # right; unknown with a cosine of 4/5; unknown with 0; wrong with 0
    omega = torch.tensor([1.0, 0.9, 0.0, 0.0])
    each = kl(torch.tensor(faint), torch.tensor(clear), temperature=1.0, reduction="none")
    torch.testing.assert_close(step.losses["kd"], (omega * each).sum() / 4)


# ---- which methods get unlabelled rows


def joint(agreement, weight=1.0):
    info = vectors()
    return Joint(
        build_for(info, ["clear"]), build_for(info, ["faint"]), info, agreement=agreement, agreement_weight=weight
    )


def vectors(task="multiclass", **facts):
    vector = InputInfo((2,), layout="vector")
    return DataInfo({"clear": vector, "faint": vector}, task, 3, {"train": {"clear": 9, "faint": 9}}, **facts)


def distilled(kind, *losses, kd_weight=0.5, **extra):
    info = vectors()
    options = DistillationOptions(losses=losses, kd_weight=kd_weight)
    return kind(build_for(info, ["faint"]), build_for(info, ["clear"]).module, info, options, **extra)


def discom(**weights):
    info = vectors()
    torch.manual_seed(0)
    mlp = {"encoder": "mlp", "shape": [2], "width": 4}
    return DisCoM({name: branches_for(info, name, mlp) for name in info.inputs}, info, **weights)


def dmd(**weights):
    info = vectors()
    settings = DMDSettings(width=4, heads=2, layers=1, attention_dropout=(0.0,))
    return DMD(build_network(info, info.modalities, settings), info, **weights)


def pmf(**weights):
    inputs = {name: InputInfo((channels, 16, 16), layout="image") for name, channels in (("image", 3), ("lidar", 5))}
    info = DataInfo(inputs, "multiclass", 3, {}, dense=True)
    return PMF(build_pmf(info, backbone="camera_resnet10", width=2, channels=16), info, **weights)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Supervised(build_for(vectors(), ["faint"]), vectors()), False),
        (lambda: distilled(KD), True),
        (lambda: distilled(KD, "dkd", "rkd"), True),
        (lambda: distilled(KD, "dkd", "crd"), False),
        (lambda: distilled(KD, "dkd", "kl:0"), False),
        (lambda: distilled(KD, kd_weight=0.0), False),
        (lambda: distilled(MFH), True),
        (lambda: distilled(NTDH), True),
        (lambda: distilled(NTDH, scale_logits=True), False),
        (lambda: joint("mse"), True),
        (lambda: joint("mse", 0.0), False),
        (lambda: joint("ncjsd"), False),
        (discom, True),
        (lambda: discom(adversarial_weight=0.0, modality_weight=0.0, orthogonality_weight=0.0), False),
        (dmd, True),
        (lambda: dmd(distil_weight=0.0, orthogonality_weight=0.0), True),
        (
            lambda: dmd(distil_weight=0.0, orthogonality_weight=0.0, reconstruction_weight=0.0, cycle_weight=0.0),
            False,
        ),
        (pmf, True),
        (lambda: pmf(perception_weight=0.0), False),
    ],
)
def test_a_method_asks_for_unlabelled_rows_where_a_term_can_use_them(build, expected):
    assert build().uses_unlabelled is expected


def test_a_distillation_that_learns_from_nothing_is_refused():
    info = vectors()
    with pytest.raises(InputError, match="kd_weight and task_weight are both 0.*Raise one"):
        KD(
            build_for(info, ["faint"]),
            build_for(info, ["clear"]).module,
            info,
            DistillationOptions(kd_weight=0.0, task_weight=0.0),
        )


# ---- methods without a teacher


def test_networks_in_joint_training_agree_on_all_rows(make_batch, make_info):
    info = make_info(classes=3)
    method = Joint(build_for(info, ["clear"]), build_for(info, ["faint"]), info).eval()
    batch = some_labelled(make_batch(CLEAR, FAINT, [2, 0, 1]), FIRST)

    step = method(batch, {})

    f, g = method.teacher(batch.inputs), method.student(batch.inputs)
    torch.testing.assert_close(step.losses["agreement"], (f - g).square().mean())
    torch.testing.assert_close(step.losses["student task"], -g[0].log_softmax(0)[2])
    assert counts(step) == {"teacher task": 1, "student task": 1, "agreement": 3}


def test_each_modality_of_discom_has_labels_of_its_own(make_batch):
    method = discom().eval()
    left, right = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[2.0, 2.0], [1.0, 0.0], [0.5, 0.5]])
    inputs, some = {"clear": left, "faint": right}, torch.tensor([True, False, True])
    targets = {"clear": torch.tensor([2, 0]), "faint": torch.tensor([1, -1, 0])}

    terms, rows = method.terms(inputs, targets, labelled={"faint": some})

    known = {"clear": left, "faint": right[some]}
    alone, _ = method.terms(known, {"clear": targets["clear"], "faint": targets["faint"][some]})
    for name in ("task", "auxiliary"):
        torch.testing.assert_close(terms[name], alone[name])
        assert int(rows[name]) == 4
    assert not torch.isclose(terms["adversarial"], alone["adversarial"])


def test_units_of_a_regression_are_those_of_the_labelled_rows():
    target = torch.tensor([[1.0, NAN, 3.0], [NAN] * 3, [5.0, NAN, 7.0]])[:, [0, 2]]
    info = vectors("regression", train_targets={"clear": target}, labelled={"clear": 2})

    units = branches_for(replace(info, classes=2), "clear", {"encoder": "mlp", "shape": [2], "width": 4}).module

    assert units.standardised(torch.tensor([[1.0, 7.0]])).tolist() == [[-1.0, 1.0]]


# ---- diagnostics


@pytest.fixture
def views():
    """Batches of two views in which every second row lost its label, and the same rows that kept theirs."""
    random = np.random.default_rng(0)
    target = torch.arange(60) % 3
    inputs = {
        name: torch.tensor(random.normal(size=(60, 3)), dtype=torch.float32) + torch.eye(3)[target]
        for name in ("clear", "faint")
    }
    batch = Batch(inputs, dict.fromkeys(inputs, target), index=dict.fromkeys(inputs, torch.arange(60)))
    mask = torch.rand(60, generator=torch.Generator().manual_seed(0)) < 0.5
    mixed = some_labelled(batch, mask)
    nothing = mixed.take(~mask)
    assert not nothing.labelled["clear"].any()
    return [mixed, nothing], [batch.take(mask)]


def networks():
    inputs = {name: InputInfo((3,), layout="vector") for name in ("clear", "faint")}
    info = DataInfo(inputs, "multiclass", 3, {})
    torch.manual_seed(0)
    return build_for(info, ["clear"]).module, build_for(info, ["faint"]).module


@pytest.mark.parametrize("distance", ["mse", "ncjsd"])
def test_channels_are_ranked_on_labelled_rows(views, distance):
    mixed, alone = (
        measure_saliency(*networks(), batches, "input:clear", distance=distance, permutations=3) for batches in views
    )

    assert mixed.rows == alone.rows and mixed.raw.tolist() == alone.raw.tolist()


def test_overlap_divergence_and_samples_count_labelled_rows(views):
    overlaps = [measure_overlap(batches, "clear", "faint") for batches in views]
    divergences = [measure_divergence(*networks(), batches) for batches in views]
    samples = [one_of_each(batches) for batches in views]

    assert overlaps[0].importance[0].tolist() == overlaps[1].importance[0].tolist()
    assert divergences[0].target_mean == divergences[1].target_mean
    assert torch.equal(samples[0].inputs["clear"], samples[1].inputs["clear"])
    assert samples[0].target.tolist() == [0, 1, 2]


def test_probes_of_discom_see_labelled_rows(views):
    inputs = {name: InputInfo((3,), layout="vector") for name in ("clear", "faint")}
    info = DataInfo(inputs, "multiclass", 3, {})
    branches = [branches_for(info, name, {"encoder": "mlp", "shape": [3], "width": 4}).module for name in inputs]

    mixed, alone = (embed_batches(branches, batches) for batches in views)

    for name in inputs:
        assert torch.equal(mixed[name].target, alone[name].target)
        torch.testing.assert_close(mixed[name].parts.invariant, alone[name].parts.invariant)


def test_hidden_labels_reach_the_step_of_a_method(make_toy):
    data = hide_labels(make_toy(), labelled="12")
    method = Supervised(build_for(data.info, ["faint"]), data.info).eval()
    (batch,) = in_order(data.train, batch_size=max(data.train.rows.values()))

    step = method(batch, {})

    kept = batch.labelled["faint"]
    outputs = method.network(batch.inputs)
    expected, _ = task_loss(outputs[kept], batch.target[kept], task="multiclass")
    assert counts(step) == {"task": 12}
    torch.testing.assert_close(step.losses["task"], expected)

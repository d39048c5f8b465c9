import math

import pytest
import torch
from torch import nn

from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses.logits import kl
from xmodal.methods.kd import KD, KDSettings, build
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.types import Batch, Student

EYE = [[1.0, 0.0], [0.0, 1.0]]
LOG3 = math.log(3.0)
CLEAR, FAINT = [[LOG3, 0.0], [0.0, 0.0]], [[0.0, 0.0], [LOG3, 0.0]]
SURE_TO_EVEN = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL of (3/4, 1/4) from (1/2, 1/2)
EVEN_TO_SURE = 0.5 * math.log(2 / 3) + 0.5 * math.log(2.0)


def run(method, batch):
    return method(batch, method.teach(batch))


def values(step):
    return {name: loss.item() for name, loss in step.losses.items()}


@pytest.fixture
def make(linear_student, linear_teacher, make_info):
    def build_method(info=None, student=EYE, teacher=EYE, **coefficients):
        return KD(
            linear_student(student), linear_teacher(teacher), info or make_info(), DistillationOptions(**coefficients)
        )

    return build_method


def test_training_step_is_label_term_plus_teacher_term(make, make_batch):
    method = make(temperature=1.0, kd_weight=0.3, task_weight=0.7)

    step = run(method, make_batch(CLEAR, FAINT, [0, 1]))

    assert values(step) == {
        "kd": pytest.approx(0.3 * (SURE_TO_EVEN + EVEN_TO_SURE) / 2),
        "task": pytest.approx(0.7 * (math.log(2) - math.log(0.25)) / 2),
    }
    assert {name: int(count) for name, count in step.counts.items()} == {"kd": 2, "task": 2}


def test_the_temperature_softens_both_sides_and_scales_by_its_square(make, make_batch):
    doubled = [[2.0, 0.0], [0.0, 2.0]]  # at τ = 2 its logits are those of EYE at τ = 1
    method = make(student=doubled, teacher=doubled, temperature=2.0, kd_weight=1.0)

    step = run(method, make_batch(CLEAR, FAINT, [0, 1]))

    assert values(step)["kd"] == pytest.approx(4 * (SURE_TO_EVEN + EVEN_TO_SURE) / 2)


def test_the_gradient_is_that_of_the_two_terms_by_hand(make, make_batch):
    method = make(temperature=2.0, kd_weight=0.5, task_weight=0.5)
    batch = make_batch(CLEAR, FAINT, [0, 1])

    sum(run(method, batch).losses.values()).backward()

    s, t, x = torch.tensor(FAINT), torch.tensor(CLEAR), torch.tensor(FAINT)
    teacher_term = 2.0 * ((s / 2).softmax(1) - (t / 2).softmax(1))
    label_term = s.softmax(1) - torch.eye(2)
    torch.testing.assert_close(method.network.module.weight.grad, (0.5 * (teacher_term + label_term)).T @ x / 2)


def test_without_the_teacher_term_it_is_supervised_learning(make, make_batch, make_info, linear_student):
    kd, supervised = make(kd_weight=0.0, task_weight=1.0), Supervised(linear_student(EYE), make_info())
    batch = make_batch(CLEAR, FAINT, [0, 1])

    teacher_outputs, alone = run(kd, batch), supervised(batch, {})
    sum(teacher_outputs.losses.values()).backward()
    alone.losses["task"].backward()

    assert values(teacher_outputs) == {"kd": 0.0, "task": values(alone)["task"]}
    assert torch.equal(kd.network.module.weight.grad, supervised.network.module.weight.grad)


def test_without_the_label_term_the_labels_are_not_read(make, make_batch):
    method = make(task_weight=0.0, kd_weight=1.0, temperature=1.0)
    batch = make_batch(CLEAR, FAINT, [0, 1])
    unlabelled = Batch(batch.inputs, {}, {}, batch.index)

    step = run(method, unlabelled)

    assert values(step) == {"kd": pytest.approx((SURE_TO_EVEN + EVEN_TO_SURE) / 2)}
    assert set(step.counts) == {"kd"}


@pytest.mark.parametrize(("labels", "task_weight"), [(True, 0.5), (False, 0.0)])
def test_no_labels_switches_the_label_term_off(labels, task_weight, linear_student, linear_teacher, make_info):
    class Kit:
        info, student, teaching = make_info(), ("faint",), ("clear",)

        def network(self, modalities):
            return linear_student(EYE)

        def teacher(self):
            return linear_teacher(EYE)

    method = build(Kit(), KDSettings(labels=labels, temperature=3.0, kd_weight=0.25))

    options = method.options
    assert (options.temperature, options.kd_weight, options.task_weight) == (3.0, 0.25, task_weight)


def test_binary_outputs_are_compared_as_yes_or_no(make, make_batch, make_info):
    method = make(make_info("binary"), [[1.0, 0.0]], [[1.0, 0.0]], temperature=1.0, kd_weight=1.0, task_weight=1.0)

    step = run(method, make_batch(CLEAR, FAINT, [0, 1]))

    assert values(step)["kd"] == pytest.approx((SURE_TO_EVEN + EVEN_TO_SURE) / 2)
    assert values(step)["task"] == pytest.approx((math.log(2) - math.log(0.75)) / 2)


def test_multilabel_terms_sum_the_divergence_and_average_the_labels(make, make_batch, make_info):
    method = make(make_info("multilabel"), temperature=1.0, kd_weight=1.0, task_weight=1.0)

    step = run(method, make_batch([[LOG3, LOG3]], [[0.0, 0.0]], [[1, 0]]))

    assert values(step) == {"kd": pytest.approx(2 * SURE_TO_EVEN), "task": pytest.approx(math.log(2))}


def test_regression_outputs_are_compared_by_their_squared_difference(make, make_batch, make_info):
    method = make(make_info("regression"), kd_weight=1.0, task_weight=0.5)

    step = run(method, make_batch([[1.0, 2.0]], [[0.0, 0.0]], [[2.0, 0.0]]))

    assert values(step) == {"kd": pytest.approx(2.5), "task": pytest.approx(1.0)}


def test_a_row_that_is_not_valid_changes_neither_terms_nor_gradient_nor_counts(make, make_batch):
    masked, alone = make(), make()

    step = run(masked, make_batch(CLEAR, FAINT, [0, 1], valid=[False, True]))
    single = run(alone, make_batch(CLEAR[1:], FAINT[1:], [1]))
    sum(step.losses.values()).backward()
    sum(single.losses.values()).backward()

    assert values(step) == pytest.approx(values(single))
    assert {name: int(count) for name, count in step.counts.items()} == {"kd": 1, "task": 1}
    torch.testing.assert_close(masked.network.module.weight.grad, alone.network.module.weight.grad)


class PerPixel(nn.Module):
    """A linear network at every place of a picture."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Conv2d(2, 3, 1)

    def forward(self, picture):
        return self.weights(picture)


@pytest.mark.parametrize("masked_by", ["ignore", "valid"])
@pytest.mark.parametrize("task_weight", [0.0, 0.5])
def test_a_pixel_that_does_not_count_changes_nothing(make_info, masked_by, task_weight):
    torch.manual_seed(0)
    student, teacher = PerPixel(), PerPixel()
    student_side = Student(Named(student, "faint"), ("faint",), "faint")
    info = make_info(classes=3, dense=True, ignore=255 if masked_by == "ignore" else None)
    method = KD(student_side, Named(teacher, "clear"), info, DistillationOptions(task_weight=task_weight))
    clear, faint = torch.randn(2, 2, 4, 5), torch.randn(2, 2, 4, 5)
    target, out = torch.randint(0, 3, (2, 4, 5)), torch.rand(2, 4, 5) > 0.5
    target[out] = 255 if masked_by == "ignore" else 0
    mask = {} if masked_by == "ignore" else dict.fromkeys(("clear", "faint"), ~out)

    def gradient(clear, faint):
        method.zero_grad()
        batch = Batch({"clear": clear, "faint": faint}, dict.fromkeys(("clear", "faint"), target), mask)
        step = run(method, batch)
        sum(step.losses.values()).backward()
        return step, student.weights.weight.grad.clone()

    step, before = gradient(clear, faint)
    spoilt, after = gradient(*(torch.where(out[:, None], 7.0, picture) for picture in (clear, faint)))

    pixels = [network(x).movedim(1, -1)[~out] for network, x in ((student, faint), (teacher, clear))]
    assert values(step)["kd"] == pytest.approx(0.5 * kl(*pixels).item(), rel=1e-5)
    assert values(spoilt) == values(step) and torch.equal(before, after) and before.any()
    assert {int(count) for count in spoilt.counts.values()} == {int((~out).sum())}


class Named(nn.Module):
    """Reads one input of a dictionary."""

    def __init__(self, module, name):
        super().__init__()
        self.module, self.name = module, name

    def forward(self, inputs):
        return self.module(inputs[self.name])


def test_unpaired_batches_are_refused_with_a_sentence(make):
    method = make()
    inputs = {"clear": torch.tensor(CLEAR), "faint": torch.tensor(FAINT)}
    unpaired = Batch(inputs, {"clear": torch.tensor([0, 1]), "faint": torch.tensor([1, 1])})

    with pytest.raises(InputError, match="unpaired data.*method that needs paired data with paired data"):
        run(method, unpaired)


def test_unpaired_data_is_refused_before_training_also_without_labels(make, make_info):
    with pytest.raises(InputError, match="this data is unpaired. Give paired data, or choose a method that accepts"):
        make(make_info(paired=False), task_weight=0.0)


def test_outputs_of_unlike_width_name_both_sides(make, make_batch):
    method = make(teacher=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    with pytest.raises(ValueError, match=r"student's output has shape \(2, 2\), the teacher's \(2, 3\)"):
        run(method, make_batch(CLEAR, FAINT, [0, 1]))


def test_the_teacher_gets_no_gradient_and_answers_without_one(make, make_batch):
    method, batch = make(), make_batch(CLEAR, FAINT, [0, 1])

    teacher_outputs = method.teach(batch)
    sum(method(batch, teacher_outputs).losses.values()).backward()

    assert not teacher_outputs["outputs"].requires_grad
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in method.teacher.parameters())
    assert method.param_groups() == [{"params": [method.network.module.weight]}]


def test_the_teacher_stays_in_eval_mode_whatever_is_switched(make):
    method = make()
    at_once = method.teacher.training

    method.train()
    trained = method.teacher.training, method.teacher.module.training, method.network.training
    method.eval().train(True)

    assert not at_once and trained == (False, False, True) and not method.teacher.training


@pytest.mark.parametrize("cache", ["on", "off"])
def test_fit_leaves_weights_and_statistics_of_the_teacher_alone(linear_student, toy_data, cache):
    torch.manual_seed(0)
    teacher = Named(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)), "clear")
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    method = KD(linear_student([[0.0, 0.0], [0.0, 0.0]]), teacher, toy_data.info)

    fit(method, toy_data, FitSettings(epochs=2, batch_size=16, cache=cache))

    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules()) and method.network.module.weight.any()


def test_a_student_learns_from_the_teacher_alone(linear_student, linear_teacher, toy_data):
    contrary = linear_teacher([[4.0, -4.0], [-4.0, 4.0]])  # answers the wrong class with confidence
    method = KD(linear_student([[0.0, 0.0], [0.0, 0.0]]), contrary, toy_data.info, DistillationOptions(task_weight=0.0))

    run = fit(method, toy_data, FitSettings(epochs=10, batch_size=16, learning_rate=0.1))

    assert run.history[-1]["valid"]["faint"]["accuracy"] < 0.2 and set(run.history[-1]["losses"]) == {"kd"}


def test_the_student_alone_is_deployed(make, make_batch):
    method = make()
    batch = make_batch(CLEAR, FAINT, [0, 1])

    assert list(method.students()) == ["faint"] and method.students()["faint"].module is method.network
    torch.testing.assert_close(method.predict({"faint": batch.inputs["faint"]})["faint"].detach(), torch.tensor(FAINT))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"kd_weight": -1.0}, {"task_weight": -0.1}, {"tau": 4.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KDSettings(**wrong)


def test_standardised_outputs_are_compared_by_their_pattern_alone(make, make_batch):
    """(log 3, 0) and (9, 1) differ, and have the same pattern."""
    batch = make_batch([[LOG3, 0.0]], [[9.0, 1.0]], [0])
    plain, standardised = (make(standardise=on, task_weight=0.0) for on in (False, True))

    assert values(run(plain, batch))["kd"] > 0.1
    assert values(run(standardised, batch))["kd"] == pytest.approx(0.0, abs=1e-6)


def test_standardising_kl_is_the_loss_of_that_name(make, make_batch):
    batch = make_batch(CLEAR, [[0.3, -1.0], [2.0, 0.5]], [0, 1])
    ours, zoo = make(standardise=True, kd_weight=1.0), make(losses=("standardised_kl:1",), kd_weight=1.0)

    assert values(run(ours, batch))["kd"] == pytest.approx(values(run(zoo, batch))["kd"])


def test_the_teachers_term_grows_in_equal_steps(make, make_batch):
    method, whole = make(kd_warmup=4), make()
    found = []
    for epoch in (0, 1, 2, 4, 9):
        method.on_epoch_start(epoch, 10)
        found.append(values(run(method, make_batch(CLEAR, FAINT, [0, 1])))["kd"])

    full = values(run(whole, make_batch(CLEAR, FAINT, [0, 1])))["kd"]
    assert found == pytest.approx([0.0, 0.25 * full, 0.5 * full, full, full])

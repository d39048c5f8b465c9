import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import xmodal
from xmodal.data.loader import in_order
from xmodal.diagnostics.divergence import from_logits, measure_divergence
from xmodal.errors import InputError
from xmodal.models.network import build_for, wrap
from xmodal.types import Batch

FORMS = ("js", "reference")
LN2 = math.log(2)
every_form = pytest.mark.parametrize("form", FORMS)


def draw(rows=40, classes=5, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(rows, classes, generator=generator).double() for _ in range(2))
    return student, teacher, torch.randint(0, classes, (rows,), generator=generator)


def batch_of(student, teacher, target, **more):
    return Batch({"b": student, "a": teacher}, {"b": target, "a": target}, **more)


def cut(student, teacher, target, size):
    return [
        batch_of(*parts) for parts in zip(student.split(size), teacher.split(size), target.split(size), strict=True)
    ]


def echoes():
    """Networks whose logits are their input: the student's is b, the teacher's a."""
    return wrap(nn.Identity(), ["b"]), wrap(nn.Identity(), ["a"])


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def slow(u, v, form):
    total = 0.0
    for a, b in zip(u, v, strict=True):
        m = (a + b) / 2
        total += m * math.log(m / math.sqrt(a * b)) if form == "reference" else 0.0
        total += (a * math.log(a / m) + b * math.log(b / m)) / 2 if form == "js" else 0.0
    return total


def test_two_rows_against_computed_values():
    ln3 = math.log(3)
    student = torch.tensor([[0.0, ln3, 0.0], [0.0, 0.0, 0.0]])  # among classes 1 and 2: (3/4, 1/4), (1/2, 1/2)
    teacher = torch.tensor([[0.0, 0.0, ln3], [0.0, 0.0, 0.0]])  # (1/4, 3/4), (1/2, 1/2); always 1/5 or 1/3 for class 0
    by_hand = (3 * ln3 - 4 * LN2) / 4  # (3/4) ln (3/2) + (1/4) ln (1/2)

    result = from_logits(student, teacher, torch.tensor([0, 0]))
    reference = from_logits(student, teacher, torch.tensor([0, 0]), form="reference")

    assert result.non_target_divergence == pytest.approx([by_hand, 0.0], abs=1e-6)  # float32 logits
    assert result.target_divergence == pytest.approx([0.0, 0.0], abs=1e-12)
    assert result.non_target_mean == pytest.approx(by_hand / 2, abs=1e-6)
    assert reference.non_target_divergence[0] == pytest.approx(math.log(2 / math.sqrt(3)), abs=1e-6)
    assert result.student_accuracy == result.teacher_accuracy == 0.5  # argmax of three equal ones is the first


def test_accuracies_are_of_the_network_that_they_name():
    result = from_logits(torch.eye(3), torch.eye(3)[[0, 2, 1]], torch.tensor([0, 1, 2]))

    assert (result.student_accuracy, result.teacher_accuracy) == (1.0, pytest.approx(1 / 3))


@every_form
def test_networks_that_agree_have_no_divergence(form):
    student, _, target = draw()

    result = from_logits(student, student + 7.0, target, form=form)  # a constant shift of all logits changes nothing

    assert np.abs(result.target_divergence).max() < 1e-12 and np.abs(result.non_target_divergence).max() < 1e-12
    assert result.non_target_interval == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_js_stays_below_ln_2_and_reference_above_it(scale):
    student, teacher, target = draw(scale=scale)

    js, reference = (from_logits(student, teacher, target, form=form) for form in FORMS)

    for part in ("target_divergence", "non_target_divergence"):
        assert getattr(js, part).min() >= 0 and getattr(js, part).max() <= LN2 + 1e-12
        assert (getattr(reference, part) >= getattr(js, part) - 1e-12).all()


def test_two_classes_have_no_non_target_divergence():
    result = from_logits(*draw(classes=2))

    assert not result.non_target_divergence.any() and result.target_mean > 0


@every_form
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_rows_and_classes_equal_a_slow_loop(form, temperature):
    student, teacher, target = draw(rows=30)
    target[target == 3] = 1  # no row of class 3

    result = from_logits(student, teacher, target, form=form, temperature=temperature)

    by_class = {y: [] for y in range(5)}
    for row, (s, t, y) in enumerate(zip(student / temperature, teacher / temperature, target.tolist(), strict=True)):
        others = [k for k in range(5) if k != y]
        p, r = softmax(s.tolist())[y], softmax(t.tolist())[y]
        on_target = temperature**2 * slow([p, 1 - p], [r, 1 - r], form)
        among = temperature**2 * slow(softmax(s[others].tolist()), softmax(t[others].tolist()), form)
        assert result.target_divergence[row] == pytest.approx(on_target, abs=1e-12)
        assert result.non_target_divergence[row] == pytest.approx(among, abs=1e-12)
        by_class[y].append((on_target, among))
    assert result.class_counts.tolist() == [len(rows) for rows in by_class.values()]
    assert result.targets.tolist() == target.tolist()
    for y, rows in by_class.items():
        means = np.mean(rows, axis=0) if rows else [math.nan, math.nan]
        measured = [result.class_target_divergence[y], result.class_non_target_divergence[y]]
        assert measured == pytest.approx(means, abs=1e-12, nan_ok=True)
    assert np.isnan(result.class_target_divergence).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batch_size_and_order_do_not_matter(size):
    parts = draw()
    whole = from_logits(*parts)
    batches = cut(*parts, size)
    random.Random(1).shuffle(batches)

    result = measure_divergence(*echoes(), iter(batches))

    # float64; a row is rounded by where it stands in its batch
    for name in ("target_mean", "target_interval", "non_target_mean", "non_target_interval", "student_accuracy"):
        assert getattr(result, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    values = (np.sort(each.non_target_divergence) for each in (result, whole))
    np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(result.class_non_target_divergence, whole.class_non_target_divergence, rtol=1e-12)


def test_the_interval_covers_the_mean_and_shrinks_with_the_rows():
    few, many = from_logits(*draw(rows=50)), from_logits(*draw(rows=5000))

    for result in (few, many):
        assert result.target_interval[0] < result.target_mean < result.target_interval[1]
        assert result.non_target_interval[0] < result.non_target_mean < result.non_target_interval[1]
    widths = [result.non_target_interval[1] - result.non_target_interval[0] for result in (few, many)]
    assert widths[1] < widths[0] / 5  # 100 times the rows: a tenth, up to chance


def test_the_interval_is_as_wide_as_the_normal_one():
    result = from_logits(*draw(rows=2000))

    normal = 2 * 1.96 * result.non_target_divergence.std(ddof=1) / math.sqrt(2000)
    assert result.non_target_interval[1] - result.non_target_interval[0] == pytest.approx(normal, rel=0.1)  # 1000 draws


def test_the_seed_decides_the_interval_and_a_wider_level_contains_a_narrower_one():
    first, again, other = (from_logits(*draw(), seed=seed) for seed in (3, 3, 4))
    narrow = from_logits(*draw(), seed=3, level=0.5)

    assert first.non_target_interval == again.non_target_interval != other.non_target_interval
    assert first.non_target_interval[0] < narrow.non_target_interval[0]
    assert narrow.non_target_interval[1] < first.non_target_interval[1]


def test_no_global_random_numbers_are_drawn():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()

    from_logits(*draw())

    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


def test_one_row_has_no_interval():
    result = from_logits(*draw(rows=1))

    assert all(math.isnan(end) for end in result.target_interval + result.non_target_interval)


def test_rows_that_are_invalid_in_a_modality_are_excluded():
    student, teacher, target = draw(rows=6)
    masks = {"a": torch.tensor([True, True, False, True, True, True]), "b": torch.arange(6) > 0}
    target[0] = 99  # no class number, in a row that is masked

    result = measure_divergence(*echoes(), [batch_of(student, teacher, target, valid=masks)])

    kept = [1, 3, 4, 5]
    assert result.targets.tolist() == target[kept].tolist()
    assert result.non_target_mean == from_logits(student[kept], teacher[kept], target[kept]).non_target_mean


def test_networks_keep_their_modes_statistics_and_gradients():
    torch.manual_seed(0)
    student = wrap(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 5)), ["b"])
    teacher = wrap(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 5)), ["a"])
    student.train()
    student.module[1].eval()  # frozen by the user
    teacher.eval()
    parts = [part.float() if part.is_floating_point() else part for part in draw()]
    modes = [[part.training for part in network.modules()] for network in (student, teacher)]
    states = [{name: value.clone() for name, value in network.state_dict().items()} for network in (student, teacher)]

    result = measure_divergence(student, teacher, cut(*parts, 10))
    again = measure_divergence(student, teacher, cut(*parts, 10))

    assert result.non_target_mean == again.non_target_mean  # no dropout
    assert modes == [[part.training for part in network.modules()] for network in (student, teacher)]
    for network, state in zip((student, teacher), states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


def test_networks_get_their_modes_back_when_a_batch_fails():
    student, teacher = (network.train() for network in echoes())

    with pytest.raises(InputError, match="reads 'b'"):
        measure_divergence(student, teacher, [Batch({"a": torch.zeros(1, 3)}, {"a": torch.tensor([0])})])

    assert student.training and teacher.training and torch.is_grad_enabled()


def test_one_network_may_be_measured_against_itself():
    network = echoes()[0].train()

    assert measure_divergence(network, network, cut(*draw(), 9)).non_target_mean == 0 and network.training


def test_unpaired_batches_are_refused():
    student, teacher, target = draw()
    batch = Batch({"b": student, "a": teacher}, {"b": target, "a": target.flip(0)})

    with pytest.raises(InputError, match="unpaired data"):
        measure_divergence(*echoes(), [batch])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"form": "jss"}, "Did you mean 'js'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"samples": 0}, "samples 0"),
        ({"level": 1.0}, "level 1.0"),
    ],
)
def test_impossible_options_are_refused_before_a_network_runs(change, sentence):
    with pytest.raises(InputError, match=sentence):
        measure_divergence(nn.Identity(), nn.Identity(), [None], **change)


@pytest.mark.parametrize(
    ("student", "teacher", "target", "sentence"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1]), r"\(2, 3\), the teacher's \(2, 4\)"),
        (torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0, 1]), "two classes or more"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.tensor([0, 1]), r"expected \(rows, classes\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0, 3]), "expected 0 to 2"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0]), "target has shape"),
        (torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no valid rows"),
        (
            torch.zeros(1, 3),
            torch.full((1, 3), math.nan),
            torch.tensor([0]),
            "The teacher.s logits are not finite in 1 of 1 rows",
        ),
    ],
)
def test_invalid_logits_are_refused(student, teacher, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_logits(student, teacher, target)


def test_no_batches_are_refused():
    with pytest.raises(InputError, match="no batches"):
        measure_divergence(*echoes(), [])


def test_half_precision_logits_are_measured_in_double():
    student, teacher, target = draw()

    half = from_logits(student.half(), teacher.half(), target)

    assert half.non_target_divergence.dtype == np.float64
    assert half.non_target_mean == from_logits(student.half().double(), teacher.half().double(), target).non_target_mean


def test_real_networks_on_digits():
    torch.manual_seed(0)
    data = xmodal.open_data("digits", options={"views": ["rows", "fourier"]})
    teacher, student = (build_for(data.info, [name]).module for name in ("rows", "fourier"))

    small, large = (
        measure_divergence(student, teacher, in_order(data.split("test"), batch_size=size)) for size in (50, 512)
    )

    rows = len(data.split("test"))
    assert small.non_target_divergence.shape == small.targets.shape == (rows,) == (small.class_counts.sum(),)
    assert small.class_non_target_divergence.shape == (10,) and 0 < small.non_target_mean < LN2
    assert small.non_target_mean == pytest.approx(large.non_target_mean, rel=1e-5)  # matrix products in float32
    assert 0 <= small.student_accuracy <= 1 and 0 <= small.teacher_accuracy <= 1

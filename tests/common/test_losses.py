"""What every loss of the list promises; `make` builds the arguments of each from what its card says it reads."""

import inspect
import math
import re

import pytest
import torch

from xmodal.losses import LOSSES
from xmodal.methods.terms import OUTPUTS, Term
from xmodal.types import Batch, DataInfo

SIDES = ((0, "student"), (1, "teacher"))  # with the seed of each
SHAPES = {"maps": (3, 4, 2), "stages": (3, 4, 2)}  # of one row; anything else is (classes,)
SIZES = {"vid": {}, "crd": {"rows": 9, "width": 3, "negatives": 4}}  # further arguments of a module of two shapes
SMOOTH = {  # what makes the gradient the derivative of the value, where constants were published
    "wsld": {"detach": False},
    "kl_pssm": {"detach": False},
    "dkd_pssm": {"detach": False},
    "diff_loss": {"detach_norms": False},
}
SMALL = {"mlkd_batch_correlation"}  # squares of small differences of probabilities, softened by 4
BELOW_ZERO = {"srd", "vid"}  # logarithms
ONE_CLASS_REFUSED = {"dkd", "dkd_pssm", "tcjsd", "ncjsd"}  # where there are no other classes

every_loss = pytest.mark.parametrize("name", LOSSES)


def named(condition):
    return pytest.mark.parametrize("name", [name for name, card in LOSSES.items() if condition(card)])


def widths_of(inputs, classes):
    return SHAPES.get(inputs, (classes,))


def make(name, rows=6, classes=4, *, seed=0, dtype=torch.float64, scale=1.0):
    """All arguments of a loss by name, each with the rows on its first axis (of every stage, where it takes stages)."""
    card, generator = LOSSES[name], torch.Generator().manual_seed(seed)

    def side():
        values = scale * torch.randn(rows, *widths_of(card.inputs, classes), generator=generator, dtype=torch.float64)
        return [values.to(dtype), values[..., :1].to(dtype)] if card.inputs == "stages" else values.to(dtype)

    arguments = {"student": side(), "teacher": side()}
    if "labels" in card.needs:  # the teacher is right in every second row
        other = torch.randint(classes, (rows,), generator=generator)
        arguments["target"] = torch.where(torch.arange(rows) % 2 == 0, arguments["teacher"].argmax(dim=1), other)
    if "memory" in card.needs:
        arguments["rows"] = torch.arange(rows)
        drawn = torch.randint(9, (rows, 4), generator=generator)
        arguments["contrast"] = torch.cat([arguments["rows"][:, None], drawn], dim=1)
    return arguments


def build(name, classes=4, *, teacher_shape=None, dtype=torch.float64):
    """The loss, a module fresh from the same random numbers in every call."""
    card, loss = LOSSES[name], LOSSES[name].load()
    if not card.module:
        return loss
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = widths_of(card.inputs, classes)
        module = loss(shape, teacher_shape or shape, **SIZES[name]) if name in SIZES else loss()
    return module.to(dtype)


def each(arguments, change):
    """The arguments with every tensor changed."""
    return {
        key: [change(part) for part in value] if isinstance(value, list) else change(value)
        for key, value in arguments.items()
    }


def parts(side):
    return side if isinstance(side, list) else [side]


def with_gradient(arguments):
    """The arguments with a student of its own that asks for its gradient, and its tensors."""
    student = each({"student": arguments["student"]}, lambda part: part.clone().requires_grad_())["student"]
    return {**arguments, "student": student}, parts(student)


def finite(*tensors):
    return all(torch.isfinite(tensor).all() for tensor in tensors)


@every_loss
def test_the_value_is_finite_and_not_negative(name):
    value = build(name)(**make(name))

    assert value.ndim == 0 and finite(value)
    assert name in BELOW_ZERO or value.item() > (0.0 if name in SMALL else 1e-3)


@every_loss
def test_gradients_agree_with_finite_differences(name):
    arguments, students = with_gradient(make(name, rows=3, seed=2))
    loss = build(name)
    if LOSSES[name].module:  # what the first batch fixes stays as it is
        loss(**arguments)
        loss.eval()

    def of(*changed):
        student = list(changed) if len(changed) > 1 else changed[0]
        return loss(**{**arguments, "student": student}, **SMOOTH.get(name, {}))

    assert torch.autograd.gradcheck(of, students)


def term_of(name, labelled):
    """The loss as a term of a method, whose data has labels in these rows of nine alone, and its layers."""
    card, shape = LOSSES[name], widths_of(LOSSES[name].inputs, 4)
    target = torch.tensor([row % 4 if row in labelled else -1 for row in range(9)])
    info = DataInfo(
        {}, "multiclass", 4, {"train": {"a": 9}}, train_targets={"a": target}, labelled={"a": len(labelled)}
    )
    layers = {"first": shape, "second": (*shape[:-1], 1)} if card.inputs == "stages" else {OUTPUTS: shape}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Term(card, 1.0, student=layers, teacher=layers, info=info).double().eval(), list(layers)


@every_loss
def test_rows_without_a_label_are_left_out_exactly_where_the_card_says_so(name):
    arguments, students = with_gradient(make(name, rows=6, seed=1))
    labelled = torch.tensor([True, False, True, True, False, False])
    term, layers = term_of(name, [0, 2, 3, 6])
    target = arguments.get("target", torch.arange(6) % 4).masked_fill(~labelled, -1)
    batch = Batch({}, {"a": target}, index={"a": torch.arange(6)}, labelled={"a": labelled})

    def value(rows):
        sides = [
            {layer: part[rows] for layer, part in zip(layers, parts(arguments[side]), strict=True)}
            for side in ("student", "teacher")
        ]
        return term(*sides, batch.take(rows), mask=None, gather=lambda tensor: tensor)

    (mixed, count), (alone, known) = value(slice(None)), value(labelled)
    mixed.backward()

    only = LOSSES[name].rows == "labelled rows only"
    assert only == bool({"labels", "memory"} & set(LOSSES[name].needs))
    assert torch.isclose(mixed, alone, rtol=1e-9) == only
    assert (int(count), int(known)) == ((3, 3) if only else (6, 3))
    gradients = torch.stack([student.grad.flatten(1).abs().sum(dim=1) for student in students]).sum(dim=0)
    assert torch.isfinite(gradients).all() and bool(gradients[~labelled].any()) != only


@named(lambda card: card.samples != "ordered")
@pytest.mark.parametrize(("rows", "classes"), [(1, 3), (2, 4), (5, 2), (9, 6)])
def test_the_order_of_the_rows_does_not_matter(name, rows, classes):
    for seed in range(5):
        arguments = make(name, rows, classes, seed=seed)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))

        shuffled = build(name, classes)(**each(arguments, lambda part, order=order: part[order]))

        torch.testing.assert_close(shuffled, build(name, classes)(**arguments))


@named(lambda card: card.samples == "ordered")
def test_the_order_of_the_rows_counts_where_the_card_says_so(name):
    arguments, order = make(name), torch.tensor([1, 0, 2, 5, 4, 3])

    shuffled = build(name)(**each(arguments, lambda part: part[order]))

    assert abs(shuffled - build(name)(**arguments)) > 1e-3


@named(lambda card: card.samples == "pointwise")
def test_a_pointwise_loss_gives_one_value_per_row_whatever_the_other_rows_are(name):
    arguments = make(name)

    values = build(name)(**arguments, reduction="none")

    assert values.shape == (6,)
    torch.testing.assert_close(build(name)(**arguments), values.mean())
    for row in range(6):
        alone = build(name)(**each(arguments, lambda part, row=row: part[row : row + 1]))
        torch.testing.assert_close(alone, values[row])


@named(lambda card: card.samples != "pointwise")
def test_a_loss_that_mixes_rows_is_not_the_mean_over_rows(name):
    arguments = make(name)

    alone = [build(name)(**each(arguments, lambda part, row=row: part[row : row + 1])) for row in range(6)]

    whole = build(name)(**arguments)
    assert abs(torch.stack(alone).mean() - whole) > 1e-2 * abs(whole)


@every_loss
def test_rows_must_be_pairs_exactly_where_the_card_says_so(name):
    arguments, order = make(name), torch.tensor([1, 2, 3, 4, 5, 0])
    other = each({"teacher": arguments["teacher"]}, lambda part: part[order])

    value, unpaired = build(name)(**arguments), build(name)(**{**arguments, **other})

    assert torch.isclose(value, unpaired, rtol=1e-9) == ("pairs" not in LOSSES[name].needs)


def zero(value, gradient, **_):
    # float64; the two sides may lie otherwise in memory, and then other kernels multiply them
    assert abs(value) < 1e-15 and gradient < 1e-12


def entropy(value, gradient, teacher, **_):
    softened = (teacher / 2).softmax(dim=1)
    row = -(softened * softened.log()).sum(dim=1).mean().item()
    assert value == pytest.approx(4 * (1 - math.exp(-1)) * row, rel=1e-5) and gradient < 1e-12


def of_order(size):
    def expected(value, gradient, **_):
        assert abs(value) < size and gradient < size

    return expected


def minimum(least, slope=1e-12):
    def expected(value, gradient, **_):
        assert value == pytest.approx(least, rel=1e-12, abs=1e-15) and gradient < slope

    return expected


def margins(value, teacher, **_):
    inside = (1.0 - teacher.abs()).clamp(min=0)
    assert value == pytest.approx(3e-3 * inside.square().sum(dim=1).mean().item())


def largest(value, name, **_):
    assert value > build(name)(**make(name)).item() > 0.0


def contrasted(value, **_):
    assert value > 0.0


AT_EQUALITY = {  # what a student that equals its teacher costs, where it is not exactly nothing
    "wsld": entropy,  # a cross-entropy: the teacher's own doubts stay, without a gradient
    "dist": of_order(1e-6),  # eps in the denominator of the correlation
    "srd": minimum(2 * math.log(1e-12)),  # the logarithm of the floor
    "pkt": minimum(0.0, slope=1e-7),  # eps beside the probabilities
    "ab": margins,  # values inside the margin are pushed out of it, equal or not
    "diff_loss": largest,  # parts features instead of matching them
    "vid": lambda **_: None,  # its own layers, not the student, must equal the teacher: the next test
    "crd": contrasted,  # the other rows of the memory are never far enough away
}


@every_loss
def test_a_student_that_equals_its_teacher_has_no_loss_or_the_one_that_is_stated(name):
    arguments = make(name)
    arguments, students = with_gradient({**arguments, "student": arguments["teacher"]})

    value = build(name)(**arguments)
    value.backward()

    gradient = max(student.grad.abs().max().item() for student in students)
    assert math.isfinite(gradient)
    AT_EQUALITY.get(name, zero)(value=value.item(), gradient=gradient, teacher=arguments["teacher"], name=name)


def test_vid_is_least_where_its_prediction_equals_the_teacher():
    loss, student = LOSSES["vid"].load()((4,), (4,), layers=1).double(), make("vid")["student"].requires_grad_()

    value = loss(student, loss.mean(student).detach())
    value.backward()

    torch.testing.assert_close(value, 0.5 * loss.variance.log().mean())
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 3])
def test_extreme_inputs_keep_value_and_gradient_finite(name, dtype, rows):
    values = torch.tensor([-1e4, -1e4, -1.0, 0.0, 3.0, 1e4, 1e4], dtype=dtype)
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)

        def extreme(part, generator=generator):
            return values[torch.randint(7, part.shape, generator=generator)]

        arguments = make(name, rows, dtype=dtype)
        chosen = each({side: arguments[side] for side in ("student", "teacher")}, extreme)
        arguments, students = with_gradient({**arguments, **chosen})

        value = build(name, dtype=dtype)(**arguments)
        value.backward()

        assert finite(value, *(student.grad for student in students))


@every_loss
@pytest.mark.parametrize("equal", ["student", "teacher", "both"])
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_identical_rows_keep_value_and_gradient_finite(name, equal, size):
    arguments = make(name, dtype=torch.float32)
    sides = [side for side in ("student", "teacher") if equal in (side, "both")]
    same = each({side: arguments[side] for side in sides}, lambda part: size * part[:1].expand(6, *part.shape[1:]))
    arguments, students = with_gradient({**arguments, **same})

    value = build(name, dtype=torch.float32)(**arguments)
    value.backward()

    assert finite(value, *(student.grad for student in students))


@every_loss
@pytest.mark.parametrize(("rows", "classes"), [(1, 4), (5, 2), (1, 2)])
def test_one_row_and_two_classes_are_enough(name, rows, classes):
    arguments, students = with_gradient(make(name, rows, classes))

    value = build(name, classes)(**arguments)
    value.backward()

    assert finite(value, *(student.grad for student in students))


@named(lambda card: card.inputs in ("logits", "any"))
def test_one_class_is_enough_or_refused_in_a_sentence(name):
    loss, arguments = build(name, 1), make(name, classes=1)

    if name in ONE_CLASS_REFUSED:
        with pytest.raises(ValueError, match=r"logits of shape \(6, 1\) have 1 class: expected two or more"):
            loss(**arguments)
    else:
        assert finite(loss(**arguments))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    arguments = make(name, dtype=dtype, scale=40.0)
    widened = each(arguments, lambda part: part.float() if part.is_floating_point() else part)

    value = build(name, dtype=torch.float32)(**arguments)

    assert value.dtype == torch.float32
    assert torch.equal(value, build(name, dtype=torch.float32)(**widened))


@every_loss
def test_no_gradient_flows_into_a_teacher_without_one_and_nothing_is_overwritten(name):
    arguments, students = with_gradient(make(name))

    build(name)(**arguments).backward()

    assert all(part.grad is None and not part.requires_grad for part in parts(arguments["teacher"]))
    assert any(student.grad.any() for student in students)
    before = each(make(name), lambda part: part)
    for key, value in arguments.items():
        assert all(torch.equal(now, then) for now, then in zip(parts(value), parts(before[key]), strict=True)), key


def of_other_width(name):
    """A teacher with one entry less on its second axis."""
    return each({"teacher": make(name)["teacher"]}, lambda part: part[:, :-1])


@named(lambda card: card.widths == "same")
def test_unlike_shapes_are_refused_with_both_of_them(name):
    shapes = {
        "logits": ("(6, 4)", "(6, 3)"),
        "any": ("(6, 4)", "(6, 3)"),
        "maps": ("(6, 3, 4, 2)", "(6, 2, 4, 2)"),
        "stages": ("(6, 3, 4, 2)", "(6, 2, 4, 2)"),
    }[LOSSES[name].inputs]

    narrow = of_other_width(name)
    loss = build(name, teacher_shape=tuple(parts(narrow["teacher"])[0].shape[1:]))

    with pytest.raises(ValueError, match=re.escape(shapes[0])) as error:
        loss(**{**make(name), **narrow})

    assert shapes[1] in str(error.value)


@named(lambda card: card.widths == "any")
def test_widths_may_differ_where_the_card_says_so(name):
    narrow = of_other_width(name)

    value = build(name, teacher_shape=tuple(narrow["teacher"].shape[1:]))(**{**make(name), **narrow})

    assert finite(value)


@every_loss
def test_the_inputs_are_those_of_the_card(name):
    card = LOSSES[name]
    if card.inputs == "any":
        arguments = {**make(name), **{side: make("at", seed=seed)["student"] for seed, side in SIDES}}
        loss = LOSSES[name].load()
        if card.module:
            loss = loss((3, 4, 2), (3, 4, 2), **SIZES[name]).double()
        assert finite(loss(**arguments))
    if card.inputs == "maps":
        with pytest.raises(ValueError, match=r"\(6, 4\)"):
            build(name)(**{side: make("mse", seed=seed)["student"] for seed, side in SIDES})


@every_loss
def test_the_signature_is_that_of_the_card(name):
    card, loss = LOSSES[name], LOSSES[name].load()
    called = list(inspect.signature(loss.forward if card.module else loss).parameters.values())[card.module :]
    built = list(inspect.signature(loss).parameters.values()) if card.module else []
    positional = [parameter.name for parameter in called if parameter.kind is not parameter.KEYWORD_ONLY]

    assert isinstance(loss, type) == card.module
    assert positional == ["student", "teacher", *(["target"] if "labels" in card.needs else [])]
    assert ("rows" in [parameter.name for parameter in called]) == ("memory" in card.needs)
    assert ("logits" in card.needs) != ("features" in card.needs) and card.weight > 0
    assert card.inputs in ("logits", "vectors", "maps", "any", "stages") and card.widths in ("same", "any")
    for parameter in [*called, *built]:
        assert parameter.default is parameter.empty or parameter.kind is parameter.KEYWORD_ONLY


@every_loss
def test_an_unknown_reduction_is_refused_in_a_sentence(name):
    card, loss = LOSSES[name], LOSSES[name].load()
    if "reduction" in inspect.signature(loss.forward if card.module else loss).parameters:
        with pytest.raises(ValueError, match="reduction is 'median': expected mean"):
            build(name)(**make(name), reduction="median")


@every_loss
def test_the_docstring_holds_an_equation_and_an_example(name):
    text = inspect.getdoc(LOSSES[name].load())

    assert "$$" in text and ">>>" in text

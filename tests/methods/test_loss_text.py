import pytest
import torch

from xmodal.data import open_data
from xmodal.data.loader import in_order
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.losses.decoupled import dkd
from xmodal.losses.features import hint
from xmodal.losses.relational import sp
from xmodal.methods.kd import KD
from xmodal.methods.loss_text import coefficients, parse_loss, split_loss
from xmodal.methods.options import DistillationOptions
from xmodal.models.network import build_for


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", options={"views": ["image", "rows"]}, train_fraction=0.1)


def made(data, *losses, seed=0):
    torch.manual_seed(seed)
    student, teacher = build_for(data.info, ["rows"]), build_for(data.info, ["image"]).module
    outputs = ("outputs",)
    return KD(
        student,
        teacher,
        data.info,
        DistillationOptions(
            losses=losses, kd_weight=1.0, task_weight=0.0, student_layer=outputs, teacher_layer=outputs
        ),
    ).eval()


def value(data, *losses, rows=12):
    """What a method makes of a batch, and the outputs of both sides."""
    method = made(data, *losses)
    batch = next(iter(in_order(data.train, batch_size=rows)))
    total = sum(method.training_step(batch, method.teach(batch)).losses.values())
    return total, method.network(batch.inputs), method.teacher(batch.inputs).detach(), batch.target


# ---- reading


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kl", ("kl", "", "")),
        (" rkd : 0.5", ("rkd", "", " 0.5")),
        ("kl(temperature=2)", ("kl", "temperature=2", "")),
        ("dkd(alpha=1, beta=2):3", ("dkd", "alpha=1, beta=2", "3")),
    ],
)
def test_a_loss_is_name_options_and_weight(text, parts):
    assert split_loss(text) == parts


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("kl(temperature=2 scale=none)", {"temperature": 2.0, "scale": "none"}),
        ("hint(batchnorm_relu=true)", {"batchnorm_relu": True}),
        ("hint(batchnorm_relu=false,adaptor=linear)", {"batchnorm_relu": False, "adaptor": "linear"}),
        ("crd(negatives=9,exact=true)", {"negatives": 9, "exact": True}),
        ("sp(group=64)", {"group": 64}),
        ("kl()", {}),
    ],
)
def test_options_have_the_kind_of_their_defaults(text, options):
    found = parse_loss(text).options

    assert found == options and [type(one) for one in found.values()] == [type(one) for one in options.values()]


def test_the_weight_is_the_usual_one_unless_given():
    assert parse_loss("rkd(distance_weight=1)").weight == LOSSES["rkd"].weight
    assert parse_loss("rkd(distance_weight=1):7").weight == 7.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kl(temprature=2)", "has no option 'temprature'. Did you mean 'temperature'"),
        ("kl(temperature=warm)", "temperature is 'warm', expected a number"),
        ("kl(temperature)", "temperature is '', expected a number"),
        ("crd(negatives=2.5)", "negatives is '2.5', expected a whole number"),
        ("hint(batchnorm_relu=yes)", "batchnorm_relu is 'yes', expected true or false"),
        ("hint(adaptor=linaer)", "Did you mean 'linear'"),
        ("kl(group=3)", "has no option 'group'"),
        ("kl(reduction=mean)", "has no option 'reduction'"),
        ("kl(temperature=2", "expected NAME, NAME:WEIGHT or"),
        ("kl(temperature=2):heavy", "expected NAME or NAME:WEIGHT"),
        ("", "expected NAME"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(text, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(").replace("?", r"\?")):
        parse_loss(text)


@pytest.mark.parametrize("name", LOSSES)
def test_every_coefficient_can_be_written_and_read_back(name):
    known = {key: default for key, default in coefficients(LOSSES[name]).items() if default != ""}
    written = ",".join(f"{key}={str(one).lower() if isinstance(one, bool) else one}" for key, one in known.items())

    assert parse_loss(f"{name}({written}):1").options == known


# ---- what a method does with them


def test_coefficients_reach_the_loss(digits):
    found, student, teacher, target = value(digits, "dkd(alpha=16, beta=1, temperature=0.7):1")

    torch.testing.assert_close(found, dkd(student, teacher, target, alpha=16.0, beta=1.0, temperature=0.7))


def test_own_options_go_before_the_temperature_of_all(digits):
    student, teacher = build_for(digits.info, ["rows"]), build_for(digits.info, ["image"]).module

    options = DistillationOptions(losses=("kl", "kl(temperature=2)"), temperature=3.0)
    method = KD(student, teacher, digits.info, options)

    assert [term.options["temperature"] for term in method.terms] == [3.0, 2.0]


def test_outputs_can_be_compared_by_losses_on_features(digits):
    found, student, teacher, _ = value(digits, "hint:1")

    torch.testing.assert_close(found, hint(student, teacher))


def test_a_linear_adaptor_is_learned_between_equal_widths_where_asked_for(digits):
    plain, asked = made(digits, "hint:1"), made(digits, "hint(adaptor=linear):1")

    assert [tuple(p.shape) for p in asked.trained_terms.parameters()] == [(10, 10), (10,)]
    assert not list(plain.trained_terms.parameters())
    found, student, teacher, _ = value(digits, "hint(adaptor=linear):1")
    layer = asked.terms[0].adaptors[0]
    torch.testing.assert_close(found, hint(layer(student), teacher))


def test_groups_of_rows_are_a_mean_by_their_sizes(digits):
    found, student, teacher, _ = value(digits, "sp(group=5):1", rows=12)

    parts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    expected = sum(sp(student[part], teacher[part]) * len(student[part]) / 12 for part in parts)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("group", [0, 12, 100])
def test_a_group_of_all_rows_is_the_loss_itself(digits, group):
    found, student, teacher, _ = value(digits, f"sp(group={group}):1", rows=12)

    torch.testing.assert_close(found, sp(student, teacher))

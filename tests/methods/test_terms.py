from __future__ import annotations

import pytest
import torch

from xmodal.data import open_data
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses import LOSSES
from xmodal.losses.relational import rkd
from xmodal.methods.kd import KD
from xmodal.methods.loss_text import parse_loss
from xmodal.methods.options import DistillationOptions
from xmodal.models.network import build_for


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", options={"views": ["image", "noisy", "rows"]}, train_fraction=0.1)


def made(data, *, student="noisy", teacher="image", seed=0, width=None, **options):
    torch.manual_seed(seed)
    return KD(
        build_for(data.info, [student], width=width),
        build_for(data.info, [teacher]).module,
        data.info,
        DistillationOptions(**options),
    )


def batch_of(data, rows=8):
    from xmodal.data.loader import in_order

    return next(iter(in_order(data.train, batch_size=rows)))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_through_fit(name, digits):
    method = made(digits, losses=(name,), width=96)
    before = {key: value.clone() for key, value in method.trained_terms.state_dict().items()}

    run = fit(method, digits, FitSettings(epochs=2, batch_size=64, clip=1.0), fabric=launch())

    assert all(torch.isfinite(torch.tensor(row["losses"]["kd"])) for row in run.history)
    trained = dict(method.trained_terms.named_parameters())
    if trained and name != "ctkd":  # its temperature stands still in the first epoch and moves by little in the second
        assert any(not torch.equal(before[key], value) for key, value in trained.items())


def test_terms_add_up_with_their_weights(digits):
    batch = batch_of(digits)
    both = made(digits, losses=("kl:2", "rkd:0.5"), task_weight=0.0).eval()
    step = both.training_step(batch, both.teach(batch))
    singles = [made(digits, losses=(text,), task_weight=0.0).eval() for text in ("kl:1", "rkd:1")]
    values = [one.training_step(batch, one.teach(batch)).losses["kd"] for one in singles]

    assert sorted(step.losses) == ["kd 1 kl", "kd 2 rkd"]
    torch.testing.assert_close(step.losses["kd 1 kl"], 2 * values[0])
    torch.testing.assert_close(step.losses["kd 2 rkd"], 0.5 * values[1])


def test_features_are_those_of_the_named_modules(digits):
    batch = batch_of(digits)
    layer = "encoders.from_noisy.body.6"
    method = made(
        digits, losses=("rkd:1",), student_layer=(layer,), teacher_layer=("embedding",), kd_weight=1.0, task_weight=0.0
    ).eval()

    value = method.training_step(batch, method.teach(batch)).losses["kd"]

    trunk, teacher = method.network.encoders["from_noisy"].body[:7], method.teacher
    torch.testing.assert_close(value, rkd(trunk(batch.inputs["noisy"]), teacher.features(batch.inputs)))


def test_a_wrong_layer_lists_those_that_exist(digits):
    with pytest.raises(
        InputError, match=r"no layer called 'encoders.from_noisy.bdy'.*Did you mean 'encoders.from_noisy"
    ):
        made(digits, losses=("hint",), student_layer=("encoders.from_noisy.bdy",))


def test_maps_that_are_not_there_are_a_sentence_with_the_layers(digits):
    with pytest.raises(InputError, match=r"compares maps .* of the student.*Layers: .*head \(10,\)"):
        made(digits, student="rows", losses=("at",))


def test_all_losses_that_cannot_be_are_told_together(digits):
    with pytest.raises(InputError) as caught:
        made(digits, student="rows", losses=("at", "klx", "rkd:a"))

    assert len(caught.value.problems) == 3


def test_unlike_widths_get_a_trainable_adaptor(digits):
    method = made(digits, losses=("hint",), width=48)

    shapes = {name: tuple(parameter.shape) for name, parameter in method.trained_terms.named_parameters()}

    assert shapes == {"0.adaptors.0.weight": (128, 48), "0.adaptors.0.bias": (128,)}
    assert sum(parameter.numel() for parameter in method.param_groups()[0]["params"]) > 128 * 48 + 128


def test_the_exported_student_has_nothing_of_the_terms(digits):
    method = made(digits, losses=("vid", "crd"))

    assert not [name for name in method.students()["noisy"].module.state_dict() if "term" in name or "memory" in name]


def test_a_temperature_reaches_every_loss_that_has_one(digits):
    method = made(digits, losses=("kl", "dkd", "rkd"), temperature=2.5)

    assert [term.options for term in method.terms] == [{"temperature": 2.5}, {"temperature": 2.5}, {}]


def test_class_probabilities_need_classes():
    from xmodal.types import DataInfo, InputInfo

    vector = InputInfo((4,), layout="vector")
    info = DataInfo({"a": vector, "b": vector}, "regression", 2, rows={})

    with pytest.raises(InputError, match="compares class probabilities, and the task is regression"):
        KD(build_for(info, ["a"]), build_for(info, ["b"]).module, info, DistillationOptions(losses=("dkd",)))


def test_the_memory_of_crd_follows_the_rows_of_the_batch(digits):
    method = made(digits, losses=("crd",))
    batch = batch_of(digits, rows=4)
    memory = method.terms[0].loss.memory_student.clone()
    method.train()

    method.training_step(batch, method.teach(batch))

    changed = (method.terms[0].loss.memory_student != memory).any(dim=1).nonzero().flatten()
    assert changed.tolist() == batch.index["noisy"].tolist()


@pytest.mark.parametrize("text", ["rkd:x", "rkd:", "nothing"])
def test_losses_are_written_as_name_and_weight(text):
    if text == "rkd:":
        assert parse_loss(text)[1] == LOSSES["rkd"].weight
        return
    with pytest.raises(InputError):
        parse_loss(text)

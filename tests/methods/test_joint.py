"""Two networks that learn the task and to agree."""

import pytest
import torch
import torch.nn.functional as F

from xmodal.data.loader import in_order
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses.divergence import divergence
from xmodal.methods.joint import Joint, fit_joint
from xmodal.models.network import build_for


@pytest.fixture
def sides(make_toy):
    data = make_toy()
    torch.manual_seed(0)
    return data, build_for(data.info, ["clear"], dropout=0.0), build_for(data.info, ["faint"], dropout=0.0)


@pytest.mark.parametrize("agreement", ["mse", "ncjsd"])
def test_the_terms_are_two_tasks_and_the_distance_between_the_outputs(sides, agreement):
    data, teacher, student = sides
    joint = Joint(teacher, student, data.info, agreement=agreement, agreement_weight=0.3).eval()
    batch = next(iter(in_order(data.train, batch_size=20)))
    f, g = teacher.module(batch.inputs), student.module(batch.inputs)

    step = joint(batch, {})

    distance = F.mse_loss(f, g) if agreement == "mse" else divergence(g, f, batch.target, form="reference")
    assert set(step.losses) == {"teacher task", "student task", "agreement"}
    torch.testing.assert_close(step.losses["teacher task"], F.cross_entropy(f, batch.target))
    torch.testing.assert_close(step.losses["student task"], F.cross_entropy(g, batch.target))
    torch.testing.assert_close(step.losses["agreement"], 0.3 * distance)


def test_the_agreement_pulls_at_both_networks(sides):
    data, teacher, student = sides
    joint = Joint(teacher, student, data.info)
    batch = next(iter(in_order(data.train, batch_size=20)))

    joint(batch, {}).losses["agreement"].backward()

    assert all(parameter.grad is not None for parameter in joint.parameters())


def test_training_brings_the_networks_together(sides):
    data, teacher, student = sides
    batch = next(iter(in_order(data.train, batch_size=500)))

    def apart(weight):
        settings = FitSettings(epochs=15, batch_size=32, learning_rate=1e-2)
        torch.manual_seed(1)
        networks = [build_for(data.info, [name], dropout=0.0) for name in ("clear", "faint")]
        run = fit(Joint(*networks, data.info, agreement_weight=weight), data, settings)
        f, g = (run.students[side].module(batch.inputs) for side in ("teacher", "student"))
        return F.mse_loss(f, g).item()

    assert apart(1.0) < 0.5 * apart(0.0)


def test_unpaired_data_is_refused_in_a_sentence(make_toy):
    data = make_toy(paired=False)

    with pytest.raises(InputError, match="compares two networks on the same samples"):
        Joint(build_for(data.info, ["clear"]), build_for(data.info, ["faint"]), data.info)


def test_a_stage_ends_with_the_last_epoch_and_is_trained_once(make_bench):
    bench = make_bench(epochs=3)

    joint = fit_joint(bench, agreement="mse", stage="together")
    again = fit_joint(bench, agreement="mse", stage="together")

    assert list(bench.stages) == ["together"] and not joint.training
    last = bench.stages["together"].method.state_dict()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in last.items())

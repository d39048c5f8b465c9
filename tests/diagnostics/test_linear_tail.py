"""A tail is recognised as linear only if it is, also where linearity is hidden or nearly holds."""

import pytest
import torch
from slow_saliency import make_batches, randomised
from torch import nn

from xmodal.diagnostics.activations import run_both
from xmodal.diagnostics.linear import slopes
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.models.network import wrap


class Does(nn.Module):
    """A layer that applies a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def shifted(layer, bias):
    """The layer with a bias so large that a ReLU behind it is the identity on these rows."""
    with torch.no_grad():
        layer.bias.fill_(bias)
    return layer


def behind(*layers):
    """A network whose layer 'module.0' has six channels, with these layers behind it."""
    return wrap(nn.Sequential(nn.Linear(4, 6), *layers), ["sound"])


def normed():
    return randomised(nn.BatchNorm1d(6), seed=3)


LINEAR = {
    "linear": [nn.Linear(6, 3)],
    "two": [nn.Linear(6, 5), nn.Linear(5, 3)],
    "norm and dropout": [normed(), nn.Dropout(0.5), nn.Linear(6, 3)],
    "written as a function": [Does(lambda x: 2 * x[:, :3] - x[:, 3:].flip(1) + 1)],
    "an affine function in disguise": [nn.Linear(6, 3), Does(lambda x: torch.relu(x) - torch.relu(-x))],
    "a constant of its own": [Does(lambda x: x @ torch.ones(6, 3))],
    "nothing": [Does(lambda x: x[:, :3])],
}
TRAPS = {
    "relu": [nn.Linear(6, 3), nn.ReLU()],
    "relu that no row ever reaches": [shifted(nn.Linear(6, 5), 1e3), nn.ReLU(), nn.Linear(5, 3)],
    "a leak of 0.999": [nn.Linear(6, 3), nn.LeakyReLU(0.999)],
    "a limit far off": [nn.Linear(6, 3), nn.Hardtanh(-1e5, 1e5)],
    "tanh that looks straight": [nn.Linear(6, 3), Does(lambda x: 1e4 * torch.tanh(1e-4 * x))],
    "a small square": [nn.Linear(6, 3), Does(lambda x: x + 1e-6 * x**2)],
    "a dead zone": [nn.Hardshrink(1e-3), nn.Linear(6, 3)],
    "normalised rows": [nn.LayerNorm(6), nn.Linear(6, 3)],
    "products of channels": [Does(lambda x: x[:, :3] * x[:, 3:])],
    "rounded": [nn.Linear(6, 3), Does(lambda x: (1e4 * x).round() / 1e4)],
    "softmax": [nn.Linear(6, 3), nn.Softmax(dim=1)],
}


def weights_of(network, student=None):
    student = student or wrap(nn.Linear(5, 3), ["image"])
    network.eval(), student.eval()
    with torch.no_grad():
        cut, parts = run_both(network, student, make_batches(6, 4), "module.0", targets=False, whole=False)
        return slopes(cut, parts[0], 2**28), cut, parts[0]


@pytest.mark.parametrize("layers", LINEAR.values(), ids=LINEAR)
def test_linear_tails_are_recognised_with_their_weights(layers):
    torch.manual_seed(0)
    weights, cut, rows = weights_of(behind(*layers))

    start, wide = rows.features[:1].double(), {step: value.double() for step, value in rows.context.items()}
    moved = cut.double().tail(start + 1, wide) - cut.double().tail(start, wide)
    torch.testing.assert_close(weights.sum(dim=(0, 1)), moved[0])


@pytest.mark.parametrize("layers", TRAPS.values(), ids=TRAPS)
def test_nearly_linear_tails_are_not_taken_for_linear(layers):
    torch.manual_seed(0)

    assert weights_of(behind(*layers))[0] is None


def test_a_trap_is_measured_by_another_form_with_the_same_numbers():
    torch.manual_seed(0)
    network, student = behind(*TRAPS["relu that no row ever reaches"]), wrap(nn.Linear(5, 3), ["image"])

    auto, naive = (
        measure_saliency(network, student, make_batches(6, 4), "module.0", permutations=3, method=method)
        for method in ("auto", "naive")
    )

    assert auto.form == "rank_one" and auto.raw == pytest.approx(naive.raw, rel=1e-5)


def test_a_layer_that_cannot_be_copied_is_not_probed_in_float64():
    layer = nn.Linear(6, 3)
    layer.kept = 2 * layer.weight  # torch refuses to copy a tensor with a graph
    network, student = behind(layer), wrap(nn.Linear(5, 3), ["image"])

    assert measure_saliency(network, student, make_batches(6), "module.0", permutations=2).form == "rank_one"


def test_outputs_too_large_for_the_memory_are_not_probed():
    network = behind(nn.Linear(6, 3))
    student = wrap(nn.Linear(5, 3), ["image"])
    saliency = measure_saliency(network, student, make_batches(6), "module.0", permutations=2, memory=6 * 3 * 8 - 1)

    assert saliency.form == "rank_one"


def test_features_that_hardly_vary_and_a_single_row_are_probed_all_the_same():
    for rows in (torch.full((3, 4), 5.0), torch.ones(1, 4), torch.zeros(2, 4)):
        network, student = wrap(nn.Linear(4, 3), ["sound"]), wrap(nn.Linear(5, 3), ["image"])
        batch = make_batches(len(rows))[0]
        batch.inputs["sound"] = rows

        assert measure_saliency(network, student, [batch], "input:sound").form == "closed"

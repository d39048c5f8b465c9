"""A network cut at a layer gives the answers of the whole network, or is not cut at all."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from xmodal.models.cut import split
from xmodal.models.feature_layers import replacing
from xmodal.models.network import build_network, wrap


class Residual(nn.Module):
    """BatchNorm, a shortcut over the layer, a function instead of a layer, a layer that works in place."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)
        self.inner, self.act, self.last = nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)

    def forward(self, inputs):
        x = self.norm(self.first(inputs["sound"]))
        y = self.act(self.inner(torch.relu(x)))
        return self.last(y.add_(x)) + inputs["image"][:, :1]


class Counts(Residual):
    """Reads the number of rows before the layer and uses it behind."""

    def forward(self, inputs):
        rows = inputs["sound"].size(0)
        return self.last(self.act(self.first(inputs["sound"])).view(rows, -1))


class Decides(Residual):
    """Python decides on a value: nothing that writes steps down can follow."""

    def forward(self, inputs):
        x = self.first(inputs["sound"])
        return self.last(x) if x.mean() > 0 else self.last(-x)


class Outer(nn.Module):
    """Only a layer that is not on the way to the cut decides on values."""

    def __init__(self):
        super().__init__()
        self.before, self.between, self.last = nn.Linear(4, 5), Switch(), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.last(self.between(self.before(inputs["sound"])))


class Switch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else 2 * x


class Twice(Residual):
    """One layer runs two times."""

    def forward(self, inputs):
        return self.last(self.act(self.inner(self.act(self.first(inputs["sound"])))))


class Misled(Residual):
    """Says something else while its steps are written down than when it runs."""

    def forward(self, inputs):
        x = self.first(inputs["sound"])
        return self.last(x if isinstance(x, torch.Tensor) else -x)


class Random(Residual):
    """Answers differently each time."""

    def forward(self, inputs):
        return self.last(functional.dropout(self.first(inputs["sound"])))


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    return {"sound": torch.randn(6, 4, generator=generator), "image": torch.randn(6, 2, generator=generator)}


def seeded(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.eval()


@pytest.mark.parametrize("layer", ["first", "norm", "inner", "act", "last", "input:sound", "input:image"])
def test_a_cut_network_answers_like_the_whole_one_wherever_it_is_cut(layer, samples):
    network = seeded(Residual())

    with torch.no_grad():
        cut, (features, context) = split(network, layer, samples)
        other = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        with replacing(network, layer, lambda _: other.clone()):
            wanted = network(samples)

        torch.testing.assert_close(cut.tail(other, context), wanted)
        torch.testing.assert_close(cut.tail(features, context), network(samples))
        torch.testing.assert_close(cut.tail(other, context), wanted)  # both are still unchanged


@pytest.mark.parametrize("layer", ["encoders.from_sound.body.0", "embedding", "head", "input:sound", "input:image"])
def test_networks_of_the_package_are_cut(layer, samples):
    described = {name: {"encoder": "mlp", "shape": [width], "width": 5} for name, width in (("sound", 4), ("image", 2))}
    network = seeded(build_network(inputs=described, outputs=3, fusion="concat"))

    with torch.no_grad():
        cut, (features, context) = split(network, layer, samples)

        torch.testing.assert_close(cut.tail(features, context), network(samples))


@pytest.mark.parametrize("network", [Decides(), Misled(), Random()], ids=lambda network: type(network).__name__)
def test_what_cannot_be_followed_is_not_cut(network, samples):
    with torch.no_grad():
        assert split(seeded(network), "first", samples) == (None, None)


def test_a_layer_that_runs_twice_is_not_cut(samples):
    with torch.no_grad():
        assert split(seeded(Twice()), "act", samples) == (None, None)
        assert split(seeded(Twice()), "inner", samples)[0] is not None


def test_code_that_is_not_on_the_way_to_the_layer_need_not_be_followed(samples):
    network = seeded(Outer())

    with torch.no_grad():
        cut, (features, context) = split(network, "before", samples)

        torch.testing.assert_close(cut.tail(features, context), network(samples))


def test_rows_can_be_picked_for_the_tail(samples):
    network, index = seeded(Residual()), torch.tensor([3, 3, 0])

    with torch.no_grad():
        cut, (features, context) = split(network, "inner", samples)

        picked = cut.tail(features[index], cut.pick(context, 6, index))
        torch.testing.assert_close(picked, network(samples)[index])


def test_picking_leaves_weights_alone_that_are_as_long_as_the_batch():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.scale = nn.Linear(4, 6), nn.Parameter(torch.arange(6.0))

        def forward(self, inputs):
            return self.first(inputs["sound"]) * self.scale

    network, sound = seeded(Scaled()), {"sound": torch.ones(6, 4)}

    with torch.no_grad():
        cut, (features, context) = split(network, "first", sound)

        few = cut.pick(context, 6, torch.tensor([0, 1]))
        assert cut.tail(features[:2], few).shape == (2, 6)


def test_a_layer_without_influence_on_the_outputs_is_reported(samples):
    network = wrap(nn.Linear(4, 3), ["sound"]).eval()

    with torch.no_grad():
        assert split(network, "input:sound", samples)[0].matters
        assert not split(network, "input:image", samples)[0].matters


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)], True),
        ([nn.Dropout(0.5), nn.Identity(), nn.Linear(5, 3)], True),
        ([nn.Flatten(), nn.Linear(5, 3)], True),
        ([nn.Flatten(1, 1), nn.Linear(5, 3)], False),
        ([nn.ReLU(), nn.Linear(5, 3)], False),
        ([nn.BatchNorm1d(5), nn.Linear(5, 3)], False),
    ],
)
def test_the_linear_layer_that_comes_first_is_found(layers, found, samples):
    network = seeded(wrap(nn.Sequential(nn.Linear(4, 5), *layers), ["sound"]))

    with torch.no_grad():
        cut, (features, context) = split(network, "module.0", samples)
        behind = cut.first_layer()

        assert (behind is not None) == found
        if behind is not None:
            layer, flat, rest = behind
            assert flat == isinstance(layers[0], nn.Flatten)
            torch.testing.assert_close(rest.tail(layer(features), context), network(samples))


class Flattens(nn.Module):
    """A convolution behind which maps are flattened in one of three ways."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Conv1d(1, 3, 1), nn.Linear(12, 2), how

    def forward(self, inputs):
        return self.last(self.how(self.first(inputs["sound"][:, None])))


@pytest.mark.parametrize("how", [lambda x: torch.flatten(x, 1), lambda x: x.flatten(1), nn.Flatten()])
def test_maps_that_are_flattened_before_a_linear_layer_are_found(how, samples):
    network = seeded(Flattens(how))

    with torch.no_grad():
        cut, (features, context) = split(network, "first", samples)
        layer, flat, rest = cut.first_layer()

        assert layer is network.last and flat and features.shape[1:] == (3, 4)
        torch.testing.assert_close(rest.tail(layer(features.flatten(1)), context), network(samples))


def test_a_linear_layer_with_a_hook_is_not_taken_apart(samples):
    network = seeded(wrap(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), ["sound"]))
    network.module[1].register_forward_hook(lambda layer, given, out: 2 * out)

    with torch.no_grad():
        cut, _ = split(network, "module.0", samples)

    assert cut.first_layer() is None


def test_features_that_are_spent_may_be_overwritten_and_others_are_not(samples):
    network = seeded(wrap(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), ["sound"]))

    with torch.no_grad():
        cut, (features, context) = split(network, "module.0", samples)
        before = features.clone()
        kept = cut.tail(features, context)
        assert torch.equal(features, before) and features.min() < 0
        spent = cut.tail(features, context, spend=True)

    assert torch.equal(spent, kept) and torch.equal(features, before.relu())


def test_what_is_read_twice_is_not_overwritten_by_a_relu(samples):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act = nn.Linear(4, 3), nn.Linear(3, 3), nn.ReLU()

        def forward(self, inputs):
            x = self.second(self.first(inputs["sound"]))
            return x + self.act(x)

    network = seeded(Twice())

    with torch.no_grad():
        cut, (features, context) = split(network, "first", samples)

        torch.testing.assert_close(cut.tail(features, context, spend=True), network(samples))


def test_a_cut_in_double_leaves_the_network_in_float(samples):
    network = seeded(Residual())

    with torch.no_grad():
        cut, (features, context) = split(network, "act", samples)
        wide = {step: value.double() for step, value in context.items()}
        answers = cut.double().tail(features.double(), wide)

    assert answers.dtype == torch.float64
    torch.testing.assert_close(answers.float(), network(samples).detach())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_number_of_rows_read_before_the_layer_is_kept_unchanged(samples):
    network = seeded(Counts())

    with torch.no_grad():
        cut, found = split(network, "act", samples)

    assert cut is None or cut.tail(*found).shape == (6, 3)


@pytest.mark.parametrize("layer", ["inner", "act", "input:sound"])
def test_a_head_that_runs_in_pieces_gives_the_same(layer, samples):
    network = seeded(Residual())

    with torch.no_grad():
        whole, (features, context) = split(network, layer, samples)
        pieces, (again, given) = split(network, layer, samples, most=4)

        torch.testing.assert_close(again, features)
        torch.testing.assert_close(pieces.tail(again, given), whole.tail(features, context))


def test_where_rows_before_the_layer_are_not_independent_there_is_no_cut(samples):
    class Mixes(Residual):
        def forward(self, inputs):
            sound = inputs["sound"]
            return self.last(self.first(sound - sound.mean(dim=0, keepdim=True)))

    with torch.no_grad():
        for most in (None, 4):
            assert split(seeded(Mixes()), "first", samples, most=most) == (None, None)

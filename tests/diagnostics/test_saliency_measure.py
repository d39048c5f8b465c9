"""Saliency of Algorithm 1: by hand, against loops over the whole network, in every form, with odd input."""

import copy

import numpy as np
import pytest
import torch
from slow_saliency import Residual, every_permutation, joined, make_batches, randomised, slow_distances
from torch import nn

from xmodal.diagnostics.permutation import blocks
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.errors import InputError
from xmodal.losses.divergence import ncjsd
from xmodal.models.feature_layers import replacing
from xmodal.models.network import wrap
from xmodal.types import Batch

# distances here go up to about a hundred, and float32 rounds a network's outputs at 1e-7 of that
ROUNDING = 1e-5
FORMS = ("naive", "tail", "batched", "rank_one", "closed")
CHANNELS = {"input:sound": 4, "first": 6, "norm": 6, "inner": 6, "act": 6, "drop": 6, "last": 3}


def fixed(weight, name):
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return wrap(layer, [name])


def paired(sound, image, target=None):
    inputs = {"sound": torch.tensor(sound), "image": torch.tensor(image)}
    return Batch(inputs, dict.fromkeys(inputs, torch.tensor(target)) if target else {})


@pytest.fixture
def pair():
    return randomised(Residual()), randomised(wrap(nn.Linear(5, 3), ["image"]), seed=1)


@pytest.fixture
def batches():
    return make_batches(5, 4, 1)


def state_of(network):
    return copy.deepcopy(network.state_dict()), [part.training for part in network.modules()]


def unchanged(network, before):
    now = state_of(network)
    return now[1] == before[1] and all(torch.equal(now[0][name], value) for name, value in before[0].items())


def drawn(rows, channels, draws=2, seed=0):
    found = torch.empty(draws, channels, rows, dtype=torch.long)
    for draw, first, some in blocks(draws, channels, rows, channels, torch.Generator().manual_seed(seed)):
        found[draw, first : first + len(some)] = some
    return found


# By hand


def test_two_rows_by_hand():
    teacher, student = fixed([[1.0, 2.0]], "sound"), fixed([[1.0]], "image")
    # the teacher answers 1 + 2·0 = 1 and 3 + 2·1 = 5, the student 0 and 4: distance ((1-0)² + (5-4)²) / 2 = 1;
    # first column exchanged: 3 and 3, (9 + 1) / 2 = 5; second exchanged: 3 and 3, the same
    batch = paired([[1.0, 0.0], [3.0, 1.0]], [[0.0], [4.0]])
    swap = [[[1, 0], [0, 1]], [[1, 0], [1, 0]]]

    found = measure_saliency(teacher, student, [batch], "input:sound", permutations=swap)

    assert found.draws.tolist() == [[5.0, 1.0], [5.0, 5.0]]
    assert found.raw.tolist() == [5.0, 3.0] and found.value.tolist() == [1.0, 0.0] and found.baseline == 1.0
    exact = measure_saliency(teacher, student, [batch], "input:sound")  # half of all permutations exchange the two
    assert exact.raw.tolist() == [3.0, 3.0] and exact.deviation.tolist() == [2.0, 2.0]


def test_a_fixed_value_by_hand():
    teacher, student = fixed([[1.0, 2.0]], "sound"), fixed([[1.0]], "image")
    batch = paired([[1.0, 0.0], [3.0, 1.0]], [[0.0], [4.0]])

    zero = measure_saliency(teacher, student, [batch], "input:sound", disturb="zero")
    mean = measure_saliency(teacher, student, [batch], "input:sound", disturb="mean")

    assert zero.raw.tolist() == [(0 + 4) / 2, (1 + 1) / 2]  # answers 0, 2 and 1, 3
    assert mean.raw.tolist() == [(4 + 0) / 2, (4 + 0) / 2]  # answers 2, 4 both times
    assert zero.exact and zero.draws is None and zero.standard_error.tolist() == [0.0, 0.0]


def test_the_shared_channel_is_the_salient_one():
    generator = torch.Generator().manual_seed(0)
    shared, own, noise = torch.randn(3, 50, 1, generator=generator)
    batch = Batch({"sound": torch.cat([own, noise, shared], dim=1), "image": shared}, {})
    teacher, student = fixed([[1.0, 0.0, 1.0]], "sound"), fixed([[1.0]], "image")

    found = measure_saliency(teacher, student, [batch], "input:sound")

    assert found.value.argmax() == 2 and found.value[2] == 1.0
    assert abs(found.raw[1] - found.baseline) < 1e-12  # what is not used disturbs nobody


# Every form gives the numbers of the slow loop


@pytest.mark.parametrize("distance", ["mse", "l1"])
@pytest.mark.parametrize("place", CHANNELS)
def test_every_form_agrees_with_the_loop_over_whole_networks(place, distance, pair, batches):
    teacher, student = pair
    permutations = drawn(10, CHANNELS[place])
    wanted = slow_distances(teacher, student, joined(batches), place, permutations, distance)
    linear = place in ("act", "drop", "last")
    possible = FORMS[:4] if place == "input:sound" else (*FORMS[:3], "closed") if linear else FORMS[:3]

    for method in (*possible, "auto"):
        found = measure_saliency(
            teacher, student, batches, place, distance=distance, permutations=permutations, method=method
        )

        assert found.form == (possible[-1] if method == "auto" else method)
        np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)
        np.testing.assert_allclose(found.raw, wanted.mean(axis=0), rtol=1e-5)


MAPS = {
    "flattened": [nn.Conv1d(4, 3, 1), nn.Flatten(), nn.Linear(15, 6), nn.ReLU(), nn.Linear(6, 3)],
    "convolution": [nn.Conv1d(4, 20, 1), nn.Conv1d(20, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)],
    "grouped": [nn.Conv1d(4, 20, 1), nn.Conv1d(20, 2, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)],
    "reflected": [
        nn.Conv1d(4, 20, 1),
        nn.Conv1d(20, 2, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(10, 3),
    ],
    "along the last axis": [nn.Conv1d(4, 3, 1), nn.Linear(5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)],
}


@pytest.mark.parametrize("memory", [1, 2**28])
@pytest.mark.parametrize("layers", MAPS.values(), ids=MAPS)
def test_an_update_of_the_layer_behind_maps_gives_the_numbers_of_the_loop(layers, memory, request):
    teacher, student = randomised(wrap(nn.Sequential(*layers), ["sound"])), randomised(wrap(nn.Linear(5, 3), ["image"]))
    batches = make_batches(5, 4, 1, shapes=((4, 5), (5,)))
    permutations = drawn(10, layers[0].out_channels)
    wanted = slow_distances(teacher, student, joined(batches), "module.0", permutations)

    found = measure_saliency(teacher, student, batches, "module.0", permutations=permutations, memory=memory)

    updated = {"flattened", "convolution"}
    assert found.form == ("rank_one" if request.node.callspec.id.split("-")[0] in updated else "batched")
    np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)


@pytest.mark.parametrize("place", ["first", "inner", "drop"])
def test_a_seed_gives_every_form_the_same_permutations(place, pair, batches):
    wanted = slow_distances(*pair, joined(batches), place, drawn(10, CHANNELS[place], draws=3, seed=5))

    for method, memory in (("naive", 2**28), ("batched", 2**28), ("batched", 1), ("auto", 1)):
        found = measure_saliency(*pair, batches, place, permutations=3, seed=5, method=method, memory=memory)

        np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)


def test_without_a_seed_permutations_come_from_the_global_generator(pair, batches):
    torch.manual_seed(5)
    found = measure_saliency(*pair, batches, "inner", permutations=2, seed=None)
    after = torch.rand(1)

    torch.manual_seed(5)
    again = [torch.randperm(10) for _ in range(12)]
    assert torch.equal(torch.rand(1), after)  # nothing else was drawn
    wanted = slow_distances(*pair, joined(batches), "inner", torch.stack(again).reshape(2, 6, 10))
    np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)


def test_a_seed_leaves_the_global_generator_alone(pair, batches):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    measure_saliency(*pair, batches, "inner", permutations=2)

    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("distance", ["mse", "l1"])
@pytest.mark.parametrize("place", ["drop", "last"])
def test_exact_is_the_mean_over_every_permutation(place, distance, pair):
    batches = make_batches(3, 2)
    every = slow_distances(*pair, joined(batches), place, every_permutation(5, CHANNELS[place]), distance)

    found = measure_saliency(*pair, batches, place, distance=distance)

    assert found.exact and found.form == "closed" and found.note == "" and (found.standard_error == 0).all()
    np.testing.assert_allclose(found.raw, every.mean(axis=0), rtol=1e-5)
    if distance == "mse":
        np.testing.assert_allclose(found.deviation, every.std(axis=0), rtol=1e-4, atol=ROUNDING)
        few = measure_saliency(*pair, batches, place, permutations=4)
        np.testing.assert_allclose(few.deviation, found.deviation)  # known without drawing
        np.testing.assert_allclose(few.standard_error, found.deviation / 2)


def test_inside_each_batch_rows_of_other_batches_are_not_used(pair):
    batches = make_batches(3, 2, 1)
    shares = [3 / 6, 2 / 6, 1 / 6]
    alone = [slow_distances(*pair, batch, "drop", every_permutation(len(batch.target), 6)) for batch in batches]

    found = measure_saliency(*pair, batches, "drop", population="batch")

    wanted = sum(share * part.mean(axis=0) for share, part in zip(shares, alone, strict=True))
    spread = sum((share * part.std(axis=0)) ** 2 for share, part in zip(shares, alone, strict=True)) ** 0.5
    np.testing.assert_allclose(found.raw, wanted, rtol=1e-5)
    np.testing.assert_allclose(found.deviation, spread, rtol=1e-4, atol=ROUNDING)


@pytest.mark.parametrize("method", ["naive", "tail", "batched", "closed"])
def test_inside_each_batch_every_form_draws_alike(method, pair):
    batches = make_batches(5, 5)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.stack([torch.randperm(5, generator=generator) for _ in range(12)]).reshape(2, 6, 5) for _ in "ab"]
    parts = [slow_distances(*pair, batch, "drop", order) for batch, order in zip(batches, orders, strict=True)]

    found = measure_saliency(*pair, batches, "drop", population="batch", permutations=2, method=method)

    np.testing.assert_allclose(found.draws, (parts[0] + parts[1]) / 2, rtol=1e-5)
    given = measure_saliency(*pair, batches, "drop", population="batch", permutations=orders[0], method=method)
    same = [slow_distances(*pair, batch, "drop", orders[0]) for batch in batches]
    np.testing.assert_allclose(given.draws, (same[0] + same[1]) / 2, rtol=1e-5)


def test_how_rows_are_cut_into_batches_does_not_matter_to_one_population(pair, batches):
    for place in ("first", "drop"):
        cut, whole = (measure_saliency(*pair, rows, place, permutations=3) for rows in (batches, [joined(batches)]))

        np.testing.assert_allclose(cut.raw, whole.raw, rtol=1e-5)
        assert cut.baseline == pytest.approx(whole.baseline) and cut.rows == whole.rows == 10


def test_the_students_channels_are_disturbed_when_asked(pair, batches):
    teacher, student = pair

    found = measure_saliency(student, teacher, batches, "inner", side="student", permutations=2)

    np.testing.assert_allclose(found.raw, measure_saliency(*pair, batches, "inner", permutations=2).raw)


@pytest.mark.parametrize("method", ["naive", "batched", "closed"])
@pytest.mark.parametrize("disturb", ["zero", "mean"])
def test_fixed_values_agree_in_every_form(disturb, method, pair, batches):
    teacher, student = pair
    whole, wanted = joined(batches), []
    teacher.eval()
    with torch.no_grad():
        for channel in range(6):

            def fill(features, channel=channel):
                moved = features.clone()
                moved[:, channel] = 0 if disturb == "zero" else features[:, channel].mean(dim=0)
                return moved

            with replacing(teacher, "drop", fill):
                wanted.append((teacher(whole.inputs) - student(whole.inputs)).square().mean().item())

    found = measure_saliency(teacher, student, batches, "drop", disturb=disturb, method=method)

    np.testing.assert_allclose(found.raw, wanted, rtol=1e-5)


@pytest.mark.parametrize("place", ["inner", "drop"])
def test_the_non_target_divergence_is_a_distance(place, pair, batches):
    teacher, student = pair
    whole, permutations, wanted = joined(batches), drawn(10, 6), np.zeros((2, 6))
    teacher.eval()
    with torch.no_grad():
        for draw, channel in np.ndindex(2, 6):

            def shuffle(features, order=permutations[draw, channel], channel=channel):
                moved = features.clone()
                moved[:, channel] = features[order, channel]
                return moved

            with replacing(teacher, place, shuffle):
                wanted[draw, channel] = ncjsd(student(whole.inputs), teacher(whole.inputs), whole.target)

    for method in ("naive", "auto"):
        found = measure_saliency(
            teacher, student, batches, place, distance="ncjsd", permutations=permutations, method=method
        )
        np.testing.assert_allclose(found.draws, wanted, rtol=1e-4)
    assert measure_saliency(teacher, student, batches, place, distance="ncjsd", disturb="zero").exact


def test_feature_maps_are_moved_as_a_whole():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    teacher, student = randomised(wrap(layers, ["sound"])), randomised(wrap(nn.Linear(5, 3), ["image"]), seed=1)
    batches = make_batches(4, 3, shapes=((1, 6, 6), (5,)))

    for place, forms in (("module.0", FORMS[:3]), ("module.1", (*FORMS[:3], "closed"))):
        for distance in ("mse", "l1"):
            wanted = slow_distances(teacher, student, joined(batches), place, drawn(7, 4), distance)
            for method in forms:
                found = measure_saliency(
                    teacher, student, batches, place, distance=distance, permutations=2, method=method
                )
                np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)
    every = slow_distances(teacher, student, batches[0], "module.1", every_permutation(4, 4))
    exact = measure_saliency(teacher, student, batches[:1], "module.1")
    np.testing.assert_allclose(exact.raw, every.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(exact.deviation, every.std(axis=0), rtol=1e-4, atol=ROUNDING)


def test_answers_may_be_maps():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    teacher, student = (
        randomised(wrap(copy.deepcopy(layers), [name]), seed) for seed, name in enumerate(["sound", "image"])
    )
    batches = make_batches(4, 3, shapes=((1, 3, 3), (1, 3, 3)))

    for place, form in (("module.0", "batched"), ("module.1", "closed")):
        for distance in ("mse", "l1"):
            wanted = slow_distances(teacher, student, joined(batches), place, drawn(7, 4), distance)
            found = measure_saliency(teacher, student, batches, place, distance=distance, permutations=2)

            assert found.form == form
            np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)


def test_several_modalities_of_a_teacher_go_together(batches):
    class Both(Residual):
        def forward(self, inputs):
            return super().forward(inputs) * inputs["image"][:, :1]  # the tail needs what is not at the place

    teacher, student = randomised(Both()), randomised(wrap(nn.Linear(5, 3), ["image"]), seed=1)

    for place in ("input:sound", "drop", "last"):
        wanted = slow_distances(teacher, student, joined(batches), place, drawn(10, CHANNELS[place]))
        found = measure_saliency(teacher, student, batches, place, permutations=2)

        assert found.form != "closed"  # linear for each row, but each row has weights of its own
        np.testing.assert_allclose(found.draws, wanted, rtol=1e-5)


def test_where_python_decides_on_values_the_whole_network_runs(batches):
    class Decides(Residual):
        def forward(self, inputs):
            x = self.first(inputs["sound"])
            return self.last(x.relu() if x.mean() > 0.1 else -x)

    teacher, student = randomised(Decides()), randomised(wrap(nn.Linear(5, 3), ["image"]), seed=1)
    batch = joined(batches)

    found = measure_saliency(teacher, student, [batch], "first", permutations=2)

    assert found.form == "naive"
    np.testing.assert_allclose(found.draws, slow_distances(teacher, student, batch, "first", drawn(10, 6)), rtol=1e-5)


def test_a_tail_that_mixes_rows_is_not_run_on_stacked_copies(batches):
    class Mixes(Residual):
        def forward(self, inputs):
            x = self.act(self.first(inputs["sound"]))
            return self.last(x - x.mean(dim=0, keepdim=True))

    teacher, student = randomised(Mixes()), randomised(wrap(nn.Linear(5, 3), ["image"]), seed=1)
    batch = joined(batches)

    found = measure_saliency(teacher, student, [batch], "act", permutations=2)

    assert found.form in ("tail", "naive")
    np.testing.assert_allclose(found.draws, slow_distances(teacher, student, batch, "act", drawn(10, 6)), rtol=1e-5)


# What it leaves behind, and what it says of itself


@pytest.mark.parametrize("method", ["naive", "auto"])
def test_networks_are_as_before_modes_statistics_weights_and_hooks(method, pair, batches):
    teacher, student = pair
    teacher.drop.eval()  # modes may differ from layer to layer
    before = state_of(teacher), state_of(student)

    measure_saliency(teacher, student, batches, "inner", permutations=2, method=method)

    assert unchanged(teacher, before[0]) and unchanged(student, before[1])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in teacher.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())


def test_modes_are_restored_after_an_error(pair, batches):
    teacher, student = pair
    with pytest.raises(InputError):
        measure_saliency(teacher, student, batches, "nowhere")

    assert teacher.training and teacher.norm.training and student.training


def test_channels_that_say_nothing_leave_the_distance_as_it_is(pair, batches):
    """In float64: a product rounds a row by where it stands in the batch, and the batches of the forms differ."""
    teacher, student = (network.double() for network in pair)
    batches = [Batch({name: value.double() for name, value in batch.inputs.items()}, {}) for batch in batches]
    with torch.no_grad():
        teacher.inner.weight[2] = 0.0
        teacher.inner.bias[2] = 1.7  # channel 2 is constant, channel 3 dead
        teacher.inner.weight[3] = 0.0
        teacher.inner.bias[3] = -1.0

    for method in FORMS[:3]:
        found = measure_saliency(teacher, student, batches, "act", permutations=7, method=method)
        assert found.raw[2:4] == pytest.approx(found.baseline, rel=1e-12)
        assert (found.deviation[2:4] < 1e-10).all()  # of distances of about a hundred

    lone = wrap(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), ["sound"]).double()
    with torch.no_grad():
        lone.module[0].weight[:2] = 0.0
        lone.module[0].bias[:2] = torch.tensor([0.3, -1.0])
    closed = measure_saliency(lone, student, batches, "module.1")
    assert closed.form == "closed" and closed.raw[:2] == pytest.approx(closed.baseline, rel=1e-12)
    assert closed.deviation[:2] == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("how", [{}, {"permutations": 3}, {"distance": "l1"}, {"method": "batched"}])
def test_where_all_channels_matter_alike_values_are_zero_and_a_note_says_so(how, batches):
    constant = [Batch({"sound": torch.full((4, 4), 0.1), "image": torch.randn(4, 5)}, {})]
    teacher, student = wrap(nn.Linear(4, 3), ["sound"]), wrap(nn.Linear(5, 3), ["image"])

    found = measure_saliency(teacher, student, constant, "input:sound", **how)

    assert found.value.tolist() == [0.0] * 4 and "every value is 0" in found.note


def test_where_the_exact_mean_is_not_known_ten_permutations_are_drawn_and_a_note_says_so(pair, batches):
    found = measure_saliency(*pair, batches, "inner")

    assert not found.exact and found.draws.shape == (10, 6) and "10 permutations" in found.note
    np.testing.assert_array_equal(found.raw, measure_saliency(*pair, batches, "inner", permutations=10).raw)
    np.testing.assert_allclose(found.standard_error, found.draws.std(axis=0, ddof=1) / 10**0.5)


def test_one_draw_has_no_deviation_unless_it_is_known(pair, batches):
    assert np.isnan(measure_saliency(*pair, batches, "inner", permutations=1).deviation).all()
    assert (measure_saliency(*pair, batches, "drop", permutations=1).deviation > 0).any()


def test_values_run_from_zero_to_one(pair, batches):
    found = measure_saliency(*pair, batches, "inner", permutations=3)

    assert found.value.min() == 0.0 and found.value.max() == 1.0
    np.testing.assert_allclose(found.value, (found.raw - found.raw.min()) / np.ptp(found.raw))


def test_rows_that_do_not_count_do_not(pair, batches):
    whole = joined(batches)
    keep = torch.arange(10) % 3 != 0
    masked = Batch(whole.inputs, whole.targets, {"image": keep})
    few = Batch({name: value[keep] for name, value in whole.inputs.items()}, {})

    for place in ("inner", "drop"):
        found = measure_saliency(*pair, [masked], place, permutations=2)
        np.testing.assert_allclose(found.raw, measure_saliency(*pair, [few], place, permutations=2).raw, rtol=1e-6)
        assert found.rows == 6


def test_networks_in_double_are_measured_in_double(batches):
    teacher, student = (randomised(network).double() for network in (Residual(), wrap(nn.Linear(5, 3), ["image"])))
    wide = [Batch({name: value.double() for name, value in batch.inputs.items()}, {}) for batch in batches]

    found = measure_saliency(teacher, student, wide, "drop", permutations=2)

    assert found.form == "closed"
    slow = measure_saliency(teacher, student, wide, "drop", permutations=2, method="naive")
    np.testing.assert_allclose(found.raw, slow.raw, rtol=1e-12)


# Refusals


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"place": "actt"}, "no layer called 'actt'. Did you mean 'act'"),
        ({"place": "input:sond"}, "no input called 'sond'. Did you mean 'sound'"),
        ({"place": "input:image"}, "do not depend on 'input:image'"),
        ({"side": "both"}, "no side called 'both'"),
        ({"distance": "l2"}, "no distance called 'l2'. Known: l1, mse"),
        ({"disturb": "freeze"}, "no disturb called 'freeze'"),
        ({"population": "rows"}, "no population called 'rows'"),
        ({"method": "fast"}, "no method called 'fast'"),
        ({"method": "closed"}, "not possible at .inner.: expected one of naive, tail, batched"),
        ({"permutations": 0}, "permutations is 0"),
        ({"permutations": "some"}, "permutations is 'some'"),
        ({"permutations": np.zeros((2, 5, 10), dtype=int)}, r"expected whole numbers .*\(…, 6, 10\)"),
        ({"permutations": np.zeros((2, 6, 10), dtype=int)}, "12 of 12 permutations contain a row twice"),
        ({"permutations": np.full((1, 6, 10), 10)}, "outside 0 to 9"),
        ({"batches": []}, "no valid rows"),
    ],
)
def test_wrong_asks_are_refused(how, sentence, pair, batches):
    asked = {"place": "inner", "batches": batches} | how

    with pytest.raises(InputError, match=sentence):
        measure_saliency(*pair, **asked)


def test_several_wrong_names_are_told_together(pair, batches):
    with pytest.raises(InputError) as caught:
        measure_saliency(*pair, batches, "act", side="a", distance="b")

    assert len(caught.value.problems) == 2


def test_unpaired_batches_unlike_answers_and_odd_numbers_are_refused(pair, batches):
    teacher, student = pair
    unpaired = Batch(batches[0].inputs, {"sound": torch.zeros(5), "image": torch.ones(5)})
    with pytest.raises(InputError, match="unpaired"):
        measure_saliency(teacher, student, [unpaired], "act")
    with pytest.raises(InputError, match=r"\(5, 3\) and \(5, 2\)"):
        measure_saliency(teacher, wrap(nn.Linear(5, 2), ["image"]), batches, "act")
    with torch.no_grad():
        student.module.bias[0] = torch.nan
    with pytest.raises(InputError, match="not all finite"):
        measure_saliency(teacher, student, batches, "act")


def test_a_layer_that_runs_twice_is_refused(batches):
    class Twice(Residual):
        def forward(self, inputs):
            return self.last(self.act(self.inner(self.act(self.first(inputs["sound"])))))

    with pytest.raises(InputError, match="'act' runs 2 times"):
        measure_saliency(Twice(), wrap(nn.Linear(5, 3), ["image"]), batches, "act")


def test_maps_of_unlike_size_are_refused():
    network = wrap(nn.Sequential(nn.Conv1d(1, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten()), ["sound"])
    batches = [Batch({"sound": torch.randn(2, 1, length), "image": torch.randn(2, 5)}, {}) for length in (4, 6)]

    with pytest.raises(InputError, match=r"shapes \(2, 4\) and \(2, 6\)"):
        measure_saliency(network, wrap(nn.Linear(5, 2), ["image"]), batches, "module.0")

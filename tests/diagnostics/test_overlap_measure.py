"""α, β and γ of synthetic data with known values, from closed forms alone and from saliencies of trained networks."""

import numpy as np
import pytest
import torch
from known_overlap import half, make_problem, train_jointly
from scipy.stats import spearmanr

from xmodal.diagnostics.overlap import from_features, measure_overlap
from xmodal.diagnostics.saliency import keep_mask, measure_saliency
from xmodal.errors import InputError
from xmodal.models.network import wrap
from xmodal.types import Batch


def saliencies(pair, batch, **how):
    return tuple(
        measure_saliency(*pair, [batch], f"input:{name}", side=side, **how)
        for side, name in (("teacher", "a"), ("student", "b"))
    )


def rank_correlation(pairs):
    true, overlap = zip(*pairs, strict=True)
    return spearmanr(true, overlap).statistic


def trained_problems(count):
    """Problems of 800 rows, each with a pair of networks trained on the first 400."""
    overlap = []
    for classes in (2, 3, 4):
        problems = [make_problem(seed, rows=800, classes=classes) for seed in range(classes - 2, count, 3)]
        overlap += zip(problems, train_jointly([half(problem.batch, 0) for problem in problems]), strict=True)
    return sorted(overlap, key=lambda pair: pair[0].seed)


def gammas(trained):
    """True γ and its estimate from saliencies on held-out rows, for each problem."""
    for problem, pair in trained:
        overlap = measure_overlap([problem.batch], "a", "b", saliency=saliencies(pair, half(problem.batch, 1)))
        yield problem.gamma, overlap.gamma


@pytest.fixture(scope="module")
def trained():
    return trained_problems(20)


@pytest.fixture(scope="module")
def easy():
    """Two thousand rows: 3 shared channels, 2 of the teacher's modality only, 1 of the student's only."""
    return make_problem(3, rows=2000, counts=(2, 1, 3), widths=(8, 9), classes=3)


def test_every_channel_of_an_easy_problem_is_classified_correctly(easy):
    overlap = measure_overlap([easy.batch], "a", "b")

    for side, name in enumerate("ab"):
        assert set(np.flatnonzero(overlap.decisive[side])) == set(easy.decisive[name])
        assert set(np.flatnonzero(overlap.shared[side])) == set(easy.general[name])
    assert (overlap.specific, overlap.general) == ((2, 1), 3.0)
    assert (overlap.alpha, overlap.beta, overlap.gamma) == (2 / 5, 1 / 4, 3 / 6)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((3, 2, 0), (1.0, 1.0, 0.0)), ((0, 0, 4), (0.0, 0.0, 1.0)), ((3, 0, 3), (0.5, 0.0, 0.5))],
)
def test_the_ends_of_the_diagram(counts, expected):
    problem = make_problem(1, rows=3000, counts=counts, widths=(10, 10), classes=2, even=True)

    overlap = measure_overlap([problem.batch], "a", "b", level=1e-4)

    assert (overlap.alpha, overlap.beta, overlap.gamma) == expected


def test_gamma_of_fifty_problems_is_ranked_correctly_without_any_network():
    pairs = []
    for seed in range(50):
        problem = make_problem(seed, rows=400)
        pairs.append((problem.gamma, measure_overlap([problem.batch], "a", "b").gamma))

    assert rank_correlation(pairs) >= 0.9


def test_gamma_is_ranked_correctly_from_saliencies(trained):
    assert rank_correlation(gammas(trained)) >= 0.9


@pytest.mark.slow
def test_gamma_of_fifty_problems_is_ranked_correctly_from_saliencies():
    assert rank_correlation(gammas(trained_problems(50))) >= 0.9


def test_saliency_ranks_general_channels_first(trained):
    precision = []
    for problem, pair in trained:
        for name, overlap in zip("ab", saliencies(pair, half(problem.batch, 0)), strict=True):
            kept = np.flatnonzero(keep_mask(overlap.value, keep=problem.counts[2]))
            precision.append(np.isin(kept, problem.general[name]).mean())

    assert len(precision) == 40 and np.mean(precision) >= 0.93


def test_given_masks_are_used(easy):
    masks = tuple(np.isin(np.arange(width), easy.decisive[name]) for name, width in (("a", 8), ("b", 9)))

    overlap = measure_overlap([easy.batch], "a", "b", decisive=masks)

    assert overlap.gamma == easy.gamma and np.isnan(overlap.importance[0]).all()
    none = measure_overlap([easy.batch], "a", "b", decisive=(np.zeros(8, bool), np.zeros(9, bool)))
    assert np.isnan([none.alpha, none.beta, none.gamma]).all() and none.general == 0


def test_exchanging_the_sides_exchanges_alpha_and_beta(easy):
    forward, exchanged = measure_overlap([easy.batch], "a", "b"), measure_overlap([easy.batch], "b", "a")

    assert (forward.alpha, forward.beta, forward.gamma) == (exchanged.beta, exchanged.alpha, exchanged.gamma)


def test_order_and_scale_of_channels_and_the_batches_do_not_matter(easy):
    a, b, y = (part.numpy() for part in (*easy.batch.inputs.values(), easy.batch.target))
    order = np.random.default_rng(0).permutation(8)

    one = measure_overlap([half(easy.batch, 0), half(easy.batch, 1)], "a", "b")
    other = from_features(100 * a[:, order] + 7, b, y)

    assert (one.decisive[0][order] == other.decisive[0]).all() and one.gamma == other.gamma
    np.testing.assert_allclose(one.importance[0][order], other.importance[0], rtol=1e-4)


def test_regression_targets_work():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 300, 4))
    b[:, 0] = a[:, 1]
    target = a[:, 0] + a[:, 1] + 0.1 * random.normal(size=300)

    overlap = from_features(a, b, target, level=1e-4)

    assert overlap.decisive[0].tolist() == [True, True, False, False]
    assert overlap.decisive[1].tolist() == [True, False, False, False]
    assert overlap.gamma == 0.5


def test_random_labels_rarely_have_decisive_channels():
    finds = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        overlap = from_features(*random.normal(size=(2, 200, 10)), random.integers(0, 3, 200))
        finds.append(overlap.decisive[0].any())

    assert np.mean(finds) < 0.2  # 0.05 expected; 8 of 40 has probability 1/2000


def test_constant_and_double_channels_do_no_harm(easy):
    a, b, y = (part.numpy().copy() for part in (*easy.batch.inputs.values(), easy.batch.target))
    a = np.c_[a, np.ones(len(a)), a[:, :1]]

    overlap = from_features(a, b, y)

    assert not overlap.decisive[0][8] and not overlap.shared[0][8]
    assert np.isfinite(overlap.importance[0]).all()


def test_rows_that_do_not_count_do_not(easy):
    keep = torch.arange(2000) % 2 == 0
    masked = Batch(easy.batch.inputs, easy.batch.targets, {"a": keep})
    few = {name: value[keep] for name, value in easy.batch.inputs.items()}

    one = measure_overlap([masked], "a", "b")
    other = measure_overlap([Batch(few, dict.fromkeys("ab", easy.batch.target[keep]))], "a", "b")

    np.testing.assert_array_equal(one.importance[0], other.importance[0])


def test_saliencies_without_deviations_are_refused(easy):
    pair = wrap(torch.nn.Linear(8, 3), ["a"]), wrap(torch.nn.Linear(9, 3), ["b"])

    for how in ({"distance": "l1"}, {"disturb": "zero"}, {"permutations": 1, "method": "batched"}):
        with pytest.raises(InputError, match="expected 8 channels by 'permute'"):
            measure_overlap([easy.batch], "a", "b", saliency=saliencies(pair, easy.batch, **how))
    swapped = saliencies(pair, easy.batch)[::-1]
    with pytest.raises(InputError, match="has 9 channels"):
        measure_overlap([easy.batch], "a", "b", saliency=swapped)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teacher": np.ones(30)}, r"teacher's features have shape \(30,\)"),
        ({"student": np.ones((29, 2))}, r"student's features have shape \(29, 2\)"),
        ({"teacher": np.full((30, 2), np.nan)}, "not all finite"),
        ({"teacher": np.ones((30, 21))}, "30 rows for 21 channels"),
        ({"target": np.zeros(30, dtype=int)}, "same target"),
        ({"level": 0.0}, "level is 0.0"),
        ({"explained": 1.0}, "explained 1.0"),
        ({"decisive": (np.ones(2, bool), np.ones(3, bool))}, "expected booleans"),
        ({"decisive": (np.ones(2, bool), np.ones(2))}, "expected booleans"),
    ],
)
def test_wrong_input_is_refused(change, sentence):
    random = np.random.default_rng(0)
    given = {name: random.normal(size=(30, 2)) for name in ("teacher", "student")} | {"target": np.arange(30) % 2}

    with pytest.raises(InputError, match=sentence):
        from_features(**(given | change))


def test_no_batches_and_a_wrong_name_are_refused(easy):
    with pytest.raises(InputError, match="no batches"):
        measure_overlap([], "a", "b")
    with pytest.raises(InputError, match="no input called 'c'"):
        measure_overlap([easy.batch], "a", "c")

import math

import pytest
import torch

from xmodal.losses.maps import at, cwd, fsp, ft, hcl, nst
from xmodal.losses.shapes import maps


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


def single(*places):
    """One row with one channel."""
    return torch.tensor([[places]], dtype=torch.float64)


def slow_attention(values, power):
    energy = [sum(abs(v) ** power for v in place) for place in zip(*values.flatten(1).tolist(), strict=True)]
    length = math.sqrt(sum(e * e for e in energy))
    return [e / length for e in energy]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("distance", ["mse", "norm"])
def test_at_equals_a_slow_loop(power, distance):
    student, teacher = pair(3, 2, 2, 3)

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(slow_attention(s, power), slow_attention(t, power), strict=True)]
        total += sum(squares) / 6 if distance == "mse" else math.sqrt(sum(squares))
    assert at(student, teacher, power=power, distance=distance).item() == pytest.approx(total / 3, rel=1e-12)


def test_at_does_not_depend_on_the_magnitude_of_the_features():
    student, teacher = pair(3, 2, 2, 3)

    torch.testing.assert_close(at(9 * student, teacher), at(student, teacher))


def test_an_unknown_distance_lists_the_valid_ones():
    with pytest.raises(ValueError, match="distance is 'l1': expected mse or norm"):
        at(*pair(2, 2, 2), distance="l1")


def test_ft_equals_a_slow_loop():
    student, teacher = pair(3, 2, 2, 3)

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        differences = [abs(a - b) for a, b in zip(slow_attention(s, 2), slow_attention(t, 2), strict=True)]
        total += sum(d**1.5 for d in differences) / 6
    assert ft(student, teacher, power=1.5).item() == pytest.approx(total / 3, rel=1e-12)


def test_nst_equals_a_slow_loop_over_pairs_of_channels():
    student, teacher = pair(2, 3, 4)[0], pair(2, 2, 4)[1]

    def kernel(a, b):
        return (torch.dot(a, b) / a.norm() / b.norm()).item() ** 2

    def mean(left, right):
        return sum(kernel(a, b) for a in left for b in right) / len(left) / len(right)

    total = sum(mean(t, t) + mean(s, s) - 2 * mean(s, t) for s, t in zip(student, teacher, strict=True))
    assert nst(student, teacher).item() == pytest.approx(total / 2, rel=1e-12)


def test_cwd_of_three_to_one_against_even_odds():
    value = cwd(single(0.0, 0.0), single(math.log(3.0), 0.0), temperature=1.0)

    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)


def test_cwd_divides_by_the_temperature_and_multiplies_by_its_square():
    value = cwd(single(0.0, 0.0), single(2 * math.log(3.0), 0.0), temperature=2.0)

    assert value.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), abs=1e-12)


def test_cwd_is_the_mean_over_channels():
    student, teacher = pair(2, 3, 4)

    one_by_one = [cwd(student[:, c : c + 1], teacher[:, c : c + 1]).item() for c in range(3)]
    assert cwd(student, teacher).item() == pytest.approx(sum(one_by_one) / 3)


def test_fsp_equals_a_slow_loop():
    student = [pair(2, 2, 4, seed=1)[0], pair(2, 3, 4, seed=2)[0]]
    teacher = [pair(2, 2, 4, seed=3)[0], pair(2, 3, 4, seed=4)[0]]

    def flow(stages, i, a, b):
        return sum(stages[0][i, a, h].item() * stages[1][i, b, h].item() for h in range(4)) / 4

    total = sum(
        (flow(student, i, a, b) - flow(teacher, i, a, b)) ** 2 for i in range(2) for a in range(2) for b in range(3)
    )
    assert fsp(student, teacher).item() == pytest.approx(total / 12, rel=1e-12)


def test_fsp_adds_up_neighbouring_stages_and_averages_the_larger_one():
    first, second, third = single(1.0, 1.0, 1.0, 1.0), single(4.0, 0.0), single(5.0, 5.0)  # flows 2 and 10

    assert fsp([first, second, third], [0 * first, second, third]).item() == 4.0
    assert fsp([first, second, third], [first, second, 0 * third]).item() == 100.0


@pytest.mark.parametrize(("student", "teacher"), [(1, 1), (2, 3)])
def test_fsp_needs_equal_numbers_of_stages(student, teacher):
    first = single(1.0, 2.0)

    with pytest.raises(ValueError, match=f"fsp got {student} stages .* and {teacher} of the teacher .*two or more"):
        fsp([first] * student, [first] * teacher)


def test_hcl_of_a_small_case():
    student, teacher = single(4.0, 0.0, 0.0, 0.0), single(0.0, 0.0, 0.0, 0.0)

    # full size 16 / 4, two cells (2² + 0) / 2, one cell 1; the level of four cells is as large as the map
    assert hcl(student, teacher).item() == pytest.approx((4 + 2 / 2 + 1 / 4) / (1 + 1 / 2 + 1 / 4))


def test_hcl_without_smaller_levels_is_the_mean_square():
    assert hcl(single(3.0), single(1.0)).item() == 4.0


def test_hcl_of_pictures_averages_squares_of_positions():
    student, teacher = pair(2, 3, 8, 8)
    levels = [8, 4, 2, 1]

    total = sum(
        0.5**k * (student - teacher).unfold(2, 8 // n, 8 // n).unfold(3, 8 // n, 8 // n).mean((4, 5)).square().mean()
        for k, n in enumerate(levels)
    )
    torch.testing.assert_close(hcl(student, teacher), total / 1.875)


@pytest.mark.parametrize("loss", [at, nst, ft, cwd, hcl])
def test_vectors_are_refused_where_maps_are_needed(loss):
    with pytest.raises(ValueError, match=r"\(2, 3\), the teacher's \(2, 3\): expected maps"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3))


def test_pictures_and_sequences_have_no_common_resolution():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\), the teacher's \(2, 3, 4, 4\).*same number of axes"):
        maps(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 6), (2, 3, 4, 6, 2)])
def test_maps_are_averaged_to_the_smaller_length_of_each_axis(shape):
    larger, smaller = torch.ones(shape), torch.ones(*shape[:2], *(length // 2 for length in shape[2:]))

    assert [side.shape for side in maps(larger, smaller)] == [smaller.shape] * 2
    assert [side.shape for side in maps(smaller, larger)] == [smaller.shape] * 2

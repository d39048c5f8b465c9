import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses import angles
from xmodal.losses.relational import cc, pkt, rkd, rkd_angle, rkd_distance, sp


def pair(*shape, seed=0, teacher_width=None):
    generator = torch.Generator().manual_seed(seed)
    other = shape if teacher_width is None else (shape[0], teacher_width)
    return tuple(torch.randn(*size, generator=generator, dtype=torch.float64) for size in (shape, other))


def huber(x, y):
    d = abs(x - y)
    return 0.5 * d * d if d < 1 else d - 0.5


def slow_distance(student, teacher):
    def relative(f):
        d = [[max(math.dist(a, b), 1e-6) if i != j else 0.0 for j, b in enumerate(f)] for i, a in enumerate(f)]
        positive = [x for row in d for x in row if x > 0]
        return [[x / (sum(positive) / len(positive)) for x in row] for row in d]

    s, t, n = relative(student.tolist()), relative(teacher.tolist()), len(student)
    return sum(huber(s[i][j], t[i][j]) for i in range(n) for j in range(n)) / n**2


def slow_angle(student, teacher):
    def unit(f, i, j):
        difference = f[j] - f[i]
        return difference / max(difference.norm().item(), 1e-12)

    n, total = len(student), 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                s = torch.dot(unit(student, i, j), unit(student, i, k)).item()
                t = torch.dot(unit(teacher, i, j), unit(teacher, i, k)).item()
                total += huber(s, t)
    return total / n**3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 6), equal=st.booleans())
def test_rkd_equals_slow_loops_over_pairs_and_triples(seed, rows, equal):
    student, teacher = pair(rows, 3, seed=seed, teacher_width=5)
    if equal and rows > 2:
        student[1] = student[0]

    assert rkd_distance(student, teacher).item() == pytest.approx(slow_distance(student, teacher), rel=1e-9, abs=1e-12)
    assert rkd_angle(student, teacher).item() == pytest.approx(slow_angle(student, teacher), rel=1e-9, abs=1e-12)


def test_distances_of_three_points_on_a_line():
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])

    # distances 1, 3, 2 over their mean 2 against 1, 2, 1 over 4/3: two of three differ by 1/4
    assert rkd_distance(student, teacher).item() == pytest.approx(2 * 2 * 0.5 * 0.25**2 / 9)


def test_angles_of_a_line_against_a_right_angle():
    line, corner = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    half = math.sqrt(0.5)

    # cosines 1, -1, 1 against 0, √½, √½ at the three corners, each counted in both orders
    by_hand = 2 * (huber(1, 0) + huber(-1, half) + huber(1, half)) / 27
    assert rkd_angle(line, corner).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("loss", [rkd, rkd_angle])
def test_angles_of_more_than_256_rows_come_with_a_warning(loss):
    student, teacher = pair(257, 2)

    loss(student[:256], teacher[:256])  # a warning would be an error here
    with pytest.warns(UserWarning, match=r"all triples of 257 rows.*group="):
        loss(student, teacher)


def test_rkd_is_the_weighted_sum_of_its_terms():
    student, teacher = pair(5, 4)
    distance, angle = rkd_distance(student, teacher), rkd_angle(student, teacher)

    torch.testing.assert_close(rkd(student, teacher), 25 * distance + 50 * angle)
    torch.testing.assert_close(rkd(student, teacher, distance_weight=1, angle_weight=0), distance)
    torch.testing.assert_close(rkd(student, teacher, distance_weight=0, angle_weight=1), angle)


@pytest.mark.parametrize("loss", [rkd, rkd_distance, rkd_angle])
def test_translation_rotation_and_scaling_of_all_rows_change_nothing(loss):
    student, teacher = pair(6, 4)
    turn = torch.linalg.qr(pair(4, 4, seed=1)[0]).Q

    torch.testing.assert_close(loss(3 * student @ turn + 100, teacher), loss(student, teacher))


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_the_number_of_anchors_per_group_changes_nothing(block, monkeypatch):
    student, teacher = pair(6, 4)
    student.requires_grad_()
    expected = torch.autograd.grad(rkd_angle(student, teacher), student)

    monkeypatch.setattr(angles, "BLOCK", block)

    torch.testing.assert_close(torch.autograd.grad(rkd_angle(student, teacher), student), expected)


def test_the_gradient_of_the_angle_is_that_of_differences_built_in_full():
    student, teacher = pair(7, 5, teacher_width=3)
    student.requires_grad_()
    teacher.requires_grad_()

    def cosines(f):
        e = torch.nn.functional.normalize(f[None] - f[:, None], dim=2, eps=1e-12)
        return e @ e.transpose(1, 2)

    in_full = torch.nn.functional.smooth_l1_loss(cosines(student), cosines(teacher))
    for ours, theirs in zip(
        torch.autograd.grad(3 * rkd_angle(student, teacher), (student, teacher)),
        torch.autograd.grad(3 * in_full, (student, teacher)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_close_rows_far_from_the_origin_keep_their_angles_in_float32():
    student, teacher = pair(6, 4)
    student, teacher = student.float(), teacher.float()

    # moved by 2¹⁰, exactly representable after rounding to sixteenths
    grid = (16 * student).round() / 16
    torch.testing.assert_close(rkd_angle(grid + 1024, teacher), rkd_angle(grid, teacher))


def test_duplicate_rows_have_a_bounded_gradient():
    student, teacher = pair(6, 8)
    student[1] = student[0]
    student.requires_grad_()

    rkd(student, teacher).backward()

    assert student.grad.abs().max() < 100


def test_pkt_equals_a_slow_loop():
    student, teacher = pair(4, 3, teacher_width=5)

    def neighbours(f):
        cosine = [[torch.dot(a, b).item() / (a.norm().item() + 1e-7) / (b.norm().item() + 1e-7) for b in f] for a in f]
        rows = [[(1 + c) / 2 for c in row] for row in cosine]
        return [[x / sum(row) for x in row] for row in rows]

    p, q = neighbours(teacher), neighbours(student)
    total = sum(p[i][j] * math.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i in range(4) for j in range(4))
    assert pkt(student, teacher, reduction="sum").item() == pytest.approx(total, rel=1e-9)
    assert pkt(student, teacher).item() == pytest.approx(total / 16, rel=1e-9)


def test_pkt_has_two_reductions_only():
    with pytest.raises(ValueError, match="reduction is 'none': expected mean or sum"):
        pkt(*pair(3, 2), reduction="none")


def test_sp_equals_a_slow_loop():
    student, teacher = pair(4, 3, teacher_width=5)

    def similar(f):
        gram = [[torch.dot(a, b).item() for b in f] for a in f]
        return [[g / math.sqrt(sum(x * x for x in row)) for g in row] for row in gram]

    s, t = similar(student), similar(teacher)
    total = sum((s[i][j] - t[i][j]) ** 2 for i in range(4) for j in range(4))
    assert sp(student, teacher).item() == pytest.approx(total / 16, rel=1e-9)


def test_cc_multiplies_errors_of_neighbouring_rows():
    student = torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.0, 0.0]])

    assert cc(student, torch.zeros(3, 2)).item() == pytest.approx(((3 + 1) + (3 + 0)) / 2)


def test_cc_of_the_paper_equals_a_slow_loop():
    student, teacher = pair(4, 3, teacher_width=5)

    def kernel(f):
        unit = [row / row.norm() for row in f]
        return [[math.exp(-0.8) * sum(0.8**p / math.factorial(p) * torch.dot(a, b).item() ** p for p in range(3))
                 for b in unit] for a in unit]  # fmt: skip

    s, t = kernel(student), kernel(teacher)
    total = sum((s[i][j] - t[i][j]) ** 2 for i in range(4) for j in range(4))
    assert cc(student, teacher, form="kernel").item() == pytest.approx(total / 16, rel=1e-9)


def test_the_series_of_the_kernel_approaches_a_gaussian():
    student, teacher = pair(4, 3)

    def gaussian(f):
        unit = torch.nn.functional.normalize(f, dim=1)
        return (-0.4 * torch.cdist(unit, unit).square()).exp()

    expected = (gaussian(student) - gaussian(teacher)).square().mean()
    torch.testing.assert_close(cc(student, teacher, form="kernel", order=20), expected)


def test_an_unknown_form_lists_the_valid_ones():
    with pytest.raises(ValueError, match="form is 'rbf': expected neighbours or kernel"):
        cc(*pair(3, 2), form="rbf")


@pytest.mark.parametrize("loss", [rkd, pkt, sp, cc])
def test_a_single_axis_is_refused(loss):
    with pytest.raises(ValueError, match=r"\(3,\), the teacher's \(3,\): expected \(rows, …\)"):
        loss(torch.zeros(3), torch.zeros(3))

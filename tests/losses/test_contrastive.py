import math

import pytest
import torch

from xmodal.errors import InputError
from xmodal.losses.contrastive import CRD, embed, noise_contrast
from xmodal.method import Method


def build(seed=0, **options):
    torch.manual_seed(seed)
    return CRD((5,), (3, 2), **{"rows": 12, "width": 4, "negatives": 6, **options}).double()


def features(rows=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return student, torch.randn(rows, 3, 2, generator=generator, dtype=torch.float64)


ROWS = torch.tensor([7, 2, 5, 0])
CONTRAST = torch.tensor([[7, 4, 1], [2, 10, 6], [5, 9, 11], [0, 3, 10]])


def slow_loss(crd, student, teacher, contrast):
    v = {"student": embed(crd.embed_student, student), "teacher": embed(crd.embed_teacher, teacher)}
    banks = {"student": crd.memory_teacher, "teacher": crd.memory_student}
    count, k, n = len(contrast), contrast.shape[1] - 1, crd.rows
    total = 0.0
    for side, embedded in v.items():
        r = [
            [math.exp(torch.dot(banks[side][c], embedded[i]).item() / crd.temperature) for c in contrast[i].tolist()]
            for i in range(count)
        ]
        z = n * sum(map(sum, r)) / count / (k + 1)
        for row in r:
            o = [x / z for x in row]
            total -= math.log(o[0] / (o[0] + k / n + crd.eps)) / count
            total -= sum(math.log((k / n) / (x + k / n + crd.eps)) for x in o[1:]) / count
    return total


def test_the_first_batch_equals_a_slow_loop():
    crd, (student, teacher) = build(), features()
    expected = slow_loss(crd, student, teacher, CONTRAST)

    assert crd(student, teacher, rows=ROWS, contrast=CONTRAST).item() == pytest.approx(expected, rel=1e-10)


def test_the_stored_embeddings_move_half_way_and_are_normalised():
    crd, (student, teacher) = build(momentum=0.25), features()
    before, v = crd.memory_student.clone(), embed(crd.embed_student, student)

    crd(student, teacher, rows=ROWS, contrast=CONTRAST)

    for place, row in enumerate(ROWS.tolist()):
        moved = 0.25 * before[row] + 0.75 * v[place]
        torch.testing.assert_close(crd.memory_student[row], (moved / moved.norm()).detach())
    others = [row for row in range(12) if row not in ROWS.tolist()]
    assert torch.equal(crd.memory_student[others], before[others])


def test_the_normaliser_of_the_first_batch_is_kept():
    crd = build()
    assert crd.log_normaliser_student == -math.inf

    crd(*features(), rows=ROWS, contrast=CONTRAST)
    fixed = crd.log_normaliser_student.item(), crd.log_normaliser_teacher.item()
    crd(*features(seed=2), rows=ROWS, contrast=CONTRAST)

    assert all(map(math.isfinite, fixed))
    assert (crd.log_normaliser_student.item(), crd.log_normaliser_teacher.item()) == fixed


def test_nothing_is_stored_in_eval_mode():
    crd = build().eval()
    before = {name: buffer.clone() for name, buffer in crd.named_buffers()}

    values = [crd(*features(), rows=ROWS, contrast=CONTRAST).item() for _ in range(2)]

    assert values[0] == values[1]
    assert all(torch.equal(buffer, before[name]) for name, buffer in crd.named_buffers())


def test_memory_and_normaliser_are_saved_and_restored(tmp_path):
    crd = build()
    crd(*features(), rows=ROWS, contrast=CONTRAST)
    torch.save(crd.state_dict(), tmp_path / "crd.pt")
    other = build(seed=9)

    other.load_state_dict(torch.load(tmp_path / "crd.pt", weights_only=True))

    second = features(seed=2)
    assert torch.equal(other.memory_teacher, crd.memory_teacher)
    assert torch.equal(other(*second, rows=ROWS, contrast=CONTRAST), crd(*second, rows=ROWS, contrast=CONTRAST))


def test_buffers_follow_the_module():
    crd = build().to("meta")

    assert {buffer.device.type for buffer in crd.buffers()} == {"meta"}
    assert len(list(crd.buffers())) == 6


def test_gradients_agree_with_finite_differences_although_the_memory_moves():
    crd, (student, teacher) = build(), features()
    crd.log_normaliser_student.fill_(9.0)  # as after a first batch, so it has no gradient
    crd.log_normaliser_teacher.fill_(9.0)
    before = {name: buffer.clone() for name, buffer in crd.named_buffers()}

    def fresh(s, t):
        for name, buffer in crd.named_buffers():
            buffer.copy_(before[name])
        return crd(s, t, rows=ROWS, contrast=CONTRAST)

    assert torch.autograd.gradcheck(fresh, (student.requires_grad_(), teacher.requires_grad_()))


def test_embeddings_are_trained_as_part_of_a_method():
    class Holds(Method):
        def __init__(self):
            super().__init__()
            self.crd = build()

        def training_step(self, batch, teacher_outputs):
            raise NotImplementedError

        def students(self):
            return {}

    method = Holds()
    method.crd(*features(), rows=ROWS).backward()

    (group,) = method.param_groups()
    assert len(group["params"]) == 4 and all(parameter.grad.any() for parameter in group["params"])


def test_drawn_rows_start_with_the_samples_row_and_depend_on_seed_row_and_step():
    crd, other = build(negatives=500), build(seed=3, negatives=500)

    chosen = crd.draw(ROWS)

    assert torch.equal(chosen[:, 0], ROWS) and chosen.shape == (4, 501)
    assert set(chosen[:, 1:].flatten().tolist()) == set(range(12))
    assert torch.equal(chosen[[2, 0]], crd.draw(ROWS[[2, 0]]))  # in every process
    assert not torch.equal(chosen, other.draw(ROWS))
    crd(*features(), rows=ROWS)
    assert not torch.equal(chosen, crd.draw(ROWS))
    counts = build(negatives=24_000).draw(ROWS)[:, 1:].flatten().bincount()
    assert (counts / 8000 - 1).abs().max() < 0.04  # five standard deviations


def test_a_weight_multiplies_the_values_of_its_sample():
    crd, (student, teacher) = build().eval(), features()
    crd.log_normaliser_student.fill_(9.0)
    crd.log_normaliser_teacher.fill_(9.0)
    pick = [slice(row, row + 1) for row in range(4)]
    singles = [crd(student[index], teacher[index], rows=ROWS[index], contrast=CONTRAST[index]) for index in pick]

    weighted = crd(student, teacher, rows=ROWS, contrast=CONTRAST, weight=torch.tensor([0.0, 1.0, 0.5, 0.0]).double())

    torch.testing.assert_close(weighted, (singles[1] + 0.5 * singles[2]) / 4)


def test_training_brings_both_embeddings_of_a_sample_together():
    crd = build(negatives=8)
    student, teacher = features(rows=12)
    optimiser = torch.optim.SGD(crd.parameters(), lr=0.1)
    rows = torch.arange(12)

    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = crd(student, teacher, rows=rows)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    together = embed(crd.embed_student, student) @ embed(crd.embed_teacher, teacher).T
    assert sum(losses[-5:]) < sum(losses[:5])
    assert together.diagonal().mean() > together.mean() + 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize("temperature", [0.07, 0.005])
def test_extreme_features_keep_value_and_gradient_finite(dtype, size, temperature):
    crd = build(temperature=temperature).float()
    student = torch.full((2, 5), size, dtype=dtype, requires_grad=True)

    value = crd(student, torch.full((2, 6), -size, dtype=dtype), rows=torch.tensor([1, 1]))
    value.backward()

    assert value.dtype == torch.float32 and torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert torch.isfinite(crd.memory_student).all()


def test_the_order_of_the_rows_does_not_matter():
    student, teacher = features()
    order = torch.tensor([2, 0, 3, 1])
    index, other = build(), build()

    first = index(student, teacher, rows=ROWS, contrast=CONTRAST)
    second = other(student[order], teacher[order], rows=ROWS[order], contrast=CONTRAST[order])

    torch.testing.assert_close(first, second)
    torch.testing.assert_close(index.memory_teacher, other.memory_teacher)


def test_noise_contrast_of_even_odds():
    assert noise_contrast(torch.zeros(3, 2), rows=1, eps=0.0).item() == pytest.approx(2 * math.log(2))


def test_noise_contrast_without_others_is_zero_for_a_certain_match():
    assert noise_contrast(torch.full((1, 1), 50.0), rows=4).item() == pytest.approx(0.0, abs=1e-9)


def test_a_row_outside_the_memory_is_refused():
    with pytest.raises(InputError, match="Row numbers range from 0 to 12, and the memory holds 12 rows"):
        build()(*features(), rows=torch.tensor([0, 1, 2, 12]))


def test_different_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\), the teacher's \(4, 3, 2\), and there are 3 row numbers"):
        build()(*features(), rows=ROWS[:3])


# ---- rows of other classes, and embeddings without training


LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1, 0, 0, 2])


def test_exact_draws_rows_of_other_classes_and_all_of_them():
    crd = build(exact=True, labels=LABELS, negatives=2000)

    chosen = crd.draw(ROWS)

    assert chosen.shape == (4, 2001) and torch.equal(chosen[:, 0], ROWS)
    for row, others in zip(ROWS.tolist(), chosen[:, 1:], strict=True):
        expected = (LABELS != LABELS[row]).nonzero().flatten().tolist()
        assert sorted(set(others.tolist())) == expected
        counts = torch.bincount(others, minlength=12)[expected]
        assert counts.min() > 0.7 * 2000 / len(expected)


def test_exact_needs_classes():
    for labels in (None, LABELS[:5], torch.zeros(12, dtype=torch.long)):
        with pytest.raises(InputError, match="needs the class of each of the 12 rows"):
            build(exact=True, labels=labels)


@pytest.mark.parametrize("learned", [True, False])
def test_embeddings_can_stay_at_their_initial_values(learned):
    crd, (student, teacher) = build(learned=learned), features()

    loss = crd(student.requires_grad_(), teacher, rows=ROWS)
    loss.backward()

    assert student.grad.abs().sum() > 0
    assert (crd.embed_student.weight.grad is not None) == learned
    assert [parameter.requires_grad for parameter in crd.parameters()] == [learned] * 4


def test_a_process_without_rows_has_no_loss_and_keeps_the_graph():
    scores = torch.zeros(0, 5, requires_grad=True)

    value = noise_contrast(scores, rows=9)
    value.backward()

    assert value.item() == 0.0 and scores.grad.shape == (0, 5)

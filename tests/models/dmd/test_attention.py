"""Attention: tiles, short and long, and torch's own function agree with weights that are written out."""

import math

import pytest
import torch

from xmodal.models.dmd import attention
from xmodal.models.dmd.attention import attend, by_torch, future_mask, future_of
from xmodal.models.dropout import draw_kept, kept_share

CASES = {  # queries, keys, future, whether keys are padded
    "self": (9, 9, 0, False),
    "self padded": (9, 9, 0, True),
    "longer keys": (5, 12, 7, False),
    "longer queries": (12, 5, 7, True),
    "everything seen": (6, 8, None, True),
    "one query": (1, 40, None, True),
    "several blocks": (70, 50, 20, True),
}


@pytest.fixture(params=["kept", "computed again"])
def weights(request, monkeypatch):
    """Both sides of `LONG`."""
    monkeypatch.setattr(attention, "LONG", 10**9 if request.param == "kept" else 1)
    monkeypatch.setattr(attention, "TILE", 2**9)


def draw(queries, keys, *, padded=False, dtype=torch.float32, sizes=(2, 3, 2, 4)):
    torch.manual_seed(queries + 100 * keys)
    tensors = [torch.randn(*sizes, t, dtype=dtype, requires_grad=True) for t in (queries, keys, keys)]
    padding = torch.arange(keys) >= torch.randint(1, keys + 1, (*sizes[:2], 1)) if padded else None
    return tensors, padding


def written_out(query, key, value, future=None, padding=None):
    scores = torch.einsum("mbhct,mbhcs->mbhts", query, key) / math.sqrt(query.shape[-2])
    if future is not None:
        seen = torch.ones(scores.shape[-2:]).tril(future).bool()
        scores = scores.masked_fill(~seen, -math.inf)
    if padding is not None:
        scores = scores.masked_fill(padding[:, :, None, None, :], -math.inf)
    return torch.einsum("mbhts,mbhcs->mbhct", scores.softmax(-1), value)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_weights_written_out(case, weights):
    queries, keys, future, padded = case
    tensors, padding = draw(queries, keys, padded=padded)

    found = attend(*tensors, future=future, padding=padding)
    wanted = written_out(*tensors, future, padding)

    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    direction = torch.randn(found.shape)
    for mine, theirs in zip(
        torch.autograd.grad(found, tensors, direction), torch.autograd.grad(wanted, tensors, direction), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_function_of_torch_gives_the_same(case):
    queries, keys, future, padded = case
    tensors, padding = draw(queries, keys, padded=padded)

    found = by_torch(*tensors, future=future, padding=padding)

    torch.testing.assert_close(found, attend(*tensors, future=future, padding=padding), rtol=1e-5, atol=1e-6)


def test_the_function_of_torch_takes_one_rate_or_several():
    tensors, padding = draw(6, 6, padded=True)

    same = by_torch(*tensors, future=0, padding=padding, dropout=(0.5, 0.5))
    unlike = by_torch(*tensors, future=0, padding=padding, dropout=(0.0, 0.5))

    plain = attend(*tensors, future=0, padding=padding)
    torch.testing.assert_close(unlike[0], plain[0], rtol=1e-5, atol=1e-6)
    assert same.shape == plain.shape and not torch.allclose(unlike[1], plain[1])


def test_gradients_in_double_precision(weights):
    tensors, padding = draw(4, 5, padded=True, dtype=torch.float64, sizes=(2, 1, 2, 2))

    assert torch.autograd.gradcheck(lambda *x: attend(*x, future=2, padding=padding), tensors)


def test_gradients_with_dropout_in_double_precision(weights):
    tensors, _ = draw(4, 5, dtype=torch.float64, sizes=(2, 1, 2, 2))

    def seeded(*x):
        torch.manual_seed(0)
        return attend(*x, future=2, dropout=(0.3, 0.1))

    assert torch.autograd.gradcheck(seeded, tensors)


def test_dropout_falls_on_weights_with_a_rate_for_each_member(weights):
    (query, key, _), _ = draw(20, 20)
    every_key = torch.eye(20).expand(2, 3, 2, 20, 20)
    plain = attend(query, key, every_key)
    torch.manual_seed(0)

    dropped = attend(query, key, every_key, dropout=(0.0, 0.25))

    torch.testing.assert_close(dropped[0], plain[0])
    kept = dropped[1] != 0
    torch.testing.assert_close(dropped[1][kept], plain[1][kept] / kept_share(0.25))
    assert abs(kept.float().mean().item() - 0.75) < 5 * (0.75 * 0.25 / kept.numel()) ** 0.5


def test_dropout_uses_the_mask_that_its_seed_draws():
    (query, key, value), _ = draw(4, 4)
    torch.manual_seed(7)
    seed = int(torch.randint(2**62, ()))
    torch.manual_seed(7)

    found = attend(query, key, value, dropout=(0.5, 0.5))

    generator = torch.Generator().manual_seed(seed)
    every_key = torch.eye(4).expand(2, 3, 2, 4, 4)
    weights = attend(query, key, every_key).transpose(-1, -2)
    masks = torch.stack([draw_kept((6, 4, 4), 0.5, generator).view(3, 2, 4, 4) for _ in range(2)])
    wanted = torch.einsum("mbhts,mbhcs->mbhct", weights * masks / 0.5, value)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_hidden_keys_have_no_weight_and_no_gradient(weights):
    (query, key, value), _ = draw(6, 6)
    padding = torch.zeros(2, 3, 6, dtype=torch.bool)
    padding[:, :, 4:] = True

    gradients = torch.autograd.grad(attend(query, key, value, padding=padding).sum(), (key, value))

    assert all((gradient[..., 4:] == 0).all() and (gradient[..., :4] != 0).any() for gradient in gradients)


def test_masks_made_in_inference_mode_serve_training_afterwards():
    tensors, _ = draw(11, 11)
    with torch.inference_mode():
        attend(*tensors, future=0)

    attend(*tensors, future=0).sum().backward()

    assert tensors[0].grad is not None


def test_bfloat16_by_autocast_computes_in_float32():
    tensors, _ = draw(8, 8)

    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*(x.bfloat16() for x in tensors), future=0)
    found.float().sum().backward()

    wanted = attend(*(x.bfloat16().float() for x in tensors), future=0)
    torch.testing.assert_close(found.float(), wanted.float(), rtol=1e-2, atol=1e-2)
    assert all(x.grad is not None and x.grad.isfinite().all() for x in tensors)


def test_future_mask_shows_as_many_more_keys_as_the_lengths_differ():
    assert future_mask(3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert future_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert future_of(2, 4) == future_of(4, 2) == 2


def test_memory_of_long_sequences_holds_no_matrix_of_weights(monkeypatch):
    steps = 300
    tensors = [torch.randn(1, 1, 2, 4, steps, requires_grad=True) for _ in range(3)]
    kept = []
    monkeypatch.setattr(attention, "LONG", 1)

    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        attend(*tensors, future=0, dropout=(0.3,))

    assert sum(kept) == 3 * tensors[0].numel() < steps * steps

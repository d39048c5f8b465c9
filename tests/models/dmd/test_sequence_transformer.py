"""Stacked encoders against encoders written one by one, with torch's own attention; and what each of them promises."""

import math

import pytest
import torch
import torch.nn.functional as F

from xmodal.errors import InputError
from xmodal.models.dmd.sequence_transformer import EncoderStack, position_codes

WIDTH, HEADS = 8, 2


def make_stack(members=2, layers=2, *, seed=0, **options):
    torch.manual_seed(seed)
    stack = EncoderStack(map(str, range(members)), WIDTH, heads=HEADS, layers=layers, longest=12, **options)
    with torch.no_grad():  # scales and shifts that are not one and zero
        for parameter in stack.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return stack


def written_out(stack, member, query, source=None, causal=True):
    """One encoder, (batch, time, width), without any trick."""

    def coded(x):
        codes = position_codes(x.shape[1], WIDTH) * (x[..., :1] != 0)
        return math.sqrt(WIDTH) * x + codes

    def norm(x, kind, number=None):
        place = member if number is None else (number, member)
        parts = (getattr(stack, f"{kind}_{part}")[place] for part in ("weight", "bias"))
        return F.layer_norm(x, (WIDTH,), *parts)

    x = coded(query)
    keys = None if source is None else coded(source)
    for number in range(stack.layers):
        place = (number, member)
        normed = norm(x, "attention_norm", number)
        read = normed if keys is None else norm(keys, "attention_norm", number)
        steps, others = x.shape[1], read.shape[1]
        mask = torch.ones(steps, others).triu(abs(steps - others) + 1).bool() if causal else None
        found, _ = F.multi_head_attention_forward(
            normed.transpose(0, 1),
            read.transpose(0, 1),
            read.transpose(0, 1),
            WIDTH,
            HEADS,
            stack.in_weight[place],
            stack.in_bias[place],
            None,
            None,
            False,
            0.0,
            stack.out_weight[place],
            stack.out_bias[place],
            training=False,
            attn_mask=mask,
        )
        x = x + found.transpose(0, 1)
        inner = F.relu(F.linear(norm(x, "feed_norm", number), stack.up_weight[place], stack.up_bias[place]))
        x = x + F.linear(inner, stack.down_weight[place], stack.down_bias[place])
    return norm(x, "norm")


LENGTHS = {  # steps of the queries and of the sources of three members
    "equal": ([7, 7, 7], [7, 7, 7]),
    "two alike": ([7, 4, 7], [5, 9, 5]),
    "all unlike": ([3, 7, 12], [12, 1, 5]),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cross", [True, False], ids=["cross", "self"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_stacked_equals_one_by_one_in_values_and_gradients(lengths, cross, causal):
    # in float64: products of three members at once are rounded otherwise than one by one; position codes are float32
    stack = make_stack(3, causal=causal).double()
    queries, sources = ([torch.randn(2, steps, WIDTH, dtype=torch.float64) for steps in part] for part in lengths)
    queries[0][0, -1] = 0  # padding, which has no position

    found = stack(queries, sources if cross else None)
    wanted = [written_out(stack, m, queries[m], sources[m] if cross else None, causal) for m in range(3)]

    directions = [torch.randn_like(x) for x in found]
    mine, theirs = (torch.autograd.grad(out, list(stack.parameters()), directions) for out in (found, wanted))
    for pair in zip([*found, *mine], [*wanted, *theirs], strict=True):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("steps", [(7, 7), (4, 9)], ids=["equal", "unlike"])
def test_the_last_step_alone_equals_the_last_of_all_steps(steps, causal):
    stack = make_stack(causal=causal)
    queries = [torch.randn(3, count, WIDTH) for count in steps]

    whole, last = stack(queries), stack(queries, last=True)

    gradients = [
        torch.autograd.grad(sum(x.square().sum() for x in out), list(stack.parameters()))
        for out in ([x[:, -1] for x in whole], last)
    ]
    for pair in zip([x[:, -1] for x in whole], last, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)
    for pair in zip(*gradients, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_padding_that_is_hidden_changes_nothing(causal, last):
    stack = make_stack(causal=causal)
    steps = torch.tensor([3, 6])
    queries = [torch.randn(2, 6, WIDTH) for _ in range(2)]
    noisy = [torch.where(torch.arange(6)[:, None] < steps[:, None, None], x, torch.randn(x.shape)) for x in queries]

    found, other = (stack(x, query_steps=[steps] * 2, last=last) for x in (queries, noisy))
    alone = stack([x[:1, :3] for x in queries], last=last)  # the short row by itself

    for mine, theirs, short in zip(found, other, alone, strict=True):
        counted = (mine, theirs) if last else (mine[:, :3], theirs[:, :3])
        torch.testing.assert_close(*counted)
        torch.testing.assert_close(counted[0][:1], short, rtol=1e-5, atol=1e-5)


def test_padding_of_the_other_sequence_is_hidden():
    stack = make_stack()
    queries, sources = ([torch.randn(2, count, WIDTH) for _ in range(2)] for count in (4, 6))
    steps = torch.tensor([2, 6])
    noisy = [x.clone() for x in sources]
    for x in noisy:
        x[0, 2:] = torch.randn(4, WIDTH)

    found, other = (stack(queries, x, source_steps=[steps] * 2) for x in (sources, noisy))

    torch.testing.assert_close(found, other)


def test_later_steps_do_not_reach_earlier_ones():
    stack = make_stack()
    x = torch.randn(1, 6, WIDTH)
    changed = x.clone()
    changed[0, 4:] += 1

    found, other = stack([x, x]), stack([changed, changed])

    torch.testing.assert_close(found[0][:, :4], other[0][:, :4])
    assert not torch.allclose(found[0][:, 4:], other[0][:, 4:])


def test_a_sequence_that_several_members_read_is_coded_once(monkeypatch):
    stack, x = make_stack(3), torch.randn(2, 5, WIDTH)
    calls = []
    coded = stack.coded
    monkeypatch.setattr(stack, "coded", lambda x: calls.append(1) or coded(x))

    stack([x, x, x], [x, x, x])

    assert len(calls) == 1


def test_dropout_acts_in_training_alone_and_follows_the_seed():
    stack = make_stack(attention_dropout=(0.0, 0.5), embed_dropout=0.2, relu_dropout=0.1, residual_dropout=0.1)
    queries, sources = ([torch.randn(2, count, WIDTH) for _ in range(2)] for count in (4, 6))

    seeded = []
    for _ in range(2):
        torch.manual_seed(1)
        seeded.append(stack(queries, sources))
    third = stack(queries, sources)
    stack.eval()
    quiet = [stack(queries, sources) for _ in range(2)]

    torch.testing.assert_close(seeded[0], seeded[1], rtol=0, atol=0)
    assert not torch.allclose(third[0], seeded[0][0])
    torch.testing.assert_close(quiet[0], quiet[1], rtol=0, atol=0)
    torch.testing.assert_close(quiet[0][1], written_out(stack, 1, queries[1], sources[1]), rtol=1e-4, atol=1e-5)


def test_rates_of_attention_belong_to_their_members():
    stack = make_stack(attention_dropout=(0.0, 0.5))
    x = torch.randn(2, 6, WIDTH)

    torch.manual_seed(0)
    trained = stack([x, x])
    quiet = stack.eval()([x, x])

    torch.testing.assert_close(trained[0], quiet[0])
    assert not torch.allclose(trained[1], quiet[1])


def test_keys_and_values_have_masks_of_their_own_behind_the_codes():
    stack = make_stack(1, 1, embed_dropout=0.5)
    x = torch.randn(1, 1, 6, WIDTH)
    layer = {name: getattr(stack, name)[0] for name in ("in_weight", "in_bias")}
    with torch.no_grad():  # keys and values by the same projection
        layer["in_weight"][:, 2 * WIDTH :] = layer["in_weight"][:, WIDTH : 2 * WIDTH]
        layer["in_bias"][:, 2 * WIDTH :] = layer["in_bias"][:, WIDTH : 2 * WIDTH]

    ((key, value),) = stack.keys_and_values([layer], x)
    ((quiet_key, quiet_value),) = stack.eval().keys_and_values([layer], x)

    assert not torch.allclose(key, value)
    torch.testing.assert_close(quiet_key, quiet_value)


def test_matrices_start_between_the_bounds_of_xavier_and_biases_at_zero():
    torch.manual_seed(0)
    stack = EncoderStack(["a", "b"], 20, heads=4, layers=2, longest=3)

    for kind, rows, columns in (("in", 60, 20), ("out", 20, 20), ("up", 80, 20), ("down", 20, 80)):
        matrix, bound = getattr(stack, f"{kind}_weight"), math.sqrt(6 / (rows + columns))
        assert matrix.shape == (2, 2, rows, columns) and not getattr(stack, f"{kind}_bias").any()
        assert matrix.abs().max() <= bound and matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert bool((stack.norm_weight == 1).all()) and not stack.norm_bias.any()


def test_state_holds_weights_alone():
    stack = make_stack()

    assert set(stack.state_dict()) == {name for name, _ in stack.named_parameters()}


@pytest.mark.parametrize(
    ("width", "heads", "said"), [(10, 4, "multiple of the heads"), (2, 1, "expected 4 or more"), (8, 0, "multiple")]
)
def test_widths_that_are_impossible_are_named(width, heads, said):
    with pytest.raises(InputError, match=said):
        EncoderStack(["a"], width, heads=heads, layers=1, longest=3)

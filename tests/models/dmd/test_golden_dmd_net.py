"""DMD's network and its parts against numbers of the published code: outputs, counts and names of weights.

Objective and gradients are compared in tests/methods; the network is built here as the method builds it.
"""

import copy
import json

import pytest
import torch
from dmd_fill import (
    HERE,
    LETTERS,
    TOLERANCE,
    assert_golden,
    det,
    dmd_cases,
    dmd_files,
    filled_state,
    given_state,
    golden_inputs,
    lav,
    load_as_file,
    published_state,
)

from xmodal.errors import InputError
from xmodal.models.dmd.attention import attend, future_mask, future_of
from xmodal.models.dmd.authors_weights import BUFFERS, LAYER, load_published, published_places
from xmodal.models.dmd.net import DMDNet, DMDNumbers, SequenceInput
from xmodal.models.dmd.sequence_transformer import EncoderStack, folded

every = {key: pytest.mark.parametrize(**dmd_cases(key)) for key in ("attention", "encoder_layer", "encoder", "model")}
FILES = dmd_files()
PER_MODALITY = {  # field of the outputs → how the files call it
    "homo": "logits_{}_homo",
    "hetero": "logits_{}_hetero",
    "homo_features": "repr_{}_homo",
    "hetero_features": "repr_{}_hetero",
    "memory": "last_h_{}",
    "projected": "origin_{}",
    "rebuilt": "recon_{}",
    "private_again": "s_{}_r",
    "aligned": "c_{}_sim",
}
COUNTED = {  # name of an architecture → widths, lengths, kernels of l, v, a; width, heads
    "mosi_aligned": ((768, 20, 5), (50, 50, 50), (5, 5, 5), 50, 10),
    "mosi_unaligned": ((768, 20, 5), (50, 500, 375), (5, 5, 5), 50, 10),
    "mosei_aligned": ((768, 35, 74), (50, 50, 50), (5, 3, 1), 30, 6),
    "mosei_unaligned": ((768, 35, 74), (50, 500, 500), (5, 3, 1), 30, 6),
}


def golden_net(case):
    widths, lengths, kernels = (lav(case, key) for key in ("dims_LAV", "lens_LAV", "kernels_LAV"))
    inputs = {name: SequenceInput(widths[name], lengths[name], kernels[name]) for name in LETTERS}
    numbers = DMDNumbers(width=case["d"], heads=case["heads"], layers=case["nlevels"])
    net = DMDNet(inputs, numbers, as_published=True).eval()
    shapes = {name: tensor.shape for name, tensor in published_state(net).items()}
    load_as_file(net, filled_state(shapes, case["param_base_seed"]))
    return net


def named_outputs(net, out):
    """Everything under the names of the files."""
    found = {"logits_c": out.common, "output_logit": out.fused}
    for name, letter in LETTERS.items():
        found |= {key.format(letter): getattr(out, field)[name] for field, key in PER_MODALITY.items()}
        found[f"s_{letter}"] = out.private[name].permute(2, 0, 1)
        found[f"c_{letter}"] = out.shared[name].permute(2, 0, 1)
        found[f"proj_s_{letter}"] = net.cosine_projected(out)[name]
    return found


def check_model(case):
    net, inputs = golden_net(case), golden_inputs(case)
    found = named_outputs(net, net(inputs))
    for name, wanted in case["outputs"].items():
        assert_golden(found[name], wanted, what=name)
    return net


@every["model"]
def test_golden_dmd_every_output_of_the_network(case):
    net = check_model(case)

    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == case.get("n_params", count)


@every["model"]
def test_golden_dmd_outputs_of_the_parts_that_are_deployed(case):
    net, inputs = golden_net(case), golden_inputs(case)

    with torch.no_grad():
        alone = {name: net.alone(name)({name: inputs[name]}) for name in LETTERS}
        fused = net.fused(inputs)

    assert_golden(fused, case["outputs"]["output_logit"])
    for name, letter in LETTERS.items():
        assert_golden(alone[name], case["outputs"][f"logits_{letter}_homo"])


@every["model"]
def test_golden_dmd_names_of_weights_are_those_of_the_file(case):
    names = list(published_places(golden_net(case)))

    if "params" in case:
        assert names == [name for name, *_ in case["params"]]


def test_golden_dmd_a_wrong_number_is_noticed():
    case = copy.deepcopy(next(case for case in FILES[min(FILES)]["model"] if case["batch"] <= 3))
    check_model(case)
    case["outputs"]["output_logit"][0] += 0.001

    with pytest.raises(AssertionError):
        check_model(case)


def multi_head(case):
    """(time, batch, width) → the same, through the function and the layout that the encoders use."""
    state, heads, width = given_state(case["params"]), case["heads"], case["d"]
    tq, tk, batch = case["tq"], case["tk"], case["batch"]
    seeds = ("q_seed", "k_seed", "v_seed") if case["cross"] else ("q_seed",) * 3
    given = [det((t, batch, width), case[seed]) for t, seed in zip((tq, tk, tk), seeds, strict=True)]
    parts = zip(given, state["in_proj_weight"].chunk(3), state["in_proj_bias"].chunk(3), strict=True)
    query, key, value = (
        (x @ w.T + b).permute(1, 2, 0).reshape(1, batch, heads, width // heads, -1) for x, w, b in parts
    )
    future = future_of(tq, tk)
    read = attend(query, key, value, future=future).flatten(2, 3)[0].permute(2, 0, 1)
    every_key = torch.eye(tk).expand(1, batch, heads, tk, tk)
    weights = attend(query, key, every_key, future=future)[0].mean(dim=1).transpose(1, 2)
    return read @ state["out_proj.weight"].T + state["out_proj.bias"], weights


@every["attention"]
def test_golden_dmd_attention(case):
    found, weights = multi_head(case)

    assert_golden(found, case["out"])
    if "attn_mean_heads" in case:
        assert_golden(weights, case["attn_mean_heads"])


def stack_of(case, layers, prefix=""):
    """A stack of one encoder with the weights of a case."""
    stack = EncoderStack(["one"], case["d"], heads=case["heads"], layers=layers, longest=max(case["tq"], case["tk"]))
    state = given_state(case["params"])
    with torch.no_grad():
        for number in range(layers):
            for theirs, ours in LAYER.items():
                getattr(stack, ours)[number, 0] = state[prefix.format(number) + theirs]
        for part in ("weight", "bias"):
            if f"layer_norm.{part}" in state:
                getattr(stack, f"norm_{part}")[0] = state[f"layer_norm.{part}"]
    return stack.eval()


@every["encoder_layer"]
def test_golden_dmd_encoder_layer(case):
    stack = stack_of(case, 1)
    x, k = (det((case[t], case["batch"], case["d"]), case[seed]) for t, seed in (("tq", "x_seed"), ("tk", "k_seed")))
    weights = {name: part[0] for name, part in folded(dict(stack.named_parameters())).items()}

    keys = stack.keys_and_values([weights], k.transpose(0, 1)[None])[0] if case["cross"] else None
    found = stack.layer(weights, x.transpose(0, 1)[None], keys)

    assert_golden(found[0].transpose(0, 1), case["out"])


@every["encoder"]
def test_golden_dmd_encoder(case):
    stack = stack_of(case, case["layers"], "layers.{}.")
    x, k = (det((case[t], case["batch"], case["d"]), case[seed]) for t, seed in (("tq", "x_seed"), ("tk", "k_seed")))
    x[-1, 0], k[0, 1] = 0, 0

    sources = [k.transpose(0, 1)] if case["cross"] else None
    (found,) = stack([x.transpose(0, 1)], sources)
    (last,) = stack([x.transpose(0, 1)], sources, last=True)

    found = found.transpose(0, 1)
    for key in ("out", "out_summary"):
        if case.get(key) is not None:
            assert_golden(found, case[key], what=key)
    torch.testing.assert_close(last, found[-1], **TOLERANCE)


@pytest.mark.parametrize(**dmd_cases("positional"))
def test_golden_dmd_positional_codes(case):
    if "reference_error" in case:
        with pytest.raises(InputError, match="no position codes"):
            EncoderStack(["one"], case["dim"], heads=1, layers=1, longest=2)
        return
    x = torch.ones(1, len(case["first_channel"]), case["dim"])
    x[0, :, 0] = torch.tensor(case["first_channel"])
    stack = EncoderStack(["one"], case["dim"], heads=1, layers=1, longest=x.shape[1])

    codes = stack.coded(x)[0] - case["dim"] ** 0.5 * x[0]

    assert_golden(codes, case["embedding"])


@pytest.mark.parametrize(**dmd_cases("future_mask"))
def test_golden_dmd_future_mask(case):
    queries, keys = case["tq"], case["tk"]
    query, key = torch.zeros(1, 1, 1, 4, queries), torch.zeros(1, 1, 1, 4, keys)

    seen = attend(query, key, torch.eye(keys).expand(1, 1, 1, keys, keys), future=future_of(queries, keys)) > 0

    assert future_mask(queries, keys).int().tolist() == case["visible"]
    assert seen[0, 0, 0].T.int().tolist() == case["visible"]


@pytest.mark.parametrize("file", FILES, ids=[f"golden-dmd-{file}" for file in FILES])
def test_golden_dmd_formula(file):
    checks = FILES[file].get("det_check", {})

    for text, wanted in checks.items():
        shape, seed, *rest = arguments_of(text)
        torch.testing.assert_close(det(shape, seed, **dict(rest)), torch.tensor(wanted), rtol=0, atol=1e-7)


def arguments_of(text):
    """``det([2,2],11,scale=0.5)`` → shape, seed, then pairs of name and number."""
    shape, rest = text.removeprefix("det(").removesuffix(")").split("]", 1)
    seed, *options = rest.lstrip(",").split(",")
    pairs = [option.strip().split("=") for option in options]
    return json.loads(shape + "]"), int(seed), *((name, float(value)) for name, value in pairs)


COUNTS = [
    (f"{file}-{name}", name, wanted) for file in FILES for name, wanted in FILES[file].get("param_counts", {}).items()
]


@pytest.mark.parametrize(
    ("name", "wanted"), [case[1:] for case in COUNTS], ids=[f"golden-dmd-{case[0]}" for case in COUNTS]
)
def test_golden_dmd_counts_of_parameters(name, wanted):
    if name not in COUNTED:  # the text encoder has a test of its own
        assert isinstance(wanted, int)
        return
    widths, lengths, kernels, width, heads = COUNTED[name]
    inputs = {m: SequenceInput(*sizes) for m, *sizes in zip(LETTERS, widths, lengths, kernels, strict=True)}

    with torch.device("meta"):
        net = DMDNet(inputs, DMDNumbers(width=width, heads=heads), as_published=True)
        corrected = DMDNet(inputs, DMDNumbers(width=width, heads=heads))

    unused = sum(parameter.numel() for parameter in net.cosine_projections.parameters())
    assert sum(parameter.numel() for parameter in net.parameters()) == wanted["model_without_text_encoder"]
    assert sum(p.numel() for p in corrected.parameters()) == wanted["model_without_text_encoder"] - unused
    encoders = 12
    assert len(published_places(net)) == wanted["state_dict_entries"] - encoders * len(BUFFERS)


@pytest.mark.parametrize("file", FILES, ids=[f"golden-dmd-{file}" for file in FILES])
def test_golden_dmd_state_dict_of_mosi_with_its_buffers_is_read(file):
    entries = FILES[file].get("state_dict_names_mosi_aligned", [])
    widths, lengths, kernels, width, heads = COUNTED["mosi_aligned"]
    inputs = {m: SequenceInput(*sizes) for m, *sizes in zip(LETTERS, widths, lengths, kernels, strict=True)}
    net = DMDNet(inputs, DMDNumbers(width=width, heads=heads), as_published=True)
    state = {name: torch.full(shape, 0.5) for name, shape in entries}

    if entries:
        assert list(published_places(net)) == [name for name in state if not name.endswith(BUFFERS)]
        load_published(net, state)
        assert all(bool((parameter == 0.5).all()) for parameter in net.parameters())


def test_golden_dmd_folder_named_by_the_environment_is_the_one_that_is_read(tmp_path, monkeypatch):
    golden = json.loads((HERE / "dmd.json").read_text(encoding="utf-8"))
    golden = {"future_mask": golden["future_mask"][:1], "positional": golden["positional"][:1]}
    golden["positional"][0]["embedding"][0][0] += 0.01
    (tmp_path / "dmd_altered.json").write_text(json.dumps(golden), encoding="utf-8")
    monkeypatch.setenv("XMODAL_GOLDEN", str(tmp_path))

    assert list(dmd_files()) == ["dmd_altered"] and dmd_cases("model")["argvalues"] == []
    (case,) = dmd_cases("positional")["argvalues"]
    with pytest.raises(AssertionError):
        test_golden_dmd_positional_codes(case)


def test_golden_dmd_folder_without_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*dmd\*.json in"):
        dmd_files(tmp_path)

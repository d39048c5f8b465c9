"""DMD's network: any number of modalities, parts that deploy alone, padding, and what it refuses."""

import pytest
import torch

from xmodal.errors import InputError
from xmodal.models.dmd.head import build_dmd_head
from xmodal.models.dmd.net import DMDNet, DMDNumbers, SequenceInput, build_dmd, read_by
from xmodal.models.student_file import load_student, save_student
from xmodal.types import DataInfo, InputInfo

SIZES = {  # unlike widths, lengths and kernels
    "touch": SequenceInput(3, 9, 2, attention_dropout=0.2),
    "sound": SequenceInput(5, 12, 3, input_dropout=0.3),
    "sight": SequenceInput(4, 7),
    "smell": SequenceInput(2, 1),
}
NUMBERS = DMDNumbers(width=8, heads=2, layers=2)
DROPPING = DMDNumbers(width=8, heads=2, layers=1, embed_dropout=0.2, output_dropout=0.3, residual_dropout=0.1)


def make_net(modalities=("touch", "sound", "sight"), numbers=NUMBERS, **options):
    torch.manual_seed(0)
    return DMDNet({name: SIZES[name] for name in modalities}, numbers, **options)


def make_inputs(net, rows=4, seed=1):
    torch.manual_seed(seed)
    found = {name: torch.randn(rows, sizes.width, sizes.length) for name, sizes in net.inputs.items()}
    if net.numbers.mask_padding:
        found |= {f"{m}.lengths": torch.randint(1, x.shape[2] + 1, (rows,)) for m, x in found.items()}
    return found


def every_tensor(out):
    parts = [getattr(out, name) for name in out.__slots__ if name != "steps"]
    return [x for part in parts for x in (part.values() if isinstance(part, dict) else [part])]


@pytest.mark.parametrize("numbers", [NUMBERS, DROPPING], ids=["plain", "dropout"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_modalities_runs_and_trains_every_weight(count, numbers):
    net = make_net(list(SIZES)[:count], numbers)

    out = net(make_inputs(net))
    sum(x.square().sum() for x in every_tensor(out)).backward()

    assert out.fused.shape == out.common.shape == (4, 1)
    for name, sizes in net.inputs.items():
        assert out.homo[name].shape == out.hetero[name].shape == (4, 1)
        assert out.homo_features[name].shape == out.aligned[name].shape == (4, 8)
        assert out.memory[name].shape == out.hetero_features[name].shape == (4, 8 * (count - 1))
        for part in (out.projected, out.rebuilt, out.private, out.private_again, out.shared):
            assert part[name].shape == (4, 8, sizes.steps)
    assert all(x.grad is not None and x.grad.isfinite().all() for x in net.parameters())


def test_the_head_of_a_modality_hears_nothing_of_the_others():
    net = make_net().eval()
    inputs, other = make_inputs(net), make_inputs(net, seed=2)

    for name in net.modalities:
        mixed = {key: inputs[key] if key == name else other[key] for key in inputs}
        first, second = net(inputs), net(mixed)

        assert torch.equal(first.homo[name], second.homo[name])
        assert not torch.allclose(first.hetero[name], second.hetero[name])


def test_parts_that_are_deployed_say_what_the_whole_network_says():
    net = make_net().eval()
    inputs = make_inputs(net)

    with torch.no_grad():
        out = net(inputs)

        torch.testing.assert_close(net.fused(inputs), out.fused, rtol=0, atol=1e-6)
        for name in net.modalities:
            torch.testing.assert_close(net.alone(name)({name: inputs[name]}), out.homo[name], rtol=0, atol=1e-6)


def test_a_part_holds_its_own_weights_alone():
    net = make_net()
    trained = {id(x): name for name, x in net.named_parameters()}

    alone = {trained[id(x)].split(".")[0] for x in net.alone("touch").parameters()}
    names = {trained[id(x)] for x in net.alone("touch").parameters()}
    fused = {trained[id(x)].split(".")[0] for x in net.fused.parameters()}

    assert alone == {"fused", "homo_heads"} and fused == {"fused"}
    assert not any("sound" in name or "sight" in name for name in names)


def test_language_alone_on_mosi_has_429151_parameters():
    inputs = {name: SequenceInput(width, 50, 5) for name, width in (("text", 768), ("vision", 20), ("audio", 5))}

    with torch.device("meta"):
        net = DMDNet(inputs, DMDNumbers())
        rebuilt = build_dmd_head(**net.students()["text"].arguments)

    for module in (net.alone("text"), rebuilt):
        assert sum(parameter.numel() for parameter in module.parameters()) == 429_151


def test_the_fused_part_builds_no_decoders_alignments_or_heads_of_training():
    net = make_net()
    rebuilt = build_dmd(**net.students()["fused"].arguments)

    assert rebuilt.state_dict().keys() == net.fused.state_dict().keys()
    assert {name.split(".")[0] for name in rebuilt.state_dict()} == {
        "projections",
        "private",
        "shared",
        "common_encoders",
        "cross_encoders",
        "memory_encoders",
        "gates",
        "common_gate",
        "head",
    }


@pytest.mark.parametrize("mask_padding", [False, True])
def test_students_come_back_from_their_files(tmp_path, mask_padding):
    net = make_net(numbers=DMDNumbers(width=8, heads=2, layers=1, mask_padding=mask_padding)).eval()
    inputs = make_inputs(net)
    known = {name: InputInfo(tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")) for name, x in inputs.items()}
    info = DataInfo(known, "regression", 1, {"train": {}})

    for name, student in net.students().items():
        loaded, description = load_student(save_student(tmp_path / name / "student.safetensors", student, info))

        own = {key: inputs[key] for key in description["needs"]}
        with torch.no_grad():
            torch.testing.assert_close(loaded.module(own), student.module(inputs), rtol=0, atol=0)
    assert set(net.students()) == {"touch", "sound", "sight", "fused"}


def test_a_modality_called_fused_keeps_its_name():
    net = DMDNet({"fused": SIZES["touch"], "sound": SIZES["sound"]}, NUMBERS)

    assert list(net.students()) == ["fused", "sound", "dmd_fused"]


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize(
    "modalities",
    [("touch",), ("touch", "alike"), pytest.param(("touch", "sound", "sight"), marks=pytest.mark.slow)],
    ids=["alone", "equal lengths", "unlike lengths"],
)
def test_parts_are_traced_for_export(modalities, mask_padding):
    sizes = {**SIZES, "alike": SIZES["touch"]}
    numbers = DMDNumbers(width=8, heads=2, layers=1, mask_padding=mask_padding)
    net = DMDNet({name: sizes[name] for name in (*modalities, "alike")}, numbers).eval()
    student, inputs = net.students()["fused" if len(modalities) > 1 else "touch"], make_inputs(net, rows=3)
    given = {name: inputs[name] for name in student.needs}
    dynamic = {name: {0: torch.export.Dim("rows")} for name in given}

    program = torch.export.export(student.module, (given,), dynamic_shapes=(dynamic,))

    more = {name: torch.cat([x, x]) for name, x in given.items()}
    with torch.no_grad():
        torch.testing.assert_close(program.module()(more), student.module(more), rtol=1e-5, atol=1e-5)


def test_evaluation_repeats_itself_and_does_not_depend_on_the_batch():
    net = make_net(numbers=DROPPING).eval()
    inputs = make_inputs(net, rows=6)

    with torch.no_grad():
        whole, again = net(inputs), net(inputs)
        single = [net({name: x[row : row + 1] for name, x in inputs.items()}) for row in range(6)]

    for one, two in zip(every_tensor(whole), every_tensor(again), strict=True):
        assert torch.equal(one, two)
    for field in ("fused", "common"):
        torch.testing.assert_close(
            getattr(whole, field), torch.cat([getattr(out, field) for out in single]), rtol=0, atol=1e-6
        )


def test_padding_is_neither_read_nor_the_last_step_when_it_is_masked():
    net = make_net(numbers=DMDNumbers(width=8, heads=2, layers=2, mask_padding=True)).eval()
    inputs = make_inputs(net)
    noisy = dict(inputs)
    for name in net.modalities:
        behind = torch.arange(inputs[name].shape[2]) >= inputs[f"{name}.lengths"][:, None, None]
        noisy[name] = torch.where(behind, 100 * torch.randn(inputs[name].shape), inputs[name])

    found, other = net(inputs), net(noisy)

    for one, two in zip(every_tensor(found), every_tensor(other), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    steps = (inputs["touch.lengths"] - SIZES["touch"].kernel + 1).clamp(min=1)
    assert torch.equal(found.steps["touch"], steps)
    assert set(net.needs) == {"touch", "touch.lengths", "sound", "sound.lengths", "sight", "sight.lengths"}


def test_full_lengths_make_masking_the_same_as_none():
    plain = make_net().eval()
    masked = make_net(numbers=DMDNumbers(width=8, heads=2, layers=2, mask_padding=True)).eval()
    masked.load_state_dict(plain.state_dict())
    inputs = make_inputs(plain)
    lengths = {f"{name}.lengths": torch.full((4,), sizes.length) for name, sizes in plain.inputs.items()}

    found, wanted = masked(inputs | lengths), plain(inputs)

    for one, two in zip(every_tensor(found), every_tensor(wanted), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_gates_replace_or_scale_what_they_read():
    replacing = make_net().eval()
    scaling = make_net(numbers=DMDNumbers(width=8, heads=2, layers=2, gate="multiply")).eval()
    seen = {}
    for name, net in (("sigmoid", replacing), ("multiply", scaling)):
        net.fused.head.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    inputs = make_inputs(replacing)

    out = replacing(inputs)
    scaling(inputs)

    assert 0 <= seen["sigmoid"].min() and seen["sigmoid"].max() <= 1
    width = out.memory["touch"].shape[1]
    torch.testing.assert_close(seen["multiply"][:, :width], seen["sigmoid"][:, :width] * out.memory["touch"])


def test_input_dropout_falls_on_the_modality_that_is_named():
    net = make_net()
    inputs = make_inputs(net)

    first, second = net(inputs), net(inputs)

    assert not torch.equal(first.projected["sound"], second.projected["sound"])
    assert torch.equal(first.projected["touch"], second.projected["touch"])
    assert torch.equal(first.projected["sight"], second.projected["sight"])


def test_shared_and_private_parts_come_from_one_projection_by_two_encoders():
    net = make_net().eval()

    out = net(make_inputs(net))

    for name in net.modalities:
        torch.testing.assert_close(out.shared[name], net.fused.shared(out.projected[name]))
        both = torch.cat([out.private[name], out.shared[name]], dim=1)
        torch.testing.assert_close(out.rebuilt[name], net.decoders[f"from_{name}"](both))
        torch.testing.assert_close(
            out.private_again[name], net.fused.private[f"from_{name}"](out.rebuilt[name]), rtol=1e-5, atol=1e-6
        )


def test_order_in_which_modalities_are_read():
    assert [read_by(name, "abcd") for name in "abcd"] == [list("dcb"), list("adc"), list("adb"), list("acb")]
    assert make_net(("touch", "sound")).fused.pairs == [("touch", "sound"), ("sound", "touch")]


def test_what_only_the_authors_code_has_is_never_trained():
    net = make_net(as_published=True)
    out = net(make_inputs(net))

    projected = net.cosine_projected(out)

    assert all(projected[name].shape == (4, 8) for name in net.modalities)
    assert not any(x.requires_grad for x in net.cosine_projections.parameters())
    assert make_net().cosine_projected(out) == {}


def test_vectors_are_sequences_of_one_step():
    net = make_net(("touch", "smell")).eval()
    inputs = make_inputs(net)

    found = net(inputs | {"smell": inputs["smell"].squeeze(2)})

    assert torch.equal(found.fused, net(inputs).fused)


@pytest.mark.parametrize("name", ["values", "training", "forward"])
def test_modalities_may_have_names_that_modules_use_themselves(name):
    net = DMDNet({name: SIZES["touch"], "sound": SIZES["sound"]}, NUMBERS)

    assert net(make_inputs(net)).homo[name].shape == (4, 1)


WRONG = {
    "width not divisible": ({}, {"width": 10, "heads": 4}, "the width must be a multiple of the heads"),
    "width too small": ({}, {"width": 2, "heads": 1}, "width is 2: expected 4 or more"),
    "sequence shorter than the kernel": (
        {"sight": SequenceInput(4, 3, 5)},
        {},
        "'sight' has 3 steps and its kernel is 5",
    ),
    "no steps": ({"sight": SequenceInput(4, 0)}, {}, "length of 'sight' is 0: expected a whole number"),
    "rate of one": ({"sight": SequenceInput(4, 5, input_dropout=1.0)}, {}, "input_dropout of 'sight' is 1.0"),
    "rate of the network": ({}, {"embed_dropout": -0.1}, "embed_dropout is -0.1: expected a share"),
    "gate": ({}, {"gate": "multiplied"}, "Did you mean 'multiply'"),
    "dot": ({"sight.left": SequenceInput(4, 5)}, {}, "cannot be called 'sight.left'"),
}


@pytest.mark.parametrize(("inputs", "numbers", "said"), WRONG.values(), ids=WRONG)
def test_sizes_that_are_impossible_are_named_before_anything_is_built(inputs, numbers, said):
    with pytest.raises(InputError, match=said):
        DMDNet({"touch": SIZES["touch"], **inputs}, DMDNumbers(**{"width": 8, "heads": 2, **numbers}))


def test_all_problems_are_said_together():
    with pytest.raises(InputError) as caught:
        DMDNet({"sight": SequenceInput(4, 3, 5)}, DMDNumbers(width=10, heads=4, gate="open"))

    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("shape", [(4, 3, 8), (4, 4, 9), (4, 9, 3), (4, 27)])
def test_input_of_other_sizes_is_named_with_what_was_expected(shape):
    net = make_net()

    with pytest.raises(InputError, match=r"'touch' arrives as .*expected \(batch, 3, 9\)"):
        net(make_inputs(net) | {"touch": torch.zeros(shape)})


def test_missing_lengths_and_unknown_modalities_are_named():
    net = make_net(numbers=DMDNumbers(width=8, heads=2, mask_padding=True))

    with pytest.raises(InputError, match=r"reads 'touch\.lengths'"):
        net({name: x for name, x in make_inputs(net).items() if "." not in name})
    with pytest.raises(InputError, match="Did you mean 'touch'"):
        net.alone("tuch")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"inputs": {"a": {"width": 3, "size": 4}}, "numbers": {}}, "no number 'size' of 'a'"),
        ({"inputs": {"a": {"width": 3}}, "numbers": {}}, "not complete"),
        ({"inputs": {"a": 3}, "numbers": {}}, "expected a dictionary"),
        ({"inputs": [], "numbers": {}}, "inputs must contain the sizes of each modality"),
        ({"inputs": {"a": {"width": 3, "length": 4}}, "numbers": {"withd": 3}}, "Did you mean 'width'"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(arguments, said):
    for build in (build_dmd, build_dmd_head):
        with pytest.raises(InputError, match=said):
            build(**arguments)


def test_a_head_reads_one_modality():
    two = {name: {"width": 3, "length": 4} for name in ("a", "b")}

    with pytest.raises(InputError, match="reads one modality, and 2 were given"):
        build_dmd_head(inputs=two, numbers={})

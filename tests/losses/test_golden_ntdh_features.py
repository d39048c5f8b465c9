"""Losses on features and relations against recorded numbers of the reference code, values and gradients.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names: other cases, sizes and numbers
of the same schema. There is one test per loss, which goes through all cases that the files hold of it.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from xmodal.losses import LOSSES
from xmodal.losses.contrastive import embed, noise_contrast

HERE = Path(__file__).parents[1] / "golden"
DTYPES = {"float64": torch.float64, "float32": torch.float32}
TOLERANCES = {"float64": {"rtol": 1e-6, "atol": 1e-9}, "float32": {"rtol": 2e-4, "atol": 1e-6}}
SECTIONS = ("losses", "extra_losses", "modes")


def read(folder):
    files = sorted(Path(folder).glob("*ntdh*.json"))
    if not files:
        raise FileNotFoundError(f"no *ntdh*.json in {folder}: expected files with the schema of ntdh.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


GOLDEN = read(os.environ.get("XMODAL_GOLDEN") or HERE)
for content in GOLDEN:
    TOLERANCES |= content.get("meta", {}).get("tolerance", {})


def the(name):
    """The loss with a name."""
    return LOSSES[name].load()


def plain_kl(student, teacher, temperature):
    return the("kl")(student, teacher, temperature=temperature) / temperature**2


def hint_bnrelu(student, teacher):
    return the("hint")(student, teacher, batchnorm_relu=True)


def vid(inputs, params):
    teacher, weight = inputs["teacher"], inputs["linear_1x1_weight"]
    options = {"initial_variance": params.get("init_pred_var", 5.0), "eps": params.get("eps", 1e-5)}
    module = the("vid")(inputs["student"].shape[1:], teacher.shape[1:], layers=1, **options).to(teacher.dtype)
    module.mean[0].weight.data = weight.reshape(module.mean[0].weight.shape)
    return module(inputs["student"], teacher)


def feature(loss, **names):
    """A loss of student and teacher; ``names`` maps coefficients to parameters of the file."""
    return lambda inputs, params: loss(
        inputs["student"], inputs["teacher"], **{names[key]: params[key] for key in names if key in params}
    )


def mode(loss, *, weight=1.0, kl_weight=0.0, temperature=1.0):
    """A training mode: a weighted loss plus a weighted KL term without the squared temperature."""

    def total(inputs, params):
        student, teacher = inputs["student"], inputs["teacher"]
        term = kl_weight * plain_kl(student, teacher, temperature) if kl_weight else 0.0
        return weight * loss(student, teacher) + term

    return total


RKD = feature(the("rkd"), w_distance="distance_weight", w_angle="angle_weight")
FUNCTIONS = {
    "fitnet_hint": feature(the("hint")),
    "fitnet_hint_bnrelu": feature(hint_bnrelu),
    "rkd": RKD,
    "rkd_duplicate_rows": RKD,
    "pkt": feature(the("pkt"), eps="eps"),
    "sp": feature(the("sp")),
    "at": feature(the("at"), p="power"),
    "nst": feature(the("nst")),
    "vid": vid,
    "ofd_partial_l2": lambda inputs, params: the("ofd")(inputs["student"], inputs["teacher"], margin=inputs["margin"]),
    "reviewkd_hcl": feature(the("hcl"), levels="levels"),
    "cc": feature(the("cc")),
    "ab": feature(the("ab"), margin="margin"),
    "fsp": lambda inputs, params: the("fsp")(
        [inputs["student"], inputs["student_top"]], [inputs["teacher"], inputs["teacher_top"]]
    ),
    "ft_factor": feature(the("ft"), p1="map_power", p2="power"),
    "cwd": feature(the("cwd"), tau="temperature"),
    "pkd": feature(the("pkd")),
    "gauss/hint": mode(hint_bnrelu),
    "gauss/rkd": mode(the("rkd")),
    "gauss/pkt": mode(the("pkt"), kl_weight=1, temperature=0.7),
    "gauss/similarity": mode(the("sp"), kl_weight=1, temperature=0.7),
    "sklearn/hint": mode(hint_bnrelu, weight=0.1, kl_weight=1),
    "sklearn/rkd": mode(the("rkd"), kl_weight=0.1),
    "sklearn/pkt": mode(the("pkt"), kl_weight=1),
    "sklearn/similarity": mode(the("sp"), kl_weight=1),
    "mnist_ravdess/hint": mode(hint_bnrelu, weight=0.1, kl_weight=1),
    "mnist_ravdess/rkd": mode(the("rkd")),
    "mnist_ravdess/pkt": mode(the("pkt"), kl_weight=1),
    "mnist_ravdess/similarity": mode(the("sp"), kl_weight=1),
}
EDGES = {"pkt_zero_rows": the("pkt"), "sp_zero_rows": the("sp"), "rkd_single_sample": the("rkd")}


every_loss = pytest.mark.parametrize("name", FUNCTIONS, ids=[f"golden-ntdh-{name}" for name in FUNCTIONS])
every_edge = pytest.mark.parametrize("name", EDGES, ids=[f"golden-ntdh-{name}" for name in EDGES])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def cases(golden, name):
    """The recorded cases of a loss in all sections of a file."""
    records = [content.get(section, {}).get(name, []) for content in golden for section in SECTIONS]
    return [case for entry in records for case in (entry if isinstance(entry, list) else [entry])]


def edges(golden, name):
    """The recorded edge cases with a name."""
    records = [case for content in golden for case in content.get("edge", []) if case["name"] == name]
    return [case for case in records if "student" in case["inputs"]]


def tensors(inputs, dtype):
    read = {name: torch.tensor(value, dtype=DTYPES[dtype]) for name, value in inputs.items()}
    read["student"].requires_grad_()
    return read


def agrees(measured, recorded, dtype):
    expected = torch.tensor(recorded, dtype=torch.float64)
    torch.testing.assert_close(measured.detach().double(), expected, **TOLERANCES[dtype])


def check(name, case, dtype):
    inputs = tensors(case["inputs"], dtype)

    value = FUNCTIONS[name](inputs, case.get("params", {}))
    value.backward()

    assert value.ndim == 0 and value.dtype == DTYPES[dtype]
    agrees(value, case["output"], dtype)
    assert torch.isfinite(inputs["student"].grad).all()
    if "grad_student" in case:
        agrees(inputs["student"].grad, case["grad_student"], dtype)


@every_dtype
@every_loss
def test_a_loss_agrees_with_the_recorded_value_and_gradient(name, dtype):
    for case in cases(GOLDEN, name):
        check(name, case, dtype)


def altered(case, *, part, factor=1.01):
    """A copy of a case with one recorded number changed."""
    copy = json.loads(json.dumps(case))
    if part == "output":
        copy["output"] = copy["output"] * factor + 1e-3
    else:
        row = copy["grad_student"]
        while isinstance(row[0], list):
            row = row[0]
        row[0] = row[0] * factor + 1e-3
    return copy


@every_dtype
@pytest.mark.parametrize("part", ["output", "grad_student"])
@every_loss
def test_an_altered_record_is_noticed(name, part, dtype):
    for case in cases(GOLDEN, name):
        if part in case:
            with pytest.raises(AssertionError):
                check(name, altered(case, part=part), dtype)


def test_a_file_without_a_key_has_no_cases():
    assert cases([{}, {"losses": {"kl_batchmean": [{}]}}], "sp") == [] == edges([{}], "rkd_single_sample")


def test_the_visible_file_holds_cases_of_every_loss():
    golden = read(HERE)

    assert all(cases(golden, name) for name in FUNCTIONS) and all(edges(golden, name) for name in EDGES)
    assert any("crd" in content for content in golden)


@every_dtype
@every_edge
def test_an_edge_is_finite_and_as_expected(name, dtype):
    for case in edges(GOLDEN, name):
        inputs = tensors(case["inputs"], dtype)

        value = EDGES[name](inputs["student"], inputs["teacher"])
        value.backward()

        assert torch.isfinite(value) and torch.isfinite(inputs["student"].grad).all()
        if case["expected"] != "finite":
            agrees(value, case["expected"], dtype)


@every_dtype
def test_golden_ntdh_fitnet_bnrelu_single_sample_is_a_clean_error(dtype):
    row = torch.ones(1, 5, dtype=DTYPES[dtype])

    with pytest.raises(ValueError, match="their variance is undefined"):
        hint_bnrelu(row, row)


def crd_of(record, dtype):
    """The module in the recorded state, and its inputs."""
    params, inputs = record["params"], record["inputs"]
    read = {key: torch.tensor(value, dtype=DTYPES[dtype]) for key, value in inputs.items() if "index" not in key}
    module = the("crd")(
        read["student"].shape[1:],
        read["teacher"].shape[1:],
        rows=params["n_data"],
        width=params["feat_dim"],
        negatives=params["K"],
        temperature=params["T"],
        momentum=params["momentum"],
        eps=params.get("eps", 1e-7),
    ).to(DTYPES[dtype])
    module.memory_student.copy_(read["memory_v1"])
    module.memory_teacher.copy_(read["memory_v2"])
    for side in ("student", "teacher"):
        layer = getattr(module, f"embed_{side}")
        layer.weight.data.copy_(read[f"embed_{side}_weight"])
        layer.bias.data.copy_(read[f"embed_{side}_bias"])
    rows = {"rows": torch.tensor(inputs["index"]), "contrast": torch.tensor(inputs["contrast_index"])}
    return module, read, rows


def check_crd(record, dtype):
    module, read, rows = crd_of(record, dtype)
    for call in record["calls"]:
        student, teacher = (read[side].clone().requires_grad_() for side in ("student", "teacher"))
        module.zero_grad()
        banks = {"student": module.memory_teacher.clone(), "teacher": module.memory_student.clone()}

        value = module(student, teacher, **rows)
        value.backward()

        agrees(value, call["output"], dtype)
        parts = (("student", "v1", student), ("teacher", "v2", teacher))
        for side, view, features in parts:
            layer, log_z = getattr(module, f"embed_{side}"), getattr(module, f"log_normaliser_{side}")
            embedded = embed(layer, features)
            scores = (embedded @ banks[side].T).gather(1, rows["contrast"]) / module.temperature - log_z
            agrees(embedded, call[f"embed_{side}"], dtype)
            agrees(log_z.exp(), call[f"Z_{view}"], dtype)
            agrees(scores.exp(), call[f"out_{view}"], dtype)
            agrees(noise_contrast(scores, rows=module.rows, eps=module.eps), call[f"loss_{side}"], dtype)
            agrees(features.grad, call[f"grad_{side}"], dtype)
        agrees(module.embed_student.weight.grad, call["grad_Ws"], dtype)
        agrees(module.embed_teacher.weight.grad, call["grad_Wt"], dtype)
        agrees(module.memory_student, call["memory_v1_after"], dtype)
        agrees(module.memory_teacher, call["memory_v2_after"], dtype)


CRD_RECORDS = [content["crd"] for content in GOLDEN if "crd" in content]


@every_dtype
def test_golden_ntdh_crd_agrees_in_every_call_and_in_its_memory(dtype):
    for record in CRD_RECORDS:
        check_crd(record, dtype)


@pytest.mark.parametrize("key", ["output", "Z_v1", "grad_Wt", "memory_v2_after"])
def test_golden_ntdh_crd_with_an_altered_record_is_noticed(key):
    for record in CRD_RECORDS:
        copy = json.loads(json.dumps(record))
        last = copy["calls"][-1]
        last[key] = (torch.tensor(last[key], dtype=torch.float64) * 1.01).tolist()

        with pytest.raises(AssertionError):
            check_crd(copy, "float64")

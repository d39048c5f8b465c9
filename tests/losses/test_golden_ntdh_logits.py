"""Losses on outputs against the published implementations: values and gradients, in both precisions.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names. A case without an entry in
`RULES` belongs to the tests of features, relations or contrast.
"""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xmodal.losses import LOSSES
from xmodal.losses.decoupled import non_target_kl, target_kl
from xmodal.losses.mask import prediction_similarity, pssm

HERE = Path(__file__).parents[1] / "golden"
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def kl_options(params, **defaults):
    scale = "t2" if params.get("t_squared", defaults.get("t_squared", False)) else "none"
    published = params.get("reduction", defaults.get("reduction", "batchmean"))
    reduction = "mean" if str(published).startswith("mean") else "batchmean"
    return {"temperature": params.get("T", defaults.get("T", 1.0)), "scale": scale, "reduction": reduction}


def dkd_options(params):
    return {"alpha": params.get("alpha", 1.0), "beta": params.get("beta", 1.0), "temperature": params.get("T", 1.0)}


def mask_options(params):
    return {"threshold": params.get("cos_threshold", 0.996), "detach": params.get("omega_detached", False)}


def form(form):
    return lambda params: {"form": form, "temperature": params.get("temperature", 1.0)}


def softened(params):
    return {"temperature": params.get("T", params.get("tau", 4.0))}


def fixed(**options):
    return lambda params: options


RULES = {  # (key, name of the case) → (name in LOSSES, its arguments from the case's params)
    ("losses", "kl_batchmean"): ("kl", kl_options),
    ("losses", "kl_elementmean"): ("kl", lambda p: kl_options(p, reduction="mean")),
    ("losses", "kd_T2"): ("kl", lambda p: kl_options(p, t_squared=True, T=4.0)),
    ("losses", "mse"): ("mse", fixed()),
    ("losses", "dkd"): ("dkd", dkd_options),
    ("losses", "dkd_weighted"): ("dkd", dkd_options),
    ("losses", "dkd_two_classes"): ("dkd", dkd_options),
    ("losses", "ncjsd_reference"): ("ncjsd", form("reference")),
    ("losses", "ncjsd_textbook"): ("ncjsd", form("js")),
    ("losses", "tcjsd_reference"): ("tcjsd", form("reference")),
    ("losses", "tcjsd_textbook"): ("tcjsd", form("js")),
    ("losses", "kl_pssm"): ("kl_pssm", lambda p: {"temperature": p.get("T", 1.0), **mask_options(p)}),
    ("modes", "gauss/kl"): ("kl", fixed(temperature=0.7, scale="none")),
    ("modes", "gauss/kl_PSSM"): ("kl_pssm", fixed(temperature=0.7, detach=False)),
    ("modes", "gauss/dkd"): ("dkd", fixed(alpha=1.0, beta=1.0, temperature=0.7)),
    ("modes", "gauss/dkd_PSSM"): ("dkd_pssm", fixed(alpha=1.0, beta=1.0, temperature=0.7, detach=False)),
    ("modes", "sklearn/kl"): ("kl", fixed(temperature=1.0, scale="none")),
    ("modes", "sklearn/kl_PSSM"): ("kl_pssm", fixed(temperature=1.0, detach=False)),
    ("modes", "sklearn/dkd"): ("dkd", fixed(alpha=16.0, beta=1.0, temperature=0.7)),
    ("modes", "sklearn/dkd_PSSM"): ("dkd_pssm", fixed(alpha=16.0, beta=1.0, temperature=0.7, detach=False)),
    ("modes", "mnist_ravdess/kl"): ("kl", fixed(temperature=1.0, scale="none")),
    ("modes", "mnist_ravdess/dkd"): ("dkd", fixed(alpha=0.5, beta=0.5, temperature=1.0)),
    ("extra_losses", "dist"): (
        "dist",
        lambda p: {
            "beta": p.get("inter", 1.0),
            "gamma": p.get("intra", 1.0),
            "temperature": p.get("tau", 1.0),
            "eps": p.get("eps", 1e-8),
        },
    ),
    ("extra_losses", "wsld"): ("wsld", lambda p: {"temperature": p.get("tau", 2.0)}),
    ("extra_losses", "logit_std_kd"): ("standardised_kl", softened),
    ("extra_losses", "mlkd_class_correlation"): ("mlkd_class_correlation", softened),
    ("extra_losses", "mlkd_batch_correlation"): ("mlkd_batch_correlation", softened),
    ("distances", "cmd"): ("cmd", lambda p: {"moments": p.get("n_moments", 5)}),
    ("distances", "cmd_softmax"): ("cmd_softmax", lambda p: {"moments": p.get("n_moments", 5)}),
    ("distances", "kl_distance"): (
        "kl_distance",
        lambda p: {"upper": p.get("upper_bound", 1.0), "lower": p.get("lower_bound", 0.0), "reduction": "none"},
    ),
    ("distances", "emd"): ("emd", lambda p: {"squash": True, "floor": p.get("floor", 0.02), "reduction": "none"}),
    ("distances", "simse"): ("simse", fixed()),
    ("distances", "diff_loss"): ("diff_loss", lambda p: {"eps": p.get("eps", 1e-6), "detach_norms": True}),
    ("edge", "dkd_saturated"): ("dkd", fixed(alpha=1.0, beta=1.0, temperature=1.0)),
    ("edge", "tcjsd_reference_saturated"): ("tcjsd", form("reference")),
    ("edge", "cmd_identical_inputs"): ("cmd", fixed()),
}
MEASURES = {  # further numbers of a case → function of student, teacher, target and params
    "tckd": lambda s, t, y, p: target_kl(s, t, y, temperature=p.get("T", 1.0)).mean(),
    "nckd": lambda s, t, y, p: non_target_kl(s, t, y, temperature=p.get("T", 1.0)).mean(),
    "tcjsd": lambda s, t, y, p: LOSSES["tcjsd"].load()(s, t, y, **form("reference")(p)),
    "ncjsd": lambda s, t, y, p: LOSSES["ncjsd"].load()(s, t, y, **form("reference")(p)),
    "raw_wasserstein": lambda s, t, y, p: LOSSES["emd"].load()(s, t, reduction="none"),
    "omega": lambda s, t, y, p: pssm(s, t, y, threshold=p.get("cos_threshold", 0.996)),
    "teacher_wrong": lambda s, t, y, p: (t.argmax(dim=1) != y).to(s.dtype),
    "cosine": lambda s, t, y, p: prediction_similarity(s, t),
}
NUMBERS_ONLY = {("distances", "jsd_reference"), ("mask", "pssm")}  # cases with measures and without loss


def as_list(value):
    return value if isinstance(value, list) else [value]


def read(folder):
    files = sorted(Path(folder).glob("*ntdh*.json"))
    if not files:
        raise FileNotFoundError(f"no *ntdh*.json in {folder}: expected files with the schema of ntdh.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def cases_of(golden):
    tolerance = golden.get("meta", {}).get("tolerance", {})
    for key in ("losses", "modes", "extra_losses", "distances", "mask"):
        for name, entries in golden.get(key, {}).items():
            yield from ((key, name, case, tolerance) for case in as_list(entries))
    yield from (("edge", case["name"], case, tolerance) for case in golden.get("edge", []))


def cases_with_rule(golden):
    return [case for case in cases_of(golden) if case[:2] in RULES or case[:2] in NUMBERS_ONLY]


CASES = [case for golden in read(os.environ.get("XMODAL_GOLDEN", HERE)) for case in cases_with_rule(golden)]
KINDS = sorted(RULES.keys() | NUMBERS_ONLY)  # one test for each, which goes through all of its cases
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[f"golden-ntdh-{key}-{name}" for key, name in KINDS])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def numbers(value):
    return [numbers(part) for part in value] if isinstance(value, list) else float(value)


def tensors(case, dtype):
    given = {
        name: torch.tensor(numbers(value), dtype=DTYPES[dtype])
        for name, value in case["inputs"].items()
        if not isinstance(value, str)
    }
    target = given.pop("target", None)
    weight = given.get("omega")
    return given["student"], given["teacher"], None if target is None else target.long(), weight


def value_and_gradient(key, name, case, dtype):
    loss, options = RULES[key, name]
    student, teacher, target, weight = tensors(case, dtype)
    arguments = {"target": target} if "labels" in LOSSES[loss].needs else {}
    arguments |= {} if weight is None else {"weight": weight}
    student.requires_grad_()
    value = LOSSES[loss].load()(student, teacher, **arguments, **options(case.get("params", {})))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value.detach(), gradient


def check(case, dtype):
    """Compare all numbers of a case; returns their names."""
    key, name, content, tolerances = case
    limits = {"rtol": 1e-6, "atol": 1e-9} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-5}
    # the larger one: where rows hardly vary, a correlation in float32 is one of what rounding has left of them
    limits = {limit: max(size, tolerances.get(dtype, {}).get(limit, 0.0)) for limit, size in limits.items()}
    reference, values = expected(content), {}
    if (key, name) in RULES:
        values["output"], values["grad_student"] = value_and_gradient(key, name, content, dtype)
        assert torch.isfinite(values["output"]).all() and torch.isfinite(values["grad_student"]).all()
    for measure in reference.keys() & MEASURES.keys():
        values[measure] = MEASURES[measure](*tensors(content, dtype)[:3], content.get("params", {}))
    for part, value in reference.items():
        torch.testing.assert_close(
            values[part].double(), torch.tensor(numbers(value), dtype=torch.float64), equal_nan=True, **limits
        )
    return sorted(reference)


def expected(content):
    parts = {part: content[part] for part in ("output", "grad_student", *MEASURES) if part in content}
    parts |= content.get("components", {})
    if "expected" in content and content["expected"] != "finite":
        parts["output"] = content["expected"]
    return parts


def of_kind(kind):
    return [case for case in CASES if case[:2] == kind]


@every_dtype
@every_kind
def test_golden_ntdh_values_and_gradients(kind, dtype):
    for case in of_kind(kind):
        assert check(case, dtype) or case[2].get("expected") == "finite"


def slightly_wrong(value):
    if isinstance(value, list):
        return [slightly_wrong(value[0]), *value[1:]]
    return numbers(value) + 0.01 * max(1.0, abs(numbers(value)))


@every_kind
def test_golden_ntdh_numbers_that_are_wrong_by_one_percent_fail(kind):
    for key, name, content, tolerance in of_kind(kind):
        assert_altered_numbers_fail(key, name, content, tolerance)


def assert_altered_numbers_fail(key, name, content, tolerance):
    for part in expected(content):
        altered = copy.deepcopy(content)
        holder = altered["components"] if part in altered.get("components", {}) else altered
        place = "expected" if key == "edge" and part == "output" else part
        holder[place] = slightly_wrong(holder[place])

        with pytest.raises(AssertionError):
            check((key, name, altered, tolerance), "float64")


def test_golden_ntdh_folder_named_by_the_environment_is_the_one_that_is_read(tmp_path):
    golden = json.loads((HERE / "ntdh.json").read_text(encoding="utf-8"))
    golden = {"losses": {"mse": golden["losses"]["mse"], "dkd": golden["losses"]["dkd"]}}
    golden["losses"]["dkd"][-1]["grad_student"][0][0] += 0.01
    (tmp_path / "ntdh_altered.json").write_text(json.dumps(golden), encoding="utf-8")
    test = f"{__file__}::test_golden_ntdh_values_and_gradients"

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", test],
        env={**os.environ, "XMODAL_GOLDEN": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert done.returncode == 1 and len(failed) == 2 and all("golden-ntdh-losses-dkd-" in line for line in failed)


def test_golden_ntdh_folder_without_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*ntdh\*.json in"):
        read(tmp_path)


def test_golden_ntdh_visible_file_holds_a_case_for_every_rule():
    (golden,) = read(HERE)

    assert {case[:2] for case in cases_with_rule(golden)} == RULES.keys() | NUMBERS_ONLY
    assert all(math.isfinite(case[3]["float32"]["rtol"]) for case in cases_with_rule(golden))

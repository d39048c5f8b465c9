"""The networks of RAVDESS, the removal of channels and Algorithm 1 on them, against the published implementation.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import re

import numpy as np
import pytest
import torch
from hash_fill import formula_permutations, golden_files, hash_tensor, hash_weights

from xmodal.data.base import Data
from xmodal.data.split import Split
from xmodal.diagnostics.saliency import keep_mask, measure_saliency
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.methods.joint import Joint
from xmodal.methods.mfh import MFH, Channels
from xmodal.methods.options import DistillationOptions
from xmodal.models.clips.audio_video import build_ravdess, ravdess_layer
from xmodal.models.feature_layers import replacing
from xmodal.models.masking import masked
from xmodal.models.network import evaluating
from xmodal.types import Batch, DataInfo, InputInfo

FILES = {name: file for name, file in golden_files().items() if "ravdess" in file}
NETWORKS = {"ImageNet": "image", "AudioNet": "audio"}
KEYS = (
    "param_count",
    "ImageNet",
    "freeze",
    "permute",
    "alg1_place5",
    "alg1_place4",
    "removal",
    "joint_training",
)
having = {
    key: pytest.mark.parametrize("name", [name for name, file in FILES.items() if key in file["ravdess"]])
    for key in KEYS
}
DISTILLED = [(name, n) for name, file in FILES.items() for n in range(len(file["ravdess"].get("distill", [])))]
networks = pytest.mark.parametrize("network", NETWORKS)
CACHE = {}


def inputs_of(file, rows=None):
    """Both modalities of a file, the first rows of them."""
    offset, known = file.get("key_offset", 0), file["ravdess"]["input"]
    made = {name: hash_tensor(known[f"{name}_key"], known[f"{name}_shape"], offset) for name in ("audio", "image")}
    return {name: tensor[:rows] for name, tensor in made.items()}


def network_of(file, network):
    """A filled network; filling 13 million parameters takes a second, so they are kept."""
    modality, offset = NETWORKS[network], file.get("key_offset", 0)
    if (network, offset) not in CACHE:
        shape = file["ravdess"]["input"][f"{modality}_shape"][1:]
        classes = file["ravdess"]["param_shapes"][network][-1][0]
        module = build_ravdess(modality, shape=shape, classes=classes).module
        CACHE[network, offset] = hash_weights(module, offset).eval()
    return CACHE[network, offset]


def fresh(file, network, gain):
    """A filled student that may be trained."""
    modality, known = NETWORKS[network], file["ravdess"]
    classes = known["param_shapes"][network][-1][0]
    student = build_ravdess(modality, shape=known["input"][f"{modality}_shape"][1:], classes=classes)
    hash_weights(student.module, file.get("key_offset", 0), gain)
    return student


def data_of(file, train, held):
    """Samples of two ranges with their labels: one trains, the other chooses the epoch and is the test."""
    inputs = {name: tensor.numpy() for name, tensor in inputs_of(file).items()}
    count = len(inputs["audio"])
    label = dict.fromkeys(inputs, np.array([(3 * row + 1) % 8 for row in range(count)]))
    splits = [Split(inputs, label, dict.fromkeys(inputs, np.arange(rows.start, rows.stop))) for rows in (train, held)]
    known = {name: InputInfo(tuple(array.shape[1:]), layout="image") for name, array in inputs.items()}
    rows = {name: split.rows for name, split in zip(("train", "valid", "test"), (*splits, splits[1]), strict=True)}
    info = DataInfo(known, "multiclass", 8, rows, select=("accuracy", "max"))
    return Data(splits[0], splits[1], splits[1], info)


def descend(method, data, case):
    """As many epochs as a case has steps, each one batch of descent with momentum."""
    settings = FitSettings(
        epochs=case["steps"],
        batch_size=case["N"],
        optimizer="sgd",
        learning_rate=case["lr"],
        momentum=case["momentum"],
        keep="last",
    )
    return fit(method, data, settings)


def seen_at(module, layer, inputs):
    """The features of a layer, and the outputs."""
    seen = []

    def remember(found):
        seen.append(found)
        return found

    with evaluating(module), replacing(module, layer, remember):
        return module(inputs), seen[0]


def close(found, wanted, rel=1e-4):
    """Equal to a tolerance relative to the largest number."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(np.asarray(found).ravel(), wanted.ravel(), rtol=rel, atol=rel * np.abs(wanted).max())


def removed_logits(file, network, number, index, fill):
    module, modality = network_of(file, network), NETWORKS[network]
    keep = torch.ones(file["ravdess"]["param_shapes"][network][{4: 7, 5: 9}[number]][0], dtype=torch.bool)
    keep[torch.tensor(index)] = False
    with evaluating(module), masked(module, ravdess_layer(number, modality), keep, fill=fill):
        return module(inputs_of(file))


def saliency(file, number, **how):
    case = file["ravdess"][f"alg1_place{number}"]
    teacher, student = network_of(file, "AudioNet"), network_of(file, "ImageNet")
    batch = Batch(inputs_of(file, case["N"]), {})
    return measure_saliency(teacher, student, [batch], ravdess_layer(number, "audio"), **how)


def permutations_of(file, number):
    case = file["ravdess"][f"alg1_place{number}"]
    return formula_permutations(case["M"], len(case["raw"][0]), case["N"], file.get("perm_shift", 0))


@networks
@having["param_count"]
def test_golden_mfh_ravdess_parameters(name, network):
    known = FILES[name]["ravdess"]

    shapes = [list(parameter.shape) for parameter in network_of(FILES[name], network).parameters()]

    assert shapes == known["param_shapes"][network]
    assert sum(int(np.prod(shape)) for shape in shapes) == known["param_count"][network]


@networks
@having["ImageNet"]
def test_golden_mfh_ravdess_forward(name, network):
    file, case = FILES[name], FILES[name]["ravdess"][network]
    for number in (4, 5):
        answers, features = seen_at(
            network_of(file, network), ravdess_layer(number, NETWORKS[network]), inputs_of(file)
        )

        close(answers, case["logits"])
        assert float(features.double().sum()) == pytest.approx(case[f"place{number}_sum"], rel=1e-4)
        active = float((features > 0).double().mean())
        assert active == pytest.approx(case[f"place{number}_active_fraction"], abs=1e-3)  # a kink may round either way
        if number == 4:
            close(features[0, :16], case["place4_row0_first16"])
        elif case.get("place5") is not None:
            close(features, case["place5"])


@having["freeze"]
def test_golden_mfh_ravdess_freeze(name):
    file, case = FILES[name], FILES[name]["ravdess"]["freeze"]
    step, start, channels, last = map(int, re.findall(r"\d+", case["idx4_rule"].replace("t=0", "")))
    idx4 = [(step * t + start) % channels for t in range(last + 1)]

    for key, wanted in case.items():
        if key.endswith("_logits"):
            network, place, fill, _ = key.split("_")
            index = case["idx5"] if place == "place5" else idx4
            fills = {"batchmean": "batch_mean", "zero": "zero"}
            close(removed_logits(file, network, int(place[-1]), index, fills[fill]), wanted)


@having["permute"]
def test_golden_mfh_ravdess_permute(name):
    file, case = FILES[name], FILES[name]["ravdess"]["permute"]
    module = network_of(file, "AudioNet")

    def shuffle(features):
        moved = features.clone()
        moved[:, case["channel"]] = features[case["perm"], case["channel"]]
        return moved

    with evaluating(module), replacing(module, ravdess_layer(case["place"], "audio"), shuffle):
        close(module(inputs_of(file)), case["AudioNet_logits"])


@pytest.mark.parametrize("method", ["tail", "batched", "rank_one", "closed"])
@having["alg1_place5"]
def test_golden_mfh_ravdess_alg1_place5(name, method):
    file, case = FILES[name], FILES[name]["ravdess"]["alg1_place5"]

    found = saliency(file, 5, method=method, permutations=permutations_of(file, 5))

    assert found.draws == pytest.approx(np.array(case["raw"]), rel=1e-5)
    assert found.value == pytest.approx(np.array(case["normalised"]), abs=1e-3)  # a range of 0.1 around 14


@having["alg1_place5"]
def test_golden_mfh_ravdess_alg1_place5_exact(name):
    file, case = FILES[name], FILES[name]["ravdess"]["alg1_place5"]

    found = saliency(file, 5)

    assert found.form == "closed" and found.exact
    assert found.raw == pytest.approx(np.array(case["exact"]), rel=1e-5)


@pytest.mark.parametrize("method", ["batched", "auto"])
@having["alg1_place4"]
def test_golden_mfh_ravdess_alg1_place4(name, method):
    file, case = FILES[name], FILES[name]["ravdess"]["alg1_place4"]

    found = saliency(file, 4, method=method, permutations=permutations_of(file, 4))

    assert found.form == {"auto": "rank_one"}.get(method, method)
    assert found.draws == pytest.approx(np.array(case["raw"]), rel=1e-5)
    assert found.value == pytest.approx(np.array(case["normalised"]), abs=1e-3)


@having["removal"]
def test_golden_mfh_ravdess_removal(name):
    case = FILES[name]["ravdess"]["removal"]
    values = FILES[name]["ravdess"]["alg1_place5"]["normalised"]

    for mode, order in (("mode1", "most"), ("mode2", "least")):
        kept = keep_mask(values, ratio=case["ratio"], order=order)

        assert np.flatnonzero(~kept).tolist() == sorted(case[mode])


@having["joint_training"]
def test_golden_mfh_ravdess_joint_training(name):
    file, case = FILES[name], FILES[name]["ravdess"]["joint_training"]
    data = data_of(file, range(case["N"]), range(8, 16))
    method = Joint(fresh(file, "AudioNet", case["gain"]), fresh(file, "ImageNet", case["gain"]), data.info)

    run = descend(method, data, case)

    terms = [epoch["losses"] for epoch in run.history]
    found = [[term["student task"], term["teacher task"], term["agreement"]] for term in terms]
    np.testing.assert_allclose(found, case["printed_losses_student_teacher_dist"], rtol=1e-3, atol=1e-4)  # 4 digits
    batch = inputs_of(file, case["N"])
    with torch.no_grad():
        for side, student in run.students.items():
            close(student.module(batch), case[f"{side}_logits"], rel=1e-3)


@pytest.mark.parametrize(("name", "number"), DISTILLED)
def test_golden_mfh_ravdess_distill(name, number):
    file, known = FILES[name], FILES[name]["ravdess"]
    case = known["distill"][number]
    data = data_of(file, range(case["N"]), range(8, 16))
    channels = None
    if case["change"] is not None:
        keep = torch.ones(known["param_shapes"]["AudioNet"][9][0], dtype=torch.bool)
        keep[torch.tensor(known["freeze"]["idx5"])] = False
        channels = Channels(ravdess_layer(case["change"][1], "audio"), keep, "batch_mean")
    method = MFH(
        fresh(file, "ImageNet", case["gain"]),
        fresh(file, "AudioNet", case["gain"]).module,
        data.info,
        DistillationOptions(
            losses=[f"kl:{1 / 8}"],  # the published mean is over classes as well
            temperature=1.0,
            task_weight=case["weights"][0],
            kd_weight=case["weights"][1],
        ),
        channels=channels,
    )

    run = descend(method, data, case)

    with torch.no_grad():
        close(run.students["image"].module(inputs_of(file, case["N"])), case["student_logits"], rel=1e-3)
    best = 100 * max(epoch["valid"]["image"]["accuracy"] for epoch in run.history)
    assert case["val_test_acc"] == pytest.approx([best, best])

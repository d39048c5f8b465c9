"""Distillation from a teacher without some of its channels."""

import json

import numpy as np
import pytest
import torch
from distilled import distilled

from xmodal.data.arrays import from_arrays
from xmodal.data.loader import in_order
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.kd import KD
from xmodal.methods.mfh import MFH, RATIOS, Channels, build
from xmodal.methods.settings import MFHSettings
from xmodal.study.bench import Bench
from xmodal.study.settings import PairSettings

EYE = [[1.0, 0.0], [0.0, 1.0]]
CLEAR, FAINT = [[3.0, 1.0], [1.0, 5.0]], [[0.0, 0.5], [0.2, 0.0]]
FIRST = torch.tensor([True, False])


@pytest.fixture
def make(linear_student, linear_teacher, make_info):
    def made(channels=None, kind=MFH, **options):
        options |= {"channels": channels} if kind is MFH else {}
        return distilled(kind, linear_student(EYE), linear_teacher(EYE), make_info(), **options)

    return made


@pytest.fixture(scope="module")
def shared_and_own():
    """The teacher sees two channels that the student sees as well, and two of its own; both decide the label."""
    random = np.random.default_rng(0)
    shared, own, noise = (random.normal(size=(600, 2)) for _ in range(3))
    target = (np.concatenate([shared, own], axis=1).sum(axis=1) > 0).astype(int)
    return from_arrays(
        {"clear": np.concatenate([shared, own], axis=1), "faint": np.concatenate([noise, shared], axis=1)},
        target,
        task="multiclass",
    )


@pytest.fixture
def make_kit(shared_and_own):
    def made(folder=None, **settings):
        known = {"epochs": 12, "learning_rate": 1e-2, "batch_size": 64}
        asked = PairSettings(teacher=("clear",), student=("faint",), **(known | settings))
        return Bench(shared_and_own, asked.plan(), seed=0, fabric=launch(), folder=folder)

    return made


@pytest.mark.parametrize(
    ("fill", "values", "expected"),
    [
        ("zero", None, [[3.0, 0.0], [1.0, 0.0]]),
        ("batch_mean", None, [[3.0, 3.0], [1.0, 3.0]]),
        ("mean", torch.tensor([7.0, 8.0]), [[3.0, 8.0], [1.0, 8.0]]),
    ],
)
def test_the_teacher_answers_without_the_removed_channels(make, make_batch, fill, values, expected):
    method = make(Channels("input:clear", FIRST, fill, values))

    teacher_outputs = method.teach(make_batch(CLEAR, FAINT, [0, 1]))

    assert teacher_outputs["outputs"].tolist() == expected


def test_the_term_is_that_of_a_teacher_that_never_had_the_channel(make, make_batch, linear_student, linear_teacher):
    method, batch = make(Channels("input:clear", FIRST)), make_batch(CLEAR, FAINT, [0, 1])
    poorer = KD(linear_student(EYE), linear_teacher([[1.0, 0.0], [0.0, 0.0]]), method._info)

    mine, theirs = (one(batch, one.teach(batch)).losses for one in (method, poorer))

    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_with_all_channels_it_is_kd(make, make_batch):
    batch = make_batch(CLEAR, FAINT, [0, 1])
    one, other, plain = make(Channels("input:clear", torch.tensor([True, True]))), make(), make(kind=KD)

    values = [method(batch, method.teach(batch)).losses["kd"] for method in (one, other, plain)]

    assert values[0] == values[1] == values[2]


def test_the_teacher_itself_is_as_it_was(make, make_batch):
    method, batch = make(Channels("input:clear", FIRST)), make_batch(CLEAR, FAINT, [0, 1])

    method.teach(batch)

    assert method.teacher(batch.inputs).tolist() == CLEAR


def test_the_mask_is_saved_and_follows_the_method(make):
    method = make(Channels("input:clear", FIRST, "mean", torch.tensor([7.0, 8.0])))

    assert {"keep", "instead"} <= set(method.state_dict())
    assert method.to("meta").keep.device.type == "meta"


def test_a_mean_over_the_batch_is_asked_for_in_every_epoch(make, toy_data):
    method = make(Channels("input:clear", FIRST, "batch_mean"))
    settings = FitSettings(epochs=1, batch_size=16, cache="on")

    with pytest.raises(InputError, match="filled with the mean of the batch"):
        fit(method, toy_data, settings)
    assert len(fit(method, toy_data, FitSettings(epochs=1, batch_size=16)).history) == 1


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"remove": "least"}, [True, True, False, False]),
        ({"remove": "most"}, [False, False, True, True]),
        ({"channels": (0, 3)}, [True, False, False, True]),
    ],
)
def test_the_channels_that_both_modalities_know_are_found(make_kit, asked, kept):
    settings = MFHSettings(layer="input:clear", ratio=0.5, **asked)

    method = build(make_kit(), settings)

    assert method.keep.tolist() == kept
    assert method.findings["keep"] == kept and len(method.findings["saliency"]) == 4


def test_random_channels_follow_the_seed(make_kit):
    settings = MFHSettings(layer="input:clear", ratio=0.5, remove="random", sweep_epochs=1)
    kits = [make_kit(epochs=1) for _ in range(6)]
    for seed, kit in enumerate(kits):
        kit.seed = seed // 2

    masks = [build(kit, settings).keep.tolist() for kit in kits]

    assert all(sum(mask) == 2 for mask in masks)
    assert masks[0] == masks[1] and masks[2] == masks[3] and len({str(mask) for mask in masks}) > 1


def test_a_ratio_that_is_not_given_is_the_best_on_validation(make_kit):
    kit = make_kit(epochs=3)

    method = build(kit, MFHSettings(layer="input:clear", sweep_epochs=2))

    curve = {row["ratio"]: row["valid"] for row in method.findings["curve"]}
    assert tuple(curve) == RATIOS and {row["metric"] for row in method.findings["curve"]} == {"accuracy"}
    assert curve[method.findings["ratio"]] == max(curve.values())
    assert len(kit.stages["mfh ratio 0.5"].history) == 2 and "mfh ratio 0.9" in kit.stages


def test_of_equal_ratios_the_smallest_is_taken():
    from xmodal.methods.mfh import _best

    assert _best({0.0: 0.5, 0.25: 0.7, 0.5: 0.7}, ("accuracy", "max")) == 0.25
    assert _best({0.0: 0.5, 0.25: 0.4, 0.5: 0.4}, ("mse", "min")) == 0.25


def test_the_regular_teacher_can_be_asked_instead_of_the_joint_one(make_kit):
    kit = make_kit(epochs=2)

    method = build(kit, MFHSettings(ratio=0.5, joint=False))

    regular = kit.teacher().state_dict()
    assert all(torch.equal(value, regular[name]) for name, value in method.teacher.state_dict().items())


def test_what_was_found_stays_with_the_run(make_kit, tmp_path):
    kit = make_kit(tmp_path, epochs=1)

    kit.train("mfh", build(kit, MFHSettings(ratio=0.5)), role="method")

    found = json.loads((tmp_path / "mfh" / "result.json").read_text())["method"]["channels"]
    assert found["place"] == "embedding" and found["ratio"] == 0.5 and found["removed"] == "least"
    assert sum(found["keep"]) == len(found["keep"]) / 2


def test_channels_and_ratios_that_do_not_exist_are_told(make_kit):
    with pytest.raises(InputError, match="The option channels names 4, 9, and 'input:clear' has the channels 0 to 3"):
        build(make_kit(epochs=1), MFHSettings(layer="input:clear", channels=(1, 4, 9)))
    with pytest.raises(ValueError, match="expected a share from 0 to below 1, or auto"):
        MFHSettings(ratio=1.5)
    with pytest.raises(InputError, match="no layer called 'embeding'.*Did you mean 'embedding'"):
        build(make_kit(epochs=1), MFHSettings(layer="embeding", ratio=0.5))


def test_the_method_takes_its_saliency_from_the_training_rows(make_kit, shared_and_own):
    kit = make_kit()

    seen = sum(batch.rows for batch in kit.batches())

    assert seen == shared_and_own.info.rows["train"]["clear"]
    first, again = next(iter(kit.batches())), next(iter(in_order(shared_and_own.train, batch_size=256)))
    assert torch.equal(first.inputs["clear"], again.inputs["clear"])

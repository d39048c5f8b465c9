"""What methods measure on finished networks, and measure once."""

import numpy as np
import pytest
import torch

from xmodal.errors import InputError
from xmodal.methods.joint import fit_joint
from xmodal.methods.mfh import JOINT, build, build_masked
from xmodal.methods.ranking import channel_means, rank_channels
from xmodal.methods.settings import MFHSettings
from xmodal.study.bench import Bench, Earlier
from xmodal.study.rehearsal import Rehearsal
from xmodal.study.settings import PairSettings


def ranked(bench, teacher, student, **how):
    return rank_channels(bench, teacher, student, "embedding", networks="these", **{"distance": "mse", **how})


def test_a_ranking_and_the_means_are_measured_once_for_the_same_networks_and_settings(make_bench):
    bench = make_bench(epochs=1)
    joint = fit_joint(bench, agreement="mse", stage="together")

    first, again = (ranked(bench, joint.teacher, joint.student) for _ in range(2))
    other = ranked(bench, joint.teacher, joint.student, permutations=2)
    means = [channel_means(bench, joint.teacher, "embedding", networks="these") for _ in range(2)]

    assert first is again and other is not first and other.draws.shape[0] == 2
    assert means[0] is means[1] and len(bench.measured) == 3


def test_methods_side_by_side_share_what_they_rank_by(make_bench):
    bench = make_bench(epochs=1)

    kept = [build(bench, MFHSettings(ratio=0.5, remove=which)).keep for which in ("least", "most")]

    assert len([name for name in bench.measured if name.startswith("saliency")]) == 1
    assert torch.equal(kept[0], ~kept[1])


def test_the_networks_of_an_earlier_run_are_taken_without_training(make_bench, make_toy):
    bench = make_bench(epochs=1)
    before = fit_joint(bench, agreement="mse", stage=JOINT)
    weights = {side: network.module.state_dict() for side, network in before.students().items()}
    settings = PairSettings(teacher=("clear",), student=("faint",), threads=1)

    later = Bench(make_toy(), settings.plan(), seed=9, fabric=bench.fabric, earlier=Earlier({JOINT: weights}, {"a": 1}))
    found = fit_joint(later, agreement="mse", stage=JOINT)

    assert not later.stages and later.once("a", lambda: 2) == 1 and later.once("b", lambda: 2) == 2
    same = zip(found.state_dict().values(), before.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


def test_weights_of_another_network_are_refused_before_training(make_bench, make_toy):
    weights = {"teacher": {"layer": torch.zeros(2)}, "student": {"layer": torch.zeros(2)}}
    settings = PairSettings(teacher=("clear",), student=("faint",), threads=1)
    earlier = Earlier({JOINT: weights}, where="a folder")

    rehearsal = Rehearsal(make_toy(), settings.plan(), seed=0, fabric=make_bench().fabric, earlier=earlier)

    with pytest.raises(InputError, match=r"weights in a folder \(teacher\) do not fit this network"):
        fit_joint(rehearsal, agreement="mse", stage=JOINT)


@pytest.mark.parametrize(("task", "words"), [("binary", "binary data with 2"), ("regression", "regression data")])
def test_wrong_classes_as_a_distance_need_some(task, words, make_bench):
    with pytest.raises(InputError, match=words):
        build(make_bench(task), MFHSettings(ratio=0.5, distance="ncjsd"))


def test_the_control_is_trained_once_and_every_caller_has_a_copy(make_bench):
    bench = make_bench(epochs=1)

    first, again = bench.control(), bench.control()

    assert list(bench.runs) == ["no-KD"] and bench.roles == {"no-KD": "control"} and first is not again
    same = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same) and not first.training
    rehearsal = Rehearsal(bench.data, bench.plan, seed=0, fabric=bench.fabric)
    assert not rehearsal.control().training and not rehearsal.runs


def test_channels_are_exchanged_within_batches_of_so_many_rows(make_bench):
    bench = make_bench(epochs=1)
    teacher, control = bench.teacher(), bench.control()

    whole, parts, one = (ranked(bench, teacher, control, within=rows) for rows in (None, 7, 240))

    assert [len(batch.target) for batch in bench.batches(size=7)][:3] == [7, 7, 7]
    assert whole.population == "all" and parts.population == "batch" and parts.rows == whole.rows
    assert not np.allclose(parts.raw, whole.raw) and np.allclose(one.raw, whole.raw)
    assert len(bench.measured) == 3


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_students_of_a_finished_ranking_hear_what_is_left(make_bench, ratio):
    bench = make_bench(epochs=1)
    teacher = bench.teacher()
    found = ranked(bench, teacher, bench.control())
    removed = round(ratio * len(found.value))

    kept = {
        remove: build_masked(
            bench, MFHSettings(ratio=ratio, remove=remove, fill="zero"), teacher, found, networks="these"
        ).keep
        for remove in ("least", "most", "random", "index")
    }

    order = np.argsort(found.value, kind="stable")
    assert sorted(np.flatnonzero(~kept["least"].numpy())) == sorted(order[:removed])
    assert sorted(np.flatnonzero(~kept["most"].numpy())) == sorted(order[len(order) - removed :])
    assert (~kept["random"]).sum() == removed
    assert kept["index"].tolist() == [True] * (len(order) - removed) + [False] * removed

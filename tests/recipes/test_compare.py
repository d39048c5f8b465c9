from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.engine.processes.launch import launch
from xmodal.errors import InputError
from xmodal.files import write_json
from xmodal.losses import LOSSES
from xmodal.recipes import compare
from xmodal.study import controls
from xmodal.study.bench import Bench, Earlier, folder_name
from xmodal.study.plan import Entry
from xmodal.study.references import against_references, read_references
from xmodal.study.settings import parse_seeds

UNTRAINED = "kd-untrained-teacher"
FAST = {"teacher": "rows", "student": "fourier", "epochs": 2, "threads": 1, "accelerator": "cpu"}


def test_the_table_has_teacher_control_method_and_its_control(tmp_path):
    result = compare.run(compare.Settings(**FAST, seeds="2", out=tmp_path / "run"))

    assert [(entry["name"], entry["role"], entry["n"]) for entry in result["summary"]] == [
        ("teacher", "teacher", 2),
        ("no-KD", "control", 2),
        ("kd", "method", 2),
        ("kd (shuffled teacher)", "shuffled", 2),
    ]
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["summary"] == result["summary"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_resumed_comparison_ends_with_the_same_rows(tmp_path):
    whole = compare.run(compare.Settings(**FAST, seeds="2", out=tmp_path / "whole"))
    cut = compare.Settings(**FAST, seeds="2", out=tmp_path / "cut")
    compare.run(cut)
    (tmp_path / "cut" / "result.json").unlink()
    for name in ("kd", "kd-shuffled-teacher"):
        (tmp_path / "cut" / "seed-1" / name / "result.json").unlink()

    again = compare.run(cut.model_copy(update={"resume": True}))

    assert again["rows"] == whole["rows"]


def test_every_seed_draws_another_split_and_weights():
    data = [open_data("digits", seed=seed) for seed in (0, 1)]
    settings = compare.Settings(**FAST)
    benches = [Bench(data[seed], settings.plan(), seed=seed, fabric=launch()) for seed in (0, 1)]

    assert data[0].test.numbers["rows"].tolist() != data[1].test.numbers["rows"].tolist()
    first, second, again = (
        bench.network(("rows",)).module.state_dict() for bench in (benches[0], benches[1], benches[0])
    )
    name = next(key for key in first if key.endswith("weight"))
    assert not torch.equal(first[name], second[name])
    assert torch.equal(first[name], again[name]), "every method of a seed starts from the same student"


def test_augmentation_makes_the_shuffled_control_impossible_and_the_result_says_so(tmp_path):
    result = compare.run(compare.Settings(**FAST, seeds="1", augment="noise:0.05", out=tmp_path / "run"))

    assert "shuffled" not in {row["role"] for row in result["rows"]}
    assert any("augmented samples" in note for note in result["notes"])


def test_an_unknown_method_and_option_are_told_before_anything_is_written(tmp_path):
    settings = compare.Settings(
        **FAST, methods="kd,supervisd", options={"kd": {"temperature": -1}, "foo": {}}, out=tmp_path / "run"
    )

    with pytest.raises(InputError) as caught:
        compare.run(settings)

    assert len(caught.value.problems) == 3
    assert "Did you mean 'supervised'" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "0", "x", "3-1", "1,1", "-2"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="expected a number of seeds"):
        parse_seeds(text)


def test_losses_become_rows_and_those_that_cannot_run_are_named(tmp_path):
    settings = compare.Settings(**FAST, seeds="1", losses="kl,rkd:0.1,at", out=tmp_path / "run")

    result = compare.run(settings)

    assert [row["name"] for row in result["rows"]] == ["teacher", "no-KD", "kd kl", "kd rkd:0.1"]
    assert any("kd at can't run here" in note and "maps" in note for note in result["notes"])


def test_losses_without_kd_are_refused_and_not_ignored(tmp_path, capsys):
    words = "compare digits --teacher rows --student fourier --methods supervised --losses kl,rkd --seeds 1"

    status = answer([*words.split(), "--out", str(tmp_path / "run")])

    assert status == 2 and "--methods supervised leaves kd out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_all_losses_are_those_of_the_list():
    names = [entry.name for entry in compare.Settings(**FAST, losses="all").comparison().entries]

    assert names == [f"kd {loss}" for loss in LOSSES]


def test_a_misspelt_loss_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'rkd'"):
        compare.run(compare.Settings(**FAST, losses="rkdd", out=tmp_path / "run"))

    assert not (tmp_path / "run").exists()


def test_folder_names_hold_no_spaces():
    assert folder_name("kd (shuffled teacher)") == "kd-shuffled-teacher"
    assert folder_name("no-KD") == "no-KD"


def references(tmp_path: Path, *, target: float) -> Path:
    path = tmp_path / "references.json"
    figure = {"key": "kd.f1", "what": "kd", "paper": target, "tolerance": 0.5, "source": "table 1"}
    write_json(path, {"figures": [figure]})
    return path


def test_an_altered_reference_is_off(tmp_path):
    right = against_references({"kd.f1": 80.2}, read_references("", references(tmp_path, target=80.0)))
    wrong = against_references({"kd.f1": 80.2}, read_references("", references(tmp_path, target=81.0)))
    missing = against_references({}, read_references("", references(tmp_path, target=80.0)))

    assert [rows[0]["ok"] for rows in (right, wrong, missing)] == [True, False, False]


def test_a_reference_file_is_checked(tmp_path):
    path = tmp_path / "references.json"
    write_json(path, {"figures": [{"key": "a", "what": "b", "tolerance": 1, "source": "c"}]})
    with pytest.raises(InputError, match="neither a value to compare with nor a bound"):
        read_references("", path)

    write_json(path, {"figures": [{"key": "a", "what": "b", "toleranse": 1, "source": "c", "paper": 1}]})
    with pytest.raises(InputError):
        read_references("", path)


def reference(tmp_path, **fields):
    path = tmp_path / "one.json"
    write_json(path, {"figures": [{"key": "a", "what": "b", "source": "c", **fields}]})
    return read_references("", path)


@pytest.mark.parametrize(
    ("fields", "ours", "ok"),
    [
        ({"at_least": 1.0}, 1.0, True),
        ({"at_least": 1.0}, 0.9, False),
        ({"at_most": 0.0}, 0.1, False),
        ({"paper": 5.0, "at_most": 9.0}, 8.0, True),  # a bound alone judges; the paper's value is shown
        ({"paper": 5.0, "tolerance": 1.0, "at_most": 5.5}, 5.8, False),
        ({"paper": 9.0, "authors": 5.0, "tolerance": 0.5}, 5.0, False),
        ({"paper": 9.0, "authors": 5.0, "tolerance": 0.5, "against": "authors"}, 5.0, True),
    ],
)
def test_figures_are_held_against_a_value_or_bounds(tmp_path, fields, ours, ok):
    (row,) = against_references({"a": ours}, reference(tmp_path, **fields))

    assert row["ok"] is ok


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tolerance": 1.0}, "nor a bound"),
        ({"paper": 1.0}, "has a value to compare with and no tolerance"),
        ({"paper": 1.0, "tolerance": 1.0, "against": "authors"}, "neither a value to compare with nor a bound"),
    ],
)
def test_a_reference_says_what_it_asks_for(tmp_path, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        reference(tmp_path, **fields)


def test_the_packaged_references_are_readable():
    keys = {figure.key for figure in read_references("xmodal.recipes:references/digits_kd.json")}

    names = ("teacher", "no-KD", "kd", "teacher - no-KD", "kd - no-KD")
    assert keys == {f"{name}.weighted_f1" for name in names}


# ---- variants, and controls as large as what is deployed


def test_variants_of_a_method_become_rows_on_top_of_its_options():
    options = {"kd": {"temperature": 2.0}}
    settings = compare.Settings(**FAST, vary="kd.task-weight=0+loss=dkd|kl,discom.perp=signed", options=options)

    comparison = settings.comparison()

    options = {"temperature": 2.0, "task_weight": "0", "loss": ("dkd", "kl")}
    assert list(comparison.entries[1:]) == [
        Entry("kd.task-weight=0+loss=dkd|kl", "kd", options, controls=False),
        Entry("discom.perp=signed", "discom", {"perp": "signed"}, controls=False),
    ]
    assert comparison.train_teacher
    alone = settings.model_copy(update={"methods": ("supervised",), "vary": (), "options": {}})
    assert not alone.comparison().train_teacher


@pytest.mark.parametrize(
    ("vary", "sentence"),
    [
        ("kdd.temperature=2", "Did you mean 'kd'"),
        ("kd.temprature=2", "Did you mean 'temperature'"),
        ("kd.temperature", "expected FIELD=VALUE"),
        ("kd.temperature=cold", "--vary kd.temperature=cold: The method kd: 'temperature' is 'cold'"),
    ],
)
def test_a_variant_that_can_not_be_is_told_before_anything_is_written(tmp_path, vary, sentence):
    with pytest.raises(InputError, match=sentence):
        compare.run(compare.Settings(**FAST, vary=vary, out=tmp_path / "run"))

    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def against_discom(tmp_path_factory):
    settings = {**FAST, "student_width": 8, "methods": "discom", "vary": "discom.orthogonality_weight=0", "seeds": "2"}
    return compare.run(compare.Settings(**settings, out=tmp_path_factory.mktemp("against") / "run"))


def test_a_method_that_deploys_more_gets_a_control_of_its_size(against_discom):
    rows = [row for row in against_discom["rows"] if row["seed"] == 0]

    assert [row["role"] for row in rows] == ["control", "method", "method", "matched"]
    control, full, ablated, matched = (row["parameters"] for row in rows)
    assert control < full == ablated <= matched < 1.1 * full
    assert {row["matched"] for row in rows[1:3]} == {rows[3]["name"]} and rows[0]["matched"] == ""


def test_of_several_students_the_one_of_the_deployed_modality_is_compared(against_discom):
    assert {tuple(row["needs"]) for row in against_discom["rows"]} == {("fourier",)}
    assert [entry["name"] for entry in against_discom["summary"]][1:3] == ["discom", "discom.orthogonality_weight=0"]
    said = " ".join(against_discom["verdict"])
    assert said.count("a control of the same size") == 2


def test_an_equally_large_student_gets_none(tmp_path):
    result = compare.run(compare.Settings(**FAST, seeds="1", out=tmp_path / "run"))

    assert "matched" not in {row["role"] for row in result["rows"]}
    assert len({row["parameters"] for row in result["rows"] if row["needs"] == ["fourier"]}) == 1


def test_an_untrained_teacher_has_its_initial_weights(tmp_path):
    settings = compare.Settings(**FAST, seeds="1", untrained=True, shuffled=False, out=tmp_path / "run")

    result = compare.run(settings)

    assert [(row["name"], row["role"]) for row in result["rows"]] == [
        ("teacher", "teacher"),
        ("no-KD", "control"),
        ("kd", "method"),
        ("kd (untrained teacher)", "untrained"),
    ]
    first, second = (load_file(tmp_path / "run" / "seed-0" / name / "last.safetensors") for name in ("kd", UNTRAINED))
    assert first.keys() == second.keys() and not torch.equal(
        *(found["network.head.weight"] for found in (first, second))
    )


def test_of_an_untrained_teacher_the_bench_gives_fresh_weights_and_then_trained_ones_again():
    settings = compare.Settings(**FAST)
    bench = Bench(open_data("digits", seed=0), settings.plan(), seed=0, fabric=launch())
    fresh = bench.network(("rows",), side="teacher").module.state_dict()

    with bench._with_teacher(controls.UNTRAINED):
        untrained = bench.teacher()

    assert not untrained.training and all(
        torch.equal(fresh[name], tensor) for name, tensor in untrained.state_dict().items()
    )
    trained = bench.teacher().state_dict()
    assert any(not torch.equal(fresh[name], tensor) for name, tensor in trained.items())


def test_a_method_with_a_teacher_of_its_own_has_no_untrained_control(tmp_path):
    settings = compare.Settings(**FAST, seeds="1", methods="mfh", untrained=True, shuffled=False, out=tmp_path / "run")

    result = compare.run(settings)

    assert [row["role"] for row in result["rows"]] == ["teacher", "control", "method"]
    assert any("stage of its own" in note for note in result["notes"])


def test_a_recipe_may_train_its_teacher_in_another_way(make_toy):
    plan = compare.Settings(teacher="clear", student="faint", epochs=1, threads=1).plan()
    longer = plan.training.model_copy(update={"epochs": 3})
    bench = Bench(make_toy(), replace(plan, teacher_training=longer), seed=0, fabric=launch())
    bench.teacher()
    bench.train_control()

    assert [len(bench.runs[name].history) for name in ("teacher", "no-KD")] == [3, 1]


def test_a_teacher_of_another_run_is_taken_as_it_is(make_toy):
    settings = compare.Settings(teacher="clear", student="faint", epochs=1, threads=1)
    fresh = Bench(make_toy(), settings.plan(), seed=5, fabric=launch()).network(("clear",), side="teacher")
    weights = {name: tensor + 1 for name, tensor in fresh.module.state_dict().items()}
    bench = Bench(
        make_toy(), settings.plan(), seed=0, fabric=launch(), earlier=Earlier({"teacher": {"clear": weights}})
    )

    teacher = bench.teacher()

    assert all(torch.equal(weights[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not bench.runs["teacher"].history

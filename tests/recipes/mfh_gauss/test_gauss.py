import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from quiet_study import quiet_study

from xmodal.data.gaussian.draws import Pairs, draw_removal, draw_sweep, increase_alpha, increase_gamma, modify_gamma
from xmodal.recipes import RECIPES
from xmodal.recipes.mfh_gauss import gauss_alpha, gauss_gamma, gauss_removal
from xmodal.recipes.mfh_gauss.gauss_removal_training import Case, drawn, identified_share, trained, visible_channels
from xmodal.study.linear import Stream, only, with_paper
from xmodal.study.references import published_settings, read_references, references_for
from xmodal.study.settings import StudySettings

STUDY = quiet_study(StudySettings())
QUICK = {"epochs": 30, "train": 60, "test": 200}


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def descend(weight, bias, x, y, *, epochs, rate=0.1, teacher=None, labels=1.0, kd=0.0):
    """The published update written out: no autograd, no library."""
    one_hot = np.eye(2)[y]
    for _ in range(epochs):
        p = softmax(x @ weight.T + bias)
        slope = labels * (p - one_hot) / len(x)
        if teacher is not None:
            slope = slope + kd * (p - teacher) / len(x)
        weight, bias = weight - rate * slope.T @ x, bias - rate * slope.sum(axis=0)
    return weight, bias


def start(student):
    head = student.module.head
    return head.weight.detach().double().numpy(), head.bias.detach().double().numpy()


def close(student, expected):
    for found, wanted in zip(start(student), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)  # float32 over 30 steps


# ---- training


@pytest.mark.parametrize(
    ("options", "labels", "kd"),
    [({}, 1.0, 0.5), ({"kl_reduction": "batchmean"}, 1.0, 1.0), ({"kd_labels": False}, 0.0, 0.5)],
    ids=["published", "batchmean", "no labels"],
)
def test_networks_equal_gradient_descent_written_out(options, labels, kd):
    settings, design = gauss_gamma.Settings(seeds=(3,), **QUICK, **options), increase_gamma(4)
    samples = draw_sweep(design, 3, train=60, test=200)["train"]
    stream = Stream(4)
    teacher, student, control = (start(stream.linear(name, width)) for name, width in (("a", 25), ("b", 50), ("b", 50)))

    _, runs = gauss_gamma.fitted(settings, [design], STUDY)

    teacher_outputs = descend(*teacher, samples.a, samples.label, epochs=30)
    answers = softmax(samples.a @ teacher_outputs[0].T + teacher_outputs[1])
    close(only(runs["teacher"][design, 3]), teacher_outputs)
    close(only(runs["no-KD"][design, 3]), descend(*control, samples.b, samples.label, epochs=30))
    expected = descend(*student, samples.b, samples.label, epochs=30, teacher=answers, labels=labels, kd=kd)
    close(only(runs["kd"][design, 3]), expected)


def test_a_stream_goes_on_where_it_stopped_and_leaves_the_global_generator():
    before = torch.get_rng_state()
    stream = Stream(5)

    first = stream.linear("a", 4)
    shuffles = stream.permutations(2, 3, 6)
    second = stream.linear("b", 2)

    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        layer = torch.nn.Linear(4, 2)
        rows = [torch.randperm(6) for _ in range(12)]
        last = torch.nn.Linear(2, 2)
    assert torch.equal(first.module.head.weight, layer.weight) and torch.equal(first.module.head.bias, layer.bias)
    assert torch.equal(second.module.head.weight, last.weight)
    # per draw the three channels of the student, then those of the teacher
    assert torch.equal(shuffles[0][1], torch.stack(rows[6:9])) and torch.equal(shuffles[1][1], torch.stack(rows[9:]))


# ---- the sweeps


def test_a_sweep_has_rows_for_every_network_and_a_page(tmp_path):
    settings = gauss_gamma.Settings(seeds="2", shared=(0, 10), out=tmp_path / "run", **QUICK)

    result = gauss_gamma.run(settings)

    assert [(row["name"], row["seed"], row["gamma"]) for row in result["rows"][:4]] == [
        ("teacher", 0, 0.0),
        ("no-KD", 0, 0.0),
        ("kd", 0, 0.0),
        ("teacher", 1, 0.0),
    ]
    assert len(result["rows"]) == 12 and result["references"] == []
    assert result["figures"]["gain.change"] == pytest.approx(
        result["figures"]["kd - no-KD.1.00"] - result["figures"]["kd - no-KD.0.00"]
    )
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["sweeps"] == result["sweeps"] and saved["figures"] == result["figures"]
    assert "From γ = 0.00 to 1.00 the gain" in (tmp_path / "run" / "report.html").read_text()


def test_the_control_knows_nothing_of_the_teacher():
    settings = gauss_alpha.Settings(seeds=(0,), **QUICK)

    rows = gauss_gamma.scored(*gauss_gamma.fitted(settings, [increase_alpha(0), increase_alpha(40)], STUDY))

    scores = {(row["name"], row["alpha"]): row["test"]["accuracy"] for row in rows}
    assert scores["no-KD", 0.0] == scores["no-KD", 0.8] and scores["teacher", 0.0] != scores["teacher", 0.8]


def test_rows_of_a_finished_part_are_read_back_and_not_made_again(tmp_path):
    study = quiet_study(StudySettings(out=tmp_path / "run"), "gauss-gamma")
    study.start(fits=1)

    assert study.saved_rows("part") is None
    saved = study.save_rows("part", [{"seed": 0, "test": {"accuracy": 1 / 3}}])

    assert saved == study.saved_rows("part") == [{"seed": 0, "test": {"accuracy": 1 / 3}}]


def test_a_resumed_sweep_has_the_same_rows_and_other_settings_are_refused(tmp_path):
    settings = gauss_alpha.Settings(seeds=(0,), specific=(0,), out=tmp_path / "run", **QUICK)
    first = gauss_alpha.run(settings)
    (tmp_path / "run" / "result.json").unlink()

    again = gauss_alpha.run(settings.model_copy(update={"resume": True}))

    assert again["rows"] == first["rows"]
    with pytest.raises(ValueError, match="started with other settings"):
        gauss_alpha.run(settings.model_copy(update={"resume": True, "epochs": 31}))


def test_trends_count_falls():
    points = [{"x": x, "mean": mean, "std": 0.0, "n": 1} for x, mean in enumerate((-0.01, 0.02, 0.01, 0.03))]
    sweep = {"differences": [{"points": points}], "series": [{"points": points}]}

    found = gauss_gamma.trends(sweep)

    assert (found["gain.falls"], found["gain.largest fall"]) == (1.0, pytest.approx(1.0))
    assert (found["gain.first"], found["gain.last"], found["gain.change"]) == pytest.approx((-1.0, 3.0, 4.0))


def test_paper_points_stand_beside_the_series_they_belong_to():
    sweep = {"metric": "accuracy", "series": [{"name": "kd", "points": [{"x": 1 / 9}, {"x": 0.3}]}], "published": []}

    with_paper(sweep, read_references("xmodal.recipes:references/gauss_gamma.json"))

    (published,) = sweep["published"]
    assert published["name"] == "kd" and published["points"] == [{"x": 1 / 9, "mean": pytest.approx(0.6714)}]


# ---- removal


def test_as_published_sets_fields_that_are_flags_of_their_own():
    plain, published = gauss_removal.Settings(), gauss_removal.Settings(as_published=True)
    mixed = gauss_removal.Settings(as_published=True, permutations=3)

    assert (plain.swapped, plain.replacement, plain.permutations) == (False, False, "exact")
    assert (published.swapped, published.replacement, published.permutations) == (True, True, 100)
    assert (mixed.swapped, mixed.permutations) == (True, 3)
    assert gauss_removal.Settings(**published.described()) == published


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dims": "10"}, "'10' is no pair of numbers"),
        ({"dims": "40:20"}, "this published experiment takes 0 to 30"),
        ({"dims": "10:10,20:20"}, "'20:20' and '10:10' have the same γ"),
        ({"mode": "gt,alg2"}, "there is no mode 'alg2'. Did you mean 'alg1'"),
        ({"permutations": "some"}, "permutations"),
        ({"permutations": 0}, "permutations"),
        ({"keep": 51}, "keep"),
    ],
)
def test_wrong_settings_of_the_removal_are_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        gauss_removal.Settings(**options)


def test_presets_are_the_rows_of_the_script_and_of_the_table():
    script, table = (gauss_removal.Settings(preset=name).designs for name in ("script", "table2"))

    assert [round(design.gamma, 3) for design in script] == [0.333, 0.5, 0.6, 0.667, 0.714, 0.75]
    assert [round(design.gamma, 2) for design in table] == [0.25, 0.33, 0.5, 0.67, 0.75]


@pytest.mark.parametrize("replacement", [True, False])
def test_random_channels_come_from_the_same_stream_after_the_samples(replacement):
    design, stream = modify_gamma(10, 20), np.random.RandomState(42)
    draw_removal(design, 42, train=60, test=200, random=stream)

    case = drawn(gauss_removal.Settings(replacement=replacement, train=60, test=200), design, 42)

    expected = stream.randint(0, 50, 20) if replacement else stream.permutation(50)[:20]
    assert case.guess.tolist() == expected.tolist()
    assert (len(set(case.guess)) < 20) == replacement  # 20 of 50 draws without a repetition: one in a hundred


def test_a_case_gives_its_data_with_either_training_set_exchanged_or_reduced():
    case = drawn(gauss_removal.Settings(train=60, test=200), modify_gamma(10, 5), 0)

    first, swapped = case.data("train"), case.data("again", swapped=True)
    reduced = case.data("again", channels=np.array([3, 1]))

    assert np.array_equal(first.train.columns["a"][:60], case.pairs["train"].a)
    assert np.array_equal(swapped.train.columns["a"][:60], case.pairs["again"].b)
    assert np.array_equal(swapped.test.columns["b"][-200:], case.pairs["test"].b), "the test set stays as it is"
    assert np.array_equal(reduced.test.columns["a"][-200:], case.pairs["test"].a[:, [3, 1]])


@pytest.mark.parametrize("which", [1, 2])
def test_the_mg_teacher_learns_on_the_set_that_is_asked_for(which):
    settings = gauss_removal.Settings(mode="gt", dims="10:10", mg_teacher_set=which, **QUICK)
    pairs = drawn(settings, settings.designs[0], 0).pairs
    stream = Stream(0)
    widths = (("a", 50), ("b", 50), ("b", 50), ("a", 10))  # teacher, no-KD, KD, MG teacher
    *_, fresh = (start(stream.linear(name, width)) for name, width in widths)

    rows = trained(settings, (0,), STUDY)

    learnt = pairs["train" if which == 1 else "again"]
    weight, bias = descend(*fresh, learnt.a[:, :10], learnt.label, epochs=30)
    right = ((pairs["test"].a[:, :10] @ weight.T + bias).argmax(axis=1) == pairs["test"].label).mean()
    (found,) = (row["test"]["accuracy"] for row in rows if row["name"] == "MG teacher")
    assert found == pytest.approx(right, abs=0.01)  # two of 200 rows may lie on the border


def test_what_stays_is_shared_random_or_found():
    empty = Pairs(np.zeros((1, 50), np.float32), np.zeros((1, 50), np.float32), np.zeros(1, np.int64))
    case = Case(modify_gamma(10, 4), 0, {"train": empty}, np.array([7, 7, 1, 30]))
    order = np.array([2, 40, 0, 1, *range(3, 40), *range(41, 50)])

    ranked = {case: {"a": order}}

    assert visible_channels(case, "gt", ranked).tolist() == [0, 1, 2, 3]
    assert visible_channels(case, "random", ranked).tolist() == [7, 7, 1, 30]
    assert visible_channels(case, "alg1", ranked).tolist() == [2, 40, 0, 1]
    assert identified_share(case, order) == 0.75


def test_a_mode_changes_nothing_about_the_others():
    quick = {**QUICK, "dims": "10:10"}
    alone = trained(gauss_removal.Settings(mode="alg1", **quick), (0,), STUDY)
    together = trained(gauss_removal.Settings(**quick), (0,), STUDY)

    assert [row for row in together if row["mode"] == "alg1"] == alone
    teachers = {row["test"]["accuracy"] for row in together if row["name"] == "teacher"}
    assert len(teachers) == 1 and len(together) == 15
    plain = [[row["test"] for row in together if row["mode"] == mode][:3] for mode in ("gt", "random")]
    assert plain[0] == plain[1], "teacher, no-KD and regular KD have the same stream"


def test_algorithm_1_finds_shared_channels():
    settings = gauss_removal.Settings(mode="alg1", dims="10:10", epochs=300, permutations=5)

    rows = trained(settings, (42, 43), STUDY)

    found = [row[f"found_{name}"] for row in rows for name in ("a", "b") if row["name"] == "teacher"]
    assert len(found) == 4 and min(found) >= 0.8  # 10 of 50 by chance: 0.2


def test_a_removal_has_a_sweep_for_each_mode_and_figures_of_its_claims(tmp_path):
    settings = gauss_removal.Settings(seeds="42-43", dims="10:5,10:20", out=tmp_path / "run", **QUICK)

    result = gauss_removal.run(settings)

    assert [sweep["title"] for sweep in result["sweeps"]] == list(gauss_removal.TITLES.values())
    assert [one["name"] for one in result["sweeps"][0]["differences"]] == ["MG-KD - KD", "MG teacher - teacher"]
    gains = [result["figures"][f"gt MG-KD - KD.{x}"] for x in ("0.33", "0.67")]
    assert result["figures"]["gt smallest gain"] == pytest.approx(min(gains))
    loss = max(result["figures"][f"random MG teacher - teacher.{x}"] for x in ("0.33", "0.67"))
    assert result["figures"]["random smallest loss of the teacher"] == pytest.approx(-loss)
    assert 0 <= result["figures"]["smallest share found in a"] <= 1 and len(result["verdict"]) == 4
    assert (tmp_path / "run" / "rows" / "seeds-42-43.json").is_file()


# ---- references


@pytest.mark.parametrize("name", ["gauss-gamma", "gauss-alpha", "gauss-removal"])
def test_every_reference_belongs_to_published_settings(name):
    keys = {figure.key.rpartition("/")[0] for figure in read_references(RECIPES[name].references)}

    assert keys == set(published_settings(RECIPES[name]))


def test_references_stand_beside_runs_at_published_settings_alone():
    card = RECIPES["gauss-removal"]
    published = gauss_removal.Settings(as_published=True, threads=7)

    rows = references_for(card, published, {"gt teacher.0.33": 89.9})

    assert rows[0]["what"].startswith("as published") and rows[0]["ok"] is True and rows[1]["ok"] is False
    assert references_for(card, gauss_removal.Settings(seeds="3"), {}) == []


@pytest.mark.claim
@pytest.mark.timeout(7200)
def test_reproduce_meets_every_figure_and_notices_an_altered_one(tmp_path, monkeypatch, capsys):
    from xmodal.cli.main import answer

    monkeypatch.chdir(tmp_path)
    figures = [figure.model_dump() for figure in read_references("xmodal.recipes:references/gauss_gamma.json")]
    figures[0]["authors"] += 0.2
    (tmp_path / "altered.json").write_text(json.dumps({"schema": 1, "figures": figures}))

    met = answer(["reproduce", "gauss-gamma", "gauss-alpha", "gauss-removal"])
    missed = answer(["reproduce", "gauss-gamma", "--references", "altered.json", "--out", "again"])

    assert (met, missed) == (0, 1)
    assert "1 figure(s) outside of their tolerance: teacher, γ = 0.00." in capsys.readouterr().out

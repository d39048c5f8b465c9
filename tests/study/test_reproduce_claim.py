"""Whole reproductions with a broken teacher or method: `xmodal reproduce` must say so."""

import json

import pytest

from xmodal.cli.main import answer
from xmodal.methods.settings import DisCoMSettings
from xmodal.methods.supervised import Supervised
from xmodal.recipes.discom import experiment
from xmodal.study import linear
from xmodal.study.bench import Bench
from xmodal.study.plan import TEACHER

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]
trained = linear.train


def failed(recipe, out, capsys):
    """What is outside its tolerance, after a reproduction with exit status 1."""
    assert answer(["reproduce", recipe, "--json", "--out", str(out)]) == 1
    rows = json.loads(capsys.readouterr().out)["recipes"][recipe]["references"]
    return [row["what"] for row in rows if not row["ok"]]


@pytest.mark.parametrize("recipe", ["gauss-gamma", "gauss-alpha"])
def test_a_linear_sweep_without_its_method(recipe, tmp_path, monkeypatch, capsys):
    runs = {}

    def plain(name, methods, *rest):
        runs[name] = runs["no-KD"] if name == "kd" else trained(name, methods, *rest)
        return runs[name]

    monkeypatch.setattr(linear, "train", plain)

    assert [what for what in failed(recipe, tmp_path, capsys) if what.startswith("gain of KD")]


@pytest.mark.parametrize("recipe", ["gauss-gamma", "gauss-alpha"])
def test_a_linear_sweep_with_an_untrained_teacher(recipe, tmp_path, monkeypatch, capsys):
    def untrained(name, methods, data, fit, study):
        still = fit.model_copy(update={"learning_rate": 1e-9}) if name == "teacher" else fit
        return trained(name, methods, data, still, study)

    monkeypatch.setattr(linear, "train", untrained)

    assert [what for what in failed(recipe, tmp_path, capsys) if what.startswith("teacher, ")]


@pytest.mark.parametrize("recipe", ["few-labels", "digits-kd"])
def test_digits_with_an_untrained_teacher(recipe, tmp_path, monkeypatch, capsys):
    teach = Bench.teacher

    def untrained(self):
        if TEACHER not in self.runs:
            network = self.network(self.teaching, side=TEACHER)
            self.take(TEACHER, Supervised(network, self.info), role=TEACHER)
        return teach(self)

    monkeypatch.setattr(Bench, "teacher", untrained)

    assert [what for what in failed(recipe, tmp_path, capsys) if what.startswith("teacher")]


def test_discom_without_its_terms(tmp_path, monkeypatch, capsys):
    def labels_alone(self, modalities):
        weights = ("auxiliary", "adversarial", "modality", "orthogonality")
        return DisCoMSettings(modalities=modalities, **{f"{name}_weight": 0.0 for name in weights})

    monkeypatch.setattr(experiment.Settings, "method", labels_alone)

    found = failed("discom", tmp_path, capsys)

    # the larger network alone has the scores: the parts tell
    assert {"modality from the informative part (%)", "|cos| of informative and invariant part"} <= set(found)

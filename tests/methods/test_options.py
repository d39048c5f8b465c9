"""Options of distillation, and the settings that they come from."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

from xmodal.errors import InputError
from xmodal.method import DescribesTeacher, Reports
from xmodal.methods.kd import KD
from xmodal.methods.mfh import MFH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.settings import DistilSettings, KDSettings, MFHSettings, NTDHSettings
from xmodal.methods.supervised import Supervised


def test_lists_and_tuples_are_the_same_options():
    listed = DistillationOptions(losses=["kl", "rkd"], student_layer=["head"])

    assert listed == DistillationOptions(losses=("kl", "rkd"), student_layer=("head",))
    assert hash(listed) == hash(DistillationOptions(losses=("kl", "rkd"), student_layer=("head",)))


def test_all_words_without_meaning_are_told_together():
    with pytest.raises(InputError) as caught:
        DistillationOptions(pixels="label", reduction="mean", weighting="class")

    assert len(caught.value.problems) == 3 and "Did you mean 'labelled'" in str(caught.value)


@pytest.mark.parametrize("settings", [DistilSettings, KDSettings, MFHSettings, NTDHSettings])
def test_settings_without_flags_give_the_default_options(settings):
    assert settings().options() == DistillationOptions()


def test_every_option_has_a_setting():
    changed = {
        "temperature": 2.0,
        "kd_weight": 0.25,
        "task_weight": 0.75,
        "student_layer": ("head",),
        "teacher_layer": ("embedding",),
        "standardise": True,
        "kd_warmup": 3,
        "pixels": "all",
        "reduction": "reference",
        "weighting": "classes",
    }

    options = KDSettings(loss=("rkd", "kl:2"), **changed).options()

    assert options == DistillationOptions(losses=("rkd", "kl:2"), **changed)
    assert {field.name for field in fields(options)} == {"losses", *changed}
    assert KDSettings(**changed, labels=False).options().task_weight == 0.0


@pytest.mark.parametrize("settings", [MFHSettings, NTDHSettings])
def test_the_layer_of_older_settings_is_called_place(settings):
    assert settings(**{"place": "head"}).layer == settings(layer="head").layer == "head"
    assert settings(**{"place": "head"}).model_dump()["layer"] == "head"
    with pytest.raises(ValidationError, match="place is an earlier name of layer, and both were given"):
        settings(**{"place": "head", "layer": "head"})


def test_kd_describes_its_teacher_and_only_methods_with_channels_report(make_info, linear_student, linear_teacher):
    student, info = linear_student([[1.0, 0.0], [0.0, 1.0]]), make_info()
    kd, mfh = (kind(student, linear_teacher([[1.0, 0.0], [0.0, 1.0]]), info) for kind in (KD, MFH))
    alone = Supervised(student, info)

    assert isinstance(kd, DescribesTeacher) and isinstance(mfh, DescribesTeacher)
    assert kd.teach_inputs == ("clear",) and kd.teach_online == ""
    assert isinstance(mfh, Reports) and mfh.report() == {} and not isinstance(kd, Reports)
    assert not isinstance(alone, DescribesTeacher | Reports)

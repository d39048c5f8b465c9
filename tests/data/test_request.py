"""What all loaders share: one request in place of separate arguments."""

import dataclasses
import inspect

import pytest

from xmodal.data import DATA, open_data
from xmodal.data.own.folder import load_folder
from xmodal.data.request import DataRequest
from xmodal.errors import InputError


@pytest.mark.parametrize("loader", [*DATA.values(), load_folder], ids=lambda loader: getattr(loader, "name", "folder"))
def test_every_loader_takes_a_folder_settings_and_a_request(loader):
    function = loader if loader is load_folder else loader.load()

    assert list(inspect.signature(function).parameters) == ["root", "settings", "request"]


def test_a_request_has_named_values_that_stay():
    with pytest.raises(TypeError):
        DataRequest("binary")
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataRequest().seed = 3


def test_open_data_has_the_arguments_and_defaults_of_a_request_and_keeps_them_as_source():
    parameters = inspect.signature(open_data).parameters
    # with folds, the argument ``seed`` is the number of the fold
    fields = {field.name: field.default for field in dataclasses.fields(DataRequest) if field.name != "fold"}

    source = open_data("gaussian", task="binary", train_fraction=0.5, augment="noise:0.1", seed=3).source

    assert {name: parameters[name].default for name in fields} == fields
    assert {name: source[name] for name in fields} == {
        "task": "binary",
        "train_fraction": 0.5,
        "labelled": "",
        "labelled_groups": 0,
        "valid_labels": "",
        "augment": "noise:0.1",
        "seed": 3,
        "folds": 0,
    }


def test_a_task_that_a_data_set_does_not_have_is_refused_with_those_that_it_has():
    DataRequest().check_task("gaussian", "multiclass")
    DataRequest(task="binary").check_task("gaussian", "multiclass", "binary")
    with pytest.raises(InputError, match="gaussian has the task multiclass or binary; regression was asked for. Leave"):
        DataRequest(task="regression").check_task("gaussian", "multiclass", "binary")

"""Flags from settings classes: spellings, values, earlier names, the help, and all problems together."""

import inspect
import typing
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xmodal.cards import RecipeCard, load
from xmodal.cli.parser import Flags, Help, Parser, Section, parse, parse_sections
from xmodal.cli.recipe_flags import read_settings
from xmodal.data import DATA
from xmodal.data.options import current_names, validated
from xmodal.errors import InputError
from xmodal.files import write_json
from xmodal.flags import Flag, flag_of
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES


class Small(Flags):
    """Flags of every kind.

    Attributes:
        NOTHING: not part of the help.
    """

    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field("digits", description="which data")
    rate: float = Field(0.1, gt=0, description="100 % of the step")
    clip: float | None = Field(None, description="bound")
    names: tuple[str, ...] = Field((), description="some names")
    pair: Annotated[tuple[str, ...], BeforeValidator(lambda text: tuple(text.split("+")))] = Field(
        ("a", "b"), description="two names"
    )
    mode: Literal["", "mean", "sum"] = Field("mean", description="how")
    labels: Annotated[bool, Flag(aliases=("use_labels",))] = Field(True, description="learn from labels")
    layer: Annotated[str, Flag(aliases=("place",))] = Field("embedding", description="which layer")
    inner: Annotated[int, Flag(hidden=True)] = 3


class Renamed(BaseModel):
    """Options one of whose fields had another name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: Annotated[str, Flag(aliases=("place",))] = Field("embedding", description="which layer")
    width: int = Field(4, ge=1, description="how wide")


def small(line: str) -> Small:
    return parse(Small, line.split(), prog="xmodal small")


def problems(line: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        small(line)
    return caught.value.problems


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--rate 1e-3", {"rate": 1e-3}),
        ("--rate=2 --rate 3", {"rate": 3.0}),
        ("--clip -1e-3", {"clip": -1e-3}),
        ("--clip 2 --clip none", {"clip": None}),
        ("--names a,b --names c", {"names": ("a", "b", "c")}),
        ("--names a, --names=", {"names": ("a",)}),
        ("--pair x+y --pair u+v", {"pair": ("u", "v")}),
        ("--no-labels", {"labels": False}),
        ("--no_labels --labels", {"labels": True}),
        ("--mode sum words", {"mode": "sum", "data": "words"}),
        ("--no-labels words --json", {"labels": False, "data": "words", "as_json": True}),
        ("--place conv1", {"layer": "conv1"}),
        ("--place conv1 --layer conv2", {"layer": "conv2"}),
        ("--no-use-labels", {"labels": False}),
        ("--use_labels", {"labels": True}),
    ],
)
def test_values_of_flags(line: str, expected: dict[str, object]) -> None:
    assert small(line).model_dump() == {**Small().model_dump(), **expected}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--rate -1e-3", "--rate is -1e-3: expected a value greater than 0."),
        ("--rat 1 words", "xmodal small has no option --rat. Did you mean --rate? See xmodal small --help."),
        ("--inner 4", "xmodal small has no option --inner. See xmodal small --help for all of them."),
        ("--no-json", "xmodal small has no option --no-json."),
        ("--zzz", "xmodal small has no option --zzz. See xmodal small --help for all of them."),
        ("--rate", "--rate needs a value behind it. See xmodal small --help."),
        ("--rate --no-labels", "--rate needs a value behind it. See xmodal small --help."),
        ("--labels=yes", "--labels takes no value; 'yes' was given. Leave it out."),
        ("--mode men", "--mode is 'men'. Did you mean 'mean'? Known: mean, sum."),
        ("a -b", "xmodal small does not know what to do with '-b': expected words are DATA."),
        ("--", "xmodal small has no option --."),
    ],
)
def test_one_problem_is_one_sentence(line: str, expected: str) -> None:
    (sentence,) = problems(line)

    assert sentence.startswith(expected)


def test_all_problems_are_reported_together() -> None:
    sentences = problems("words --rate --wrong 1 --labels=no more --clip x --mode men --rate 0")

    assert [sentence.split()[0] for sentence in sentences[:3]] == ["--rate", "xmodal", "--labels"]
    assert len(sentences) == 7 and "'more'" in sentences[3] and "--clip is 'x'" in "".join(sentences)


def test_help_lists_flags_by_group_and_hides_what_is_hidden() -> None:
    with pytest.raises(Help) as caught:
        small("--wrong --help")

    text = str(caught.value)
    assert text.startswith("usage: xmodal small [DATA] [flags]\n\nFlags of every kind.\n\narguments:\n  DATA ")
    assert text.index("flags:") < text.index("--rate FLOAT") < text.index("every command:") < text.index("--json")
    assert "100 % of the step (default: 0.1)" in text and "--mode {mean,sum}" in text
    assert "--labels, --no-labels" in text and "learn from labels (default: yes)" in text
    assert not any(word in text for word in ("--inner", "--place", "use-labels", "NOTHING", "--no-json"))


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = {}
    for columns in (60, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        parser = Parser([Section(Flags), Section(load(METHODS["kd"].settings), "kd", "kd.")], prog="xmodal")
        widths[columns] = max(map(len, parser.format_help().splitlines()))

    assert widths[60] <= 60 < widths[120] <= 120


def test_sections_have_their_prefix_and_values_beneath() -> None:
    sections = [Section(Small), Section(Renamed, "options of kd", "kd.", {"width": 8}, "kd")]

    flags, options = parse_sections(sections, ["--kd.place", "conv1", "words"], prog="xmodal small")
    with pytest.raises(InputError, match=r"^--kd.width is 0: expected a value greater than or equal to 1.$"):
        parse_sections(sections, ["--kd.width", "0"], prog="xmodal small")

    assert flags.data == "words" and options == Renamed(layer="conv1", width=8)


def test_values_with_an_earlier_name_are_read() -> None:
    assert validated(Renamed, {"place": "conv1"}, "x") == Renamed(layer="conv1")
    assert current_names(Renamed, {"place": "conv1", "other": 1}) == {"layer": "conv1", "other": 1}
    with pytest.raises(InputError, match="x has no key 'place'"):
        validated(Renamed, {"place": "conv1", "layer": "conv2"}, "x")


def test_saved_settings_with_an_earlier_name_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = RecipeCard(name="renamed", title="one field", path=f"{__name__}:small", settings=f"{__name__}:Renamed")
    monkeypatch.setitem(RECIPES._cards, "renamed", card)
    write_json(tmp_path / "settings.json", {"recipe": "renamed", "settings": {"place": "conv1"}})
    line = ["--settings", str(tmp_path / "settings.json"), "--width", "5"]

    settings, _ = read_settings("renamed", line, prog="xmodal run renamed")
    changed, _ = read_settings("renamed", [*line, "--place", "conv2"], prog="xmodal run renamed")

    assert settings == Renamed(layer="conv1", width=5) and changed == Renamed(layer="conv2", width=5)


def settings_classes() -> dict[str, type[BaseModel]]:
    """All classes whose fields are flags, by the name of their card."""
    classes: dict[str, type[BaseModel]] = {"own folder": load("xmodal.data.own.folder:FolderSettings")}
    for name, card in [*METHODS.items(), *DATA.items(), *RECIPES.items()]:
        paths = [getattr(card, key, "") for key in ("settings", "evaluation")]
        classes |= {f"{name}: {path}": load(path) for path in paths if path}
        for path in [getattr(card, key, "") for key in ("make", "prepare")]:
            hints = typing.get_type_hints(load(path)) if path else {}
            kinds = [kind for kind in typing.get_args(hints.get("settings")) if inspect.isclass(kind)]
            classes |= {f"{name}: {path}": kind for kind in kinds if issubclass(kind, BaseModel)}
    return classes


@pytest.mark.parametrize("name", settings_classes())
def test_every_flag_of_a_card_has_a_description(name: str) -> None:
    fields = settings_classes()[name].model_fields

    assert [
        name for name, field in fields.items() if not field.description and not flag_of(field.metadata).hidden
    ] == []


def test_a_method_with_the_name_of_a_data_set_keeps_its_flags() -> None:
    line = "discom --methods discom,kd --discom.task-weight 3"

    settings, _ = read_settings("compare", line.split(), prog="xmodal compare")

    assert settings.data == "discom" and settings.options["discom"]["task_weight"] == 3

"""The value that the help prints behind a flag can be typed like that: `--samples INT,INT,INT` as `--samples 8,4,4`."""

import itertools
import re

import pytest
from pydantic import ValidationError

from xmodal.cards import load
from xmodal.cli import data as data_command
from xmodal.cli.deployment import ExportFlags, PredictFlags
from xmodal.cli.embedding import EmbedFlags
from xmodal.cli.experiments import ReproduceFlags
from xmodal.cli.parser import Parser, Section, parse_sections
from xmodal.cli.recipe_flags import RecipeFlags
from xmodal.cli.results import EvaluateFlags, ReportFlags
from xmodal.cli.teacher_table import TeacherTableFlags
from xmodal.data import DATA
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES

# Words of a form that stand for something, and what they stand for.
EXAMPLES = {
    "INT": "2",
    "FLOAT": "0.5",
    "SHARE": "0.5",
    "N": "2",
    "W": "2",
    "A": "1",
    "B": "3",
    "TEXT": "word",
    "NAME": "word",
    "PATH": "path",
    "FILE": "file",
    "DIR": "folder",
    "SOURCE": "source",
    "HOST": "localhost",
    "PORT": "8786",
}
# A value has another form than is printed. Other problems are about its size, or about names that do not exist.
WRONG_FORM = ("_parsing", "_type", "too_short", "too_long", "missing", "literal_error", "int_from_float")


def sections_of_every_command():
    """Command → sections of flags that its help prints."""
    commands = {
        flags.__name__: [Section(flags)]
        for flags in (ExportFlags, PredictFlags, EmbedFlags, ReproduceFlags, EvaluateFlags, ReportFlags)
    }
    commands |= {"teacher-table": [Section(TeacherTableFlags)], "every recipe": [Section(RecipeFlags)]}
    for kind, cards in (("recipe", RECIPES), ("method", METHODS), ("data", DATA)):
        for name, card in cards.items():
            for key in ("settings", "evaluation"):
                if path := getattr(card, key, ""):
                    commands[f"{kind} {name}, {key}"] = [Section(load(path))]
    for name, card in DATA.items():
        for what in ("make", "prepare"):
            if path := getattr(card, what):
                function = load(path)
                words = {"root": data_command.ROOT}
                flags = data_command._flags(function, "", words)
                commands[f"data {what} {name}"] = [Section(flags), *map(Section, data_command._settings(function))]
    return commands


COMMANDS = sections_of_every_command()


def values_of(form):
    """Values that someone types who reads this form: of each alternative, without and with its optional part."""
    found = []
    # alternatives in braces have commas between them, others a bar
    listed = re.fullmatch(r"\{([^{}]*)\}", form)
    for alternative in listed[1].split(",") if listed else re.split(r"\|(?![^\[]*\])", form):
        optional = re.fullmatch(r"(.+?)\[(.+)\]", alternative)
        texts = [optional[1], optional[1] + optional[2]] if optional else [alternative]
        found += [filled for text in texts for filled in fill(text.replace(",…", ""))]
    return found


def fill(text):
    """A text with examples in place of its words; of choices in braces, each one."""
    choices = [part.strip("{}").split(",") if part.startswith("{") else [part] for part in re.split(r"(\{.*?\})", text)]
    texts = ["".join(parts) for parts in itertools.product(*choices)]
    return [re.sub(r"[A-Z]{2,}|\b[A-Z]\b", lambda word: EXAMPLES.get(word[0], word[0]), each) for each in texts]


def test_forms_are_read_as_a_person_reads_them():
    assert values_of("INT,INT,INT") == ["2,2,2"] and values_of("INT[,INT]") == ["2", "2,2"]
    assert values_of("{mean,sum}") == ["mean", "sum"] and values_of("INT|exact") == ["2", "exact"]
    assert values_of("N|A-B|A,B") == ["2", "1-3", "1,3"] and values_of("balanced|W,W,…") == ["balanced", "2,2"]
    assert values_of("dask[:tcp://HOST:PORT]") == ["dask", "dask:tcp://localhost:8786"]
    assert values_of("{a,b}[,{a,b}]") == ["a", "b", "a,a", "a,b", "b,a", "b,b"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_printed_form_parses(command):
    parser = Parser(COMMANDS[command], prog="xmodal")
    refused = []
    for flag, action in parser.flags.items():
        for value in values_of(str(action.metavar)) if action.metavar else ():
            given, problems = parser.read([f"{flag}={value}"])
            number, field = action.dest.split()
            model = parser.sections[int(number)].model
            try:
                model.model_validate(given[int(number)])
            except ValidationError as error:
                kinds = [each["type"] for each in error.errors() if each["loc"][:1] == (field,)]
                problems += [f"{value}: {kind}" for kind in kinds if kind.endswith(WRONG_FORM)]
            refused += [f"{flag} {action.metavar}: {problem}" for problem in problems]

    assert refused == []


def test_words_apart_are_refused_with_a_sentence_since_they_are_not_what_is_printed():
    with pytest.raises(InputError, match="does not know what to do with '4'"):
        parse_sections(COMMANDS["data make mosi"], ["root", "--samples", "8", "4", "4"], prog="xmodal data make mosi")

    _, settings = parse_sections(COMMANDS["data make mosi"], ["root", "--samples", "8,4,4"], prog="xmodal")
    assert settings.samples == (8, 4, 4) and "INT,INT,INT" in Parser(COMMANDS["data make mosi"], prog="x").format_help()

"""Cards: how a method, loss, data set or recipe is announced, once, to the commands, the tests and the README.

A card holds facts and the import path of the code behind them. The lists of cards import nothing heavy, so that
`xmodal list` and `--help` answer at once; `card.load()` brings the code in when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xmodal.errors import InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Card:
    """What every list tells of its entries.

    Attributes:
        name: the word users type.
        title: half a line that says what it is.
        path: ``package.module:attribute`` of the code behind it.
        year: year of publication, None where nothing was published.
        paper: short reference with a link or identifier.
    """

    name: str
    title: str
    path: str
    year: int | None = None
    paper: str = ""

    def load(self) -> Any:
        """The object named by ``path``."""
        return load(self.path)


@dataclass(frozen=True, kw_only=True)
class MethodCard(Card):
    """A method: its ``path`` leads to ``build(kit, settings) -> Method``.

    Attributes:
        settings: import path of the pydantic class that holds its coefficients.
        teacher: ``none``; ``frozen`` (trained before, then fixed); ``own`` (trains its teachers itself).
        paired: whether row i of one modality must show the same thing as row i of another.
        modalities: how many it takes, in words.
        tasks: kinds of target it knows.
        targets: ``sample`` (it has one answer per sample), ``place`` (one for every pixel, dense data) or ``any``.
    """

    settings: str
    teacher: str
    paired: bool
    modalities: str
    tasks: tuple[str, ...]
    targets: str = "any"


@dataclass(frozen=True, kw_only=True)
class LossCard(Card):
    """A distillation loss: ``path`` leads to a function or a module class, student first, teacher second.

    Attributes:
        needs: what it reads, from ``logits``, ``features``, ``labels``, ``pairs`` (row i of both sides must show the
            same thing), ``memory`` (of all rows of the training split).
        inputs: ``logits`` (rows, classes), ``vectors`` (rows, width), ``maps`` (rows, channels, height, width),
            ``any`` (rows, …) or ``stages`` (two maps of each network).
        samples: ``pointwise`` (a sum over rows, so rows can be weighted), ``mixing`` (rows are compared with one
            another) or ``ordered`` (the order of the rows counts).
        module: True: the path leads to an ``nn.Module`` class with parameters or a memory.
        widths: ``same`` (adaptors are needed between different widths) or ``any``.
        weight: the paper's or its code's usual weight of the term.
    """

    needs: tuple[str, ...]
    inputs: str = "logits"
    samples: str = "pointwise"
    module: bool = False
    widths: str = "same"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DataCard(Card):
    """A data set: ``path`` leads to ``load(root, settings, request) -> Data``, see `DataRequest`.

    Attributes:
        settings: import path of the pydantic class with its options. A data set that is read from files has an option
            ``root``, the folder; one that can do without them has ``stand_in`` as well.
        modalities: the inputs it offers.
        make: import path of ``make(root, *, format, seed) -> Path``, which writes a small copy in the real format.
        prepare: import path of ``prepare(raw, root, *, progress) -> Prepared``, where raw files need converting.
        prepared_as: name under which it is prepared, where that isn't its own.
        check: import path of ``check(root) -> Report | None``: what is wrong with a folder of its own format, None if
            the folder is none.
        files: what the folder has to hold, for sentences; empty when it needs none.
        single: ending of a file that may stand in place of the folder; empty: none may.
        built_in: True when it needs no files.
    """

    settings: str
    modalities: tuple[str, ...]
    make: str = ""
    prepare: str = ""
    prepared_as: str = ""
    check: str = ""
    files: str = ""
    single: str = ""
    built_in: bool = False


@dataclass(frozen=True, kw_only=True)
class RecipeCard(Card):
    """An experiment: its ``path`` leads to ``run(settings) -> dict`` and ``settings`` to its settings class.

    Attributes:
        settings: import path of the pydantic settings class.
        references: file of published figures beside the recipes, empty when there are none.
        published: import path of ``published()``, the settings behind those figures: one object, or several by name,
            which then begins the keys of their figures (``table2/teacher.0.25``).
        scores: name of the data set that this experiment scores in a way of its own; empty: none.
        evaluate: import path of the function that does, with the signature of `xmodal.study.scoring.Evaluate`.
        evaluation: import path of the pydantic class with its options, which are flags of `xmodal evaluate`.
    """

    settings: str
    references: str = ""
    published: str = ""
    scores: str = ""
    evaluate: str = ""
    evaluation: str = ""


C = TypeVar("C", bound=Card)


class Cards(Mapping[str, C], Generic[C]):
    """A hand-written list of cards, looked up by name; an unknown name is answered with the closest one."""

    def __init__(self, kind: str, cards: Iterable[C]) -> None:
        self.kind = kind
        self._cards = {card.name: card for card in cards}

    def __getitem__(self, name: str) -> C:
        if name not in self._cards:
            raise InputError(f"There is no {self.kind} called '{name}'. {did_you_mean(name, self._cards)}")
        return self._cards[name]

    def __contains__(self, name: object) -> bool:
        return name in self._cards

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)


def load(path: str) -> Any:
    """Import ``package.module:attribute``.

    Example:
        >>> load("math:sqrt")(9.0)
        3.0
    """
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)

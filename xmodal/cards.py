"""Cards: the description of a method, loss, data set or recipe that commands, tests and README read.

A card holds facts and the import path of the code. The lists of cards import nothing slow, so `xmodal list` and
`--help` respond immediately; `card.load()` imports the code when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xmodal.errors import InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the cards of all lists have in common.

    Attributes:
        name: the word users type.
        title: a short description, half a line.
        path: ``package.module:attribute`` of the code.
        year: year of publication; None: not published.
        paper: short reference with a link or identifier.
    """

    name: str
    title: str
    path: str
    year: int | None = None
    paper: str = ""

    def load(self) -> Any:
        """Import the object at ``path``."""
        return load(self.path)


@dataclass(frozen=True, kw_only=True)
class MethodCard(Card):
    """A method: its ``path`` is that of ``build(kit, settings) -> Method``.

    Attributes:
        settings: import path of the pydantic class with its coefficients.
        teacher: ``none``; ``frozen`` (trained before, then fixed); ``own`` (the method trains its teachers itself).
        paired: whether row i of every modality must belong to the same sample.
        modalities: how many modalities it takes, in words.
        tasks: tasks it supports, of `xmodal.names.TASKS`.
        targets: ``sample`` (one target per sample), ``place`` (one per pixel or voxel: dense data) or ``any``.
        unlabelled: what the method does with training rows that have no label, in one sentence.
        weights: what can weight its loss of labels: ``classes`` and ``rows``.
        networks: ``given`` (it trains the networks that the bench builds, or those of the user) or ``own``.
    """

    settings: str
    teacher: str
    paired: bool
    modalities: str
    tasks: tuple[str, ...]
    targets: str = "any"
    # what a method does whose `uses_unlabelled` is not set
    unlabelled: str = "left out: it trains on the labelled rows alone"
    weights: tuple[str, ...] = ("classes", "rows")
    networks: str = "given"


@dataclass(frozen=True, kw_only=True)
class LossCard(Card):
    """A distillation loss: ``path`` is that of a function or module class; the student comes first, then the teacher.

    Attributes:
        needs: what it reads, from ``logits``, ``features``, ``labels``, ``pairs`` (row i of student and teacher must
            belong to the same sample), ``memory`` (of all rows of the training split).
        inputs: ``logits`` (rows, classes), ``vectors`` (rows, width), ``maps`` (rows, channels, height, width),
            ``any`` (rows, …) or ``stages`` (two maps of each network).
        samples: ``pointwise`` (a sum over rows, so rows can be weighted), ``mixing`` (rows are compared with one
            another) or ``ordered`` (the order of the rows counts).
        module: whether ``path`` is that of an ``nn.Module`` class, with parameters or a memory.
        widths: ``same`` (adaptors are needed between different widths) or ``any``.
        weight: usual weight of the term, from the paper or its code.
    """

    needs: tuple[str, ...]
    inputs: str = "logits"
    samples: str = "pointwise"
    module: bool = False
    widths: str = "same"
    weight: float = 1.0

    @property
    def labelled_only(self) -> bool:
        """Whether it is computed on the labelled rows alone: it reads labels, or stores rows by their number."""
        return bool({"labels", "memory"} & set(self.needs))

    @property
    def rows(self) -> str:
        """The rows of a batch that it is computed on, in words."""
        return "labelled rows only" if self.labelled_only else "all rows"


@dataclass(frozen=True, kw_only=True)
class DataCard(Card):
    """A data set: ``path`` leads to ``load(root, settings, request) -> Data``, see `DataRequest`.

    Attributes:
        settings: import path of the pydantic class with its options. A data set that is read from files has an option
            ``root``, the folder; one that also works without files has ``stand_in`` as well, and one whose
            files other options can name has a property ``rootless``.
        modalities: inputs of the data set.
        make: import path of ``make(root, *, format, seed) -> Path``, which writes a small synthetic copy in the real
            format.
        prepare: import path of ``prepare(raw, root, *, progress) -> Prepared``, where raw files must be converted.
        prepared_as: name of the data set for `xmodal data prepare`; empty: ``name``.
        check: import path of ``check(root) -> Report | None``, which lists what is wrong with a folder in the format of
            this data set; None: the folder has another format.
        files: what the folder must contain, for error messages; empty: no files are needed.
        single: suffix of a single file that is accepted in place of the folder; empty: no file is accepted.
        built_in: whether it needs no files.
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
    """An experiment: its ``path`` is that of ``run(settings) -> dict``.

    Attributes:
        settings: import path of the pydantic settings class.
        references: ``package:path`` of the file with published figures; empty: there are none.
        published: import path of ``published()``, the settings behind those figures: one object, or a dictionary by
            name, where each name is the prefix of the keys of its figures (``table2/teacher.0.25``).
        scores: name of the data set for which this experiment has its own scoring; empty: none.
        evaluate: import path of the function for that scoring, with the signature of `xmodal.study.scoring.Evaluate`.
        evaluation: import path of the pydantic class with its options, which become flags of `xmodal evaluate`.
        weights: import path of ``open_weights(path, network, info) -> Student``, which reads weights of the authors'
            code for the data set that the settings name; empty: there is no such reader.
    """

    settings: str
    references: str = ""
    published: str = ""
    scores: str = ""
    evaluate: str = ""
    evaluation: str = ""
    weights: str = ""


C = TypeVar("C", bound=Card)


class Cards(Mapping[str, C], Generic[C]):
    """Cards by name; the error for an unknown name suggests the closest one."""

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

"""A teacher with other classes than the data: its classes by name, and outputs over those that both have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_text
from xmodal.teachers.kinds import FLOOR, shared_names
from xmodal.teachers.table import Table
from xmodal.types import DataInfo

NUMBERED = re.compile(r"(?:label[_ ]?)?(\d+)", re.IGNORECASE)  # the number of a class in place of a name, as LABEL_0


@dataclass(frozen=True)
class ClassMap:
    """How the classes of a teacher become those of the data.

    Attributes:
        columns: class of the data → columns of the teacher's outputs; empty: the teacher does not have it.
        width: how many classes the teacher has.
        sentence: for the notes of a result; empty: both have the same classes in the same order.
    """

    columns: tuple[tuple[int, ...], ...]
    width: int
    sentence: str = ""

    @property
    def lacking(self) -> tuple[int, ...]:
        """The classes of the data that the teacher does not have."""
        return tuple(number for number, columns in enumerate(self.columns) if not columns)

    def __call__(self, outputs: NDArray[np.float32], task: str) -> NDArray[np.float32]:
        """Outputs (rows, classes of the data) from those of the teacher (rows, its classes).

        The softmax of the result is that of the teacher, renormalised over the classes that both have: logits of the
        others are left out, those of classes that become one class are joined.
        """
        if not self.sentence:
            return outputs
        if task != "multiclass":
            return outputs[:, [columns[0] for columns in self.columns]]
        # a class that the teacher does not have gets (almost) no probability, whatever the scale of its logits
        least = outputs[:, [column for columns in self.columns for column in columns]].max(axis=1) + 2 * np.log(FLOOR)
        return np.stack(
            [_joined(outputs[:, list(columns)]) if columns else least for columns in self.columns], axis=1
        ).astype(np.float32)


def _joined(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit of several classes together."""
    if logits.shape[1] == 1:
        return logits[:, 0]  # unchanged to the last bit
    joined: NDArray[np.float32] = np.logaddexp.reduce(logits, axis=1)
    return joined


def class_map(given: Any, named: Sequence[str], info: DataInfo, where: str) -> ClassMap:
    """The map from a teacher's classes to those of the data.

    Args:
        given: as in `TeacherRequest.classes`.
        named: names that the source has for its classes; empty: none.
        info: of the data.
        where: name of the teacher for sentences.
    """
    count = info.classes
    if info.task in ("regression", "binary"):
        if given is not None:
            raise InputError(f"The classes of the teacher were given, and the data is {info.task}. Leave them out.")
        stated = _read(None, named)[0]
        if info.task == "binary" and stated and stated != names_of(info):
            raise InputError(
                f"{where} has the classes {', '.join(stated)}, and the data has {', '.join(names_of(info))}: with one "
                "output for two classes the same order was expected. Use the task multiclass."
            )
        return ClassMap(tuple((number,) for number in range(count)), count)
    names, renamed = _read(given, named)
    if not names:
        return ClassMap(tuple((number,) for number in range(count)), count)
    ours = names_of(info)
    wanted = [renamed.get(name, name) for name in names]
    if strange := [name for name in renamed.values() if name not in ours]:
        raise InputError(f"The classes of {where} lead to '{strange[0]}'. {did_you_mean(strange[0], ours)}")
    columns = tuple(tuple(place for place, name in enumerate(wanted) if name == each) for each in ours)
    shared = [name for name, places in zip(ours, columns, strict=True) if places]
    unnamed = not (info.class_names or info.label_values)
    if given is None and len(shared) < len(ours) and len(names) == count and unnamed:
        # the order is all there is to go by
        return ClassMap(tuple((number,) for number in range(count)), count)
    if len(shared) < min(2, count):
        raise InputError(
            f"{where} has the classes {shared_names(names)}, and the data has {shared_names(ours)}: none or one of "
            "them is the same. Say which is which with --teacher-classes (a .json file with a dictionary)."
        )
    lacking = [name for name, places in zip(ours, columns, strict=True) if not places]
    if info.task == "multilabel" and (lacking or any(len(places) > 1 for places in columns)):
        raise InputError(
            f"{where} must have each label of the data once, and lacks {shared_names(lacking) or 'none'}. Leave these "
            "labels out of the data."
        )
    if not lacking and columns == tuple((number,) for number in range(len(names))):
        return ClassMap(columns, count)
    extra = [name for name in wanted if name not in ours]
    sentence = f"of its {len(names)} classes {len(names) - len(extra)} are used"
    sentence += ", renormalised over these" if extra else ""
    if lacking:
        sentence += f"; it does not know {shared_names(lacking)}, so rows with that label have no answer"
    return ClassMap(columns, len(names), sentence)


def names_of(info: DataInfo) -> list[str]:
    """The classes of the data as text: their names, or else the labels as the data has them."""
    return [str(name) for name in info.class_names or info.label_values or range(info.classes)]


def with_named_classes(table: Table, given: Any, info: DataInfo) -> Table:
    """A table of predicted classes whose labels stand in for the numbers of its columns.

    Text is looked up among the names of the teacher's classes, or else among those of the data. So are integers where
    the labels of the data are integers of the user's own.
    """
    values = table.values
    own_numbers = any(isinstance(label, int) and not isinstance(label, bool) for label in info.label_values)
    if values.ndim != 1 or info.task not in ("multiclass", "binary"):
        return table
    if values.dtype.kind in "iu" and own_numbers and table.kind in ("auto", "classes"):
        known = np.isin(values, np.array(info.label_values))
        values = np.where(known | (values != -1), values.astype(str), "")
    if values.dtype.kind != "U":
        return table
    names = list(table.class_names) or _read(given, ())[0] or names_of(info)
    return replace(table, values=values, kind="classes", class_names=tuple(names))


def _read(given: Any, named: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The names of the teacher's classes in their order, and teacher's class → class of the data."""
    numbers = [NUMBERED.fullmatch(name) for name in named]
    # names that only count say nothing; 10, 20, 30 are labels
    counted = all(number and int(number[1]) == place for place, number in enumerate(numbers))
    stated = [] if counted else list(named)
    if isinstance(given, str | Path):
        given = _of_file(Path(given))
    if given is None:
        return stated, {}
    if isinstance(given, Mapping):
        renamed = {str(name): str(ours) for name, ours in given.items()}
        if strange := [name for name in renamed if named and name not in named]:
            raise InputError(f"The teacher has no class called '{strange[0]}'. {did_you_mean(strange[0], named)}")
        # a dictionary of all classes has their order, too
        return list(named) or list(renamed), renamed
    names = [str(name) for name in given]
    if len(set(names)) < len(names):
        raise InputError(
            "The list of the teacher's classes names one of them twice. Give a dictionary to join classes."
        )
    if named and len(named) != len(names):
        raise InputError(f"The list names {len(names)} classes, and the teacher has {len(named)}. Name each of them.")
    return names, {}


def _of_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the names of the teacher's classes, one in a line, or .json.")
    text = read_text(path)
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON ({error}). A list of names or a dictionary was expected.") from None
    if not isinstance(content, list | dict):
        raise InputError(f"{path} holds {type(content).__name__}: a list of names or a dictionary was expected.")
    return content

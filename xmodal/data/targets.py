"""Targets of any type: text, booleans, whole numbers, floats and pandas columns, and the class numbers they become.

given ──read_target──▶ RawTarget ──infer_task──▶ task ──Classes.of──▶ class numbers from 0; -1: no label

Networks are trained on class numbers. `Classes` keeps the labels as they were given, and so does every student, whose
predictions are labels again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.samples import as_array
from xmodal.data.unlabelled import SINGLE, has_label, is_missing_row, marked
from xmodal.errors import InputError
from xmodal.names import UNLABELLED
from xmodal.types import DataInfo, Label

# floats are classes only if there are at most so many different ones, each at least so many times
MOST_FLOATS, LEAST_ROWS = 50, 2
KINDS = {"U": "strings", "b": "booleans", "i": "integers", "u": "integers", "f": "floats"}
LISTED = 6  # names of classes in a sentence


@dataclass(frozen=True)
class RawTarget:
    """Targets as they were given.

    Attributes:
        values: (rows,) or (rows, …), text, booleans, integers or floats. A row without a label is empty text or NaN, or
            the integer that means "no label".
        kind: ``strings``, ``booleans``, ``integers`` or ``floats``: what the labels are. Booleans and integers are
            stored as floats where some are missing; empty: something that can't be a target.
        order: the categories of a pandas column in their order, those without a row among them; empty: no such column.
    """

    values: NDArray[Any]
    kind: str
    order: tuple[Label, ...] = ()

    @property
    def source(self) -> str:
        """What the labels come from, in a word for people."""
        return "categories" if self.order else self.kind

    @property
    def task(self) -> str:
        """The task that the targets suggest."""
        return infer_task(self.values, self.kind)


def infer_task(target: NDArray[Any], kind: str = "") -> str:
    """``multilabel`` for a table of zeros and ones, ``multiclass`` for one label per row or place, or ``regression``.

    Floats are classes if all that are there are whole, none is negative, at most 50 are distinct and each occurs at
    least twice; otherwise they are values of a regression. Two classes are ``multiclass`` too; ``binary`` (one logit)
    has to be chosen by name.

    Args:
        target: the targets.
        kind: of the labels, see `RawTarget`; empty: that of their type.

    Example:
        >>> infer_task(np.array([0.0, 1.0, 0.0, 1.0])), infer_task(np.array([0.0, 1.5])), infer_task(np.array([0, 7]))
        ('multiclass', 'regression', 'multiclass')
    """
    table = target.ndim == 2 and target.shape[1] > 1
    kind = kind or KINDS.get(target.dtype.kind, "")
    if kind == "floats" and (why_no_classes(target) or (table and not np.isin(_known(target), (0, 1)).all())):
        return "regression"
    # a table of text is no table of zeros and ones: the checks say so
    return "multilabel" if table and kind in ("integers", "booleans", "floats") else "multiclass"


def why_no_classes(target: NDArray[Any]) -> str:
    """Why floats are values of a regression and no classes; empty: they are classes.

    Example:
        >>> why_no_classes(np.array([1.0, 2.0, 2.0])), why_no_classes(np.array([1.0, np.nan, 1.0]))
        ('some occur once', '')
    """
    known = _known(target)
    if not known.size or not np.isfinite(known).all() or (known != np.round(known)).any():
        return "some are not whole"
    values, counts = np.unique(known, return_counts=True)
    if values[0] < 0:
        return "some are negative"
    if len(values) > MOST_FLOATS:
        return f"more than {MOST_FLOATS} are distinct"
    return "" if counts.min() >= LEAST_ROWS else "some occur once"


def _known(target: NDArray[Any]) -> NDArray[Any]:
    return target[~np.isnan(target)] if target.dtype.kind == "f" else target.reshape(-1)


def read_target(where: str, value: Any, label: int | None = UNLABELLED) -> RawTarget:
    """Targets from an array, a tensor, a list, or a pandas Series, Categorical or DataFrame.

    Args:
        where: name of the targets for error messages.
        value: the targets; None, NaN, pandas' NA and empty text mean that a row has no label.
        label: integer that means it too; None: no integer.

    Example:
        >>> read_target("y", ["cat", None, "dog"]).values.tolist(), read_target("y", [2, None, 0])
        (['cat', '', 'dog'], RawTarget(values=array([ 2., nan,  0.]), kind='integers', order=()))
    """
    # by their attributes: pandas is not imported. Its Series has them under `cat`, and raises AttributeError otherwise
    categorical = getattr(value, "cat", value)
    if hasattr(categorical, "categories") and hasattr(categorical, "codes"):
        order = list(categorical.categories)
        codes = np.asarray(categorical.codes).tolist()
        labels = read_target(f"{where} (its categories)", order)
        each = read_target(where, [order[code] if code >= 0 else None for code in codes], label)
        return replace(each, kind=labels.kind, order=tuple(labels.values.tolist()))
    # pandas and others: an array of objects where values are missing. Tensors are converted by `as_array`
    if hasattr(value, "__array__") and hasattr(value, "to_numpy"):
        # pandas' own types, such as Int64, become floats where some are missing, unless objects are asked for
        own = not isinstance(getattr(value, "dtype", np.dtype(float)), np.dtype)
        value = np.asarray(value, dtype=object if own else None)
    raw = _from_objects(where, value) if _holds_objects(value) else None
    if raw is None:
        array = as_array(where, value)
        # a table with None in it is an array of objects only now
        nested = _from_objects(where, array) if array.dtype.kind == "O" and array.ndim > 1 else None
        raw = nested or _from_array(array)
    return _flat(raw, label)


def _flat(raw: RawTarget, label: int | None) -> RawTarget:
    """Targets of one column as (rows,), and gaps among integers that are stored as floats as NaN."""
    # one column is the usual form of a frame; a regression has the shape (rows, 1) again when it is typed
    if raw.values.ndim == 2 and raw.values.shape[1] == 1:
        raw = replace(raw, values=raw.values[:, 0])
    # integers with None among them are stored as floats, in which the checks look for NaN alone
    if raw.kind == "integers" and raw.values.dtype.kind == "f" and label is not None:
        raw = replace(raw, values=np.where(raw.values == label, np.nan, raw.values))
    return raw


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind == "O")


def _from_array(array: NDArray[Any]) -> RawTarget:
    # ``S`` is text of one byte per letter, which NumPy reads from older files
    if array.dtype.kind == "S":
        array = np.char.decode(array, "latin-1")
    return RawTarget(array, KINDS.get(array.dtype.kind, ""))


def _from_objects(where: str, value: Any) -> RawTarget | None:
    """Targets from a list or an array of objects; None: of nested lists without gaps, which NumPy reads."""
    array = value if isinstance(value, np.ndarray) else None
    rows = list(value) if array is None else array.reshape(-1).tolist()
    rows = [_plain(row) for row in rows]
    absent = np.array([is_missing_row(row) for row in rows], dtype=bool)
    kinds = {KINDS.get(_letter(row), "") for row, gone in zip(rows, absent, strict=True) if not gone}
    if not kinds:
        return RawTarget(np.full(len(rows), np.nan), "floats")
    if "strings" in kinds and len(kinds) > 1:
        raise InputError(f"{where} mixes text and other values: labels of one type were expected. Convert them.")
    if "" in kinds:
        return _rows_with_gaps(where, rows, absent) if absent.any() else None
    # True and 2 are both integers, and 1 and 0.5 both floats: the type that holds all of them
    kind = next(kind for kind in ("strings", "floats", "integers", "booleans") if kind in kinds)
    nothing = "" if kind == "strings" else float("nan")
    values = np.array([nothing if gone else row for row, gone in zip(rows, absent, strict=True)])
    if values.dtype.kind == "O":
        raise InputError(f"{where} holds integers of more than 64 bits. Convert them to text.")
    return RawTarget(values.reshape(len(rows) if array is None else array.shape), kind)


def _plain(value: Any) -> Any:
    """A tensor or array of a single number as that number; anything else unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _letter(value: Any) -> str:
    """NumPy's letter for the type of one label; empty: it is none."""
    # bool before int, of which it is a kind in Python
    types = ((bool, "b"), (int, "i"), (float, "f"), (str, "U"))
    return next((letter for kind, letter in types if isinstance(value, kind)), "")


def _rows_with_gaps(where: str, rows: Sequence[Any], absent: NDArray[np.bool_]) -> RawTarget:
    """Rows of several values, of which those without a label are None: these become rows of NaN."""
    known = as_array(where, [row for row, gone in zip(rows, absent, strict=True) if not gone])
    kind = KINDS.get(known.dtype.kind, "")
    if kind in ("", "strings"):
        return RawTarget(known, "")
    filled = np.full((len(rows), *known.shape[1:]), np.nan)
    filled[~absent] = known
    return RawTarget(filled, kind)


def guess_warning(where: str, raw: RawTarget) -> list[str]:
    """A warning about the task of whole numbers that are stored as floats; none about other targets."""
    known = _known(raw.values) if raw.kind == "floats" else np.zeros(0)
    if not known.size or not np.isfinite(known).all() or (known != np.round(known)).any():
        return []
    if raw.task == "regression":
        reason = why_no_classes(raw.values) or "some are neither 0 nor 1"
        return [
            f"{where} holds whole numbers stored as floats, and {reason}, so the task is taken as regression. If they "
            "are classes, set task to multiclass."
        ]
    return [
        f"{where} holds whole numbers stored as floats, so the task is taken as {raw.task}. If they are measured "
        "values, set task to regression."
    ]


@dataclass(frozen=True)
class Classes:
    """The labels of the classes, in the order of the class numbers.

    Attributes:
        labels: as they were given; empty: class numbers stand for themselves, or the targets are no single classes.
        names: one per class, for tables and figures; empty: their numbers.
        source: what the labels come from, see `RawTarget`.
    """

    labels: tuple[Label, ...] = ()
    names: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def of(
        cls,
        targets: Iterable[RawTarget],
        task: str,
        *,
        class_names: Sequence[str] = (),
        ignore: int | None = None,
        label: int | None = UNLABELLED,
    ) -> Classes:
        """The classes of valid targets, which several modalities may have together.

        Text is sorted, or in the order of ``class_names``, of which those without a row are classes too. Categories
        keep their order; those without a row are no classes, as in scikit-learn. Numbers are sorted. Integers are class
        numbers already if they are 0, 1, 2, …, or count the class names from 0. Other numbers may have as many names,
        in ascending order, and categories a name for each of them.

        Args:
            targets: of all modalities.
            task: kind of target.
            class_names: one name per class; empty: the labels as text, if they are no class numbers already.
            ignore: number that is no class; given: class numbers stay as they are.
            label: integer that means "no label"; None: no integer.

        Example:
            >>> Classes.of([read_target("y", [7, 3, 7])], "multiclass").labels
            (3, 7)
        """
        given, names = list(targets), tuple(class_names)
        source = given[0].source
        if task not in SINGLE or ignore is not None or any(each.values.ndim > 1 for each in given):
            return cls((), names, source)
        found = found_labels(given, label)
        if given[0].kind == "strings":
            labels: tuple[Label, ...] = names or _in_order(given, found)
            return cls(labels, names or tuple(map(str, labels)), source)
        categories = tuple(dict.fromkeys(value for raw in given for value in raw.order))
        if names and len(names) == len(categories):
            return cls(categories, names, source)
        labels = _in_order(given, found)
        if given[0].kind == "integers" and (
            counts_names(found, names) if names else labels == tuple(range(len(labels)))
        ):
            return cls((), names, source)
        return cls(labels, names or tuple(map(as_text, labels)), source)

    def numbers(self, raw: RawTarget, task: str, label: int | None = UNLABELLED) -> NDArray[Any]:
        """The targets as class numbers, -1 in rows without a label; those of other tasks are unchanged."""
        if not self.labels:
            return marked(raw.values, task, label)
        known = has_label(raw.values, _among(raw, label))
        values, places = np.unique(raw.values[known], return_inverse=True)
        number = {value: place for place, value in enumerate(self.labels)}
        numbers = np.full(len(raw.values), UNLABELLED, dtype=np.int64)
        numbers[known] = np.array([number[value] for value in values.tolist()])[places.reshape(-1)]
        return numbers


def counts_names(found: Sequence[Any], names: Sequence[str]) -> bool:
    """Whether integers are positions in a list of class names."""
    return bool(min(found) >= 0 and max(found) < len(names))


def found_labels(targets: Iterable[RawTarget], label: int | None = UNLABELLED) -> list[Any]:
    """The different labels that occur, sorted, in the type in which they were given."""
    found: set[Any] = set()
    for raw in targets:
        values = np.unique(raw.values[has_label(raw.values, _among(raw, label))]).tolist()
        kind: Any = {"booleans": bool, "integers": int}.get(raw.kind)
        # where some are missing, both are stored as floats
        found.update(map(kind, values) if kind else values)
    return sorted(found)


def _among(raw: RawTarget, label: int | None) -> int | None:
    """The integer that means "no label" in these targets, if they hold integers."""
    return label if raw.values.dtype.kind in "iu" else None


def _in_order(targets: Sequence[RawTarget], found: Sequence[Any]) -> tuple[Label, ...]:
    """The labels that occur in the order of the categories, or else sorted."""
    order, there = dict.fromkeys(value for raw in targets for value in raw.order), set(found)
    return tuple(value for value in order if value in there) if order else tuple(found)


def as_text(label: Label) -> str:
    """A label as the name of its class.

    Example:
        >>> [as_text(label) for label in ("cat", 3, 3.0, True)]
        ['cat', '3', '3', 'True']
    """
    return f"{label:g}" if isinstance(label, float) and label == round(label) else str(label)


def target_facts(info: DataInfo, kind: str = "") -> dict[str, Any]:
    """What the targets are, for `result.json`: task, classes and their labels, and a sentence for people.

    Args:
        info: of the data.
        kind: of the labels as they were given, see `RawTarget`; empty: not known.
    """
    return {
        "task": info.task,
        "classes": info.classes,
        "labels": list(info.label_values),
        "class_names": list(info.class_names),
        "from": kind,
        "sentence": target_sentence(info, kind),
    }


def target_sentence(info: DataInfo, kind: str = "") -> str:
    """One sentence on the targets, as `target_facts` has it.

    Example:
        >>> target_sentence(DataInfo({}, "multiclass", 2, {}, label_values=("cat", "dog")), "strings")
        'Targets: 2 classes (cat, dog), from strings.'
    """
    names = list(info.class_names or map(as_text, info.label_values or range(info.classes)))
    # class numbers are not in their names
    if info.class_names and info.label_values and names != (texts := list(map(as_text, info.label_values))):
        names = [f"{text} = {name}" for text, name in zip(texts, names, strict=True)]
    shown = ", ".join(names[:LISTED]) + ", …" * (len(names) > LISTED)
    source = f", from {kind}" if kind else ""
    if info.task == "regression":
        return f"Targets: {info.classes} value{'s' * (info.classes > 1)} per sample (regression){source}."
    if info.task == "multilabel":
        return f"Targets: {info.classes} labels per sample, each present or not ({shown}){source}."
    binary = ", one output" if info.task == "binary" else ""
    place = " for every place of a sample" if info.dense else ""
    return f"Targets: {info.classes} classes{place} ({shown}){binary}{source}."

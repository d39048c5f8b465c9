"""Reads the pickles of MOSI and MOSEI as data: nothing is ever unpickled, and no name of a file is ever looked up.

A pickle is a program for a small machine with a stack, and may name and call any function that is installed. This file
runs that machine itself, with those of its instructions that numbers, text, lists and dictionaries are written in:

    numpy.ndarray   numpy.dtype   numpy.core.multiarray._reconstruct   numpy.core.multiarray.scalar
    numpy.core.numeric._frombuffer   _codecs.encode                    (numpy._core likewise)

A name on this list stands for a few lines below, which check what they are given, and never for the function that is
called so. Every other name, every reference out of the file and every other instruction ends the reading with a
sentence. Protocols 0 to 5 are read.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

Numbers = NDArray[Any]
KNOWN = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "frombuffer" for core in ("core", "_core")},
}
LITERALS = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NOTHING = ("PROTO", "FRAME", "STOP")
BUILDERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
OUTSIDE = {
    "PERSID": "an object that is not in the file (a persistent id)",
    "BINPERSID": "an object that is not in the file (a persistent id)",
    "EXT1": "number {} of Python's extension registry",
    "EXT2": "number {} of Python's extension registry",
    "EXT4": "number {} of Python's extension registry",
    "NEXT_BUFFER": "a buffer that is not in the file",
}
DAMAGED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, struct.error)


class _Forbidden(Exception):
    """A pickle names what no numbers and text need."""


def read_pickle(path: Path) -> Any:
    """What a pickle holds: numbers, text, lists, tuples, dictionaries, and `Array` for arrays.

    Example:
        >>> import tempfile, pickle
        >>> path = Path(tempfile.mkdtemp()) / "some.pkl"
        >>> _ = path.write_bytes(pickle.dumps({"y": np.arange(3)}))
        >>> opened(read_pickle(path)["y"])
        array([0, 1, 2])
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Machine().run(_Bounded(file, size))
    except _Forbidden as error:
        raise InputError(
            f"{path} asks for {error}, which neither numbers nor text need. It was not opened further, and nothing of "
            "it was run. If you trust where the file comes from, report what it asks for."
        ) from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except DAMAGED as error:
        told = str(error).partition("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path} is damaged or no pickle ({told}). Copy or download it again.") from None


def opened(value: Any) -> Any:
    """The array that a value stands for: numbers as they are, text and other objects as a list; others unchanged."""
    return value.content if isinstance(value, Array) else value


class Array:
    """An array in a pickle.

    Attributes:
        content: the numbers, or a list where the array holds objects.
    """

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: Numbers | list[Any] | None = None

    def fill(self, shape: Any, kind: Any, fortran: Any, raw: Any) -> None:
        """Take what the state of an array says: so many elements of this type."""
        if not isinstance(kind, _Type) or not kind.code.startswith("O"):
            self.content = _numbers(raw, kind, shape, fortran=bool(fortran))
            return
        if not isinstance(raw, list) or not _is_shape(shape) or shape != (len(raw),):
            raise ValueError("an array of objects that is no list of them")
        self.content = [opened(entry) for entry in raw]


class _Type:
    """A type of numbers or text, by its code: ``f4``, ``U12``, or ``O8`` for objects."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|[OUS]\d{0,8})", code):
            raise ValueError(f"an array of the type {_shown(code)[:40]}: numbers or text were expected")
        self.order = code[0] if code[0] in "<>|=" else "="
        self.code = code.lstrip("<>|=")

    def fill(self, order: Any, subtype: Any, names: Any, fields: Any) -> None:
        if order not in ("<", ">", "|", "=") or subtype is not None or names is not None or fields is not None:
            raise ValueError("an array whose elements have parts of their own: numbers or text were expected")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Name:
    """A name of the list; what it stands for is in `_Machine.call`."""

    __slots__ = ("means",)

    def __init__(self, means: str) -> None:
        self.means = means


class _Bounded:
    """A file that refuses to read beyond its end before memory is taken for it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("it ends too early")
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(2**20)
        self.left -= len(line)
        return line


class _Machine:
    """The stack, the marks on it, and the memory."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memory: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for code, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            self.step(code.name, argument)
        (answer,) = self.stack
        return answer

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self.memory[len(self.memory) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memory[argument])
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in BUILDERS:
            stack.append(BUILDERS[name]())
        elif name in ACTIONS:
            ACTIONS[name](self)
        elif name in ("GLOBAL", "INST"):
            self.name(*argument.split(" ", 1))
        elif name in OUTSIDE:
            raise _Forbidden(OUTSIDE[name].format(argument))
        elif name not in NOTHING:
            raise _Forbidden(f"the instruction {name}")

    def name(self, module: str, attribute: str) -> None:
        """Put a name of the list on the stack."""
        full = f"{module}.{attribute}"
        if full not in KNOWN:
            raise _Forbidden(_shown(full))
        self.stack.append(_Name(KNOWN[full]))

    def global_of_stack(self) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("a name that is no text")
        self.name(module, attribute)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.marked.pop()
        return found

    def tuple_of(self, count: int) -> None:
        parts = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(parts)))

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def append(self, entries: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("entries for something that is no list")
        target.extend(entries)

    def set_items(self, entries: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(entries) % 2:
            raise ValueError("entries for something that is no dictionary")
        if not all(isinstance(key, str | int) for key in entries[::2]):  # others could take for ever to look up
            raise ValueError("a dictionary whose keys are neither text nor numbers")
        target.update(zip(entries[::2], entries[1::2], strict=True))

    def dictionary(self, entries: list[Any]) -> None:
        self.push({})
        self.set_items(entries)

    def fill(self) -> None:
        """BUILD: an array or a type receives its state."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array) and isinstance(state, tuple) and len(state) in (4, 5):
            target.fill(*state[-4:])
        elif isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 5:
            target.fill(*state[1:5])
        else:
            raise ValueError("a state for something that has none")

    def call(self) -> None:
        """REDUCE: what the names of the list stand for."""
        given, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(given, tuple):
            raise ValueError("a call of something that is no function")
        self.stack.append(self._called(name.means, given))

    def _called(self, means: str, given: tuple[Any, ...]) -> Any:
        if means == "reconstruct" and len(given) == 3:
            return Array()
        if means == "dtype" and given:
            return _Type(given[0])
        if means == "encode" and len(given) == 2 and given[1] in ("latin1", "latin-1"):
            return given[0].encode("latin1")
        if means == "scalar" and len(given) == 2:
            return _numbers(given[1], given[0], ()).item()
        if means == "frombuffer" and len(given) in (4, 5):
            return _from_buffer(*given)
        raise ValueError(f"a call of {means} with other arguments than an array needs")


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    found = Array()
    found.content = _numbers(raw, kind, shape, fortran=order == "F")
    if order == "K" and axes is not None:
        found.content = found.content.transpose(axes)
    return found


def _numbers(raw: Any, kind: Any, shape: Any, *, fortran: bool = False) -> Numbers:
    """An array of this type from its bytes, which have to be as many as it takes."""
    if not isinstance(kind, _Type) or not _is_shape(shape):
        raise ValueError("an array without shape or type")
    plain = raw.encode("latin1") if isinstance(raw, str) else raw  # bytes of Python 2
    count = math.prod(shape)
    if (
        kind.code.startswith("O")
        or not isinstance(plain, bytes | bytearray)
        or len(plain) != count * kind.dtype.itemsize
        or (count > 1 and not kind.dtype.itemsize)
    ):
        raise ValueError(f"an array of shape {shape} and type {kind.code} that holds another number of bytes")
    flat = np.frombuffer(plain, kind.dtype) if kind.dtype.itemsize else np.zeros(count, kind.dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= 8
        and all(isinstance(side, int) and 0 <= side < 2**48 for side in shape)
    )


def _shown(name: Any) -> str:
    """A name from a file for a sentence: short, and on one line."""
    text = name if isinstance(name, str) else type(name).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])


ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.since_mark,
    "DUP": lambda self: self.push(self.stack[-1]),
    "TUPLE": lambda self: self.push(tuple(self.since_mark())),
    "TUPLE1": lambda self: self.tuple_of(1),
    "TUPLE2": lambda self: self.tuple_of(2),
    "TUPLE3": lambda self: self.tuple_of(3),
    "LIST": lambda self: self.push(self.since_mark()),
    "DICT": lambda self: self.dictionary(self.since_mark()),
    "APPEND": lambda self: self.append([self.stack.pop()]),
    "APPENDS": lambda self: self.append(self.since_mark()),
    "SETITEM": lambda self: self.set_items([self.stack.pop(), self.stack.pop()][::-1]),
    "SETITEMS": lambda self: self.set_items(self.since_mark()),
    "STACK_GLOBAL": _Machine.global_of_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.fill,
    "READONLY_BUFFER": lambda self: None,
}

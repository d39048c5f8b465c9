"""Read pickles of numbers and arrays as data, without the module pickle: nothing in the file is imported or called.

MOSI and MOSEI are published as pickles, and so are the digits of NTDH's code.

A pickle is a program for a small stack machine, and it may import and call any installed function. This module runs
the machine itself, with only those instructions that write numbers, text, lists, dictionaries and arrays:

    numpy.ndarray   numpy.dtype   numpy.core.multiarray._reconstruct   numpy.core.multiarray.scalar
    numpy.core.numeric._frombuffer   _codecs.encode                    (also under numpy._core)

A name in this list is replaced by a few lines below that check their arguments; the real function is never called. Any
other name, any reference to something outside of the file and any other instruction stops the reading with an error.
Protocols 0 to 5 are supported.
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
# Allowed name → the operation of `_Machine._result` that replaces it. A restricted Unpickler is not enough: it would
# call the real functions, and the state of an array or type can make NumPy itself treat raw bytes as references.
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
# Instructions that refer to something outside of the file → how the error describes it.
OUTSIDE = {
    "PERSID": "an object that is not in the file (a persistent id)",
    "BINPERSID": "an object that is not in the file (a persistent id)",
    "EXT1": "number {} of Python's extension registry",
    "EXT2": "number {} of Python's extension registry",
    "EXT4": "number {} of Python's extension registry",
    "NEXT_BUFFER": "a buffer that is not in the file",
}
# What genops and the lines below raise for malformed input. MemoryError: a length field may claim any size.
DAMAGED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, struct.error)


class _Forbidden(Exception):
    """A pickle needs something that data does not need."""


def read_pickle(path: Path) -> Any:
    """The content of a pickle: numbers, text, lists, tuples, dictionaries, and `Array` for arrays.

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
            f"{path} asks for {error}, which neither numbers nor text need. Reading stopped there, and nothing of it "
            "was run. If you trust where the file comes from, report what it asks for."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except DAMAGED as error:
        cause = str(error).partition("\n")[0][:120] or type(error).__name__
        raise InputError(f"{path} is damaged or not a pickle ({cause}). Copy or download it again.") from None


def opened(value: Any) -> Any:
    """The content of an `Array`: a NumPy array, or a list for an array of objects. Other values stay unchanged."""
    return value.content if isinstance(value, Array) else value


class Array:
    """An array in a pickle.

    Attributes:
        content: the numbers; for an array of objects, the list of its elements.
    """

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: Numbers | list[Any] | None = None

    def fill(self, shape: Any, kind: Any, fortran: Any, raw: Any) -> None:
        """Set the content from the state of an array."""
        # Elements of an object array must come as a list: as raw bytes they would be pointers into memory.
        if not isinstance(kind, _Type) or not kind.code.startswith("O"):
            self.content = _numbers(raw, kind, shape, fortran=bool(fortran))
            return
        if not isinstance(raw, list) or not _is_shape(shape) or shape != (len(raw),):
            raise ValueError("an array of objects whose elements are not a list")
        self.content = [opened(entry) for entry in raw]


class _Type:
    """A type of numbers or text, by its code: ``f4``, ``U12``, or ``O8`` for objects."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        # A strict pattern: np.dtype also parses "f4,O", which has a field of objects, and sizes that exhaust memory.
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|[OUS]\d{0,8})", code):
            raise ValueError(f"an array of the type {_shown(code)[:40]}: numbers or text were expected")
        self.order = code[0] if code[0] in "<>|=" else "="
        self.code = code.lstrip("<>|=")

    def fill(self, order: Any, subtype: Any, names: Any, fields: Any) -> None:
        if order not in ("<", ">", "|", "=") or subtype is not None or names is not None or fields is not None:
            raise ValueError("an array whose elements have fields: numbers or text were expected")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Name:
    """An allowed name on the stack; `_Machine._result` replaces its call."""

    __slots__ = ("function",)

    def __init__(self, function: str) -> None:
        self.function = function


class _Bounded:
    """A file that refuses to read beyond its end.

    A read of the file itself would first allocate as many bytes as the pickle claims, up to 2^64.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("it ends too early")
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        # Protocol 0 writes a value per line: without a limit, a file without line breaks would be a single line.
        line = self.file.readline(2**20)
        self.left -= len(line)
        return line


class _Machine:
    """The state of the machine: the stack, the stacks below its marks, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memory: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for code, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            self.step(code.name, argument)
        (value,) = self.stack
        return value

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
        """Push an allowed name onto the stack."""
        full = f"{module}.{attribute}"
        if full not in KNOWN:
            raise _Forbidden(_shown(full))
        self.stack.append(_Name(KNOWN[full]))

    def global_of_stack(self) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("a name that is not text")
        self.name(module, attribute)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        entries, self.stack = self.stack, self.marked.pop()
        return entries

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
            raise ValueError("entries for something that is not a list")
        target.extend(entries)

    def set_items(self, entries: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(entries) % 2:
            raise ValueError("entries for something that is not a dictionary")
        # The hash of nested tuples visits every path through them: 40 levels of 10 references take 10^40 steps.
        if not all(isinstance(key, str | int) for key in entries[::2]):
            raise ValueError("a dictionary whose keys are neither text nor numbers")
        target.update(zip(entries[::2], entries[1::2], strict=True))

    def dictionary(self, entries: list[Any]) -> None:
        self.push({})
        self.set_items(entries)

    def fill(self) -> None:
        """BUILD: set the state of an array or a type."""
        # NumPy's state of an array is (version, shape, type, Fortran order, elements); old files have no version.
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array) and isinstance(state, tuple) and len(state) in (4, 5):
            target.fill(*state[-4:])
        elif isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 5:
            target.fill(*state[1:5])
        else:
            raise ValueError("a state for something that has none")

    def call(self) -> None:
        """REDUCE: replace the call of an allowed name by its result."""
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is not a function")
        self.stack.append(self._result(name.function, arguments))

    def _result(self, function: str, arguments: tuple[Any, ...]) -> Any:
        if function == "reconstruct" and len(arguments) == 3:
            return Array()
        if function == "dtype" and arguments:
            return _Type(arguments[0])
        if function == "encode" and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
            return arguments[0].encode("latin1")
        if function == "scalar" and len(arguments) == 2:
            return _numbers(arguments[1], arguments[0], ()).item()
        if function == "frombuffer" and len(arguments) in (4, 5):
            return _from_buffer(*arguments)
        raise ValueError(f"a call of {function} with other arguments than an array needs")


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    array = Array()
    array.content = _numbers(raw, kind, shape, fortran=order == "F")
    if order == "K" and axes is not None:
        array.content = array.content.transpose(axes)
    return array


def _numbers(raw: Any, kind: Any, shape: Any, *, fortran: bool = False) -> Numbers:
    """An array of a type and shape from its bytes, the number of which must match."""
    if not isinstance(kind, _Type) or not _is_shape(shape):
        raise ValueError("an array without shape or type")
    # Protocols before 3 have no bytes: Python 2 writes its strings, Python 3 Latin-1 text to be encoded.
    plain = raw.encode("latin1") if isinstance(raw, str) else raw
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
    # Bounds before math.prod: the product of long tuples of huge integers would take very long.
    return (
        isinstance(shape, tuple)
        and len(shape) <= 8
        and all(isinstance(side, int) and 0 <= side < 2**48 for side in shape)
    )


def _shown(name: Any) -> str:
    """A name from a file, shortened and made printable for a message on a single line."""
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

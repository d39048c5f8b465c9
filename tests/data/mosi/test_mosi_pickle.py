import copyreg
import os
import pickle
import struct

import numpy as np
import pytest

from xmodal.data.mosi.pickle_reader import KNOWN, opened, read_pickle
from xmodal.data.mosi.pickle_writer import write_pickle
from xmodal.errors import InputError

PROTOCOLS = range(6)
VALUES = {
    "floats": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "doubles": np.linspace(0, 1, 6).reshape(3, 2),
    "big-endian": np.arange(6, dtype=">f8").reshape(2, 3),
    "fortran": np.arange(6).reshape(2, 3).T,
    "transposed": np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1),
    "booleans": np.array([True, False]),
    "objects": np.array(["vid000$_$1", "déjà vu", ""], dtype=object),
    "text": np.array(["Positive", "Neutral"]),
    "empty": np.zeros((0, 3), np.float32),
}
PLAIN = {
    "scalars": [np.float32(2.5), np.int64(-4), np.bool_(True), np.str_("hey"), np.float64(0.1)],
    "python": [1, -1, 300, 2**40, 2**70, 1.5, None, True, "word", b"\x00\xff", "x" * 300],
    "nested": {"a": [1, [2, (3, (4, 5), (), {})]], "b": (1, 2, 3, 4)},
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "file.pkl"
        path.write_bytes(content)
        return path

    return write


def same(value, expected):
    if isinstance(expected, np.ndarray):
        return np.array_equal(np.asarray(value, dtype=expected.dtype), expected) and np.shape(value) == expected.shape
    return value == expected


# ---- reading


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_numbers_and_text_of_every_protocol_are_read(write, protocol):
    if protocol < 3:  # older protocols write empty bytes by a name that is not on the list
        content = {name: value for name, value in {**VALUES, **PLAIN}.items() if name != "empty"}
    else:
        content = {**VALUES, **PLAIN}

    read = read_pickle(write(pickle.dumps(content, protocol=protocol)))

    assert list(read) == list(content)
    assert all(same(opened(read[name]), value) for name, value in content.items())


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_both_names_of_numpys_private_module_are_accepted(write, core, protocol):
    written = pickle.dumps([VALUES["floats"], VALUES["objects"], np.float32(1)], protocol=protocol)

    read = read_pickle(write(written.replace(b"numpy._core", core)))

    assert same(opened(read[0]), VALUES["floats"]) and same(opened(read[1]), VALUES["objects"]) and read[2] == 1.0


def test_an_array_that_is_referenced_twice_is_read_once(write):
    array = VALUES["floats"]

    read = read_pickle(write(pickle.dumps([array, array])))

    assert read[0] is read[1]


def test_single_instructions_are_read(write):
    """A type and an array of two floats, instruction by instruction."""
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR"
    kind += b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(K\x02t" + kind
    array += b"\x89C\x08" + struct.pack("<ff", 1.5, -2.0) + b"tb"

    read = read_pickle(write(b"\x80\x03}X\x01\x00\x00\x00y" + array + b"s."))

    assert opened(read["y"]).tolist() == [1.5, -2.0]


def test_files_of_write_pickle_are_read_by_pickle_and_by_read_pickle(tmp_path):
    content = {"train": {**VALUES, "lengths": [1, -1, 70000]}}
    content["train"].pop("text")

    write_pickle(tmp_path / "file.pkl", content)

    read = read_pickle(tmp_path / "file.pkl")["train"]
    unpickled = pickle.loads((tmp_path / "file.pkl").read_bytes())["train"]
    for name, value in content["train"].items():
        assert same(opened(read[name]), value) and same(unpickled[name], value), name
    assert unpickled["objects"].dtype == object and unpickled["floats"].dtype == np.float32


def test_write_pickle_refuses_other_types_and_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="a set cannot be written"):
        write_pickle(tmp_path / "file.pkl", {"a": {1}})

    assert list(tmp_path.iterdir()) == []


# ---- refusing


class Payload:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Outside(pickle.Pickler):
    def persistent_id(self, thing):
        return "elsewhere" if isinstance(thing, bytearray) else None


def malicious():
    """Name of the case → (content of the file, the name that the message must contain)."""
    harm = Payload(os.system, "touch HARM")
    nested = np.array(["fine", harm], dtype=object)
    stack_global = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch HARM\x85R."
    built = b"\x80\x02cnumpy\ndtype\n}X\x0b\x00\x00\x00__setstate_cposix\nsystem\nsb."
    cases = {f"top level, protocol {p}": (pickle.dumps(harm, protocol=p), "posix.system") for p in PROTOCOLS}
    return (
        cases
        | {
            f"in an object array, protocol {p}": (pickle.dumps({"train": {"id": nested}}, protocol=p), "posix.system")
            for p in PROTOCOLS
        }
        | {
            "stack global": (stack_global, "posix.system"),
            "eval": (pickle.dumps(Payload(eval, "open('HARM', 'w')")), "builtins.eval"),
            "exec": (pickle.dumps(Payload(exec, "open('HARM', 'w')"), protocol=2), "__builtin__.exec"),
            "inst": (b"(S'touch HARM'\niposix\nsystem\n.", "posix.system"),
            "state of a type": (built, "posix.system"),
            "getattr": (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
            "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x13core.multiarray.sys\x93.", "numpy.core.multiarray.sys"),
            "a name that is never called": (b"\x80\x02}X\x01\x00\x00\x00acshutil\nrmtree\ns.", "shutil.rmtree"),
            "a name with line breaks": (b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.", "a?b.c"),
            "numpy's own loader": (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
            "persistent id": (b"Pelsewhere\n.", "persistent id"),
            "binary persistent id": (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent id"),
            "out-of-band buffer": (b"\x80\x05\x97.", "a buffer that is not in the file"),
            "new object": (b"\x80\x02cnumpy\nndarray\nK\x01\x85\x81.", "NEWOBJ"),
            "a set": (pickle.dumps({1, 2}, protocol=4), "EMPTY_SET"),
        }
    )


CASES = malicious()


@pytest.mark.parametrize("case", CASES)
def test_a_malicious_pickle_runs_nothing_and_the_message_contains_the_name(write, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, name = CASES[case]

    with pytest.raises(InputError) as refused:
        read_pickle(write(content))

    (message,) = refused.value.problems
    assert name in message and "\n" not in message and "nothing of it was run" in message
    assert not (tmp_path / "HARM").exists()


@pytest.mark.parametrize("code", [b"\x82\x07", b"\x83\x07\x00", b"\x84\x07\x00\x00\x00"])
def test_a_registered_extension_code_is_not_looked_up(write, code):
    copyreg.add_extension("posix", "system", 7)
    try:
        with pytest.raises(InputError, match="number 7 of Python's extension registry"):
            read_pickle(write(b"\x80\x02" + code + b"X\x01\x00\x00\x00a\x85R."))
    finally:
        copyreg.remove_extension("posix", "system", 7)


def test_allowed_names_are_refused_with_other_arguments(write):
    for full in KNOWN:
        module, _, name = full.rpartition(".")
        calls = {
            "strings": b"(X\x01\x00\x00\x00aX\x01\x00\x00\x00btR",
            "nothing": b")R",
            "a state": b"}b",
            "a huge shape": b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86tR(K\x01J\xff\xff\xff\x7f\x85NNNtb",
        }
        for call in calls.values():
            content = b"\x80\x02" + f"c{module}\n{name}\n".encode() + call
            with pytest.raises(InputError, match="damaged or not a pickle"):
                # An array without a state is no error by itself, so another state is set after it.
                read_pickle(write(content + b"K\x01b."))


@pytest.mark.parametrize(
    "code", ["V8", "M8[ns]", "c8", "f4,O", "O8\x00", "(2,)f4", "f99", "x", "f4\n", "i8" * 200, "U999999999999"]
)
def test_types_other_than_numbers_and_text_are_refused(write, code):
    text = code.encode()
    kind = b"cnumpy\ndtype\n(X" + struct.pack("<I", len(text)) + text + b"K\x00K\x01tR"

    with pytest.raises(InputError, match="numbers or text were expected"):
        read_pickle(write(b"\x80\x02" + kind + b"."))


def test_raw_bytes_never_become_objects(write):
    """Elements of an object array are pointers: read from raw bytes they would point anywhere."""
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(K\x01t" + kind
    scalar = b"cnumpy.core.multiarray\nscalar\n(" + kind + b"C\x08AAAAAAAAtR"
    buffer = b"cnumpy.core.numeric\n_frombuffer\n(C\x08AAAAAAAA" + kind + b"K\x01\x85X\x01\x00\x00\x00CtR"

    for content in (array + b"\x89C\x08AAAAAAAAtb", scalar, buffer):
        with pytest.raises(InputError, match="damaged or not a pickle"):
            read_pickle(write(b"\x80\x05" + content + b"."))


def test_a_type_with_fields_is_refused(write):
    """The state of a type could add fields that hold objects."""
    structured = np.zeros(2, dtype=[("a", "f4"), ("b", "O")])

    with pytest.raises(InputError, match="damaged or not a pickle"):
        read_pickle(write(pickle.dumps(structured)))


# ---- damaged files


def test_a_file_cut_anywhere_gives_one_message(write):
    whole = pickle.dumps({"a": VALUES["doubles"][0], "b": VALUES["objects"][:1], "c": [1, 2.5, "x"]}, protocol=4)

    for length in range(len(whole)):
        with pytest.raises(InputError) as refused:
            read_pickle(write(whole[:length]))
        assert len(refused.value.problems) == 1 and "\n" not in str(refused.value)


def test_a_file_with_any_byte_changed_is_read_or_gives_one_message(write):
    whole = pickle.dumps({"a": VALUES["doubles"][0], "b": VALUES["objects"][:1]}, protocol=4)

    for place in range(len(whole)):
        for value in (0xFF, whole[place] ^ 1):
            try:
                read_pickle(write(whole[:place] + bytes([value]) + whole[place + 1 :]))
            except InputError as error:
                assert len(error.problems) == 1 and "\n" not in str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"not a pickle", b"\x80\x04.", b"\x80\x04(", b"\x80\x04NN.", b"\x80\x04h\x05.", b"\x80\x04a."],
)
def test_other_files_are_refused(write, content):
    with pytest.raises(InputError, match=r"is damaged or not a pickle \(.+\). Copy or download it again"):
        read_pickle(write(content))


def test_a_length_beyond_the_end_takes_no_memory(write):
    for content in (b"\x8e" + struct.pack("<Q", 2**50), b"B" + struct.pack("<I", 2**32 - 1), b"\x8b\xff\xff\xff\x7f"):
        with pytest.raises(InputError, match="ends too early"):
            read_pickle(write(b"\x80\x04" + content + b"."))


def test_nested_references_to_lists_take_no_memory(write):
    """Ten references in each of forty lists would be 10^40 entries if they were copied."""
    levels = (b"](" + 10 * (b"h" + bytes([level])) + b"eq" + bytes([level + 1]) + b"0" for level in range(40))

    read = read_pickle(write(b"\x80\x02]q\x000" + b"".join(levels) + b"h\x28."))

    assert len(read) == 10 and read[0] is read[9]


def test_nested_tuples_are_refused_as_keys(write):
    levels = (b"(" + 10 * (b"h" + bytes([level])) + b"tq" + bytes([level + 1]) + b"0" for level in range(40))

    with pytest.raises(InputError, match="keys are neither text nor numbers"):
        read_pickle(write(b"\x80\x02)q\x000" + b"".join(levels) + b"}h\x28Ns."))


def test_lists_of_100_000_levels_are_read_without_recursion(write):
    read = read_pickle(write(b"\x80\x02" + 100_000 * b"](" + 100_000 * b"e" + b"."))

    assert isinstance(read, list) and len(read) == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_pickle(tmp_path / "none.pkl")

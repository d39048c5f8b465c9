import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.errors import InputError
from xmodal.files import SCHEMA, append_row, plain, read_json, read_rows, write_json, write_rows, written_whole

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "weights.bin"

    with written_whole(path) as temporary:
        temporary.write_bytes(b"new")
        during = path.exists()

    assert not during and path.read_bytes() == b"new" and os.listdir(path.parent) == ["weights.bin"]


def test_the_temporary_file_is_in_the_same_folder_and_has_the_same_suffix(tmp_path):
    with written_whole(tmp_path / "student.safetensors") as temporary:
        temporary.write_text("x")

        assert temporary.parent == tmp_path and temporary.suffix == ".safetensors" and temporary.name.startswith(".")


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    with pytest.raises(RuntimeError, match="half way"), written_whole(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")

    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "result.json", {})

    assert (tmp_path / "result.json").stat().st_mode & 0o777 == 0o644


KILLED = """
import os, sys
from pathlib import Path
from xmodal.files import written_whole
with written_whole(Path(sys.argv[1])) as temporary:
    with open(temporary, "w") as file:
        file.write("half of the ne")
        file.flush()
        os._exit(9)
"""


def test_a_writer_that_is_killed_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"epochs": 3})

    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[1])

    assert done.returncode == 9 and read_json(path) == {"schema": SCHEMA, "epochs": 3}
    assert len(os.listdir(tmp_path)) == 2  # the incomplete file has a hidden name, which is never read

    write_json(path, {"epochs": 4})
    assert read_json(path)["epochs"] == 4


def test_a_document_comes_back_as_it_was_written(tmp_path):
    content = {"name": "é", "numbers": [1, 2.5], "nested": {"none": None}}

    write_json(tmp_path / "a.json", content)

    assert read_json(tmp_path / "a.json") == {"schema": SCHEMA, **content}


@given(st.dictionaries(st.text().filter(lambda key: key != "schema"), JSON, max_size=5))
def test_any_json_survives_the_way_through_plain(content):
    assert json.loads(json.dumps(plain(content), allow_nan=False)) == content


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null(tmp_path, number):
    write_json(tmp_path / "a.json", {"loss": number, "rows": [{"score": number}], "pair": (1.0, number)})

    assert read_json(tmp_path / "a.json") == {
        "schema": SCHEMA,
        "loss": None,
        "rows": [{"score": None}],
        "pair": [1.0, None],
    }
    assert "NaN" not in (tmp_path / "a.json").read_text()


def test_paths_and_keys_that_are_no_text_become_text():
    assert plain({1: Path("runs") / "kd", "deep": [Path("x")]}) == {"1": str(Path("runs") / "kd"), "deep": ["x"]}


def one_sentence(path):
    """What the reader says about a document; it names the file."""
    with pytest.raises(InputError) as error:
        read_json(path)
    assert len(error.value.problems) == 1 and str(path) in str(error.value)
    return str(error.value)


def test_a_missing_document_says_which_file_was_expected(tmp_path):
    assert "is missing" in one_sentence(tmp_path / "result.json")


@pytest.mark.parametrize(
    "content", [b"{", b"", b"\xff\xfe\x00", b'{"schema": 1', b"[" * 100_000, b"[1]", b"3", b"null"]
)
def test_what_is_no_json_object_is_one_sentence(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)

    assert "run it again" in one_sentence(path)


@pytest.mark.parametrize(("content", "schema"), [('{"schema": 99}', "schema 99"), ('{"epochs": 3}', "schema none")])
def test_another_schema_is_refused(tmp_path, content, schema):
    path = tmp_path / "result.json"
    path.write_text(content)

    sentence = one_sentence(path)
    assert schema in sentence and f"reads schema {SCHEMA}" in sentence


def test_rows_are_written_appended_and_read(tmp_path):
    path = tmp_path / "new" / "history.jsonl"

    append_row(path, {"epoch": 0, "loss": math.nan})
    append_row(path, {"epoch": 1, "loss": 0.5})
    appended = read_rows(path)
    write_rows(path, appended[:1])

    assert appended == [{"epoch": 0, "loss": None}, {"epoch": 1, "loss": 0.5}]
    assert read_rows(path) == appended[:1]


def test_a_line_break_within_a_row_does_not_make_two(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"note": "one\ntwo\u2028three"}])

    assert read_rows(tmp_path / "a.jsonl") == [{"note": "one\ntwo\u2028three"}]

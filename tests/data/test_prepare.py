import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.prepare import Content, Item, in_processes, prepare_items, write_npy
from xmodal.errors import InputError


def doubled(item):
    """Work of these tests: the numbers of a text file, in two modalities."""
    values = np.array(Path(item.sources[0]).read_text().split(), dtype=np.float32)
    return {"plain": values, "twice": 2 * values}


def counted(item, *, log):
    with log.open("a") as file:
        file.write(f"{item.name}\n")
    return doubled(item)


def dies(item):
    if item.name == "b":
        os._exit(1)
    return doubled(item)


def buggy(item):
    raise KeyError(item.name)


def interrupted(item):
    if item.name == "c":
        raise KeyboardInterrupt
    return doubled(item)


def items(folder, names="abcd"):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / f"{name}.txt").write_text(f"{number} {number + 0.5}")
    return [Item(name, (str(folder / f"{name}.txt"),)) for name in names]


def markers(out):
    return list((out / ".prepared").glob("[0-9]*.json"))


def files(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.npy"))


def test_one_file_per_item_and_modality_in_the_layout_of_own_data(tmp_path):
    from xmodal.data.own.check import check_folder  # here, so that worker processes don't import torch with this file

    prepared = prepare_items(items(tmp_path / "raw"), doubled, tmp_path / "out")

    assert prepared.done == prepared.names == ["a", "b", "c", "d"] and prepared.reused == prepared.skipped == []
    assert np.load(tmp_path / "out/twice/c.npy").tolist() == [4.0, 5.0]
    np.save(tmp_path / "out/labels.npy", np.array([0, 1, 0, 1]))
    assert check_folder(tmp_path / "out").errors == []


def test_processes_make_the_same_files(tmp_path):
    prepare_items(items(tmp_path / "raw"), doubled, tmp_path / "one")
    seen = []

    prepare_items(
        items(tmp_path / "raw"), doubled, tmp_path / "two", workers=2, progress=lambda *count: seen.append(count)
    )

    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_there_is_not_prepared_again(tmp_path):
    raw, out, log = items(tmp_path / "raw"), tmp_path / "out", tmp_path / "log"
    prepare_items(raw, doubled, out)
    (out / "plain" / "b.npy").unlink()
    (tmp_path / "raw" / "c.txt").write_text("7 8 9")

    prepared = prepare_items(raw, partial(counted, log=log), out)

    assert log.read_text().split() == prepared.done == ["b", "c"] and prepared.reused == ["a", "d"]
    assert np.load(out / "plain/c.npy").tolist() == [7.0, 8.0, 9.0]


def test_another_version_or_other_facts_make_everything_again(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    prepare_items(raw, doubled, out)

    changed = [Item(item.name, item.sources, {"start": 1}) for item in raw[:1]] + raw[1:]

    assert prepare_items(changed, doubled, out).done == ["a"]
    assert prepare_items(changed, doubled, out, version="2").done == ["a", "b", "c", "d"]


def test_items_that_are_gone_leave_no_rows_behind(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    prepare_items(raw, doubled, out)

    prepare_items(raw[1:], doubled, out)

    assert files(out) == [f"{name}/{item}.npy" for name in ("plain", "twice") for item in "bcd"]


@pytest.mark.parametrize("workers", [0, 2])
def test_items_that_can_not_be_read_are_skipped_with_their_reason(tmp_path, workers):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    (tmp_path / "raw" / "a.txt").write_text("no numbers")
    (tmp_path / "raw" / "d.txt").unlink()

    prepared = prepare_items(raw, doubled, out, workers=workers)

    assert prepared.done == ["b", "c"] and [name for name, _ in prepared.skipped] == ["a", "d"]
    assert "ValueError: could not convert string" in prepared.skipped[0][1] and "No such file" in prepared.skipped[1][1]
    listed = json.loads((out / "skipped.json").read_text())["skipped"]
    assert [(entry["name"], entry["reason"]) for entry in listed] == prepared.skipped


def test_a_skipped_item_is_tried_again(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    (tmp_path / "raw" / "a.txt").write_text("no numbers")
    prepare_items(raw, doubled, out)
    (tmp_path / "raw" / "a.txt").write_text("1")

    prepared = prepare_items(raw, doubled, out)

    assert prepared.done == ["a"] and prepared.skipped == []
    assert json.loads((out / "skipped.json").read_text())["skipped"] == []


def test_a_bug_in_the_work_is_not_taken_for_a_bad_file(tmp_path):
    with pytest.raises(KeyError):
        prepare_items(items(tmp_path / "raw"), buggy, tmp_path / "out")


def test_a_process_that_dies_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="worker process ended without an answer.*fewer workers"):
        prepare_items(items(tmp_path / "raw"), dies, tmp_path / "out", workers=1)

    assert prepare_items(items(tmp_path / "raw"), doubled, tmp_path / "out").names == ["a", "b", "c", "d"]


def test_after_an_interruption_finished_items_are_reused(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare_items(raw, interrupted, out)

    prepared = prepare_items(raw, doubled, out)

    assert prepared.reused == ["a", "b"] and prepared.done == ["c", "d"]


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from xmodal.data.prepare import Item, prepare_items

def slow(item):
    time.sleep(float(sys.argv[3]))
    return {"m": np.full((2,), int(item.name), dtype=np.float32)}

if __name__ == "__main__":
    found = prepare_items([Item(f"{n:02d}") for n in range(30)], slow, Path(sys.argv[1]), workers=int(sys.argv[2]))
    print(len(found.done), len(found.reused))
"""


@pytest.mark.parametrize(("stop", "workers"), [(signal.SIGKILL, 0), (signal.SIGINT, 1)])
def test_a_killed_run_goes_on_where_it_was(tmp_path, stop, workers):
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW)
    command = [sys.executable, str(script), str(out)]
    with subprocess.Popen([*command, str(workers), "0.3"], stderr=subprocess.PIPE, start_new_session=True) as process:
        while len(markers(out)) < 3:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, stop)  # as Ctrl-C does
        process.communicate()
    there = len(markers(out))

    again = subprocess.run([*command, "0", "0"], capture_output=True, text=True, check=True)

    assert process.returncode != 0 and 3 <= there < 30
    assert [int(count) for count in again.stdout.split()] == [30 - there, there]
    assert [np.load(out / name)[0] for name in files(out)] == list(range(30))
    assert not list(out.rglob(".*.part-*")), "half-written files were left behind"


BUSY = """
import os, sys, time
from pathlib import Path
from xmodal.data.prepare import in_processes

def sleep_long(job):
    Path(sys.argv[1], str(job)).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(in_processes(sleep_long, [0, 1], 2))
"""


def lives(number):
    """Whether a process runs; one that has ended and that nobody asked about counts as gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_leave_with_a_process_that_is_killed(tmp_path):
    (tmp_path / "busy.py").write_text(BUSY)
    (told := tmp_path / "told").mkdir()
    with subprocess.Popen([sys.executable, str(tmp_path / "busy.py"), str(told)]) as process:
        while len(numbers := [text for path in told.iterdir() if (text := path.read_text())]) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        assert all(map(lives, numbers))
        process.kill()  # this one alone, not its group

    until = time.monotonic() + 120
    while any(map(lives, numbers)) and time.monotonic() < until:
        time.sleep(0.02)

    left = [number for number in numbers if lives(number)]
    for number in left:
        os.kill(int(number), signal.SIGKILL)
    assert left == []


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[]", b'{"schema": 1, "stamp": "x", "files": 3}', b""])
def test_an_item_whose_marker_is_damaged_is_prepared_again(tmp_path, text):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    prepare_items(raw, doubled, out)
    (out / ".prepared" / "b.json").write_bytes(text)
    (out / ".prepared" / "gone.json").write_bytes(text)

    prepared = prepare_items(raw, doubled, out)

    assert (prepared.done, prepared.reused) == (["b"], ["a", "c", "d"])
    assert prepare_items(raw, doubled, out).reused == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", ".."])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="serve as a file name"):
        prepare_items([Item(name)], doubled, tmp_path)


def test_names_are_unique(tmp_path):
    with pytest.raises(InputError, match="Two items are called 'a'"):
        prepare_items([Item("a"), Item("a")], doubled, tmp_path)


def test_writing_leaves_the_old_file_when_it_fails(tmp_path):
    write_npy(tmp_path / "x.npy", np.arange(3))

    with pytest.raises(ValueError, match="Object arrays"):
        write_npy(tmp_path / "x.npy", np.array([None, {}], dtype=object))

    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_importing_the_machinery_brings_no_torch():
    code = "import sys, xmodal.data.prepare, xmodal.data.digits; print('torch' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


def drawn_as_text(item):
    return {**doubled(item), "words": Content(".txt", item.name.encode())}


def named_alike(item):
    return {item.name: Content(".txt", item.name.encode(), "same")}


def test_files_may_have_names_of_their_own(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    prepare_items(raw, named_alike, out)

    again = prepare_items(raw[:2], named_alike, out)

    assert again.reused == ["a", "b"] and (out / "a" / "same.txt").read_text() == "a"
    assert not (out / "c" / "same.txt").exists()


def test_work_may_return_files_of_other_kinds(tmp_path):
    raw, out = items(tmp_path / "raw"), tmp_path / "out"
    prepare_items(raw, drawn_as_text, out)
    (out / "words" / "b.txt").unlink()

    again = prepare_items(raw[:3], drawn_as_text, out)

    assert (again.done, again.reused) == (["b"], ["a", "c"])
    assert sorted(path.name for path in (out / "words").iterdir()) == ["a.txt", "b.txt", "c.txt"]
    assert (out / "words" / "b.txt").read_text() == "b"


def test_what_is_no_item_at_all_is_listed_among_the_skipped(tmp_path):
    seen = []

    prepared = prepare_items(
        items(tmp_path / "raw"),
        doubled,
        tmp_path / "out",
        refused=[("z", "it has no partner")],
        progress=lambda *count: seen.append(count),
    )

    assert prepared.skipped == [("z", "it has no partner")] and len(prepared.done) == 4 and seen[-1] == (4, 4)
    assert json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"][0]["name"] == "z"


def refuses(item):
    raise InputError([f"{item.name} is broken.", "Mend it."])


def test_sentences_of_ours_are_told_as_they_are(tmp_path):
    prepared = prepare_items(items(tmp_path / "raw", "a"), refuses, tmp_path / "out")

    assert prepared.skipped == [("a", "a is broken. Mend it.")]


@pytest.mark.parametrize("workers", [0, 1])
def test_jobs_come_back_with_their_results(workers):
    assert sorted(in_processes(abs, [-1, 2, -3], workers)) == [(-3, 3), (-1, 1), (2, 2)]

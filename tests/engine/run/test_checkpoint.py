from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xmodal.engine.run import checkpoint


def saved(folder: Path, *numbers: int) -> None:
    for number in numbers:
        checkpoint.save(folder, number, {"w": torch.full((3,), float(number))}, {"number": number})


def test_the_two_newest_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 10)

    newest = checkpoint.load_newest(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000010"]
    assert newest is not None
    tensors, state, notes = newest
    assert tensors["w"].tolist() == [10.0] * 3 and state == {"number": 10} and notes == []


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(file: str, damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    path = tmp_path / "step-000000002" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-5], "flipped": content[:-4] + b"\xff" + content[-3:], "empty": b""}[damage])

    newest = checkpoint.load_newest(tmp_path)

    assert newest is not None
    _, state, notes = newest
    assert state == {"number": 1}
    assert len(notes) == 1 and "step-000000002 is damaged" in notes[0]


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".step-000000002.part").mkdir()
    (tmp_path / ".step-000000002.part" / "tensors.safetensors").write_bytes(b"half")

    checkpoint.sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    checkpoint.save(tmp_path, 1, {"a": shared, "b": shared[::2]}, {})

    newest = checkpoint.load_newest(tmp_path)

    assert newest is not None
    assert newest[0]["b"].tolist() == [0.0, 2.0]

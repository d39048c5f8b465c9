import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.nyu.check import check
from xmodal.data.nyu.files import grid_of, held_out, prepare, raw_frames
from xmodal.data.nyu.frames import FrameFile, encode_frame
from xmodal.data.nyu.voxels import PUBLISHED, TINY
from xmodal.errors import InputError
from xmodal.files import read_json, write_json

FRAME = "NYU0001_0000"


@pytest.fixture
def raw(synthetic_nyu, tmp_path):
    """A copy of the raw files, without NYUCAD, that tests may damage."""
    shutil.copytree(synthetic_nyu / "depthbin", tmp_path / "raw" / "depthbin", ignore=shutil.ignore_patterns("NYUCAD*"))
    shutil.copy(synthetic_nyu / "nyu.json", tmp_path / "raw" / "nyu.json")
    return tmp_path / "raw"


@pytest.fixture
def packed(synthetic_nyu, tmp_path):
    """A copy of the prepared files."""
    shutil.copytree(synthetic_nyu, tmp_path / "root", ignore=shutil.ignore_patterns("depthbin", "NYUCAD*"))
    return tmp_path / "root"


def npz(root, part="NYUtrain", frame=FRAME):
    return root / f"{part}_npz" / f"{frame}_voxels.npz"


def change(path, **arrays):
    """Replace arrays of an .npz; None removes an array."""
    file = FrameFile(path)
    content = {**file.arrays(file.names()), **arrays}
    path.write_bytes(encode_frame({name: array for name, array in content.items() if array is not None}))


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.npz"))
        if not path.name.startswith(".")
    }


def test_preparing_gives_the_files_of_make(raw, synthetic_nyu, tmp_path):
    prepared = prepare(raw, tmp_path / "one")

    expected = {name: data for name, data in contents(synthetic_nyu).items() if "CAD" not in name}
    assert contents(tmp_path / "one") == expected
    assert len(prepared.done) == 6 and not prepared.skipped and prepared.done[0] == f"NYUtrain/{FRAME}_voxels"
    facts = read_json(tmp_path / "one" / "nyu.json")
    assert facts["frames"] == {"NYUtrain": 4, "NYUtest": 2} and facts["position"] == "reference"
    assert grid_of(tmp_path / "one") == TINY


def test_preparing_again_writes_only_missing_frames(raw, tmp_path):
    root = tmp_path / "root"
    counts = []
    prepare(raw, root)
    npz(root).unlink()
    kept = npz(root, "NYUtest", "NYU0005_0000").stat().st_mtime_ns

    again = prepare(raw, root, progress=lambda done, total: counts.append((done, total)))

    assert [name for name in again.done] == [f"NYUtrain/{FRAME}_voxels"] and len(again.reused) == 5
    assert npz(root, "NYUtest", "NYU0005_0000").stat().st_mtime_ns == kept and counts == [(4, 6)]


def test_a_frame_that_changed_or_another_rule_is_prepared_again(raw, tmp_path):
    root = tmp_path / "root"
    prepare(raw, root)
    shutil.copy(raw / "depthbin/NYUtrain/NYU0002_0000.png", raw / f"depthbin/NYUtrain/{FRAME}.png")

    assert prepare(raw, root).done == [f"NYUtrain/{FRAME}_voxels"]
    assert len(prepare(raw, root, position="correct").done) == 6
    assert FrameFile(npz(root)).arrays(["position"])["position"].min() == -1
    assert read_json(root / "nyu.json")["position"] == "correct"


def test_a_killed_preparation_leaves_complete_files_and_is_continued(raw, tmp_path):
    root = tmp_path / "root"
    script = (
        "import os, sys; from xmodal.data.nyu.files import prepare\n"
        "def kill(done, total):\n"
        "    if done == 2: os.kill(os.getpid(), 9)\n"
        "prepare(sys.argv[1], sys.argv[2], progress=kill)\n"
    )

    ended = subprocess.run([sys.executable, "-c", script, str(raw), str(root)], check=False)

    assert ended.returncode == -9 and not (root / "nyu.json").exists()
    half = contents(root)
    assert len(half) == 2
    assert any("was interrupted" in error for error in check(root).errors)
    again = prepare(raw, root)
    assert len(again.reused) == 2 and len(again.done) == 4 and half.items() <= contents(root).items()
    assert not check(root).errors


def test_raw_and_prepared_files_may_share_a_folder(synthetic_nyu, tmp_path):
    root = tmp_path / "both"
    shutil.copytree(synthetic_nyu / "depthbin", root / "depthbin")
    shutil.copy(synthetic_nyu / "nyu.json", root / "nyu.json")

    prepare(root / "depthbin", root)

    assert contents(root) == contents(synthetic_nyu)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / f"{FRAME}.bin").unlink(), f"{FRAME}.bin not found"),
        (lambda folder: (folder / "NYU0001_rgb.png").unlink(), "NYU0001_rgb.png not found"),
        (lambda folder: (folder / f"{FRAME}.png").unlink(), f"{FRAME}.png not found"),
        (lambda folder: cut(folder / f"{FRAME}.bin", 5), "it is cut off"),
        (lambda folder: cut(folder / f"{FRAME}.bin", 8), "voxels: 129600"),
        (lambda folder: cut(folder / f"{FRAME}.png", 900), "cannot be read as a picture"),
        (lambda folder: claim(folder / f"{FRAME}.png", 60_000), "cannot be read as a picture"),
        (lambda folder: claim(folder / "NYU0001_rgb.png", 60_000), "cannot be read as a picture"),
        (lambda folder: shutil.copy(folder / "NYU0001_rgb.png", folder / f"{FRAME}.png"), "16 bits of depth"),
    ],
)
def test_an_unusable_frame_is_skipped_with_its_reason(raw, tmp_path, damage, reason):
    damage(raw / "depthbin" / "NYUtrain")

    prepared = prepare(raw, tmp_path / "root")

    assert len(prepared.done) == 5 and not npz(tmp_path / "root").exists()
    ((name, skip_reason),) = prepared.skipped
    assert name.startswith(f"NYUtrain/{FRAME}") and reason in skip_reason
    assert read_json(tmp_path / "root" / "skipped.json")["skipped"][0]["reason"] == skip_reason
    assert len(check(raw).errors) == 1 and reason in check(raw).errors[0]


def claim(path, side):
    """Write another size into the header of a picture."""
    png = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    path.write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


def test_colours_may_have_their_archive_name_or_be_in_the_folder_of_nyu(synthetic_nyu, tmp_path):
    folder = tmp_path / "depthbin" / "NYUCADtrain"
    shutil.copytree(synthetic_nyu / "depthbin" / "NYUCADtrain", folder)
    (folder / "NYU0001_rgb.png").rename(folder / "NYU0001_colors.png")
    (tmp_path / "depthbin" / "NYUtrain").mkdir()
    (folder / "NYU0002_rgb.png").rename(tmp_path / "depthbin" / "NYUtrain" / "NYU0002_rgb.png")

    frames, incomplete = raw_frames(folder)

    assert [frame.name for frame in frames] == [f"NYU000{n}_0000" for n in (1, 2, 3, 4)] and not incomplete
    assert [frame.colours.name for frame in frames[:2]] == ["NYU0001_colors.png", "NYU0002_rgb.png"]


def test_folders_without_frames_are_refused(raw, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        prepare(tmp_path / "nothing", tmp_path / "root")
    with pytest.raises(InputError, match="neither NYUtrain and NYUtest"):
        prepare(tmp_path, tmp_path / "root")
    with pytest.raises(InputError, match="Did you mean 'correct'"):
        prepare(raw, tmp_path / "root", position="corect")
    shutil.rmtree(raw / "depthbin" / "NYUtest")
    with pytest.raises(InputError, match="has only NYUtrain"):
        prepare(raw, tmp_path / "root")
    (raw / "depthbin" / "NYUtest").mkdir()
    with pytest.raises(InputError, match="holds no frame with depth, room and colours"):
        prepare(raw, tmp_path / "root")


def test_without_nyu_json_sizes_are_the_published_ones(raw, tmp_path):
    (raw / "nyu.json").unlink()

    assert grid_of(raw) == PUBLISHED
    with pytest.raises(InputError, match="None of the 4 frames.*120x160 pixels: 480x640"):
        prepare(raw, tmp_path / "root")


def test_malformed_sizes_in_nyu_json_are_refused(raw):
    write_json(raw / "nyu.json", {"grid": {"volume": [60, 36, 60], "voxels": 0.08}})

    with pytest.raises(InputError, match="voxels"):
        grid_of(raw)
    odd = {"volume": [60, 35, 60], "voxel": 0.08, "image": [120, 160], "focal": [130, 130], "centre": [80, 60]}
    write_json(raw / "nyu.json", {"grid": {**odd, "margin": 0.24}})
    with pytest.raises(InputError, match=r"\(60, 35, 60\) voxels: multiples of 4"):
        grid_of(raw)


# ---- positions


def test_wrong_positions_are_repaired(raw, packed):
    correct = FrameFile(npz(packed)).arrays(["position"])["position"]
    change(npz(packed), position=np.where(np.arange(160) < 80, correct, 7).astype(np.int32))
    before = contents(packed)

    repaired = prepare(raw, packed, repair_positions=True)

    assert repaired.done == [f"NYUtrain_npz/{FRAME}_voxels.npz"] and len(repaired.reused) == 5
    assert np.array_equal(FrameFile(npz(packed)).arrays(["position"])["position"], correct)
    changed = [name for name, data in contents(packed).items() if before[name] != data]
    assert changed == [f"NYUtrain_npz/{FRAME}_voxels.npz"]


def test_repairing_reports_missing_files_and_files_of_another_size(raw, packed):
    npz(packed).unlink()
    change(npz(packed, "NYUtest", "NYU0005_0000"), position=np.zeros((6, 8), np.int32))

    repaired = prepare(raw, packed, repair_positions=True)

    reasons = dict(repaired.skipped)
    assert "does not exist" in reasons[f"NYUtrain/{FRAME}"] and len(repaired.reused) == 4
    assert "positions of (6, 8) pixels" in reasons["NYUtest/NYU0005_0000"]


# ---- checking


def test_complete_raw_and_prepared_folders_pass(synthetic_nyu, raw, packed, tmp_path):
    assert check(synthetic_nyu) is not None and not check(synthetic_nyu).errors and not check(synthetic_nyu).warnings
    assert not check(packed).errors and not check(raw).errors and "prepare nyu" in check(raw).warnings[0]
    assert check(tmp_path / "raw" / "depthbin") is not None and check(Path(__file__).parent) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_lr": np.full((15, 9, 15), 12, np.uint8)}, "a voxel of class 12 in target_lr"),
        ({"target_lr": np.zeros((15, 9, 15), np.uint8)}, "target_lr does not follow from target_hr"),
        ({"tsdf_lr": np.ones((15, 9, 15), np.float32)}, "tsdf_lr does not follow from tsdf_hr"),
        ({"tsdf_lr": np.full((15, 9, 15), 0.5, np.float32)}, "other values in tsdf_lr"),
        ({"rgb": np.full((3, 120, 160), np.nan, np.float32)}, "non-finite values in rgb"),
        ({"position": np.full((120, 160), 129600, np.int32)}, "positions from 129600 to 129600"),
        ({"position": None}, "has no position"),
        ({"depth": np.full((1, 120, 160), "x")}, "a depth of the type <U1: numbers were expected"),
        ({"depth": np.zeros((120, 160), np.float32)}, r"a depth of shape \(120, 160\)"),
        ({"tsdf_hr": np.zeros((60, 60), np.float32)}, "three axes"),
    ],
)
def test_problems_of_a_prepared_frame_are_reported(packed, changes, message):
    change(npz(packed), **changes)

    errors = check(packed).errors

    assert any(re.search(message, error) for error in errors), errors
    assert len(errors) == 1


def test_skipped_frames_are_counted_and_named_in_the_same_way(raw, tmp_path):
    folder, root = raw / "depthbin" / "NYUtrain", tmp_path / "root"
    (folder / f"{FRAME}.bin").unlink()
    cut(folder / "NYU0002_0000.bin", 5)

    prepare(raw, root)

    skipped = read_json(root / "skipped.json")["skipped"]
    assert [entry["name"] for entry in skipped] == [f"NYUtrain/{FRAME}", "NYUtrain/NYU0002_0000"]
    (warning,) = check(root).warnings
    path = root / "skipped.json"
    assert warning == f"2 frames were skipped when the folder was prepared. See the reasons in {path}."


def test_frames_in_both_training_and_test_are_a_warning(raw, packed, tmp_path):
    folder = raw / "depthbin"
    shutil.copy(folder / "NYUtrain" / f"{FRAME}.bin", folder / "NYUtest" / "NYU0005_0000.bin")
    shutil.copy(npz(packed), npz(packed, "NYUtest"))

    for root, name in ((raw, f"NYU0005_0000 (there {FRAME})"), (packed, FRAME)):
        (warning,) = (text for text in check(root).warnings if "too good" in text)
        assert warning.startswith(f"1 frame of NYUtest, {name} the first, in NYUtrain as well")

    prepare(raw, tmp_path / "fresh")
    assert f"NYU0005_0000 (there {FRAME})" in check(tmp_path / "fresh").warnings[0]


def test_positions_are_compared_if_the_raw_files_are_there(synthetic_nyu, packed):
    wrong = FrameFile(npz(packed)).arrays(["position"])["position"]
    wrong[:, 3:5] += 1
    change(npz(packed), position=wrong)
    # Without raw files there is nothing to compare with.
    assert not check(packed).errors
    shutil.copytree(synthetic_nyu / "depthbin", packed / "depthbin", ignore=shutil.ignore_patterns("NYUCAD*"))

    (error,) = check(packed).errors

    assert "1 of 4 frames" in error and "in 240 pixels" in error and "--repair-positions" in error


def test_the_number_of_held_out_frames():
    assert [held_out(frames, 0.1) for frames in (2, 10, 54, 795)] == [1, 1, 5, 80] and held_out(3, 0.9) == 2

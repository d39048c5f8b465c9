import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.nyu.check import check
from xmodal.data.nyu.files import grid_of, kept_back, prepare, raw_frames
from xmodal.data.nyu.frames import FrameFile, encode_frame
from xmodal.data.nyu.voxels import PUBLISHED, TINY
from xmodal.errors import InputError
from xmodal.files import read_json, write_json

FRAME = "NYU0001_0000"


@pytest.fixture
def raw(synthetic_nyu, tmp_path):
    """A copy of the raw files, without NYUCAD, that may be damaged."""
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
    """The same .npz with other arrays; None leaves one out."""
    file = FrameFile(path)
    found = {**file.arrays(file.names()), **arrays}
    path.write_bytes(encode_frame({name: array for name, array in found.items() if array is not None}))


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.npz"))
        if not path.name.startswith(".")
    }


def test_preparing_gives_what_make_gave(raw, synthetic_nyu, tmp_path):
    prepared = prepare(raw, tmp_path / "one")

    made = {name: data for name, data in contents(synthetic_nyu).items() if "CAD" not in name}
    assert contents(tmp_path / "one") == made
    assert len(prepared.done) == 6 and not prepared.skipped and prepared.done[0] == f"NYUtrain/{FRAME}_voxels"
    facts = read_json(tmp_path / "one" / "nyu.json")
    assert facts["frames"] == {"NYUtrain": 4, "NYUtest": 2} and facts["position"] == "reference"
    assert grid_of(tmp_path / "one") == TINY


def test_preparing_goes_on_where_it_was_stopped(raw, tmp_path):
    root = tmp_path / "root"
    seen = []
    prepare(raw, root)
    npz(root).unlink()
    kept = npz(root, "NYUtest", "NYU0005_0000").stat().st_mtime_ns

    again = prepare(raw, root, progress=lambda done, total: seen.append((done, total)))

    assert [name for name in again.done] == [f"NYUtrain/{FRAME}_voxels"] and len(again.reused) == 5
    assert npz(root, "NYUtest", "NYU0005_0000").stat().st_mtime_ns == kept and seen == [(4, 6)]


def test_a_frame_that_changed_or_another_rule_is_prepared_again(raw, tmp_path):
    root = tmp_path / "root"
    prepare(raw, root)
    shutil.copy(raw / "depthbin/NYUtrain/NYU0002_0000.png", raw / f"depthbin/NYUtrain/{FRAME}.png")

    assert prepare(raw, root).done == [f"NYUtrain/{FRAME}_voxels"]
    assert len(prepare(raw, root, position="correct").done) == 6
    assert FrameFile(npz(root)).arrays(["position"])["position"].min() == -1
    assert read_json(root / "nyu.json")["position"] == "correct"


def test_a_killed_preparation_leaves_whole_files_and_is_finished_by_the_next(raw, tmp_path):
    root = tmp_path / "root"
    script = (
        "import os, sys; from pathlib import Path; from xmodal.data import nyu_files as f\n"
        "def tell(done, total):\n"
        "    if done == 2: os.kill(os.getpid(), 9)\n"
        "f.prepare(sys.argv[1], sys.argv[2], progress=tell)\n"
    )

    ended = subprocess.run([sys.executable, "-c", script, str(raw), str(root)], check=False)

    assert ended.returncode == -9 and not (root / "nyu.json").exists()
    half = contents(root)
    assert len(half) == 2
    assert any("not prepared to its end" in error for error in check(root).errors)
    again = prepare(raw, root)
    assert len(again.reused) == 2 and len(again.done) == 4 and half.items() <= contents(root).items()
    assert not check(root).errors


def test_raw_files_may_lie_where_the_arrays_go(synthetic_nyu, tmp_path):
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
        (lambda folder: cut(folder / f"{FRAME}.png", 900), "no picture that can be read"),
        (lambda folder: claim(folder / f"{FRAME}.png", 60_000), "no picture that can be read"),
        (lambda folder: claim(folder / "NYU0001_rgb.png", 60_000), "no picture that can be read"),
        (lambda folder: shutil.copy(folder / "NYU0001_rgb.png", folder / f"{FRAME}.png"), "16 bits of depth"),
    ],
)
def test_a_frame_that_can_t_be_used_is_left_out_with_its_reason(raw, tmp_path, damage, reason):
    damage(raw / "depthbin" / "NYUtrain")

    prepared = prepare(raw, tmp_path / "root")

    assert len(prepared.done) == 5 and not npz(tmp_path / "root").exists()
    ((name, said),) = prepared.skipped
    assert name.startswith(f"NYUtrain/{FRAME}") and reason in said
    assert read_json(tmp_path / "root" / "skipped.json")["skipped"][0]["reason"] == said
    assert len(check(raw).errors) == 1 and reason in check(raw).errors[0]


def claim(path, side):
    """A header that says other sizes than the picture has."""
    png = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    path.write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


def test_colours_may_have_their_archive_name_or_lie_beside_those_of_nyu(synthetic_nyu, tmp_path):
    folder = tmp_path / "depthbin" / "NYUCADtrain"
    shutil.copytree(synthetic_nyu / "depthbin" / "NYUCADtrain", folder)
    (folder / "NYU0001_rgb.png").rename(folder / "NYU0001_colors.png")
    (tmp_path / "depthbin" / "NYUtrain").mkdir()
    (folder / "NYU0002_rgb.png").rename(tmp_path / "depthbin" / "NYUtrain" / "NYU0002_rgb.png")

    frames, lacking = raw_frames(folder)

    assert [frame.name for frame in frames] == [f"NYU000{n}_0000" for n in (1, 2, 3, 4)] and not lacking
    assert [frame.colours.name for frame in frames[:2]] == ["NYU0001_colors.png", "NYU0002_rgb.png"]


def test_folders_that_hold_nothing_of_it_are_refused(raw, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        prepare(tmp_path / "nothing", tmp_path / "root")
    with pytest.raises(InputError, match="neither NYUtrain and NYUtest"):
        prepare(tmp_path, tmp_path / "root")
    with pytest.raises(InputError, match="Did you mean 'correct'"):
        prepare(raw, tmp_path / "root", position="corect")
    shutil.rmtree(raw / "depthbin" / "NYUtest")
    with pytest.raises(InputError, match="NYUtrain and no other half"):
        prepare(raw, tmp_path / "root")
    (raw / "depthbin" / "NYUtest").mkdir()
    with pytest.raises(InputError, match="holds no frame with depth, room and colours"):
        prepare(raw, tmp_path / "root")


def test_without_a_header_sizes_are_the_published_ones(raw, tmp_path):
    (raw / "nyu.json").unlink()

    assert grid_of(raw) == PUBLISHED
    with pytest.raises(InputError, match="None of the 4 frames.*120x160 pixels: 480x640"):
        prepare(raw, tmp_path / "root")


def test_a_header_with_other_keys_is_refused(raw):
    write_json(raw / "nyu.json", {"grid": {"volume": [60, 36, 60], "voxels": 0.08}})

    with pytest.raises(InputError, match="voxels"):
        grid_of(raw)
    odd = {"volume": [60, 35, 60], "voxel": 0.08, "image": [120, 160], "focal": [130, 130], "centre": [80, 60]}
    write_json(raw / "nyu.json", {"grid": {**odd, "margin": 0.24}})
    with pytest.raises(InputError, match=r"\(60, 35, 60\) voxels: multiples of 4"):
        grid_of(raw)


# ---- positions


def test_positions_that_are_wrong_are_found_and_repaired(raw, packed):
    right = FrameFile(npz(packed)).arrays(["position"])["position"]
    change(npz(packed), position=np.where(np.arange(160) < 80, right, 7).astype(np.int32))
    before = contents(packed)

    repaired = prepare(raw, packed, repair_positions=True)

    assert repaired.done == [f"NYUtrain_npz/{FRAME}_voxels.npz"] and len(repaired.reused) == 5
    assert np.array_equal(FrameFile(npz(packed)).arrays(["position"])["position"], right)
    changed = [name for name, data in contents(packed).items() if before[name] != data]
    assert changed == [f"NYUtrain_npz/{FRAME}_voxels.npz"]


def test_repairing_names_frames_without_an_npz_and_those_of_another_size(raw, packed):
    npz(packed).unlink()
    change(npz(packed, "NYUtest", "NYU0005_0000"), position=np.zeros((6, 8), np.int32))

    repaired = prepare(raw, packed, repair_positions=True)

    said = dict(repaired.skipped)
    assert "is not there" in said[f"NYUtrain/{FRAME}"] and len(repaired.reused) == 4
    assert "positions of (6, 8) pixels" in said["NYUtest/NYU0005_0000"]


# ---- checking


def test_a_folder_without_fault_passes_whatever_it_holds(synthetic_nyu, raw, packed, tmp_path):
    assert check(synthetic_nyu) is not None and not check(synthetic_nyu).errors and not check(synthetic_nyu).warnings
    assert not check(packed).errors and not check(raw).errors and "prepare nyu" in check(raw).warnings[0]
    assert check(tmp_path / "raw" / "depthbin") is not None and check(Path(__file__).parent) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target_lr": np.full((15, 9, 15), 12, np.uint8)}, "a voxel of class 12 in target_lr"),
        ({"target_lr": np.zeros((15, 9, 15), np.uint8)}, "target_lr does not follow from target_hr"),
        ({"tsdf_lr": np.ones((15, 9, 15), np.float32)}, "tsdf_lr does not follow from tsdf_hr"),
        ({"tsdf_lr": np.full((15, 9, 15), 0.5, np.float32)}, "other values in tsdf_lr"),
        ({"rgb": np.full((3, 120, 160), np.nan, np.float32)}, "numbers in rgb that are not finite"),
        ({"position": np.full((120, 160), 129600, np.int32)}, "positions from 129600 to 129600"),
        ({"position": None}, "has no position"),
        ({"depth": np.full((1, 120, 160), "x")}, "a depth of the type <U1: numbers were expected"),
        ({"depth": np.zeros((120, 160), np.float32)}, r"a depth of shape \(120, 160\)"),
        ({"tsdf_hr": np.zeros((60, 60), np.float32)}, "three axes"),
    ],
)
def test_what_is_wrong_with_a_prepared_frame_is_said(packed, changes, sentence):
    change(npz(packed), **changes)

    errors = check(packed).errors

    assert any(__import__("re").search(sentence, error) for error in errors), errors
    assert len(errors) == 1


def test_frames_that_were_left_out_are_counted_and_named_alike(raw, tmp_path):
    folder, root = raw / "depthbin" / "NYUtrain", tmp_path / "root"
    (folder / f"{FRAME}.bin").unlink()
    cut(folder / "NYU0002_0000.bin", 5)

    prepare(raw, root)

    skipped = read_json(root / "skipped.json")["skipped"]
    assert [entry["name"] for entry in skipped] == [f"NYUtrain/{FRAME}", "NYUtrain/NYU0002_0000"]
    (warning,) = check(root).warnings
    assert warning == f"2 frames were left out when this was prepared. The reasons stand in {root / 'skipped.json'}."


def test_frames_of_both_halves_are_told_of(raw, packed, tmp_path):
    folder = raw / "depthbin"
    shutil.copy(folder / "NYUtrain" / f"{FRAME}.bin", folder / "NYUtest" / "NYU0005_0000.bin")
    shutil.copy(npz(packed), npz(packed, "NYUtest"))

    for root, name in ((raw, f"NYU0005_0000 (there {FRAME})"), (packed, FRAME)):
        (warning,) = (text for text in check(root).warnings if "too good" in text)
        assert warning.startswith(f"1 frame of NYUtest, {name} the first, in NYUtrain as well")

    prepare(raw, tmp_path / "fresh")
    assert f"NYU0005_0000 (there {FRAME})" in check(tmp_path / "fresh").warnings[0]


def test_positions_are_compared_where_the_raw_files_are_found(synthetic_nyu, packed):
    wrong = FrameFile(npz(packed)).arrays(["position"])["position"]
    wrong[:, 3:5] += 1
    change(npz(packed), position=wrong)
    assert not check(packed).errors  # nothing to compare with
    shutil.copytree(synthetic_nyu / "depthbin", packed / "depthbin", ignore=shutil.ignore_patterns("NYUCAD*"))

    (error,) = check(packed).errors

    assert "1 of 4 frames" in error and "in 240 pixels" in error and "--repair-positions" in error


def test_so_many_frames_choose_the_epoch():
    assert [kept_back(frames, 0.1) for frames in (2, 10, 54, 795)] == [1, 1, 5, 80] and kept_back(3, 0.9) == 2

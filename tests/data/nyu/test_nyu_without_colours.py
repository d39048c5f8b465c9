"""Depth and rooms as SSCNet ships them, without colours; frames without labels; and weights of the authors' code."""

import json
import struct
from dataclasses import asdict

import numpy as np
import pytest
import torch
from authors_rooms import made_file
from PIL import Image

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.nyu.check import check
from xmodal.data.nyu.files import prepare
from xmodal.data.nyu.frames import FrameFile
from xmodal.data.nyu.voxels import TINY
from xmodal.errors import InputError
from xmodal.models.network import build_for
from xmodal.models.student_file import save_student
from xmodal.recipes.nyu_ssc.experiment import Settings, run

FRAMES = {"NYUtrain": 3, "NYUtest": 2}


def write_raw(root, *, unlabelled=""):
    """The two files of each frame, byte by byte; frames of a folder ``unlabelled`` have origin and pose alone."""
    random, rooms = np.random.default_rng(0), np.random.default_rng(1)
    root.mkdir(parents=True)
    (root / "nyu.json").write_text(json.dumps({"schema": 1, "grid": asdict(TINY)}))
    for part, frames in FRAMES.items():
        folder = root / "depthbin" / part
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            # millimetres, the three highest bits moved to the end
            mm = random.integers(1500, 3000, TINY.image).astype(np.uint16)
            Image.fromarray((mm << 3) | (mm >> 13)).save(folder / f"NYU{number:04d}_0000.png")
            pose = [1, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1]
            head = struct.pack("<3f", -0.3, 0.8, -0.05) + struct.pack("<16f", *pose)
            voxels, runs = int(np.prod(TINY.volume)), b""
            while voxels and part != unlabelled:
                length = min(voxels, int(rooms.integers(1, 200)))
                runs += struct.pack("<2I", int(rooms.choice([0, 1, 2, 3, 5, 255])), length)
                voxels -= length
            (folder / f"NYU{number:04d}_0000.bin").write_bytes(head + runs)
    return root


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Raw files, and the same prepared."""
    folder = tmp_path_factory.mktemp("sscnet")
    raw = write_raw(folder / "raw")
    prepare(raw, folder / "root")
    return raw, folder / "root"


def test_frames_without_colours_are_prepared_with_what_there_is(roots):
    raw, root = roots

    facts = json.loads((root / "nyu.json").read_text())
    names = FrameFile(root / "NYUtrain_npz" / "NYU0001_0000_voxels.npz").names()
    assert facts["modalities"] == ["depth", "tsdf"] and facts["frames"] == FRAMES
    assert "rgb" not in names and {"depth", "tsdf_hr", "target_lr", "position"} <= set(names)
    assert open_data("nyu", options={"root": str(root)}).info.modalities == ("depth",)
    for folder in roots:
        report = check(folder)
        assert report.errors == [], report.errors
    assert any("no pictures with colours" in warning for warning in check(raw).warnings)


def test_networks_that_read_colours_are_refused_before_anything_is_trained(roots, tmp_path):
    with pytest.raises(InputError, match="was prepared without colours, and rgb is to be read"):
        run(Settings(options={"nyu": {"root": str(roots[1])}}, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_one_missing_picture_or_room_is_named(tmp_path):
    raw = write_raw(tmp_path / "raw")
    (raw / "depthbin" / "NYUtrain" / "NYU0002_0000.bin").unlink()
    assert prepare(raw, tmp_path / "a").skipped == [
        ("NYUtrain/NYU0002_0000", "NYU0002_0000.bin not found in NYUtrain: .png and .bin expected")
    ]
    # where any frame has colours, all must have them
    Image.fromarray(np.zeros((*TINY.image, 3), np.uint8)).save(raw / "depthbin" / "NYUtrain" / "NYU0001_rgb.png")
    with pytest.raises(
        InputError, match=r"NYUtest holds no frame with depth, room and colours.*NYU0001_rgb.png not found"
    ):
        prepare(raw, tmp_path / "b")


@pytest.fixture
def student(roots, tmp_path):
    """An untrained student of depth, in a file."""
    data = open_data("nyu", options={"root": str(roots[1])})
    torch.manual_seed(0)
    return save_student(tmp_path / "student" / "student.safetensors", build_for(data.info, ("depth",)), data.info)


def test_frames_without_labels_are_predicted_like_those_with_labels(roots, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    prepare(write_raw(tmp_path / "raw", unlabelled="NYUtest"), root)
    assert "target_lr" not in FrameFile(root / "NYUtest_npz" / "NYU0001_0000_voxels.npz").names()

    for name, folder in {"without": root, "with": roots[1]}.items():
        assert answer(["predict", str(student), str(folder / "NYUtest_npz"), "--out", f"{name}.npz"]) == 0
    with np.load("without.npz") as found, np.load("with.npz") as expected:
        assert found["classes"].shape == (2, *(size // 4 for size in reversed(TINY.volume)))
        assert found["ids"].tolist() == ["NYU0001_0000", "NYU0002_0000"] == expected["ids"].tolist()
        assert np.array_equal(found["classes"], expected["classes"])
    with pytest.raises(InputError, match="has no labels .* it can be predicted"):
        open_data("nyu", options={"root": str(root)})


def test_weights_of_the_authors_are_scored_by_the_name_of_their_network(roots, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, _ = made_file("ddrnet_depth", tmp_path / "cpBest_DDRNet.pth.tar")
    data = ["nyu", "--nyu.root", str(roots[1])]

    assert answer(["evaluate", "cpBest_DDRNet.pth.tar", *data, "--network", "ddrnet_depth", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]

    network = build_for(open_data("nyu", options={"root": str(roots[1])}).info, ("depth",))
    ours = {name: source.state_dict()[name] for name in network.module.state_dict()}
    network.module.load_state_dict(ours)
    save_student(
        tmp_path / "same" / "student.safetensors", network, open_data("nyu", options={"root": str(roots[1])}).info
    )
    assert answer(["evaluate", "same/student.safetensors", *data, "--json"]) == 0
    (same,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["scores"] == same["scores"] and row["name"] == "cpBest_DDRNet.pth.tar"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.pth.tar", "--network", "ddrnet_depth"], "There is no file none.pth.tar"),
        (["none.pth.tar"], "name its network, ddrnet_rgbd, ddrnet_rgb, ddrnet_depth"),
        (["none.pth.tar", "--network", "ddrnet_rgbd"], "asks for the modality 'rgb', which this data does not have"),
    ],
)
def test_weights_that_cannot_be_scored_are_refused(words, sentence, roots, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert answer(["evaluate", words[0], "nyu", "--nyu.root", str(roots[1]), *words[1:]]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())

"""`data`, `list` and `doctor`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from xmodal.cli import doctor
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES


def test_make_prepare_check(call) -> None:
    assert call("data make digits raw --format raw --samples 60")[0] == 0
    broken = next(Path("raw").rglob("0003.png"))
    broken.write_bytes(b"no picture")

    first = call("data prepare digits raw ready --json")
    second = call("data prepare digits raw ready")

    found = json.loads(first[1])
    assert first[0] == second[0] == 0
    assert (found["done"], found["reused"], [entry["name"] for entry in found["skipped"]]) == (59, 0, ["0003"])
    assert "60/60 prepared" in first[2]
    assert "0 made, 59 reused, 1 skipped" in second[1] and "skipped 0003: " in second[1]
    assert call("data check ready")[0] == 0


def test_semantic_kitti_is_made_cut_and_checked(call) -> None:
    small = "--sequences 0,8 --frames 2 --width 64 --height 32 --beams 8 --turns 64"
    assert call(f"data make semantic-kitti made {small}")[0] == 0

    cut = call("data prepare kitti-fov made cut")
    again = call("data prepare kitti-fov made cut")
    Path("cut/sequences/08/calib.txt").write_text("P2: 1\n")
    broken = call("data check cut")

    assert "4 made, 0 reused" in cut[1] and "0 made, 4 reused" in again[1]
    assert call("data check made")[0] == 0
    assert broken[0] == 2 and "a key, a colon and twelve numbers were expected" in broken[1]


def test_what_is_prepared_under_another_name_has_no_second_one(call) -> None:
    status, _, said = call("data prepare semantic-kitti raw root")

    assert status == 2 and "nothing to prepare for the data set 'semantic-kitti'" in said and "kitti-fov" in said
    assert call("data make kitti-fov root")[0] == 2


def test_options_of_a_data_set_are_flags_of_make(call, read) -> None:
    assert call("data make gaussian pairs --shared 2 --a-only 1 --b-only 0 --train 20 --seed 3")[0] == 0
    refused = call("data make gaussian none --shared 2 --gamma 0.5")

    assert read(Path("pairs/truth.json"))["modalities"]["a"]["specific"] == [2]
    assert np.load("pairs/train_idx.npy").shape == (20,)
    assert refused[0] == 2 and "one or the other" in refused[2]
    assert "decisive features in both modalities" in " ".join(call("data make gaussian --help")[1].split())


def test_check_says_everything(call) -> None:
    assert call("data make digits made --samples 80 --seed 1")[0] == 0
    labels = np.load("made/labels.npy")
    np.save("made/labels.npy", labels[:-1])
    Path("made/test_idx.npy").unlink()

    status, said, _ = call("data check made --json")

    errors = json.loads(said)["errors"]
    assert status == 2 and len(errors) >= 2
    assert call("data check made")[1].count("error: ") == len(errors)


def test_list_has_every_card(call) -> None:
    status, said, _ = call("list")

    assert status == 0
    assert all(card.title in said for cards in (METHODS, RECIPES) for card in cards.values())
    assert "losses:" not in call("list methods")[1]


def test_list_of_one_card_shows_its_settings(call) -> None:
    status, said, _ = call("list kd")
    found = json.loads(call("list digits --json")[1])["data"]

    assert status == 0
    assert "temperature = None: softening τ; default" in said and "arXiv 1503.02531" in said
    noise = next(entry for entry in found["settings"] if entry["name"] == "noisy_noise")
    assert noise["default"] == 0.45 and "standard deviation" in noise["meaning"]


def test_version(call) -> None:
    assert call("--version")[1].startswith("xmodal ")
    assert json.loads(call("--version --json")[1])["schema"] == 1


def test_doctor_finds_what_is_installed(call) -> None:
    status, said, complained = call("doctor --json")

    found = json.loads(said)
    assert (status, found["ok"], found["two_processes"]) == (0, True, "ok"), complained
    assert {entry["name"]: entry["version"] for entry in found["packages"]}["torch"]
    assert all(entry["for"] for entry in found["packages"])
    assert found["data"]["digits"] == "nothing"


def test_doctor_notices_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "status 1" in str(doctor.two_processes())

    monkeypatch.undo()
    assert "did not connect" in str(doctor.two_processes(seconds=0.05))


def test_a_long_list_of_skipped_items_is_counted(call) -> None:
    assert call("data make vggsound clips --clips 2 --test-clips 1 --seconds 1 --size 32")[0] == 0
    listed = Path("clips/vggsound.csv")
    listed.write_text(listed.read_text() + "".join(f"missing{n:04d},{n},dog barking,train\n" for n in range(30)))

    status, said, _ = call("data prepare vggsound clips ready --seconds 1 --frames 2 --size 16")

    lines = said.splitlines()
    assert status == 0 and lines[0] == "12 made, 0 reused, 30 skipped"
    assert lines[1] == "  skipped missing0000_000000: there is no missing0000_000000.mp4" and len(lines) == 23
    assert lines[21] == "  … and 10 more; all of them: ready/skipped.json"
    assert call("data check ready")[1].splitlines()[-1] == "ready: 0 errors, 0 warnings"

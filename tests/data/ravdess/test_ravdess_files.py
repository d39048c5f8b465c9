import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from recordings import coded, tone, wav, write_mp4

from xmodal.data.media.resampling import resample
from xmodal.data.media.sound import log_mel, mfcc, read_sound
from xmodal.data.media.video import frames_at
from xmodal.data.ravdess.check import check
from xmodal.data.ravdess.files import FeatureSettings, prepare, sound_features, split_clips
from xmodal.data.ravdess.names import Clip
from xmodal.data.ravdess.synthetic import SMALL, list_clips
from xmodal.errors import InputError


def rows(root, name):
    return list(csv.reader(io.StringIO((root / "data_file" / name).read_text())))


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def every_file(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write_pair(raw, clip, *, sound=None, greys=range(0, 200, 10), track=None, **video):
    """A wav and an mp4 file that are not written by the code of the package."""
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"03-{clip}.wav").write_bytes(wav(coded(tone(300, 1.0), 16)) if sound is None else sound)
    write_mp4(raw / f"01-{clip}.mp4", greys, sound=track, **video)


@pytest.fixture
def few(recordings, tmp_path):
    """A clip of each of three actors."""
    (tmp_path / "few").mkdir()
    for path in recordings.rglob("0?-01-08-01-01-01-0[123].*"):
        shutil.copy(path, tmp_path / "few")
    return tmp_path / "few"


def test_a_clip_becomes_features_of_its_sound_and_the_frame_in_its_middle(recordings, prepared):
    name = "01-03-01-01-01-02"
    sound = read_sound(recordings / "Actor_02" / f"03-{name}.wav")

    features = np.load(prepared / "aud_features" / f"{name}.npy")
    picture = pixels_of(prepared / "vid_features" / f"{name}.png")

    expected = mfcc(resample(sound.waveform, sound.rate, 22050), 22050, hop=1024)
    frames = expected.shape[1]
    assert features.shape == (40, 32) and features.dtype == np.float32 and frames < 32
    np.testing.assert_array_equal(features[:, :frames], expected.astype(np.float32))
    assert not features[:, frames:].any()
    shown = frames_at(recordings / "Actor_02" / f"01-{name}.mp4", [0.5], height=16, width=32)[0]
    np.testing.assert_array_equal(picture, shown)


def test_the_published_sizes_are_the_default(few, tmp_path):
    prepare(few, tmp_path)

    for path in (tmp_path / "aud_features").iterdir():
        assert np.load(path).shape == (40, 256)
        with Image.open(tmp_path / "vid_features" / f"{path.stem}.png") as picture:
            assert (picture.size, picture.mode) == ((512, 256), "RGB")


def test_the_lists_have_a_header_and_keep_each_actor_in_one_split(prepared):
    lists = {name: rows(prepared, name) for name in ("spa_dl.csv", "spa_val.csv", "spa_test.csv")}

    actors = [{row[0][-6:-4] for row in lines[1:]} for lines in lists.values()]
    assert all(lines[0] == ["audio", "image", "label"] for lines in lists.values())
    assert [len(part) for part in actors] == [2, 1, 1] and len(set.union(*actors)) == 4
    for audio, image, label in lists["spa_dl.csv"][1:]:
        assert audio[:-4] == image[:-4] and int(audio[3:5]) - 1 == int(label)
    facts = json.loads((prepared / "ravdess.json").read_text())
    assert facts["clips"] == {"train": 16, "valid": 8, "test": 8} and facts["features"]["frames"] == 32


def test_splits_hold_as_many_men_as_women_and_depend_on_the_seed():
    clips = list_clips(24, 1)

    drawn = [split_clips(clips, "actor", seed) for seed in (0, 0, 1)]

    for part, share in (("train", 8), ("valid", 2), ("test", 2)):
        actors = {clips[row].actor for row in drawn[0][part]}
        assert sum(actor % 2 for actor in actors) == share and len(actors) == 2 * share
        assert np.array_equal(drawn[0][part], drawn[1][part])
    assert not np.array_equal(drawn[0]["test"], drawn[2]["test"])
    assert sorted(np.concatenate(list(drawn[0].values()))) == list(range(len(clips)))


def test_stratified_splits_hold_all_emotions_equally():
    clips = list_clips(3, 4)

    drawn = split_clips(clips, "stratified", 0)

    counts = {part: np.bincount([clips[row].label for row in numbers]) for part, numbers in drawn.items()}
    assert [set(counts[part]) for part in ("train", "valid", "test")] == [{8}, {2}, {2}]


@pytest.mark.parametrize("actors", [3, 4, 5, 7])
def test_few_actors_still_give_three_splits(actors):
    clips = list_clips(actors, 1)

    splits = {part: {clips[row].actor for row in rows} for part, rows in split_clips(clips, "actor", 0).items()}

    assert all(splits.values()) and sum(map(len, splits.values())) == actors


def test_too_few_clips_for_three_splits_are_refused():
    two = [Clip(1, 2, 1, 1, 1, actor) for actor in (1, 2)]

    with pytest.raises(InputError, match="2 clips of 2 actors are too few.*stratified"):
        split_clips(two, "actor", 0)
    with pytest.raises(InputError, match="2 clips are too few for three splits: test"):
        split_clips(two, "stratified", 0)


@pytest.mark.parametrize(
    ("sound", "video"),
    [
        ({"bits": 24}, {"codec": "mpeg4"}),
        ({"bits": 32, "code": 3, "channels": 2, "extensible": True}, {"codec": "libx264", "pixels": "yuv444p"}),
        ({"rate": 44100}, {"codec": "libx264", "rate": 50, "track": tone(300, 0.4), "options": {"bf": "3"}}),
    ],
)
def test_recordings_of_other_encoders_are_prepared(tmp_path, sound, video):
    waveform = tone(300, 1.0, sound.get("rate", 48000))
    samples = np.stack([waveform] * sound.get("channels", 1), axis=1)
    for actor in (1, 2, 3):
        content = wav(coded(samples, sound.get("bits", 16), sound.get("code", 1)), **sound)
        write_pair(tmp_path / "raw", f"01-03-01-01-01-{actor:02d}", sound=content, **video)

    prepared = prepare(tmp_path / "raw", tmp_path / "out", settings=SMALL)

    assert len(prepared.done) == 3 and not prepared.skipped
    features = np.load(tmp_path / "out/aud_features/01-03-01-01-01-01.npy")[:, 2:20]
    expected = mfcc(tone(300, 1.0, 22050).astype(np.float32), 22050, hop=1024)[:, 2:20]
    # The features are some hundreds; 16-bit samples add a little noise.
    assert np.abs(features - expected).max() < 2
    picture = pixels_of(tmp_path / "out/vid_features/01-03-01-01-01-01.png")
    assert abs(int(picture.mean()) - 100) < 5  # the eleventh of twenty greys


def test_unusable_clips_are_listed_and_skipped(tmp_path):
    raw, clip = tmp_path / "raw", "01-0{}-01-01-01-0{}".format
    for actor in (1, 2, 3):
        write_pair(raw, clip(2, actor))
    write_pair(raw, clip(3, 1), sound=b"these are words")
    write_pair(raw, clip(3, 2), sound=wav(coded(np.zeros(48000), 16)))
    write_pair(raw, clip(3, 3), sound=wav(coded(tone(300, 0.3), 16)))
    write_pair(raw, clip(4, 1), sound=wav(coded(tone(300, 1.0), 16))[:-5000])
    write_pair(raw, clip(4, 2))
    whole = (raw / f"01-{clip(4, 2)}.mp4").read_bytes()
    (raw / f"01-{clip(4, 2)}.mp4").write_bytes(whole[: len(whole) // 2])
    write_pair(raw, clip(4, 3))
    (raw / f"01-{clip(4, 3)}.mp4").unlink()
    write_pair(raw, "01-02-01-01-01-25")
    (raw / "03-01-02-01-01-01.wav").touch()

    prepared = prepare(raw, tmp_path / "out", settings=SMALL)

    reasons = dict(prepared.skipped)
    assert len(prepared.done) == 3 and len(reasons) == 9
    for (emotion, actor), part in {
        (3, 1): "no sound file",
        (3, 2): "silent: its largest sample is 0.0e+00",
        (3, 3): "too short: 0.30 s; at least 0.5 s were expected",
        (4, 1): "cut off",
        (4, 2): "no video that can be read",
        (4, 3): "unpaired: there is no 01-",
    }.items():
        assert part in reasons[clip(emotion, actor)], reasons[clip(emotion, actor)]
    assert "actor is 25" in reasons["03-01-02-01-01-01-25.wav"] and "seven fields" in reasons["03-01-02-01-01-01.wav"]
    report = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert {entry["name"]: entry["reason"] for entry in report} == reasons
    assert check(tmp_path / "out").errors == []


def test_other_settings_make_everything_again_and_another_split_makes_nothing(few, tmp_path):
    root = tmp_path / "out"
    prepare(few, root, settings=SMALL)
    before = every_file(root / "aud_features")

    again = prepare(few, root, settings=SMALL, seed=4)
    same = every_file(root / "aud_features")
    other = prepare(few, root, settings=SMALL.model_copy(update={"features": "log-mel"}))

    assert (again.done, len(again.reused)) == ([], 3) and same == before
    assert len(other.done) == 3 and every_file(root / "aud_features") != before


def test_a_clip_that_is_gone_leaves_nothing_behind(few, tmp_path):
    root = tmp_path / "out"
    prepare(few, root, settings=SMALL)
    write_pair(few, "01-02-01-01-01-03")
    (few / "01-01-08-01-01-01-03.mp4").unlink()

    prepared = prepare(few, root, settings=SMALL)

    assert (prepared.done, len(prepared.reused)) == (["01-02-01-01-01-03"], 2)
    assert not list(root.rglob("*01-08-01-01-01-03*")) and check(root).errors == []


def test_log_mel_bands_are_the_rows_that_are_asked_for(recordings):
    settings = FeatureSettings(features="log-mel", coefficients=24, frames=20)
    path = recordings / "Actor_02" / "03-01-03-01-01-01-02.wav"

    features = sound_features(path, settings)

    sound = read_sound(path)
    expected = log_mel(resample(sound.waveform, sound.rate, 22050), 22050, bands=24)
    np.testing.assert_array_equal(features, expected[:, :20].astype(np.float32))


SCRIPT = """
import sys
from pathlib import Path
from xmodal.data.ravdess.files import prepare
from xmodal.data.ravdess.synthetic import SMALL

if __name__ == "__main__":
    prepare(sys.argv[1], Path(sys.argv[2]), settings=SMALL, workers=1)
"""


def test_a_killed_preparation_continues_to_the_same_files_as_an_uninterrupted_one(recordings, prepared, tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    root = tmp_path / "out"
    command = [sys.executable, str(tmp_path / "run.py"), str(recordings), str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        while len(list(root.glob(".prepared/0*.json"))) < 4:
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (root / "aud_features" / ".half.npy.part-1.npy").write_bytes(b"half")  # left by a kill during a write
    unfinished = check(root)

    again = prepare(recordings, root, settings=SMALL)

    assert 4 <= len(again.reused) < 32 and len(again.done) + len(again.reused) == 32
    assert any("spa_dl.csv is missing" in error for error in unfinished.errors)
    assert every_file(root) == every_file(prepared)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "03-01-01-01-01-01-30.wav").touch()

    with pytest.raises(InputError, match="holds no clip with sound and picture.*The first of 1 files.*actor is 30"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="split is 'actors'. Did you mean 'actor'"):
        prepare(tmp_path, tmp_path / "out", split="actors")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_unusable_clips_is_refused(tmp_path):
    write_pair(tmp_path / "raw", "01-02-01-01-01-01", sound=b"words")

    with pytest.raises(InputError, match="None of the 1 clips.*See the reasons in .*skipped.json"):
        prepare(tmp_path / "raw", tmp_path / "out")


def test_settings_that_do_not_fit_are_refused():
    for wrong in ({"coefficients": 200}, {"hop": 4096}, {"frames": 0}, {"moment": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FeatureSettings(**wrong)

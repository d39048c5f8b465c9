import json
import os
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from recordings import tone, write_mp4

from xmodal.data.media.video import frames_at
from xmodal.data.vggsound.clips import read_frames, read_waveform
from xmodal.data.vggsound.files import ClipSettings, prepare
from xmodal.errors import InputError
from xmodal.files import read_json

SMALL = ClipSettings(seconds=1, frames=4, size=16, shortest=0.2)


def raw_of(root, folder, *, names=None):
    """A copy of the raw clips, or some of them."""
    shutil.copytree(root / "raw", folder)
    for path in sorted(folder.glob("*.mp4"))[names:] if names is not None else ():
        path.unlink()
    return folder


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".prepared" not in path.parts
    }


def markers(out):
    return list((out / ".prepared").glob("[!.]*.json"))


def listed(folder, *rows):
    folder.mkdir(exist_ok=True)
    (folder / "vggsound.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    return folder


def test_the_published_layout_is_written(synthetic_vggsound):
    labels = json.loads((synthetic_vggsound / "label.json").read_text())
    facts = read_json(synthetic_vggsound / "vggsound.json")

    assert labels == {
        "bird-chirping-tweeting": 0,
        "church-bell-ringing": 1,
        "dog-barking": 2,
        "engine-accelerating-revving-vroom": 3,
    }
    assert facts["classes"][0] == "bird chirping, tweeting" and facts["clips"] == {"train": 12, "test": 8}
    tall, waveforms = (
        sorted(synthetic_vggsound.glob("train/video_jpg/*")),
        sorted(synthetic_vggsound.glob("train/audio_npy/*")),
    )
    sounds = sorted(synthetic_vggsound.glob("test/audio/*"))
    assert [path.stem for path in tall] == [path.stem for path in waveforms] and len(tall) == 12 and len(sounds) == 8
    for path in tall:
        assert path.stem.split("_")[-2] in labels
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and picture.size == (16, 8 * 16)
    waveform = np.load(waveforms[0])
    assert waveform.shape == (1, 16_000) and waveform.dtype == np.float32
    facts = soundfile.info(sounds[0])
    assert (facts.samplerate, facts.channels, facts.frames, facts.format) == (16_000, 1, 16_000, "WAV")
    assert facts.subtype == "FLOAT"


def test_test_clips_store_the_same_samples_as_training_clips_even_beyond_full_scale(tmp_path):
    raw = listed(
        tmp_path / "raw",
        *[[f"video00000{n}", "1", "dog" if n else "cat", split] for n, split in enumerate(("train", "test"))],
    )
    for number in (0, 1):
        write_mp4(raw / f"video00000{number}_000001.mp4", [30] * 25, sound=tone(440, 1.0, level=1.4))

    prepare(raw, tmp_path / "out", settings=SMALL)

    (train,), (test,) = (sorted((tmp_path / "out").glob(where)) for where in ("train/audio_npy/*", "test/audio/*"))
    trained, tested = (read_waveform(path, seconds=1) for path in (train, test))
    assert np.array_equal(trained, tested) and np.abs(tested).max() > 1.2


def test_wav_files_of_integers_are_read(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(440, 1.0, rate=16_000), 16_000, subtype="PCM_16")

    assert np.abs(read_waveform(tmp_path / "x.wav", seconds=1) - tone(440, 1.0, rate=16_000)).max() < 1e-4


def test_a_folder_with_other_files_is_not_written_to(synthetic_vggsound, tmp_path):
    (out := tmp_path / "out").mkdir()
    (out / "label.json").write_text("mine")

    with pytest.raises(InputError, match=r"out holds files .* did not write \(label.json, for example\)"):
        prepare(synthetic_vggsound / "raw", out, settings=SMALL)
    with pytest.raises(InputError, match="label.json is a file: a folder"):
        prepare(synthetic_vggsound / "raw", out / "label.json", settings=SMALL)
    raw = raw_of(synthetic_vggsound, tmp_path / "raw", names=1)
    with pytest.raises(InputError, match="did not write"):  # the clips themselves
        prepare(raw, raw, settings=SMALL)

    assert [path.name for path in out.rglob("*")] == ["label.json"] and (out / "label.json").read_text() == "mine"


def test_an_empty_and_a_prepared_folder_are_written_to(synthetic_vggsound, tmp_path):
    (out := tmp_path / "out").mkdir()
    raw = raw_of(synthetic_vggsound, out / "deep" / "raw", names=1)

    first, second = (prepare(raw, out, settings=SMALL) for _ in range(2))

    assert (len(first.done), len(second.reused)) == (1, 1)


@pytest.mark.parametrize(("split", "other"), [("test", "train"), ("train", "test")])
def test_a_split_without_clips_is_a_warning(tmp_path, split, other):
    raw = listed(tmp_path / "raw", ["video000000", "1", "cat", split], ["video000001", "1", "dog", split])
    write_mp4(raw / "video000000_000001.mp4", [30] * 25, sound=tone(440, 1.0))

    (warning,) = prepare(raw, tmp_path / "out", settings=SMALL).warnings

    assert warning.startswith(f"There is no clip of the split {other}: the lists name none.")


def test_frames_are_taken_from_the_middle_of_equal_parts_and_stacked_vertically(synthetic_vggsound, tmp_path):
    prepare(synthetic_vggsound / "raw", tmp_path / "out", most=1, settings=SMALL.model_copy(update={"store": "npy"}))

    path = sorted((tmp_path / "out" / "test" / "video_npy").iterdir())[0]
    video, _, start = path.stem.rsplit("_", 2)
    expected = frames_at(
        synthetic_vggsound / "raw" / f"{video}_{start}.mp4", [0.125, 0.375, 0.625, 0.875], height=16, width=16
    )
    assert np.array_equal(np.load(path), expected)
    prepare(synthetic_vggsound / "raw", tmp_path / "tall", most=1, settings=SMALL.model_copy(update={"quality": 95}))
    tall = np.asarray(Image.open(tmp_path / "tall" / "test" / "video_jpg" / f"{path.stem}.jpg")).astype(int)
    assert np.abs(tall.reshape(4, 16, 16, 3) - expected).mean() < 6  # what a JPEG loses


def test_a_worker_writes_the_same_bytes_and_unchanged_clips_are_reused(synthetic_vggsound, tmp_path):
    raw = raw_of(synthetic_vggsound, tmp_path / "raw", names=4)
    counts = []

    first = prepare(raw, tmp_path / "one", settings=SMALL, progress=lambda *count: counts.append(count))
    prepare(raw, tmp_path / "two", settings=SMALL, workers=1)
    again = prepare(raw, tmp_path / "one", settings=SMALL)
    changed = prepare(raw, tmp_path / "one", settings=SMALL.model_copy(update={"frames": 2}))

    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys() and len(first.skipped) == 16
    assert counts[-1] == (4, 4) and len(first.done) == len(again.reused) == len(changed.done) == 4
    prepare(raw, tmp_path / "one", settings=SMALL)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_killed_preparation_continues(synthetic_vggsound, tmp_path):
    raw, out = raw_of(synthetic_vggsound, tmp_path / "raw", names=8), tmp_path / "out"
    command = [sys.executable, "-m", "xmodal.cli.main", "data", "prepare", "vggsound", str(raw), str(out)]
    size = ["--seconds", "1", "--frames", "16", "--size", "256"]
    with subprocess.Popen(
        [*command, *size], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        while len(markers(out)) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    written = len(markers(out))
    assert 2 <= written < 8 and not (out / "label.json").exists()

    settings = ClipSettings(seconds=1, frames=16, size=256)
    again = prepare(raw, out, settings=settings)
    prepare(raw, tmp_path / "uninterrupted", settings=settings)

    assert (len(again.reused), len(again.done)) == (written, 8 - written)
    assert files(out) == files(tmp_path / "uninterrupted") and not list(out.rglob(".*.part-*"))


def test_unusable_clips_are_listed_with_their_reason(tmp_path):
    grey, loud = list(range(0, 200, 4)), tone(440, 2.0)
    raw = listed(
        tmp_path / "raw",
        *[[f"video{number:06d}", "1", "cat" if number % 2 else "dog", "train"] for number in range(9)],
        ["video000009", "1", "", "train"],
        ["video000010", "1", "dog", "test"],
    )
    for number in (0, 1, 8, 10):
        write_mp4(raw / f"video{number:06d}_000001.mp4", grey, sound=loud)
    write_mp4(raw / "video000002_000001.mp4", grey)  # no sound
    whole = (raw / "video000000_000001.mp4").read_bytes()
    (raw / "video000003_000001.mp4").write_bytes(whole[: len(whole) // 2])
    (raw / "video000004_000001.mp4").write_bytes(b"")
    write_mp4(raw / "video000005_000001.mp4", grey[:4], sound=tone(440, 0.15))
    with av.open(str(raw / "video000006_000001.mp4"), "w") as container:  # no pictures
        track = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(track.encode(frame))
        container.mux(track.encode())

    prepared = prepare(raw, tmp_path / "out", settings=SMALL)

    reasons = dict(prepared.skipped)
    assert len(prepared.names) == 4 and len(reasons) == 7
    for name, reason in (
        ("video000002_dog_000001", "no sound track"),
        ("video000003_cat_000001", "no video that can be read"),
        ("video000004_dog_000001", "no video that can be read"),
        ("video000005_cat_000001", "too short: its sound lasts 0.1"),
        ("video000006_dog_000001", "no pictures"),
        ("video000007_000001", "there is no video000007_000001.mp4"),
        ("vggsound.csv line 10", "no label"),
    ):
        assert reason in reasons[name]
    assert read_json(tmp_path / "out" / "vggsound.json")["skipped"] == 7
    assert [entry["name"] for entry in read_json(tmp_path / "out" / "skipped.json")["skipped"]] == sorted(reasons)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.mp4", {"codec": "mpeg4", "rate": 7}),
        ("x.mkv", {"codec": "libx264", "format": "matroska"}),
        ("x.webm", {"codec": "libvpx", "format": "webm", "options": {"deadline": "realtime"}}),
        ("x.mov", {"codec": "libx264", "format": "mov", "pixels": "yuv444p"}),
    ],
)
def test_other_encoders_and_containers_are_read(tmp_path, name, options):
    sound = None if name == "x.webm" else tone(1000, 1.0)
    path = write_mp4(tmp_path / name, [30] * 10 + [200] * 10, sound=sound, **options)

    frames = read_frames(path, [0.25, 0.75], size=24)

    assert frames.shape == (2, 24, 24, 3) and np.abs(frames.mean(axis=(1, 2, 3)) - [30, 200]).max() < 6
    if sound is not None:
        waveform = read_waveform(path, seconds=0.5)
        spectrum = np.abs(np.fft.rfft(waveform))
        assert len(waveform) == 8000 and spectrum.argmax() * 2 == 1000


def test_sound_is_cut_at_ten_seconds_and_not_padded(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(440, 12.0, rate=22050), 22050)
    soundfile.write(tmp_path / "y.wav", np.stack([tone(440, 3.0), 0 * tone(440, 3.0)], axis=1), 48000)

    long, short = (read_waveform(tmp_path / name, seconds=10) for name in ("x.wav", "y.wav"))

    assert long.shape == (160_000,) and short.shape == (48_000,) and abs(np.abs(short).max() - 0.25) < 0.01
    with pytest.raises(InputError, match="y.wav is too short: its sound lasts 3.00 s; at least 4 s were"):
        read_waveform(tmp_path / "y.wav", seconds=10, shortest=4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 16000), np.float32), r"shape \(2, 16000\): one channel"),
        (np.zeros((1, 1, 16000), np.float32), "one channel"),
        (np.full((1, 16000), np.nan, np.float32), "non-finite"),
        (np.zeros((1, 99), np.float32), "too short"),
    ],
)
def test_malformed_waveforms_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)

    with pytest.raises(InputError, match=f"x.npy.*{message}"):
        read_waveform(tmp_path / "x.npy", seconds=1)


def test_waveforms_may_be_integers_and_one_dimensional(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(-8000, 8000, dtype=np.int16))

    assert read_waveform(tmp_path / "x.npy", seconds=0.5).tolist() == list(range(-8000, 0))


def test_classes_and_most_reduce_the_clips(synthetic_vggsound, tmp_path):
    (tmp_path / "names.txt").write_text('dog barking\n"bird chirping, tweeting"\n')

    prepared = prepare(
        synthetic_vggsound / "raw", tmp_path / "out", classes=str(tmp_path / "names.txt"), most=1, settings=SMALL
    )

    assert len(prepared.done) == 4
    assert json.loads((tmp_path / "out/label.json").read_text()) == {"bird-chirping-tweeting": 0, "dog-barking": 1}


def test_wrong_folders_and_settings_are_refused(synthetic_vggsound, tmp_path):
    empty = listed(tmp_path / "empty", ["video000000", "1", "dog", "train"], ["video000001", "1", "cat", "train"])
    (empty / "other.mp4").touch()

    with pytest.raises(InputError, match="is not a folder"):
        prepare(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(
        InputError, match="holds none of the 2 clips that are listed: there is no video000000_000001.mp4"
    ):
        prepare(empty, tmp_path / "out")
    (empty / "video000000_000001.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="None of the 1 clips .* can be used. See the reasons in .*skipped.json"):
        prepare(empty, tmp_path / "out")
    with pytest.raises(InputError, match="higher than a JPEG can be"):
        prepare(synthetic_vggsound / "raw", tmp_path / "out", settings=ClipSettings(frames=300))

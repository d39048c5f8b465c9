"""Moments that are far apart: what lies between is jumped over, and nothing changes."""

from fractions import Fraction

import av
import numpy as np
import pytest
from recordings import tone, write_mp4

from xmodal.data.media import video
from xmodal.data.media.sound import Sound, read_sound
from xmodal.data.media.video import frames_at, key_times, look_at, read_track, write_clip
from xmodal.errors import InputError

GREYS = [(7 * number) % 200 + 20 for number in range(160)]
SHARES = [0.05, 0.43, 0.46, 0.8, 0.999]


def seconds_of(path, options=None, codec="libx264", rate=20, **more):
    """Eight seconds with a key frame in each."""
    return write_mp4(path, GREYS, codec=codec, rate=rate, options={"g": "20", "crf": "6", **(options or {})}, **more)


def decoded_of(monkeypatch):
    """A list that grows by each decoded frame."""
    seen, frames = [], video._frames
    monkeypatch.setattr(video, "_frames", lambda *given: (seen.append(frame.pts) or frame for frame in frames(*given)))
    return seen


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("x.mp4", {}),
        ("x.mp4", {"options": {"bf": "0"}}),
        ("x.mp4", {"options": {"bf": "7", "b_strategy": "0"}}),
        ("x.mp4", {"options": {"x264-params": "open-gop=1"}}),
        ("x.mp4", {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("x.mkv", {"format": "matroska"}),
        ("x.mp4", {"sound": tone(440, 8.0)}),
    ],
    ids=["h264", "no b", "many b", "open groups", "mpeg4", "matroska", "with sound"],
)
def test_jumping_finds_the_frames_that_reading_everything_finds(tmp_path, monkeypatch, name, how):
    path = seconds_of(tmp_path / name, **how)
    seen = decoded_of(monkeypatch)
    jumped = frames_at(path, SHARES, height=8, width=8)
    few = len(seen)
    monkeypatch.setattr(video, "key_times", lambda _: [])

    read = frames_at(path, SHARES, height=8, width=8)

    assert np.array_equal(jumped, read)
    expected = [GREYS[int(160 * share)] for share in SHARES]
    assert np.abs(read.mean(axis=(1, 2, 3)) - expected).max() < 8
    if how.get("codec") != "mpeg4":
        assert few < 0.75 * (len(seen) - few) or name == "x.mkv"


@pytest.mark.parametrize("name", ["x.mp4", "x.avi", "x.mkv"])
def test_moments_around_key_frames_are_found_however_the_file_finds_these(tmp_path, monkeypatch, name):
    """Avi looks key frames up by when they are decoded, so that some are shown too late and given up."""
    path = seconds_of(tmp_path / name, codec="mpeg4", options={"bf": "2"}, format=None)
    monkeypatch.setattr(video, "JUMP", 0.0)

    for number in (39, 40, 41, 42, 79, 80, 81, 82):
        _, found = frames_at(path, [0.0, (number + 0.5) / 160], height=8, width=8)

        assert abs(found.mean() - GREYS[number]) < 8


def test_frames_of_unequal_length_are_found_by_their_time(tmp_path):
    path, times = tmp_path / "x.mp4", np.cumsum([0] + [1, 1, 30, 2, 40, 3, 23] * 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "6", "g": "10", "threads": "1"})
        stream.height = stream.width = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 100)
        for number, time in enumerate(times[:-1].tolist()):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    shares = [0.005, 0.1, 0.5, 0.73, 0.95]
    found = frames_at(path, shares, height=8, width=8)

    with av.open(str(path)) as container:
        *_, end = container.decode(video=0)
        last = float((end.pts + end.duration) * end.time_base) * 100
    expected = [5 * (int(np.searchsorted(times, share * last, side="right")) - 1) for share in shares]
    assert np.abs(found.mean(axis=(1, 2, 3)) - expected).max() < 4


def test_a_longer_video_is_read_as_far_as_is_asked_for(tmp_path):
    path = seconds_of(tmp_path / "x.mp4", sound=tone(440, 8.0))

    found = frames_at(path, [0.5, 0.99], height=8, width=8, seconds=4.0)

    assert np.abs(found.mean(axis=(1, 2, 3)) - [GREYS[40], GREYS[79]]).max() < 8
    assert read_sound(path, seconds=2.5).seconds == 2.5 and read_sound(path).seconds == pytest.approx(8, abs=0.1)
    assert np.array_equal(read_track(path, seconds=1.0)[0], read_track(path)[0][:48000])


def test_a_cut_off_end_is_noticed_also_behind_a_jump(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3)).astype(np.uint8)
    sound = Sound((0.5 * np.random.default_rng(0).uniform(-1, 1, 48000 * 3)).astype(np.float32), 48000)
    write_clip(tmp_path / "x.mp4", noise, sound)
    with (
        av.open(str(tmp_path / "x.mp4")) as whole,
        av.open(str(tmp_path / "y.mp4"), "w", options={"movflags": "faststart"}) as copy,
    ):
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    whole = (tmp_path / "y.mp4").read_bytes()
    (tmp_path / "z.mp4").write_bytes(whole[: len(whole) // 2])

    look_at(tmp_path / "z.mp4")  # its header says nothing of it
    for shares in ([0.9], [0.1, 0.9]):
        with pytest.raises(InputError, match=r"z.mp4 is (cut off: it ends after|no video)"):
            frames_at(tmp_path / "z.mp4", shares, height=8, width=8)
    with pytest.raises(InputError, match=r"z.mp4 is (cut off: its sound ends after 1|no video)"):
        read_sound(tmp_path / "z.mp4")
    assert read_sound(tmp_path / "z.mp4", seconds=0.5).seconds == 0.5


def test_what_has_no_pictures_or_no_sound_is_found_without_decoding(tmp_path):
    mute = write_mp4(tmp_path / "mute.mp4", GREYS[:5])
    look_at(write_mp4(tmp_path / "x.mp4", GREYS[:5], sound=tone(440, 0.2)))
    with av.open(str(mute)) as container:
        assert key_times(container.streams.video[0])[:1] == [0]

    with pytest.raises(InputError, match="mute.mp4 has no sound track"):
        look_at(mute)
    (tmp_path / "no.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(InputError, match="no.mp4 is no video"):
        look_at(tmp_path / "no.mp4")

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from recordings import tone, write_mp4

from xmodal.data.media.sound import Sound, read_sound
from xmodal.data.media.video import frames_at, read_track, write_clip
from xmodal.errors import InputError

GREYS = [20 * number for number in range(12)]


def greys(path, shares, **size):
    """The grey value of each frame that is found."""
    frames = frames_at(path, shares, **({"height": 8, "width": 16} | size))
    return frames.reshape(len(shares), -1).mean(axis=1).round().astype(int).tolist()


def near(found, expected, tolerance=4):
    """Codecs lose a little."""
    return all(abs(one - other) <= tolerance for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("codec", "how"),
    [
        ("mpeg4", {}),
        ("mpeg4", {"rate": 7}),
        ("mpeg4", {"options": {"bf": "2"}}),
        ("libx264", {}),
        ("libx264", {"options": {"bf": "3", "g": "12", "crf": "4"}, "rate": 50}),
        ("libx264", {"pixels": "yuv444p", "size": (33, 45)}),
        ("libx264", {"sound": tone(440, 0.9)}),
        ("mpeg4", {"format": "avi"}),
    ],
)
def test_the_frame_shown_at_a_moment_is_found_whatever_the_file(tmp_path, codec, how):
    path = write_mp4(tmp_path / "x.mp4", GREYS, codec=codec, **how)

    assert near(greys(path, [0.5]), [GREYS[6]])
    assert near(greys(path, [0.0, 0.49, 0.51, 1.0]), [GREYS[0], GREYS[5], GREYS[6], GREYS[11]])
    assert near(greys(path, [(n + 0.5) / 12 for n in range(12)]), GREYS)


def test_one_frame_serves_several_moments(tmp_path):
    path = write_mp4(tmp_path / "x.mp4", GREYS[3:5])

    assert near(greys(path, [0.0, 0.1, 0.4, 0.9, 0.95]), [60, 60, 60, 80, 80])
    assert near(greys(write_mp4(tmp_path / "y.mp4", [60]), [0.5]), [60])


def test_streams_without_a_length_have_one_when_read(tmp_path):
    path = write_mp4(tmp_path / "x.mkv", GREYS, codec="libx264", format="matroska")

    with av.open(str(path)) as container:
        assert not container.streams.video[0].duration
    assert near(greys(path, [0.0, 0.5, 1.0]), [GREYS[0], GREYS[6], GREYS[11]])


def test_moments_are_counted_from_the_first_frame_and_need_times(tmp_path):
    late = write_mp4(tmp_path / "x.ts", GREYS, codec="libx264", format="mpegts")
    bare = write_mp4(tmp_path / "x.h264", GREYS, codec="libx264", format="h264")

    with av.open(str(late)) as container:
        assert container.streams.video[0].start_time > 0
    assert near(greys(late, [0.0, 0.5, 1.0]), [GREYS[0], GREYS[6], GREYS[11]])
    with pytest.raises(InputError, match="x.h264 holds no frames with a time"):
        greys(bare, [0.5])


def test_frames_are_rgb_of_the_size_that_was_asked_for(tmp_path):
    red = np.zeros((32, 48, 3), np.uint8)
    red[:, :24] = (200, 30, 30)
    write_clip(tmp_path / "x.mp4", [red] * 5, None)

    (found,) = frames_at(tmp_path / "x.mp4", [0.5], height=16, width=64)

    assert found.shape == (16, 64, 3) and found.dtype == np.uint8
    assert np.abs(found[8, 5].astype(int) - [200, 30, 30]).max() < 12 and found[8, 60].max() < 12


@pytest.mark.parametrize(
    ("stored", "pixels"), [((48, 64), "yuv420p"), ((33, 45), "yuv444p"), ((50, 102), "yuv422p"), ((34, 46), "gray")]
)
def test_pixels_are_those_of_pictures_that_are_decoded_one_by_one(tmp_path, stored, pixels):
    random, codec = np.random.default_rng(0), "ffv1" if pixels == "gray" else "libx264"
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        video = container.add_stream(codec, rate=25, options={"threads": "1"})
        video.height, video.width, video.pix_fmt = *stored, pixels
        for number in range(6):
            drawn = random.integers(0, 256, (*stored, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
    with av.open(str(tmp_path / "x.mkv")) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]

    # the own size, one dimension as it is, smaller and larger
    for height, width in (stored, (stored[0], 20), (16, 16), (70, 130)):
        found = frames_at(tmp_path / "x.mkv", [(n + 0.5) / 6 for n in range(6)], height=height, width=width)

        expected = [np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)) for picture in pictures]
        assert np.array_equal(found, np.stack(expected))


def test_a_clip_holds_pictures_and_sound_and_the_same_bytes_each_time(tmp_path):
    sound = Sound(tone(440, 0.5).astype(np.float32), 48000)
    pictures = [np.full((32, 48, 3), 10 * number, np.uint8) for number in range(15)]

    for name in ("one", "two"):
        write_clip(tmp_path / f"{name}.mp4", pictures, sound)

    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    with av.open(str(tmp_path / "one.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].frames == 15
    heard = read_sound(tmp_path / "one.mp4")
    assert heard.rate == 48000 and abs(heard.seconds - 0.5) < 0.05


def test_what_can_not_be_seen_is_a_sentence(tmp_path):
    (tmp_path / "words.mp4").write_text("these are words\n" * 9)
    whole = write_mp4(tmp_path / "x.mp4", GREYS).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(track.encode(frame))
        container.mux(track.encode())

    for name, said in (("words", "no video"), ("half", "no video"), ("sound", "no pictures"), ("gone", "No such file")):
        with pytest.raises(InputError, match=rf"{name}.mp4.*{said}"):
            frames_at(tmp_path / f"{name}.mp4", [0.5], height=8, width=8)


def test_a_video_whose_end_is_missing_is_not_read_as_a_shorter_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3)).astype(np.uint8)
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt, video.gop_size = 48, 64, "yuv420p", 1
        for number, pixels in enumerate(noise):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
    whole = path.read_bytes()
    assert whole.find(b"moov") < whole.find(b"mdat")  # its header says how long it was
    path.write_bytes(whole[: int(0.4 * len(whole))])

    with pytest.raises(InputError, match=r"x.mp4 is (cut off: it ends after|no video)"):
        frames_at(path, [0.5], height=8, width=8)
    assert frames_at(path, [0.1], height=8, width=8).shape == (1, 8, 8, 3)


def write_noise(path, *, pictures=50, seconds=2.0, codec="libx264"):
    """Pictures and sound that can hardly be compressed, 25 frames a second."""
    random = np.random.default_rng(0)
    heard = random.uniform(-0.3, 0.3, (1, round(seconds * 48000))).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options={"threads": "1", "g": "10", "bf": "0"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        track = container.add_stream("libopus" if codec == "libvpx" else "aac", rate=48000, layout="mono")
        for number in range(max(pictures, round(25 * seconds))):
            if number < pictures:
                pixels = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(video.encode(frame))
            part = np.ascontiguousarray(heard[:, 1920 * number : 1920 * (number + 1)])
            if part.size:
                sound = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                sound.sample_rate, sound.pts = 48000, 1920 * number
                container.mux(track.encode(sound))
        container.mux(video.encode())
        container.mux(track.encode())
    return path


@pytest.mark.parametrize(("name", "codec"), [("x.mkv", "libx264"), ("x.webm", "libvpx")])
def test_matroska_files_that_are_cut_off_are_not_read_as_shorter_ones(tmp_path, name, codec):
    path = write_noise(tmp_path / name, codec=codec)
    whole = path.read_bytes()
    assert frames_at(path, [0.0, 0.99], height=8, width=8).shape[0] == 2 and len(read_track(path)[0]) > 1.9 * 48000
    path.write_bytes(whole[: int(0.6 * len(whole))])

    with pytest.raises(InputError, match=f"{name} is cut off: it ends after 1.* its header promises 2.0"):
        frames_at(path, [0.1, 0.9], height=8, width=8)
    with pytest.raises(InputError, match=f"{name} is cut off: its sound ends after 1.* its header promises 2.0"):
        read_track(path)
    assert len(read_track(path, seconds=0.5)[0]) == 24000  # what is asked for is there


@pytest.mark.parametrize(("pictures", "seconds"), [(50, 1.0), (25, 2.0)])
def test_one_stream_of_a_whole_matroska_file_may_be_shorter(tmp_path, pictures, seconds):
    path = write_noise(tmp_path / "x.mkv", pictures=pictures, seconds=seconds)

    assert frames_at(path, [0.0, 0.99], height=8, width=8).shape[0] == 2
    assert abs(len(read_track(path)[0]) / 48000 - seconds) < 0.1


def test_the_last_moment_of_an_mp4_is_reached_whatever_the_order_of_coding(tmp_path):
    times = [0, 4, 8, 12, 100, 104, 108, 200, 300, 400, 404, 408, 500]  # hundredths of a second
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "6", "bf": "2", "b_strategy": "0", "g": "5"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 15 * number + 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "x.mp4")) as container:
        video = container.streams.video[0]
        assert float(video.duration * video.time_base) < 4.9  # it says less than there is

    shown = greys(tmp_path / "x.mp4", [time / 504 for time in (2, 50, 250, 450, 501)])

    assert near(shown, [20 + 15 * number for number in (0, 3, 7, 11, 12)])

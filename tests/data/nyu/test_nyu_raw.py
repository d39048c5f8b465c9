import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from xmodal.data.nyu.raw import (
    CLASSES,
    COLOURS,
    MERGED,
    RAW_CLASSES,
    decode_room,
    encode_room,
    metres,
    millimetres,
    png_of,
    read_colours,
    read_depth,
    read_room,
    stored_depth,
)
from xmodal.data.nyu.voxels import Grid
from xmodal.errors import InputError

SMALL = Grid((4, 4, 8), image=(2, 3))
POSE = [1, 0, 0, 4, 0, 0, 1, 5, 0, -1, 0, 6, 0, 0, 0, 1]


def content(*runs, pose=POSE):
    """The bytes of a .bin file, number by number."""
    return struct.pack("<3f16f", 1.5, -2.0, 0.25, *pose) + b"".join(struct.pack("<II", *run) for run in runs)


def test_a_room_is_read_from_its_bytes():
    room = decode_room(content((0, 30), (7, 8), (255, 80), (36, 10)), grid=SMALL)

    assert room.origin.tolist() == [1.5, -2.0, 0.25] and room.pose.tolist()[2] == [0, -1, 0, 6]
    flat = room.labels.ravel()
    assert room.labels.shape == (4, 4, 8) and room.labels.dtype == np.uint8
    assert flat[:30].max() == 0 and set(flat[30:38]) == {6} and set(flat[38:118]) == {255} and set(flat[118:]) == {11}


def test_the_last_axis_of_a_room_runs_fastest():
    room = decode_room(content((2, 8), (3, 24), (0, 96)), grid=SMALL)

    assert (room.labels[0, 0] == 2).all() and (room.labels[0, 1:] == 3).all() and not room.labels[1:].any()


def test_encoding_and_decoding_a_room_gives_the_same_room():
    random = np.random.default_rng(0)
    raw = random.choice([0, 1, 2, 36, 255], size=(4, 4, 8)).astype(np.uint8)
    pose = np.array(POSE, np.float32).reshape(4, 4)

    written = encode_room(np.array([1.5, -2, 0.25]), pose, raw)

    room = decode_room(written, grid=SMALL)
    assert np.array_equal(room.labels, np.where(raw == 255, 255, np.array([*MERGED, *[0] * 219])[raw]))
    assert np.array_equal(room.pose, pose)
    assert written == content(*runs_of(raw))


def runs_of(raw):
    """(value, length) of each run of equal values."""
    runs = []
    for value in raw.ravel().tolist():
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return runs


def test_equal_neighbours_are_written_as_one_run_and_read_from_several():
    whole = encode_room(np.array([1.5, -2, 0.25]), np.array(POSE).reshape(4, 4), np.full((4, 4, 8), 3, np.uint8))

    assert whole == content((3, 128))
    several = decode_room(content((3, 100), (3, 0), (3, 28)), grid=SMALL)
    assert np.array_equal(several.labels, decode_room(whole, grid=SMALL).labels)


def test_raw_classes_are_merged_to_twelve():
    merged = dict(enumerate(MERGED))

    assert len(merged) == RAW_CLASSES == 37 and set(merged.values()) == set(range(12))
    assert len(CLASSES) == len(COLOURS) == 12
    named = {0: "empty", 1: "ceiling", 2: "floor", 3: "wall", 4: "window", 6: "chair", 7: "bed", 8: "sofa", 9: "table"}
    assert all(CLASSES[merged[raw]] == name for raw, name in named.items())
    assert CLASSES[merged[33]] == "tvs" and CLASSES[merged[11]] == "furniture" and CLASSES[merged[5]] == "objects"


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (content((0, 128))[:-3], "81 bytes: 76 and 8 for each run"),
        (content((0, 128))[:70], "70 bytes"),
        (b"", "0 bytes"),
        (content((0, 127)), r"runs of 127 voxels: 128 \(4x4x8\)"),
        (content((0, 128), (1, 4294967295)), "runs of 4294967423 voxels"),
        (content((0, 100), (37, 28)), "a voxel of class 37: 0 to 36 and 255"),
        (content((0, 100), (256, 28)), "a voxel of class 256"),
        (content((0, 100), (254, 28)), "a voxel of class 254"),
        (content((256, 128)), "class 256"),
        (content((0, 128), pose=[float("nan"), *POSE[1:]]), "non-finite values"),
    ],
)
def test_damaged_rooms_are_refused(tmp_path, damaged, message):
    path = tmp_path / "NYU0001_0000.bin"
    path.write_bytes(damaged)

    with pytest.raises(InputError, match=message) as caught:
        read_room(path, grid=SMALL)
    assert len(caught.value.problems) == 1 and str(path) in str(caught.value)


def test_a_missing_room_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_room(tmp_path / "NYU0001_0000.bin")


def test_depth_is_rotated_by_three_bits():
    assert millimetres(np.array([0, 8, 16000, 65535, 1, 0b1000_0000_0000_0111], np.uint16)).tolist() == [
        *(0, 1, 2000, 65535, 8192, 0b1111_0000_0000_0000)
    ]
    every = np.arange(65536).astype(np.uint16)
    assert np.array_equal(millimetres(stored_depth(every)), every)
    below = every[every < 8192]
    assert np.array_equal(metres(stored_depth(below)), stored_depth(below) / 8000)


def test_a_depth_picture_is_read_in_metres(tmp_path):
    stored = np.array([[0, 8000, 16000], [24000, 32008, 65528]], np.uint16)
    (tmp_path / "depth.png").write_bytes(png_of(stored))

    assert read_depth(tmp_path / "depth.png", grid=SMALL).tolist() == [[0, 1, 2], [3, 4.001, 8.191]]


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_other_pictures_are_refused_as_depth(tmp_path):
    grey = save(tmp_path / "grey.png", np.zeros((2, 3), np.uint8))
    colours = save(tmp_path / "colours.png", np.zeros((2, 3, 3), np.uint8))
    large = save(tmp_path / "large.png", np.zeros((4, 6), np.uint16))
    cut = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 60000, (2, 3)).astype(np.uint16)
    cut.write_bytes(png_of(noise)[:-25])
    for path, message in (
        (grey, r"8 bits per pixel \(L\): 16 bits"),
        (colours, r"8 bits per pixel \(RGB\)"),
        (large, "4x6 pixels: 2x3 were expected"),
        (cut, "cannot be read as a picture"),
        (tmp_path / "none.png", "cannot be read as a picture"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_depth(path, grid=SMALL)
        assert len(caught.value.problems) == 1


def test_colours_are_read_with_channels_first(tmp_path):
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)

    colours = read_colours(save(tmp_path / "rgb.png", pixels), grid=SMALL)

    assert np.array_equal(colours, pixels.transpose(2, 0, 1))
    with pytest.raises(InputError, match="3x2 pixels: 2x3"):
        read_colours(save(tmp_path / "other.png", pixels.transpose(1, 0, 2).copy()), grid=SMALL)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_colours(tmp_path / "text.png", grid=SMALL)


@pytest.mark.parametrize(
    ("side", "reason"), [(10_000, "10000x10000 pixels: 2x3 were"), (60_000, "cannot be read as a picture")]
)
@pytest.mark.parametrize("read", [read_depth, read_colours])
def test_a_picture_whose_header_claims_a_huge_size_is_refused(tmp_path, read, side, reason):
    pixels = np.zeros((2, 3), np.uint16) if read is read_depth else np.zeros((2, 3, 3), np.uint8)
    png = png_of(pixels)
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    (tmp_path / "huge.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])

    with pytest.raises(InputError, match=rf"huge.png .*{reason}"):
        read(tmp_path / "huge.png", grid=SMALL)


def test_pictures_are_written_without_loss():
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7)).astype(np.uint16)

    with Image.open(io.BytesIO(png_of(pixels))) as picture:
        assert np.array_equal(np.asarray(picture), pixels)

import gzip
import struct

import numpy as np
import pytest

from xmodal.data.mnist.idx import read_idx, write_idx
from xmodal.errors import InputError

PICTURES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]) + bytes([1, 2, 3, 250, 251, 252])
LABELS = struct.pack(">II", 0x801, 4) + bytes([7, 0, 9, 9])


@pytest.fixture
def written(tmp_path):
    """Write bytes under a name, gzipped where the name says so."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_bytes_put_together_by_hand_are_read(written, name):
    found = read_idx(written(name, PICTURES), axes=3)

    assert found.shape == (2, 1, 3) and found.dtype == np.uint8
    assert found.tolist() == [[[1, 2, 3]], [[250, 251, 252]]]
    assert read_idx(written(name, LABELS), axes=1).tolist() == [7, 0, 9, 9]


def test_a_plain_file_is_mapped_to_memory(written):
    assert isinstance(read_idx(written("images", PICTURES), axes=3), np.memmap)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_what_is_written_are_these_bytes_and_the_same_each_time(tmp_path, name):
    pictures = np.array([[[1, 2, 3]], [[250, 251, 252]]], np.uint8)

    for path in (tmp_path / name, tmp_path / f"again-{name}"):
        write_idx(path, pictures)

    content = (tmp_path / name).read_bytes()
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == PICTURES
    assert (tmp_path / f"again-{name}").read_bytes() == content


@pytest.mark.parametrize("name", ["x", "x.gz"])
@pytest.mark.parametrize(
    ("content", "axes", "sentence"),
    [
        (LABELS, 3, "starts with the magic number 0x00000801: an IDX file with 3 axes starts with 0x00000803"),
        (b"\x89PNG....", 1, "starts with the magic number 0x89504e47"),
        (b"", 1, "starts with 0 bytes"),
        (PICTURES[:10], 3, "cut off inside its header"),
        (PICTURES[:-1], 3, r"promises an array of \(2, 1, 3\), which is 6 bytes, and 5 follow"),
        (PICTURES + b"\0", 3, "longer than its header says"),
        (struct.pack(">IIII", 0x803, 0, 28, 28), 3, "holds nothing"),
        (struct.pack(">IIII", 0x803, 2**31, 2**31, 2**31), 3, "at most 2147483648 bytes were expected"),
    ],
)
def test_wrong_bytes_are_a_sentence(written, name, content, axes, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read_idx(written(name, content), axes=axes)
    assert len(caught.value.problems) == 1 and str(caught.value).startswith(name)


def test_a_damaged_gzip_file_is_a_sentence(tmp_path):
    whole = gzip.compress(np.random.default_rng(0).bytes(3000))
    for content in (PICTURES, whole[: len(whole) // 2], whole[:20] + bytes(50) + whole[70:]):
        (tmp_path / "labels.gz").write_bytes(content)

        with pytest.raises(InputError, match="labels.gz"):
            read_idx(tmp_path / "labels.gz", axes=1)

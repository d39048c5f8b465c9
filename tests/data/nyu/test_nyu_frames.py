import re
import zipfile

import numpy as np
import pytest

from xmodal.data.nyu.frames import (
    COLOURS,
    KEYS,
    FrameFile,
    encode_frame,
    frame_of,
    network_order,
    resolve_axes,
    volume_shape,
)
from xmodal.data.nyu.raw import read_colours, read_depth, read_room
from xmodal.data.nyu.tsdf import flipped, tsdf
from xmodal.data.nyu.voxels import TINY, coarse_labels, coarse_tsdf, positions
from xmodal.errors import InputError


@pytest.fixture(scope="module")
def raw(synthetic_nyu):
    """The raw files of a frame."""
    folder = synthetic_nyu / "depthbin" / "NYUtest"
    return folder / "NYU0005_0000.png", folder / "NYU0005_0000.bin", folder / "NYU0005_rgb.png"


@pytest.fixture(scope="module")
def arrays(raw):
    return frame_of(*raw, grid=TINY)


def written(path, arrays):
    path.write_bytes(encode_frame(arrays))
    return path


def test_a_frame_has_seven_arrays_in_the_published_order_of_axes(arrays):
    shapes = {name: (array.shape, array.dtype.name) for name, array in arrays.items() if name != "axes"}

    assert shapes == {
        "rgb": ((3, 120, 160), "float32"),
        "depth": ((1, 120, 160), "float32"),
        "tsdf_hr": ((1, 60, 36, 60), "float32"),
        "tsdf_lr": ((15, 9, 15), "float32"),
        "target_hr": ((60, 36, 60), "uint8"),
        "target_lr": ((15, 9, 15), "uint8"),
        "position": ((120, 160), "int32"),
    }
    assert tuple(shapes) == KEYS and str(arrays["axes"]) == "DHW"


def test_each_array_is_computed_by_its_function_from_the_raw_files(raw, arrays):
    depth, room, pixels = (
        read_depth(raw[0], grid=TINY),
        read_room(raw[1], grid=TINY),
        read_colours(raw[2], grid=TINY),
    )
    sharp = flipped(tsdf(depth.astype(np.float32), room.pose, room.origin, grid=TINY))

    assert np.array_equal(arrays["depth"][0], depth.astype(np.float32))
    assert np.array_equal(arrays["position"], positions(depth, room.pose, room.origin, grid=TINY))
    assert np.array_equal(arrays["target_hr"], room.labels)
    assert np.array_equal(arrays["target_lr"], coarse_labels(room.labels))
    assert np.array_equal(arrays["tsdf_hr"][0].transpose(2, 1, 0), sharp)
    assert np.array_equal(arrays["tsdf_lr"], coarse_tsdf(sharp))
    expected = (pixels[1] / 255 - COLOURS[0][1]) / COLOURS[1][1]
    np.testing.assert_allclose(arrays["rgb"][1], expected, atol=1e-6)


def test_the_rule_of_positions_is_passed_on(raw):
    grid = TINY
    depth, room = read_depth(raw[0], grid=grid), read_room(raw[1], grid=grid)

    position = frame_of(*raw, grid=grid, rule="correct")["position"]

    assert np.array_equal(position, positions(depth, room.pose, room.origin, grid=grid, rule="correct"))


def test_the_same_arrays_give_the_same_bytes_and_numpy_reads_them(tmp_path, arrays):
    path = written(tmp_path / "a.npz", arrays)

    assert encode_frame(arrays) == path.read_bytes()
    with np.load(path, allow_pickle=False) as stored:
        assert all(np.array_equal(stored[name], array) for name, array in arrays.items())


def test_only_requested_arrays_are_read(tmp_path, arrays):
    path = written(tmp_path / "a.npz", arrays)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("tsdf_hr.npy").header_offset
    content[start + 60 : start + 400] = bytes(340)  # destroys one array
    path.write_bytes(bytes(content))

    file = FrameFile(path)
    assert np.array_equal(file.arrays(["position"])["position"], arrays["position"])
    with pytest.raises(InputError, match="damaged tsdf_hr"):
        file.arrays(["tsdf_hr"])


def test_headers_contain_shapes_and_types(tmp_path, arrays):
    file = FrameFile(written(tmp_path / "a.npz", arrays))

    assert file.headers(["tsdf_hr", "target_lr"]) == {
        "tsdf_hr": ((1, 60, 36, 60), np.dtype("float32")),
        "target_lr": ((15, 9, 15), np.dtype("uint8")),
    }
    assert file.names() == [*KEYS, "axes"] and file.axes() == "DHW"


def test_a_missing_array_is_refused_with_a_list_of_the_others(tmp_path, arrays):
    some = {name: array for name, array in arrays.items() if name in ("depth", "rgb")}
    file = FrameFile(written(tmp_path / "a.npz", some))

    for read in (file.arrays, file.headers):
        with pytest.raises(
            InputError, match="has no tsdf_lr: depth, tsdf_lr were expected, and it has depth, rgb"
        ) as caught:
            read(["depth", "tsdf_lr"])
        assert len(caught.value.problems) == 1


def test_files_that_are_not_archives_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    later = bytearray(encode_frame({"depth": np.zeros(3)}))
    later[later.rindex(b"PK\x01\x02") + 6] = 130  # needs version 13.0 of unpackers
    (tmp_path / "later.npz").write_bytes(bytes(later))

    for path in (tmp_path / "a.npz", tmp_path / "none.npz", tmp_path / "later.npz"):
        with pytest.raises(InputError, match="cannot be read as .npz"):
            FrameFile(path).names()


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.array([{}], dtype=object))

    with pytest.raises(InputError, match="damaged depth"):
        FrameFile(tmp_path / "a.npz").arrays(["depth"])


@pytest.mark.parametrize("strange", [np.full((3, 4), "x"), np.zeros((3, 4), complex), np.zeros((3, 4), bool)])
def test_arrays_of_other_types_than_numbers_are_refused(tmp_path, arrays, strange):
    path = tmp_path / "frame.npz"
    path.write_bytes(encode_frame({**arrays, "target_lr": strange}))

    for read in (FrameFile(path).headers, FrameFile(path).arrays):
        with pytest.raises(InputError, match=rf"frame.npz has a target_lr of the type {re.escape(str(strange.dtype))}"):
            read(["target_lr"])


@pytest.mark.parametrize("shape", [(6, 4, 8), (1, 6, 4, 8), (6, 4, 8, 1)])
def test_a_volume_may_have_an_axis_of_length_one(shape):
    stored = np.arange(192.0).reshape(shape)

    volume = network_order(stored, "XHY")

    assert volume.shape == (1, 8, 4, 6) and volume[0, 7, 3, 5] == stored.ravel()[-1] and volume[0, 1, 0, 0] == 1
    assert np.array_equal(network_order(volume, "DHW"), volume)


def test_a_volume_of_other_axes_is_refused():
    for shape in ((6, 4), (2, 6, 4, 8), (1, 1, 6, 4, 8)):
        with pytest.raises(InputError, match="three axes"):
            volume_shape(shape, "a.npz: tsdf_hr")


def test_the_order_of_axes_is_inferred_from_the_blocks_if_it_is_not_stated(tmp_path, arrays):
    unstated = {name: array for name, array in arrays.items() if name != "axes"}
    transposed = {**unstated, "tsdf_hr": arrays["tsdf_hr"][0].transpose(2, 1, 0)[..., None]}
    uniform = {
        **unstated,
        "tsdf_hr": np.full((60, 36, 60), -0.001, np.float32),
        "tsdf_lr": np.full((15, 9, 15), -0.001),
    }
    contradictory = {**unstated, "tsdf_lr": np.ones((15, 9, 15), np.float32)}

    assert resolve_axes(written(tmp_path / "a.npz", unstated)) == "DHW"
    assert resolve_axes(written(tmp_path / "b.npz", transposed)) == "XHY"
    assert resolve_axes(written(tmp_path / "c.npz", uniform)) == ""  # both orders agree
    assert resolve_axes(written(tmp_path / "d.npz", contradictory)) == ""  # neither agrees
    assert resolve_axes(written(tmp_path / "e.npz", arrays)) == "DHW"


def test_an_unknown_order_of_axes_is_refused(tmp_path, arrays):
    with pytest.raises(InputError, match="axes 'HWD': DHW or XHY"):
        FrameFile(written(tmp_path / "a.npz", {**arrays, "axes": np.array("HWD")})).axes()

import shutil

import numpy as np
import pytest
import torch

from xmodal.data import open_data, reopen
from xmodal.data.loader import Batches, Loader, Pick, in_order
from xmodal.data.nyu.dataset import NyuSettings
from xmodal.data.nyu.frames import FrameFile, encode_frame
from xmodal.data.nyu.voxels import regions
from xmodal.errors import InputError

ALL = ("depth", "rgb", "tsdf")


def opened(root, *modalities, **options):
    chosen = {"modalities": list(modalities)} if modalities else {}
    return open_data("nyu", options={"root": str(root), **chosen, **options})


def picked(split, *rows):
    return split[Pick(dict.fromkeys(split.rows, torch.tensor(rows)), None)]


def npz(root, number, part="NYUtrain"):
    return root / f"{part}_npz" / f"NYU{number:04d}_0000_voxels.npz"


def arrays(root, number, part="NYUtrain"):
    file = FrameFile(npz(root, number, part))
    return file.arrays(file.names())


def change(path, **changes):
    file = FrameFile(path)
    arrays = {**file.arrays(file.names()), **changes}
    path.write_bytes(encode_frame({name: array for name, array in arrays.items() if array is not None}))


@pytest.fixture
def copied(synthetic_nyu, tmp_path):
    shutil.copytree(synthetic_nyu, tmp_path / "root", ignore=shutil.ignore_patterns("depthbin", ".prepared", "NYUCAD*"))
    return tmp_path / "root"


def test_a_batch_holds_what_is_stored_in_the_order_of_networks(synthetic_nyu):
    data = opened(synthetic_nyu, *ALL)
    stored = [arrays(synthetic_nyu, number, "NYUtest") for number in (6, 5)]

    batch = picked(data.test, 1, 0)

    for place, frame in enumerate(stored):
        for name in ("depth", "rgb"):
            assert np.array_equal(batch.inputs[name][place], frame[name])
        assert np.array_equal(batch.inputs["tsdf"][place], frame["tsdf_hr"])
        assert np.array_equal(batch.inputs["depth.position"][place], frame["position"])
        assert np.array_equal(batch.target[place], frame["target_lr"].transpose(2, 1, 0))
        expected = regions(frame["tsdf_lr"], frame["target_lr"]).transpose(2, 1, 0)
        assert np.array_equal(batch.scored["rgb"][place], expected) and {1, 2} <= set(np.unique(expected))
    assert batch.target.dtype == batch.inputs["depth.position"].dtype == torch.int64
    assert batch.inputs["rgb.position"] is batch.inputs["depth.position"]
    assert batch.paired and batch.scored["depth"] is batch.scored["rgb"]


def test_the_info_describes_classes_shapes_and_rows(synthetic_nyu):
    data = opened(synthetic_nyu)
    info = data.info

    assert info.modalities == ("depth", "rgb") and list(info.inputs)[2:] == ["depth.position", "rgb.position"]
    assert (info.task, info.classes, info.dense, info.ignore, info.target_shape) == (
        "multiclass",
        12,
        True,
        255,
        (15, 9, 15),
    )
    assert info.class_names[0] == "empty" and info.class_weights == (0.05, *[1.0] * 11)
    assert {split: rows["depth"] for split, rows in info.rows.items()} == {"train": 3, "valid": 1, "test": 2}
    assert data.ids == [f"NYU000{number}_0000" for number in range(1, 7)]
    assert data.train.targets["depth"].dtype == torch.uint8
    assert info.inner == 2 * 8 * 60 * 36 * 60 and info.block(512) == 30


def test_training_frames_have_few_labels_and_few_scored_voxels(synthetic_nyu):
    data = opened(synthetic_nyu)

    regions_of = [picked(split, 0).scored["rgb"] for split in (data.train, data.valid)]
    assert (regions_of[0] == 1).sum() < 0.2 * (regions_of[1] == 1).sum()  # hidden and labelled
    assert (
        (picked(data.train, 0).target != 255).float().mean()
        < 0.08
        < (picked(data.valid, 0).target != 255).float().mean()
    )


def test_a_single_modality_reads_only_itself_and_its_positions(copied):
    for number in range(1, 5):
        change(npz(copied, number), rgb=None, tsdf_hr=None, target_hr=None)
    for number in (5, 6):
        change(npz(copied, number, "NYUtest"), rgb=None, tsdf_hr=None, target_hr=None)

    batch = picked(opened(copied, "depth").test, 0)

    assert list(batch.inputs) == ["depth", "depth.position"]
    assert list(opened(copied, "depth").info.inputs) == ["depth", "depth.position"]
    with pytest.raises(InputError, match="was prepared without colours"):
        opened(copied, "rgb")


def test_nyucad_is_another_pair_of_folders(synthetic_nyu):
    plain, whole = (picked(opened(synthetic_nyu, "depth", cad=cad).test, 0) for cad in (False, True))

    assert torch.equal(plain.target, whole.target)
    missing = plain.inputs["depth"] == 0
    assert missing.any() and not (whole.inputs["depth"] == 0).any()
    assert torch.equal(plain.inputs["depth"][~missing], whole.inputs["depth"][~missing])


def test_as_published_chooses_the_epoch_on_test_frames_with_a_warning(synthetic_nyu):
    data = opened(synthetic_nyu, as_published=True)

    assert {split: rows["depth"] for split, rows in data.info.rows.items()} == {"train": 4, "valid": 2, "test": 2}
    assert any("test frames choose the epoch" in warning for warning in data.warnings)
    assert (data.info.select, opened(synthetic_nyu).info.select) == (("mean_iou_reference", "max"), ("mean_iou", "max"))
    assert not any("test frames choose" in warning for warning in opened(synthetic_nyu).warnings)


def test_workers_and_resuming_give_the_same_bits(synthetic_nyu):
    data = opened(synthetic_nyu, *ALL)

    def batches(workers, start=0):
        sampler = Batches(data.train.rows, paired=True, batch_size=1, seed=1)
        return list(Loader(data.train, sampler, workers=workers).epoch(2, start))

    without_workers, with_workers, resumed = batches(0), batches(2), batches(0, start=1)
    for expected, actual in zip(without_workers, with_workers, strict=True):
        assert all(torch.equal(expected.inputs[name], actual.inputs[name]) for name in expected.inputs)
        assert torch.equal(expected.target, actual.target)
    assert torch.equal(without_workers[1].inputs["depth"], resumed[0].inputs["depth"])


def test_frames_that_do_not_fit_into_memory_are_read_for_each_batch(synthetic_nyu, monkeypatch):
    from_memory = list(in_order(opened(synthetic_nyu, *ALL).test, batch_size=2))
    monkeypatch.setattr("xmodal.data.split.READY_BYTES", -1)

    from_files = list(in_order(opened(synthetic_nyu, *ALL).test, batch_size=2))

    for expected, actual in zip(from_memory, from_files, strict=True):
        assert all(torch.equal(expected.inputs[name], actual.inputs[name]) for name in expected.inputs)
        assert torch.equal(expected.scored["rgb"], actual.scored["rgb"])
        assert actual.inputs["rgb.position"] is actual.inputs["depth.position"]


def test_the_same_data_is_opened_again_from_its_description(synthetic_nyu):
    data = opened(synthetic_nyu, "depth", cad=True)

    again = reopen(data.source)

    assert again.ids == data.ids and torch.equal(picked(again.test, 0).target, picked(data.test, 0).target)


def remove_axes(root, **changes):
    """Remove the key that states the order of axes."""
    for path in sorted(root.glob("*_npz/*.npz")):
        change(path, axes=None, **{name: compute(FrameFile(path)) for name, compute in changes.items()})


def transposed(file):
    return file.arrays(["tsdf_hr"])["tsdf_hr"][0].transpose(2, 1, 0)[..., None]


def test_axes_that_are_not_stated_are_inferred_from_the_blocks_with_a_warning(copied):
    before = picked(opened(copied, *ALL).test, 0).inputs["tsdf"]
    remove_axes(copied, tsdf_hr=transposed)

    data = opened(copied, *ALL)

    assert torch.equal(picked(data.test, 0).inputs["tsdf"], before)
    assert data.info.inputs["tsdf"].shape == (1, 60, 36, 60)
    (warning,) = [warning for warning in data.warnings if "axes" in warning]
    assert "6 of 6 files" in warning and "ambiguous" in warning and "XHY is used" in warning
    # No warning if the volume is not opened.
    assert not any("axes" in warning for warning in opened(copied).warnings)


def test_axes_that_cannot_be_inferred_are_an_error_and_an_option_sets_them(copied):
    remove_axes(copied, tsdf_hr=transposed)
    change(npz(copied, 1), tsdf_lr=np.full((15, 9, 15), 0.001, np.float32))

    with pytest.raises(InputError, match="the order is ambiguous. Give --nyu.tsdf-axes") as caught:
        opened(copied, *ALL)

    assert len(caught.value.problems) == 1
    assert picked(opened(copied, *ALL, tsdf_axes="XHY").test, 0).inputs["tsdf"].shape == (1, 1, 60, 36, 60)


def test_other_types_of_numbers_are_accepted(copied):
    def as_type(name, kind):
        return lambda file: file.arrays([name])[name].astype(kind)

    before = picked(opened(copied).test, 0)
    remove_axes(
        copied,
        rgb=as_type("rgb", "float64"),
        position=as_type("position", "int64"),
        target_lr=as_type("target_lr", "float32"),
        tsdf_lr=as_type("tsdf_lr", "float64"),
    )

    after = picked(opened(copied).test, 0)

    assert torch.equal(before.target, after.target) and torch.equal(before.scored["rgb"], after.scored["rgb"])
    assert torch.equal(before.inputs["rgb"], after.inputs["rgb"]) and after.inputs["rgb.position"].dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": None}, "has no position"),
        ({"target_lr": np.full((15, 9, 15), 12, np.int64)}, "a voxel of class 12 in target_lr: 0 to 11 and 255"),
        ({"target_lr": np.full((15, 9, 15), -1, np.int64)}, "a voxel of class -1"),
        ({"target_lr": np.zeros((15, 9, 14), np.uint8)}, "target_lr of shape"),
        ({"depth": np.zeros((1, 60, 80), np.float32)}, r"depth of shape \(1, 60, 80\)"),
        ({"rgb": np.zeros((120, 160, 3), np.float32)}, "rgb of shape"),
        ({"rgb": np.full((3, 120, 160), "x")}, "rgb of the type <U1: numbers were expected"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_inconsistent_frames_are_refused(copied, changes, message, number):
    change(npz(copied, number), **changes)

    with pytest.raises(InputError, match=message) as caught:
        opened(copied)
    # The shapes of the first frame are expected of the others: if it is wrong, these are reported too.
    assert len(caught.value.problems) == 1 or number == 1


@pytest.mark.parametrize("strange", [60 * 36 * 60, -2])
def test_a_position_outside_of_the_volume_is_refused_when_it_is_read(copied, strange):
    position = arrays(copied, 1)["position"]
    position[5, 7] = strange
    change(npz(copied, 1), position=position)
    data = opened(copied)

    with pytest.raises(InputError, match=rf"NYU0001_0000_voxels.npz .*voxel {strange}.*60x36x60.*--repair-positions"):
        list(in_order(data.train, batch_size=2))


def test_many_problems_are_counted(copied):
    for path in copied.glob("*_npz/*.npz"):
        change(path, position=None)

    with pytest.raises(InputError) as caught:
        opened(copied)

    assert len(caught.value.problems) == 4 and "3 more problems" in str(caught.value)


def test_folders_that_are_missing_or_half_prepared_are_named(copied, tmp_path):
    with pytest.raises(InputError, match="no frames in NYUCADtrain_npz.*There are NYUtrain_npz, NYUtest_npz"):
        opened(copied, cad=True)
    (npz(copied, 2)).unlink()
    assert any("prepared with 4 frames and has 3 now" in warning for warning in opened(copied).warnings)
    (copied / "NYUtrain_npz" / ".prepared").mkdir()
    (copied / "nyu.json").unlink()
    with pytest.raises(InputError, match="preparation of .* was interrupted"):
        opened(copied)


def test_a_single_training_frame_is_too_few_to_hold_some_out(copied):
    for number in (2, 3, 4):
        npz(copied, number).unlink()

    with pytest.raises(InputError, match="1 training frame is too few"):
        opened(copied)
    assert opened(copied, valid_is_test=True).info.rows["train"]["rgb"] == 1


def test_wrong_options_are_refused(synthetic_nyu):
    with pytest.raises(InputError, match="the task multiclass; regression was asked for"):
        open_data("nyu", options={"root": str(synthetic_nyu)}, task="regression")
    with pytest.raises(InputError, match="moves what is in a sample"):
        open_data("nyu", options={"root": str(synthetic_nyu)}, augment="shift:1")
    assert NyuSettings(modalities=("tsdf", "depth", "tsdf")).wanted == ("depth", "tsdf")

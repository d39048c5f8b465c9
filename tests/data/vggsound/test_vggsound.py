import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from recordings import tone, write_mp4

from xmodal.data import open_data, reopen
from xmodal.data.loader import Batches, Loader, Pick
from xmodal.data.media.spectrogram import magnitudes, scaled_by_peak
from xmodal.data.split import Redrawn
from xmodal.data.vggsound.check import check
from xmodal.data.vggsound.clips import Frames, Spectrograms, read_frames, read_waveform
from xmodal.data.vggsound.dataset import COLOURS, VggsoundSettings
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for

BOTH = ("audio", "video")


def opened(root, *, seed=0, train_fraction=1.0, **options):
    return open_data("vggsound", options={"root": str(root), **options}, seed=seed, train_fraction=train_fraction)


def picked(split, *rows, epoch=None):
    return split[Pick(dict.fromkeys(BOTH, torch.tensor(rows)), epoch)]


def files_of(data, split, modality):
    return [data.train.columns[modality].files[row] for row in data.split(split).numbers[modality]]


@pytest.fixture
def copied(synthetic_vggsound, tmp_path):
    """A prepared folder that may be damaged."""
    shutil.copytree(synthetic_vggsound, tmp_path / "vgg", ignore=shutil.ignore_patterns("raw", ".prepared"))
    return tmp_path / "vgg"


def small_layout(root, *, clips=("a_cat_1", "b_cat_1", "c_dog_1", "d_dog_1"), frames=3, side=8):
    """A folder in the layout of the authors' code, without the file that `prepare` adds."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, clip in enumerate(clips):
            for part in ("video_jpg", "audio_npy" if split == "train" else "audio"):
                (root / split / part).mkdir(parents=True, exist_ok=True)
            tall = random.integers(0, 256, (frames * side, side, 3)).astype(np.uint8)
            Image.fromarray(tall).save(root / split / "video_jpg" / f"{split}{clip}.jpg", quality=95)
            wave = tone(200 * (number + 1), 1.0, rate=16000).astype(np.float32)
            if split == "train":
                np.save(root / split / "audio_npy" / f"{split}{clip}.npy", wave[None])
            else:
                import soundfile

                soundfile.write(root / split / "audio" / f"{split}{clip}.wav", wave, 16000)
    (root / "label.json").write_text(json.dumps({"dog": 1, "cat": 0}))
    return root


def test_a_batch_holds_the_spectrogram_and_the_frames_of_each_clip(synthetic_vggsound):
    data = opened(synthetic_vggsound)
    sounds, tall = (files_of(data, "test", modality) for modality in BOTH)

    batch = picked(data.test, 3, 0)

    assert batch.inputs["audio"].shape == (2, 1, 513, 32) and batch.inputs["video"].shape == (2, 8, 3, 16, 16)
    for place, row in enumerate((3, 0)):
        wave = torch.from_numpy(read_waveform(sounds[row], seconds=1))
        torch.testing.assert_close(batch.inputs["audio"][place, 0], magnitudes(scaled_by_peak(wave)))
        stack = np.asarray(Image.open(tall[row])).reshape(8, 16, 16, 3).astype(np.float32) / 255
        expected = ((stack - COLOURS[0]) / COLOURS[1]).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(batch.inputs["video"][place], expected, atol=1e-5)
        assert batch.target[place] == data.info.class_names.index(
            {"bird": "bird chirping, tweeting", "church": "church bell ringing", "dog": "dog barking"}.get(
                tall[row].stem.split("_")[-2].split("-")[0], "engine accelerating, revving, vroom"
            )
        )


def test_the_info_describes_task_rows_and_layouts(synthetic_vggsound):
    info = opened(synthetic_vggsound).info

    assert info.task == "multiclass" and info.classes == 4 and info.paired
    assert {split: rows["video"] for split, rows in info.rows.items()} == {"train": 8, "valid": 4, "test": 8}
    assert info.inputs["audio"].layout == "image" and info.inputs["video"].layout == "other"
    assert "audio" not in info.normalisation


def test_raw_clips_give_the_same_batches_as_prepared_ones(synthetic_vggsound):
    prepared = opened(synthetic_vggsound)
    raw = opened(synthetic_vggsound / "raw", seconds=1, frames=8, size=16)

    assert [path.stem.split("_")[-1] for path in files_of(raw, "train", "video")] == [
        path.stem.split("_")[-1] for path in files_of(prepared, "train", "video")
    ]
    from_prepared, from_raw = (picked(data.train, *range(8)) for data in (prepared, raw))
    assert torch.equal(from_prepared.target, from_raw.target)
    torch.testing.assert_close(from_prepared.inputs["audio"], from_raw.inputs["audio"], atol=1e-4, rtol=1e-4)
    assert (from_prepared.inputs["video"] - from_raw.inputs["video"]).abs().mean() < 0.12  # what a JPEG loses


def test_the_layout_of_the_authors_is_read(tmp_path):
    data = opened(small_layout(tmp_path), seconds=1)

    assert data.info.class_names == ("cat", "dog") and data.info.inputs["video"].shape == (3, 3, 8, 8)
    assert [path.name for path in files_of(data, "test", "audio")] == [
        f"test{clip}.wav" for clip in ("a_cat_1", "b_cat_1", "c_dog_1", "d_dog_1")
    ]
    assert picked(data.test, 0, 2).target.tolist() == [0, 1]
    (tmp_path / "label.json").rename(tmp_path / "elsewhere.json")
    assert opened(tmp_path, seconds=1, labels=tmp_path / "elsewhere.json").info.classes == 2


def test_separate_folders_of_the_splits_are_read_as_one_root(tmp_path):
    """Train and Test on different disks, the classes in label_tiny.json beside the training clips."""
    whole = opened(small_layout(tmp_path / "whole"), seconds=1)
    for split in ("train", "test"):
        shutil.copytree(tmp_path / "whole" / split, tmp_path / "disk" / split / split.title())
    labels = tmp_path / "disk" / "train" / "label_tiny.json"
    shutil.copy(tmp_path / "whole" / "label.json", labels)

    folders = {split: tmp_path / "disk" / split / split.title() for split in ("train", "test")}
    apart = open_data("vggsound", options={**folders, "seconds": 1})

    assert apart.info.class_names == whole.info.class_names and apart.info.rows == whole.info.rows
    for split in ("train", "test"):
        assert torch.equal(
            picked(apart.split(split), 0, 1).inputs["video"], picked(whole.split(split), 0, 1).inputs["video"]
        )
    assert reopen(json.loads(json.dumps(apart.source))).info.rows == apart.info.rows
    labels.unlink()
    with pytest.raises(InputError, match=r"label.json is missing. Expected: label.json or label_tiny.json"):
        open_data("vggsound", options={**folders, "seconds": 1})


def test_folders_of_splits_may_begin_with_a_capital(tmp_path):
    small_layout(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split).rename(tmp_path / split.title())
    (tmp_path / "label.json").rename(tmp_path / "label_tiny.json")

    assert opened(tmp_path, seconds=1).info.rows["train"]["audio"] == 2 and check(tmp_path).errors == []
    (tmp_path / "TRAIN").mkdir()
    with pytest.raises(InputError, match="several folders for the split train: TRAIN, Train"):
        opened(tmp_path, seconds=1)


def test_a_folder_of_a_split_that_is_missing_is_named(tmp_path):
    small_layout(tmp_path)
    options = {"train": tmp_path / "train", "test": tmp_path / "nowhere", "seconds": 1}

    with pytest.raises(InputError, match=r"no folder .*/nowhere, named for the split test"):
        open_data("vggsound", options=options)
    with pytest.raises(InputError, match=r"no folder was named"):
        open_data("vggsound", options={"train": tmp_path / "train"})


def test_two_files_of_labels_are_reported(tmp_path):
    small_layout(tmp_path)
    shutil.copy(tmp_path / "label.json", tmp_path / "label_tiny.json")

    (note,) = [warning for warning in opened(tmp_path, seconds=1).warnings if "label_tiny" in warning]
    assert "label.json numbers the classes" in note


def test_workers_and_a_resumed_epoch_give_the_same_bits(synthetic_vggsound):
    data = opened(synthetic_vggsound / "raw", seconds=1, frames=4, size=16, random_frames=True, mirror=True)

    def batches(workers, start=0):
        sampler = Batches(data.train.rows, paired=True, batch_size=3, seed=1)
        return [batch.inputs for batch in Loader(data.train, sampler, workers=workers).epoch(2, start)]

    without_workers, with_workers, resumed = batches(0), batches(2), batches(0, start=1)

    for expected, actual in ((without_workers, with_workers), (without_workers[1:], resumed)):
        assert len(expected) == len(actual) > 1
        assert all(torch.equal(a[name], b[name]) for a, b in zip(expected, actual, strict=True) for name in BOTH)


def test_random_frames_depend_on_seed_epoch_and_clip(synthetic_vggsound):
    raw = sorted((synthetic_vggsound / "raw").glob("*.mp4"))[:3]
    rows = np.arange(3)

    def column(**options):
        return Frames(raw, frames=4, size=16, seconds=1.0, **options)

    drawn = column(random_frames=True, seed=3)
    assert isinstance(drawn, Redrawn) and drawn.redraws and not column().redraws
    assert np.array_equal(drawn[rows], column()[rows]) and np.array_equal(column().redrawn(rows, 5), column()[rows])
    assert np.array_equal(drawn.redrawn(rows, 5), drawn.redrawn(rows[::-1], 5)[::-1])
    others = [drawn.redrawn(rows, 6), column(random_frames=True, seed=4).redrawn(rows, 5), drawn[rows]]
    assert not any(np.array_equal(drawn.redrawn(rows, 5), other) for other in others)
    for row in range(3):
        shares, mirrored = drawn._drawn(row, 5)
        assert [int(4 * share) for share in shares] == [0, 1, 2, 3] and not mirrored
        assert np.array_equal(
            drawn.redrawn(rows, 5)[row], read_frames(raw[row], shares, size=16, seconds=1.0).transpose(0, 3, 1, 2)
        )


def test_mirror_flips_half_of_the_clips(synthetic_vggsound):
    tall = sorted(synthetic_vggsound.glob("train/video_jpg/*"))
    column = Frames(tall, frames=8, size=16, seconds=1.0, mirror=True, seed=0)
    plain, count = column[np.arange(12)], 0

    for epoch in range(10):
        for row, frames in enumerate(column.redrawn(np.arange(12), epoch)):
            mirrored = np.array_equal(frames, plain[row][..., ::-1])
            assert mirrored or np.array_equal(frames, plain[row])
            count += mirrored

    assert 40 <= count <= 80


def test_fewer_and_smaller_frames_than_stored(synthetic_vggsound):
    path = sorted(synthetic_vggsound.glob("train/video_jpg/*"))[0]
    stored = np.asarray(Image.open(path)).reshape(8, 16, 16, 3)

    assert np.array_equal(read_frames(path, [0.125, 0.375, 0.625, 0.875], size=16), stored[[1, 3, 5, 7]])
    (small,) = read_frames(path, [0.0], size=8)
    assert np.array_equal(small, np.asarray(Image.fromarray(stored[0]).resize((8, 8), Image.Resampling.BILINEAR)))
    data = opened(synthetic_vggsound, frames=4, size=8, random_frames=True)
    assert data.info.inputs["video"].shape == (4, 3, 8, 8) and data.train.augmented
    whole = opened(synthetic_vggsound, random_frames=True)
    assert not whole.train.augmented and "random_frames has nothing to choose from" in whole.warnings[-1]
    with pytest.raises(InputError, match="frames is 9, and 8 of each clip are stored"):
        opened(synthetic_vggsound, frames=9)


def test_clips_of_other_lengths_are_cut_stretched_or_padded(tmp_path):
    for name, seconds in (("long", 2.0), ("whole", 1.0), ("half", 0.5)):
        np.save(tmp_path / f"{name}.npy", tone(500, seconds, rate=16000).astype(np.float32)[None])
    files = [tmp_path / f"{name}.npy" for name in ("long", "half", "whole", "half")]
    stretched, padded = (
        Spectrograms(files, seconds=1.0, window=1024, hop=512, short=short)[np.arange(4)]
        for short in ("stretch", "pad")
    )

    assert stretched.shape == padded.shape == (4, 1, 513, 32)
    np.testing.assert_allclose(stretched[0], stretched[2], atol=1e-3, rtol=1e-3)  # cut after a second
    np.testing.assert_array_equal(stretched[1], stretched[3])
    assert stretched[1, 0, 32, 4:-4].min() > 200  # the row of 500 Hz, as long as the others
    assert padded[1, 0, 32, 4:14].min() > 200 and padded[1, 0, 32, 18:].max() < 1e-3
    single = Spectrograms(files, seconds=1.0, window=1024, hop=512, short="stretch")[1]
    np.testing.assert_array_equal(single, stretched[1])


def test_window_and_hop_set_the_size_of_spectrograms(synthetic_vggsound):
    assert opened(synthetic_vggsound, window=128, hop=64).info.inputs["audio"].shape == (1, 65, 251)
    with pytest.raises(InputError, match="hop is 512 and window is 128"):
        opened(synthetic_vggsound, window=128)


def test_validation_clips_are_held_out_of_training_whatever_the_seed_of_the_run(synthetic_vggsound):
    data, other, drawn = (
        opened(synthetic_vggsound),
        opened(synthetic_vggsound, seed=7),
        opened(synthetic_vggsound, valid_seed=5),
    )
    files = {split: set(files_of(data, split, "video")) for split in ("train", "valid", "test")}

    assert not files["train"] & files["valid"] and {path.parts[-3] for path in files["valid"]} == {"train"}
    assert {path.parts[-3] for path in files["test"]} == {"test"} and len(files["test"]) == 8
    assert sorted(data.valid.targets["video"].tolist()) == [0, 1, 2, 3]  # one of each class
    assert files_of(other, "valid", "video") == files_of(data, "valid", "video") != files_of(drawn, "valid", "video")
    published = opened(synthetic_vggsound, as_published=True)
    assert set(files_of(published, "valid", "video")) == files["test"] and len(published.train) == 12
    assert "test figures are too good" in published.warnings[-1]


def test_clips_of_a_video_stay_in_the_same_split(tmp_path):
    clips = [f"v{number // 2}_{label}_{number}" for label in ("cat", "dog") for number in range(20)]
    data = opened(small_layout(tmp_path, clips=clips), seconds=1, valid_share=0.3)

    sides = {
        split: {path.stem.split("_")[0] for path in files_of(data, split, "video")} for split in ("train", "valid")
    }
    groups = {split: set(data.groups[data.split(split).numbers["video"]].tolist()) for split in ("train", "valid")}

    assert not sides["train"] & sides["valid"] and not groups["train"] & groups["valid"]
    assert len(data.valid) >= 12


def test_chosen_classes_get_new_indices(synthetic_vggsound, tmp_path):
    (tmp_path / "names.txt").write_text('"engine accelerating, revving, vroom"\nchurch bell ringing\n')

    two, some = (
        opened(synthetic_vggsound, classes="2"),
        opened(synthetic_vggsound / "raw", classes=str(tmp_path / "names.txt")),
    )

    assert two.info.class_names == ("bird chirping, tweeting", "church bell ringing") and len(two.test) == 4
    assert some.info.class_names == ("church bell ringing", "engine accelerating, revving, vroom")
    assert sorted(some.test.targets["audio"].tolist()) == [0, 0, 1, 1]
    assert len(opened(synthetic_vggsound / "raw", most=2).train) == 4


def test_the_same_data_is_opened_again_and_thinned(synthetic_vggsound):
    data = opened(synthetic_vggsound, train_fraction=0.5, mirror=True)

    again = reopen(json.loads(json.dumps(data.source)))

    assert len(again.train) == len(data.train) == 4 and again.train.augmented
    assert torch.equal(
        picked(again.train, 0, 1, epoch=1).inputs["video"], picked(data.train, 0, 1, epoch=1).inputs["video"]
    )


def test_opening_reads_only_the_first_picture(copied):
    for path in [
        *copied.glob("*/audio*/*"),
        *copied.glob("test/video_jpg/*"),
        *sorted(copied.glob("train/video_jpg/*"))[1:],
    ]:
        path.write_bytes(b"")

    data = opened(copied)

    assert len(data.test) == 8
    with pytest.raises(InputError):
        picked(data.test, 0)


# ---- what is wrong


def test_incomplete_clips_are_skipped_and_reported(copied):
    labels = json.loads((copied / "label.json").read_text())
    missing = sorted(copied.glob("train/audio_npy/*"))[0]
    missing.unlink()
    unknown = sorted(copied.glob("test/video_jpg/*"))[0]
    for path in (unknown, copied / "test" / "audio" / f"{unknown.stem}.wav"):
        path.rename(path.with_stem("someid_nothing_000001"))

    data = opened(copied)

    warnings = "\n".join(data.warnings)
    assert len(data.train) + len(data.valid) == 11 and len(data.test) == 7 and labels["dog-barking"] == 2
    assert (
        f"2 clips of {copied} are skipped" in warnings
        and f"{missing.stem}.jpg: there are no sound of this clip" not in warnings
    )
    assert (
        f"{missing.stem}.jpg: there is no sound of this clip" in warnings
        and "'nothing' is not in label.json" in warnings
    )
    assert check(copied).errors == [] and check(copied).warnings == data.warnings


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "label.json",
            None,
            "label.json is missing. Expected: label.json or label_tiny.json with the number",
        ),
        ("label.json", "{", "label.json is damaged"),
        ("label.json", '{"a": 0, "b": 2}', "from 0 without gaps"),
        ("label.json", '{"a": 0, "b": "1"}', "'b' is '1'"),
        ("label.json", '{"a": 0, "b": 1}', "no clip for the split train"),
        ("vggsound.json", '{"schema": 1}', "classes and seconds were expected"),
        ("vggsound.json", '{"schema": 9}', "has schema 9"),
    ],
)
def test_damaged_folders_are_refused(copied, name, content, message):
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_text(content)

    for call in (lambda: opened(copied), lambda: check(copied).stop_on_errors()):
        with pytest.raises(InputError, match=message):
            call()


def test_labels_that_are_not_text_are_refused(copied, tmp_path):
    (tmp_path / "numbers.bin").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match="numbers.bin is not text .*: JSON with the number of each class was expected"):
        opened(copied, labels=tmp_path / "numbers.bin")


def test_a_check_reads_every_file_to_its_end(copied):
    train, test = sorted(copied.glob("train/video_jpg/*")), sorted(copied.glob("test/video_jpg/*"))
    train[2].write_bytes(train[2].read_bytes()[:300])
    Image.new("RGB", (16, 5 * 16)).save(train[3])
    Image.new("RGB", (16, 50)).save(train[4])
    np.save(copied / "train" / "audio_npy" / f"{train[5].stem}.npy", np.full((1, 16000), np.inf, np.float32))
    wav = copied / "test" / "audio" / f"{test[0].stem}.wav"
    wav.write_bytes(wav.read_bytes()[:2000])

    errors = "\n".join(check(copied).errors)

    for problem in (
        f"{train[2].name} cannot be read as a picture",
        f"{train[3].name} holds 5 frames of 16x16, the first clip 8 of 16x16",
        f"{train[4].name} is 16 wide and 50 high: square frames",
        f"{train[5].stem}.npy holds non-finite samples",
        f"{wav.name} is cut off",
    ):
        assert problem in errors
    data = opened(copied)
    with pytest.raises(InputError, match=f"{train[4].name} is 16 wide"):
        data.train.columns["video"][[4]]


def test_unreadable_raw_clips_are_skipped_and_reported(synthetic_vggsound, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(synthetic_vggsound / "raw", raw)
    clips = sorted(raw.glob("*.mp4"))
    clips[0].write_bytes(clips[0].read_bytes()[:900])
    clips[1].unlink()
    write_mp4(clips[2], [10, 20, 30])  # without sound
    write_mp4(raw / "other______000001.mp4", [10])
    (raw / "vggsound.csv").write_text((raw / "vggsound.csv").read_text() + "abcdefghijk,1,,train\n")

    data, report = opened(raw, seconds=1), check(raw)

    assert len(data.train) + len(data.valid) + len(data.test) == 17
    warnings = "\n".join(data.warnings)
    for sentence in (
        "1 lines of the lists are skipped.",
        "vggsound.csv line 21: it has no label.",
        "1 of 20 listed clips are missing.",
        f"{clips[1].stem}: there is no {clips[1].name}.",
        "2 of 20 listed clips cannot be read and are skipped.",
        f"{clips[2].name} has no sound track.",
        "1 files are in no list.",
    ):
        assert sentence in warnings
    assert report.errors == [] and report.warnings[-1].startswith("17 raw clips: xmodal data prepare vggsound")
    with pytest.raises(InputError, match="has no sound track|no video"):
        unprobed = opened(raw, seconds=1, probe=False)
        unprobed.train.columns["audio"][np.arange(19)]


def test_other_folders_are_ignored(tmp_path):
    (tmp_path / "train.csv").write_text("a,b,c\n1,2,3\n")

    assert check(tmp_path) is None


def test_all_unsuitable_options_are_reported_together(synthetic_vggsound):
    with pytest.raises(InputError) as caught:
        opened(synthetic_vggsound, most=3, listing="x.csv", hop=2000)

    assert len(caught.value.problems) == 3 and "most is no option" in str(caught.value)
    with pytest.raises(InputError, match="raw clips: labels is no option"):
        opened(synthetic_vggsound / "raw", labels="x.json")
    with pytest.raises(InputError, match="has the task multiclass"):
        open_data("vggsound", options={"root": str(synthetic_vggsound)}, task="regression")
    assert VggsoundSettings(as_published=True).valid_is_test


def test_a_training_on_sound_opens_no_video(synthetic_vggsound, monkeypatch):
    """What a network does not read is decoded for no split."""
    data = opened(synthetic_vggsound, size=16)
    rows = {"audio": 0, "video": 0}

    def counted(read, name):
        def reading(column, numbers, *more):
            rows[name] += np.size(numbers)
            return read(column, numbers, *more)

        return reading

    for kind, name in ((Spectrograms, "audio"), (Frames, "video")):
        for member in {"__getitem__", "redrawn"} & set(dir(kind)):
            monkeypatch.setattr(kind, member, counted(getattr(kind, member), name))

    fit(Supervised(build_for(data.info, ["audio"]), data.info), data, FitSettings(epochs=1, batch_size=4))

    assert rows["audio"] >= len(data.train) and rows["video"] == 0

import json
import pickle

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.data import open_data, reopen
from xmodal.data.loader import in_order
from xmodal.data.mosi.files import FACTS, PUBLIC, check, make, open_prepared, prepare, read_facts, sha256_of
from xmodal.data.mosi.source import open_pickle
from xmodal.data.mosi.synthetic import MODALITIES, SyntheticSettings, draw
from xmodal.data.report import Report
from xmodal.errors import InputError

SETTINGS = SyntheticSettings(samples=(24, 8, 10), steps=6, unaligned=True)


def content(**changes):
    """The content of a small file; ``changes`` replace arrays of its training split, None removes them."""
    splits = draw(SETTINGS, 0)
    for key, value in changes.items():
        if value is None:
            del splits["train"][key]
        else:
            splits["train"][key] = value
    return splits


def without(*keys):
    splits = content()
    return {split: {key: value for key, value in part.items() if key not in keys} for split, part in splits.items()}


@pytest.fixture
def write(tmp_path):
    """A function that writes files with the module pickle, as the published ones were."""

    def write(splits, name="unaligned_50.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(splits, protocol=4))
        return path

    return write


@pytest.fixture
def file(write):
    return write(content())


def opened(root, **options):
    return open_data("mosi", options={"root": str(root), **options})


def everything(split):
    return next(iter(in_order(split, batch_size=1000)))


def problems_of(splits, write, **options):
    """The error messages for a file that is refused."""
    with pytest.raises(InputError) as refused:
        opened(write(splits), **options)
    return refused.value.problems


# ---- opening


def test_modalities_come_in_the_order_text_vision_audio_with_time_last(file):
    data = opened(file)
    batch = everything(data.train)

    assert data.info.modalities == MODALITIES == ("text", "vision", "audio")
    shapes = {name: data.info.inputs[name].shape for name in MODALITIES}
    assert shapes == {"text": (24, 6), "vision": (12, 12), "audio": (5, 9)}
    assert all(data.info.inputs[name].layout == "sequence" for name in MODALITIES)
    for name in MODALITIES:
        assert batch.inputs[name].dtype == torch.float32
        assert np.array_equal(batch.inputs[name].numpy(), content()["train"][name].transpose(0, 2, 1))
    assert not data.info.normalisation and data.info.select == ("mae", "min") and data.info.metrics == "sentiment"


def test_lengths_are_integers_and_belong_to_their_modality(file):
    batch, train = everything(opened(file).train), content()["train"]

    assert batch.inputs["text.lengths"].tolist() == train["text_bert"][:, 1].sum(axis=1).tolist()
    assert batch.inputs["audio.lengths"].tolist() == train["audio_lengths"]
    assert batch.inputs["vision.lengths"].dtype == torch.int64 and batch.inputs["vision.lengths"].shape == (24,)
    assert set(batch.targets) == set(batch.index) == set(MODALITIES) and batch.paired


def test_labels_are_a_column_as_in_other_regression_data(file):
    data = opened(file)

    assert data.info.task == "regression" and data.info.classes == data.info.outputs == 1
    assert data.info.rows == {
        split: dict.fromkeys(MODALITIES, n) for split, n in zip(("train", "valid", "test"), (24, 8, 10), strict=True)
    }
    expected = torch.from_numpy(content()["test"]["regression_labels"])[:, None]
    assert torch.equal(everything(data.test).target, expected)


def test_the_option_text_adds_tokens(file):
    plain, encoded = opened(file), opened(file, text="tokens")

    assert "text.tokens" not in plain.info.inputs and encoded.info.modalities == MODALITIES
    tokens = everything(encoded.train).inputs["text.tokens"]
    assert tokens.dtype == torch.int64 and np.array_equal(tokens.numpy(), content()["train"]["text_bert"])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_token_ids_of_other_types_become_integers(write, kind):
    splits = content()
    for part in splits.values():
        part["text_bert"] = part["text_bert"].astype(kind)

    batch = everything(opened(write(splits), text="tokens").valid)

    assert batch.inputs["text.tokens"].dtype == torch.int64 and batch.inputs["text.lengths"].dtype == torch.int64


def test_widths_and_steps_are_read_from_the_arrays(write):
    splits = draw(SyntheticSettings(samples=(6, 3, 3), steps=5, widths=(2, 3, 7)), 0)

    data = opened(write(splits))

    assert [data.info.inputs[name].shape for name in MODALITIES] == [(2, 5), (3, 5), (7, 5)]


def test_a_single_modality_can_be_opened(write):
    splits = {split: {key: part[key] for key in ("audio", "regression_labels")} for split, part in content().items()}

    data = opened(write(splits), modalities=["audio"])

    assert data.info.modalities == ("audio",) and list(data.info.inputs) == ["audio", "audio.lengths"]


def test_lists_of_arrays_and_labels_of_two_axes_are_accepted(write):
    splits = content(regression_labels=content()["train"]["regression_labels"][:, None])
    splits["train"]["audio"] = list(splits["train"]["audio"])
    splits["train"]["audio_lengths"] = np.array(splits["train"]["audio_lengths"], np.float64)

    data, plain = opened(write(splits)), opened(write(content(), "plain.pkl"))

    for name in ("audio", "audio.lengths"):
        assert torch.equal(everything(data.train).inputs[name], everything(plain.train).inputs[name])
    assert torch.equal(everything(data.train).target, everything(plain.train).target)


def test_a_synthetic_set_stands_in_and_a_warning_says_so():
    options = {"stand_in": True, "samples": [20, 5, 5], "steps": 6, "dominant": "audio"}

    data, other = (open_data("mosi", options=options, seed=seed) for seed in (0, 1))
    fixed = open_data("mosi", options={**options, "made_seed": 0}, seed=1)

    assert "synthetic trimodal set" in data.warnings[0] and data.info.rows["train"]["text"] == 20
    expected = draw(SyntheticSettings(samples=(20, 5, 5), steps=6, dominant="audio"), 0)["train"]["audio"]
    arrays = [everything(each.train).inputs["audio"] for each in (data, fixed, other)]
    assert np.array_equal(arrays[0].numpy(), expected.transpose(0, 2, 1)) and torch.equal(arrays[0], arrays[1])
    assert not torch.equal(arrays[0], arrays[2])
    assert torch.equal(everything(reopen(data.source).train).inputs["audio"], arrays[0])


def test_wrong_roots_and_tasks_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Give --mosi.root DIR .* a folder with the pickle of MOSI or MOSEI"):
        open_data("mosi")
    with pytest.raises(InputError, match="is no folder and no file"):
        opened(tmp_path / "none")
    with pytest.raises(InputError, match="holds neither one .pkl nor mosi.json"):
        opened(tmp_path)
    with pytest.raises(InputError, match="task regression; multiclass was asked for"):
        open_data("mosi", options={"stand_in": True}, task="multiclass")


def test_the_train_fraction_keeps_rows_with_their_lengths(file):
    data = open_data("mosi", options={"root": str(file)}, train_fraction=0.5)
    batch = everything(data.train)

    assert len(batch.inputs["audio"]) == len(batch.inputs["audio.lengths"]) == 12
    steps = (batch.inputs["audio"] != 0).any(dim=1).sum(dim=1)
    assert torch.equal(steps, batch.inputs["audio.lengths"])


# ---- non-finite values


def with_nonfinite():
    splits = content()
    splits["train"]["audio"][0, 0, 0] = -np.inf
    splits["valid"]["audio"][1, 0, 2] = np.nan
    splits["test"]["vision"][0, 1, 0] = np.inf
    splits["train"]["text"] = splits["train"]["text"].astype(np.float64)
    splits["train"]["text"][3, 0, 0] = 1e300
    return splits


def test_nonfinite_values_become_zero_and_are_counted(write):
    data = opened(write(with_nonfinite()))

    assert data.warnings == [
        "unaligned_50.pkl: text holds 1 +inf; all were replaced by 0.",
        "unaligned_50.pkl: vision holds 1 +inf; all were replaced by 0.",
        "unaligned_50.pkl: audio holds 1 nan and 1 -inf; all were replaced by 0.",
    ]
    parts = [everything(split).inputs for split in (data.train, data.valid, data.test)]
    assert all(torch.isfinite(part[name]).all() for part in parts for name in MODALITIES)
    assert parts[0]["audio"][0, 0, 0] == 0 == parts[0]["text"][3, 0, 0]


def test_nonfinite_refuse_makes_them_errors(write):
    problems = problems_of(with_nonfinite(), write, nonfinite="refuse")

    assert len(problems) == 3 and all("Repair the file" in problem for problem in problems)


def test_as_published_only_minus_infinity_in_audio_is_replaced(write):
    path = write(with_nonfinite())
    data = opened(path, as_published=True)

    assert everything(data.train).inputs["audio"][0, 0, 0] == 0
    assert everything(data.valid).inputs["audio"][1, 2, 0].isnan()
    assert everything(data.test).inputs["vision"][0, 0, 1].isinf()
    assert "1 were replaced by 0, and 1 are kept: the loss will not be finite" in data.warnings[2]
    with pytest.raises(InputError, match="as_published sets nonfinite to published, and it is zero"):
        opened(path, as_published=True, nonfinite="zero")


# ---- other files, means over time


def test_a_modality_can_come_from_another_file_with_its_lengths(write, tmp_path):
    other = {split: {"id": part["id"], "audio": part["audio"][:, :4] + 1} for split, part in content().items()}
    root, path = write(content()), write(other, "other.pkl")

    data = opened(root, audio_from=str(path))

    batch = everything(data.test)
    assert np.array_equal(batch.inputs["audio"].numpy(), other["test"]["audio"].transpose(0, 2, 1))
    assert batch.inputs["audio.lengths"].tolist() == [4] * 10
    prepare(root, tmp_path / "prepared")
    again = opened(root, text_from=str(tmp_path / "prepared"))
    assert torch.equal(everything(again.test).inputs["text"], everything(opened(root).test).inputs["text"])


def test_another_file_must_hold_the_same_samples(write):
    fewer = {split: {key: value[:4] for key, value in part.items()} for split, part in content().items()}
    mixed = {split: {**part, "id": part["id"][::-1]} for split, part in content().items()}
    root = write(content())

    with pytest.raises(InputError) as refused:
        opened(
            root, audio_from=str(write(fewer, "fewer.pkl")), vision_from=str(write(mixed, "mixed.pkl")), text_from="no"
        )
    problems = refused.value.problems
    assert problems[0] == "text_from names no, which does not exist."
    assert "other samples than the root: vid002$_$3 in place of vid000$_$0" in problems[1]
    assert "(24 train, 8 valid, 10 test and 4 train, 4 valid, 4 test)" in problems[2]


def test_means_over_time_include_padding_and_keep_text(file):
    data, plain = opened(file, time_means=True), opened(file)
    batch, before = everything(data.valid), everything(plain.valid)

    assert data.info.inputs["audio"].shape == (5, 1) and data.info.inputs["text"].shape == (24, 6)
    torch.testing.assert_close(batch.inputs["audio"], before.inputs["audio"].mean(dim=2, keepdim=True))
    assert batch.inputs["audio.lengths"].tolist() == [1] * 8
    assert torch.equal(batch.inputs["text.lengths"], before.inputs["text.lengths"])


# ---- malformed files


def test_all_problems_of_a_file_are_reported_together(write):
    splits = content(audio=None, text=content()["train"]["text"][:20])
    del splits["valid"]
    splits["test"]["vision"] = "nothing"

    problems = problems_of(splits, write)

    assert len(problems) == 3
    assert "unaligned_50.pkl, train has no audio. There is raw_text, id, text" in problems[0]
    assert problems[1] == (
        "unaligned_50.pkl has no split 'valid': train, valid, test were expected, and there is train, test."
    )
    assert "unaligned_50.pkl, test, vision is not an array of numbers: (samples, time, width)" in problems[2]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([1, 2], "no split 'train': train, valid, test were expected, and there is a list"),
        (np.zeros(3), "and there is a single array"),
        (content(regression_labels=None), "train has no regression_labels. There is"),
        (content(text=content()["train"]["text"][:20]), r"different numbers of samples \(text 20, vision 24, audio 24"),
        (content(id=content()["train"]["id"][:5]), "id 5"),
        ({**content(), "valid": {k: v[:0] for k, v in content()["valid"].items()}}, r"valid holds no samples \(text 0"),
        (content(text=content()["train"]["text"][:, :, :3]), "width of text differs .* 3 in train, 24 in valid, 24 in"),
        (
            content(audio=content()["train"]["audio"][:, :2]),
            "number of steps of audio differs .* 2 in train, 9 in valid",
        ),
        (content(audio=np.zeros((24, 5))), r"train, audio has the shape \(24, 5\): \(samples, time, width\)"),
        (content(audio=np.array(["a"] * 24, object)), "train, audio is not an array of numbers"),
        (content(text_bert=np.zeros((24, 6))), r"text_bert has the shape \(24, 6\): \(samples, 3, time\)"),
        (content(text_bert=np.zeros((24, 2, 6))), "Leave the key out to use the features in text .*text=features"),
        (
            content(text_bert=np.full((24, 3, 6), 7)),
            "text_bert: integer ids and a mask of 0 and 1 were expected",
        ),
        (content(audio_lengths=[1.5] * 24), "audio_lengths holds float64 values: integers were expected"),
        (content(id=[["a"]] * 24), "train, id is not a list of strings"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "file",
)
def test_malformed_files_are_refused(write, splits, message):
    with pytest.raises(InputError, match=message):
        opened(write(splits))


def test_nan_labels_are_refused_and_labels_outside_the_range_counted(write):
    labels = content()["train"]["regression_labels"]
    labels[[1, 4]] = np.nan, np.inf
    (problem,) = problems_of(content(regression_labels=labels), write)
    assert "the label of vid000$_$1, vid000$_$4 is NaN or infinite" in problem

    labels[[1, 4]] = 3.4, -5
    data = opened(write(content(regression_labels=labels)))
    assert data.warnings == [
        "unaligned_50.pkl: 2 of 42 labels are outside [-3, 3]. They are kept; metrics of classes clip them."
    ]
    assert everything(data.train).target[4] == -5


def test_unaligned_data_without_lengths_uses_all_steps_with_a_warning(write):
    data = opened(write(without("audio_lengths", "vision_lengths", "text_bert")))

    assert data.warnings == [
        "unaligned_50.pkl is unaligned and has no vision_lengths and no audio_lengths: all steps are treated as data, "
        "including padding."
    ]
    lengths = {name: everything(data.test).inputs[f"{name}.lengths"].unique().tolist() for name in MODALITIES}
    assert lengths == {"text": [6], "vision": [12], "audio": [9]}


def test_aligned_data_needs_no_lengths(write):
    splits = draw(SyntheticSettings(samples=(6, 3, 3), steps=5), 0)
    bare = {split: {k: v for k, v in part.items() if not k.endswith("lengths")} for split, part in splits.items()}

    assert opened(write(bare)).warnings == []


def test_lengths_outside_the_range_are_clipped_and_counted(write):
    lengths = [0, 10, *content()["train"]["audio_lengths"][2:]]

    data = opened(write(content(audio_lengths=lengths)))

    assert data.warnings == ["unaligned_50.pkl: audio_lengths of 2 samples is below 1 or above 9 and was clipped."]
    assert everything(data.train).inputs["audio.lengths"][:2].tolist() == [1, 9]


def test_ids_in_two_splits_are_a_warning(write):
    splits = content()
    splits["test"]["id"] = splits["train"]["id"][:10]

    assert "10 ids are in train and in test, vid000$_$0 among them" in opened(write(splits)).warnings[0]


def test_missing_tokens_are_an_error(write):
    assert (
        "needs text_bert, which the file does not have. Use text=features"
        in problems_of(without("text_bert"), write, text="tokens")[0]
    )
    problems = problems_of(content(), write, text="tokens", modalities=["audio"])
    assert problems == ["The option text=tokens needs the modality text, which is not opened. Add it."]


def test_files_without_ids_are_numbered(write):
    source = open_pickle(write(without("id")), Report())

    assert source.ids[0] == "train 0" and source.ids[-1] == "test 9"


# ---- prepared folders


def test_a_prepared_folder_gives_the_batches_of_the_pickle(write, tmp_path):
    path = write(with_nonfinite())

    done = prepare(path, tmp_path / "out", progress=None)
    data, plain = opened(tmp_path / "out", text="tokens"), opened(path, text="tokens")

    assert "audio.npy" in done.done and not done.reused and not done.skipped
    assert data.info.inputs == plain.info.inputs
    for split in ("train", "valid", "test"):
        expected, actual = everything(data.split(split)), everything(plain.split(split))
        assert expected.inputs.keys() == actual.inputs.keys() and torch.equal(expected.target, actual.target)
        assert all(torch.equal(expected.inputs[name], actual.inputs[name]) for name in expected.inputs)
    assert isinstance(data.train.columns["audio"].array, np.memmap) and data.warnings == plain.warnings


def test_the_manifest_records_source_counts_and_hashes(write, tmp_path):
    path = write(with_nonfinite())
    prepare(path, tmp_path / "out")

    facts = read_facts(tmp_path / "out")

    assert facts.source == path.name and facts.sha256 == sha256_of(path) and facts.public == ""
    assert facts.rows == {"train": 24, "valid": 8, "test": 10} and facts.ids[0] == "vid000$_$0" and not facts.aligned
    assert facts.counts["audio"] == {"nan": 1, "+inf": 0, "-inf": 1} and facts.nonfinite == "zero"
    assert facts.files["audio.npy"].shape == (42, 5, 9)
    assert facts.files["audio.npy"].sha256 == sha256_of(tmp_path / "out" / "audio.npy")
    assert len(PUBLIC) == 4 and all(len(digest) == 64 for digest in PUBLIC)


def test_a_public_file_is_recognised_by_its_hash(file, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLIC, sha256_of(file), "MOSI unaligned_50")

    prepare(file, tmp_path / "out")

    assert read_facts(tmp_path / "out").public == "MOSI unaligned_50"


def test_preparing_again_writes_nothing_and_an_interrupted_preparation_continues(file, tmp_path):
    out, calls = tmp_path / "out", []
    first = prepare(file, out)
    modified = (out / "audio.npy").stat().st_mtime_ns
    again = prepare(file, out)
    assert again.done == [] and again.reused == list(read_facts(out).files)

    (out / FACTS).unlink()
    (out / "vision.npy").unlink()
    (out / ".text.npy.part-x.npy").write_bytes(b"half")
    with pytest.raises(InputError, match="holds neither one .pkl nor mosi.json"):
        opened(out)
    resumed = prepare(file, out, progress=lambda done, total: calls.append((done, total)))

    assert resumed.done == ["vision.npy"] and len(resumed.reused) == len(first.done) - 1
    assert (out / "audio.npy").stat().st_mtime_ns == modified and calls[-1] == (len(first.done), len(first.done))
    assert not list(out.glob(".*.part-*")) and check(out).errors == []


def test_another_source_replaces_all_files(write, tmp_path):
    prepare(write(content()), tmp_path / "out")

    again = prepare(write(without("text_bert"), "other.pkl"), tmp_path / "out")

    assert again.reused == [] and not (tmp_path / "out" / "text.tokens.npy").exists()
    assert check(tmp_path / "out").errors == []


def test_wrong_arguments_are_refused_before_anything_is_written(write, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.npy").write_bytes(b"precious")
    file, bad = write(content()), write(content(audio=None), "bad.pkl")

    with pytest.raises(InputError, match="mine already exists"):
        prepare(file, tmp_path / "mine")
    with pytest.raises(InputError, match="train has no audio"):
        prepare(bad, tmp_path / "out")
    with pytest.raises(InputError, match="no nonfinite 'zeros'. Did you mean 'zero'"):
        prepare(file, tmp_path / "out", nonfinite="zeros")
    with pytest.raises(InputError, match="is neither a file nor a folder with one .pkl"):
        prepare(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "mine" / "text.npy").read_bytes() == b"precious"


def test_a_modality_is_opened_without_the_files_of_the_others(file, tmp_path):
    out = tmp_path / "out"
    prepare(file, out)
    for name in ("text", "vision"):
        (out / f"{name}.npy").unlink()

    data = opened(out, modalities=["audio"])

    assert data.info.modalities == ("audio",) and everything(data.test).inputs["audio"].shape == (10, 5, 9)
    with pytest.raises(InputError) as refused:
        opened(out)
    assert [f"{name}.npy" in problem for name, problem in zip(("text", "vision"), refused.value.problems, strict=True)]


def test_a_prepared_folder_is_also_a_folder_of_arrays(file, tmp_path):
    prepare(file, tmp_path / "out")

    data, plain = open_data(str(tmp_path / "out")), opened(file, text="tokens")

    actual, expected = everything(data.valid), everything(plain.valid)
    assert data.info.inputs == plain.info.inputs and torch.equal(actual.target, expected.target)
    assert all(torch.equal(actual.inputs[name], expected.inputs[name]) for name in expected.inputs)


def test_values_that_preparing_replaced_cannot_be_treated_otherwise_later(write, tmp_path):
    prepare(write(with_nonfinite()), tmp_path / "out")
    prepare(write(content(), "clean.pkl"), tmp_path / "clean")

    with pytest.raises(InputError, match="was prepared with nonfinite zero: the option cannot be published now"):
        opened(tmp_path / "out", as_published=True)
    assert opened(tmp_path / "clean", nonfinite="refuse").warnings == []


def test_changes_to_a_prepared_folder_are_reported(file, tmp_path):
    out = tmp_path / "out"
    prepare(file, out)
    values = np.load(out / "audio.npy")
    values[0, 0, 0] += 1
    np.save(out / "audio.npy", values)
    assert check(out).errors == [f"{out / 'audio.npy'} was changed since it was prepared. Prepare the folder again."]

    np.save(out / "audio.npy", values[:5])
    np.save(out / "labels.npy", np.full(42, np.nan, np.float32))
    problems = check(out).errors
    assert (
        len(problems) == 1
        and "float32 of shape (5, 5, 9), and mosi.json says float32 of shape (42, 5, 9)" in problems[0]
    )

    np.save(out / "audio.npy", values)
    with pytest.raises(InputError, match="labels.npy was changed since it was prepared"):
        opened(out)


@pytest.mark.parametrize(
    "change",
    [lambda facts: facts.pop("ids"), lambda facts: facts.update(more=1), lambda facts: facts["rows"].popitem()],
)
def test_a_manifest_that_was_changed_is_refused(file, tmp_path, change):
    out = tmp_path / "out"
    prepare(file, out)
    facts = json.loads((out / FACTS).read_text())
    change(facts)
    (out / FACTS).write_text(json.dumps(facts))
    report = Report()

    assert open_prepared(out, report) is None and "mosi.json" in report.errors[0]


# ---- commands


def test_synthetic_files_are_opened_checked_and_prepared_by_commands(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    sizes = ["--samples", "12,4,4", "--steps", "5", "--dominant", "vision", "--noise", "1.5", "--other-sigma", "2"]

    statuses = answer(["data", "make", "mosi", str(raw), "--unaligned", *sizes])
    checked = answer(["data", "check", str(raw)])
    alone = answer(["data", "check", str(raw / "unaligned_50.pkl")])
    prepared = answer(["data", "prepare", "mosi", str(raw), str(out)])
    again = answer(["data", "check", str(out)])

    assert statuses == checked == alone == prepared == again == 0
    settings = SyntheticSettings(
        samples=(12, 4, 4), steps=5, dominant="vision", noise=1.5, other_sigma=2, unaligned=True
    )
    batch = everything(opened(raw).train)
    assert np.array_equal(batch.inputs["vision"].numpy(), draw(settings, 0)["train"]["vision"].transpose(0, 2, 1))
    assert torch.equal(everything(opened(out).train).inputs["vision"], batch.inputs["vision"])


def test_a_prepared_synthetic_set_equals_a_synthetic_set_that_is_prepared(tmp_path):
    make(tmp_path / "one", format="prepared", seed=3, settings=SETTINGS)
    make(tmp_path / "raw", seed=3, settings=SETTINGS)
    prepare(tmp_path / "raw", tmp_path / "two")

    files = read_facts(tmp_path / "two").files
    assert read_facts(tmp_path / "one").files == files and (tmp_path / "raw" / "unaligned_50.pkl").is_file()
    with pytest.raises(InputError, match="already exists"):
        make(tmp_path / "one")
    with pytest.raises(InputError, match="There is no format 'raws'. Did you mean 'raw'"):
        make(tmp_path / "three", format="raws")


def test_the_check_command_reports_all_problems_with_status_two(write, tmp_path, capsys):
    splits = content(audio=None, regression_labels=None)
    del splits["test"]
    write(splits)
    write({"train": ()}, "second.pkl")
    (tmp_path / "hostile.pkl").write_bytes(b"cos\nsystem\n(S'touch HARM'\ntR.")

    status = answer(["data", "check", str(tmp_path), "--json"])

    errors = json.loads(capsys.readouterr().out)["errors"]
    assert status == 2 and len(errors) == 6
    assert "asks for os.system" in errors[0] and "second.pkl: the split 'train' is a tuple" in errors[1]
    assert not (tmp_path / "HARM").exists()


def test_a_malicious_file_stops_every_command_with_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch HARM\x85R.")

    for words in (["data", "prepare", "mosi", str(path), "out"], ["compare", "mosi", "--mosi.root", str(path)]):
        assert answer(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "asks for posix.system" in line
    assert sorted(each.name for each in tmp_path.iterdir()) == ["aligned_50.pkl"]


def test_a_comparison_uses_the_metrics_of_the_data(tmp_path):
    options = "--mosi.stand-in --mosi.samples 24,8,16 --mosi.steps 6 --metric Corr"
    words = f"compare mosi {options} --teacher text --student audio --epochs 1 --seeds 2 --methods kd --no-shuffled"

    assert answer([*words.split(), "--out", str(tmp_path / "out")]) == 0
    assert answer(["evaluate", str(tmp_path / "out")]) == 0

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    metrics = ["mae", "Corr", "Mult_acc_7", "Mult_acc_5", "Non0_acc_2", "Non0_F1_score", "Has0_acc_2", "Has0_F1_score"]
    assert result["metric"] == "Corr" and result["direction"] == "max"
    assert all(list(row["test"]) == list(row["valid"]) == [*metrics, "mse"] for row in result["rows"])
    scored = json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]
    again = {(row["name"], row["seed"]): row["scores"] for row in scored}
    for row in result["rows"]:
        assert again[row["name"], row["seed"]] == pytest.approx(row["test"], abs=1e-6)

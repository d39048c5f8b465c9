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
    """What a small file holds; ``changes`` are made to its training split, None removes a key."""
    made = draw(SETTINGS, 0)
    for key, value in changes.items():
        if value is None:
            del made["train"][key]
        else:
            made["train"][key] = value
    return made


def without(*keys):
    made = content()
    return {split: {key: value for key, value in part.items() if key not in keys} for split, part in made.items()}


@pytest.fixture
def write(tmp_path):
    """Files as others write them, by Python's own pickle."""

    def write(made, name="unaligned_50.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(made, protocol=4))
        return path

    return write


@pytest.fixture
def file(write):
    return write(content())


def opened(root, **options):
    return open_data("mosi", options={"root": str(root), **options})


def everything(split):
    return next(iter(in_order(split, batch_size=1000)))


def told(made, write, **options):
    """The sentences with which a file is refused."""
    with pytest.raises(InputError) as refused:
        opened(write(made), **options)
    return refused.value.problems


# ---- what is opened


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


def test_lengths_go_with_their_modality_as_whole_numbers(file):
    batch, train = everything(opened(file).train), content()["train"]

    assert batch.inputs["text.lengths"].tolist() == train["text_bert"][:, 1].sum(axis=1).tolist()
    assert batch.inputs["audio.lengths"].tolist() == train["audio_lengths"]
    assert batch.inputs["vision.lengths"].dtype == torch.int64 and batch.inputs["vision.lengths"].shape == (24,)
    assert set(batch.targets) == set(batch.index) == set(MODALITIES) and batch.paired


def test_labels_are_one_column_as_regression_is_elsewhere(file):
    data = opened(file)

    assert data.info.task == "regression" and data.info.classes == data.info.outputs == 1
    assert data.info.rows == {
        split: dict.fromkeys(MODALITIES, n) for split, n in zip(("train", "valid", "test"), (24, 8, 10), strict=True)
    }
    expected = torch.from_numpy(content()["test"]["regression_labels"])[:, None]
    assert torch.equal(everything(data.test).target, expected)


def test_tokens_are_there_when_a_text_encoder_asks_for_them(file):
    plain, encoded = opened(file), opened(file, text="tokens")

    assert "text.tokens" not in plain.info.inputs and encoded.info.modalities == MODALITIES
    tokens = everything(encoded.train).inputs["text.tokens"]
    assert tokens.dtype == torch.int64 and np.array_equal(tokens.numpy(), content()["train"]["text_bert"])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_token_ids_stored_as_other_numbers_become_whole(write, kind):
    made = content()
    for part in made.values():
        part["text_bert"] = part["text_bert"].astype(kind)

    batch = everything(opened(write(made), text="tokens").valid)

    assert batch.inputs["text.tokens"].dtype == torch.int64 and batch.inputs["text.lengths"].dtype == torch.int64


def test_widths_and_steps_are_read_from_the_arrays(write):
    made = draw(SyntheticSettings(samples=(6, 3, 3), steps=5, widths=(2, 3, 7)), 0)

    data = opened(write(made))

    assert [data.info.inputs[name].shape for name in MODALITIES] == [(2, 5), (3, 5), (7, 5)]


def test_some_modalities_alone_can_be_opened(write):
    made = {split: {key: part[key] for key in ("audio", "regression_labels")} for split, part in content().items()}

    data = opened(write(made), modalities=["audio"])

    assert data.info.modalities == ("audio",) and list(data.info.inputs) == ["audio", "audio.lengths"]


def test_arrays_per_sample_and_labels_of_two_axes_are_taken_as_they_are_meant(write):
    made = content(regression_labels=content()["train"]["regression_labels"][:, None])
    made["train"]["audio"] = list(made["train"]["audio"])
    made["train"]["audio_lengths"] = np.array(made["train"]["audio_lengths"], np.float64)

    data, plain = opened(write(made)), opened(write(content(), "plain.pkl"))

    for name in ("audio", "audio.lengths"):
        assert torch.equal(everything(data.train).inputs[name], everything(plain.train).inputs[name])
    assert torch.equal(everything(data.train).target, everything(plain.train).target)


def test_without_a_root_a_made_set_stands_in_and_says_so():
    options = {"stand_in": True, "samples": [20, 5, 5], "steps": 6, "dominant": "audio"}

    data, other = (open_data("mosi", options=options, seed=seed) for seed in (0, 1))
    fixed = open_data("mosi", options={**options, "made_seed": 0}, seed=1)

    assert "made trimodal set" in data.warnings[0] and data.info.rows["train"]["text"] == 20
    expected = draw(SyntheticSettings(samples=(20, 5, 5), steps=6, dominant="audio"), 0)["train"]["audio"]
    found = [everything(each.train).inputs["audio"] for each in (data, fixed, other)]
    assert np.array_equal(found[0].numpy(), expected.transpose(0, 2, 1)) and torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(everything(reopen(data.source).train).inputs["audio"], found[0])


def test_without_a_root_or_stand_in_the_sentence_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"Give --mosi.root DIR .* a folder with the pickle of MOSI or MOSEI"):
        open_data("mosi")
    with pytest.raises(InputError, match="is no folder and no file"):
        opened(tmp_path / "none")
    with pytest.raises(InputError, match="holds neither one .pkl nor mosi.json"):
        opened(tmp_path)
    with pytest.raises(InputError, match="task regression; multiclass was asked for"):
        open_data("mosi", options={"stand_in": True}, task="multiclass")


def test_a_share_of_the_training_rows_can_be_kept_with_their_lengths(file):
    data = open_data("mosi", options={"root": str(file)}, train_fraction=0.5)
    batch = everything(data.train)

    assert len(batch.inputs["audio"]) == len(batch.inputs["audio.lengths"]) == 12
    steps = (batch.inputs["audio"] != 0).any(dim=1).sum(dim=1)
    assert torch.equal(steps, batch.inputs["audio.lengths"])


# ---- values that are not finite


def broken():
    made = content()
    made["train"]["audio"][0, 0, 0] = -np.inf
    made["valid"]["audio"][1, 0, 2] = np.nan
    made["test"]["vision"][0, 1, 0] = np.inf
    made["train"]["text"] = made["train"]["text"].astype(np.float64)
    made["train"]["text"][3, 0, 0] = 1e300
    return made


def test_values_that_are_not_finite_become_zero_and_are_counted(write):
    data = opened(write(broken()))

    assert data.warnings == [
        "unaligned_50.pkl: text holds 1 +inf; 0 was put in place of each.",
        "unaligned_50.pkl: vision holds 1 +inf; 0 was put in place of each.",
        "unaligned_50.pkl: audio holds 1 nan and 1 -inf; 0 was put in place of each.",
    ]
    parts = [everything(split).inputs for split in (data.train, data.valid, data.test)]
    assert all(torch.isfinite(part[name]).all() for part in parts for name in MODALITIES)
    assert parts[0]["audio"][0, 0, 0] == 0 == parts[0]["text"][3, 0, 0]


def test_strictly_they_are_errors(write):
    problems = told(broken(), write, nonfinite="refuse")

    assert len(problems) == 3 and all("Repair the file" in problem for problem in problems)


def test_as_published_only_minus_infinity_in_audio_is_replaced(write):
    path = write(broken())
    data = opened(path, as_published=True)

    assert everything(data.train).inputs["audio"][0, 0, 0] == 0
    assert everything(data.valid).inputs["audio"][1, 2, 0].isnan()
    assert everything(data.test).inputs["vision"][0, 0, 1].isinf()
    assert "0 was put in place of 1, and 1 are left for the network" in data.warnings[2]
    with pytest.raises(InputError, match="as_published asks for nonfinite published"):
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


def test_another_file_has_to_hold_the_same_samples(write):
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


def test_means_over_time_count_padding_and_keep_text(file):
    data, plain = opened(file, time_means=True), opened(file)
    batch, before = everything(data.valid), everything(plain.valid)

    assert data.info.inputs["audio"].shape == (5, 1) and data.info.inputs["text"].shape == (24, 6)
    torch.testing.assert_close(batch.inputs["audio"], before.inputs["audio"].mean(dim=2, keepdim=True))
    assert batch.inputs["audio.lengths"].tolist() == [1] * 8
    assert torch.equal(batch.inputs["text.lengths"], before.inputs["text.lengths"])


# ---- what is wrong with a file


def test_everything_wrong_with_a_file_is_said_at_once(write):
    made = content(audio=None, text=content()["train"]["text"][:20])
    del made["valid"]
    made["test"]["vision"] = "nothing"

    problems = told(made, write)

    assert len(problems) == 3
    assert "unaligned_50.pkl, train has no audio. There is raw_text, id, text" in problems[0]
    assert problems[1] == (
        "unaligned_50.pkl has no split 'valid': train, valid, test were expected, and there is train, test."
    )
    assert "unaligned_50.pkl, test, vision is no array of numbers: (samples, time, width)" in problems[2]


@pytest.mark.parametrize(
    ("made", "sentence"),
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
        (content(audio=np.array(["a"] * 24, object)), "train, audio is no array of numbers"),
        (content(text_bert=np.zeros((24, 6))), r"text_bert has the shape \(24, 6\): \(samples, 3, time\)"),
        (content(text_bert=np.zeros((24, 2, 6))), "Leave the key out to use the features in text .*text=features"),
        (
            content(text_bert=np.full((24, 3, 6), 7)),
            "text_bert holds other numbers than whole ids and a mask of 0 and 1",
        ),
        (content(audio_lengths=[1.5] * 24), "audio_lengths holds float64 numbers: whole numbers were expected"),
        (content(id=[["a"]] * 24), "train, id is no list of texts"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "file",
)
def test_a_file_that_is_wrong_is_refused_with_a_sentence(write, made, sentence):
    with pytest.raises(InputError, match=sentence):
        opened(write(made))


def test_labels_that_are_missing_are_named_and_those_outside_are_counted(write):
    labels = content()["train"]["regression_labels"]
    labels[[1, 4]] = np.nan, np.inf
    (problem,) = told(content(regression_labels=labels), write)
    assert "the label of vid000$_$1, vid000$_$4 is NaN or infinite" in problem

    labels[[1, 4]] = 3.4, -5
    data = opened(write(content(regression_labels=labels)))
    assert data.warnings == [
        "unaligned_50.pkl: 2 of 42 labels are outside [-3, 3]. They are kept; metrics of classes clip them."
    ]
    assert everything(data.train).target[4] == -5


def test_unaligned_data_without_lengths_is_taken_whole_with_a_warning(write):
    data = opened(write(without("audio_lengths", "vision_lengths", "text_bert")))

    assert data.warnings == [
        "unaligned_50.pkl is unaligned and has no vision_lengths and no audio_lengths: all steps are taken for real "
        "ones, padding too."
    ]
    lengths = {name: everything(data.test).inputs[f"{name}.lengths"].unique().tolist() for name in MODALITIES}
    assert lengths == {"text": [6], "vision": [12], "audio": [9]}


def test_aligned_data_needs_no_lengths(write):
    made = draw(SyntheticSettings(samples=(6, 3, 3), steps=5), 0)
    bare = {split: {k: v for k, v in part.items() if not k.endswith("lengths")} for split, part in made.items()}

    assert opened(write(bare)).warnings == []


def test_lengths_beyond_the_steps_are_moved_there_and_counted(write):
    lengths = [0, 10, *content()["train"]["audio_lengths"][2:]]

    data = opened(write(content(audio_lengths=lengths)))

    assert data.warnings == ["unaligned_50.pkl: audio_lengths of 2 samples is below 1 or above 9; it was moved there."]
    assert everything(data.train).inputs["audio.lengths"][:2].tolist() == [1, 9]


def test_ids_in_two_splits_are_a_warning(write):
    made = content()
    made["test"]["id"] = made["train"]["id"][:10]

    assert "10 ids are in train and in test, vid000$_$0 among them" in opened(write(made)).warnings[0]


def test_tokens_that_are_not_there_are_an_error(write):
    assert "there is no text_bert. Use text=features" in told(without("text_bert"), write, text="tokens")[0]
    problems = told(content(), write, text="tokens", modalities=["audio"])
    assert problems == ["Tokens were asked for (text=tokens) and text is not among the modalities. Add it."]


def test_files_without_ids_are_numbered(write):
    source = open_pickle(write(without("id")), Report())

    assert source.ids[0] == "train 0" and source.ids[-1] == "test 9"


# ---- prepared folders


def test_a_prepared_folder_gives_the_batches_of_the_pickle(write, tmp_path):
    path = write(broken())

    done = prepare(path, tmp_path / "out", progress=None)
    data, plain = opened(tmp_path / "out", text="tokens"), opened(path, text="tokens")

    assert "audio.npy" in done.done and not done.reused and not done.skipped
    assert data.info.inputs == plain.info.inputs
    for split in ("train", "valid", "test"):
        one, two = everything(data.split(split)), everything(plain.split(split))
        assert one.inputs.keys() == two.inputs.keys() and torch.equal(one.target, two.target)
        assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in one.inputs)
    assert isinstance(data.train.columns["audio"].array, np.memmap) and data.warnings == plain.warnings


def test_the_manifest_says_where_everything_comes_from(write, tmp_path):
    path = write(broken())
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


def test_preparing_again_writes_nothing_and_an_interrupted_one_goes_on(file, tmp_path):
    out, told = tmp_path / "out", []
    first = prepare(file, out)
    before = (out / "audio.npy").stat().st_mtime_ns
    again = prepare(file, out)
    assert again.done == [] and again.reused == list(read_facts(out).files)

    (out / FACTS).unlink()
    (out / "vision.npy").unlink()
    (out / ".text.npy.part-x.npy").write_bytes(b"half")
    with pytest.raises(InputError, match="holds neither one .pkl nor mosi.json"):
        opened(out)
    resumed = prepare(file, out, progress=lambda done, total: told.append((done, total)))

    assert resumed.done == ["vision.npy"] and len(resumed.reused) == len(first.done) - 1
    assert (out / "audio.npy").stat().st_mtime_ns == before and told[-1] == (len(first.done), len(first.done))
    assert not list(out.glob(".*.part-*")) and check(out).errors == []


def test_another_source_makes_all_of_it_anew(write, tmp_path):
    prepare(write(content()), tmp_path / "out")

    again = prepare(write(without("text_bert"), "other.pkl"), tmp_path / "out")

    assert again.reused == [] and not (tmp_path / "out" / "text.tokens.npy").exists()
    assert check(tmp_path / "out").errors == []


def test_preparing_refuses_before_it_writes(write, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.npy").write_bytes(b"precious")
    file, bad = write(content()), write(content(audio=None), "bad.pkl")

    with pytest.raises(InputError, match="mine is there already"):
        prepare(file, tmp_path / "mine")
    with pytest.raises(InputError, match="train has no audio"):
        prepare(bad, tmp_path / "out")
    with pytest.raises(InputError, match="no nonfinite 'zeros'. Did you mean 'zero'"):
        prepare(file, tmp_path / "out", nonfinite="zeros")
    with pytest.raises(InputError, match="is no file and no folder with one .pkl"):
        prepare(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "mine" / "text.npy").read_bytes() == b"precious"


def test_one_modality_is_opened_when_the_files_of_the_others_are_gone(file, tmp_path):
    out = tmp_path / "out"
    prepare(file, out)
    for name in ("text", "vision"):
        (out / f"{name}.npy").unlink()

    data = opened(out, modalities=["audio"])

    assert data.info.modalities == ("audio",) and everything(data.test).inputs["audio"].shape == (10, 5, 9)
    with pytest.raises(InputError) as refused:
        opened(out)
    assert [f"{name}.npy" in problem for name, problem in zip(("text", "vision"), refused.value.problems, strict=True)]


def test_a_prepared_folder_is_an_own_data_folder_too(file, tmp_path):
    prepare(file, tmp_path / "out")

    data, plain = open_data(str(tmp_path / "out")), opened(file, text="tokens")

    one, two = everything(data.valid), everything(plain.valid)
    assert data.info.inputs == plain.info.inputs and torch.equal(one.target, two.target)
    assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in two.inputs)


def test_what_was_replaced_in_preparing_can_not_be_asked_for_again(write, tmp_path):
    prepare(write(broken()), tmp_path / "out")
    prepare(write(content(), "clean.pkl"), tmp_path / "clean")

    with pytest.raises(InputError, match="was prepared with nonfinite zero, and published was asked for"):
        opened(tmp_path / "out", as_published=True)
    assert opened(tmp_path / "clean", nonfinite="refuse").warnings == []


def test_changes_to_a_prepared_folder_are_noticed(file, tmp_path):
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


def test_made_files_are_opened_checked_and_prepared_by_commands(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    sizes = ["--samples", "12,4,4", "--steps", "5", "--dominant", "vision", "--noise", "1.5", "--other-sigma", "2"]

    made = answer(["data", "make", "mosi", str(raw), "--unaligned", *sizes])
    checked = answer(["data", "check", str(raw)])
    alone = answer(["data", "check", str(raw / "unaligned_50.pkl")])
    prepared = answer(["data", "prepare", "mosi", str(raw), str(out)])
    again = answer(["data", "check", str(out)])

    assert made == checked == alone == prepared == again == 0
    settings = SyntheticSettings(
        samples=(12, 4, 4), steps=5, dominant="vision", noise=1.5, other_sigma=2, unaligned=True
    )
    batch = everything(opened(raw).train)
    assert np.array_equal(batch.inputs["vision"].numpy(), draw(settings, 0)["train"]["vision"].transpose(0, 2, 1))
    assert torch.equal(everything(opened(out).train).inputs["vision"], batch.inputs["vision"])


def test_made_and_prepared_is_what_preparing_the_made_file_gives(tmp_path):
    make(tmp_path / "one", format="prepared", seed=3, settings=SETTINGS)
    make(tmp_path / "raw", seed=3, settings=SETTINGS)
    prepare(tmp_path / "raw", tmp_path / "two")

    files = read_facts(tmp_path / "two").files
    assert read_facts(tmp_path / "one").files == files and (tmp_path / "raw" / "unaligned_50.pkl").is_file()
    with pytest.raises(InputError, match="is there already"):
        make(tmp_path / "one")
    with pytest.raises(InputError, match="There is no format 'raws'. Did you mean 'raw'"):
        make(tmp_path / "three", format="raws")


def test_checking_says_all_that_is_wrong_and_ends_with_status_two(write, tmp_path, capsys):
    made = content(audio=None, regression_labels=None)
    del made["test"]
    write(made)
    write({"train": ()}, "second.pkl")
    (tmp_path / "hostile.pkl").write_bytes(b"cos\nsystem\n(S'touch HARM'\ntR.")

    status = answer(["data", "check", str(tmp_path), "--json"])

    errors = json.loads(capsys.readouterr().out)["errors"]
    assert status == 2 and len(errors) == 6
    assert "asks for os.system" in errors[0] and "second.pkl: the split 'train' is a tuple" in errors[1]
    assert not (tmp_path / "HARM").exists()


def test_a_hostile_file_ends_every_command_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch HARM\x85R.")

    for words in (["data", "prepare", "mosi", str(path), "out"], ["compare", "mosi", "--mosi.root", str(path)]):
        assert answer(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "asks for posix.system" in line
    assert sorted(each.name for each in tmp_path.iterdir()) == ["aligned_50.pkl"]


def test_a_comparison_is_scored_and_chosen_by_the_metrics_of_the_data(tmp_path):
    made = "--mosi.stand-in --mosi.samples 24,8,16 --mosi.steps 6 --metric Corr"
    words = f"compare mosi {made} --teacher text --student audio --epochs 1 --seeds 2 --methods kd --no-shuffled"

    assert answer([*words.split(), "--out", str(tmp_path / "out")]) == 0
    assert answer(["evaluate", str(tmp_path / "out")]) == 0

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    known = ["mae", "Corr", "Mult_acc_7", "Mult_acc_5", "Non0_acc_2", "Non0_F1_score", "Has0_acc_2", "Has0_F1_score"]
    assert result["metric"] == "Corr" and result["direction"] == "max"
    assert all(list(row["test"]) == list(row["valid"]) == [*known, "mse"] for row in result["rows"])
    scored = json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]
    again = {(row["name"], row["seed"]): row["scores"] for row in scored}
    for row in result["rows"]:
        assert again[row["name"], row["seed"]] == pytest.approx(row["test"], abs=1e-6)

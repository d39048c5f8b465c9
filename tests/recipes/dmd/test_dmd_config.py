"""The settings file of DMD's authors: every key that means something, and what is wrong with a file."""

import json

import pytest

from xmodal.errors import InputError
from xmodal.recipes.dmd.authors_config import read_config
from xmodal.recipes.dmd.experiment import PER_MODALITY, Settings

COMMON = {
    "need_data_aligned": True,
    "need_model_aligned": True,
    "early_stop": 10,
    "use_bert": True,
    "use_finetune": True,
    "attn_mask": True,
    "update_epochs": 10,
}
SHARED = {"nlevels": 4, "relu_dropout": 0.0, "res_dropout": 0.0, "output_dropout": 0.5, "batch_size": 16}
SHARED |= {"learning_rate": 1e-4, "grad_clip": 0.6, "patience": 5, "transformers": "bert"}
MOSI = SHARED | {
    "attn_dropout_a": 0.2,
    "attn_dropout_v": 0.0,
    "embed_dropout": 0.2,
    "dst_feature_dim_nheads": [50, 10],
    "conv1d_kernel_size_l": 5,
    "conv1d_kernel_size_a": 5,
    "conv1d_kernel_size_v": 5,
    "text_dropout": 0.5,
    "attn_dropout": 0.3,
    "weight_decay": 0.005,
}
MOSEI = MOSI | {
    "attn_dropout_a": 0.0,
    "embed_dropout": 0.0,
    "dst_feature_dim_nheads": [30, 6],
    "conv1d_kernel_size_a": 1,
    "conv1d_kernel_size_v": 3,
    "text_dropout": 0.3,
    "attn_dropout": 0.4,
}


def content():
    blocks = {
        name: {
            which: {
                "featurePath": f"{name.upper()}/Processed/{which}_50.pkl",
                "feature_dims": [768, 5, 20],
                "train_samples": 1284,
                "num_classes": 3,
                "language": "en",
                "KeyEval": "Loss",
            }
            for which in ("aligned", "unaligned")
        }
        for name in ("mosi", "mosei")
    }
    return {
        "datasetCommonParams": {"dataset_root_dir": "./dataset", **blocks},
        "dmd": {"commonParams": dict(COMMON), "datasetParams": {"mosi": dict(MOSI), "mosei": dict(MOSEI)}},
    }


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        made = content()
        made["dmd"]["datasetParams"]["mosi"] |= changes
        path = tmp_path / "config.json"
        path.write_text(json.dumps(made))
        return path

    return write


@pytest.mark.parametrize("dataset", ["mosi", "mosei"])
def test_the_published_file_says_what_the_preset_says(written, dataset):
    plain = Settings(dataset=dataset, data="some.pkl", options={"mosi": {}}).described()
    read = Settings(dataset=dataset, data="some.pkl", config=written(), text="features").described()

    differing = {key for key in plain if plain[key] != read[key]}
    assert differing == {"text", "select"} and read["select"] == "mae"


def test_flags_go_on_top_of_the_file_and_the_file_on_top_of_the_preset(written):
    path = written(nlevels=3, batch_size=8)

    settings = Settings(dataset="mosi", data="some.pkl", config=path, text="features", batch_size=4)

    assert (settings.layers, settings.batch_size, settings.width) == (3, 4, 50)


def test_triples_are_ordered_as_the_nodes_of_the_graphs_and_follow_the_modalities(written):
    settings = Settings(dataset="mosei", data="some.pkl", config=written(), text="features")
    two = Settings(dataset="mosei", data="some.pkl", modalities=("audio", "text"))

    assert settings.kernel == (5, 3, 1) and settings.attention_dropout == (0.4, 0.0, 0.0)
    assert {key: getattr(two, key) for key in PER_MODALITY} == {
        "kernel": (1, 5),
        "input_dropout": (0.0, 0.3),
        "attention_dropout": (0.0, 0.4),
    }


def test_data_keys_become_options_of_the_data(written, tmp_path):
    place = tmp_path / "dataset" / "MOSI" / "Processed"
    place.mkdir(parents=True)
    (place / "unaligned_50.pkl").write_bytes(b"")
    path = written(need_data_aligned=False, feature_A="other.pkl", need_normalized=True, KeyEval="Acc_2", grad_clip=-1)

    settings = Settings(dataset="mosi", config=path, text="features")

    mosi = settings.options["mosi"]
    assert mosi == {"audio_from": "other.pkl", "time_means": True, "root": str(place / "unaligned_50.pkl")}
    assert (settings.alignment, settings.select, settings.clip) == ("unaligned", "Non0_acc_2", None)


def test_what_is_not_used_is_said(written):
    (note,) = read_config(written(), "mosi").notes

    for key in ("weight_decay", "feature_dims", "num_classes", "need_model_aligned", "transformers"):
        assert key in note


def test_another_model_in_the_file_is_left_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content() | {"mult": {"commonParams": {"whatever": 1}, "datasetParams": {}}}))

    assert read_config(path, "mosi").values["width"] == 50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nlevel": 4}, "no key 'nlevel' that DMD knows.*nlevels"),
        ({"dst_feature_dim_nheads": 50}, r"expected \[width, heads\]"),
        ({"use_bert": "yes"}, "'use_bert' is 'yes', expected true or false"),
        ({"grad_clip": -2}, "'grad_clip' is -2"),
        ({"grad_clip": "a"}, "'grad_clip' is 'a'"),
    ],
)
def test_wrong_values_are_sentences(written, changes, words):
    with pytest.raises(InputError, match=words):
        read_config(written(**changes), "mosi")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("dmd"), "has no block 'dmd'"),
        (lambda c: c.update(datasetCommonParam=1), "datasetCommonParams"),
        (lambda c: c["dmd"].update(commonParam=1), "no key 'commonParam'.*commonParams"),
        (lambda c: c["dmd"].update(commonParams=1), "'commonParams' is 1, expected a block"),
        (lambda c: c.update(dmd=[1]), r"'dmd' is \[1\]"),
        (lambda c: c["dmd"]["datasetParams"].pop("mosi"), "no numbers for mosi.*mosei"),
        (lambda c: c["dmd"]["datasetParams"]["mosi"].pop("attn_dropout"), "and not attn_dropout"),
    ],
)
def test_a_wrong_layout_is_a_sentence(tmp_path, change, words):
    made = content()
    change(made)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(made))

    with pytest.raises(InputError, match=words):
        read_config(path, "mosi")


def test_no_file_and_no_json_are_sentences(tmp_path):
    (tmp_path / "half.json").write_text('{"dmd": ')

    with pytest.raises(InputError, match="There is no file"):
        read_config(tmp_path / "none.json", "mosi")
    with pytest.raises(InputError, match="not valid JSON"):
        read_config(tmp_path / "half.json", "mosi")


def test_a_text_encoder_that_is_asked_for_must_be_named(written):
    with pytest.raises(ValueError, match="--text-encoder DIR, or take the features"):
        Settings(dataset="mosi", data="some.pkl", config=written())

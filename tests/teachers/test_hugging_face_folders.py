"""Local folders of the package transformers, made here with random weights."""

import json

import numpy as np
import pytest
import torch
import transformers

from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError
from xmodal.teachers.given import open_teacher
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.tabulate import tabulated

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NAMES = {0: "two", 1: "zero", 2: "one", 3: "other"}


@pytest.fixture
def sets():
    random = np.random.default_rng(0)
    inputs = {
        "picture": random.integers(0, 255, (60, 3, 8, 8)).astype(np.uint8),
        "sound": random.normal(size=(60, 400)).astype(np.float32),
        "text": random.integers(1, 30, (60, 6)),
        "faint": random.normal(size=(60, 4)),
    }
    inputs["text"][:, 4:] = 0
    return from_arrays(inputs, np.arange(60) % 3, class_names=("zero", "one", "two"))


def opened(path, data, modality):
    return open_teacher(TeacherRequest(source=path), data, (modality,))


def answers_of(given):
    values, rows = tabulated(given)
    return values[rows.argsort()]


def test_a_text_classifier_leaves_padding_out(sets, tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30, pad_token_id=0, num_labels=4, id2label=NAMES, **TINY)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "bert")

    given = opened(tmp_path / "bert", sets, "text")

    # without the padding at all, one class less, in the order of the data
    tokens = torch.from_numpy(np.asarray(sets.train.columns["text"])[:, :4])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[:, [1, 2, 0]].numpy()
    assert np.allclose(answers_of(given), expected, atol=1e-5)
    assert "of its 4 classes 3 are used" in given.notes[0]


def test_an_image_classifier_uses_its_own_processor(sets, tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, num_labels=3, id2label={0: "zero", 1: "one", 2: "two"}, **TINY
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": mean,
        "image_std": std,
        "do_resize": False,
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "size": {"height": 16, "width": 16},
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(settings))
    inputs = np.repeat(np.repeat(np.asarray(sets.train.columns["picture"]), 2, axis=2), 2, axis=3)
    data = from_arrays(
        {"picture": inputs, "faint": sets.train.columns["faint"]}, np.arange(60) % 3, class_names=("zero", "one", "two")
    )

    answers = answers_of(opened(tmp_path / "vit", data, "picture"))

    scaled = (inputs / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with torch.no_grad():
        expected = model(pixel_values=torch.from_numpy(scaled).float()).logits.numpy()
    assert np.allclose(answers, expected, atol=1e-4)


def test_a_sound_classifier_uses_its_own_extractor(sets, tmp_path):
    torch.manual_seed(0)
    sizes = {"conv_dim": (4, 4), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
    more = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 6}
    config = transformers.Wav2Vec2Config(
        num_labels=3, id2label={0: "zero", 1: "one", 2: "two"}, **sizes, **more, **TINY
    )
    model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "wav")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "wav")

    answers = answers_of(opened(tmp_path / "wav", sets, "sound"))

    waves = np.asarray(sets.train.columns["sound"])
    scaled = (waves - waves.mean(axis=1, keepdims=True)) / np.sqrt(waves.var(axis=1, keepdims=True) + 1e-7)
    with torch.no_grad():
        expected = model(torch.from_numpy(scaled)).logits.numpy()
    assert np.allclose(answers, expected, atol=1e-4)


def test_a_model_without_a_head_gives_embeddings(sets, tmp_path):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=30, pad_token_id=0, **TINY)).eval()
    model.save_pretrained(tmp_path / "bert")

    given = opened(tmp_path / "bert", sets, "text")
    probed = open_teacher(TeacherRequest(source=tmp_path / "bert", probe=True), sets, ("text",))

    assert answers_of(given).shape == (60, 8) and not given.scored
    assert answers_of(probed).shape == (60, 3) and probed.scored


def test_weights_that_can_run_code_are_refused(sets, tmp_path):
    config = transformers.BertConfig(vocab_size=30, **TINY)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").rename(tmp_path / "bert" / "pytorch_model.bin")

    with pytest.raises(InputError, match="has no model.safetensors"):
        opened(tmp_path / "bert", sets, "text")


def test_two_modalities_and_wrong_inputs_are_refused(sets, tmp_path):
    config = transformers.BertConfig(vocab_size=30, **TINY)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")

    with pytest.raises(InputError, match="reads one modality, and the teacher has text, faint"):
        open_teacher(TeacherRequest(source=tmp_path / "bert"), sets, ("text", "faint"))
    with pytest.raises(InputError, match="reads token ids"):
        opened(tmp_path / "bert", sets, "faint")

"""Text encoders from a folder: tiny ones, made and saved here."""

import copy
import json
import sys

import pytest
import torch
from dmd_fill import published_state

from xmodal.errors import InputError, MissingExtra
from xmodal.models.dmd.authors_weights import load_published
from xmodal.models.dmd.head import build_dmd_head
from xmodal.models.dmd.net import DMDNet, DMDNumbers, SequenceInput
from xmodal.models.dmd.text_encoder import build_text_encoder, load_text_encoder
from xmodal.models.dmd.text_memory import TextMemory

TINY = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("bert")
    build_text_encoder(config=TINY).model.save_pretrained(place)
    return place


def make_tokens(rows=3, steps=6):
    torch.manual_seed(1)
    mask = (torch.arange(steps) < torch.randint(2, steps + 1, (rows, 1))).long()
    return torch.stack([torch.randint(1, 40, (rows, steps)) * mask, mask, torch.zeros_like(mask)], dim=1)


def make_net(encoder, **options):
    inputs = {"text": SequenceInput(8, 6, 3), "vision": SequenceInput(4, 7, 2), "audio": SequenceInput(5, 8, 2)}
    return DMDNet(inputs, DMDNumbers(width=8, heads=2, layers=1), {"text": encoder}, **options)


def make_inputs():
    tokens = make_tokens()
    return {"text.tokens": tokens, "vision": torch.randn(3, 4, 7), "audio": torch.randn(3, 5, 8)}


def test_features_are_the_last_hidden_states_of_the_folder(folder):
    encoder, tokens = load_text_encoder(folder), make_tokens()

    found = encoder(tokens)

    model = encoder.model
    wanted = model(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], token_type_ids=tokens[:, 2])
    assert found.shape == (3, 8, 6) and encoder.width == 8
    torch.testing.assert_close(found, wanted.last_hidden_state.transpose(1, 2))


def test_a_frozen_encoder_stays_in_eval_mode_and_has_no_gradient(folder):
    net = make_net(load_text_encoder(folder)).train()
    inputs = make_inputs()

    first, second = (net.fused.projection("text").encoder(inputs["text.tokens"]) for _ in range(2))
    net(inputs).fused.sum().backward()

    assert torch.equal(first, second) and not first.requires_grad
    assert not any(part.training for part in net.fused.projection("text").encoder.modules())
    assert all(x.grad is None and not x.requires_grad for x in net.fused.projection("text").encoder.parameters())


def test_an_encoder_that_is_trained_has_dropout_and_gradients(folder):
    net = make_net(load_text_encoder(folder, fine_tune=True)).train()
    inputs = make_inputs()
    encoder = net.fused.projection("text").encoder

    first, second = (encoder(inputs["text.tokens"]) for _ in range(2))
    net(inputs).fused.sum().backward()

    assert not torch.equal(first, second)
    assert encoder.model.get_input_embeddings().weight.grad.abs().sum() > 0
    assert torch.equal(encoder.eval()(inputs["text.tokens"]), encoder(inputs["text.tokens"]))


def test_a_network_reads_tokens_in_place_of_features_and_its_student_is_rebuilt(folder):
    net = make_net(load_text_encoder(folder)).eval()
    inputs, student = make_inputs(), net.students()["text"]

    with torch.device("meta"):
        wanted = build_dmd_head(**json.loads(json.dumps(student.arguments))).state_dict()
    rebuilt = build_dmd_head(**json.loads(json.dumps(student.arguments))).eval()
    rebuilt.load_state_dict(student.module.state_dict())

    assert str(folder) not in json.dumps(student.arguments)
    assert net.needs == ("text.tokens", "vision", "audio") and student.needs == ("text.tokens",)
    assert {name: x.shape for name, x in wanted.items()} == {n: x.shape for n, x in rebuilt.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), net(inputs).homo["text"], rtol=0, atol=1e-6)


def counted(encoder):
    """The numbers of rows with which the model behind the encoder is called from now on."""
    rows = []
    encoder.model.register_forward_pre_hook(
        lambda _, args, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    return rows


def test_a_frozen_encoder_reads_every_text_once(folder):
    encoder, tokens = load_text_encoder(folder), make_tokens()
    again = tokens[[2, 0, 2]]
    rows = counted(encoder)

    first, second = encoder(tokens), encoder(again)

    # one by one, so that the features of a text are the same bits in every batch
    assert rows == [1, 1, 1] and torch.equal(second, first[[2, 0, 2]])
    # the mask and the segments belong to the text
    changed = tokens.clone()
    changed[:, 2] = 1
    assert not torch.equal(encoder(changed)[0], first[0]) and len(rows) == 6


def test_features_are_forgotten_with_the_weights_and_depend_on_the_precision(folder):
    encoder, tokens = load_text_encoder(folder), make_tokens()
    before, rows = encoder(tokens), counted(encoder)
    other = {name: 2 * tensor for name, tensor in encoder.state_dict().items()}

    holder = torch.nn.ModuleDict({"text": encoder})
    holder.load_state_dict({f"text.{name}": tensor for name, tensor in other.items()})
    after = encoder(tokens)
    double = encoder.double()(tokens)

    assert not torch.allclose(before, after) and len(rows) == 6
    assert double.dtype == torch.float64 and torch.allclose(double.float(), after, atol=1e-5)


def test_the_memory_of_texts_is_limited_and_not_copied(folder):
    encoder, tokens = load_text_encoder(folder), make_tokens()
    encoder.memory = TextMemory(most_bytes=8 * 6 * 4)  # one text: 8 numbers, 6 tokens, 4 bytes
    rows = counted(encoder)

    first, second = encoder(tokens), encoder(tokens)

    assert torch.equal(first, second) and len(rows) == 3 + 2
    assert len(encoder.memory.features) == 1
    assert copy.deepcopy(encoder).memory.features == {}
    assert load_text_encoder(folder, fine_tune=True).memory is None
    assert build_text_encoder(config=TINY).memory is None


def test_published_weights_of_the_encoder_are_read_with_the_rest(folder):
    net, other = make_net(load_text_encoder(folder)), make_net(load_text_encoder(folder))
    for tensor in other.fused.projection("text").encoder.parameters():
        tensor.mul_(3)
    tokens = make_tokens()
    other.fused.projection("text").encoder(tokens)
    encoder = net.fused.projection("text").encoder.model
    state = published_state(net) | {f"text_model.model.{name}": x for name, x in encoder.state_dict().items()}
    state["text_model.model.embeddings.position_ids"] = torch.arange(16)  # older versions wrote it

    load_published(other, state)

    mine = other.fused.projection("text").encoder.model.state_dict()
    assert all(torch.equal(x, mine[name]) for name, x in encoder.state_dict().items())
    found, wanted = (each.fused.projection("text").encoder(tokens) for each in (other, net))
    assert torch.equal(found, wanted)
    del state["text_model.model.embeddings.word_embeddings.weight"]
    with pytest.raises(InputError, match="word_embeddings"):
        load_published(other, state)


def test_golden_dmd_bert_base_has_as_many_parameters_as_counted():
    with torch.device("meta"):
        encoder = build_text_encoder(config={"model_type": "bert"})

    assert sum(parameter.numel() for parameter in encoder.parameters()) == 109_482_240


def test_tokens_of_another_shape_are_refused(folder):
    with pytest.raises(InputError, match=r"expected \(rows, 3, time\)"):
        load_text_encoder(folder)(torch.zeros(2, 6, 3, dtype=torch.long))


def test_folders_without_safetensors_or_with_another_model_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json and no model\.safetensors"):
        load_text_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for config, said in (
        ("{", "is not JSON"),
        (json.dumps(TINY | {"model_type": "gpt2"}), "expected one of bert, roberta"),
        (json.dumps(TINY | {"auto_map": {"AutoModel": "code.Model"}}), "contains code"),
        (json.dumps(TINY | {"hidden_size": 16}), "cannot be read"),
    ):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(InputError, match=said):
            load_text_encoder(tmp_path)


def test_damaged_weights_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")

    with pytest.raises(InputError, match="cannot be read"):
        load_text_encoder(tmp_path)


def test_a_missing_package_is_one_sentence_with_the_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(MissingExtra, match=r"pip install .*xmodal\[text\]"):
        load_text_encoder(folder)

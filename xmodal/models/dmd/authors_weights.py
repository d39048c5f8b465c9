"""Weights of DMD in the layout of the published code: which published name belongs to which weights of ours.

The published modalities are l, v and a: the first, second and third of ours. Each published transformer is a separate
module, ours are stacked, so one parameter of ours corresponds to many published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.dmd.net import DMDNet
from xmodal.models.dmd.sequence_transformer import EncoderStack
from xmodal.models.dmd.text_encoder import TextEncoder
from xmodal.models.network import PREFIX
from xmodal.models.resnet import mismatches, read_weights

LETTERS = ("l", "v", "a")
# Entries of a published file that are no weights: a version number, and a tensor of uninitialised memory.
BUFFERS = (".version", ".embed_positions._float_tensor")
TEXT = "text_model."
LAYER = {  # published name inside a layer → our stacked parameter
    "self_attn.in_proj_weight": "in_weight",
    "self_attn.in_proj_bias": "in_bias",
    "self_attn.out_proj.weight": "out_weight",
    "self_attn.out_proj.bias": "out_bias",
    "fc1.weight": "up_weight",
    "fc1.bias": "up_bias",
    "fc2.weight": "down_weight",
    "fc2.bias": "down_bias",
    "layer_norms.0.weight": "attention_norm_weight",
    "layer_norms.0.bias": "attention_norm_bias",
    "layer_norms.1.weight": "feed_norm_weight",
    "layer_norms.1.bias": "feed_norm_bias",
}


class Place(NamedTuple):
    """Where some weights are stored: a parameter of ours, and the index of the part."""

    parameter: nn.Parameter
    part: tuple[int, ...] = ()

    @property
    def tensor(self) -> Tensor:
        """A view of the part, without gradient."""
        return self.parameter.detach()[self.part] if self.part else self.parameter.detach()


def published_places(net: DMDNet) -> dict[str, Place]:
    """Published name → place in a network of three modalities, in the order of the published file, buffers left out."""
    if len(net.modalities) != 3:
        raise InputError(
            f"The published layout has three modalities, and this network has {len(net.modalities)}: "
            f"{', '.join(net.modalities)}."
        )
    return dict(_places(net))


def _places(net: DMDNet) -> Iterator[tuple[str, Place]]:
    letter = dict(zip(net.modalities, LETTERS, strict=True))
    modality = {x: m for m, x in letter.items()}
    keys = {x: PREFIX + m for m, x in letter.items()}
    fused = net.fused
    # The order of a published state dict, in which the letters come as l, a, v in some groups and l, v, a in others.
    for x in ("l", "a", "v"):
        yield from _module(f"proj_{x}", fused.projection(modality[x]).convolution)
    for x in LETTERS:
        yield from _module(f"encoder_s_{x}", fused.private[keys[x]])
    yield from _module("encoder_c", fused.shared)
    for name, modules in (
        ("decoder", net.decoders),
        ("proj_cosine", net.cosine_projections),
        ("align_c", net.alignments),
    ):
        for x in LETTERS:
            if len(modules):
                yield from _module(f"{name}_{x}", modules[keys[x]])
    for member, x in enumerate(LETTERS):
        yield from _encoder(f"self_attentions_c_{x}", fused.common_encoders, member)
    yield from _head(net.common_head, "proj1_c", "proj2_c", "out_layer_c")
    pairs = {(letter[m], letter[other]): member for member, (m, other) in enumerate(fused.pairs)}
    for x in ("l", "a", "v"):
        for other in (y for y in ("l", "a", "v") if y != x):
            yield from _encoder(f"trans_{x}_with_{other}", fused.cross_encoders, pairs[x, other])
    for x in ("l", "a", "v"):
        yield from _encoder(f"trans_{x}_mem", fused.memory_encoders, LETTERS.index(x))
    for level, heads in (("low", net.homo_heads), ("high", net.hetero_heads)):
        for x in LETTERS:
            yield from _head(heads[keys[x]], *(f"{part}_{x}_{level}" for part in ("proj1", "proj2", "out_layer")))
    for x in LETTERS:
        yield from _module(f"weight_{x}", fused.gates[keys[x]])
    yield from _module("weight_c", fused.common_gate)
    yield from _head(fused.head, "proj1", "proj2", "out_layer")


def _module(name: str, module: nn.Module) -> Iterator[tuple[str, Place]]:
    for part, parameter in module.named_parameters():
        yield f"{name}.{part}", Place(parameter)


def _head(head: nn.Module, *names: str) -> Iterator[tuple[str, Place]]:
    for name, part in zip(names, ("first", "second", "last"), strict=True):
        yield from _module(name, head.get_submodule(part))


def _encoder(name: str, stack: EncoderStack, member: int) -> Iterator[tuple[str, Place]]:
    for number in range(stack.layers):
        for published, parameter in LAYER.items():
            yield f"{name}.layers.{number}.{published}", Place(getattr(stack, parameter), (number, member))
    for part in ("weight", "bias"):
        yield f"{name}.layer_norm.{part}", Place(getattr(stack, f"norm_{part}"), (member,))


def load_published(
    net: DMDNet, state: Mapping[str, Tensor], where: str = "the file", *, skip_text: bool = False
) -> None:
    """Load the weights of a published state dict, all of them or none.

    Args:
        net: has three modalities: those that the file calls l, v and a.
        state: published name → tensor.
        where: the file, for error messages.
        skip_text: ignore the text encoder of the file if this network has none.
    """
    places = published_places(net)
    text = {name: tensor for name, tensor in state.items() if name.startswith(TEXT)}
    weights = {name: tensor for name, tensor in state.items() if name not in text and not name.endswith(BUFFERS)}
    # The cosine projections are in no loss. A network may leave them out, and still load a file that has them.
    if not len(net.cosine_projections):
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("proj_cosine_")}
    problems = mismatches({name: place.tensor for name, place in places.items()}, weights)
    encoder = _text_encoder(net)
    encoder_tensors = {} if encoder is None else {f"{TEXT}model.{n}": p for n, p in encoder.state_dict().items()}
    if encoder_tensors:
        # Older versions of the package transformers saved this buffer, newer ones do not.
        problems += mismatches(encoder_tensors, {n: t for n, t in text.items() if not n.endswith("position_ids")})
    sentences = [
        f"The weights in {where} do not fit this network: {problem} Was the file saved from a network of these widths "
        "and lengths?"
        for problem in problems
    ]
    if text and encoder is None and not skip_text:
        sentences.append(
            f"{where} contains a text encoder ({len(text)} entries, such as {next(iter(text))}), and this network "
            "reads text features. Build it with a text encoder, or load the rest with skip_text=True."
        )
    if sentences:
        raise InputError(sentences)
    with torch.no_grad():
        for name, place in places.items():
            place.tensor.copy_(weights[name])
        for name, tensor in encoder_tensors.items():
            tensor.copy_(text[name])
    if isinstance(whole := net.fused.projection(net.modalities[0]).encoder, TextEncoder):
        whole.forget()


def _text_encoder(net: DMDNet) -> nn.Module | None:
    encoder = net.fused.projection(net.modalities[0]).encoder
    return None if encoder is None else encoder.get_submodule("model")


def read_published(path: Path | str) -> dict[str, Tensor]:
    """A published ``.pth`` file as name → tensor; a file that contains code is refused.

    Args:
        path: of the file.
    """
    return dict(read_weights(Path(path)))

"""Weights of DMD in the layout of the published code: which of its names holds which weights of ours, both ways.

Their three modalities are l, v and a: the first, second and third of ours. Their transformers are modules of their own,
ours are stacked, so one parameter of ours is read from many of theirs.
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
from xmodal.models.network import PREFIX

LETTERS = ("l", "v", "a")
BUFFERS = (".version", ".embed_positions._float_tensor")  # entries that hold no weights
TEXT = "text_model."
SHOWN = 6  # names in a sentence
LAYER = {  # their name inside a layer → our stacked parameter
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
    """Where weights are kept: a parameter of ours, and the part of it."""

    parameter: nn.Parameter
    part: tuple[int, ...] = ()

    @property
    def tensor(self) -> Tensor:
        """The part itself, a view."""
        return self.parameter.detach()[self.part] if self.part else self.parameter.detach()


def published_places(net: DMDNet) -> dict[str, Place]:
    """Published name → place in a network of three modalities, in the order of the published file, buffers left out."""
    if len(net.modalities) != 3:
        raise InputError(
            f"The published layout knows three modalities, and this network has {len(net.modalities)}: "
            f"{', '.join(net.modalities)}."
        )
    return dict(_places(net))


def _places(net: DMDNet) -> Iterator[tuple[str, Place]]:
    letter = dict(zip(net.modalities, LETTERS, strict=True))
    modality = {x: m for m, x in letter.items()}
    keys = {x: PREFIX + m for m, x in letter.items()}
    fused = net.fused
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
        for theirs, ours in LAYER.items():
            yield f"{name}.layers.{number}.{theirs}", Place(getattr(stack, ours), (number, member))
    for part in ("weight", "bias"):
        yield f"{name}.layer_norm.{part}", Place(getattr(stack, f"norm_{part}"), (member,))


def published_state(net: DMDNet) -> dict[str, Tensor]:
    """Our weights under their published names, without the buffers and without a text encoder."""
    return {name: place.tensor.clone() for name, place in published_places(net).items()}


def load_published(
    net: DMDNet, state: Mapping[str, Tensor], where: str = "the file", *, skip_text: bool = False
) -> None:
    """Take the weights of a published state dict.

    Args:
        net: of three modalities: what the file calls l, v and a.
        state: published name → tensor.
        where: the file, for the sentence.
        skip_text: leave out a text encoder that this network has no place for.
    """
    places = published_places(net)
    text = {name: value for name, value in state.items() if name.startswith(TEXT)}
    theirs = {n: value for n, value in state.items() if n not in text and not n.endswith(BUFFERS)}
    if not len(net.cosine_projections):  # a network without these parameters may read a file with them
        theirs = {name: value for name, value in theirs.items() if not name.startswith("proj_cosine_")}
    problems = [*_unlike({name: place.tensor for name, place in places.items()}, theirs, where)]
    encoder = _text_encoder(net)
    if text and encoder is None and not skip_text:
        problems.append(
            f"{where} holds a text encoder ({len(text)} entries, such as {next(iter(text))}), and this network reads "
            "text features. Build it with a text encoder, or load the rest with skip_text=True."
        )
    mine = {} if encoder is None else {f"{TEXT}model.{n}": p for n, p in encoder.state_dict().items()}
    if mine:
        problems += _unlike(mine, {n: v for n, v in text.items() if not n.endswith("position_ids")}, where)
    if problems:
        raise InputError(problems)
    with torch.no_grad():
        for name, place in places.items():
            place.tensor.copy_(theirs[name])
        for name, tensor in mine.items():
            tensor.copy_(text[name])


def _text_encoder(net: DMDNet) -> nn.Module | None:
    encoder = net.fused.projection(net.modalities[0]).encoder
    return None if encoder is None else encoder.get_submodule("model")


def _unlike(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], where: str) -> Iterator[str]:
    """One sentence for each way in which names and shapes differ."""
    missing = [name for name in mine if name not in theirs]
    unknown = [name for name in theirs if name not in mine]
    if missing:
        yield f"{where} lacks {len(missing)} of {len(mine)} entries: {_some(missing)}. Is it a file of this network?"
    if unknown:
        yield f"{where} has {len(unknown)} entries that this network has no place for: {_some(unknown)}."
    shapes = [
        f"{name} is {tuple(theirs[name].shape)}, expected {tuple(mine[name].shape)}"
        for name in mine
        if name in theirs and theirs[name].shape != mine[name].shape
    ]
    if shapes:
        yield (
            f"{where} was made for other widths or lengths: {_some(shapes, '; ')}. Build the network with the sizes of "
            "the file, and give it data of these sizes."
        )


def _some(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


def read_published(path: Path | str) -> dict[str, Tensor]:
    """A published ``.pth`` file as name → tensor; nothing in it is executed.

    Args:
        path: of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of a .pth file with the weights of DMD.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of torch raises many kinds, all of them about this file
        raise InputError(
            f"{path} cannot be read as weights alone ({str(error).splitlines()[0]}). A state dict saved by torch.save "
            "was expected; anything else in a .pth file could run code and is refused."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds {type(state).__name__}, not a dictionary of tensors as a state dict is.")
    return dict(state)

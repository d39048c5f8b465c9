"""The files of NTDH's MNIST code, written and read: two jointly trained networks and the ranking of a teacher.

    results/
    ├── teacher_mod_1_overlap.pkl, student_mod_0_overlap.pkl   tensors of three linear layers, weight before bias
    └── overlap_tag_teacher_place1_repeat10.npy                float64 (channels,) from 0 to 1

Modality 0 is MNIST-M, 1 is MNIST. The files of networks may also lack their suffix. Of their tensors the order counts
and not the names, which are not known to us: layer 1, layer 2, layer 3. Their shapes all differ, so an exchange is an
error. Files are read with ``weights_only=True``, as tensors and nothing else.

A run of `ntdh-mnist --published-files` has these files in each folder ``seed-N``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.methods.joint import STUDENT, TEACHER
from xmodal.methods.ntdh import joint_stage, ranking_options
from xmodal.methods.ranking import name_of_ranking, unranked
from xmodal.models.network import PREFIX
from xmodal.models.resnet import read_weights
from xmodal.recipes.ntdh_synthetic.mnist_settings import MnistSettings
from xmodal.study.bench import Bench, Earlier
from xmodal.study.ranking_file import read_array

MODALITIES = ("mnist_m", "mnist")  # by the authors' number
REPEAT = 10  # the authors' default: their name of the ranking has the number of permutations in it
LAYERS, KINDS = ("layer1", "layer2", "layer3"), ("weight", "bias")


def weights_name(side: str, modality: str) -> str:
    """Name of the authors' file with a network, without suffix.

    Example:
        >>> weights_name("teacher", "mnist")
        'teacher_mod_1_overlap'
    """
    return f"{side}_mod_{MODALITIES.index(modality)}_overlap"


def tag_name(place: int, repeat: int | str = REPEAT) -> str:
    """Name of the authors' file with a ranking.

    Example:
        >>> tag_name(1)
        'overlap_tag_teacher_place1_repeat10.npy'
    """
    return f"overlap_tag_teacher_place{place}_repeat{repeat}.npy"


# ---- reading


def read_earlier(settings: MnistSettings, seed: int) -> Earlier:
    """Networks, and with ``saliency`` the ranking, that the settings name. Only what is used must be there.

    Args:
        settings: of the recipe; ``networks`` or ``saliency`` is a folder.
        seed: whose folder is read from a run; a run with a single seed serves every seed.
    """
    named = settings.saliency or settings.networks
    assert named is not None, "one of the two folders is named"
    folder = _folder_of_seed(named, seed)
    masks, ranked = settings.masks(), settings.saliency is not None
    name = name_of_ranking(layer=masks.layer, **ranking_options(masks))
    # a ranking compares the teacher with the student; without one, only the teacher is used
    sides = {TEACHER: settings.teacher[0]} | ({} if ranked else {STUDENT: settings.student[0]})
    files = {side: _weights_file(folder, side, modality) for side, modality in sides.items()}
    tags = sorted(folder.glob(tag_name(settings.place, "*"))) if ranked else []
    problems = [f"{path} is missing." for path in files.values() if not path.is_file()]
    if ranked and settings.ranks and not tags:
        problems.append(f"{folder / tag_name(settings.place)} is missing.")
    if len(tags) > 1:
        problems.append(f"{folder} has several rankings: {', '.join(tag.name for tag in tags)}. Leave one there.")
    if problems:
        raise InputError(
            [f"{problem} `xmodal run ntdh-mnist --published-files --until saliency` writes it." for problem in problems]
            if len(tags) < 2
            else problems
        )
    weights = {side: read_network(path, sides[side], settings) for side, path in files.items()}
    measured = {}
    if ranked:
        count = _channels(weights[TEACHER], settings.place)
        if tags:
            saliency = read_array(tags[0], masks.layer, distance=masks.agreement, disturb=masks.disturb)
            if len(saliency.value) != count:
                raise InputError(
                    f"{tags[0]} holds {len(saliency.value)} numbers, and the teacher has {count} channels at place "
                    f"{settings.place}: one number for each was expected."
                )
            measured[name] = saliency
        else:
            measured[name] = unranked(count, masks.layer)
    return Earlier({joint_stage(masks): weights}, measured, str(folder))


def _folder_of_seed(folder: Path, seed: int) -> Path:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Expected: a run of ntdh-mnist, or the authors' results folder.")
    seeds = sorted(path for path in folder.glob("seed-*") if path.is_dir())
    if not seeds:
        return folder
    if len(seeds) > 1 and folder / f"seed-{seed}" not in seeds:
        listed = ", ".join(path.name.removeprefix("seed-") for path in seeds)
        raise InputError(f"{folder} has the seeds {listed}, and not {seed}. Give some of these seeds, or another run.")
    return folder / f"seed-{seed}" if folder / f"seed-{seed}" in seeds else seeds[0]


def _weights_file(folder: Path, side: str, modality: str) -> Path:
    stem = folder / weights_name(side, modality)
    return stem if stem.is_file() else stem.with_name(f"{stem.name}.pkl")


def read_network(path: Path, modality: str, settings: MnistSettings) -> dict[str, Tensor]:
    """The weights in a file of the authors by our names."""
    tensors = list(read_weights(path).values())
    expected = [f"{layer} {kind}" for layer in LAYERS for kind in KINDS]
    if len(tensors) != len(expected) or any(tensor.ndim != 2 - place % 2 for place, tensor in enumerate(tensors)):
        raise InputError(
            f"{path} holds {len(tensors)} tensors of the shapes {', '.join(str(tuple(t.shape)) for t in tensors[:8])}: "
            f"six were expected, {', '.join(expected)}."
        )
    return dict(zip(_our_names(modality, published=settings.as_published), tensors, strict=True))


def _our_names(modality: str, *, published: bool) -> list[str]:
    body = f"encoders.{PREFIX}{modality}.body"
    # with an activation behind it, the head is the first of two modules
    layers = (f"{body}.layer1", f"{body}.layer2", "head.0" if published else "head")
    return [f"{layer}.{kind}" for layer in layers for kind in KINDS]


def _channels(weights: dict[str, Tensor], place: int) -> int:
    """The number of channels at a place, from the weights: the pixels, or the outputs of a layer."""
    matrices = [tensor for tensor in weights.values() if tensor.ndim == 2]
    return matrices[0].shape[1] if place == 0 else matrices[place - 1].shape[0]


# ---- writing


def write_published(bench: Bench, settings: MnistSettings) -> None:
    """Write the networks that this run has trained jointly, and the ranking that it has measured."""
    assert bench.folder is not None, "the caller has checked that files are written"
    masks = settings.masks()
    stage = bench.stages.get(joint_stage(masks))
    for side, student in (stage.students if stage else {}).items():
        write_network(bench.folder, side, student.modalities[0], student.module)
    saliency = bench.measured.get(name_of_ranking(layer=masks.layer, **ranking_options(masks)))
    if saliency is not None and saliency.form not in ("read", "none"):
        with written_whole(bench.folder / tag_name(settings.place)) as path:
            np.save(path, saliency.value.astype(np.float64))


def write_network(folder: Path, side: str, modality: str, module: nn.Module) -> Path:
    """Write a network in the authors' order; the names of its layers are ours."""
    state = module.state_dict()
    published = "head.0.weight" in state
    names = [f"{layer}.{kind}" for layer in LAYERS for kind in KINDS]
    path = folder / f"{weights_name(side, modality)}.pkl"
    with written_whole(path) as file:
        ours = _our_names(modality, published=published)
        torch.save({name: state[our].detach().cpu() for name, our in zip(names, ours, strict=True)}, file)
    return path

"""The files of a joint training and its ranking: ours and those of the authors' code, written and read.

    RUN/seed-0/
    ├── teacher.safetensors, student.safetensors        weights after the last epoch
    ├── saliency.npz                                    all values of the ranking
    ├── overlap_tag_teacher_place5_repeat10.npy         float64 (channels,) from 0 to 1, as the authors' code writes it
    └── teacher_mod_1_overlap.pkl, student_mod_0_overlap.pkl   optional: tensors by the authors' names

Modality 0 is the image, 1 the audio. Files that end in .pkl are read with ``weights_only=True``, as tensors and nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xmodal.diagnostics.saliency import Saliency
from xmodal.errors import InputError
from xmodal.files import read_json, written_whole
from xmodal.methods.joint import STUDENT, TEACHER
from xmodal.methods.mfh import JOINT
from xmodal.methods.ranking import name_of_ranking
from xmodal.models.student_file import tensors_of
from xmodal.recipes.ravdess.settings import MODALITIES, RavdessSettings
from xmodal.study.bench import Earlier
from xmodal.study.ranking_file import SALIENCY, read_ranking

AUTHORS = {"head": "fc3"}  # our name of a layer → theirs, if they differ
# Settings that decide the shapes of the networks and the rows they were trained on.
SAME = ("teacher", "student", "teacher_width", "student_width", "hidden", "channels", "train_fraction")


def tag_file(place: int, permutations: int | str) -> str:
    """Name of the authors' file with a ranking.

    Example:
        >>> tag_file(5, 10)
        'overlap_tag_teacher_place5_repeat10.npy'
    """
    return f"overlap_tag_teacher_place{place}_repeat{permutations}.npy"


def weights_file(side: str, modality: str) -> str:
    """Name of the authors' file with the weights of a network.

    Example:
        >>> weights_file("teacher", "audio")
        'teacher_mod_1_overlap.pkl'
    """
    return f"{side}_mod_{MODALITIES.index(modality)}_overlap.pkl"


def write_tag(folder: Path, saliency: Saliency, settings: RavdessSettings) -> None:
    """Write a ranking as the authors' code does."""
    with written_whole(folder / tag_file(settings.place, settings.permutations)) as file:
        np.save(file, saliency.value.astype(np.float64))


def write_weights(folder: Path, side: str, modality: str, module: nn.Module) -> Path:
    """Write the weights of a network under the authors' names."""
    path = folder / weights_file(side, modality)
    content = {_authors_name(name): tensor for name, tensor in tensors_of(module).items()}
    with written_whole(path) as file:
        torch.save(content, file)
    return path


def _authors_name(name: str) -> str:
    """``encoders.from_audio.fc2.weight`` → ``fc2.weight``; ``head.bias`` → ``fc3.bias``."""
    layer, _, kind = name.rpartition(".")
    layer = layer.rpartition(".")[2]
    return f"{AUTHORS.get(layer, layer)}.{kind}"


def read_weights(path: Path, modality: str) -> dict[str, Tensor]:
    """The weights in a file of the authors, under the names of our network."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises errors of many classes for files of another kind, among them plain RuntimeError
    except Exception as error:
        raise InputError(
            f"{path} can't be read as tensors by name ({type(error).__name__}): a state dict of the authors' code was "
            "expected. Give their results folder, or train the networks here."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"{path} holds a {type(content).__name__}: a state dict of the authors' code, tensors by name, was "
            "expected. Give their results folder, or train the networks here."
        )
    our_names = {authors_name: layer for layer, authors_name in AUTHORS.items()}
    weights = {}
    for name, tensor in content.items():
        layer, _, kind = str(name).rpartition(".")
        module = our_names.get(layer, f"encoders.from_{modality}.{layer}")
        weights[f"{module}.{kind}"] = tensor
    return weights


def earlier_seed(run: Path, seed: int, settings: RavdessSettings, *, ranked: bool = True) -> Earlier:
    """Networks and ranking of one seed, from a run of ravdess-saliency or from the authors' results folder.

    A run with a single seed serves every seed: one pair of networks for all, as in the authors' code.

    Args:
        run: its folder.
        seed: of the present run.
        settings: of the present run; its networks must be the same.
        ranked: whether the authors' folder must contain a ranking as well.
    """
    if not (run / "settings.json").is_file():
        return _from_authors(run, settings, ranked)
    content = read_json(run / "settings.json")
    if content.get("recipe") != "ravdess-saliency":
        raise InputError(
            f"{run} is a run of '{content.get('recipe')}': a run of ravdess-saliency was expected. Give the folder of "
            "one, or leave the flag out to train and rank here."
        )
    before, now = content["settings"], settings.model_dump(mode="json")
    data = [(each.get("options", {}).get("ravdess", {}), each.get("as_published")) for each in (before, now)]
    problems = [
        f"{name} was {before.get(name)!r} and is now {now[name]!r}" for name in SAME if before.get(name) != now[name]
    ]
    # networks of other data may have seen clips in training that are test clips now
    problems += ["the data was different"] if data[0] != data[1] else []
    if problems:
        raise InputError(
            f"The networks in {run} do not fit this run: {'; '.join(problems)}. Give the same settings, or another run."
        )
    if seed not in before["seeds"] and len(before["seeds"]) > 1:
        listed = ", ".join(map(str, before["seeds"]))
        raise InputError(
            f"{run} has the seeds {listed}, and not {seed}. Give some of these seeds, or a run with a single one."
        )
    folder = run / f"seed-{seed if seed in before['seeds'] else before['seeds'][0]}"
    if not (folder / SALIENCY).is_file():
        raise InputError(f"{folder} has no {SALIENCY}: that run was not finished. Continue it with --resume.")
    name, saliency = read_ranking(folder / SALIENCY)
    try:
        weights = {side: load_file(folder / f"{side}.safetensors") for side in (TEACHER, STUDENT)}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The weights in {folder} are missing or damaged ({error}). Run ravdess-saliency again, or name another "
            "run."
        ) from error
    return Earlier({JOINT: weights}, {name: saliency}, str(folder))


def _from_authors(folder: Path, settings: RavdessSettings, ranked: bool) -> Earlier:
    """Networks and ranking from the files of the authors' code."""
    modalities = {TEACHER: settings.teacher[0], STUDENT: settings.student[0]}
    paths = {side: folder / weights_file(side, modality) for side, modality in modalities.items()}
    tag = folder / tag_file(settings.place, settings.permutations)
    needed = (*paths.values(), tag) if ranked else tuple(paths.values())
    missing = [path.name for path in needed if not path.is_file()]
    if missing:
        raise InputError(
            f"{folder} is no run of ravdess-saliency, and the authors' files {', '.join(missing)} are not in it. Train "
            "both networks first: xmodal run ravdess-saliency, or --first-time --cal-tag."
        )
    weights = {side: read_weights(path, modalities[side]) for side, path in paths.items()}
    if not ranked:
        return Earlier({JOINT: weights}, {}, str(folder))
    try:
        value = np.load(tag, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{tag} can't be read as a NumPy array ({error}). Write it again with --cal-tag, or leave the flag out."
        ) from error
    if value.ndim != 1 or not np.isfinite(value).all():
        raise InputError(
            f"{tag} has the shape {value.shape}: finite numbers (channels,) were expected. Write it again with "
            "--cal-tag."
        )
    name = name_of_ranking(
        JOINT, settings.layer, distance=settings.distance, disturb="permute", permutations=settings.permutations
    )
    # their file has the normalised saliency alone, which is all that a mask needs; the rest is unknown
    unknown = np.full(len(value), np.nan)
    saliency = Saliency(
        place=settings.layer,
        side=TEACHER,
        distance=settings.distance,
        disturb="permute",
        population="batch",
        raw=unknown,
        value=value.astype(np.float64),
        baseline=float("nan"),
        deviation=unknown,
        standard_error=unknown,
        draws=None,
        exact=False,
        form="read",
        rows=0,
        note=f"The ranking was read from {tag.name}.",
    )
    return Earlier({JOINT: weights}, {name: saliency}, str(folder))

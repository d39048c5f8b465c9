"""The files of a joint training and its ranking: ours, those that the authors' code leaves, and reading both back.

    RUN/seed-0/
    ├── teacher.safetensors, student.safetensors        weights after the last epoch
    ├── saliency.npz                                    all numbers of the ranking
    ├── overlap_tag_teacher_place5_repeat10.npy         float64 (channels,) from 0 to 1, as the authors' code writes it
    └── teacher_mod_1_overlap.pkl, student_mod_0_overlap.pkl   on request: tensors by the authors' names

Modality 0 is the picture, 1 the sound. What ends in .pkl is read with ``weights_only=True``: tensors, and nothing else.
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

AUTHORS = {"head": "fc3"}  # our name of a layer → theirs, where it is another one
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


def write_tag(folder: Path, found: Saliency, settings: RavdessSettings) -> None:
    """Write a ranking as the authors' code does."""
    with written_whole(folder / tag_file(settings.place, settings.permutations)) as beside:
        np.save(beside, found.value.astype(np.float64))


def write_weights(folder: Path, side: str, modality: str, module: nn.Module) -> Path:
    """The weights of a network under the authors' names."""
    path = folder / weights_file(side, modality)
    content = {_theirs(name): tensor for name, tensor in tensors_of(module).items()}
    with written_whole(path) as beside:
        torch.save(content, beside)
    return path


def _theirs(name: str) -> str:
    """``encoders.from_audio.fc2.weight`` → ``fc2.weight``; ``head.bias`` → ``fc3.bias``."""
    layer, _, kind = name.rpartition(".")
    layer = layer.rpartition(".")[2]
    return f"{AUTHORS.get(layer, layer)}.{kind}"


def read_weights(path: Path, modality: str) -> dict[str, Tensor]:
    """A file of the authors as weights of our network, whose names they get."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what it likes about files that are none
        raise InputError(f"{path} can't be read as tensors by their names ({type(error).__name__}).") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds a {type(content).__name__}: tensors by their names were expected.")
    ours = {theirs: layer for layer, theirs in AUTHORS.items()}
    found = {}
    for name, tensor in content.items():
        layer, _, kind = str(name).rpartition(".")
        inside = ours.get(layer, f"encoders.from_{modality}.{layer}")
        found[f"{inside}.{kind}"] = tensor
    return found


def earlier_seed(run: Path, seed: int, settings: RavdessSettings, *, ranked: bool = True) -> Earlier:
    """What a run of ravdess-saliency, or the authors' results folder, holds for a seed.

    A run with a single seed serves every one: one pair of networks, as in the authors' code.

    Args:
        run: its folder.
        seed: of the run that asks.
        settings: of the run that asks; its networks must be the same.
        ranked: whether the authors' folder has to hold a ranking too.
    """
    if not (run / "settings.json").is_file():
        return _authors(run, settings, ranked)
    known = read_json(run / "settings.json")
    if known.get("recipe") != "ravdess-saliency":
        raise InputError(f"{run} is a run of '{known.get('recipe')}': one of ravdess-saliency was expected.")
    before, now = known["settings"], settings.model_dump(mode="json")
    data = [(one.get("options", {}).get("ravdess", {}), one.get("as_published")) for one in (before, now)]
    problems = [
        f"{name} was {before.get(name)!r} and is now {now[name]!r}" for name in SAME if before.get(name) != now[name]
    ]
    problems += ["the data were others"] if data[0] != data[1] else []
    if problems:
        raise InputError(f"The networks in {run} are not those of this run: {'; '.join(problems)}. Give the same.")
    if seed not in before["seeds"] and len(before["seeds"]) > 1:
        listed = ", ".join(map(str, before["seeds"]))
        raise InputError(f"{run} has the seeds {listed}, and not {seed}. Give some of these, or a run with one seed.")
    folder = run / f"seed-{seed if seed in before['seeds'] else before['seeds'][0]}"
    if not (folder / SALIENCY).is_file():
        raise InputError(f"{folder} has no {SALIENCY}: that run was not finished. Go on with it by --resume.")
    name, found = read_ranking(folder / SALIENCY)
    try:
        weights = {side: load_file(folder / f"{side}.safetensors") for side in (TEACHER, STUDENT)}
    except (SafetensorError, OSError) as error:
        raise InputError(f"The weights in {folder} are missing or damaged ({error}).") from error
    return Earlier({JOINT: weights}, {name: found}, str(folder))


def _authors(folder: Path, settings: RavdessSettings, ranked: bool) -> Earlier:
    """Weights and ranking that the authors' code left."""
    teacher, student = settings.teacher[0], settings.student[0]
    paths = {TEACHER: folder / weights_file(TEACHER, teacher), STUDENT: folder / weights_file(STUDENT, student)}
    tag = folder / tag_file(settings.place, settings.permutations)
    wanted = (*paths.values(), tag) if ranked else tuple(paths.values())
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise InputError(
            f"{folder} is no run of ravdess-saliency, and the authors' files {', '.join(missing)} are not in it. Train "
            "both networks first: xmodal run ravdess-saliency, or --first-time --cal-tag."
        )
    modalities = {TEACHER: teacher, STUDENT: student}
    weights = {side: read_weights(path, modalities[side]) for side, path in paths.items()}
    if not ranked:
        return Earlier({JOINT: weights}, {}, str(folder))
    try:
        value = np.load(tag, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{tag} is no NumPy array that can be read ({error}).") from error
    if value.ndim != 1 or not np.isfinite(value).all():
        raise InputError(f"{tag} has the shape {value.shape}: finite numbers (channels,) were expected.")
    name = name_of_ranking(
        JOINT, settings.layer, distance=settings.distance, disturb="permute", permutations=settings.permutations
    )
    unknown = np.full(len(value), np.nan)
    found = Saliency(
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
    return Earlier({JOINT: weights}, {name: found}, str(folder))

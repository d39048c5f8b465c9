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

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from xmodal.methods.mfh import JOINT, ORDINARY
from xmodal.methods.ranking import name_of_ranking, unranked
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
    """The weights in a file of the authors, or in one of ours, under the names of our network."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} can't be read as weights ({error}). Is the copy complete?") from error
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
        # a network that was trained on several GPUs has a prefix
        layer, _, kind = str(name).removeprefix("module.").rpartition(".")
        module = our_names.get(layer, f"encoders.from_{modality}.{layer}")
        weights[f"{module}.{kind}"] = tensor
    return weights


def earlier_seed(run: Path, seed: int, settings: RavdessSettings) -> Earlier:
    """Both networks of one seed, from a run of ravdess-saliency, with their ranking, or from the authors' folder.

    A run with a single seed serves every seed: one pair of networks for all, as in the authors' code.

    Args:
        run: its folder.
        seed: of the present run.
        settings: of the present run; its networks must be the same.
    """
    if not (run / "settings.json").is_file():
        return _networks_of_authors(run, settings)
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


def earlier_teacher(settings: RavdessSettings, folder: Path | None, weights: Path | None, *, ranked: bool) -> Earlier:
    """A teacher that no joint training of this library has made, and the ranking of its channels.

    Only what is used is required: the ranking where a mode needs it, and never the student.

    Args:
        settings: of the present run.
        folder: the authors' results folder; None: the teacher's channels are ranked here.
        weights: file with the teacher; None: the authors' file in the folder.
        ranked: whether a mode of this run needs the ranking.
    """
    if folder is not None and (folder / "settings.json").is_file():
        raise InputError(
            f"The ranking in {folder} is about the teacher of that run, and --teacher-weights names another. Leave "
            "--saliency out, so that this teacher's channels are ranked, or leave --teacher-weights out."
        )
    modality = settings.teacher[0]
    path = weights or (folder or Path()) / weights_file(TEACHER, modality)
    tag = None if folder is None else folder / tag_file(settings.place, settings.permutations)
    needed = [path, *([tag] if tag is not None and ranked else [])]
    _require(needed, folder)
    tensors = read_weights(path, modality)
    given = Earlier({TEACHER: {modality: tensors}}, where=str(path))
    if tag is not None and tag.is_file():
        return replace(given, measured={_name(ORDINARY, settings): read_tag(tag, settings)})
    if ranked:
        return given
    return replace(given, measured={_name(ORDINARY, settings): unranked(_channels(tensors, settings), settings.layer)})


def _networks_of_authors(folder: Path, settings: RavdessSettings) -> Earlier:
    """Both networks of the authors' joint training, to rank them."""
    modalities = {TEACHER: settings.teacher[0], STUDENT: settings.student[0]}
    paths = {side: folder / weights_file(side, modality) for side, modality in modalities.items()}
    _require(list(paths.values()), folder)
    weights = {side: read_weights(path, modalities[side]) for side, path in paths.items()}
    return Earlier({JOINT: weights}, where=str(folder))


def _require(paths: Sequence[Path], folder: Path | None) -> None:
    """Raise an error that names the files which are missing."""
    missing = [str(path) for path in paths if not path.is_file()]
    if not missing:
        return
    is_none = "" if folder is None else f"{folder} is no run of ravdess-saliency, and "
    are = "is" if len(missing) == 1 else "are"
    raise InputError(
        f"{is_none}{', '.join(missing)} {are} missing. Put {'it' if are == 'is' else 'them'} there, or train and rank "
        "first: xmodal run ravdess-saliency, or --first-time --cal-tag."
    )


def _name(networks: str, settings: RavdessSettings) -> str:
    """The name under which a bench keeps the ranking of these settings."""
    return name_of_ranking(
        networks, settings.layer, distance=settings.distance, disturb="permute", permutations=settings.permutations
    )


def _channels(tensors: Mapping[str, Tensor], settings: RavdessSettings) -> int:
    """The number of channels at the place of the settings, from the weights in front of it."""
    layers = ("conv1", "conv1", "conv2", "conv3", "fc1", "fc2", "head")  # place 0 is the input of the first
    ending = f"{layers[settings.place]}.weight"
    shapes = [tensor.shape for name, tensor in tensors.items() if name == ending or name.endswith(f".{ending}")]
    # a file without this layer is refused when its weights are loaded
    return int(shapes[0][0 if settings.place else 1]) if shapes else 1


def read_tag(tag: Path, settings: RavdessSettings) -> Saliency:
    """The ranking in the authors' file, which holds the normalised saliency alone: all that a mask needs."""
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
    unknown = np.full(len(value), np.nan)
    return Saliency(
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

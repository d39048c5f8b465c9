"""The files of the authors' VGGSound code, read and written: two kinds of checkpoints and the saliency.

    audio_{epoch}_{accuracy}.pt   state dict of the sound network, see `xmodal.models.clips.authors_weights`
    video_{epoch}_{accuracy}.pt   state dict of the video network
    audio_permute.npy             (channels,) distance of the outputs without each pooled channel, summed over batches

Checkpoints are read with ``weights_only=True``, as tensors and nothing else.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xmodal.diagnostics.saliency import Saliency
from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.models.clips.authors_weights import authors_state, read_authors
from xmodal.models.student_file import tensors_of
from xmodal.recipes.vggsound.settings import PLACE, VggsoundSettings
from xmodal.study.bench import CONTROL, Earlier
from xmodal.study.plan import TEACHER
from xmodal.study.ranking_file import read_array
from xmodal.types import Student

SALIENCY_FILE = "audio_permute.npy"


def read_given(settings: VggsoundSettings, name: str) -> Earlier:
    """Networks and ranking of the files that the settings name; all problems are reported together.

    Args:
        settings: of the recipe.
        name: of the ranking.
    """
    files = {
        TEACHER: (settings.teacher_weights, settings.teacher[0]),
        CONTROL: (settings.video_weights, settings.student[0]),
    }
    weights: dict[str, dict[str, dict[str, Tensor]]] = {}
    measured: dict[str, Saliency] = {}
    problems: list[str] = []
    for stage, (path, modality) in files.items():
        if path is not None:
            try:
                weights[stage] = {modality: read_authors(path, modality)}
            except InputError as error:
                problems += error.problems
    if settings.saliency is not None:
        try:
            # sums over batches, whose number the file does not tell
            measured[name] = read_array(settings.saliency, PLACE, distance=settings.distance, disturb="permute")
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    where = " and ".join(str(path) for path, _ in files.values() if path is not None)
    return Earlier(weights, measured, where)


def write_saliency(folder: Path, saliency: Saliency, *, within: int | None) -> None:
    """Write a ranking as the authors' code does, which adds up the batches and does not divide by their number.

    Args:
        folder: to write to.
        saliency: of the teacher's channels.
        within: size of the batches within which channels were permuted; None: all clips at once.
    """
    batches = 1 if within is None else math.ceil(saliency.rows / within)
    with written_whole(folder / SALIENCY_FILE) as path:
        np.save(path, batches * saliency.raw)


def write_network(folder: Path, student: Student, *, epoch: int, accuracy: float) -> Path:
    """Write the weights of a network under the authors' names.

    Args:
        folder: to write to.
        student: reads one modality.
        epoch: of the weights, from 0.
        accuracy: of the epoch, on the clips that choose it.
    """
    (modality,) = student.modalities
    path = folder / f"{modality}_{epoch}_{round(accuracy, 4)}.pt"
    with written_whole(path) as file:
        torch.save(authors_state(tensors_of(student.module), modality), file)
    return path

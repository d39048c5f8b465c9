"""The encoders of DisCoM-KD: by the name of a modality as in the authors' code, by the shape of samples, or given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xmodal.errors import InputError, did_you_mean
from xmodal.models import ENCODERS

if TYPE_CHECKING:
    from xmodal.types import DataInfo

# names of modalities in the authors' code, whose encoders do not depend on the size of the pictures; it has no others
BY_NAME = {
    **dict.fromkeys(("RGB", "DEPTH", "MS", "SAR", "SPECTRO", "THERMAL"), "resnet18"),
    "MNIST": "lenet",
}
PUBLISHED, BY_SHAPE = "published", "auto"


def chosen_encoders(setting: str, modalities: Sequence[str], info: DataInfo) -> dict[str, str]:
    """Modality → name of its encoder, ``auto`` where the shape of its samples decides.

    Args:
        setting: ``published``, ``auto``, a name for all, or ``RGB=resnet18,DEPTH=lenet``.
        modalities: that train together.
        info: of the data.
    """
    given = _given(setting, modalities)
    if setting == PUBLISHED or given:
        return {**dict.fromkeys(modalities, BY_SHAPE), **named_encoders(modalities, info), **given}
    return dict.fromkeys(modalities, setting)


def named_encoders(modalities: Sequence[str], info: DataInfo) -> dict[str, str]:
    """Modality → encoder, for the names that the authors' code knows; these encoders read pictures."""
    pictures = [name for name in modalities if info.inputs[name].layout == "image"]
    return {name: BY_NAME[name.upper()] for name in pictures if name.upper() in BY_NAME}


def note_on_encoders(setting: str, modalities: Sequence[str], info: DataInfo) -> list[str]:
    """One sentence about the encoders that names have chosen; none if they have chosen none."""
    given = _given(setting, modalities)
    if setting != PUBLISHED and not given:
        return []
    named = [f"{name} {kind}" for name, kind in named_encoders(modalities, info).items() if name not in given]
    if not named:
        return []
    return [
        f"Encoders by the names of the modalities, as in the authors' code: {', '.join(named)}. "
        "--encoder auto chooses by the shape of the samples."
    ]


def unknown_encoders(setting: str) -> list[str]:
    """One sentence for every encoder in the setting that does not exist; known before any data is opened."""
    known = [PUBLISHED, BY_SHAPE, *ENCODERS]
    kinds = [part.strip().rpartition("=")[2] for part in setting.split(",")] if "=" in setting else [setting]
    return [
        f"--encoder: there is no encoder called '{kind}'. {did_you_mean(kind, known)}"
        for kind in kinds
        if kind not in known
    ]


def _given(setting: str, modalities: Sequence[str]) -> dict[str, str]:
    """The encoders of ``RGB=resnet18,DEPTH=lenet``; empty for a single word."""
    if "=" not in setting:
        return {}
    parts = [part.strip().partition("=") for part in setting.split(",")]
    problems = [
        f"--encoder {setting}: '{name}{sign}{kind}' is not MODALITY=NAME. Example: RGB=resnet18,DEPTH=lenet."
        for name, sign, kind in parts
        if not (name and kind)
    ]
    names = [name for name, _, kind in parts if name and kind]
    problems += [
        f"--encoder names the modality '{name}', which does not train here. {did_you_mean(name, modalities)}"
        for name in names
        if name not in modalities
    ]
    problems += [
        f"--encoder names '{name}' twice. Give it one encoder." for name in set(names) if names.count(name) > 1
    ]
    if problems:
        raise InputError(problems)
    return {name: kind for name, _, kind in parts}

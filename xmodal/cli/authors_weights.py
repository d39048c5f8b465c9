"""A file with weights of the authors' code in place of a run folder: `xmodal evaluate FILE.pth DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cards import load
from xmodal.cli.students import SavedStudent
from xmodal.errors import InputError
from xmodal.recipes import RECIPES, weights_of

if TYPE_CHECKING:
    from xmodal.types import DataInfo, Student

SUFFIXES = (".pth", ".pt", ".tar")


def is_weights(path: Path) -> bool:
    """Whether a path names a file of torch.save, by its ending; it need not exist."""
    return path.suffix in SUFFIXES and not path.is_dir()


def open_weights(path: Path, network: str, data: str, info: DataInfo) -> tuple[SavedStudent, Student, dict[str, Any]]:
    """The network of a file as a student for some data, and its description.

    Args:
        path: of the file.
        network: its name; which names there are depends on the data set.
        data: name of the data set.
        info: of the data.
    """
    from xmodal.models.description import describe

    card = weights_of(data)
    if card is None:
        names = (getattr(load(card.settings), "DATA_SET", "") for card in RECIPES.values() if card.weights)
        raise InputError(
            f"{path}: weights of an authors' code are scored on {' or '.join(names)}, and '{data}' was given. Give one "
            "of these with the options of its files, such as --nyu.root."
        )
    student = load(card.weights)(path, network, info)
    student.module.eval()
    return SavedStudent(path, path.name, "", network or "+".join(student.needs), None), student, describe(student, info)

"""The layout of a folder with own data: which file holds what.

my_data/
├── audio.npy            (n, …)  one array per modality,
├── image_data_normalized.npy    … or an array that is not normalised any further,
├── depth/                       … or a folder with one .npy per sample, in the order of their names
├── audio_rows.npy       (k,)    optional: audio.npy holds k samples, and these are their numbers; the others lack it
├── audio.lengths.npy    (n,)    optional auxiliary input of a modality, here the number of its steps without padding
├── labels.npy           (n,)    or <modality>_labels.npy for unpaired data; (n, H, W): a class for every pixel
├── groups.npy           (n,)    optional: the person, speaker or drive of each sample
├── ids.npy              (n,)    optional: a name for each sample, by which tables of other tools are matched
├── train_idx.npy  valid_idx.npy  test_idx.npy      or <modality>_train_idx.npy for unpaired data
└── data.json            optional, see `DataFile`

Index files may be numbered, one set per draw of the splits: train_idx_0.npy, valid_idx_0.npy, test_idx_0.npy, …
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from xmodal.data.columns import sample_files
from xmodal.data.options import valid_part
from xmodal.data.report import Report
from xmodal.errors import did_you_mean, listed
from xmodal.names import SPLITS, UNLABELLED

TREE = (
    "Expected: <modality>.npy, <modality>_data_normalized.npy or a folder <modality> with one .npy per sample; "
    "labels.npy; train_idx.npy, valid_idx.npy and test_idx.npy (all three or none); unpaired data has "
    "<modality>_labels.npy and <modality>_train_idx.npy instead."
)
# the ending of a modality's file in the format of DisCoM-KD
NORMALISED = "_data_normalized"
# DisCoM-KD writes its students into folders of this name next to the data: they are not modalities
PUBLISHED = "OUR-DisCoM-KD_"
NUMBER = r"(_\d+)?"
GROUPS, IDS = "groups.npy", "ids.npy"


class DataFile(BaseModel):
    """Keys of the optional ``data.json``.

    Attributes:
        version: version of the format, written as ``schema``.
        name: title of the data set.
        modalities: arrays to use, in this order; empty: all in the folder.
        task: kind of target; empty: taken from the labels.
        class_names: one name per class or label.
        paired: whether row i of every modality is the same sample; absent: yes, unless a modality has labels or index
            files of its own.
        normalise: modality → ``standard`` (the default for <modality>.npy and folders) or ``none``.
        layout: modality → ``vector``, ``sequence``, ``image`` or ``other``, where the shape of a sample leaves it open.
        ignore: label that neither losses nor metrics count, such as 255 for unlabelled pixels.
        label_losses: terms of the loss on labels → their weights, see `DataInfo`; empty: the default of the task.
        class_weights: weight of each class in that loss; empty: all 1.
        unlabelled_label: integer in place of the label of a row without one; None: no integer, only NaN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    version: Literal[1] = Field(default=1, alias="schema")
    name: str = ""
    modalities: tuple[str, ...] = ()
    task: Literal["", "multiclass", "binary", "multilabel", "regression"] = ""
    class_names: tuple[str, ...] = ()
    paired: bool | None = None
    normalise: dict[str, Literal["standard", "none"]] = {}
    layout: dict[str, Literal["vector", "sequence", "image", "other"]] = {}
    ignore: int | None = None
    label_losses: dict[str, float] = {}
    class_weights: tuple[float, ...] = ()
    unlabelled_label: int | None = UNLABELLED


@dataclass(frozen=True)
class Layout:
    """The files of a data folder by their role.

    Attributes:
        sources: modality → array file or folder of files.
        labels: modality → file.
        indices: split → modality → file; empty if the splits have to be drawn.
        paired: whether row i of every modality is the same sample.
        settings: content of data.json.
        auxiliary: ``<modality>.<name>`` → file of an auxiliary input.
        groups: file with the group of each sample; None if there is none.
        ids: file with the name of each sample; None if there is none.
        rows: modality → file with the numbers of the samples that it holds, where some samples lack it.
    """

    sources: dict[str, Path]
    labels: dict[str, Path]
    indices: dict[str, dict[str, Path]]
    paired: bool
    settings: DataFile
    auxiliary: dict[str, Path] = field(default_factory=dict)
    groups: Path | None = None
    ids: Path | None = None
    rows: dict[str, Path] = field(default_factory=dict)

    def normalise(self, modality: str) -> str:
        """``standard`` or ``none``."""
        default = "none" if self.sources[modality].stem.endswith(NORMALISED) else "standard"
        return self.settings.normalise.get(modality, default)


def find_layout(root: Path, report: Report, *, only: Sequence[str] = (), number: int | None = None) -> Layout | None:
    """Assign the files of a folder to their roles; None if there is no folder or no modality.

    Args:
        root: the folder.
        report: receives the problems.
        only: modalities to use; empty: those of data.json, or else all.
        number: number of the index files; None: those without a number.
    """
    if not root.is_dir():
        problem = "is a file, a folder was expected" if root.exists() else "does not exist"
        report.errors.append(f"{root} {problem}. {TREE}")
        return None
    settings = _read_settings(root, report)
    sources = find_sources(root, report, only=only or settings.modalities)
    if not sources:
        return None
    _check_keys(root, settings, sources, report)
    _check_orphans(root, sources, report)
    specific = sorted(path.name for name in sources for path in _specific_files(root, name, number))
    paired = not specific if settings.paired is None else settings.paired
    if paired and specific:
        report.errors.append(
            f"data.json says that the data is paired, but {', '.join(specific)} belong to one modality each. Remove "
            "them (labels.npy and train_idx.npy are for all modalities), or set paired to false."
        )
    rows = {name: file for name in sources if (file := root / f"{name}_rows.npy").exists()}
    if rows and not paired:
        marks = ", ".join(specific) or "data.json"
        report.errors.append(
            f"{listed(file.name for file in rows.values())} marks samples of paired data that lack a modality, and "
            f"{marks} says that the data is unpaired: its modalities have samples of their own. Remove one of the two."
        )
    labels = {name: path for name in sources if (path := _file_of(root, name, "labels")) is not None}
    missing = [name for name in sources if name not in labels]
    if missing:
        expected = "labels.npy" if paired else " and ".join(f"{name}_labels.npy" for name in missing)
        report.errors.append(f"{expected} is missing: no labels for {', '.join(missing)}. {TREE}")
    indices = _find_indices(root, sources, report, number)
    extras = {name: root / name for name in (GROUPS, IDS) if (root / name).exists()}
    for name in extras if not paired else ():
        what = {GROUPS: "group", IDS: "name"}[name]
        report.errors.append(
            f"{name} has a {what} for each sample of all modalities, and this data is unpaired: its modalities have "
            "samples of their own. Remove it."
        )
    return Layout(
        sources,
        labels,
        indices,
        paired,
        settings,
        find_auxiliary(root, sources),
        extras.get(GROUPS) if paired else None,
        extras.get(IDS) if paired else None,
        rows if paired else {},
    )


def _read_settings(root: Path, report: Report) -> DataFile:
    path = root / "data.json"
    if not path.exists():
        return DataFile()
    # both invalid JSON and invalid UTF-8 raise a ValueError
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        report.errors.append(f"data.json is not valid JSON ({error}). Repair it, or remove it: it is optional.")
        return DataFile()
    if not isinstance(values, dict):
        report.errors.append(f"data.json holds a {type(values).__name__}: an object in braces was expected.")
        return DataFile()
    settings, problems = valid_part(DataFile, values, "data.json")
    report.errors.extend(problems)
    return settings


def find_sources(root: Path, report: Report, *, only: Sequence[str] = ()) -> dict[str, Path]:
    """Modality → array file or folder, in the order of ``only`` or else of their names."""
    paths_of: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith((".", PUBLISHED)) or _is_label_or_index(path) or path.name in (GROUPS, IDS):
            continue
        if path.is_dir():
            if sample_files(path):
                paths_of.setdefault(path.name, []).append(path)
            elif not only:
                report.warnings.append(f"The folder {path.name} holds no .npy files and is not used.")
        elif path.suffix == ".npy":
            paths_of.setdefault(path.stem.removesuffix(NORMALISED), []).append(path)
    for name in only:
        if name not in paths_of:
            hint = did_you_mean(name, paths_of)
            report.errors.append(
                f"The modality '{name}' has no file {name}.npy or {name}{NORMALISED}.npy. {hint} {TREE}"
            )
    if not paths_of:
        report.errors.append(f"{root} holds no modality. {TREE}")
    # so far audio.lengths looks like a modality: whether it is auxiliary depends on whether there is a modality audio
    auxiliary = find_auxiliary(root, paths_of)
    chosen = {name: paths_of[name] for name in only or paths_of if name in paths_of and name not in auxiliary}
    for name, paths in chosen.items():
        _check_name(name, paths, report)
    return {name: paths[0] for name, paths in chosen.items()}


def find_auxiliary(root: Path, modalities: Iterable[str]) -> dict[str, Path]:
    """``<modality>.<name>`` → array file, for the auxiliary inputs of these modalities."""
    paths = (path for name in modalities for path in sorted(root.glob(f"{glob.escape(name)}.*.npy")))
    return {path.stem: path for path in paths if is_name(path.stem.partition(".")[2])}


def _check_name(name: str, paths: list[Path], report: Report) -> None:
    if len(paths) > 1:
        listed = " and ".join(path.name for path in paths)
        report.errors.append(f"The modality '{name}' has {len(paths)} sources ({listed}). Keep one of them.")
    if not is_name(name):
        report.errors.append(name_sentence(name))
    if name.endswith("_idx"):
        names = [f"{split}_idx" for split in SPLITS]
        report.errors.append(
            f"{name}.npy looks like an index file, but is not named like one. {did_you_mean(name, names)}"
        )


def is_name(name: str) -> bool:
    """Whether a modality may have this name."""
    # names become files, flags and keys of JSON, and a dot separates an auxiliary input from its modality
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is not None


def name_sentence(name: str) -> str:
    """The error sentence for a name that a modality can't have."""
    return (
        f"'{name}' can't be the name of a modality: it may hold letters, digits, _ and -, and starts with a letter or "
        "digit. Rename it."
    )


def _is_label_or_index(path: Path) -> bool:
    return (
        path.suffix == ".npy"
        and re.fullmatch(rf"(.*_)?(labels|({'|'.join(SPLITS)})_idx{NUMBER})|.+_rows", path.stem) is not None
    )


def _index_stem(split: str, number: int | None) -> str:
    return f"{split}_idx" if number is None else f"{split}_idx_{number}"


def _specific_files(root: Path, name: str, number: int | None) -> Iterable[Path]:
    stems = (f"{name}_labels", *(f"{name}_{_index_stem(split, number)}" for split in SPLITS))
    return (path for stem in stems if (path := root / f"{stem}.npy").exists())


def _file_of(root: Path, modality: str, role: str) -> Path | None:
    """The file of this role that belongs to one modality, or else the file for all modalities."""
    for path in (root / f"{modality}_{role}.npy", root / f"{role}.npy"):
        if path.exists():
            return path
    return None


def _find_indices(root: Path, sources: Iterable[str], report: Report, number: int | None) -> dict[str, dict[str, Path]]:
    indices: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
    for name in sources:
        for split in SPLITS:
            path = _file_of(root, name, _index_stem(split, number))
            if path is not None:
                indices[split][name] = path
    if not any(indices.values()):
        return _no_indices(root, report, number)
    missing = {f"{_index_stem(split, number)}.npy": sorted(set(sources) - set(indices[split])) for split in SPLITS}
    for file, names in missing.items():
        if names:
            report.errors.append(
                f"{file} is missing (for {', '.join(names)}), although other index files are there. Write all three "
                "splits, or remove the index files to have the splits drawn."
            )
    return indices


def _no_indices(root: Path, report: Report, number: int | None) -> dict[str, dict[str, Path]]:
    """No index files with this number: an error if there are other numbers, else the splits will be drawn."""
    stems = (re.fullmatch(r"(?:.*_)?train_idx_(\d+)", path.stem) for path in root.glob("*train_idx_*.npy"))
    numbers = sorted({int(stem[1]) for stem in stems if stem})
    listed = ", ".join(map(str, numbers))
    if number is not None:
        file = f"{_index_stem('train', number)}.npy"
        report.errors.append(f"{file} is missing: there is no split {number}. Numbered splits: {listed or 'none'}.")
    elif numbers:
        report.errors.append(
            f"The index files are numbered (train_idx_{numbers[0]}.npy, …) and no split was chosen. Choose one of "
            f"{listed}: --folder.split {numbers[0]}, or --splits where a command has it."
        )
    return {}


def _check_keys(root: Path, settings: DataFile, sources: dict[str, Path], report: Report) -> None:
    # a modality that is in the folder may be described and not used
    known = {*sources, *settings.modalities, *_stems(root)}
    for key, values in (("normalise", settings.normalise), ("layout", settings.layout)):
        for name in values:
            if name not in known:
                hint = did_you_mean(name, sources)
                report.errors.append(f"data.json: '{key}' names the modality '{name}', which is not there. {hint}")


def _stems(root: Path) -> set[str]:
    """The names of all entries of a folder, as those of modalities."""
    return {entry.stem.removesuffix(NORMALISED) for entry in root.iterdir()}


def _check_orphans(root: Path, sources: dict[str, Path], report: Report) -> None:
    # all entries count, also modalities that are left out by `only`: their labels may stay in the folder
    stems = _stems(root)
    for path in sorted(root.glob("*_*.npy")):
        modality = re.sub(rf"_?(labels|rows|({'|'.join(SPLITS)})_idx{NUMBER})$", "", path.stem)
        if _is_label_or_index(path) and modality and modality not in stems:
            report.errors.append(
                f"{path.name} belongs to no modality. {did_you_mean(modality, sources)} Rename or remove it."
            )

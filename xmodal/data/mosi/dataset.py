"""MOSI and MOSEI: how positive or negative a person speaks, from -3 to 3, by words, face and voice.

    text    (768, T)    features of the transcript      vision  (20 or 35, T)    audio  (5 or 74, T)

Opened are the published pickles (read as data, see `data.mosi.pickle_reader`), or a folder that `prepare` made of one,
which is mapped to memory (`xmodal.data.mosi.files`). Widths and lengths are those of the file. Beside each modality are
its true lengths, ``audio.lengths``; with ``text=tokens`` also ``text.tokens``, what a text encoder reads. Inputs
are used as they are, without statistics.

References: Zadeh et al.: MOSI, arXiv 1606.06259, 2016. Zadeh et al.: Multimodal Language Analysis in the Wild, ACL
2018 (MOSEI). The files: Yu et al.: Learning Modality-Specific Representations, AAAI 2021, authors' code (MMSA).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from xmodal.data.mosi.synthetic import MODALITIES, MadeSettings, draw
from xmodal.errors import InputError
from xmodal.names import owner

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.mosi.source import Source
    from xmodal.data.report import Report
    from xmodal.data.split import Column

STAND_IN = "Stand-in data: a made trimodal set in place of MOSI and MOSEI."
SELECT = ("mae", "min")


class MosiSettings(MadeSettings):
    """Options of MOSI and MOSEI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(None, description="the pickle, a folder that contains it, or a prepared folder")
    stand_in: bool = Field(
        False, description="without a root, use a synthetic set; dominant and the options below it describe it"
    )
    modalities: tuple[Literal["text", "vision", "audio"], ...] = Field(
        (), description="modalities to open; empty: text, vision and audio. Files of other modalities may be missing"
    )
    text: Literal["features", "tokens"] = Field(
        "features", description="features, those of the file; or tokens, additionally the tokens for a text encoder"
    )
    nonfinite: Literal["zero", "refuse", "published"] | None = Field(
        None,
        description="what to do with NaN and infinite values: zero replaces them by 0; refuse stops; published "
        "replaces only -inf in audio. None: zero, or the choice that the folder was prepared with",
    )
    text_from: Path | None = Field(
        None, description="pickle or prepared folder whose text, with its lengths, replaces that of the root"
    )
    vision_from: Path | None = Field(None, description="the same for vision")
    audio_from: Path | None = Field(None, description="the same for audio")
    time_means: bool = Field(False, description="replace vision and audio by their means over time, including padding")
    made_seed: int | None = Field(None, ge=0, description="seed of the synthetic set; None: the seed of the run")
    as_published: bool = Field(False, description="as in the authors' code: --nonfinite published")

    @model_validator(mode="after")
    def _published(self) -> MosiSettings:
        if self.as_published:
            if self.nonfinite not in (None, "published"):
                raise ValueError(f"as_published asks for nonfinite published, and it is {self.nonfinite}. Choose one.")
            object.__setattr__(self, "nonfinite", "published")
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities in the order of the file."""
        return tuple(name for name in MODALITIES if name in (self.modalities or MODALITIES))


def load(
    root: str | None,
    settings: MosiSettings,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits, as the file has them.

    Args:
        root: the pickle or folder; None: the made set.
        settings: what to open, and how.
        task: empty or ``regression``.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches, see `Augment.parse`.
        seed: of the made set, the train fraction and the augmentation.
    """
    from xmodal.data.base import assemble
    from xmodal.data.report import Report

    if task not in ("", "regression"):
        raise InputError(f"MOSI and MOSEI have the task regression; {task} was asked for. Leave the task out.")
    report = Report()
    source = _opened(root, settings, seed, report)
    if source is not None:
        _replace(source, settings, report)
        _add_tokens(source, settings, report)
    report.stop_on_errors()
    assert source is not None  # no source is an error
    columns, rows = _columns(source, settings), source.numbers()
    modalities = [name for name in columns if name == owner(name)]
    data = assemble(
        columns,
        dict.fromkeys(modalities, source.labels),
        {split: dict.fromkeys(modalities, numbers) for split, numbers in rows.items()},
        task="regression",
        layouts=dict.fromkeys(modalities, "sequence"),
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
        select=SELECT,
        metrics="sentiment",
    )
    data.ids = source.ids
    data.warnings += [*[STAND_IN] * (root is None), *report.warnings]
    return data


def _opened(root: str | None, settings: MosiSettings, seed: int, report: Report) -> Source | None:
    """The file, the folder or the made set."""
    from xmodal.data.mosi.source import from_content

    if root is not None:
        return _file(Path(root), settings.wanted, settings.nonfinite, report)
    made = draw(settings, seed if settings.made_seed is None else settings.made_seed)
    return from_content(made, "the made set", report, modalities=settings.wanted)


def _file(
    path: Path, modalities: tuple[str, ...], nonfinite: str | None, report: Report, *, labelled: bool = True
) -> Source | None:
    """A pickle or a prepared folder."""
    from xmodal.data.mosi.files import EXPECTED, FACTS, open_prepared
    from xmodal.data.mosi.source import find_pickle, open_pickle

    if (path / FACTS).exists():
        source = open_prepared(path, report, modalities=modalities)
        if source is not None:
            _check_treatment(path, source, nonfinite, report)
        return source
    found = find_pickle(path)
    if found is None:
        report.errors.append(f"{path} holds neither one .pkl nor {FACTS}: {EXPECTED} was expected.")
        return None
    return open_pickle(found, report, modalities=modalities, treatment=nonfinite or "zero", labelled=labelled)


def _check_treatment(path: Path, source: Source, nonfinite: str | None, report: Report) -> None:
    """What was put in place of values when the folder was prepared can't be undone."""
    changed = any(any(counts.values()) for counts in source.counts.values())
    if nonfinite not in (None, source.treatment) and changed:
        report.errors.append(
            f"{path} was prepared with nonfinite {source.treatment}, and {nonfinite} was asked for. Leave the option "
            "out, or prepare another folder from the pickle."
        )


def _replace(source: Source, settings: MosiSettings, report: Report) -> None:
    """Put the modalities of other files in place of the root's."""
    for name in settings.wanted:
        path = getattr(settings, f"{name}_from")
        if path is None:
            continue
        if not path.exists():
            report.errors.append(f"{name}_from names {path}, which does not exist.")
            continue
        other = _file(path, (name,), settings.nonfinite, report, labelled=False)
        if other is None:
            continue
        if other.rows != source.rows:
            told = " and ".join(
                f"{', '.join(f'{n} {split}' for split, n in rows.items())}" for rows in (source.rows, other.rows)
            )
            report.errors.append(f"{path} has other numbers of samples than the root ({told}): the same were expected.")
            continue
        differing = [(one, two) for one, two in zip(source.ids, other.ids, strict=True) if one != two]
        if differing and not _numbered(other.ids):
            report.errors.append(
                f"{path} has other samples than the root: {differing[0][1]} in place of {differing[0][0]}, and "
                f"{len(differing) - 1} more. Give a file with the same samples in the same order."
            )
            continue
        source.columns[name], source.lengths[name] = other.columns[name], other.lengths[name]


def _numbered(ids: list[str]) -> bool:
    """Whether a file had no ids, so that its samples were numbered."""
    return ids[0] == "train 0"


def _add_tokens(source: Source, settings: MosiSettings, report: Report) -> None:
    if settings.text == "features":
        source.tokens = None
    elif "text" not in settings.wanted:
        report.errors.append("Tokens were asked for (text=tokens) and text is not among the modalities. Add it.")
    elif source.tokens is None:
        report.errors.append("Tokens were asked for (text=tokens) and there is no text_bert. Use text=features.")


def _columns(source: Source, settings: MosiSettings) -> dict[str, Column]:
    """The inputs: modalities first, then what goes with them."""
    from xmodal.data.mosi.columns import TimeMeans

    short = [name for name in settings.wanted if settings.time_means and name != "text"]
    lengths = {name: np.ones_like(found) if name in short else found for name, found in source.lengths.items()}
    return {
        **{name: TimeMeans(column) if name in short else column for name, column in source.columns.items()},
        **{f"{name}.lengths": lengths[name] for name in source.columns},
        **({} if source.tokens is None else {"text.tokens": source.tokens}),
    }

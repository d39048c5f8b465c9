"""MOSI and MOSEI: predict how positive a speaker's opinion is, from -3 to 3, from words, face and voice.

    text    (768, T)    features of the transcript      vision  (20 or 35, T)    audio  (5 or 74, T)

The root is a published pickle (read without executing it, see `data.mosi.pickle_reader`), or a folder that `prepare`
wrote from it, which is memory-mapped (`xmodal.data.mosi.files`). Widths and numbers of steps are those of the file.
Each modality comes with its true lengths, such as ``audio.lengths``; with ``text=tokens`` there is also
``text.tokens``, the input of a text encoder. Inputs are not normalised.

References: Zadeh et al.: MOSI, arXiv 1606.06259, 2016. Zadeh et al.: Multimodal Language Analysis in the Wild, ACL
2018 (MOSEI). The files: Yu et al.: Learning Modality-Specific Representations, AAAI 2021, authors' code (MMSA).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from xmodal.data.mosi.synthetic import MODALITIES, SyntheticSettings, draw
from xmodal.data.request import DataRequest
from xmodal.names import owner

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.mosi.source import Source
    from xmodal.data.report import Report
    from xmodal.data.split import Column

STAND_IN = "Stand-in data: a synthetic trimodal set in place of MOSI and MOSEI."
SELECT = ("mae", "min")


class MosiSettings(SyntheticSettings):
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
                raise ValueError(f"as_published sets nonfinite to published, and it is {self.nonfinite}. Choose one.")
            # The model is frozen; pydantic offers no other way for a validator to set a field of it.
            object.__setattr__(self, "nonfinite", "published")
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """The modalities to open, in the order text, vision, audio."""
        return tuple(name for name in MODALITIES if name in (self.modalities or MODALITIES))


def load(root: str | None, settings: MosiSettings, request: DataRequest) -> Data:
    """Three splits, as the file has them.

    Args:
        root: the pickle or folder; None: the synthetic set.
        settings: what to open, and how.
        request: task ``regression``; the seed draws the synthetic set.
    """
    from xmodal.data.base import assemble
    from xmodal.data.report import Report

    request.check_task("mosi", "regression")
    report = Report()
    source = _opened(root, settings, request.seed, report)
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
        request=request,
        select=SELECT,
        metrics="sentiment",
    )
    data.ids = source.ids
    data.warnings += [*[STAND_IN] * (root is None), *report.warnings]
    return data


def _opened(root: str | None, settings: MosiSettings, seed: int, report: Report) -> Source | None:
    """The content of the root, or the synthetic set without a root."""
    from xmodal.data.mosi.source import from_content

    if root is not None:
        return _file(Path(root), settings.wanted, settings.nonfinite, report)
    splits = draw(settings, seed if settings.made_seed is None else settings.made_seed)
    return from_content(splits, "the synthetic set", report, modalities=settings.wanted)


def _file(
    path: Path, modalities: tuple[str, ...], nonfinite: str | None, report: Report, *, labelled: bool = True
) -> Source | None:
    """The content of a pickle or a prepared folder; None and errors in the report if it cannot be used."""
    from xmodal.data.mosi.files import EXPECTED, FACTS, open_prepared
    from xmodal.data.mosi.source import find_pickle, open_pickle

    if (path / FACTS).exists():
        source = open_prepared(path, report, modalities=modalities)
        if source is not None:
            _check_treatment(path, source, nonfinite, report)
        return source
    pickle_path = find_pickle(path)
    if pickle_path is None:
        report.errors.append(f"{path} holds neither one .pkl nor {FACTS}: {EXPECTED} was expected.")
        return None
    return open_pickle(pickle_path, report, modalities=modalities, treatment=nonfinite or "zero", labelled=labelled)


def _check_treatment(path: Path, source: Source, nonfinite: str | None, report: Report) -> None:
    """Report an error if the folder was prepared with another ``nonfinite``, since replaced values are lost."""
    changed = any(any(counts.values()) for counts in source.counts.values())
    if nonfinite not in (None, source.treatment) and changed:
        report.errors.append(
            f"{path} was prepared with nonfinite {source.treatment}: the option cannot be {nonfinite} now. Leave it "
            "out, or prepare another folder from the pickle."
        )


def _replace(source: Source, settings: MosiSettings, report: Report) -> None:
    """Replace modalities by those of the files in text_from, vision_from and audio_from."""
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
            sizes = " and ".join(
                f"{', '.join(f'{n} {split}' for split, n in rows.items())}" for rows in (source.rows, other.rows)
            )
            report.errors.append(
                f"{path} has other numbers of samples than the root ({sizes}): the same were expected. Give a file "
                "with the same samples."
            )
            continue
        differing = [names for names in zip(source.ids, other.ids, strict=True) if names[0] != names[1]]
        # A file of features alone often has no ids: then the order is all there is to go by.
        if differing and not _numbered(other.ids):
            report.errors.append(
                f"{path} has other samples than the root: {differing[0][1]} in place of {differing[0][0]}, and "
                f"{len(differing) - 1} more. Give a file with the same samples in the same order."
            )
            continue
        source.columns[name], source.lengths[name] = other.columns[name], other.lengths[name]


def _numbered(ids: list[str]) -> bool:
    """Whether the file has no ids, so that its samples are numbered by `from_content`."""
    return ids[0] == "train 0"


def _add_tokens(source: Source, settings: MosiSettings, report: Report) -> None:
    if settings.text == "features":
        source.tokens = None
    elif "text" not in settings.wanted:
        report.errors.append("The option text=tokens needs the modality text, which is not opened. Add it.")
    elif source.tokens is None:
        report.errors.append("The option text=tokens needs text_bert, which the file does not have. Use text=features.")


def _columns(source: Source, settings: MosiSettings) -> dict[str, Column]:
    """The input columns: modalities first, then their lengths and tokens."""
    from xmodal.data.mosi.columns import TimeMeans

    averaged = [name for name in settings.wanted if settings.time_means and name != "text"]
    lengths = {name: np.ones_like(values) if name in averaged else values for name, values in source.lengths.items()}
    return {
        **{name: TimeMeans(column) if name in averaged else column for name, column in source.columns.items()},
        **{f"{name}.lengths": lengths[name] for name in source.columns},
        **({} if source.tokens is None else {"text.tokens": source.tokens}),
    }

"""Prepare VGGSound: sound at 16 kHz and 32 frames of each clip, in the layout of the authors' code.

`data.vggsound.dataset` shows the layout of a prepared folder. Which frames are taken is our choice, since the authors'
code starts from finished files: those in the middle of 32 equal parts of the clip, resized to 256x256.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xmodal.data.media.spectrogram import RATE
from xmodal.data.prepare import MARKERS, Content, Item, Prepared, prepare_items
from xmodal.data.vggsound.clips import read_frames, read_waveform
from xmodal.data.vggsound.lists import (
    SPLITS,
    Clip,
    choose_classes,
    find_lists,
    match_files,
    of_classes,
    read_lists,
    refuse_alike,
    token_of,
)
from xmodal.errors import InputError
from xmodal.files import write_json, write_text

LABELS, FACTS = "label.json", "vggsound.json"
# Folders of a split.
TALL, TENSOR, WAVEFORM, SOUND = "video_jpg", "video_npy", "audio_npy", "audio"
# Part of the stamp of every prepared clip: increase it when `read_clip` returns other values for the same files.
VERSION = 2


class ClipSettings(BaseModel):
    """How the sound and the frames of a clip are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(10.0, ge=0.1, le=3600, description="length of a clip; longer clips are cut")
    frames: int = Field(32, ge=1, description="number of frames of a clip")
    size: int = Field(256, ge=8, le=2048, description="width and height of a frame, in pixels")
    store: Literal["jpg", "npy"] = Field(
        "jpg",
        description="jpg, all frames in a tall picture; or npy, an array, which is lossless, ten times as large and "
        "faster to read",
    )
    quality: int = Field(92, ge=1, le=95, description="JPEG quality of the picture, 1 to 95")
    shortest: float = Field(1.0, ge=0, description="minimum length of the sound, in seconds; shorter clips are skipped")


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    listing: Path | None = None,
    classes: str = "",
    most: int = 0,
    settings: ClipSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write the waveform and the frames of every clip, in a folder for each split.

    Args:
        raw: folder with the clips, <video id>_<start, six digits>.mp4; subfolders are searched too.
        root: folder to write, new or empty; run again with the same folder to continue an interrupted preparation.
        workers: worker processes; 0: work in this process.
        listing: the list; None: vggsound.csv, or train.csv and test.csv, in the folder of the clips.
        classes: a file with a class on each line; a number, to take the first in alphabetical order; empty: all.
        most: maximum number of clips of each class and split, the first of the list; 0: all.
        settings: how sound and frames are stored.
        progress: called with (clips done, clips in total).
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    # A missing package must stop here, with one message, and not be listed as the problem of every clip.
    for package in (soundfile_module, av_module):
        package()
    raw, root, settings = Path(raw), Path(root), settings or ClipSettings()
    # The format stores sizes in 16 bits, and libjpeg stops at 65,500.
    if settings.frames * settings.size > 65_500 and settings.store == "jpg":
        raise InputError(
            f"{settings.frames} frames of {settings.size} pixels are higher than a JPEG can be (65,500). Give --store "
            "npy, or fewer frames."
        )
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder. Expected: a folder with the clips of VGGSound.")
    listed = read_lists(find_lists(raw, listing))
    names = choose_classes((clip.label for clip in listed.clips), classes)
    refuse_alike(names)
    clips = of_classes(listed.clips, names, most)
    files, missing, _ = match_files(raw, clips)
    if not files:
        raise InputError(f"{raw} holds none of the {len(clips)} clips that are listed: {missing[0][1]}, for example.")
    _refuse_foreign(root, raw)
    # `_refuse_foreign` recognises a folder of ours by MARKERS: without it, a run that was killed could not continue.
    (root / MARKERS).mkdir(parents=True, exist_ok=True)
    # Written last. Old ones go first, so that an interrupted preparation does not look complete.
    for name in (LABELS, FACTS):
        (root / name).unlink(missing_ok=True)
    facts = settings.model_dump()
    items = [
        Item(clip.name, (str(files[clip.stem]),), {"settings": facts, "split": clip.split})
        for clip in clips
        if clip.stem in files
    ]
    prepared = prepare_items(
        items,
        read_clip,
        root,
        workers=workers,
        version=str(VERSION),
        refused=[*listed.refused, *missing],
        progress=progress,
    )
    if not prepared.names:
        raise InputError(
            f"None of the {len(items)} clips in {raw} can be used. See the reasons in {root / 'skipped.json'}."
        )
    names_done = set(prepared.names)
    used = [clip for clip in clips if clip.name in names_done]
    write_facts(root, names, used, settings, len(prepared.skipped))
    listed_splits, used_splits = ({clip.split for clip in part} for part in (clips, used))
    reasons = {
        split: "none of those that are listed can be used" if split in listed_splits else "the lists name none"
        for split in SPLITS
        if split not in used_splits
    }
    warnings = [
        f"There is no clip of the split {split}: {reason}. An experiment needs both train and test."
        for split, reason in reasons.items()
    ]
    return replace(prepared, warnings=warnings)


def _refuse_foreign(root: Path, raw: Path) -> None:
    """Raise an `InputError` unless a folder is new, empty or prepared before; it may contain the raw clips."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: a folder to write was expected.")
    if not root.exists() or (root / MARKERS).is_dir():
        return
    within = [path.resolve() for path in root.iterdir() if not path.name.startswith(".")]
    foreign = [path.name for path in sorted(within) if path not in (raw.resolve(), *raw.resolve().parents)]
    if foreign:
        raise InputError(
            f"{root} holds files that this command did not write ({foreign[0]}, for example) and might overwrite. Give "
            "a folder that is new, empty, or prepared before."
        )


def write_facts(root: Path, names: Sequence[str], clips: Sequence[Clip], settings: ClipSettings, skipped: int) -> None:
    """Write the index of each class, and the settings and counts of the preparation."""
    labels = {token_of(name): number for number, name in enumerate(names)}
    write_text(root / LABELS, json.dumps(labels, indent=1) + "\n")
    counts = {split: sum(clip.split == split for clip in clips) for split in ("train", "test")}
    write_json(root / FACTS, {**settings.model_dump(), "classes": list(names), "clips": counts, "skipped": skipped})


def read_clip(item: Item) -> dict[str, NDArray[Any] | Content]:
    """The sound and the frames of a clip."""
    settings = ClipSettings.model_validate(item.facts["settings"])
    path, split = Path(item.sources[0]), item.facts["split"]
    waveform = read_waveform(path, seconds=settings.seconds, shortest=settings.shortest)
    shares = ((np.arange(settings.frames) + 0.5) / settings.frames).tolist()
    frames = read_frames(path, shares, size=settings.size, seconds=settings.seconds)
    arrays: dict[str, NDArray[Any] | Content] = {}
    # Arrays for training and wav files for testing: the authors' code reads them by different functions.
    if split == "train":
        arrays[f"{split}/{WAVEFORM}"] = waveform[None]
    else:
        arrays[f"{split}/{SOUND}"] = Content(".wav", _wav(waveform))
    if settings.store == "npy":
        arrays[f"{split}/{TENSOR}"] = frames
    else:
        arrays[f"{split}/{TALL}"] = Content(".jpg", _tall(frames, settings.quality))
    return arrays


def _wav(waveform: NDArray[np.float32]) -> bytes:
    """The bytes of a float32 wav file, which stores the samples exactly, also those beyond ± 1."""
    # Not soundfile: it adds a PEAK chunk with the time of day, so that two runs write different bytes.
    from scipy.io import wavfile

    buffer = io.BytesIO()
    wavfile.write(buffer, RATE, waveform)
    return buffer.getvalue()


def _tall(frames: NDArray[np.uint8], quality: int) -> bytes:
    """The bytes of a JPEG of all frames, stacked vertically."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

"""The files of the VGGSound experiment: sound at 16 kHz and 32 frames of each clip, in the layout of the authors' code.

What a prepared folder holds is shown in `data.vggsound.dataset`. How frames are chosen is ours, since the authors' code
begins with finished files: those that are shown in the middle of 32 equal parts of the clip, resized to 256x256.
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
TALL, TENSOR, WAVEFORM, SOUND = "video_jpg", "video_npy", "audio_npy", "audio"  # folders of a split
VERSION = 2  # of what the work makes of the same files and settings


class ClipSettings(BaseModel):
    """What a clip becomes."""

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
    """Turn clips into waveforms and frames, in a folder for each split.

    Args:
        raw: folder with the clips, <video id>_<start, six digits>.mp4; they may lie in folders of it.
        root: folder to write, new or empty; run again with the same one to go on.
        workers: processes; 0: this one.
        listing: the list; None: vggsound.csv, or train.csv and test.csv, in the folder of the clips.
        classes: a file with one class on each line, or how many, in the order of their names; empty: all.
        most: clips of each class and split, the first of the list; 0: all.
        settings: what a clip becomes.
        progress: is told (clips so far, clips in all).
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    for package in (soundfile_module, av_module):  # that one is missing is told once, not for each clip
        package()
    raw, root, settings = Path(raw), Path(root), settings or ClipSettings()
    if settings.frames * settings.size > 65_500 and settings.store == "jpg":
        raise InputError(
            f"{settings.frames} frames of {settings.size} pixels are higher than a JPEG can be (65,500). Give --store "
            "npy, or fewer frames."
        )
    if not raw.is_dir():
        raise InputError(f"{raw} is no folder: one with the clips of VGGSound was expected.")
    listed = read_lists(find_lists(raw, listing))
    names = choose_classes((clip.label for clip in listed.clips), classes)
    refuse_alike(names)
    clips = of_classes(listed.clips, names, most)
    files, missing, _ = match_files(raw, clips)
    if not files:
        raise InputError(f"{raw} holds none of the {len(clips)} clips that are listed: {missing[0][1]}, for one.")
    _refuse_foreign(root, raw)
    (root / MARKERS).mkdir(parents=True, exist_ok=True)  # first: it tells that what follows is ours
    for name in (LABELS, FACTS):  # so that a folder half prepared is not taken for a whole one
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
        raise InputError(f"None of the {len(items)} clips in {raw} can be used; {root / 'skipped.json'} says why.")
    there = set(prepared.names)
    used = [clip for clip in clips if clip.name in there]
    write_facts(root, names, used, settings, len(prepared.skipped))
    return replace(prepared, warnings=[_lacking(split, clips) for split in SPLITS if split not in _splits(used)])


def _splits(clips: Sequence[Clip]) -> set[str]:
    return {clip.split for clip in clips}


def _lacking(split: str, listed: Sequence[Clip]) -> str:
    why = "none of those that are listed can be used" if split in _splits(listed) else "the lists name none"
    return f"There is no clip of the split {split}: {why}. An experiment needs both train and test."


def _refuse_foreign(root: Path, raw: Path) -> None:
    """Raise an `InputError` unless a folder is new, empty or ours; the folder of the clips may lie in it."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: a folder to write was expected.")
    if not root.exists() or (root / MARKERS).is_dir():
        return
    within = [path.resolve() for path in root.iterdir() if not path.name.startswith(".")]
    foreign = [path.name for path in sorted(within) if path not in (raw.resolve(), *raw.resolve().parents)]
    if foreign:
        raise InputError(
            f"{root} holds files that this command did not write ({foreign[0]}, for one) and might write over. Give a "
            "folder that is new, empty, or prepared before."
        )


def write_facts(root: Path, names: Sequence[str], clips: Sequence[Clip], settings: ClipSettings, skipped: int) -> None:
    """How classes are numbered, and how the files were made."""
    labels = {token_of(name): number for number, name in enumerate(names)}
    write_text(root / LABELS, json.dumps(labels, indent=1) + "\n")
    counts = {split: sum(clip.split == split for clip in clips) for split in ("train", "test")}
    write_json(root / FACTS, {**settings.model_dump(), "classes": list(names), "clips": counts, "skipped": skipped})


def read_clip(item: Item) -> dict[str, NDArray[Any] | Content]:
    """Sound and frames of one clip."""
    settings = ClipSettings.model_validate(item.facts["settings"])
    path, split = Path(item.sources[0]), item.facts["split"]
    waveform = read_waveform(path, seconds=settings.seconds, shortest=settings.shortest)
    shares = ((np.arange(settings.frames) + 0.5) / settings.frames).tolist()
    frames = read_frames(path, shares, size=settings.size, seconds=settings.seconds)
    made: dict[str, NDArray[Any] | Content] = {}
    if split == "train":
        made[f"{split}/{WAVEFORM}"] = waveform[None]
    else:
        made[f"{split}/{SOUND}"] = Content(".wav", _wav(waveform))
    if settings.store == "npy":
        made[f"{split}/{TENSOR}"] = frames
    else:
        made[f"{split}/{TALL}"] = Content(".jpg", _tall(frames, settings.quality))
    return made


def _wav(waveform: NDArray[np.float32]) -> bytes:
    """A wav file of the very numbers, as they are kept for training; soundfile would add the time of day."""
    from scipy.io import wavfile

    written = io.BytesIO()
    wavfile.write(written, RATE, waveform)
    return written.getvalue()


def _tall(frames: NDArray[np.uint8], quality: int) -> bytes:
    """All frames below one another, as a JPEG."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(written, "JPEG", quality=quality)
    return written.getvalue()

"""Prepare RAVDESS: compute features and pictures from the archive's recordings, and write the list of each split.

`data.ravdess.dataset` shows the layout of a prepared folder. How a clip becomes an array and a picture is our choice,
since the authors' code starts from finished features:

    audio   the wav file, channels averaged, at 22,050 Hz; 40 MFCCs (`data.media.sound`) from windows of 2048 samples,
            with a hop of 512; cut or zero-padded at the end to 256 frames
    image   the frame shown in the middle of the mp4 file, resized to 256x512, as PNG
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.prepare import Content, Item, Prepared, prepare_items
from xmodal.data.ravdess.names import Clip, find_pairs
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json, write_text

AUDIO, IMAGE, LISTS, FACTS = "aud_features", "vid_features", "data_file", "ravdess.json"
FILES = {"train": "spa_dl.csv", "valid": "spa_val.csv", "test": "spa_test.csv"}
HEADER = ("audio", "image", "label")
SOUND_HEADER = ("audio", "label")
SHARES = (2 / 3, 1 / 6, 1 / 6)
# Peak below which a clip counts as silent: 80 dB below full scale, about three steps of 16-bit audio.
SILENT = 1e-4
# Part of the stamp of every prepared clip: increase it when `read_clip` returns other values for the same files.
VERSION = 1


class FeatureSettings(BaseModel):
    """How the features and the picture of a clip are computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Literal["mfcc", "log-mel"] = Field("mfcc", description="mfcc or log-mel")
    rate: int = Field(
        22_050,
        ge=1000,
        le=192_000,
        description="sampling rate to which the sound is converted first, in samples per second",
    )
    coefficients: int = Field(40, ge=1, description="number of coefficients per frame, the rows of the features")
    bands: int = Field(
        128, ge=1, description="mel bands from which MFCCs are computed; log-mel uses as many bands as coefficients"
    )
    frames: int = Field(256, ge=1, description="number of frames, the columns of the features")
    window: int = Field(2048, ge=16, description="length of a frame, in samples")
    hop: int = Field(512, ge=1, description="distance between the starts of frames, in samples")
    shortest: float = Field(0.5, ge=0, description="minimum length of the sound, in seconds; shorter clips are skipped")
    moment: float = Field(0.5, ge=0, le=1, description="position of the picture in the clip, from 0 to 1")
    height: int = Field(256, ge=8, description="height of the picture, in pixels")
    width: int = Field(512, ge=8, description="width of the picture, in pixels")

    @model_validator(mode="after")
    def _fit(self) -> FeatureSettings:
        if self.features == "mfcc" and self.coefficients > self.bands:
            raise ValueError(
                f"coefficients is {self.coefficients} and bands is {self.bands}: at most as many coefficients as bands "
                "were expected."
            )
        if self.hop > self.window:
            raise ValueError(f"hop is {self.hop} and window is {self.window}: a hop of at most window was expected.")
        return self


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    split: Literal["actor", "stratified"] = "actor",
    vocal: Literal["speech", "song", "both"] = "speech",
    seed: int = 0,
    sound_alone: bool = False,
    settings: FeatureSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write the features and the picture of every clip, and a list of the clips of each split.

    Args:
        raw: folder with the wav and mp4 files; subfolders are searched too (Actor_01, …).
        root: folder to write; run again with the same folder to continue an interrupted preparation.
        workers: worker processes; 0: work in this process.
        split: actor, so that no actor is in two splits; or stratified by emotion over all clips.
        vocal: speech, song or both.
        seed: seed of the split.
        sound_alone: write no pictures, so that the mp4 files are not needed.
        settings: how features and pictures are computed.
        progress: called with (clips done, clips in total).
    """
    from xmodal.data.media.sound import soundfile_module
    from xmodal.data.media.video import av_module

    # A missing package must stop here, with one message, and not be listed as the problem of every clip.
    for package in (soundfile_module,) if sound_alone else (soundfile_module, av_module):
        package()
    raw, root, settings = Path(raw), Path(root), settings or FeatureSettings()
    for what, value, choices in (
        ("split", split, ("actor", "stratified")),
        ("vocal", vocal, ("speech", "song", "both")),
    ):
        if value not in choices:
            raise InputError(f"{what} is '{value}'. {did_you_mean(value, choices)}")
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder. Expected: a folder with the recordings of RAVDESS (Actor_01, …).")
    pairs, refused = find_pairs(raw, vocal, sound_alone=sound_alone)
    if not pairs:
        first = f" The first of {len(refused)} files: {refused[0][0]}, {refused[0][1]}." if refused else ""
        wanted = "sound" if sound_alone else "sound and picture"
        files = "03-….wav" if sound_alone else "03-….wav and 01-….mp4 or 02-….mp4"
        advice = "" if sound_alone or not find_pairs(raw, vocal, sound_alone=True)[0] else " Or give --sound-alone."
        raise InputError(
            f"{raw} holds no clip with {wanted} (vocal: {vocal}). {files} of seven fields were expected.{first}{advice}"
        )
    items = [
        Item(
            pair.clip.name,
            tuple(str(path) for path in (pair.sound, pair.picture) if path is not None),
            {"settings": settings.model_dump()},
        )
        for pair in pairs
    ]
    # The lists are written last. Old lists go first, so that an interrupted preparation does not look complete.
    for name in FILES.values():
        (root / LISTS / name).unlink(missing_ok=True)
    (root / FACTS).unlink(missing_ok=True)
    prepared = prepare_items(
        items, read_clip, root, workers=workers, version=str(VERSION), refused=refused, progress=progress
    )
    if not prepared.names:
        raise InputError(
            f"None of the {len(items)} clips in {raw} can be used. See the reasons in {root / 'skipped.json'}."
        )
    clips = [pair.clip for pair in pairs if pair.clip.name in set(prepared.names)]
    rows = split_clips(clips, split, seed)
    for part, numbers in rows.items():
        write_list(root / LISTS / FILES[part], [clips[number] for number in numbers], sound_alone=sound_alone)
    facts: dict[str, Any] = {"features": settings.model_dump(), "vocal": vocal, "split": split, "seed": seed}
    facts["clips"] = {part: len(numbers) for part, numbers in rows.items()}
    facts["actors"] = {part: sorted({clips[number].actor for number in numbers}) for part, numbers in rows.items()}
    write_json(root / FACTS, {**facts, "skipped": len(prepared.skipped)})
    return prepared


def read_clip(item: Item) -> dict[str, NDArray[Any] | Content]:
    """The features of a clip, and its picture if its video is a source."""
    import torch

    settings = FeatureSettings.model_validate(item.facts["settings"])
    threads = torch.get_num_threads()
    # The last bits of the features depend on the number of threads: with one, every machine and worker agrees.
    torch.set_num_threads(1)
    try:
        features = sound_features(Path(item.sources[0]), settings)
    finally:
        torch.set_num_threads(threads)
    if len(item.sources) == 1:
        return {AUDIO: features}
    return {AUDIO: features, IMAGE: Content(".png", picture_of(Path(item.sources[1]), settings))}


def sound_features(path: Path, settings: FeatureSettings) -> NDArray[np.float32]:
    """The features of a wav file, (coefficients, frames)."""
    from xmodal.data.media.resampling import resample
    from xmodal.data.media.sound import fit_frames, log_mel, mfcc, read_sound

    sound = read_sound(path)
    if sound.seconds < settings.shortest:
        raise InputError(
            f"{path.name} is too short: {sound.seconds:.2f} s; at least {settings.shortest:g} s were expected."
        )
    if sound.peak < SILENT:
        raise InputError(f"{path.name} is silent: its largest sample is {sound.peak:.1e} of full scale.")
    waveform = resample(sound.waveform, sound.rate, settings.rate)
    if settings.features == "mfcc":
        features = mfcc(
            waveform,
            settings.rate,
            coefficients=settings.coefficients,
            bands=settings.bands,
            window=settings.window,
            hop=settings.hop,
        )
    else:
        features = log_mel(
            waveform, settings.rate, bands=settings.coefficients, window=settings.window, hop=settings.hop
        )
    return fit_frames(features, settings.frames)


def picture_of(path: Path, settings: FeatureSettings) -> bytes:
    """The picture of an mp4 file, as the bytes of a PNG."""
    from PIL import Image

    from xmodal.data.media.video import frames_at

    frames = frames_at(path, [settings.moment], height=settings.height, width=settings.width)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, "PNG")
    return buffer.getvalue()


def split_clips(clips: Sequence[Clip], split: str, seed: int) -> dict[str, NDArray[np.int64]]:
    """Rows of the three splits, 4 : 1 : 1: whole actors, as many men as women; or clips, stratified by emotion."""
    from xmodal.data.draw import stratified_split

    if split == "stratified":
        rows = stratified_split(np.array([clip.label for clip in clips]), SHARES, seed)
    else:
        actors = np.unique([clip.actor for clip in clips])
        parts = stratified_split(actors % 2, SHARES, seed)
        # With a handful of actors, stratifying by sex leaves a split empty: draw from all of them instead.
        if not all(len(part) for part in parts.values()):
            shuffled, size = np.random.default_rng(seed).permutation(len(actors)), max(1, len(actors) // 6)
            parts = {"test": shuffled[:size], "valid": shuffled[size : 2 * size], "train": shuffled[2 * size :]}
        actor_of_clip = np.array([clip.actor for clip in clips])
        rows = {part: np.flatnonzero(np.isin(actor_of_clip, actors[parts[part]])) for part in FILES}
    empty = [part for part, numbers in rows.items() if not len(numbers)]
    if empty:
        subject = "clips" if split == "stratified" else f"clips of {len(actors)} actors"
        advice = "Add recordings." if split == "stratified" else "Add recordings, or give --split stratified."
        raise InputError(
            f"{len(clips)} {subject} are too few for three splits: {', '.join(empty)} would be empty. {advice}"
        )
    return rows


def write_list(path: Path, clips: Sequence[Clip], *, sound_alone: bool = False) -> None:
    """Write the list of a split; of sound alone it has no column of pictures."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(SOUND_HEADER if sound_alone else HEADER)
    for clip in clips:
        names = (f"{clip.name}.npy",) if sound_alone else (f"{clip.name}.npy", f"{clip.name}.png")
        rows.writerow((*names, clip.label))
    write_text(path, buffer.getvalue())

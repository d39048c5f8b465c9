"""Checkpoints: written beside, flushed, renamed; the newest complete one is found again.

A checkpoint is a folder `step-000000123/` with `tensors.safetensors` and `state.json`, which holds the SHA-256 of the
tensors. The two newest are kept, so that a damaged newest one costs some steps and not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xmodal.files import SCHEMA, sync_folder

KEEP = 2


def save(folder: Path, number: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write checkpoint ``number`` and remove all but the two newest."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{number:09d}"
    beside = folder / f".step-{number:09d}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    # clones: safetensors refuses tensors that share memory
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        beside / "tensors.safetensors",
    )
    digest = hashlib.sha256((beside / "tensors.safetensors").read_bytes()).hexdigest()
    text = json.dumps({"schema": SCHEMA, "sha256": digest, "state": state})
    (beside / "state.json").write_text(text, encoding="utf-8")
    for file in beside.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(beside)
    if final.exists():
        shutil.rmtree(final)
    os.replace(beside, final)
    sync_folder(folder)
    for old in _complete(folder)[KEEP:]:
        shutil.rmtree(old)
    return final


def _complete(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def sweep(folder: Path) -> None:
    """Remove what a process killed while writing has left behind."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)


def load_newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
    """Tensors and state of the newest complete checkpoint, and a sentence for each one that was damaged."""
    if not folder.is_dir():
        return None
    notes: list[str] = []
    for path in _complete(folder):
        try:
            content = json.loads((path / "state.json").read_text(encoding="utf-8"))
            data = (path / "tensors.safetensors").read_bytes()
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            if hashlib.sha256(data).hexdigest() != content["sha256"]:
                raise ValueError("its checksum does not match")
            return load_file(path / "tensors.safetensors"), content["state"], notes
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            notes.append(f"Checkpoint {path.name} is damaged ({error}); going back to the one before.")
    return None if not notes else ({}, {}, notes)

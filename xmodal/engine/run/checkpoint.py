"""Checkpoints: written under a hidden name, flushed, renamed; the newest complete one is loaded.

A checkpoint is a folder `step-000000123/` with `tensors.safetensors` and `state.json`, which contains the SHA-256 of
the tensors. The two newest are kept: if the newest is damaged, training continues from the other one.
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

KEEP = 2  # checkpoints


def save(folder: Path, number: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write checkpoint ``number`` and remove all but the two newest."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{number:09d}"
    partial = folder / f".step-{number:09d}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # clones: safetensors refuses tensors that share memory
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        partial / "tensors.safetensors",
    )
    digest = hashlib.sha256((partial / "tensors.safetensors").read_bytes()).hexdigest()
    text = json.dumps({"schema": SCHEMA, "sha256": digest, "state": state})
    (partial / "state.json").write_text(text, encoding="utf-8")
    # Everything is flushed before the rename: after a power cut a folder with the final name must be complete. (The
    # checksum notices if a disk does not keep this promise.)
    for file in partial.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(partial)
    # a folder can't be renamed onto one that is not empty; a resumed run may save the same step again
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    sync_folder(folder)
    # old ones are deleted only once the new one is in place
    for old in _complete(folder)[KEEP:]:
        shutil.rmtree(old)
    return final


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def sweep(folder: Path) -> None:
    """Remove incomplete checkpoints of processes that were killed while they wrote."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)


def load_newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
    """Tensors and state of the newest undamaged checkpoint, and a message for each damaged one; None: there is none."""
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
    # all are damaged: an empty state, with which training starts from the beginning
    return None if not notes else ({}, {}, notes)

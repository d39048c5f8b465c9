"""What a training leaves for people who watch it: a log with times, and the scalars of every epoch for TensorBoard.

    log.txt                  2026-01-31T12:00:00+00:00  epoch 3/50  loss 0.8312  lr 0.001  lidar mean_iou 0.4100 …
    events.out.tfevents.0    `tensorboard --logdir RUN` shows it; nothing has to be installed to write it

Both repeat `history.jsonl`, which everything else reads. A resumed run writes the events of the epochs that it goes on
from again, so that no epoch is in the file twice, and says in the log where it went on.

An event file is a row of records: length (8 bytes), its checksum (4), content, its checksum (4), all little-endian. The
checksum is CRC-32C, rotated and shifted; the content is a protocol buffer ``Event``.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from xmodal.files import written_whole

LOG, EVENTS = "log.txt", "events.out.tfevents.0"
VERSION = "brain.Event:2"
WIRE = {"varint": 0, "double": 1, "bytes": 2, "float": 5}


class Journal:
    """Log and events of one training.

    Args:
        folder: of the run.
        title: what the log calls it.
        epochs: how many there are to be.
    """

    def __init__(self, folder: Path, *, title: str, epochs: int) -> None:
        self.folder, self.title, self.epochs = folder, title, epochs

    def begin(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Start both files, or go on behind the epochs that a resumed run has."""
        again = (self.folder / LOG).exists()
        with written_whole(self.folder / EVENTS) as beside:
            beside.write_bytes(record(event(version=VERSION)) + b"".join(map(epoch_record, history)))
        self._say(f"{'goes on' if again else 'begins'} at epoch {len(history) + 1}/{self.epochs}: {self.title}")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One epoch is over."""
        with open(self.folder / EVENTS, "ab") as file:
            file.write(epoch_record(row))
        scores = [
            f"{student} {name} {value:.4f}"
            for student, found in row["valid"].items()
            for name, value in found.items()
            if isinstance(value, int | float)
        ]
        rates = ", ".join(f"{rate:.4g}" for rate in dict.fromkeys(row["lr"]))
        terms = [f"{name} {value:.4f}" for name, value in row["losses"].items()]
        parts = [f"epoch {row['epoch'] + 1}/{self.epochs}", f"loss {row['loss']:.4f}", *terms, f"lr {rates}"]
        self._say("  ".join([*parts, *scores, f"{row['seconds']:.1f} s"]))

    def _say(self, text: str) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and value of all that one epoch measured.

    Example:
        >>> row = {"epoch": 0, "loss": 1.5, "losses": {"kd": 0.5}, "logs": {}, "lr": [0.1], "valid": {}, "seconds": 2.0}
        >>> dict(scalars(row))
        {'train/loss': 1.5, 'train/kd': 0.5, 'lr': 0.1, 'seconds': 2.0}
    """
    yield "train/loss", row["loss"]
    yield from ((f"train/{name}", value) for name, value in {**row["losses"], **row["logs"]}.items())
    rates = row["lr"]
    yield from ((f"lr {number}" if len(rates) > 1 else "lr", rate) for number, rate in enumerate(rates))
    for student, found in row["valid"].items():
        for name, value in found.items():
            if isinstance(value, int | float):
                yield f"valid/{student}/{name}", value
    yield "seconds", row["seconds"]


def epoch_record(row: Mapping[str, Any]) -> bytes:
    """The record of an epoch; its number is the step."""
    return record(event(step=row["epoch"], values=[*scalars(row)]))


def event(*, step: int = 0, version: str = "", values: Sequence[tuple[str, float]] = ()) -> bytes:
    """An ``Event``: when, and the version of the file or the values of a step."""
    content = _key(1, "double") + struct.pack("<d", time.time())
    content += (_key(2, "varint") + _varint(step)) if step else b""
    content += _bytes(3, version.encode()) if version else b""
    named = [_bytes(1, name.encode()) + _key(2, "float") + struct.pack("<f", value) for name, value in values]
    return content + (_bytes(5, b"".join(_bytes(1, value) for value in named)) if named else b"")


def record(content: bytes) -> bytes:
    """Content with its length and both checksums."""
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked(length)) + content + struct.pack("<I", masked(content))


def masked(content: bytes) -> int:
    """CRC-32C, rotated by 15 bits and shifted by a constant, so that checksums of checksums differ."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """The checksum of Castagnoli.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


TABLE = [_table_entry(byte) for byte in range(256)]


def _key(field: int, kind: str) -> bytes:
    return _varint(field << 3 | WIRE[kind])


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, "bytes") + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])

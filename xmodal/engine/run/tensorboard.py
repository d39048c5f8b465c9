"""What a training leaves for people who watch it: a log with times, and the scalars of every epoch for TensorBoard.

    log.txt                 2026-01-31T12:00:00+00:00  epoch 3/50  loss 0.8312  lr 0.001  lidar mean_iou 0.4100 …
    events.out.tfevents.*   shown by `tensorboard --logdir RUN`

Both repeat `history.jsonl`, which everything else reads. The events are written by the package ``tensorboard`` itself
(the extra ``tracking``); neither TensorFlow nor `torch.utils.tensorboard` is needed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from xmodal.errors import MissingExtra

LOG, EVENTS = "log.txt", "events.out.tfevents.*"


def tensorboard_installed() -> bool:
    """Whether the package that writes the events can be imported."""
    return importlib.util.find_spec("tensorboard") is not None


def require_tensorboard() -> None:
    """Refuse to track a training whose events could not be written."""
    if not tensorboard_installed():
        raise MissingExtra(
            "Tracking with TensorBoard", "tensorboard", "tracking", instead="train without it: --no-tracking"
        )


class TensorBoardLog:
    """Log and events of one training, open until `close`.

    Args:
        folder: of the run.
        title: what the log calls the training.
        epochs: how many epochs the training has in all.
        history: rows of the epochs that a resumed run already has; their events are written again.
    """

    def __init__(self, folder: Path, *, title: str, epochs: int, history: Sequence[Mapping[str, Any]] = ()) -> None:
        # imported here: it takes 0.3 s, and most trainings are not tracked
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder, self.epochs = folder, epochs
        resumed = (folder / LOG).exists()
        # A run that was killed may have written epochs behind its last checkpoint. They are trained again, and
        # TensorBoard shows all files of a folder, so the old file goes and its epochs are written from the history.
        # It goes first: names are made of time, process number and a counter, and could be the same.
        for old in folder.glob(EVENTS):
            old.unlink()
        self._writer = EventFileWriter(str(folder))
        for row in history:
            self._writer.add_event(epoch_event(row))
        self._writer.flush()
        self._log(f"{'resumes' if resumed else 'begins'} at epoch {len(history) + 1}/{epochs}: {title}")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write the row of an epoch that is over."""
        self._writer.add_event(epoch_event(row))
        # the writer has a thread and a queue of its own; without this the events wait up to two minutes for the disk
        self._writer.flush()
        scores = [
            f"{student} {name} {value:.4f}"
            for student, metrics in row["valid"].items()
            for name, value in metrics.items()
            if isinstance(value, int | float)
        ]
        rates = ", ".join(f"{rate:.4g}" for rate in dict.fromkeys(row["lr"]))
        terms = [f"{name} {value:.4f}" for name, value in row["losses"].items()]
        parts = [f"epoch {row['epoch'] + 1}/{self.epochs}", f"loss {row['loss']:.4f}", *terms, f"lr {rates}"]
        self._log("  ".join([*parts, *scores, f"{row['seconds']:.1f} s"]))

    def close(self) -> None:
        """Close the event file and end the writer's thread."""
        self._writer.close()

    def _log(self, text: str) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and value of every number that one epoch measured.

    Example:
        >>> row = {"epoch": 0, "loss": 1.5, "losses": {"kd": 0.5}, "logs": {}, "lr": [0.1], "valid": {}, "seconds": 2.0}
        >>> dict(scalars(row))
        {'train/loss': 1.5, 'train/kd': 0.5, 'lr': 0.1, 'seconds': 2.0}
    """
    rates = row["lr"]
    named = {
        "train/loss": row["loss"],
        **{f"train/{name}": value for name, value in {**row["losses"], **row["logs"]}.items()},
        **{f"lr {number}" if len(rates) > 1 else "lr": rate for number, rate in enumerate(rates)},
        **{
            f"valid/{student}/{name}": value
            for student, scores in row["valid"].items()
            for name, value in scores.items()
        },
        "seconds": row["seconds"],
    }
    # values per class are lists, and a value that was not finite is None in a history that was read back
    yield from ((name, value) for name, value in named.items() if isinstance(value, int | float))


def epoch_event(row: Mapping[str, Any]) -> Any:
    """The event that holds the scalars of an epoch; its step is the number of the epoch."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(row)]
    return Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))

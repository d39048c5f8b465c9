from __future__ import annotations

import io
from typing import Any

from xmodal.engine.progress import Progress


def row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 0.5, "valid": {"image": {"accuracy": 0.75, "per_class": [1.0]}}}


def test_plain_lines_come_for_the_last_epoch_and_name_the_fit() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, fits=2)
    for name in ("teacher", "kd"):
        progress.start(name, 3)
        for epoch in range(3):
            progress.epoch(row(epoch))
        progress.end()
    progress.close()

    lines = stream.getvalue().splitlines()
    assert any(line.startswith("teacher (1/2): epoch 3/3") for line in lines)
    assert lines[-1] == "kd (2/2): epoch 3/3  loss 0.5000  image: accuracy 0.7500"


def test_the_metric_that_chooses_the_epoch_is_told() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    progress.start("kd", 1, metric="mean_iou")
    progress.epoch({"epoch": 0, "loss": 0.5, "valid": {"depth": {"completion_iou": 0.75, "mean_iou": 0.25}}})

    assert stream.getvalue().endswith("depth: mean_iou 0.2500\n")


def test_more_fits_than_announced_are_counted() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, fits=2)
    for _ in range(3):
        progress.start("kd", 1)
        progress.epoch(row(0))
        progress.end()

    assert stream.getvalue().splitlines()[-1].startswith("kd (3/3): epoch 1/1")


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, quiet=True)
    progress.start("kd", 1)
    progress.epoch(row(0))
    progress.say("a note")

    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    stream = Terminal()
    progress = Progress(stream=stream)
    progress.start("kd", 2)
    progress.epoch(row(0))
    progress.say("half way")
    progress.end()
    progress.close()

    assert "half way" in stream.getvalue() and "epochs" in stream.getvalue()

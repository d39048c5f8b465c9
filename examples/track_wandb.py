"""Every training as a run of Weights & Biases, written to a folder without the network; `wandb sync` sends it later.

python examples/track_wandb.py

Needs the extra trackers: pip install -c constraints.txt "xmodal[trackers]". Half a minute on a CPU.
"""

from __future__ import annotations

from typing import Any

import wandb

import xmodal


class Wandb:
    """A callback: one run per training, of which the next one begins where the last one has ended."""

    def __init__(self) -> None:
        self.run: Any = None

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Log an epoch; the first one of a training begins a run."""
        title = f"{row['name']} seed {row['seed']}"
        if self.run is None or self.run.name != title:
            if self.run is not None:
                self.run.finish()
            self.run = wandb.init(project="xmodal", name=title, mode="offline")
        (scores,) = row["valid"].values()
        self.run.log({"loss": row["loss"], **row["losses"], **scores}, step=row["epoch"])

    def on_end(self, result: dict[str, Any]) -> None:
        """Add all test scores to the last run."""
        if self.run is None:  # a finished run folder was opened again
            return
        self.run.summary["test"] = {f"{row['name']} {row['seed']}": row["test"]["accuracy"] for row in result["rows"]}
        self.run.finish()


def main() -> None:
    data = xmodal.open_data("digits")
    done = xmodal.distill(data=data, teacher="rows", student="fourier", epochs=5, callbacks=[Wandb()])
    print(done)


if __name__ == "__main__":
    main()

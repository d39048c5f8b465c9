"""Every training as a run of MLflow in one sqlite file: losses and validation scores per epoch, test scores at the end.

python examples/track_mlflow.py; then mlflow ui --backend-store-uri sqlite:///tracked.db

Needs the extra trackers: pip install -c constraints.txt "xmodal[trackers]". Half a minute on a CPU.
"""

from __future__ import annotations

from typing import Any

import mlflow

import xmodal


class MLflow:
    """A callback: one MLflow run per training, named after it and its seed."""

    def __init__(self) -> None:
        mlflow.set_tracking_uri("sqlite:///tracked.db")
        self.runs: dict[str, str] = {}

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Log an epoch under the run of its training."""
        (scores,) = row["valid"].values()
        with self.run_of(row["name"], row["seed"]):
            mlflow.log_metrics({"loss": row["loss"], **row["losses"], **scores}, step=row["epoch"])

    def on_end(self, result: dict[str, Any]) -> None:
        """Log the test score of every training."""
        for row in result["rows"]:
            with self.run_of(row["name"], row["seed"]):
                mlflow.log_metric("test_accuracy", row["test"]["accuracy"])

    def run_of(self, name: str, seed: int) -> Any:
        """The run of a training, opened again for each row."""
        title = f"{name} seed {seed}"
        run = mlflow.start_run(run_id=self.runs.get(title), run_name=title)
        self.runs[title] = run.info.run_id
        return run


def main() -> None:
    data = xmodal.open_data("digits")
    done = xmodal.distill(data=data, teacher="rows", student="fourier", epochs=5, callbacks=[MLflow()])
    print(done)


if __name__ == "__main__":
    main()

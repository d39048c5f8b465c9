"""A script that distils with weights, a metric of its own and a callback; the argument is the number of processes."""

import json
import sys

import numpy as np

import xmodal


class Tell:
    def on_epoch(self, row):
        print(json.dumps([row["name"], row["epoch"], row["loss"]]), flush=True)

    def on_end(self, result):
        print(json.dumps([[row["name"], row["test"]["hits"], row["test"]["accuracy"]] for row in result["rows"]]))


def hits(chances, target):
    return (chances.argmax(dim=1) == target).float().mean()


if __name__ == "__main__":
    y = np.arange(90) % 3
    random = np.random.default_rng(0)
    clear, faint = (size * np.eye(3)[y] + random.normal(size=(90, 3)) for size in (3, 2))
    xmodal.distill(
        {"clear": clear, "faint": faint},
        y,
        teacher="clear",
        student="faint",
        epochs=2,
        batch_size=32,
        metrics={"hits": hits},
        callbacks=[Tell()],
        class_weights=[1.0, 2.0, 3.0],
        sample_weight=np.where(np.arange(90) % 2, 3.0, 1.0),
        training={"devices": int(sys.argv[1]), "accelerator": "cpu", "threads": 1, "precision": "64"},
    )

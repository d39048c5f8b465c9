"""Test accuracy of a logistic regression on each view of the built-in digits: the table in docs/data/digits.md.

python benchmarks/real/digits_reference.py

Views are standardised by the training split; five seeds, each with a split of its own; mean and standard deviation.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xmodal.data.digits import VIEWS, DigitsSettings, make_views, read_pixels
from xmodal.data.draw import stratified_split


def accuracy(view: np.ndarray, labels: np.ndarray, shares: tuple[float, float, float], seed: int) -> float:
    rows = stratified_split(labels, shares, seed)
    flat = view.reshape(len(view), -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(flat[rows["train"]], labels[rows["train"]])
    return float(100 * model.score(flat[rows["test"]], labels[rows["test"]]))


def main() -> None:
    pixels, labels = read_pixels()
    views = make_views(pixels, range(len(pixels)))
    few = DigitsSettings(train_share=0.1, valid_share=0.1, test_share=0.8).shares
    print("| view | 70 % train | 10 % train |\n|---|---|---|")
    for name in VIEWS:
        columns = [
            [accuracy(views[name], labels, shares, seed) for seed in range(5)]
            for shares in (DigitsSettings().shares, few)
        ]
        print(f"| `{name}` | " + " | ".join(f"{np.mean(c):.1f} ± {np.std(c, ddof=1):.1f}" for c in columns) + " |")


if __name__ == "__main__":
    main()

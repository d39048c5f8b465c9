"""Small pictures of boxes on the ground, seen by a camera and by a LiDAR, with labels for few pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xmodal.data.arrays import from_arrays

PALETTE = np.array([[0, 0, 0], [0.3, 0.5, 0.3], [0.9, 0.2, 0.2], [0.2, 0.3, 0.9]])
DEPTH = np.array([0.0, 1.0, 0.2, 0.6])


def scenes(rows=32, *, side=16, labelled=0.3, ignore=0, seed=0, label_losses=None):
    """Data with the classes ground, car and person, and 0 for pixels that nobody labelled; ``ignore`` renames those."""
    random = np.random.default_rng(seed)
    target = np.ones((rows, side, side), dtype=np.int64)
    for picture in target:
        for number in (2, 3, 2, 3):
            (height, width), (row, column) = random.integers(4, 8, 2), random.integers(0, side - 8, 2)
            picture[row : row + height, column : column + width] = number
    hit = random.random((rows, 1, side, side)) < 0.7
    depth = DEPTH[target][:, None] + 0.05 * random.normal(size=hit.shape)
    inputs = {
        "image": PALETTE[target].transpose(0, 3, 1, 2) + 0.05 * random.normal(size=(rows, 3, side, side)),
        "lidar": np.concatenate([depth * hit, hit], axis=1),
    }
    train = rows * 3 // 4
    target[:train][random.random((train, side, side)) > labelled] = ignore
    target[train:][~hit[train:, 0]] = ignore
    middle = (train + rows) // 2
    splits = {"train": np.arange(train), "valid": np.arange(train, middle), "test": np.arange(middle, rows)}
    data = from_arrays(inputs, target, splits=splits, ignore=ignore, normalise="none")
    data.info = replace(data.info, label_losses=label_losses or {})
    return data

"""What the networks of a bench predicted on the test split, as files in the folders of their trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.files import written_whole
from xmodal.metrics.counts import sparse_table
from xmodal.types import DataInfo

if TYPE_CHECKING:
    from torch import Tensor


def write_predictions(
    folder: Path, row: Mapping[str, Any], outputs: Mapping[str, Tensor], numbers: NDArray[Any], info: DataInfo
) -> None:
    """Write ``predictions/STUDENT.npz``, and ``confusion/STUDENT.npz`` where a result has no table of all classes.

    Args:
        folder: of the training.
        row: of the table of scores.
        outputs: ``index``, ``outputs`` and ``target`` on the test split.
        numbers: the rows of the data set that the split consists of; they do not change with the split.
        info: of the data.
    """
    arrays = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
    with written_whole(folder / "predictions" / f"{row['student']}.npz") as file:
        np.savez(file, rows=numbers[arrays["index"]], outputs=arrays["outputs"], target=arrays["target"])
    # of dense classes the predictions are the classes of all places, which say more than a table
    if "confused" in row["test"] and not info.dense:
        predicted = outputs["outputs"].argmax(dim=1)
        table: dict[str, Any] = sparse_table(predicted, outputs["target"], info.outputs, ignore=info.ignore)
        with written_whole(folder / "confusion" / f"{row['student']}.npz") as file:
            np.savez(file, **table)

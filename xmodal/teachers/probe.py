"""A linear probe: embeddings become a teacher by a linear model that is fitted on the labelled training rows."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.teachers.kinds import FLOOR

PENALTY = 1.0  # scikit-learn's default strength, on standardised embeddings


def probed(
    embeddings: NDArray[np.float32], target: NDArray[np.generic], labelled: NDArray[np.bool_], *, task: str, width: int
) -> NDArray[np.float32]:
    """Outputs (rows, width) of a linear model for all embeddings.

    Logistic regression for classes (one for each label of a multilabel target), ridge regression for values; the
    embeddings are standardised with the statistics of the rows that it is fitted on.

    Args:
        embeddings: (rows, features).
        target: of all rows, in the form of training targets.
        labelled: mask of the rows to fit on.
        task: of the data.
        width: of the outputs.

    Example:
        >>> x = np.array([[0.0], [1.0], [0.1], [0.9]], dtype=np.float32)
        >>> probed(x, np.array([0, 1, 0, 1]), np.full(4, True), task="multiclass", width=2).argmax(1).tolist()
        [0, 1, 0, 1]
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x, y = embeddings[labelled].astype(np.float64), np.asarray(target)[labelled]
    if len(x) < 2:
        raise InputError(f"The linear probe needs labelled rows with an embedding, and there are {len(x)}. Add labels.")
    scaler = StandardScaler().fit(x)
    x, everything = scaler.transform(x), scaler.transform(embeddings.astype(np.float64))
    if task == "regression":
        values = Ridge(alpha=PENALTY).fit(x, y.reshape(len(y), -1)).predict(everything)
        return np.asarray(values, dtype=np.float32).reshape(len(embeddings), width)
    if task == "multiclass":
        return _log_probabilities(x, y, everything, width)
    labels = y.reshape(len(y), -1)
    columns = [_log_probabilities(x, labels[:, place], everything, 2) for place in range(labels.shape[1])]
    return np.stack([column[:, 1] - column[:, 0] for column in columns], axis=1).astype(np.float32)


def _log_probabilities(
    x: NDArray[np.float64], classes: NDArray[np.generic], everything: NDArray[np.float64], width: int
) -> NDArray[np.float32]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    outputs = np.full((len(everything), width), np.log(FLOOR))
    known = np.unique(classes).astype(np.int64)
    if len(known) == 1:
        # a label that all rows have, or none
        outputs[:, known[0]] = 0.0
        return outputs.astype(np.float32)
    with warnings.catch_warnings():
        # a probe that is nearly converged is as good a teacher
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=1.0 / PENALTY, max_iter=1000).fit(x, classes)
    outputs[:, known] = np.maximum(model.predict_log_proba(everything), np.log(FLOOR))
    return outputs.astype(np.float32)

import numpy as np
import pytest

ROWS = 240


@pytest.fixture(scope="session")
def views():
    """Three classes seen twice, clearly and faintly, far from zero: without normalisation nothing can be predicted."""
    random = np.random.default_rng(0)
    label = np.arange(ROWS) % 3
    clear = 50.0 + 10.0 * (3.0 * np.eye(3, 6)[label] + random.normal(size=(ROWS, 6)))
    faint = -80.0 + 10.0 * (2.0 * np.eye(3, 4)[label] + random.normal(size=(ROWS, 4)))
    return {"clear": clear, "faint": faint}, label


@pytest.fixture(scope="session")
def splits():
    """Fixed rows of each split."""
    order = np.random.default_rng(1).permutation(ROWS)
    return {"train": order[:160], "valid": order[160:190], "test": order[190:]}

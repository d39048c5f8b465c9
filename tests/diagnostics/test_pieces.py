"""The other network of a saliency runs a few rows at a time, where that does not change its outputs."""

import torch
from torch import nn

from xmodal.diagnostics.activations import PIECE, run_both
from xmodal.models.network import wrap
from xmodal.types import Batch

ROWS = 2 * PIECE + 3


class Counting(nn.Module):
    """Records the number of rows of each call, and optionally returns the mean over the batch."""

    def __init__(self, mixing: bool) -> None:
        super().__init__()
        self.mixing, self.seen = mixing, []

    def forward(self, x):
        self.seen.append(len(x))
        return x - x.mean(dim=0) if self.mixing else 2 * x


def answers_of(other):
    torch.manual_seed(0)
    sound = torch.randn(ROWS, 3)
    batch = Batch({"sound": sound, "image": sound}, {})
    with torch.no_grad():
        _, (rows,) = run_both(
            wrap(nn.Linear(3, 3), ["sound"]), wrap(other, ["image"]), [batch], "module", targets=False, whole=False
        )
    return rows.other_outputs, sound


def test_independent_rows_are_run_in_pieces():
    other = Counting(mixing=False)

    answers, sound = answers_of(other)

    assert torch.equal(answers, 2 * sound) and max(other.seen) == PIECE


def test_rows_that_depend_on_one_another_are_run_together():
    other = Counting(mixing=True)

    answers, sound = answers_of(other)

    assert torch.equal(answers, sound - sound.mean(dim=0)) and other.seen[-1] == ROWS

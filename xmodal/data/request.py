"""What can be requested of any data set: the arguments that all loaders share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Options that every data set understands, besides those of its own settings class.

    Attributes:
        task: kind of target; empty: the one that the data suggests.
        train_fraction: share of the training rows to keep, drawn class by class: the low-label setting.
        labelled: labels to keep in training, see `xmodal.data.labels.Labels`; empty: all.
        labelled_groups: whole groups to keep the labels of, in place of ``labelled``; 0: none are named.
        valid_labels: labels to keep in validation; empty: as many as in training where some are hidden.
        augment: operations for training batches, for example ``noise:0.1,shift:1``; see `Augment.parse`.
        seed: of everything that is drawn and has no seed of its own: splits, samples of synthetic data, the train
            fraction and the augmentation.
        folds: into how many folds the rows are divided, in place of the splits of the data; 0: these are kept.
        fold: number of the fold that is the test split.
    """

    task: str = ""
    train_fraction: float = 1.0
    labelled: str = ""
    labelled_groups: int = 0
    valid_labels: str = ""
    augment: str = ""
    seed: int = 0
    folds: int = 0
    fold: int = 0

    @staticmethod
    def drawn(seed: int, folds: int) -> dict[str, Any]:
        """The fields that say what is drawn: everything from a seed, or the fold of this number with one seed for all.

        Example:
            >>> DataRequest.drawn(3, 0), DataRequest.drawn(3, 5)
            ({'seed': 3}, {'seed': 0, 'folds': 5, 'fold': 3})
        """
        # data that is drawn from a seed, such as its noise, has to be the same in all folds
        return {"seed": 0, "folds": folds, "fold": seed} if folds else {"seed": seed}

    def check_task(self, name: str, *tasks: str) -> None:
        """Raise an `InputError` if a task is requested that this data set does not offer.

        Args:
            name: of the data set, for the sentence.
            tasks: those that it offers.

        Example:
            >>> DataRequest(task="regression").check_task("mnist", "multiclass")
            Traceback (most recent call last):
            ...
            xmodal.errors.InputError: mnist has the task multiclass; regression was asked for. Leave the task out.
        """
        if self.task not in ("", *tasks):
            raise InputError(
                f"{name} has the task {' or '.join(tasks)}; {self.task} was asked for. Leave the task out."
            )

"""`xmodal.distill`: a teacher, its student and their controls from arrays, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.api.given import Given, given_weights
from xmodal.api.results import Distilled
from xmodal.api.study import run_on
from xmodal.data.options import validated
from xmodal.names import UNLABELLED
from xmodal.recipes import distill as recipe

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data


def distill(
    inputs: Mapping[str, Any] | None = None,
    target: Any = None,
    *,
    dataset: Any = None,
    data: Data | None = None,
    teacher: str | tuple[str, ...] = (),
    student: str | tuple[str, ...] = (),
    method: str = "kd",
    options: Mapping[str, Any] | None = None,
    task: str = "",
    epochs: int = 40,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    splits: Mapping[str, Any] | None = None,
    unlabelled: Mapping[str, Any] | None = None,
    unlabelled_label: int | None = UNLABELLED,
    groups: Any = None,
    split_by_group: bool = False,
    class_weights: str | Sequence[float] | None = None,
    sample_weight: Any = None,
    metrics: Mapping[str, Any] | None = None,
    student_network: nn.Module | None = None,
    teacher_network: nn.Module | None = None,
    teacher_from: Any = None,
    teacher_classes: Path | Sequence[str] | Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
    callbacks: Sequence[object] = (),
    out: str | Path | None = None,
    verbose: bool = False,
) -> Distilled:
    """Distil from arrays, tensors or a `torch.utils.data.Dataset`.

    Args:
        inputs: modality → array (rows, …).
        target: labels (rows,), a table for multi-label, floats for regression; modality → target when unpaired.
        dataset: in place of both, samples ``(inputs, target)`` with a dictionary of inputs.
        data: in place of these, opened data (`xmodal.open_data`).
        teacher: modalities of the teacher, one name or several; default: all.
        student: modalities at deployment; default: the last one.
        method: a name of `xmodal list methods`.
        options: settings of the method, by name.
        task: kind of target; default: inferred from its type.
        epochs: for each network.
        batch_size: rows per step.
        learning_rate: of Adam.
        seed: of weights, order of batches, and split.
        splits: train, valid, test → row numbers; default: drawn 70/10/20, class by class.
        unlabelled: modality → further rows without a label, for training.
        unlabelled_label: integer in ``target`` that stands for a missing label; None: no integer does.
        groups: a value per row, such as the speaker.
        split_by_group: whether drawn splits keep each group in one split.
        class_weights: weight of each class in the loss of labels, or ``balanced``: rare classes count as much as
            frequent ones.
        sample_weight: weight of each row of ``target`` in the loss of labels; the teacher's term and the scores count
            all rows alike.
        metrics: name → a torchmetrics object or a function of probabilities (or predicted values) and target, see
            `xmodal.metrics.further`; scored besides the usual ones.
        student_network: your own module in place of a built one; it takes a tensor, or a dictionary of several.
        teacher_network: the same for the teacher; it is trained here.
        teacher_from: a teacher that exists already and is used as it is: a path as in ``--teacher-from``, an array of
            outputs, a dictionary of arrays, or a module or function that takes a dictionary of raw inputs.
        teacher_classes: names of its classes, in the order of its outputs; or its class → yours; or a file of them.
        training: further flags of ``xmodal distill`` by name, such as ``{"optimizer": "sgd", "precision": "64"}`` or
            ``{"labelled": "30"}``.
        callbacks: objects with ``on_epoch(row)`` or ``on_end(result)``, see `xmodal.engine.callbacks`.
        out: run folder; None: nothing is written. A run of the same call in it is continued or, if it is finished,
            returned.
        verbose: print the progress to standard error.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 200)
        >>> clear, faint = y[:, None] + 0.1 * random.normal(size=(200, 4)), y[:, None] + random.normal(size=(200, 4))
        >>> done = distill({"clear": clear, "faint": faint}, y, teacher="clear", student="faint", epochs=5)
        >>> done.student.needs, done.scores["teacher"] > 0.9, done.predict(faint[:3]).shape
        (('faint',), True, (3,))
    """
    given = Given(
        inputs=inputs,
        target=target,
        dataset=dataset,
        data=data,
        task=task,
        splits=splits,
        unlabelled=unlabelled,
        unlabelled_label=unlabelled_label,
        groups=groups,
        split_by_group=split_by_group,
        sample_weight=sample_weight,
        metrics=metrics,
        student_network=student_network,
        teacher_network=teacher_network,
        teacher_from=teacher_from,
        teacher_classes=teacher_classes,
        callbacks=callbacks,
    )
    arguments = {
        "data": "arrays",
        "teacher": (teacher,) if isinstance(teacher, str) else teacher,
        "student": (student,) if isinstance(student, str) else student,
        "method": method,
        "options": {method: options or {}},
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "class_weights": given_weights(class_weights),
        "out": out,
    }
    # settings first: an error in them appears before the data is copied and split
    further = dict(training or {})
    given.check(arguments, further)
    settings = given.handed_to(validated(recipe.Settings, {**further, **arguments, **given.named}, "distill"))
    result, study = run_on(recipe.run, settings, given, resume=further.get("resume"), verbose=verbose)
    return Distilled(result, study)

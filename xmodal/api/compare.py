"""`xmodal.compare`: several methods on arrays, over seeds, with the controls that turn scores into evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.api.given import Given, given_weights
from xmodal.api.results import Compared
from xmodal.api.study import run_on
from xmodal.data.options import validated
from xmodal.errors import InputError, listed
from xmodal.names import UNLABELLED
from xmodal.recipes import compare as recipe

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data

SEEDS = 5


def compare(
    inputs: Mapping[str, Any] | None = None,
    target: Any = None,
    *,
    dataset: Any = None,
    data: Data | None = None,
    teacher: str | tuple[str, ...] = (),
    student: str | tuple[str, ...] = (),
    methods: str | Sequence[str] = ("supervised", "kd"),
    seeds: int | Sequence[int] = SEEDS,
    folds: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    metric: str = "",
    task: str = "",
    epochs: int = 40,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
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
    jobs: int | None = 1,
    out: str | Path | None = None,
    verbose: bool = False,
) -> Compared:
    """Compare methods on arrays, tensors or a `torch.utils.data.Dataset`, like the command ``xmodal compare``.

    Args:
        inputs: as in `xmodal.distill`, like all arguments that are not explained here.
        target: see there.
        dataset: see there; it is read once for each seed if splits are drawn.
        data: see there; its splits are those of all seeds.
        teacher: see there.
        student: see there.
        methods: names of `xmodal list methods`; `supervised` is the no-KD control, which is always trained.
        seeds: a number of them, or the seeds; each draws a split of its own, unless splits are given.
        folds: cross-validation in place of seeds: each fold is tested once, by group where there are any; 0: seeds.
        options: method → its settings, by name.
        metric: of the table; default: the one that selects the epoch.
        task: see there.
        epochs: see there.
        batch_size: see there.
        learning_rate: see there.
        splits: see there.
        unlabelled: see there.
        unlabelled_label: see there.
        groups: see there.
        split_by_group: see there.
        class_weights: see there.
        sample_weight: see there.
        metrics: see there.
        student_network: see there; every training starts from a copy.
        teacher_network: see there.
        teacher_from: see there.
        teacher_classes: see there.
        training: further flags of ``xmodal compare`` by name, such as ``{"losses": ("kl", "dkd")}``.
        callbacks: see there; they are called in this process, wherever a seed is trained.
        jobs: how many seeds are trained at the same time, each in a process of its own, to which arrays travel as
            memory maps; None: as many as there are free cores.
        out: see there.
        verbose: see there.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 200)
        >>> clear, faint = y[:, None] + 0.1 * random.normal(size=(200, 4)), y[:, None] + random.normal(size=(200, 4))
        >>> done = compare({"clear": clear, "faint": faint}, y, teacher="clear", student="faint", seeds=2, epochs=3)
        >>> list(done.scores), len(done.rows)
        (['teacher', 'no-KD', 'kd', 'kd (shuffled teacher)'], 8)
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
        "methods": (methods,) if isinstance(methods, str) else tuple(methods),
        "options": dict(options or {}),
        "metric": metric,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        # a number of folds says what the seeds are
        **({"folds": folds} if folds else {"seeds": tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)}),
        "class_weights": given_weights(class_weights),
        "jobs": jobs,
        "out": out,
    }
    # settings first: an error in them appears before the data is copied and split
    further = dict(training or {})
    given.check(arguments, further)
    check_choices(arguments, folds=folds, seeds=seeds, splits=splits)
    settings = given.handed_to(validated(recipe.Settings, {**further, **arguments, **given.named}, "compare"))
    if settings.sweep:
        raise InputError(
            "A sweep opens its data by name, with other options at each value. Use xmodal compare --sweep."
        )
    result, study = run_on(recipe.run, settings, given, resume=further.get("resume"), verbose=verbose)
    return Compared(result, study)


def check_choices(arguments: Mapping[str, Any], *, folds: int, seeds: int | Sequence[int], splits: Any) -> None:
    """Raise an error about choices that would have no effect in a comparison.

    Args:
        arguments: the settings of the call.
        folds: as in `compare`.
        seeds: as in `compare`.
        splits: as in `compare`.
    """
    problems = []
    if folds and not (isinstance(seeds, int) and seeds == SEEDS):
        problems.append("folds takes the place of seeds: each fold has weights of its own. Leave seeds out.")
    if folds and splits is not None:
        problems.append("folds divides all rows with a label, so splits would have no effect. Leave one of them out.")
    unused = [name for name in arguments["options"] if name not in arguments["methods"]]
    if unused:
        problems.append(
            f"options names {listed(unused)}, which is not among the methods. Add it there, or leave it out."
        )
    if problems:
        raise InputError(problems)

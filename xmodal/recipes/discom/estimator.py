"""DisCoM-KD as one object for Python: fit it on arrays, then predict with the student of one modality.

model = DisCoMKD(width=64, epochs=60, batch_size=32, learning_rate=1e-3).fit({"audio": a, "image": b}, y)
model.predict("audio", new)        # classes (values for regression) from raw samples of one modality
model.export("audio", "student")   # safetensors; DisCoMKD.load reads several of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xmodal.data.arrays import from_arrays
from xmodal.data.options import validated
from xmodal.deploy import Predictor, deployed, embed, run_torch
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.models.description import describe
from xmodal.models.student_file import STUDENT, load_student, save_student
from xmodal.recipes.discom.experiment import Settings, prepared
from xmodal.study.bench import Bench
from xmodal.types import DataInfo, Student


class DisCoMKD:
    """A student for each modality, trained together without a teacher.

    Args:
        seed: of weights, order of batches, and drawn splits.
        encoder: a name of `ENCODERS`; auto: by the shape of the samples.
        width: D of the embeddings, an even number; None: the default of the encoder.
        epochs: passes over the training rows.
        batch_size: rows per step and modality.
        learning_rate: of Adam.
        options: more settings of the recipe `discom`, by name: weights of the terms, ``domain_targets``, ``perp``, ….

    Example:
        >>> import numpy as np
        >>> y = np.arange(120) % 2
        >>> views = {"clear": y[:, None] + np.eye(120, 4), "faint": 2.0 * y[:, None] + np.eye(120, 3)}
        >>> model = DisCoMKD(width=8, epochs=20, batch_size=16, learning_rate=1e-2).fit(views, y)
        >>> model.modalities, bool((model.predict("faint", views["faint"]) == y).mean() > 0.9)
        (('clear', 'faint'), True)
        >>> sorted(model.embed("clear", views["clear"][:2]))
        ['informative', 'invariant', 'irrelevant']
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        encoder: str = "auto",
        width: int | None = None,
        epochs: int = 300,
        batch_size: int = 128,
        learning_rate: float = 1e-4,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        values: dict[str, Any] = {"encoder": encoder, "width": width, "epochs": epochs, "batch_size": batch_size}
        # a name of data that is not the demo, whose smaller numbers would replace these defaults
        values |= {"learning_rate": learning_rate, "seeds": (seed,), "data": "arrays"}
        self.settings = validated(Settings, {**values, **(options or {})}, "DisCoMKD")
        self.students: dict[str, tuple[Student, dict[str, Any]]] = {}
        self.history: list[dict[str, Any]] = []
        self.info: DataInfo | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that have a student."""
        return tuple(self.students)

    def fit(
        self,
        inputs: Mapping[str, Any],
        target: Any,
        *,
        splits: Mapping[str, Any] | None = None,
        task: str = "",
        normalise: str = "standard",
        callback: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> DisCoMKD:
        """Train all students; each keeps its best epoch on the validation rows.

        Args:
            inputs: modality → array (rows, …), two or more.
            target: one for all modalities; modality → target if the samples are unpaired.
            splits: train, valid, test → row numbers (unpaired: → modality → row numbers); None: drawn, 70/10/20.
            task: kind of target; empty: inferred from its type.
            normalise: ``standard`` or ``none``.
            callback: called after every epoch with its row: losses by name, validation metrics by modality.
        """
        (seed,) = self.settings.seeds
        data = from_arrays(inputs, target, splits=splits, task=task, normalise=normalise, seed=seed)
        data = prepared(data, self.settings)
        fabric = launch(self.settings.machine())
        progress = _Callback(callback) if callback else Progress(quiet=True)
        bench = Bench(data, self.settings.plan(tuple(inputs), data.info), seed=seed, fabric=fabric, progress=progress)
        bench.train_card(METHODS["discom"], self.settings.method(tuple(inputs)))
        run = bench.runs["discom"]
        self.students = {name: (student, describe(student, data.info)) for name, student in run.students.items()}
        self.history, self.info = list(run.history), data.info
        return self

    def predict(self, modality: str, samples: Any) -> NDArray[Any]:
        """Labels (rows,) as in the targets; zeros and ones (rows, labels) for several labels; values for regression."""
        predictions = self._predictor(modality).predict({modality: samples})
        return predictions.outputs if predictions.classes is None else predictions.predicted

    def predict_proba(self, modality: str, samples: Any) -> NDArray[Any]:
        """Probabilities (rows, classes); one column for a binary task."""
        if self._student(modality)[1]["task"] == "regression":
            raise InputError("The student of a regression task has no probabilities. Use predict.")
        return self._predictor(modality).predict({modality: samples}).outputs

    def embed(self, modality: str, samples: Any) -> dict[str, NDArray[Any]]:
        """``invariant``, ``informative``, ``irrelevant`` → (rows, width / 2)."""
        return embed(*self._student(modality), {modality: samples})

    def export(self, modality: str, path: str | Path) -> Path:
        """Write the student of one modality into a folder; the file contains no part of the other modalities."""
        student, _ = self._student(modality)
        # the normalisation of the inputs is part of the file, and comes from the data of the training
        if self.info is None:
            raise InputError("These students were loaded from files, so there is nothing to export. Copy the files.")
        return save_student(Path(path) / STUDENT, student, self.info)

    @classmethod
    def load(cls, paths: Sequence[str | Path]) -> DisCoMKD:
        """An object with students from their files, one modality each; they predict and can't be trained further."""
        model = cls()
        for path in paths:
            student, description = load_student(path)
            model.students[student.target] = student, description
        return model

    def _student(self, modality: str) -> tuple[Student, dict[str, Any]]:
        if modality not in self.students:
            hint = did_you_mean(modality, self.students) if self.students else "Call fit first."
            raise InputError(f"There is no student of '{modality}'. {hint}")
        return self.students[modality]

    def _predictor(self, modality: str) -> Predictor:
        student, description = self._student(modality)
        return Predictor(run_torch(deployed(student)), description)


class _Callback(Progress):
    """Progress that calls a function."""

    def __init__(self, callback: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(quiet=True)
        self.callback = callback

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Call the function with the row of an epoch."""
        self.callback(row)

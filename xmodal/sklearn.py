"""Estimators for scikit-learn: train with two kinds of features, predict with one.

    model = CrossModalClassifier().fit(X, y, teacher_X=other_sensor)
    model.predict(X_new)

``X`` is what exists at deployment, so pipelines, `clone`, `GridSearchCV` and `cross_val_score` work as with any other
estimator; ``teacher_X`` is an argument of `fit` alone, row by row beside ``X``. All rows train, and the weights are
those after the last epoch: what would be held out for a choice of the epoch is what scikit-learn holds out by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xmodal.api.students import TrainedStudent
from xmodal.data.base import Data, assemble
from xmodal.data.weights import with_class_weights, with_row_weights
from xmodal.deploy import deployed, on_cpu
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings, MachineSettings
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.models.network import evaluating
from xmodal.study.bench import CONTROL, Bench
from xmodal.study.fitness import unfit
from xmodal.study.plan import Plan, method_settings
from xmodal.types import SPLITS, Student

if TYPE_CHECKING:
    from xmodal.types import DataInfo

DEPLOYED, TEACHER = "X", "teacher_X"  # names of the two modalities
READS = ("both", "teacher_X")
BLOCK = 4096  # rows that are predicted at a time


class _CrossModal(BaseEstimator):  # type: ignore[misc]
    """What both estimators share; the arguments are explained there."""

    def _fitted(self, data: Data, seed: int) -> Student:
        """The student of the method, or a network that was trained on labels alone where there is no teacher."""
        taught = TEACHER in data.info.modalities
        card = METHODS[self.method if taught else "supervised"]
        settings = method_settings(card, self._options() if taught else {})
        if problems := unfit(card, data.info):
            raise InputError(problems)
        network = {"encoder": "mlp", "width": self.width}
        plan = Plan(
            data="arrays",
            teacher=(DEPLOYED, TEACHER) if self.teacher_reads == "both" else (TEACHER,),
            student=(DEPLOYED,),
            training=FitSettings(
                epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, keep="last"
            ),
            networks={"teacher": network, "student": network},
        )
        if not taught:
            plan = replace(plan, teacher=(DEPLOYED,))
        fabric = launch(MachineSettings(accelerator=self.accelerator))
        bench = Bench(data, plan, seed=seed, fabric=fabric)
        if card.name == "supervised":
            bench.train_control()
        else:
            bench.train_card(card, settings)
        students = bench.runs[CONTROL if card.name == "supervised" else card.name].students.values()
        return on_cpu(next(student for student in students if student.modalities == (DEPLOYED,)))

    def _options(self) -> dict[str, Any]:
        """The settings of the method."""
        return dict(self.options or {})

    def _data(self, X: NDArray[Any], teacher_X: Any, target: NDArray[Any], weight: Any, **facts: Any) -> Data:
        """All rows as training data; the other splits, which choose nothing here, are its first rows."""
        if len(X) < 2:
            raise ValueError(f"n_samples={len(X)}: a network needs at least 2 rows to train on.")
        if self.teacher_reads not in READS:
            raise ValueError(f"teacher_reads is {self.teacher_reads!r}: one of {', '.join(READS)} was expected.")
        columns = {DEPLOYED: X}
        if teacher_X is not None:
            if self.method == "supervised":
                raise ValueError("The method supervised has no teacher. Leave teacher_X out, or choose another method.")
            columns[TEACHER] = check_array(teacher_X, input_name="teacher_X", estimator=self)
            check_consistent_length(X, columns[TEACHER])
        for name, column in columns.items():
            if np.abs(column).max(initial=0) > np.finfo(np.float32).max:
                raise ValueError(f"{name} has values beyond {np.finfo(np.float32).max:.2g}. Scale them first.")
        rows = np.arange(len(X))
        known = rows[facts.pop("labelled")]
        parts = {"train": rows, "valid": known[:2], "test": known[:2]}
        data = assemble(
            columns,
            dict.fromkeys(columns, target),
            {split: dict.fromkeys(columns, parts[split]) for split in SPLITS},
            normalise=dict.fromkeys(columns, "standard"),
            **facts,
        )
        if weight is None:
            return data
        return with_row_weights(data, _check_sample_weight(weight, X, ensure_non_negative=True))

    def _keep(self, student: Student, info: DataInfo) -> None:
        """Keep what predicts; in float64, so that predictions do not depend on how many rows come together."""
        # the targets belong to the training, and a pickled estimator should be small
        self._student, self._info = student, replace(info, train_targets={})
        self._network = deployed(on_cpu(student)).double().eval()

    def _outputs(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        with evaluating(self._network):
            parts = [
                self._network(torch.from_numpy(np.ascontiguousarray(X[first : first + BLOCK], dtype=np.float64)))
                for first in range(0, len(X), BLOCK)
            ]
        outputs: NDArray[Any] = torch.cat(parts).numpy()
        return outputs

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    @property
    def student_(self) -> TrainedStudent:
        """The student, which can be saved and exported; it needs neither this estimator nor scikit-learn."""
        check_is_fitted(self)
        return TrainedStudent(self._student, self._info)

    @property
    def info_(self) -> DataInfo:
        """Description of the data, as `xmodal.export_student` takes it."""
        check_is_fitted(self)
        return self._info

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))


class CrossModalClassifier(ClassifierMixin, _CrossModal):  # type: ignore[misc]
    """A classifier that is taught by a network with further features, which do not exist at deployment.

    Args:
        method: a name of `xmodal list methods` for pairs of rows, such as ``kd``.
        options: settings of the method, by name.
        temperature: softening of the outputs that are compared, a setting of methods with a frozen teacher; None: as in
            ``options``, or that of the method.
        teacher_reads: ``both`` (``X`` and ``teacher_X``) or ``teacher_X`` alone.
        epochs: of the teacher's and of the student's training.
        batch_size: rows per step.
        learning_rate: of Adam.
        width: of the two hidden layers of both networks.
        class_weight: ``balanced``, or a dictionary from class to weight; None: all classes count alike.
        unlabelled: value in ``y`` of rows without a label, from which only the teacher's term learns; None: every value
            is a class, -1 too.
        accelerator: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        random_state: seed of weights and batches.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: columns of ``X``.
        feature_names_in_: their names, if ``X`` was a data frame.
        student_: the `xmodal.api.students.TrainedStudent`.

    Example:
        >>> random = np.random.default_rng(0)
        >>> y = np.array(["no", "yes"])[np.arange(80) % 2]
        >>> X = (y == "yes")[:, None] + 0.3 * random.normal(size=(80, 2))
        >>> model = CrossModalClassifier(epochs=20, random_state=0).fit(X, y, teacher_X=X.sum(axis=1, keepdims=True))
        >>> model.predict([[0.0, 0.0], [1.0, 1.0]]).tolist()
        ['no', 'yes']
    """

    def __init__(
        self,
        *,
        method: str = "kd",
        options: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        teacher_reads: str = "both",
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        width: int = 32,
        class_weight: str | Mapping[Any, float] | None = None,
        unlabelled: Any = None,
        accelerator: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.options = options
        self.temperature = temperature
        self.teacher_reads = teacher_reads
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.width = width
        self.class_weight = class_weight
        self.unlabelled = unlabelled
        self.accelerator = accelerator
        self.random_state = random_state

    def fit(self, X: Any, y: Any, teacher_X: Any = None, sample_weight: Any = None) -> CrossModalClassifier:
        """Train a teacher and its student.

        Args:
            X: features that exist at deployment (rows, features), as an array or a data frame.
            y: a class per row; NaN is refused.
            teacher_X: features of the teacher, row by row beside ``X``; None: ``X`` trains on the labels alone.
            sample_weight: weight of each row in the loss of labels; the teacher's term counts all rows alike.
        """
        X, y = validate_data(self, X, y)
        # objects, such as strings with a missing value among them, pass the check of scikit-learn
        if y.dtype.kind == "O" and any(value is None or value != value for value in y.tolist()):
            raise ValueError("Input y contains NaN or None: a class for every row was expected.")
        labelled = np.ones(len(y), dtype=bool) if self.unlabelled is None else y != self.unlabelled
        if not labelled.any():
            raise ValueError(f"Every row of y is {self.unlabelled!r}, which means that it has no label. Label some.")
        check_classification_targets(y[labelled])
        self.classes_, numbers = np.unique(y[labelled], return_inverse=True)
        target = np.full(len(y), -1, dtype=np.int64)
        target[labelled] = numbers
        names = tuple(map(str, self.classes_)) if self.classes_.dtype.kind in "UO" else ()
        data = self._data(X, teacher_X, target, sample_weight, labelled=labelled, task="multiclass", class_names=names)
        if self.class_weight is not None:
            data = with_class_weights(data, self._class_weights())
        student = self._fitted(data, self._seed())
        # an exported student predicts the same labels as this estimator
        self._keep(student, replace(data.info, label_values=tuple(self.classes_.tolist())))
        return self

    def _options(self) -> dict[str, Any]:
        softened = {} if self.temperature is None else {"temperature": self.temperature}
        return {**super()._options(), **softened}

    def _class_weights(self) -> Any:
        if not isinstance(self.class_weight, Mapping):
            if self.class_weight != "balanced":
                raise ValueError(f"class_weight is {self.class_weight!r}: 'balanced' or a dictionary was expected.")
            return self.class_weight
        unknown = [label for label in self.class_weight if label not in self.classes_]
        if unknown:
            raise ValueError(f"class_weight names {unknown}, and the classes are {self.classes_.tolist()}.")
        return [self.class_weight.get(label, 1.0) for label in self.classes_]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probability of each class (rows, classes), in the order of ``classes_``."""
        chances: NDArray[Any] = torch.from_numpy(self._outputs(X)).softmax(dim=1).numpy()
        return chances

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each row."""
        # before `classes_` is read, which an estimator that is not fitted lacks
        numbers = self._outputs(X).argmax(axis=1)
        classes: NDArray[Any] = self.classes_[numbers]
        return classes


class CrossModalRegressor(RegressorMixin, _CrossModal):  # type: ignore[misc]
    """A regressor that is taught by a network with further features, which do not exist at deployment.

    Args:
        method: as in `CrossModalClassifier`, like all arguments that are not explained here.
        options: see there.
        teacher_reads: see there.
        epochs: see there.
        batch_size: see there.
        learning_rate: see there.
        width: see there.
        accelerator: see there.
        random_state: see there.

    Attributes:
        n_features_in_: columns of ``X``.
        feature_names_in_: their names, if ``X`` was a data frame.
        student_: the `xmodal.api.students.TrainedStudent`; it predicts in the units of ``y``.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> model = CrossModalRegressor(random_state=0).fit(X, 100 + 10 * X[:, 0], teacher_X=X[:, :1])
        >>> bool(95 < model.predict([[0.0, 0.0]])[0] < 105)
        True
    """

    def __init__(
        self,
        *,
        method: str = "kd",
        options: Mapping[str, Any] | None = None,
        teacher_reads: str = "both",
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        width: int = 32,
        accelerator: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.options = options
        self.teacher_reads = teacher_reads
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.width = width
        self.accelerator = accelerator
        self.random_state = random_state

    def fit(self, X: Any, y: Any, teacher_X: Any = None, sample_weight: Any = None) -> CrossModalRegressor:
        """Train a teacher and its student; arguments as in `CrossModalClassifier.fit`, ``y`` a number per row."""
        X, y = validate_data(self, X, y, y_numeric=True)
        y = y.astype(np.float64)
        # outputs of a network start near 0 with a spread near 1, and so do the values that it learns
        mean, std = float(y.mean()), float(y.std()) or 1.0
        scaled = METHODS[self.method].networks == "given"
        if not scaled:
            # the networks of a method have heads of their own, which do not scale back
            mean, std = 0.0, 1.0
        everything = np.ones(len(y), dtype=bool)
        data = self._data(X, teacher_X, (y - mean) / std, sample_weight, labelled=everything, task="regression")
        student = self._fitted(data, self._seed())
        if scaled:
            head: Any = student.module.head
            with torch.no_grad():
                head.weight.mul_(std)
                head.bias.mul_(std).add_(mean)
        self._keep(student, data.info)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The value of each row."""
        return self._outputs(X)[:, 0]

"""Reading deployed students: raw samples in, predictions out. No code from the file is executed.

student.safetensors ──weights + JSON──▶ builder ──▶ Deployed ─┐
student.onnx ──graph + JSON──▶ onnxruntime ───────────────────┴─run──▶ Predictor ──▶ Predictions

Both files contain a description (`read_description`): names and shapes of the inputs, their statistics, the task, the
names of the classes. `.pt2`, `.pt` and `.pth` are not read: opening such a file can run code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmodal.errors import InputError, MissingExtra, did_you_mean
from xmodal.models.description import HEADER, read_description
from xmodal.models.discom_net import Branches, Parts
from xmodal.models.network import evaluating, pick_input
from xmodal.models.student_file import STUDENT, load_student
from xmodal.types import Label, Normalisation, Student

# raw inputs of one batch → outputs before softmax or sigmoid
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


class Deployed(nn.Module):
    """A student that takes raw input and normalises it with the statistics of the training split.

    Args:
        module: takes a dictionary of normalised inputs.
        needs: names of the inputs it reads.
        normalisation: input → statistics; other inputs are not normalised.
    """

    def __init__(self, module: nn.Module, needs: Sequence[str], normalisation: Mapping[str, Normalisation]) -> None:
        super().__init__()
        self.module = module
        self.needs = tuple(needs)
        self._slots = {name: slot for slot, name in enumerate(self.needs) if name in normalisation}
        self._empty = {name for name in self._slots if normalisation[name].empty}
        # buffers are numbered because their names may not contain dots, as ``audio.lengths`` does
        for name, slot in self._slots.items():
            mean, std = normalisation[name].tensors()
            self.register_buffer(f"mean{slot}", mean)
            self.register_buffer(f"std{slot}", std)

    def forward(self, inputs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """The student's outputs for raw inputs: name → (batch, …), or the tensor alone where it reads one input."""
        if isinstance(inputs, Tensor):
            inputs = named_inputs(inputs, self.needs)
        outputs: Tensor = self.module(self.normalised(inputs))
        return outputs

    def normalised(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs after normalisation, as the module reads them."""
        return {name: self._normalised(name, inputs) for name in self.needs}

    def _normalised(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        raw = pick_input(inputs, name)
        if name not in self._slots:
            return raw
        slot = self._slots[name]
        normalised: Tensor = (raw - self.get_buffer(f"mean{slot}")) / self.get_buffer(f"std{slot}")
        return normalised * (raw != 0).any(dim=1, keepdim=True) if name in self._empty else normalised


def on_cpu(student: Student) -> Student:
    """A copy in eval mode, in the float32 in which every student is deployed."""
    module = copy.deepcopy(student.module).cpu().eval()
    if any(parameter.dtype == torch.float64 for parameter in module.parameters()):
        module.float()
    return replace(student, module=module)


def deployed(student: Student) -> Deployed:
    """A student as a module that takes raw input."""
    return Deployed(student.module, student.needs, student.normalisation)


def run_torch(module: nn.Module) -> Run:
    """A module that takes tensors, as a function of NumPy arrays."""

    def run(batch: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with evaluating(module):
            outputs = module({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()})
        array: NDArray[Any] = outputs.numpy()
        return array

    return run


def open_safetensors(path: Path) -> tuple[Run, dict[str, Any]]:
    """A function that runs a ``student.safetensors``, and its description."""
    student, description = load_student(path)
    return run_torch(deployed(student)), description


def onnx_session(path: Path) -> Any:
    """The onnxruntime session of a file, on the CPU with as many threads as torch has."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("Reading an ONNX file", "onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions have no common base class
    except Exception as error:
        raise InputError(f"{path} is damaged or not an ONNX file ({error}). Copy or export it again.") from error


def open_onnx(path: Path) -> tuple[Run, dict[str, Any]]:
    """A function that runs a ``student.onnx``, and its description."""
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of a student that was exported to ONNX.")
    session = onnx_session(path)
    header = session.get_modelmeta().custom_metadata_map.get(HEADER)
    if header is None:
        raise InputError(f"{path} is an ONNX file without the description of a student. Write it with `xmodal export`.")
    description = read_description(header, str(path))
    names = [node.name for node in session.get_inputs()]
    if not set(names) <= set(description["needs"]):
        raise InputError(
            f"{path} describes the inputs {description['needs']}, but its graph reads {names}. Export it again."
        )

    def run(batch: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        outputs: NDArray[Any] = session.run(None, {name: batch[name] for name in names})[0]
        return outputs

    return run, description


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of a student.

    Attributes:
        outputs: (rows, outputs): probabilities, or predicted values for regression.
        classes: (rows,) class numbers; for several labels (rows, labels) zeros and ones; None for regression.
        class_names: one per class; empty: the data had no names.
        label_values: the label of each class in the type in which the training data had it; empty: the class numbers.
    """

    outputs: NDArray[Any]
    classes: NDArray[np.int64] | None
    class_names: tuple[str, ...] = ()
    label_values: tuple[Label, ...] = ()

    @property
    def predicted(self) -> NDArray[Any]:
        """The predictions in the form of the targets: labels of their type, a table of 0 and 1, or values.

        One regressed value per sample makes (rows,), several make (rows, values).

        Example:
            >>> Predictions(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), label_values=("cat", "dog")).predicted
            array(['cat', 'dog'], dtype='<U3')
        """
        if self.classes is None:
            return self.outputs[:, 0] if self.outputs.ndim == 2 and self.outputs.shape[1] == 1 else self.outputs
        return np.array(self.label_values)[self.classes] if self.label_values else self.classes

    @property
    def labels(self) -> list[str]:
        """The predicted class of each sample, by name or else by number; several labels are joined by commas."""
        if self.classes is None:
            raise InputError("A regression student predicts values, not classes. Read `outputs`.")
        if self.classes.ndim > 2:
            raise InputError("A student of dense targets predicts a class for every pixel or voxel. Read `classes`.")
        if self.classes.ndim == 1:
            return [self._name(int(number)) for number in self.classes]
        return [", ".join(self._name(int(number)) for number in np.flatnonzero(row)) for row in self.classes]

    def _name(self, number: int) -> str:
        return self.class_names[number] if self.class_names else str(number)


class Predictor:
    """A student that was read from a file.

    Args:
        run: raw inputs of one batch → outputs.
        description: what `read_description` returns.
    """

    def __init__(self, run: Run, description: Mapping[str, Any]) -> None:
        self._run = run
        self.description = dict(description)
        self.needs = tuple(description["needs"])

    def predict(self, inputs: Any, *, batch_size: int = 256) -> Predictions:
        """Predictions for raw samples, which must not be normalised.

        Args:
            inputs: name → (rows, …) arrays, tensors or data frames; inputs that the student does not need are ignored.
                A student that reads one input takes it without its name, too.
            batch_size: rows per forward pass; memory maps are read in the same blocks.
        """
        raw = self.raw_outputs(inputs, batch_size=batch_size)
        expected = 1 if self.description["task"] == "binary" else self.description["classes"]
        if raw.ndim == 2 and raw.shape[1] != expected:
            raise InputError(
                f"The student has {raw.shape[1]} outputs, its description says {expected}. Export the student again."
            )
        outputs, classes = interpret(raw, self.description["task"])
        names, labels = self.description["class_names"], self.description["label_values"]
        return Predictions(outputs, classes, tuple(names), tuple(labels))

    def raw_outputs(self, inputs: Mapping[str, Any], *, batch_size: int = 256) -> NDArray[Any]:
        """The outputs before softmax or sigmoid, (rows, outputs), for raw samples; arguments as in `predict`."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: expected 1 or more.")
        arrays = check_inputs(inputs, self.description)
        rows = len(arrays[self.needs[0]])
        parts = [
            self._run(read_batch(arrays, self.description, first, min(first + batch_size, rows)))
            for first in range(0, rows, batch_size)
        ]
        return np.concatenate(parts)


def embed(student: Student, description: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The parts of a student's embedding, for networks whose embedding has parts (those of the method discom).

    Args:
        student: as `load_student` returned it.
        description: as `load_student` returned it.
        inputs: name → raw (rows, …) arrays or tensors.

    Returns:
        ``invariant``, ``informative`` and ``irrelevant`` → (rows, width).
    """
    if not isinstance(student.module, Branches):
        raise InputError(
            "The embedding of this student has no parts. Students of the method discom have the parts invariant, "
            "informative and irrelevant: give one of those."
        )
    whole, arrays = deployed(student), check_inputs(inputs, description)
    rows, parts = len(arrays[student.needs[0]]), []
    with evaluating(whole):
        for first in range(0, rows, 256):
            batch = read_batch(arrays, description, first, min(first + 256, rows))
            parts.append(
                student.module.embed(whole.normalised({name: torch.from_numpy(x) for name, x in batch.items()}))
            )
    return {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in Parts._fields}


def interpret(outputs: NDArray[Any], task: str) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Probabilities and classes from a network's outputs; for regression the outputs and None.

    Example:
        >>> interpret(np.array([[0.0, 0.0, -50.0], [0.0, 2.0, 0.0]]), "multiclass")[1].tolist()
        [0, 1]
    """
    logits = torch.from_numpy(outputs)
    if task == "multiclass":
        return torch.softmax(logits, dim=1).numpy(), logits.argmax(dim=1).numpy()
    if task in ("binary", "multilabel"):
        probabilities = torch.sigmoid(logits).numpy()
        classes = (probabilities > 0.5).astype(np.int64)
        return probabilities, classes[:, 0] if task == "binary" else classes
    return outputs, None


def named_inputs(inputs: Any, needs: Sequence[str]) -> Mapping[str, Any]:
    """A dictionary of inputs: the given one, or a single array under the name of the one input that is needed."""
    if isinstance(inputs, Mapping):
        return inputs
    if len(needs) != 1:
        raise InputError(
            f"The inputs are {type(inputs).__name__}, and the student reads {', '.join(needs)}: a dictionary with "
            "these names was expected."
        )
    return {needs[0]: inputs}


def check_inputs(inputs: Any, description: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that a student needs, with checked shapes and types; one error lists all problems."""
    arrays, problems = {}, []
    inputs = named_inputs(inputs, description["needs"])
    for name in description["needs"]:
        if name not in inputs:
            problems.append(f"The student reads '{name}', which was not given. {did_you_mean(name, inputs)}")
            continue
        value = inputs[name]
        arrays[name] = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asanyarray(value)
        problems += _mismatches(name, arrays[name], description["inputs"][name])
    if len({len(array) for array in arrays.values() if array.ndim}) > 1:
        counts = ", ".join(f"'{name}' {len(array)}" for name, array in arrays.items() if array.ndim)
        problems.append(f"The inputs have different numbers of samples ({counts}). Row i of each must be one sample.")
    if problems:
        raise InputError(problems)
    return arrays


def _mismatches(name: str, array: NDArray[Any], facts: Mapping[str, Any]) -> list[str]:
    kinds = "fiub" if facts["dtype"].startswith("float") else "iub"
    if array.dtype.kind not in kinds:
        return [f"'{name}' holds {array.dtype}: expected numbers that become {facts['dtype']}. Convert it first."]
    shape, dynamic = facts["shape"], facts["dynamic"]
    expected = f"({', '.join(['rows', *('any' if axis in dynamic else str(side) for axis, side in enumerate(shape))])})"
    # the shape of one sample: the usual mistake
    if list(array.shape) == shape:
        return [
            f"'{name}' is one sample of shape {array.shape}: expected {expected}. Add an axis in front, array[None]."
        ]
    fits = array.ndim == 1 + len(shape) and all(
        axis in dynamic or side == size for axis, (side, size) in enumerate(zip(shape, array.shape[1:], strict=True))
    )
    if not fits:
        return [f"'{name}' has shape {array.shape}: expected {expected}, as in training. Reshape or resample it."]
    return [] if len(array) else [f"'{name}' has no samples: expected {expected} with one row or more."]


def read_batch(
    arrays: Mapping[str, Any], description: Mapping[str, Any], first: int, last: int
) -> dict[str, NDArray[Any]]:
    """Some rows of checked arrays, in the student's types; NaN and infinity are refused, naming the sample."""
    batch = {}
    for name, array in arrays.items():
        # a value too large for the type becomes infinite, which is reported below
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(array[first:last], dtype=description["inputs"][name]["dtype"])
        bad = np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))
        if len(bad):
            raise InputError(
                f"Sample {first + bad[0]} of '{name}' holds NaN or infinite values. Fill or drop such samples first."
            )
        batch[name] = part
    return batch


def open_student(path: Path | str) -> Predictor:
    """Open a student for prediction.

    Args:
        path: a ``.safetensors`` or ``.onnx`` file of a student, or a folder with such a file.
    """
    path = Path(path)
    if path.is_dir():
        files = [path / name for name in (STUDENT, "student.onnx") if (path / name).is_file()]
        if not files:
            nested = sorted(str(file.parent) for file in path.glob(f"students/*/{STUDENT}"))
            hint = f"It holds students in: {', '.join(nested)}." if nested else "Write one with `xmodal export`."
            raise InputError(f"The folder {path} holds neither {STUDENT} nor student.onnx. {hint}")
        path = files[0]
    if path.suffix == ".safetensors":
        return Predictor(*open_safetensors(path))
    if path.suffix == ".onnx":
        return Predictor(*open_onnx(path))
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Give a student that was written by `xmodal export`.")
    raise InputError(
        f"{path} cannot be opened for prediction: a student is a .safetensors or .onnx file. Files such as .pt, .pth, "
        ".pt2 and .pkl can run code when they are opened, so xmodal does not read them. Export the student again."
    )

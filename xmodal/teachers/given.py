"""A teacher that exists already, as the network that a method with a frozen teacher receives.

    a student of the same classes        its network, which reads the modalities of the data
    everything else                      its outputs, as a further input of the data that the "network" returns

The outputs of a function, an ONNX file or a model folder are computed once for all rows, from raw inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from xmodal.data.base import Data
from xmodal.data.split import Partial
from xmodal.errors import InputError
from xmodal.models.network import Reads, StoredEmbeddings, checked
from xmodal.teachers.agreement import by_chance, labelled_as, targets_of
from xmodal.teachers.attached import ANSWERS, attached
from xmodal.teachers.classes import class_map, with_named_classes
from xmodal.teachers.compute import Say, computed, identity_of
from xmodal.teachers.fingerprint import digest
from xmodal.teachers.functions import Function, as_function, function_in
from xmodal.teachers.kinds import outputs_of
from xmodal.teachers.probe import probed
from xmodal.teachers.renormalise import read_alike
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.students import names_of_classes, open_teacher_student, same_data
from xmodal.teachers.table import Table, read_table, rows_in, table_of
from xmodal.types import SPLITS, Student
from xmodal.types import owner as owner_of


@dataclass
class Given:
    """A teacher that is used as it is.

    Attributes:
        data: with its outputs as a further input, if it is no network of ours.
        student: it, as the network of a side.
        scored: whether it can be scored on the validation and test split.
        notes: how it was read, for the result.
        digest: a hash of its weights or outputs: a run that is continued needs the same.
    """

    data: Data
    student: Student
    scored: bool
    notes: list[str] = field(default_factory=list)
    digest: str = ""


def open_teacher(request: TeacherRequest, data: Data, modalities: Sequence[str], *, say: Say | None = None) -> Given:
    """Open a teacher for some data; what does not fit is refused before anything is trained.

    Args:
        request: names the teacher.
        data: paired.
        modalities: what a function, an ONNX file or a model folder receives.
        say: shows a message to the user.
    """
    if not data.info.paired:
        raise InputError("A given teacher answers for samples, and this data is unpaired. Give paired data.")
    source = request.source
    if isinstance(source, str | Path):
        return _of_text(request, str(source), data, modalities, say)
    if isinstance(source, Student):
        return _of_student(request, source, data)
    if callable(source):
        function = as_function(source, request.label)
        return _of_function(request, function, data, modalities, identity=identity_of(source), owner=source, say=say)
    return _of_table(request, table_of(source, request.outputs, where=request.label), data)


def _of_text(request: TeacherRequest, text: str, data: Data, modalities: Sequence[str], say: Say | None) -> Given:
    from xmodal.teachers.hugging_face import is_model_folder, model_function
    from xmodal.teachers.onnx_file import onnx_function

    if ".py:" in text:
        teacher = function_in(text)
        function = as_function(teacher, text)
        return _of_function(request, function, data, modalities, identity=identity_of(teacher), owner=teacher, say=say)
    path = Path(text)
    if path.suffix in (".npy", ".npz"):
        return _of_table(request, read_table(path, request.outputs), data)
    if not path.exists():
        raise InputError(
            f"There is no teacher in {text}. Give a run folder, a student file, a table (.npy, .npz), an .onnx file, a "
            "local model folder, or file.py:function."
        )
    if path.suffix == ".onnx":
        function, names = onnx_function(path)
        return _of_function(request, function, data, modalities, identity=identity_of(path), names=names, say=say)
    if path.is_dir() and is_model_folder(path):
        function, kind, names = model_function(path)
        identity = identity_of(path)
        return _of_function(request, function, data, modalities, identity=identity, kind=kind, names=names, say=say)
    student, description, file = open_teacher_student(path)
    if same_data(student, description, data.info) and request.classes is None:
        return _of_student(request, student, data)
    return _of_other_student(request, file, description, data, say)


def _of_student(request: TeacherRequest, student: Student, data: Data) -> Given:
    """A network of ours, which takes part in the training like a teacher that was trained here."""
    if request.probe or request.outputs not in ("auto", "logits"):
        raise InputError(
            "--teacher-probe and --teacher-outputs are about tables, and the teacher is a student of ours."
        )
    read_alike(student, data.info)
    checked(student, data.info)
    note = _note(request, f"it reads {', '.join(student.needs)}")
    return Given(data, student, True, [note], digest=identity_of(student.module))


def _of_other_student(
    request: TeacherRequest, file: Path, description: Mapping[str, Any], data: Data, say: Say | None
) -> Given:
    """A student of ours with other classes or another task: its outputs for raw samples."""
    from xmodal.deploy import open_student

    predictor = open_student(file)
    names = names_of_classes(description) or tuple(map(str, range(description["classes"])))
    if description["task"] != data.info.task:
        raise InputError(f"The student in {file} was trained for {description['task']}, the data is {data.info.task}.")
    return _of_function(
        request,
        predictor.raw_outputs,
        data,
        tuple(dict.fromkeys(map(owner_of, predictor.needs))),
        identity=identity_of(file),
        kind="values" if description["task"] == "regression" else "logits",
        names=names,
        say=say,
    )


def _of_function(
    request: TeacherRequest,
    function: Function,
    data: Data,
    modalities: Sequence[str],
    *,
    identity: str,
    owner: object = None,
    kind: str = "auto",
    names: tuple[str, ...] = (),
    say: Say | None = None,
) -> Given:
    """A teacher that is code: its outputs for all rows of the three splits."""
    if data.info.dense:
        raise InputError(
            "The data has a target for every pixel or voxel, and the outputs of a function for all of them take too "
            "much memory. Give a student file of xmodal as the teacher."
        )
    data.info.require(tuple(modalities), "teacher")
    inputs = [name for name in data.info.inputs if owner_of(name) in modalities]
    # of the data with all labels: hidden ones leave rows out, others for each seed, and the outputs would not be shared
    whole = data.revealed or data
    rows = np.unique(np.concatenate([next(iter(whole.split(name).numbers.values())) for name in SPLITS]))
    for name in modalities:
        # of rows that lack a modality there is nothing to ask a teacher about
        column = data.train.columns[name]
        rows = rows[column.present[rows]] if isinstance(column, Partial) else rows
    where = request.label
    values = computed(function, data, rows, inputs=inputs, identity=identity, where=where, owner=owner, say=say)
    if request.outputs != "auto" and kind not in ("auto", request.outputs):
        raise InputError(f"{where} returns {kind}, and --teacher-outputs says {request.outputs}. Leave it out.")
    chosen = request.outputs if request.outputs != "auto" else kind
    table = Table(where, chosen, values, rows=rows, class_names=names)
    return _of_table(request, table, data)


def _of_table(request: TeacherRequest, table: Table, data: Data) -> Given:
    """A table of outputs or embeddings."""
    info, where = data.info, table.where
    if info.dense:
        raise InputError(
            f"{where} is a table, and the data has a target for every pixel or voxel. Give a student file of xmodal."
        )
    rows = rows_in(table, data)
    if table.kind == "embeddings" or request.probe:
        return _of_embeddings(request, table, rows, data)
    table = with_named_classes(table, request.classes, info)
    mapping = class_map(request.classes, table.class_names, info, where)
    width = mapping.width if info.task != "regression" else info.outputs
    answers, sentence = outputs_of(table, task=info.task, classes=width)
    answers = mapping(answers, info.task)
    known = ~np.isnan(answers).any(axis=1) & ~labelled_as(mapping.lacking, rows, data)
    answers, rows = answers[known], rows[known]
    notes = [sentence, *([mapping.sentence] if mapping.sentence else [])]
    if chance := by_chance(answers, rows, data):
        # the order of a table without row numbers is a promise of its author, and this one is probably broken
        if not table.named:
            raise InputError(
                f"{where} is {chance}: its rows are probably not in the order of the data, or its columns not in "
                "that of the classes. Say which rows they are (arrays rows or ids of an .npz file), or name the "
                "classes (--teacher-classes)."
            )
        notes.append(f"it is {chance}, so check what it receives and which classes it predicts")
    return _stored(request, data, answers, rows, notes)


def _of_embeddings(request: TeacherRequest, table: Table, rows: NDArray[np.int64], data: Data) -> Given:
    """Embeddings: as they are for losses of features, or with a linear probe as a teacher."""
    where, values = table.where, table.values
    if values.dtype.kind not in "biuf" or values.ndim != 2 or table.kind not in ("auto", "embeddings"):
        raise InputError(f"{where} holds no embeddings: numbers of the shape (rows, features) were expected.")
    if request.classes is not None:
        raise InputError("--teacher-classes names classes, and embeddings have none. Leave it out.")
    known = ~np.isnan(values.astype(np.float64)).any(axis=1)
    answers, rows = values[known].astype(np.float32), rows[known]
    if not request.probe:
        given = _stored(request, data, answers, rows, [f"its {answers.shape[1]} features are compared as they are"])
        width = answers.shape[1]
        given.student = Student(StoredEmbeddings(ANSWERS, width), (ANSWERS,), ANSWERS)
        given.scored = False
        return given
    target, labelled = targets_of(rows, data)
    answers = probed(answers, target, labelled, task=data.info.task, width=data.info.outputs)
    sentence = f"a linear probe of its {values.shape[1]} features, fitted on {int(labelled.sum())} labelled rows"
    return _stored(request, data, answers, rows, [sentence])


def _stored(
    request: TeacherRequest, data: Data, answers: NDArray[np.float32], rows: NDArray[np.int64], notes: list[str]
) -> Given:
    changed, complete = attached(data, answers, rows)
    count, total = changed.info.present.get(ANSWERS), len(data.train)
    if count is not None and count < total:
        notes.append(f"it has an answer for {count} of {total} training rows")
    if not complete:
        notes.append("it has no answers for all rows of validation and test, so it has no score here")
    # as float32 also where the data will be float64: the answers are no more exact
    student = Student(Reads(nn.Identity(), (ANSWERS,)), (ANSWERS,), ANSWERS)
    return Given(changed, student, complete, [_note(request, "; ".join(notes))], digest=digest([answers, rows]))


def _note(request: TeacherRequest, sentence: str) -> str:
    return f"The teacher is {request.label}, used as it is: {sentence}."

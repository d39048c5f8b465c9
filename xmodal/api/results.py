"""What `distill` and `compare` return: scores, verdict, students that take raw arrays, files and a page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.api.students import TrainedStudent
from xmodal.data.loader import in_order
from xmodal.errors import InputError, did_you_mean
from xmodal.export import export_student
from xmodal.files import write_json, write_rows
from xmodal.reports.glance import glance
from xmodal.reports.numbers import number, unit
from xmodal.reports.page import write_page
from xmodal.reports.tables import comparison_table, plain_table
from xmodal.study.opening import PAGE

if TYPE_CHECKING:
    from xmodal.api.study import GivenStudy
    from xmodal.study.parallel.trained import TrainedSeed
    from xmodal.types import DataInfo

ENDINGS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "torch"}
SAMPLES = 64  # rows of the validation split on which a written file is compared with the student


class Result:
    """What `Distilled` and `Compared` share.

    Attributes:
        result: everything that was measured, as in `result.json` of a run folder.
        rows: one row per seed and network, with its scores on the validation and on the test split.
        info: description of the data.
        folder: the run folder; None if nothing was written.
    """

    def __init__(self, result: dict[str, Any], study: GivenStudy) -> None:
        self.result, self._study = result, study
        self.rows: list[dict[str, Any]] = result["rows"]
        self.folder: Path | None = study.out
        self._students: dict[tuple[int, str, str], TrainedStudent] = {}

    @property
    def info(self) -> DataInfo:
        """Description of the data: shapes, task, classes, statistics."""
        return self._first.info

    @property
    def _first(self) -> TrainedSeed:
        return next(iter(self._study.trained.values()))

    @property
    def scores(self) -> dict[str, float]:
        """Name → test score of every network, the mean over the seeds."""
        by_name: dict[str, list[float]] = {}
        for row in self.rows:
            by_name.setdefault(row["name"], []).append(row["test"][self.result["metric"]])
        return {name: sum(values) / len(values) for name, values in by_name.items()}

    @property
    def verdict(self) -> str:
        """What the run says of the methods, and which student to ship."""
        row, why = self._shipped(), (self.result.get("ship") or {}).get("why", "")
        ship = f"The student to ship: {row['name']}" + (f", seed {row['seed']}." if self._several else ".")
        return "\n".join([*self.result["verdict"], f"{ship} {why}".strip()])

    @property
    def _several(self) -> bool:
        return len({row["seed"] for row in self.rows}) > 1

    @property
    def student(self) -> TrainedStudent:
        """The student of this result, which takes raw arrays."""
        return self._student_of(self._row())

    def _row(self) -> Mapping[str, Any]:
        """The row of the student of this result."""
        return self._shipped()

    def _shipped(self) -> Mapping[str, Any]:
        """The row of the student that the run says to ship."""
        ship = self.result.get("ship")
        for row in self.rows:
            if ship and all(row[key] == ship[key] for key in ("name", "seed", "student") if key in ship):
                return row
            if not ship and self.result.get("deploy", "").startswith(f"{row['folder']}/students/{row['student']}/"):
                return row
        raise AssertionError("the result names a student to ship that has no row")

    def _student_of(self, row: Mapping[str, Any]) -> TrainedStudent:
        key = (row["seed"], row["name"], row["student"])
        if key not in self._students:
            bench = self._study.trained[row["seed"]]
            self._students[key] = TrainedStudent(bench.runs[row["name"]].students[row["student"]], bench.info)
        return self._students[key]

    def predict(self, inputs: Any) -> NDArray[Any]:
        """The labels, or values, that the student predicts for raw samples.

        Args:
            inputs: name → (rows, …) arrays, tensors or data frames; of a student that reads one modality also the array
                alone. They must not be normalised.
        """
        return self.student.predict(inputs).predicted

    def predict_proba(self, inputs: Any) -> NDArray[Any]:
        """The probability of each class (rows, classes), or of each label of several (rows, labels)."""
        if self.info.task == "regression":
            raise InputError("A regression student predicts values and no probabilities. Call predict.")
        outputs = self.student.predict(inputs).outputs
        # one output: the probability of the second class
        return np.concatenate([1.0 - outputs, outputs], axis=1) if self.info.task == "binary" else outputs

    def save(self, path: str | Path, *, format: str = "") -> Path:
        """Write the student as a file for `xmodal.open_student`, ``xmodal predict`` and other runtimes.

        The file is compared with the student on validation rows before it gets its name.

        Args:
            path: file (``.safetensors``, ``.onnx`` or ``.pt2``), or folder for ``student.safetensors``.
            format: ``safetensors``, ``onnx`` or ``torch``; default: as the ending of ``path`` says, else safetensors.

        Returns:
            The path of the written file; a description for people stands beside it, as ``.json``.
        """
        return self._write(self._row(), Path(path), format)

    def _write(self, row: Mapping[str, Any], path: Path, format: str) -> Path:
        named = ENDINGS.get(path.suffix, "")
        if format and named and format != named:
            raise InputError(f"{path.name} is a name of the format {named}, and format is {format}. Leave one out.")
        if path.suffix and not named and not path.is_dir():
            raise InputError(f"{path.name}: a folder, or a name with one of {', '.join(ENDINGS)} was expected.")
        format = format or named or "safetensors"
        info, student = self._study.trained[row["seed"]].info, self._student_of(row)
        rows = self._study.data_of(row["seed"]).valid.raw()
        samples = next(iter(in_order(rows, batch_size=info.block(SAMPLES)))).inputs
        folder = path.parent if named else path
        folder.mkdir(parents=True, exist_ok=True)
        if not named:
            written = export_student(student.inner, info, folder, format=format, samples=samples)
            return Path(written["files"][0])
        with tempfile.TemporaryDirectory(dir=folder, prefix=".save-") as temporary:
            written = export_student(student.inner, info, temporary, format=format, samples=samples)
            file, description = map(Path, written["files"])
            description.replace(path.with_suffix(".json"))
            file.replace(path)
        return path

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page with all tables and figures: one HTML file that loads nothing from the network.

        Args:
            path: of the file, or a folder for ``report.html``; default: in the run folder, else in the current one.

        Returns:
            The path of the page.
        """
        if self.folder is not None:
            return write_page([self.folder], Path(path or self.folder / PAGE))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / self.result["recipe"]
            self._write_for_page(folder)
            return write_page([folder], Path(path or PAGE))

    def _write_for_page(self, folder: Path) -> None:
        """The files of a run folder that the page is drawn from: no weights, no predictions."""
        from xmodal.engine.run.folder import environment

        settings = {"recipe": self.result["recipe"], "settings": self._study.settings.described()}
        # the time is that of the page, and nobody knows any more when the run was started
        machine = {key: value for key, value in environment().items() if key != "started"}
        write_json(folder / "settings.json", settings)
        write_json(folder / "environment.json", machine)
        write_json(folder / "result.json", self.result)
        for row in self.rows:
            run, inside = self._study.trained[row["seed"]].runs[row["name"]], folder / row["folder"]
            scored = {"needs": row["needs"], "best_epoch": row["best_epoch"], "valid": row["valid"]}
            write_json(inside / "settings.json", {"seed": row["seed"]})
            write_json(inside / "environment.json", machine)
            write_rows(inside / "history.jsonl", run.history)
            students = {row["student"]: {**scored, "test": row["test"]}}
            write_json(inside / "result.json", {"seed": row["seed"], "epochs": len(run.history), "students": students})

    def table(self) -> str:
        """The table of the page as text: scores, intervals, and differences from the no-KD control."""
        return plain_table(*comparison_table(self.result))

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame, with a column for each metric of the test and of the validation split."""
        try:
            import pandas
        except ImportError:
            raise InputError(
                "A DataFrame needs the package 'pandas', which is not installed. Install it with: pip install pandas. "
                "Or read `rows`, which are dictionaries."
            ) from None
        keys = ("name", "role", "seed", "student", "parameters", "best_epoch")
        return pandas.DataFrame(
            [
                {key: row.get(key) for key in keys}
                | {name: value for name, value in row["test"].items() if isinstance(value, int | float)}
                | {f"valid {name}": value for name, value in row["valid"].items() if isinstance(value, int | float)}
                for row in self.rows
            ]
        )

    def __repr__(self) -> str:
        metric, route = self.result["metric"], ["+".join(self.result["student"])]
        # a given teacher may read anything, and some methods have none
        if any(row["role"] == "teacher" and set(row["needs"]) <= set(self.info.inputs) for row in self.rows):
            route.append("+".join(self.result["teacher"]))
        scores = ", ".join(f"{name} {number(score, metric)}" for name, score in self.scores.items())
        return f"{type(self).__name__}({' taught by '.join(route)}: {unit(metric)} {scores})"

    def _repr_html_(self) -> str:
        return glance(self.result, self.verdict)


class Distilled(Result):
    """The result of `xmodal.distill`: one method with one seed, and its controls.

    The student is that of the method which was asked for; `verdict` says whether another one is to be shipped.
    """

    def _row(self) -> Mapping[str, Any]:
        methods = [row for row in self.rows if row["role"] == "method"]
        # the method supervised is the control itself
        controls = [row for row in self.rows if row["role"] == "control"]
        return (methods or controls)[0]


class Compared(Result):
    """The result of `xmodal.compare`: several methods over seeds, and their controls.

    The student is the one to ship: that of the best method, or the no-KD control where no method is better.
    """

    def student_of(self, name: str, *, seed: int | None = None) -> TrainedStudent:
        """Another student, by its name in the table.

        Args:
            name: of a method or control.
            seed: of the training; default: the first one.
        """
        return self._student_of(self._named(name, seed))

    def save(self, path: str | Path, *, format: str = "", name: str = "", seed: int | None = None) -> Path:
        """Write a student, see `Distilled.save`; ``name`` and ``seed`` choose another than the one to ship."""
        shipped = self._shipped()
        row = self._named(name or shipped["name"], seed) if name or seed is not None else shipped
        return self._write(row, Path(path), format)

    def _named(self, name: str, seed: int | None) -> Mapping[str, Any]:
        names = dict.fromkeys(row["name"] for row in self.rows)
        if name not in names:
            raise InputError(f"There is no row '{name}'. {did_you_mean(name, names)}")
        rows = {row["seed"]: row for row in self.rows if row["name"] == name}
        if seed is not None and seed not in rows:
            raise InputError(f"There is no seed {seed}: the seeds are {', '.join(map(str, rows))}.")
        return rows[seed] if seed is not None else next(iter(rows.values()))

"""Read and check run folders; everything that a report shows passes through here.

A *fit* folder is one trained method; a *comparison* folder contains a result over many fits, which are sub-folders; a
*sweep* folder contains means along one quantity, and no networks. A running fit has no result yet, and the last line of
its history may be incomplete. Any other missing or damaged file is an error that names the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.errors import InputError
from xmodal.files import parse_json, read_json, read_text
from xmodal.reports.relation import relation_problems
from xmodal.reports.ship import ship_problems
from xmodal.reports.sweep import sweep_problems

ROW_KEYS = {"seed": int, "name": str, "role": str, "test": Mapping}

SUMMARY_KEYS = {"name", "role", "n", "mean", "low", "high"}


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Contents of a run folder.

    Attributes:
        path: the folder.
        kind: ``fit`` (one trained method), ``comparison`` (many fits) or ``sweep``.
        settings: enough to repeat the run.
        environment: versions and devices of the run.
        result: final numbers; empty while a fit is running.
        history: one row per epoch; empty for a comparison, whose sub-folders contain theirs.
        truncated: number of incomplete lines at the end of the history: 1 if the run was killed while writing, else 0.
    """

    path: Path
    kind: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    truncated: int = 0

    @property
    def finished(self) -> bool:
        """Whether the run has written its result."""
        return bool(self.result)


def read_run(folder: Path | str) -> RunFiles:
    """Read one run folder.

    Args:
        folder: folder of a fit, a comparison or a sweep.

    Raises:
        InputError: a file is missing, damaged or of another schema version; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}. Use the folder that a run prints in its last line.")
    settings, environment = read_json(folder / "settings.json"), read_json(folder / "environment.json")
    # Only a fit writes a history, so a folder with a history and without a result is a running or killed fit.
    running = (folder / "history.jsonl").is_file() and not (folder / "result.json").exists()
    result = {} if running else read_json(folder / "result.json")
    kind = "fit" if running or "students" in result else "sweep" if "sweeps" in result else "comparison"
    check = {"fit": _check_fit, "comparison": _check_comparison, "sweep": _check_sweep}[kind]
    check(result, folder / "result.json")
    history, truncated = _history(folder / "history.jsonl") if kind == "fit" else ([], 0)
    return RunFiles(folder, kind, settings, environment, result, history, truncated)


def read_rows(run: RunFiles) -> dict[str, RunFiles]:
    """Existing sub-folders of a comparison, by their names in its rows."""
    rows = run.result.get("rows", ())
    names = dict.fromkeys(row["folder"] for row in rows if row.get("folder"))
    # A result file from elsewhere must not make a report read other files of this computer.
    for name in [*names, *(row["student"] for row in rows if row.get("student"))]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"{run.path / 'result.json'} names the folder '{name}', which is outside the run: expected sub-folders "
                "of the run. Restore the file or run the comparison again."
            )
    return {name: read_run(run.path / name) for name in names if (run.path / name).is_dir()}


def _history(path: Path) -> tuple[list[dict[str, Any]], int]:
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_json(line, f"{path}, line {number},"))
        except InputError:
            # Only the last line may be incomplete: the run is still writing it, or was killed while writing.
            if number < len(lines):
                raise
            return rows, 1
    return rows, 0


def _check_fit(result: Mapping[str, Any], path: Path) -> None:
    students = result.get("students", {})
    if not isinstance(students, Mapping) or not all(isinstance(student, Mapping) for student in students.values()):
        raise InputError(f"{path} is damaged: expected one object per student in 'students'. Run it again.")


def _check_comparison(result: Mapping[str, Any], path: Path) -> None:
    rows = result.get("rows", [] if "references" in result else None)
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InputError(
            f"{path} contains neither 'students' nor 'rows' nor 'sweeps': expected the result of a fit, a comparison "
            "or a sweep. Use another folder."
        )
    problems = [problem for number, row in enumerate(rows) for problem in _row_problems(row, f"{path}, row {number}")]
    if not all(isinstance(entry, Mapping) and SUMMARY_KEYS <= set(entry) for entry in result.get("summary") or ()):
        problems.append(f"{path}: each entry of 'summary' needs {', '.join(sorted(SUMMARY_KEYS))}. Run it again.")
    problems += ship_problems(result.get("ship"), str(path))
    if rows and not isinstance(result.get("metric"), str):
        problems.append(f"{path} has no 'metric' to compare by. Restore the file or run the comparison again.")
    if rows and result.get("direction") not in ("max", "min"):
        problems.append(f"{path}: 'direction' is {result.get('direction')!r}: expected 'max' or 'min'.")
    if problems:
        raise InputError(problems)


def _check_sweep(result: Mapping[str, Any], path: Path) -> None:
    problems = sweep_problems(result["sweeps"], str(path)) + relation_problems(result.get("relations", []), str(path))
    if problems:
        raise InputError(problems)


def _row_problems(row: object, where: str) -> list[str]:
    if not isinstance(row, Mapping):
        return [f"{where} is damaged: expected an object. Run the comparison again."]
    wrong = [key for key, kind in ROW_KEYS.items() if not isinstance(row.get(key), kind)]
    return [f"{where} is damaged: '{key}' is missing or has a wrong type. Run the comparison again." for key in wrong]

"""The command `doctor`: versions, devices, a real check with two processes, and what is missing for what."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodal.cli.output import Answer, columns
from xmodal.cli.parser import Flags, parse
from xmodal.data import DATA
from xmodal.version import __version__

PURPOSES = {
    "torch": "tensors and networks",
    "numpy": "arrays",
    "lightning-fabric": "training on one or many devices",
    "torchmetrics": "metrics",
    "scipy": "intervals and tests",
    "pydantic": "settings",
    "rich": "progress on a terminal",
    "safetensors": "weights on disk",
    "scikit-learn": "the built-in digits, classic models",
    "matplotlib": "figures",
    "jinja2": "the report page",
    "pillow": "images",
    "pyyaml": "settings files of published code",
    "soundfile": "sound files",
    "av": "video files",
    "tensorboard": "tracking",
    "onnx": "export to ONNX",
    "onnxscript": "export to ONNX",
    "onnxruntime": "export to ONNX, prediction from it",
    "optuna": "search over settings",
    "transformers": "text encoders",
    "captum": "comparison in benchmarks",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "firefox")
SECONDS = 120.0  # two processes on a busy machine; each has to import torch first


class DoctorFlags(Flags):
    """Look at the machine: versions, devices, two processes, what is missing for what; exit 1 if two can't meet."""


def doctor(words: Sequence[str]) -> Answer:
    """The command ``xmodal doctor``."""
    flags = parse(DoctorFlags, words, prog="xmodal doctor")
    packages, devices = packages_found(), devices_found()
    problem = two_processes()
    result: dict[str, Any] = {
        "xmodal": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "devices": devices,
        "two_processes": problem or "ok",
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "browser": next((name for name in BROWSERS if shutil.which(name)), None),
        "data": {name: _lacks(name) for name in DATA},
        "ok": problem is None,
    }
    return Answer(result, flags.as_json, _told(result), status=0 if problem is None else 1)


def packages_found() -> list[dict[str, Any]]:
    """Every package that xmodal uses: version, extra it belongs to, what it is for."""
    found = []
    for line in importlib.metadata.requires("xmodal") or ():
        name = re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if extra and extra.group(1) in ("dev", "docs"):
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        facts = {"name": name, "version": version, "extra": extra.group(1) if extra else ""}
        found.append({**facts, "for": PURPOSES.get(name, "")})
    return found


def devices_found() -> list[str]:
    """What PyTorch can compute on."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    return found + ["mps"] * torch.backends.mps.is_available()


def two_processes(*, seconds: float = SECONDS) -> str | None:
    """Start two processes that add up a tensor; what went wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="xmodal-doctor-") as folder:
        command = [sys.executable, "-m", "xmodal.cli.two_processes", str(Path(folder) / "meeting")]
        started = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        try:
            answers = [process.communicate(timeout=seconds) for process in started]
        except subprocess.TimeoutExpired:
            return f"two processes did not meet within {seconds:g} s"
        finally:
            for process in started:
                process.kill()  # a finished one does not mind
                process.communicate()
    for process, (said, complained) in zip(started, answers, strict=True):
        if process.returncode or said.strip() != "3.0":
            last = (complained.strip().splitlines() or [said.strip() or "no answer"])[-1]
            return f"a process ended with status {process.returncode}: {last}"
    return None


def _lacks(name: str) -> str:
    card = DATA[name]
    if card.built_in:
        return "nothing"
    made = f"; a small copy: xmodal data make {name} ROOT" if card.make else ""
    raw = f"; from raw files: xmodal data prepare {name} RAW ROOT" if card.prepare else ""
    return f"its files{raw}{made}"


def _told(result: dict[str, Any]) -> list[str]:
    packages = [
        [found["name"], found["version"] or f'missing: pip install "xmodal[{found["extra"]}]"', found["for"]]
        for found in result["packages"]
    ]
    return [
        f"xmodal {result['xmodal']}, Python {result['python']}, {result['platform']}",
        "",
        *columns(packages),
        "",
        f"devices: {', '.join(result['devices'])}",
        f"two processes: {result['two_processes']}",
        f"free disk here: {result['free_disk_gb']} GB",
        f"browser (for looking at reports): {result['browser'] or 'none found'}",
        "",
        *columns([["data set", "lacks"], *result["data"].items()]),
    ]

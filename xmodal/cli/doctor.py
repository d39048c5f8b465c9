"""The command `doctor`: versions, devices, a test with two processes, missing packages and data."""

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
    "jinja2": "the report page",
    "joblib": "several seeds at the same time",
    "pillow": "images",
    "pyyaml": "settings files of published code",
    "soundfile": "sound files",
    "av": "video files",
    "tensorboard": "tracking",
    "onnx": "export to ONNX",
    "onnxscript": "export to ONNX",
    "onnxruntime": "export to ONNX, prediction from it, teachers in ONNX",
    "optuna": "search over settings",
    "transformers": "text encoders, teachers from local model folders",
    "mlflow": "an example of tracking",
    "wandb": "an example of tracking",
    "distributed": "seeds on a Dask cluster",
    "captum": "comparison in benchmarks",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "firefox")
SECONDS = 120.0  # generous, because both processes import torch first, which is slow on a busy machine


class DoctorFlags(Flags):
    """Versions, devices, a test with two processes, missing packages and data.

    Exits with status 1 if two processes cannot communicate.
    """


def doctor(words: Sequence[str]) -> Answer:
    """The command ``xmodal doctor``."""
    flags = parse(DoctorFlags, words, prog="xmodal doctor")
    packages, devices = installed_packages(), available_devices()
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
        "data": {name: _missing_files(name) for name in DATA},
        "ok": problem is None,
    }
    return Answer(result, flags.as_json, _lines(result), status=0 if problem is None else 1)


def installed_packages() -> list[dict[str, Any]]:
    """The packages that xmodal depends on: name, version, extra and purpose."""
    packages = []
    for line in importlib.metadata.requires("xmodal") or ():
        name = re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        # these are for people who work on xmodal
        if extra and extra.group(1) in ("dev", "docs"):
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        facts = {"name": name, "version": version, "extra": extra.group(1) if extra else ""}
        packages.append({**facts, "for": PURPOSES.get(name, "")})
    return packages


def available_devices() -> list[str]:
    """The devices that PyTorch can use."""
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    return devices + ["mps"] * torch.backends.mps.is_available()


def two_processes(*, seconds: float = SECONDS) -> str | None:
    """Start two processes that add up a tensor; return None, or what failed."""
    with tempfile.TemporaryDirectory(prefix="xmodal-doctor-") as folder:
        command = [sys.executable, "-m", "xmodal.cli.two_processes", str(Path(folder) / "meeting")]
        started = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        try:
            outputs = [process.communicate(timeout=seconds) for process in started]
        except subprocess.TimeoutExpired:
            return f"two processes did not connect within {seconds:g} s"
        finally:
            # killing a process that has ended does nothing
            for process in started:
                process.kill()
                process.communicate()
    for process, (output, errors) in zip(started, outputs, strict=True):
        if process.returncode or output.strip() != "3.0":
            last = (errors.strip().splitlines() or [output.strip() or "no output"])[-1]
            return f"a process ended with status {process.returncode}: {last}"
    return None


def _missing_files(name: str) -> str:
    """What a user has to provide for a data set."""
    card = DATA[name]
    if card.built_in:
        return "nothing"
    small = f"; a small synthetic copy: xmodal data make {name} ROOT" if card.make else ""
    raw = f"; from raw files: xmodal data prepare {name} RAW ROOT" if card.prepare else ""
    return f"its files{raw}{small}"


def _lines(result: dict[str, Any]) -> list[str]:
    packages = [
        [package["name"], package["version"] or f'missing: pip install "xmodal[{package["extra"]}]"', package["for"]]
        for package in result["packages"]
    ]
    return [
        f"xmodal {result['xmodal']}, Python {result['python']}, {result['platform']}",
        "",
        *columns(packages),
        "",
        f"devices: {', '.join(result['devices'])}",
        f"two processes: {result['two_processes']}",
        f"free disk here: {result['free_disk_gb']} GB",
        f"browser (to open reports): {result['browser'] or 'none'}",
        "",
        *columns([["data set", "needs"], *result["data"].items()]),
    ]

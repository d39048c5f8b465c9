"""Runs the numeric tests with other kernels, numbers of threads and a busy machine: `make test-portable`.

The processor decides which kernels multiply and add, and another order of additions gives other last digits. A test
that passes with the kernels of one processor only fails on another; these settings choose kernels by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
FOLDERS = ("losses", "models", "metrics", "diagnostics", "engine")
BUSY = "busy"  # key of a setting that runs beside two endless loops
SETTINGS: dict[str, dict[str, str]] = {
    "this processor, 1 thread": {},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "ATEN_CPU_CAPABILITY=avx2, 2 threads": {"ATEN_CPU_CAPABILITY": "avx2", "THREADS": "2"},
    "ONEDNN_MAX_CPU_ISA=AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "4 threads": {"THREADS": "4"},
    "busy machine, nice": {BUSY: "2"},
}


def main() -> int:
    """Run what was asked for; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only settings whose name contains this")
    parser.add_argument("tests", nargs="*", default=[str(ROOT / "tests" / name) for name in FOLDERS])
    words = parser.parse_args()
    width, bad = max(map(len, SETTINGS)), 0
    for name, setting in SETTINGS.items():
        if words.only in name:
            start = time.monotonic()
            passed, failed = run(setting, words.tests)
            seconds = time.monotonic() - start
            print(f"{name:<{width}}  {passed} passed, {len(failed)} failed, {seconds:.0f} s", flush=True)
            print(*(f"    {test}\n" for test in failed), sep="", end="", flush=True)
            bad += bool(failed)
    return int(bad > 0)


def run(setting: Mapping[str, str], tests: list[str]) -> tuple[int, list[str]]:
    """How many tests pass, and the names of those that do not."""
    threads = setting.get("THREADS", "1")
    environment = {**os.environ, **setting, "OMP_NUM_THREADS": threads, "XMODAL_TEST_THREADS": threads}
    # threads that wait must not spin: there may be more of them than cores
    environment |= {"OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryDirectory() as folder, busy(int(setting.get(BUSY, "0"))):
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
        command += ["-m", "not slow and not claim and not processes", f"--junitxml={report}", *tests]
        if BUSY in setting:
            command = ["nice", "-n", "5", *command]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if not report.exists():
            return 0, [ended.stdout[-2000:] + ended.stderr[-2000:]]
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return len(cases) - len(failed) - len(skipped), [f"{case.get('classname')}::{case.get('name')}" for case in failed]


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Endless loops beside what runs in the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())

"""A whole command, relative to a script that does the same trainings.

    python benchmarks/distill.py

`xmodal distill digits --teacher rows --student fourier` trains a teacher, a no-KD control, a distilled student and its
shuffled-teacher control, 40 epochs each. `benchmarks/plain/distill.py` does the same with numpy and torch alone, in the
way in which one writes a single experiment. Both are run as processes, alternately, with one thread; counted are CPU
seconds from start to end, imports included. The command also writes a run folder and draws a report page.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 5
SCRIPT = str(Path(__file__).parent / "plain" / "distill.py")
COMMAND = "distill digits --teacher rows --student fourier --threads 1 --out".split()


def cpu_seconds(words: list[str]) -> float:
    """CPU seconds of a child process; an error if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    command, script, imports = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats + 1):
            found = [
                cpu_seconds([sys.executable, SCRIPT]),
                cpu_seconds([sys.executable, "-m", "xmodal.cli.main", *COMMAND, str(Path(folder) / str(repeat))]),
                cpu_seconds([sys.executable, "-c", "import torch"]),
            ]
            if repeat:  # the first run of each compiles files and fills caches
                for times, seconds in zip((script, command, imports), found, strict=True):
                    times.append(seconds)
    plain, ours, torch = (statistics.median(times) for times in (script, command, imports))
    print(f"plain script {plain:.2f} s of CPU, xmodal distill {ours:.2f} s: {ours / plain:.2f} times as much")
    print(
        f"of each, `import torch` takes {torch:.2f} s; without it {(ours - torch) / (plain - torch):.2f} times as much"
    )


if __name__ == "__main__":
    main()

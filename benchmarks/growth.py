"""How CPU time grows with rows, classes, modalities and seeds: seconds of each part, and the exponent of its growth.

Each part is timed alone, in one process and one thread, at several sizes with everything else fixed. All sizes take
turns a few times, and the least time of each counts, since other work of the machine only adds to it. The exponent is
the slope of the logarithms over the larger half of the sizes, where fixed costs are small (over all numbers of
modalities, which differ little): 1 is a straight line, 2 a square.

    python benchmarks/growth.py            # up to 100,000 rows and 1,000 classes
    python benchmarks/growth.py --full     # up to 1,000,000 rows and 5,000 classes
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodal.cards import load
from xmodal.data import open_data
from xmodal.data.base import Data, assemble
from xmodal.data.draw import stratified_split
from xmodal.data.own.facts import folder_facts
from xmodal.engine.evaluate import evaluate
from xmodal.engine.loop import Loop
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.settings import FitSettings
from xmodal.engine.teacher_cache import TeacherCache, exchange
from xmodal.files import write_json, write_rows
from xmodal.losses import LOSSES
from xmodal.methods import METHODS
from xmodal.metrics.counts import Counts
from xmodal.metrics.task import Scores
from xmodal.reports import summarise, verdict, write_page
from xmodal.study.plan import Plan, method_settings
from xmodal.study.rehearsal import Rehearsal

WIDTH, BATCH = 16, 512
ROUNDS = 3  # in which all sizes are measured
EXPECTED = 1.05  # an exponent above this needs a reason
Part = tuple[str, Callable[[int], float], str]  # name, size → seconds, reason of a larger exponent


def seconds(work: Callable[[], Any], *, least: float = 0.05) -> float:
    """CPU seconds of some work, the mean of so many calls that they take ``least``, or of one that takes longer."""
    began = time.process_time()
    work()
    first = time.process_time() - began
    if first > least:
        return first
    calls = math.ceil(least / max(first, 1e-6))
    began = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - began) / calls


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Slope of the logarithms over the larger half of the sizes; over all of them where they differ little."""
    last = len(sizes) if sizes[-1] < 5 * sizes[0] else max(2, math.ceil(len(sizes) / 2))
    slope, _ = np.polyfit(np.log(sizes[-last:]), np.log(times[-last:]), 1)
    return float(slope)


# ---- data of any size


def arrays(rows: int, classes: int, modalities: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random samples of each modality, and classes of equal size."""
    random = np.random.default_rng(0)
    inputs = {f"m{number}": random.standard_normal((rows, WIDTH), dtype=np.float32) for number in range(modalities)}
    return inputs, np.arange(rows) % classes


def in_memory(rows: int = 10_000, classes: int = 10, modalities: int = 2) -> Data:
    """Data of so many training rows; validation and test have a row for each class."""
    inputs, target = arrays(rows, classes, modalities)
    few = np.arange(max(classes, 10))
    splits = {name: dict.fromkeys(inputs, np.arange(rows) if name == "train" else few) for name in SPLITS}
    return assemble(inputs, dict.fromkeys(inputs, target), splits)


SPLITS = ("train", "valid", "test")


def write_folder(root: Path, rows: int, classes: int, modalities: int) -> Path:
    """An own-data folder."""
    folder = root / f"{rows}-{classes}-{modalities}"
    if not folder.exists():
        folder.mkdir()
        inputs, target = arrays(rows, classes, modalities)
        for name, values in inputs.items():
            np.save(folder / f"{name}.npy", values)
        np.save(folder / "labels.npy", target)
    return folder


def a_bench(data: Data) -> Rehearsal:
    """A bench that trains no teacher; it reads all modalities, and the student the last."""
    settings = FitSettings(epochs=1, batch_size=BATCH)
    return Rehearsal(data, Plan(data="growth", training=settings), seed=0, fabric=launch())


def a_method(name: str, data: Data) -> Any:
    """A method of the list with its default settings."""
    return a_bench(data).build(METHODS[name], method_settings(METHODS[name], {}))


def epoch_of(method: Any, data: Data) -> float:
    """CPU seconds of the steps of an epoch, on a teacher whose outputs are computed before."""
    loop = Loop(
        method, data, FitSettings(epochs=9, batch_size=BATCH), 0, None, launch(), False, Progress(quiet=True), Scores
    )
    loop.prepare()

    def epoch() -> None:
        loop.step = 0
        loop.train_epoch()

    return seconds(epoch)


# ---- parts that grow with rows


def parts_of_rows(root: Path) -> list[Part]:
    """Parts by the number of rows; 10 classes, 2 modalities of 16 numbers."""

    def training(rows: int) -> float:
        data = in_memory(rows)
        return epoch_of(a_method("kd", data), data)

    def scoring(rows: int) -> float:
        data = in_memory(rows)
        student = a_bench(data).network(("m1",))
        return seconds(lambda: evaluate({"m1": student}, data.train, data.info, fabric=launch(), full=True))

    def cache(rows: int) -> float:
        data = in_memory(rows)
        method = a_method("kd", data)
        options: dict[str, Any] = {"cache": "memory", "exchange": "class", "seed": 0}
        return seconds(lambda: TeacherCache(method, data.train, data.info, launch(), **options))

    def opening(rows: int) -> float:
        folder = write_folder(root, rows, 10, 2)
        return seconds(lambda: open_data(str(folder), seed=0))

    def check(rows: int) -> float:
        folder = write_folder(root, rows, 10, 2)
        return seconds(lambda: folder_facts(folder))

    return [
        ("an epoch of kd", training, ""),
        ("scoring", scoring, ""),
        ("the teacher's outputs, exchanged", cache, ""),
        ("opening a folder", opening, ""),
        ("checking a folder", check, ""),
    ]


# ---- parts that grow with classes


def parts_of_classes(root: Path) -> list[Part]:
    """Parts by the number of classes; 10,000 rows where nothing else is said."""

    def training(classes: int) -> float:
        data = in_memory(classes=classes)
        return epoch_of(a_method("kd", data), data)

    def scoring(classes: int) -> float:
        generator = torch.Generator().manual_seed(0)
        outputs = torch.randn(512, classes, generator=generator)
        target = torch.randint(0, classes, (512,), generator=generator)
        scores = Scores(in_memory(rows=classes, classes=classes).info, full=True)
        return seconds(lambda: scores.update(outputs, target))

    def result(classes: int) -> float:
        counts = scored(classes)
        return seconds(lambda: write_json(root / "result.json", counts.compute()))

    def exchanged(classes: int) -> float:
        target = torch.arange(200_000) % classes
        return seconds(lambda: exchange(target, 0))

    def splits(classes: int) -> float:
        target = np.arange(200_000) % classes
        return seconds(lambda: stratified_split(target, (0.7, 0.1, 0.2), 0))

    def opening(classes: int) -> float:
        folder = write_folder(root, 20 * classes, classes, 2)
        return seconds(lambda: (open_data(str(folder), seed=0), folder_facts(folder)))

    def page(classes: int) -> float:
        folder = write_comparison(root / f"classes-{classes}", seeds=2, classes=classes)
        return seconds(lambda: write_page([folder], root / "page.html"))

    return [
        ("an epoch of kd", training, ""),
        ("scoring 512 rows", scoring, "outputs outgrow the cache"),
        ("the result of a training", result, ""),
        ("exchanging 200,000 rows", exchanged, ""),
        ("splitting 200,000 rows", splits, ""),
        ("opening and checking 20 rows a class", opening, ""),
        ("the page of a comparison", page, ""),
    ]


def scored(classes: int) -> Counts:
    """Counts of 20,000 rows, of which half are right."""
    generator = torch.Generator().manual_seed(0)
    counts = Counts(classes, full=True)
    target = torch.randint(0, classes, (20_000,), generator=generator)
    predicted = torch.where(torch.rand(20_000, generator=generator) < 0.5, target, (7 * target + 3) % classes)
    # as one-hot outputs these would take rows × classes: the counters are filled directly
    for place, numbers in enumerate((target[predicted == target], predicted, target)):
        counts.counts[place] = torch.bincount(numbers, minlength=classes)
    pairs = target * classes + predicted
    if counts.pairs is not None:
        counts.pairs = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    if counts.wrong is not None:
        counts.wrong = [pairs[predicted != target]]
    return counts


# ---- parts that grow with modalities


def parts_of_modalities(root: Path) -> list[Part]:
    """Parts by the number of modalities; 10 classes."""

    def epoch(name: str, rows: int) -> Callable[[int], float]:
        def measure(modalities: int) -> float:
            data = in_memory(rows, modalities=modalities)
            return epoch_of(a_method(name, data), data)

        return measure

    def opening(modalities: int) -> float:
        folder = write_folder(root, 10_000, 10, modalities)
        return seconds(lambda: (open_data(str(folder), seed=0), folder_facts(folder)))

    return [
        ("10,000 rows of kd", epoch("kd", 10_000), ""),
        ("1,000 rows of discom", epoch("discom", 1_000), ""),
        ("200 rows of dmd", epoch("dmd", 200), "M (M − 1) transformers, and M whose width is M − 1 parts: M³"),
        ("opening and checking 10,000 rows", opening, ""),
    ]


# ---- parts that grow with seeds


def parts_of_seeds(root: Path) -> list[Part]:
    """Parts by the number of seeds; four names, 10 classes, 20 epochs."""

    def summary(seeds: int) -> float:
        rows = rows_of(seeds)
        return seconds(lambda: conclusions(rows))

    def page(seeds: int) -> float:
        folder = write_comparison(root / f"seeds-{seeds}", seeds=seeds)
        return seconds(lambda: write_page([folder], root / "page.html"))

    return [("summary and verdict", summary, ""), ("the page of a comparison", page, "")]


NAMES = (("teacher", "teacher"), ("no-KD", "control"), ("kd", "method"), ("kd (shuffled teacher)", "shuffled"))


def rows_of(seeds: int) -> list[dict[str, Any]]:
    """Rows of a comparison with random scores."""
    random = np.random.default_rng(0)
    return [
        {
            "seed": seed,
            "name": name,
            "role": role,
            "needs": ["b"],
            "student": "b",
            "folder": f"seed-{seed}/{name.partition(' ')[0]}-{role}",
            "test": {"accuracy": float(random.uniform(0.6, 0.9)), "macro_f1": 0.5, "cross_entropy": 1.0},
        }
        for seed in range(seeds)
        for name, role in NAMES
    ]


def conclusions(rows: Sequence[dict[str, Any]], classes: int = 10) -> dict[str, Any]:
    """The result of a comparison."""
    result: dict[str, Any] = {
        "title": "growth",
        "class_names": [f"class {number}" for number in range(classes)],
        "metric": "accuracy",
        "direction": "max",
        "teacher": ["a"],
        "student": ["b"],
        "rows": rows,
        "summary": summarise(rows, metric="accuracy", direction="max"),
    }
    return {**result, "verdict": verdict(result)}


def write_comparison(folder: Path, *, seeds: int, classes: int = 10) -> Path:
    """The run folder of a comparison, without training."""
    if folder.exists():
        return folder
    rows, test = rows_of(seeds), scored(classes).compute()
    environment = {"xmodal": "0.1.0", "torch": torch.__version__}
    for row in rows:
        inside = folder / row["folder"]
        scores = test | row["test"]
        history = [
            {"epoch": epoch, "losses": {"kd": 1 / (epoch + 1)}, "valid": {"b": {"accuracy": 0.5}}}
            for epoch in range(20)
        ]
        student = {"needs": ["b"], "best_epoch": 1, "valid": row["test"], "test": scores}
        write_json(inside / "settings.json", {})
        write_json(inside / "environment.json", environment)
        write_rows(inside / "history.jsonl", history)
        write_json(inside / "result.json", {"seed": row["seed"], "students": {"b": student}})
        if "confusion" in test:
            row["test"] = scores
    write_json(folder / "settings.json", {})
    write_json(folder / "environment.json", environment)
    write_json(folder / "result.json", conclusions(rows, classes))
    return folder


# ---- parts that grow with the rows of a batch


def parts_of_batches(root: Path) -> list[Part]:
    """Losses that compare the rows of a batch with one another, by their number; outputs of width 64."""

    def loss(name: str) -> Callable[[int], float]:
        function: Callable[[Tensor, Tensor], Tensor] = load(LOSSES[name].path)

        def measure(rows: int) -> float:
            generator = torch.Generator().manual_seed(0)
            student, teacher = torch.randn(2, rows, 64, generator=generator).unbind()
            student.requires_grad_()
            return seconds(lambda: function(student, teacher).backward())

        return measure

    pairs = "all pairs of rows: B²"
    return [
        ("kl", loss("kl"), ""),
        ("rkd_distance", loss("rkd_distance"), pairs),
        ("sp", loss("sp"), pairs),
        ("pkt", loss("pkt"), pairs),
        ("rkd_angle", loss("rkd_angle"), "all triples of rows: B³"),
    ]


# ---- the table


def print_table(title: str, sizes: Sequence[int], parts: Sequence[Part]) -> list[str]:
    """A line for each part, as Markdown; returns the parts that grow faster than a straight line without a reason."""
    print(f"\n| {title} | " + " | ".join(f"{size:,}" for size in sizes) + " | Exponent | Because of |")
    print("|---" * (len(sizes) + 3) + "|", flush=True)
    faster = []
    for name, measure, reason in parts:
        times = [min(each) for each in zip(*[map(measure, sizes) for _ in range(ROUNDS)], strict=True)]
        slope = exponent(sizes, times)
        cells = " | ".join(f"{1000 * each:.3g}" for each in times)
        print(f"| {name} | {cells} | {slope:.2f} | {reason if slope > EXPECTED else ''} |", flush=True)
        if slope > EXPECTED and not reason:
            faster.append(f"{title}: {name}")
    return faster


def main(words: Sequence[str]) -> int:
    """All tables; status 1 if a part grows faster than a straight line without a reason."""
    torch.set_num_threads(1)
    full = "--full" in words
    rows = [1_000, 10_000, 100_000, *[1_000_000] * full]
    classes = [10, 100, 500, 1_000, *[5_000] * full]
    print("CPU milliseconds in one thread; the exponent is that of the larger half of the sizes.")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        faster = [
            *print_table("Rows", rows, parts_of_rows(root)),
            *print_table("Classes", classes, parts_of_classes(root)),
            *print_table("Modalities", [2, 3, 4, 5, 6], parts_of_modalities(root)),
            *print_table("Seeds", [1, 4, 16, 64], parts_of_seeds(root)),
            *print_table("Rows of a batch", [32, 64, 128, 256], parts_of_batches(root)),
        ]
    print(f"\n{time.process_time() - began:.0f} CPU seconds. Faster than a line without a reason: {faster or 'none'}.")
    return bool(faster)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

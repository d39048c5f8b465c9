"""Time of Algorithm 1: the whole network for every channel and permutation, compared with the fastest form.

The teacher is the sound network of RAVDESS with random weights, the student a linear one, so that the teacher takes
most of the time. Both use the same permutations, and a ratio is printed only if the distances agree. Times are CPU
times on one thread. Ours include both networks, the choice of the form and the permutations; median of five. The naive
loop is timed on some of its rounds (median of a round, times their number) unless --full is given.

    python benchmarks/saliency.py
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.diagnostics.saliency import measure_saliency
from xmodal.models.clips.audio_video import build_ravdess, ravdess_layer
from xmodal.models.feature_layers import replacing
from xmodal.models.network import build_network
from xmodal.types import Batch

SOUND, PICTURE = (1, 40, 64), (3, 8, 16)
SAME = 1e-5  # relative, between the distances of both ways
EXACT_DRAWS = 2000


@dataclass(frozen=True)
class Case:
    """A row of the table: layer (with the authors' number), samples, permutations, timed channels of the loop."""

    place: int
    rows: int
    draws: int
    timed: int
    at_least: float


CASES = [Case(5, 64, 2, 16, 200.0), Case(4, 32, 1, 16, 500.0), Case(5, 64, 10, 4, 500.0), Case(4, 32, 10, 2, 1000.0)]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    linear = build_network(inputs={"image": {"encoder": "linear", "shape": PICTURE}}, outputs=8)
    return build_ravdess("audio", shape=SOUND).module.eval(), linear.eval()


def samples(rows: int) -> Batch:
    torch.manual_seed(1)
    return Batch({"audio": torch.randn(rows, *SOUND), "image": torch.randn(rows, *PICTURE)}, {})


def naive_loop(
    teacher: nn.Module, student: nn.Module, batch: Batch, layer: str, permutations: Tensor, channels: range
) -> tuple[np.ndarray, float]:
    """Distances (draws, channels) by straightforward code, and seconds per round."""
    distances, seconds = np.empty((len(permutations), len(channels))), []
    with torch.no_grad():
        expected = student(batch.inputs)
        for draw, column in np.ndindex(distances.shape):
            order, channel = permutations[draw, channels[column]], channels[column]

            def shuffle(features: Tensor, order: Tensor = order, channel: int = channel) -> Tensor:
                moved = features.clone()
                moved[:, channel] = features[order, channel]
                return moved

            start = time.process_time()
            with replacing(teacher, layer, shuffle):
                distances[draw, column] = (teacher(batch.inputs) - expected).square().mean()
            seconds.append(time.process_time() - start)
    return distances, statistics.median(seconds)


def compare(case: Case, teacher: nn.Module, student: nn.Module, *, full: bool) -> str:
    layer, batch = ravdess_layer(case.place, "audio"), samples(case.rows)
    channels = {4: 1024, 5: 128}[case.place]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(case.rows, generator=generator) for _ in range(case.draws * channels)]
    permutations = torch.stack(drawn).reshape(case.draws, channels, case.rows)
    timed = range(channels) if full else range(0, channels, channels // case.timed)

    naive_loop(teacher, student, batch, layer, permutations, range(1))  # the first call of a network allocates
    measure_saliency(teacher, student, [batch], layer, permutations=1)
    slow, seconds = naive_loop(teacher, student, batch, layer, permutations, timed)
    seconds *= case.draws * channels
    times = []
    for _ in range(5):
        start = time.process_time()
        saliency = measure_saliency(teacher, student, [batch], layer, permutations=case.draws, seed=0)
        times.append(time.process_time() - start)
    ours = statistics.median(times)
    assert saliency.draws is not None
    apart = float(np.abs(saliency.draws[:, list(timed)] / slow - 1).max())
    assert apart < SAME, f"distances differ by {apart:.1e} of their size"
    ratio = seconds / ours
    verdict = "ok" if ratio >= case.at_least else f"BELOW {case.at_least:.0f}"
    return (
        f"| {case.place} | {case.rows} x {channels} x {case.draws} | {seconds:.1f} | {len(timed)} of {channels} | "
        f"{ours:.3f} ({saliency.form}) | {ratio:.0f} | {apart:.0e} | {verdict} |"
    )


def exactness(teacher: nn.Module, student: nn.Module) -> str:
    place, batch = ravdess_layer(5, "audio"), samples(64)
    exact = measure_saliency(teacher, student, [batch], place)
    drawn = measure_saliency(teacher, student, [batch], place, permutations=EXACT_DRAWS)
    apart = np.abs(drawn.raw - exact.raw)
    rounding = 1e-12 * exact.raw  # a channel that is never active has no error at all
    inside = float((apart <= 4 * exact.deviation / np.sqrt(EXACT_DRAWS) + rounding).mean())
    if inside < 0.99:
        raise SystemExit(f"only {inside:.1%} of the exact means are within 4 standard errors of the drawn ones")
    return f"Exact against {EXACT_DRAWS} permutations: {inside:.1%} of the channels are within 4 standard errors."


def others(teacher: nn.Module, student: nn.Module, case: Case) -> list[str]:
    """The same quantity from two libraries, on features that are computed already (an advantage for them)."""
    batch = samples(case.rows)
    seen: list[Tensor] = []
    with (
        torch.no_grad(),
        replacing(teacher, ravdess_layer(5, "audio"), lambda features: seen.append(features) or features),
    ):
        teacher(batch.inputs)
        expected = student(batch.inputs)
    head: Any = teacher.get_submodule("head")
    start = time.process_time()
    measure_saliency(teacher, student, [batch], ravdess_layer(5, "audio"), permutations=case.draws)
    lines = [f"| xmodal, with the head | {time.process_time() - start:.3f} |"]

    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.inspection import permutation_importance

    class Head(RegressorMixin, BaseEstimator):
        """The last layer with the interface of scikit-learn."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> Head:
            self.fitted_ = True
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                outputs: np.ndarray = head(torch.as_tensor(x)).numpy()
            return outputs

    start = time.process_time()
    permutation_importance(
        Head().fit(None, None),
        seen[0].numpy(),
        expected.numpy(),
        scoring="neg_mean_squared_error",
        n_repeats=case.draws,
        random_state=0,
    )
    lines.append(f"| scikit-learn permutation_importance, last layer alone | {time.process_time() - start:.3f} |")
    if importlib.util.find_spec("captum") is None:
        return [*lines, "| captum FeaturePermutation | not installed: pip install -c constraints.txt 'xmodal[bench]' |"]
    from captum.attr import FeaturePermutation

    def gap(features: Tensor) -> Tensor:
        return (head(features) - expected).square().mean()

    start = time.process_time()
    for _ in range(case.draws):
        FeaturePermutation(gap).attribute(seen[0])
    return [*lines, f"| captum FeaturePermutation, last layer alone | {time.process_time() - start:.3f} |"]


def main() -> None:
    torch.set_num_threads(1)
    teacher, student = networks()
    print("| layer | rows x channels x draws | naive, s | timed on | ours, s (form) | ratio | difference | goal |")
    print("|---|---|---|---|---|---|---|---|")
    lines = [compare(case, teacher, student, full="--full" in sys.argv) for case in CASES]
    print("\n".join(lines))
    print("\n" + exactness(teacher, student))
    print("\n| layer 5 of the table above | s |\n|---|---|")
    print("\n".join(others(teacher, student, CASES[0])))
    if any("BELOW" in line for line in lines):
        raise SystemExit("a ratio is below its goal")


if __name__ == "__main__":
    main()

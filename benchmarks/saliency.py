"""Time of Algorithm 1, relative to what a competent engineer would write and to running the whole network each time.

The teacher is the sound network of RAVDESS with random weights, the student a linear one, so that the teacher takes
most of the time.

- Fair peer: the teacher runs once up to the layer; a loop over permutations and channels runs the layers behind. For
  layer 4 also the update of the next layer's result by hand, for 128 channels at a time.
- Published way: the whole teacher for every channel and permutation. It is timed on some of its rounds (median of a
  round, times their number) unless --full is given.

All use the same permutations, and a time is printed only if the distances agree. Times are CPU times on one thread.
Ours and the peers include both networks and the permutations, ours also the choice of the form; medians, in turns.

    python benchmarks/saliency.py
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from plain.timing import Row, show, turns
from torch import Tensor, nn

from xmodal.diagnostics.saliency import measure_saliency
from xmodal.models.clips.audio_video import build_ravdess, ravdess_layer
from xmodal.models.feature_layers import replacing
from xmodal.models.network import build_network
from xmodal.types import Batch

SOUND, PICTURE = (1, 40, 64), (3, 8, 16)
SAME = 1e-5  # relative, between the distances of both ways
EXACT_DRAWS, REPEATS = 2000, 5


@dataclass(frozen=True)
class Case:
    """A row of the table: layer (with the authors' number), samples, permutations, timed channels of the whole loop."""

    place: int
    rows: int
    draws: int
    timed: int


CASES = [Case(5, 64, 2, 16), Case(4, 32, 1, 16), Case(5, 64, 10, 4), Case(4, 32, 10, 2)]


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


def cached(teacher: nn.Module, student: nn.Module, batch: Batch, layer: str) -> tuple[Tensor, Tensor]:
    """Features of a layer and outputs of the student, by one run of both networks, a few sounds at a time."""
    seen: list[Tensor] = []
    hook = teacher.get_submodule(layer).register_forward_hook(lambda module, given, features: seen.append(features))
    for sounds in batch.inputs["audio"].split(32):
        teacher({"audio": sounds})
    hook.remove()
    return torch.cat(seen), student(batch.inputs)


@torch.no_grad()
def tail_loop(teacher: Any, student: nn.Module, batch: Batch, place: int, draws: int) -> Tensor:
    """The fair peer: features are computed once, and the layers behind run for each permutation and channel."""
    features, expected = cached(teacher, student, batch, ravdess_layer(place, "audio"))
    encoder, generator = teacher.get_submodule("encoders.from_audio"), torch.Generator().manual_seed(0)
    layers = [teacher.head] if place == 5 else [encoder.fc2, encoder.fc2_relu, teacher.head]
    tail, distances = nn.Sequential(*layers), torch.empty(draws, features.shape[1])
    for draw, channel in itertools.product(range(draws), range(features.shape[1])):
        moved = features.clone()
        moved[:, channel] = features[torch.randperm(len(features), generator=generator), channel]
        distances[draw, channel] = (tail(moved) - expected).square().mean()
    return distances


@torch.no_grad()
def update_by_hand(teacher: Any, student: nn.Module, batch: Batch, draws: int, block: int = 128) -> Tensor:
    """The fair peer of layer 4 that knows the network: the result of fc2 is updated, many channels at a time."""
    features, expected = cached(teacher, student, batch, ravdess_layer(4, "audio"))
    layer, generator = teacher.get_submodule("encoders.from_audio.fc2"), torch.Generator().manual_seed(0)
    before, columns, channels = layer(features), layer.weight.T.contiguous(), features.T.contiguous()
    distances = torch.empty(draws, len(channels))
    for draw, first in itertools.product(range(draws), range(0, len(channels), block)):
        some = slice(first, first + block)
        orders = [torch.randperm(len(features), generator=generator) for _ in range(block)]
        change = channels[some].gather(1, torch.stack(orders)) - channels[some]
        hidden = torch.addcmul(before, change[:, :, None], columns[some, None, :]).relu_()
        distances[draw, some] = (teacher.head(hidden) - expected).square().mean(dim=(1, 2))
    return distances


def compare(case: Case, teacher: nn.Module, student: nn.Module, *, full: bool) -> list[Row]:
    layer, batch = ravdess_layer(case.place, "audio"), samples(case.rows)
    channels = {4: 1024, 5: 128}[case.place]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(case.rows, generator=generator) for _ in range(case.draws * channels)]
    permutations = torch.stack(drawn).reshape(case.draws, channels, case.rows)
    timed = range(channels) if full else range(0, channels, channels // case.timed)

    saliency = measure_saliency(teacher, student, [batch], layer, permutations=case.draws, seed=0)
    naive_loop(teacher, student, batch, layer, permutations, range(1))  # the first call of a network allocates
    slow, whole = naive_loop(teacher, student, batch, layer, permutations, timed)
    assert saliency.draws is not None
    must_agree(saliency.draws[:, list(timed)], slow)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: measure_saliency(teacher, student, [batch], layer, permutations=case.draws, seed=0),
        "a loop over the tail": lambda: tail_loop(teacher, student, batch, case.place, case.draws),
    }
    if case.place == 4:
        ways["the update by hand"] = lambda: update_by_hand(teacher, student, batch, case.draws)
    for name, way in ways.items():
        if name != "ours":
            must_agree(saliency.draws, way().numpy())
    seconds = turns(ways, REPEATS)
    work = f"layer {case.place}, {case.rows} x {channels} x {case.draws} ({saliency.form})"
    published = whole * case.draws * channels
    return [Row(f"{work}, peer: {name}", seconds["ours"], seconds[name], published) for name in ways if name != "ours"]


def must_agree(ours: np.ndarray, others: np.ndarray) -> None:
    apart = float(np.abs(ours / others - 1).max())
    assert apart < SAME, f"distances differ by {apart:.1e} of their size"


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
    with torch.no_grad():
        features, expected = cached(teacher, student, batch, ravdess_layer(5, "audio"))
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
        features.numpy(),
        expected.numpy(),
        scoring="neg_mean_squared_error",
        n_repeats=case.draws,
        random_state=0,
    )
    lines.append(f"| scikit-learn permutation_importance, last layer alone | {time.process_time() - start:.3f} |")
    if importlib.util.find_spec("captum") is None:
        return [*lines, "| captum FeaturePermutation | not installed: pip install -c constraints.txt 'xmodal[bench]' |"]
    from captum.attr import FeaturePermutation

    def gap(given: Tensor) -> Tensor:
        return (head(given) - expected).square().mean()

    start = time.process_time()
    for _ in range(case.draws):
        FeaturePermutation(gap).attribute(features)
    return [*lines, f"| captum FeaturePermutation, last layer alone | {time.process_time() - start:.3f} |"]


def main() -> None:
    torch.set_num_threads(1)
    teacher, student = networks()
    rows = [row for case in CASES for row in compare(case, teacher, student, full="--full" in sys.argv)]
    show(rows, published="the whole network each time")
    print("\n" + exactness(teacher, student))
    print("\n| layer 5 of the table above, libraries | s |\n|---|---|")
    print("\n".join(others(teacher, student, CASES[0])))


if __name__ == "__main__":
    main()

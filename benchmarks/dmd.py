"""Time and memory of a training step of DMD, relative to straightforward code (`benchmarks/plain/dmd.py`).

Three rows on one thread, CPU times, medians of steps that alternate between both sides:

- a whole step on sequences like MOSI's, aligned (batch 16, no text encoder, published dropout): forward, every loss
  term, backward, clipping, Adam. Before that, both sides get the same weights, loaded like a published file, and
  objective and gradients are compared without dropout;
- the margin loss of 48 rows, forward and backward;
- memory of one step on sequences like MOSI's, not aligned (50, 500 and 375 steps, batch 2), each side in a process of
  its own: the maximum of the process, and how much of it the step added.

    python benchmarks/dmd.py [--steps 15]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from plain.dmd import LETTERS, PlainDMD, PlainGraph, looped_margin, plain_total
from torch import Tensor

from xmodal.engine.optim import build_optimizers
from xmodal.engine.settings import FitSettings
from xmodal.losses.margin import ordinal_margin
from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.settings import DMDSettings
from xmodal.models.dmd.authors_weights import load_published, published_places
from xmodal.types import Batch, DataInfo, InputInfo

NAMES = {"l": "text", "v": "vision", "a": "audio"}
WIDTHS = {"l": 768, "v": 20, "a": 5}
ALIGNED, UNALIGNED = {"l": 50, "v": 50, "a": 50}, {"l": 50, "v": 500, "a": 375}
DROPOUT = {"text": 0.5, "attention": {"l": 0.3, "v": 0.0, "a": 0.2}, "embed": 0.2, "output": 0.5}
CLIP, RATE = 0.6, 1e-4
STEP_GOAL, STEP_WISH, MARGIN_GOAL, MEMORY_GOAL = 0.80, 0.70, 8.0, 0.50


def make_plain(lengths: dict[str, int]) -> tuple[PlainDMD, PlainGraph, PlainGraph]:
    torch.manual_seed(0)
    network = PlainDMD(WIDTHS, lengths, dict.fromkeys(LETTERS, 5), width=50, heads=10, layers=4, **DROPOUT)
    return network, PlainGraph(50, 64, "homo"), PlainGraph(100, 32, "hetero")


def make_ours(lengths: dict[str, int]) -> DMD:
    inputs = {NAMES[m]: InputInfo((WIDTHS[m], lengths[m]), layout="sequence") for m in LETTERS}
    info = DataInfo(inputs, "regression", 1, {"train": {}}, select=("mae", "min"))
    settings = DMDSettings(
        input_dropout=(DROPOUT["text"], 0.0, 0.0),
        attention_dropout=tuple(DROPOUT["attention"][m] for m in LETTERS),
        embed_dropout=DROPOUT["embed"],
        output_dropout=DROPOUT["output"],
    )
    torch.manual_seed(0)
    return DMD(build_network(info, tuple(NAMES.values()), settings), info)


def make_batch(lengths: dict[str, int], rows: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(1)
    inputs = {m: torch.randn(rows, WIDTHS[m], lengths[m]) for m in LETTERS}
    return inputs, (torch.randn(rows, 1).clamp(-3, 3) * 5).round() / 5


def ours_of(inputs: dict[str, Tensor], labels: Tensor) -> Batch:
    named = {NAMES[m]: x for m, x in inputs.items()}
    return Batch(named, dict.fromkeys(named, labels), {}, dict.fromkeys(named, torch.arange(len(labels))))


def plain_step(lengths: dict[str, int], rows: int) -> Callable[[], None]:
    network, homo, hetero = make_plain(lengths)
    parameters = [p for part in (network, homo, hetero) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    inputs, labels = make_batch(lengths, rows)

    def step() -> None:
        optimizer.zero_grad()
        plain_total(network(inputs), labels, homo, hetero).backward()
        torch.nn.utils.clip_grad_value_(parameters, CLIP)
        optimizer.step()

    return step


def our_step(lengths: dict[str, int], rows: int) -> Callable[[], None]:
    method = make_ours(lengths)
    (optimizer,) = build_optimizers(method.param_groups(), FitSettings(optimizer="adam", learning_rate=RATE))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    batch = ours_of(*make_batch(lengths, rows))

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(method(batch, {}).losses.values())).sum().backward()
        torch.nn.utils.clip_grad_value_(parameters, CLIP)
        optimizer.step()

    return step


STEPS = {"plain": plain_step, "ours": our_step}


def apart() -> tuple[float, float]:
    """Relative differences of objective and gradients without dropout."""
    network, *graphs = make_plain(ALIGNED)
    method = make_ours(ALIGNED)
    load_published(method.network, {n: p.detach() for n, p in network.named_parameters()}, "the plain network")
    for plain, unit in zip(graphs, method.units.values(), strict=True):
        unit.load_state_dict({n: p.detach() for n, p in plain.named_parameters()}, strict=False)
    network.eval(), method.eval()
    inputs, labels = make_batch(ALIGNED, 16)
    expected = plain_total(network(inputs), labels, *graphs)
    objective = torch.stack(list(method(ours_of(inputs, labels), {}).losses.values())).sum()
    expected.backward(), objective.backward()
    gradients = dict(network.named_parameters())
    worst = 0.0
    for name, target in published_places(method.network).items():
        gradient, reference = target.parameter.grad, gradients[name].grad
        ours = gradient[target.part] if target.part else gradient
        worst = max(worst, float((ours - reference).abs().max() / (reference.abs().max() + 1e-4)))
    return abs(float(objective.detach() / expected.detach()) - 1.0), worst


def median_times(sides: dict[str, Callable[[], Any]], rounds: int, warm: int = 4) -> dict[str, float]:
    """CPU seconds of each side; rounds alternate, so that a busy machine disturbs both equally."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm + rounds):
        for name, work in sides.items():
            start = time.process_time()
            work()
            if number >= warm:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def margin_times(rounds: int) -> tuple[dict[str, float], float]:
    torch.manual_seed(2)
    features = torch.randn(48, 50, requires_grad=True)
    labels = ((torch.randn(16).clamp(-3, 3) * 5).round() / 5).repeat_interleave(3)
    sides = {"plain": looped_margin, "ours": ordinal_margin}
    values = {name: float(loss(features, labels).detach()) for name, loss in sides.items()}

    def work(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(features, labels), features)

    return median_times({n: work(loss) for n, loss in sides.items()}, rounds), abs(values["plain"] - values["ours"])


def peak(side: str) -> tuple[float, float]:
    """Megabytes of a new process that runs two steps: its maximum, and how much the steps added."""
    done = subprocess.run([sys.executable, __file__, "--memory", side], capture_output=True, text=True, check=True)
    whole, added = json.loads(done.stdout)
    return whole, added


def measure_memory(side: str) -> None:
    step = STEPS[side](UNALIGNED, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    print(json.dumps([after / unit, (after - before) / unit]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--memory", choices=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        return measure_memory(arguments.memory)
    memory = {name: peak(name) for name in STEPS}  # first: a process inherits the maximum of its parent
    value, gradient = apart()
    print(f"without dropout the objectives differ by {value:.0e}, the gradients by {gradient:.0e} of their size")
    step = median_times({name: make(ALIGNED, 16) for name, make in STEPS.items()}, arguments.steps)
    margin, margin_apart = margin_times(10 * arguments.steps)
    ratios = {
        "step": step["ours"] / step["plain"],
        "margin": margin["plain"] / margin["ours"],
        "memory": memory["ours"][0] / memory["plain"][0],
    }
    print("\n| | plain | ours | ratio | goal |\n|---|---|---|---|---|")
    print(
        f"| training step, aligned, ms | {1e3 * step['plain']:.0f} | {1e3 * step['ours']:.0f} | {ratios['step']:.2f} | "
        f"at most {STEP_GOAL:.2f} (wish {STEP_WISH:.2f}) |"
    )
    print(
        f"| margin loss, 48 rows, ms | {1e3 * margin['plain']:.2f} | {1e3 * margin['ours']:.2f} | "
        f"{ratios['margin']:.1f} times faster | at least {MARGIN_GOAL:.0f} |"
    )
    print(
        f"| memory of the process, not aligned, MB | {memory['plain'][0]:.0f} | {memory['ours'][0]:.0f} | "
        f"{ratios['memory']:.2f} | at most {MEMORY_GOAL:.2f} |"
    )
    added = [memory[name][1] for name in STEPS]
    print(f"| … added by two steps, MB | {added[0]:.0f} | {added[1]:.0f} | {added[1] / added[0]:.2f} | |")
    if value > 1e-5 or gradient > 1e-3 or margin_apart > 1e-5:
        raise SystemExit("the two sides compute different values")
    if ratios["step"] > STEP_GOAL or ratios["margin"] < MARGIN_GOAL or ratios["memory"] > MEMORY_GOAL:
        raise SystemExit("a ratio misses its goal")


if __name__ == "__main__":
    main()

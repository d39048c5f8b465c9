"""Time and memory of a training step of DMD, relative to other code of its equations (`benchmarks/plain/dmd.py`).

- Fair peer: one module after the other, with PyTorch's `scaled_dot_product_attention` and one table of all margins.
- Published way: attention weights are computed explicitly, the margin loss is a loop over its anchors.

Three rows on one thread, CPU times, medians of steps in turns:

- a whole step on sequences like MOSI's, aligned (batch 16, no text encoder, published dropout): forward, every loss
  term, backward, clipping, Adam. Before that, all get the same weights, loaded like a published file, and
  objective and gradients are compared without dropout;
- the margin loss of 48 rows, forward and backward;
- memory of one step on sequences like MOSI's, not aligned (50, 500 and 375 steps, batch 2), each in a process of
  its own: the maximum of the process, and how much of it the step added.

    python benchmarks/dmd.py [--steps 7]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from plain.dmd import LETTERS, Attention, PlainDMD, PlainGraph, looped_margin, margin_table, plain_total
from plain.timing import Row, show, turns
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


def make_plain(lengths: dict[str, int], *, fused: bool = False) -> tuple[PlainDMD, PlainGraph, PlainGraph]:
    torch.manual_seed(0)
    network = PlainDMD(WIDTHS, lengths, dict.fromkeys(LETTERS, 5), width=50, heads=10, layers=4, **DROPOUT)
    for part in network.modules():
        if isinstance(part, Attention):
            part.fused = fused
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


def plain_step(lengths: dict[str, int], rows: int, *, fused: bool = False) -> Callable[[], None]:
    network, homo, hetero = make_plain(lengths, fused=fused)
    parameters = [p for part in (network, homo, hetero) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    inputs, labels = make_batch(lengths, rows)

    def step() -> None:
        optimizer.zero_grad()
        plain_total(network(inputs), labels, homo, hetero, fused=fused).backward()
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


STEPS = {"ours": our_step, "peer": partial(plain_step, fused=True), "published": plain_step}


def apart(*, fused: bool) -> tuple[float, float]:
    """Relative differences of objective and gradients without dropout."""
    network, *graphs = make_plain(ALIGNED, fused=fused)
    method = make_ours(ALIGNED)
    load_published(method.network, {n: p.detach() for n, p in network.named_parameters()}, "the plain network")
    for plain, unit in zip(graphs, method.units.values(), strict=True):
        unit.load_state_dict({n: p.detach() for n, p in plain.named_parameters()}, strict=False)
    network.eval(), method.eval()
    inputs, labels = make_batch(ALIGNED, 16)
    expected = plain_total(network(inputs), labels, *graphs, fused=fused)
    objective = torch.stack(list(method(ours_of(inputs, labels), {}).losses.values())).sum()
    expected.backward(), objective.backward()
    gradients = dict(network.named_parameters())
    worst = 0.0
    for name, target in published_places(method.network).items():
        gradient, reference = target.parameter.grad, gradients[name].grad
        ours = gradient[target.part] if target.part else gradient
        worst = max(worst, float((ours - reference).abs().max() / (reference.abs().max() + 1e-4)))
    return abs(float(objective.detach() / expected.detach()) - 1.0), worst


def margin_times(rounds: int) -> dict[str, float]:
    torch.manual_seed(2)
    features = torch.randn(48, 50, requires_grad=True)
    labels = ((torch.randn(16).clamp(-3, 3) * 5).round() / 5).repeat_interleave(3)
    ways = {"ours": ordinal_margin, "peer": margin_table, "published": looped_margin}
    for way in ways.values():
        torch.testing.assert_close(way(features, labels), ordinal_margin(features, labels), rtol=0, atol=1e-5)

    def work(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(features, labels), features)

    return turns({name: work(way) for name, way in ways.items()}, rounds, warm=4)


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
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--memory", choices=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        return measure_memory(arguments.memory)
    memory = {name: peak(name) for name in STEPS}  # first: a process inherits the maximum of its parent
    for fused in (True, False):
        value, gradient = apart(fused=fused)
        assert value < 1e-5 and gradient < 1e-3, f"objectives differ by {value:.0e}, gradients by {gradient:.0e}"
    step = turns({name: make(ALIGNED, 16) for name, make in STEPS.items()}, arguments.steps, warm=2)
    show([Row("training step, aligned", **step), Row("margin loss, 48 rows", **margin_times(20))], "ms")
    print()
    whole, added = ({name: values[part] for name, values in memory.items()} for part in (0, 1))
    show([Row("memory of the process, not aligned", **whole), Row("… added by two steps", **added)], "MB")


if __name__ == "__main__":
    main()

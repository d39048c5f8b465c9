"""Time and memory of losses on features, relative to straightforward code of their formulas.

Each pair of functions must agree in value and gradient before a number is printed. Time is the median of one forward
and backward pass, alternating in one process; memory is the growth of the process's maximum in a first pass, in
a new process per function.

    python benchmarks/losses.py
"""

from __future__ import annotations

import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.features import ab, hint, ofd, pkd
from xmodal.losses.maps import at, cwd, fsp, ft, hcl, nst
from xmodal.losses.relational import cc, pkt, rkd, rkd_angle, rkd_distance, sp

REPEATS = 5
VECTORS, MAPS = (256, 512), (32, 64, 16, 16)
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """Our loss, straightforward code of the formula, and the shape of both networks' features."""

    ours: Loss
    formula: Loss
    shape: tuple[int, ...]


def angles(f: Tensor) -> Tensor:
    e = F.normalize(f[None] - f[:, None], dim=2, eps=1e-12)
    return e @ e.transpose(1, 2)


def distances(f: Tensor) -> Tensor:
    squares = f.square().sum(1)
    d = (squares[:, None] + squares[None] - 2 * f @ f.T).clamp(min=1e-12).sqrt()
    d = d * (1 - torch.eye(len(f)))
    return d / d[d > 0].mean()


def formula_distance(s: Tensor, t: Tensor) -> Tensor:
    return F.smooth_l1_loss(distances(s), distances(t))


def formula_angle(s: Tensor, t: Tensor) -> Tensor:
    return F.smooth_l1_loss(angles(s), angles(t))


def formula_rkd(s: Tensor, t: Tensor) -> Tensor:
    return 25 * formula_distance(s, t) + 50 * formula_angle(s, t)


def neighbours(f: Tensor) -> Tensor:
    f = f / (f.norm(dim=1, keepdim=True) + 1e-7)
    similar = (f @ f.T + 1) / 2
    return similar / similar.sum(1, keepdim=True)


def formula_pkt(s: Tensor, t: Tensor) -> Tensor:
    p, q = neighbours(t), neighbours(s)
    return (p * torch.log((p + 1e-7) / (q + 1e-7))).mean()


def formula_sp(s: Tensor, t: Tensor) -> Tensor:
    return (F.normalize(s @ s.T) - F.normalize(t @ t.T)).square().sum() / len(s) ** 2


def formula_cc(s: Tensor, t: Tensor) -> Tensor:
    d = (s - t).abs()
    return (d[:-1] * d[1:]).sum(1).mean()


def formula_ab(s: Tensor, t: Tensor) -> Tensor:
    low, high = ((s > -1) & (t <= 0)).float(), ((s <= 1) & (t > 0)).float()
    return ((s + 1) ** 2 * low + (s - 1) ** 2 * high).sum() / len(s) / 1000 * 3


def formula_ofd(s: Tensor, t: Tensor) -> Tensor:
    m = torch.stack([c[c < 0].mean() for c in t.transpose(0, 1)])[None, :, None, None]
    t = torch.max(t, m)
    return ((s - t) ** 2 * ((s > t) | (t > 0)).float()).sum() / len(s)


def formula_pkd(s: Tensor, t: Tensor) -> Tensor:
    a, b = (f.transpose(0, 1).flatten(1) for f in (s, t))
    a, b = ((f - f.mean(1, keepdim=True)) / (f.std(1, keepdim=True) + 1e-6) for f in (a, b))
    return F.mse_loss(a, b) / 2


def focus(f: Tensor) -> Tensor:
    return F.normalize(f.pow(2).mean(1).flatten(1))


def formula_at(s: Tensor, t: Tensor) -> Tensor:
    return (focus(s) - focus(t)).pow(2).mean()


def formula_ft(s: Tensor, t: Tensor) -> Tensor:
    return (focus(s) - focus(t)).abs().mean()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] * b[:, :, None]).sum(-1).pow(2).mean()


def formula_nst(s: Tensor, t: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(2), dim=2) for f in (s, t))
    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def formula_cwd(s: Tensor, t: Tensor) -> Tensor:
    p, q = (f.flatten(2).div(4).softmax(2) for f in (t, s))
    return 16 * (p * (p.log() - q.log())).sum() / p.shape[0] / p.shape[1]


def formula_fsp(s: Tensor, t: Tensor) -> Tensor:
    return ((s[:, None] * s[:, :, None]).mean((3, 4)) - (t[:, None] * t[:, :, None]).mean((3, 4))).pow(2).mean()


def formula_hcl(s: Tensor, t: Tensor) -> Tensor:
    total, weights, weight = F.mse_loss(s, t), 1.0, 1.0
    for level in (4, 2, 1):
        weight /= 2
        weights += weight
        total = total + weight * F.mse_loss(F.adaptive_avg_pool2d(s, level), F.adaptive_avg_pool2d(t, level))
    return total / weights


PAIRS = {
    "rkd": Pair(rkd, formula_rkd, VECTORS),
    "rkd_angle": Pair(rkd_angle, formula_angle, VECTORS),
    "rkd_distance": Pair(rkd_distance, formula_distance, VECTORS),
    "pkt": Pair(pkt, formula_pkt, VECTORS),
    "sp": Pair(sp, formula_sp, VECTORS),
    "cc": Pair(cc, formula_cc, VECTORS),
    "hint": Pair(hint, F.mse_loss, MAPS),
    "ab": Pair(ab, formula_ab, MAPS),
    "ofd": Pair(ofd, formula_ofd, MAPS),
    "pkd": Pair(pkd, formula_pkd, MAPS),
    "at": Pair(at, formula_at, MAPS),
    "ft": Pair(ft, formula_ft, MAPS),
    "nst": Pair(nst, formula_nst, MAPS),
    "cwd": Pair(cwd, formula_cwd, MAPS),
    "fsp": Pair(lambda s, t: fsp([s, s], [t, t]), formula_fsp, MAPS),
    "hcl": Pair(hcl, formula_hcl, MAPS),
}


def features(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def one_pass(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(student, teacher)
    return value.detach(), torch.autograd.grad(value, student)[0]


def must_agree(pair: Pair) -> None:
    student, teacher = features(pair.shape)
    for ours, formula in zip(
        one_pass(pair.ours, student, teacher), one_pass(pair.formula, student, teacher), strict=True
    ):
        torch.testing.assert_close(ours, formula, rtol=1e-3, atol=1e-3 * formula.abs().max().item())


def seconds(loss: Loss, student: Tensor, teacher: Tensor) -> float:
    start = time.perf_counter()
    one_pass(loss, student, teacher)
    return time.perf_counter() - start


def times(pair: Pair) -> tuple[float, float]:
    student, teacher = features(pair.shape)
    turns = [(seconds(pair.ours, student, teacher), seconds(pair.formula, student, teacher)) for _ in range(REPEATS)]
    ours, formula = zip(*turns, strict=True)
    return statistics.median(ours), statistics.median(formula)


def peak() -> float:
    """Maximum memory of this process in MB."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**20 if sys.platform == "darwin" else 2**10)


def grown(name: str, side: str) -> float:
    """MB that a pass adds to the maximum, after a pass with few rows that loads what every pass needs."""
    pair = PAIRS[name]
    loss: Loss = getattr(pair, side)
    one_pass(loss, *features((8, *pair.shape[1:])))
    given = features(pair.shape)
    before = peak()
    one_pass(loss, *given)
    return peak() - before


def memory(name: str, side: str) -> float:
    done = subprocess.run([sys.executable, __file__, name, side], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """One line per loss."""
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        print(grown(sys.argv[1], sys.argv[2]))
        return
    # first: a process inherits the maximum of its parent
    held = {name: (memory(name, "ours"), memory(name, "formula")) for name in PAIRS}
    print("loss           ours ms  formula ms  ratio   ours MB  formula MB  ratio")
    for name, pair in PAIRS.items():
        must_agree(pair)
        ours, formula = times(pair)
        our_peak, formula_peak = held[name]
        share = our_peak / formula_peak if formula_peak else math.nan
        print(
            f"{name:13} {1e3 * ours:8.2f} {1e3 * formula:11.2f} {ours / formula:6.2f}"
            f" {our_peak:9.1f} {formula_peak:11.1f} {share:6.2f}"
        )


if __name__ == "__main__":
    main()

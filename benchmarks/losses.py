"""Time and memory of losses on features, relative to other code of their formulas.

- Fair peer: the formula in a few lines of PyTorch, with `einsum` for products between channels.
- Published way, where it differs: `nst` and `fsp` by broadcasting to all pairs of channels, as in published code.

Each must agree with ours in value and gradient before a number is printed. Times are CPU times of one forward and
backward pass, medians, in turns, with one thread. With --memory, the growth of the process's maximum in a first pass is
printed instead, in a new process per function (two minutes).

    python benchmarks/losses.py [--memory]
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from plain.timing import Row, show, turns
from torch import Tensor

from xmodal.losses.features import ab, hint, ofd, pkd
from xmodal.losses.maps import at, cwd, fsp, ft, hcl, nst
from xmodal.losses.relational import cc, pkt, rkd_angle, rkd_distance, sp

REPEATS, FEW = 9, 3
VECTORS, MAPS = (256, 512), (32, 64, 16, 16)
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """Our loss, the formula, the shape of both networks' features, and the published way if it differs."""

    ours: Loss
    peer: Loss
    shape: tuple[int, ...]
    published: Loss | None = None


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
    return torch.einsum("bcp,bdp->bcd", a, b).square().mean()


def published_kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] * b[:, :, None]).sum(-1).pow(2).mean()


def formula_nst(s: Tensor, t: Tensor, kernel: Loss = kernel) -> Tensor:
    s, t = (F.normalize(f.flatten(2), dim=2) for f in (s, t))
    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def published_nst(s: Tensor, t: Tensor) -> Tensor:
    return formula_nst(s, t, published_kernel)


def formula_cwd(s: Tensor, t: Tensor) -> Tensor:
    p, q = (f.flatten(2).div(4).softmax(2) for f in (t, s))
    return 16 * (p * (p.log() - q.log())).sum() / p.shape[0] / p.shape[1]


def flow(f: Tensor) -> Tensor:
    return torch.einsum("bchw,bdhw->bcd", f, f) / f[0, 0].numel()


def formula_fsp(s: Tensor, t: Tensor) -> Tensor:
    return (flow(s) - flow(t)).square().mean()


def published_fsp(s: Tensor, t: Tensor) -> Tensor:
    return ((s[:, None] * s[:, :, None]).mean((3, 4)) - (t[:, None] * t[:, :, None]).mean((3, 4))).pow(2).mean()


def formula_hcl(s: Tensor, t: Tensor) -> Tensor:
    total, weights, weight = F.mse_loss(s, t), 1.0, 1.0
    for level in (4, 2, 1):
        weight /= 2
        weights += weight
        total = total + weight * F.mse_loss(F.adaptive_avg_pool2d(s, level), F.adaptive_avg_pool2d(t, level))
    return total / weights


PAIRS = {
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
    "nst": Pair(nst, formula_nst, MAPS, published_nst),
    "cwd": Pair(cwd, formula_cwd, MAPS),
    "fsp": Pair(lambda s, t: fsp([s, s], [t, t]), formula_fsp, MAPS, published_fsp),
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
    ours = one_pass(pair.ours, student, teacher)
    for other in filter(None, (pair.peer, pair.published)):
        for our, their in zip(ours, one_pass(other, student, teacher), strict=True):
            torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-3 * their.abs().max().item())


def times(name: str, pair: Pair) -> Row:
    student, teacher = features(pair.shape)
    losses = {"ours": pair.ours, "peer": pair.peer, "published": pair.published}
    ways = {
        way: lambda loss=loss: one_pass(loss, student, teacher)  # type: ignore[misc]
        for way, loss in losses.items()
        if loss is not None
    }
    seconds = turns(ways, REPEATS if pair.shape == MAPS else FEW)
    return Row(name, seconds["ours"], seconds["peer"], seconds.get("published", math.nan))


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


def memories() -> None:
    print("| | ours, MB | fair peer, MB | peer / ours |\n|---|---|---|---|")
    for name in PAIRS:
        ours, peer = (memory(name, side) for side in ("ours", "peer"))
        print(f"| {name} | {ours:.1f} | {peer:.1f} | {peer / ours if ours else math.nan:.2f} |", flush=True)


def main() -> None:
    """One line per loss."""
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        print(grown(sys.argv[1], sys.argv[2]))
    elif "--memory" in sys.argv:  # a process inherits the maximum of its parent: nothing is computed in this one
        memories()
    else:
        for pair in PAIRS.values():
            must_agree(pair)
        show([times(name, pair) for name, pair in PAIRS.items()], "ms")


if __name__ == "__main__":
    main()

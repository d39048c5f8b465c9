"""Optimisers and schedules by name.

A schedule multiplies the learning rate by a factor that depends only on the time in epochs, a fraction: (updates so
far) / (updates per epoch). So only the number of updates is saved; `plateau` alone has more state.

The time of an update is that before it, or with ``schedule_point="end"`` that after it. With the latter, a cosine
schedule with warm-up has the rates of the published LiDAR training. For update t = 0, 1, …, with n updates per epoch, E
epochs and W epochs of warm-up:

    lr (t + 1) / w                       for t < w
    lr (1 + cos(π (t - w + 1) / T)) / 2  afterwards,   w = max(W n, 1),  T = n (E - W)
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError, did_you_mean

FUSED_FROM = 100_000  # with at least so many parameters Adam updates all tensors in one call

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def build_optimizers(groups: Sequence[Mapping[str, Any]], settings: FitSettings) -> list[Optimizer]:
    """One optimiser per name in the groups; a group may have its own optimiser, rate and options."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        group = {**group, "params": list(group["params"])}
        name = group.pop("optimizer", settings.optimizer)
        if name not in OPTIMIZERS:
            raise InputError(f"There is no optimiser called '{name}'. {did_you_mean(name, OPTIMIZERS)}")
        by_name.setdefault(name, []).append(group)
    if not any(len(group["params"]) for same_name in by_name.values() for group in same_name):
        raise InputError("There is nothing to train: no parameter requires a gradient. Check what was frozen.")
    return [
        _bare(OPTIMIZERS[name])(same_name, **_options(name, settings), **_fused(name, same_name))
        for name, same_name in by_name.items()
    ]


def _fused(name: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The option with which Adam updates all tensors in one call: 3 to 4 times as fast, equal up to rounding."""
    # Not small networks: there an update takes microseconds either way, and results keep the bits of earlier versions.
    parameters = [parameter for group in groups for parameter in group["params"]]
    supported = all(tensor.device.type in ("cpu", "cuda") and tensor.is_floating_point() for tensor in parameters)
    large = sum(tensor.numel() for tensor in parameters) >= FUSED_FROM
    return {"fused": True} if name in ("adam", "adamw") and supported and large else {}


def _bare(kind: type[Optimizer]) -> type[Optimizer]:
    """The same optimiser without what torch wraps around its members for its compiler.

    The first call of a wrapped one imports the compiler, which takes seconds that a short training notices.
    """
    members = {
        name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "state_dict", "load_state_dict")
    }
    return type(kind.__name__, (kind,), members)


def _bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """``optimizer.step`` without its wrappers: for the compiler, hooks (it has none), and a record of the profiler.

    Of the step of a small network these take a seventh.
    """
    return functools.partial(torch.no_grad()(inspect.unwrap(type(optimizer).step)), optimizer)


def _options(name: str, settings: FitSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if name in ("sgd", "rmsprop"):
        options["momentum"] = settings.momentum
    if name == "sgd":
        options["nesterov"] = settings.nesterov
    return options


def factor(settings: FitSettings, epoch: float, *, least: float = 0.0, length: float | None = None) -> float:
    """Factor of the learning rate after ``epoch`` epochs.

    Args:
        settings: which schedule.
        epoch: number of epochs done, a fraction within an epoch.
        least: lower bound on the epochs of warm-up.
        length: epochs of the whole training; None: those of the settings.

    Example:
        >>> factor(FitSettings(schedule="cosine", epochs=10), 5.0)
        0.5
    """
    warm = max(settings.warmup, least)
    # not 0 at the start: the first update would do nothing
    if epoch < warm:
        return max(epoch, 1e-3 * warm) / warm
    progress = (epoch - warm) / max((length or settings.epochs) - settings.warmup, 1e-12)
    whole = math.floor(epoch)
    if settings.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    if settings.schedule == "linear":
        return max(1.0 - progress, 0.0)
    if settings.schedule == "step":
        return settings.schedule_factor ** (whole // settings.schedule_every)
    if settings.schedule == "multistep":
        return settings.schedule_factor ** sum(whole >= at for at in settings.schedule_at)
    if settings.schedule == "exponential":
        return settings.schedule_factor**whole
    return 1.0


class Optimisers:
    """All optimisers of a method, their schedule, clipping and state.

    Args:
        groups: as ``Method.param_groups`` returns them.
        settings: optimiser, schedule and clipping.
        steps_per_epoch: updates per epoch.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], settings: FitSettings, steps_per_epoch: int) -> None:
        self.settings = settings
        self.steps_per_epoch = max(steps_per_epoch, 1)
        self.optimizers = build_optimizers(groups, settings)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self._update = [_bare_step(optimizer) for optimizer in self.optimizers]
        # all that are optimised
        self.parameters: list[Tensor] = [parameter for group, _ in self._groups() for parameter in group["params"]]
        self.updates = 0
        self.plateau = {"factor": 1.0, "best": math.inf, "waited": 0}
        # rates that only `plateau` changes, at the end of an epoch, are not set again in each step
        self._constant = settings.schedule in ("constant", "plateau") and not settings.warmup

    def _groups(self) -> Iterator[tuple[dict[str, Any], float]]:
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            yield from zip(optimizer.param_groups, rates, strict=True)

    def set_rates(self) -> None:
        """Set the learning rates for the next update."""
        steps = self.steps_per_epoch
        end = self.settings.schedule_point == "end"
        if self.settings.schedule_per == "epoch":
            epoch, least = float(self.updates // steps + end), float(end)
        else:
            epoch, least = (self.updates + end) / steps, end / steps
        length = self.settings.updates / steps if self.settings.updates else None
        scale = factor(self.settings, epoch, least=least, length=length) * self.plateau["factor"]
        for group, rate in self._groups():
            group["lr"] = rate * scale

    def clip(self) -> None:
        """Clip the gradients of all parameters."""
        if self.settings.clip is None:
            return
        if self.settings.clip_mode == "norm":
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        else:
            torch.nn.utils.clip_grad_value_(self.parameters, self.settings.clip)

    def step(self) -> None:
        """Update the parameters and delete their gradients."""
        if self.settings.clip is not None and self.settings.clip_at == "step":
            self.clip()
        if not self._constant:
            self.set_rates()
        for update in self._update:
            update()
        self.drop()
        self.updates += 1

    def drop(self) -> None:
        """Delete the gradients without an update."""
        # not by `Optimizer.zero_grad`, which opens a record of the profiler: a tenth of the time of a small update
        for parameter in self.parameters:
            parameter.grad = None

    def end_epoch(self, score: float) -> None:
        """Tell ``plateau`` the score of the epoch (smaller is better)."""
        if self.settings.schedule != "plateau":
            return
        if score < self.plateau["best"]:
            self.plateau.update(best=score, waited=0)
            return
        self.plateau["waited"] += 1
        if self.plateau["waited"] > self.settings.schedule_every:
            self.plateau.update(factor=self.plateau["factor"] * self.settings.schedule_factor, waited=0)
            self.set_rates()

    @property
    def rates(self) -> list[float]:
        """Current learning rate of each group."""
        return [group["lr"] for group, _ in self._groups()]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state as tensors and JSON, for `load_state`."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {"updates": self.updates, "plateau": dict(self.plateau), "optimizers": []}
        for number, optimizer in enumerate(self.optimizers):
            state = optimizer.state_dict()
            rest: dict[str, dict[str, Any]] = {}
            for index, entries in state["state"].items():
                for name, value in entries.items():
                    if isinstance(value, Tensor):
                        tensors[f"{number}/{index}/{name}"] = value
                    else:
                        rest.setdefault(str(index), {})[name] = value
            plain["optimizers"].append({"param_groups": state["param_groups"], "rest": rest})
        return tensors, plain

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the state that `state` returned."""
        self.updates = plain["updates"]
        self.plateau = dict(plain["plateau"])
        for number, (optimizer, saved) in enumerate(zip(self.optimizers, plain["optimizers"], strict=True)):
            state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in saved["rest"].items()}
            for key, tensor in tensors.items():
                optimizer_number, index, name = key.split("/", 2)
                if int(optimizer_number) == number:
                    state.setdefault(int(index), {})[name] = tensor
            # JSON has no tuples, and torch's Adam unpacks `betas` as one
            groups = [
                {key: tuple(value) if key == "betas" else value for key, value in group.items()}
                for group in saved["param_groups"]
            ]
            optimizer.load_state_dict({"state": state, "param_groups": groups})

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from array_golden import golden_cases
from torch import nn

from xmodal.engine.optim import FUSED_FROM, OPTIMIZERS, Optimisers, build_optimizers, factor
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1.0, 1.0, 1.0]),
        ({"schedule": "cosine"}, [1.0, 0.5, 0.0]),
        ({"schedule": "linear"}, [1.0, 0.5, 0.0]),
        ({"schedule": "step", "schedule_every": 5}, [1.0, 0.1, 0.01]),
        ({"schedule": "multistep", "schedule_at": (3, 7)}, [1.0, 0.1, 0.01]),
        ({"schedule": "exponential", "schedule_factor": 0.5}, [1.0, 0.5**5, 0.5**10]),
    ],
    ids=lambda value: value.get("schedule", "") if isinstance(value, dict) else "",
)
def test_schedules_at_start_middle_and_end(settings: dict[str, Any], expected: list[float]) -> None:
    rates = [factor(FitSettings(epochs=10, **settings), epoch) for epoch in (0.0, 5.0, 10.0)]

    assert rates == pytest.approx(expected, abs=1e-12)


def test_warm_up_rises_to_one_and_the_schedule_starts_after_it() -> None:
    settings = FitSettings(epochs=10, schedule="cosine", warmup=2.0)

    assert factor(settings, 1.0) == 0.5
    assert 0.0 < factor(settings, 0.0) < 0.01, "a rate of zero would waste the first update"
    assert factor(settings, 2.0) == 1.0
    assert factor(settings, 6.0) == pytest.approx(0.5)


def test_cosine_equals_the_library_schedule() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    reference = torch.optim.SGD([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=8)
    ours = Optimisers([{"params": [parameter]}], FitSettings(epochs=8, learning_rate=0.3, schedule="cosine"), 1)
    for _ in range(8):
        ours.set_rates()
        assert ours.rates == pytest.approx(schedule.get_last_lr())
        reference.step()
        schedule.step()
        ours.updates += 1


def rates_of(steps: int, per_epoch: int, **settings: Any) -> list[float]:
    """The rate of every update of a training."""
    ours = Optimisers([{"params": [nn.Parameter(torch.zeros(1))]}], FitSettings(**settings), per_epoch)
    rates = []
    for _ in range(steps):
        ours.parameters[0].grad = torch.ones(1)
        ours.step()
        rates += ours.rates
    return rates


def test_rates_at_the_end_of_each_update_rise_from_the_first_and_end_at_zero() -> None:
    rates = rates_of(8, 2, epochs=4, learning_rate=1.0, schedule="cosine", warmup=2.0, schedule_point="end")

    cosine = [0.5 * (1 + math.cos(math.pi * quarter / 4)) for quarter in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *cosine], abs=1e-12)
    assert rates[-1] == 0.0


def test_without_warm_up_the_first_update_has_the_whole_rate() -> None:
    rates = rates_of(4, 2, epochs=2, learning_rate=1.0, schedule="cosine", schedule_point="end")

    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)])


def test_rates_at_the_end_of_each_epoch() -> None:
    rates = rates_of(
        4, 1, epochs=4, learning_rate=1.0, schedule="linear", warmup=1, schedule_point="end", schedule_per="epoch"
    )

    assert rates == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


def test_golden_kitti_rates_of_every_update() -> None:
    for case in golden_cases("kitti/lr"):
        p = case.params
        rates = rates_of(
            p["iters_per_epoch"] * p["epochs"],
            p["iters_per_epoch"],
            epochs=p["epochs"],
            warmup=p["warmup_epochs"],
            learning_rate=p["lr"],
            schedule="cosine",
            schedule_point="end",
        )

        assert case.check(lr=rates) == ["lr"]


def test_groups_of_two_optimisers_follow_one_schedule_and_go_on_from_their_state() -> None:
    settings = FitSettings(epochs=3, schedule="cosine", warmup=1, schedule_point="end", learning_rate=0.1)

    def made(network: nn.Sequential) -> Optimisers:
        own = {"optimizer": "sgd", "nesterov": True, "weight_decay": 1e-5}
        groups = [
            {"params": list(network[0].parameters()), "optimizer": "adamw"},
            {"params": list(network[1].parameters()), "lr": 0.2, **own},
        ]
        return Optimisers(groups, settings, 2)

    def train(network: nn.Sequential, optimisers: Optimisers, steps: range) -> list[list[float]]:
        rates = []
        for step in steps:
            network(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimisers.step()
            rates.append(optimisers.rates)
        return rates

    straight, again = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)) for _ in range(2))
    again.load_state_dict(straight.state_dict())
    whole = train(straight, made(straight), range(6))
    first = made(again)
    half = train(again, first, range(3))
    tensors, plain = first.state()
    second = made(again)
    second.load_state({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(plain)))
    rest = train(again, second, range(3, 6))

    assert half + rest == whole and [rates[1] for rates in whole] == pytest.approx([2 * rates[0] for rates in whole])
    assert torch.equal(straight[1].weight, again[1].weight) and torch.equal(straight[0].weight, again[0].weight)


def test_plateau_waits_and_falls() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    settings = FitSettings(schedule="plateau", schedule_every=2, schedule_factor=0.5, learning_rate=1.0)
    ours = Optimisers([{"params": [parameter]}], settings, 1)
    rates = []
    for score in (3.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        ours.end_epoch(score)
        rates += ours.rates

    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(("name", "outputs"), [*((name, 2) for name in sorted(OPTIMIZERS)), ("adam", 50_000)])
def test_state_through_json_continues_with_the_same_bits(name: str, outputs: int) -> None:
    settings = FitSettings(optimizer=name, learning_rate=0.01, momentum=0.9, schedule="cosine", epochs=5)
    straight, left, right = (nn.Linear(3, outputs) for _ in range(3))
    left.load_state_dict(straight.state_dict())

    def train(network: nn.Module, optimisers: Optimisers, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            network(torch.randn(4, 3, generator=generator)).square().sum().backward()
            optimisers.step()

    def made(network: nn.Module) -> Optimisers:
        return Optimisers([{"params": list(network.parameters())}], settings, 2)

    train(straight, made(straight), range(6))
    first = made(left)
    train(left, first, range(3))
    tensors, plain = first.state()
    right.load_state_dict(left.state_dict())
    second = made(right)
    second.load_state({key: value.clone() for key, value in tensors.items()}, json.loads(json.dumps(plain)))
    train(right, second, range(3, 6))

    assert torch.equal(straight.weight, right.weight)


def test_an_unknown_optimiser_of_a_group_gets_a_suggestion() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "optimizer": "addam"}]

    with pytest.raises(InputError, match="Did you mean 'adam'"):
        build_optimizers(groups, FitSettings())


def test_large_networks_are_updated_by_adam_in_one_call_and_equal_to_rounding() -> None:
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        ours, theirs = nn.Linear(400, FUSED_FROM // 400), nn.Linear(400, FUSED_FROM // 400)
        theirs.load_state_dict(ours.state_dict())
        optimisers = Optimisers([{"params": ours.parameters()}], FitSettings(optimizer=name, weight_decay=0.1), 1)
        plain = kind(theirs.parameters(), lr=1e-3, weight_decay=0.1)
        for step in range(5):
            for network in (ours, theirs):
                network(torch.randn(4, 400, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimisers.step()
            plain.step()
            plain.zero_grad()

        assert optimisers.optimizers[0].param_groups[0]["fused"]
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "width"), [("adam", 4), ("sgd", FUSED_FROM), ("rmsprop", FUSED_FROM)])
def test_small_networks_and_other_optimisers_keep_their_bits(name: str, width: int) -> None:
    (optimizer,) = build_optimizers([{"params": [nn.Parameter(torch.zeros(width))]}], FitSettings(optimizer=name))

    assert not optimizer.param_groups[0].get("fused")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_the_wrappers_of_torch_an_update_has_the_same_bits(name: str) -> None:
    settings = FitSettings(optimizer=name, weight_decay=0.1)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimisers = Optimisers([{"params": ours.parameters()}], settings, 1)
    momentum = {"momentum": settings.momentum} if name in ("sgd", "rmsprop") else {}
    plain = OPTIMIZERS[name](theirs.parameters(), lr=settings.learning_rate, weight_decay=0.1, **momentum)
    for step in range(5):
        for network in (ours, theirs):
            network(torch.randn(4, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimisers.step()
        plain.step()
        plain.zero_grad()

        assert torch.equal(ours.weight, theirs.weight) and ours.weight.grad is None
    assert isinstance(optimisers.optimizers[0], OPTIMIZERS[name])

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
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
    found = [factor(FitSettings(epochs=10, **settings), epoch) for epoch in (0.0, 5.0, 10.0)]

    assert found == pytest.approx(expected, abs=1e-12)


def test_warm_up_rises_to_one_and_the_schedule_starts_after_it() -> None:
    settings = FitSettings(epochs=10, schedule="cosine", warmup=2.0)

    assert factor(settings, 1.0) == 0.5
    assert 0.0 < factor(settings, 0.0) < 0.01, "a rate of zero would waste the first update"
    assert factor(settings, 2.0) == 1.0
    assert factor(settings, 6.0) == pytest.approx(0.5)


def test_cosine_equals_the_library_schedule() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=8)
    ours = Optimisers([{"params": [parameter]}], FitSettings(epochs=8, learning_rate=0.3, schedule="cosine"), 1)
    for _ in range(8):
        ours.set_rates()
        assert ours.rates == pytest.approx(schedule.get_last_lr())
        theirs.step()
        schedule.step()
        ours.updates += 1


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
        mine = Optimisers([{"params": ours.parameters()}], FitSettings(optimizer=name, weight_decay=0.1), 1)
        plain = kind(theirs.parameters(), lr=1e-3, weight_decay=0.1)
        for step in range(5):
            for network in (ours, theirs):
                network(torch.randn(4, 400, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            mine.step()
            plain.step()
            plain.zero_grad()

        assert mine.optimizers[0].param_groups[0]["fused"]
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "width"), [("adam", 4), ("sgd", FUSED_FROM), ("rmsprop", FUSED_FROM)])
def test_small_networks_and_other_optimisers_keep_their_bits(name: str, width: int) -> None:
    (optimizer,) = build_optimizers([{"params": [nn.Parameter(torch.zeros(width))]}], FitSettings(optimizer=name))

    assert not optimizer.param_groups[0].get("fused")

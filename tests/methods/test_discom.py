"""DisCoM-KD: every term against NumPy, what each of them trains, the released targets, unpaired batches."""

import math

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.discom import RELEASED, TERMS, DisCoM
from xmodal.models.discom_net import branches_for
from xmodal.models.network import build_for
from xmodal.types import Batch, DataInfo, InputInfo

MLP = {"encoder": "mlp", "shape": [5], "width": 8}
LN2 = math.log(2.0)
BLOCKS = ("invariant", "specific", "projection", "head")
HEADS = ("auxiliary", "adversary", "informative", "irrelevant")
TRAINS = {  # term → networks of each modality and shared heads that it moves
    "task": {"invariant", "specific", "projection", "head"},
    "auxiliary": {"invariant", "specific", "projection", "heads.auxiliary"},
    "adversarial": {"invariant", "projection", "heads.adversary"},
    "modality": {"specific", "heads.informative", "heads.irrelevant"},
    "orthogonality": {"invariant", "specific", "projection"},
}


def info_of(modalities=("left", "right"), task="multiclass", classes=3, **facts):
    inputs = {name: InputInfo((5,), layout="vector") for name in modalities}
    return DataInfo(inputs, task, classes, {}, paired=False, **facts)


def make(info=None, *, seed=0, **settings):
    torch.manual_seed(seed)
    info = info or info_of()
    return DisCoM({name: branches_for(info, name, MLP) for name in info.modalities}, info, **settings).double()


def batch_of(info, *rows, seed=0):
    random = np.random.default_rng(seed)
    rows = rows or (6,) * len(info.modalities)
    inputs = {name: torch.tensor(random.normal(size=(n, 5))) for name, n in zip(info.modalities, rows, strict=True)}
    targets = {}
    for name, n in zip(info.modalities, rows, strict=True):
        drawn = {
            "multiclass": lambda n=n: torch.tensor(random.integers(0, info.classes, n)),
            "binary": lambda n=n: torch.tensor(random.integers(0, 2, n)),
            "multilabel": lambda n=n: torch.tensor(random.integers(0, 2, (n, info.classes))),
            "regression": lambda n=n: torch.tensor(random.normal(size=(n, info.classes))),
        }
        targets[name] = drawn[info.task]()
    return Batch(inputs, targets, {}, {name: torch.arange(len(target)) for name, target in targets.items()})


# ---- the equations in NumPy


def affine(head, x):
    return x @ head.weight.detach().numpy().T + head.bias.detach().numpy()


def cross_entropy(logits, target):
    odds = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(odds).sum(axis=1)) - odds[np.arange(len(odds)), target]


def cosine(one, other):
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / np.maximum(lengths, 1e-24)  # a row of zeros has no direction


def by_numpy(method, batch):
    """All terms of a classification method in evaluation mode, as in the table of its docstring."""
    rows = []  # (u, v, w), label, modality, head of the modality
    for number, branches in enumerate(method.branches):
        with torch.no_grad():
            parts = [part.numpy() for part in branches.embed(batch.inputs)]
        rows.append((parts, batch.targets[branches.modality].numpy(), number, branches.head))
    modality = np.concatenate([np.full(len(label), number) for _, label, number, _ in rows])
    label = np.concatenate([label for _, label, _, _ in rows])
    u, v, w = (np.concatenate([parts[place] for parts, *_ in rows]) for place in range(3))
    task = [cross_entropy(affine(head, np.hstack(parts[:2])), label) for parts, label, _, head in rows]
    heads = method.heads
    informative = cross_entropy(affine(heads.informative, v), modality).mean()
    irrelevant = cross_entropy(affine(heads.irrelevant, w), modality).mean()
    auxiliary = [cross_entropy(affine(heads.auxiliary, part), label).mean() for part in (u, v)]
    return {
        "task": np.concatenate(task).mean(),
        "auxiliary": sum(auxiliary),
        "adversarial": cross_entropy(affine(heads.adversary, u), modality).mean(),
        "modality": (informative + irrelevant) / 2,
        "orthogonality": np.abs(cosine(v, w)).mean() + np.abs(cosine(v, u)).mean(),
    }


@pytest.mark.parametrize("modalities", [("left", "right"), ("left", "right", "up")])
@pytest.mark.parametrize("classes", [2, 3])
def test_every_term_is_its_equation(modalities, classes):
    info = info_of(modalities, classes=classes)
    method, batch = make(info).eval(), batch_of(info)

    step = method(batch, {})

    assert tuple(step.losses) == TERMS and step.counts == {} and step.logs == {}
    assert {name: loss.item() for name, loss in step.losses.items()} == pytest.approx(by_numpy(method, batch), abs=1e-9)


def test_task_terms_are_means_over_all_rows_and_modality_terms_count_every_modality_alike():
    info = info_of()
    method, batch = make(info).eval(), batch_of(info, 9, 3)
    many = Batch(
        {**batch.inputs, "right": batch.inputs["right"].repeat(3, 1)},
        {**batch.targets, "right": batch.targets["right"].repeat(3)},
    )

    found, even = method(batch, {}).losses, method(many, {}).losses

    assert found["task"].item() == pytest.approx(by_numpy(method, batch)["task"])
    for name in ("adversarial", "modality"):
        torch.testing.assert_close(found[name], even[name])


def test_weights_multiply_their_terms():
    info, batch = info_of(), batch_of(info_of())
    weights = {f"{name}_weight": 0.5 * place for place, name in enumerate(TERMS, start=1)}

    plain, weighted = make(info).eval()(batch, {}).losses, make(info, **weights).eval()(batch, {}).losses

    for name in TERMS:
        torch.testing.assert_close(weighted[name], weights[f"{name}_weight"] * plain[name])


def gradient_of(method, batch, term, *, training=True):
    """Which networks a term alone moves."""
    method.train(training).zero_grad()
    method.terms(batch.inputs, batch.targets)[0][term].backward()
    moved = set()
    for branches in method.branches:
        found = {name for name in BLOCKS if grads_of(getattr(branches, name))}
        moved |= found
    return moved | {f"heads.{name}" for name in HEADS if grads_of(getattr(method.heads, name))}


def grads_of(module):
    return any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("term", TERMS)
def test_a_term_moves_its_networks_and_no_other(term):
    method, batch = make(), batch_of(info_of())

    assert gradient_of(method, batch, term) == TRAINS[term]


@pytest.mark.parametrize(
    ("term", "touched"),
    [
        ("task", (True, True, False)),
        ("auxiliary", (True, True, False)),
        ("adversarial", (True, False, False)),
        ("modality", (False, True, True)),
        ("orthogonality", (True, True, True)),
    ],
)
def test_a_term_touches_its_parts_and_leaves_the_others_with_exact_zeros(term, touched, monkeypatch):
    method, batch = make(), batch_of(info_of())
    kept = keep_parts(method, monkeypatch)

    method.terms(batch.inputs, batch.targets)[0][term].backward()

    for parts in kept.values():
        assert tuple(part.grad is not None and bool(part.grad.any()) for part in parts) == touched


def keep_parts(method, monkeypatch):
    """Modality → its three parts, whose gradients will be there after a backward pass."""
    kept = {}
    for branches in method.branches:
        embed = branches.embed

        def embed_and_keep(inputs, branches=branches, embed=embed):
            parts = embed(inputs)
            for part in parts:
                part.retain_grad()
            kept[branches.modality] = parts
            return parts

        monkeypatch.setattr(branches, "embed", embed_and_keep)
    return kept


@pytest.mark.parametrize("reversal", [0.0, 1.0, 2.5])
def test_the_reversal_turns_what_the_adversary_asks_of_the_embedding(reversal, monkeypatch):
    found = []
    for strength in (-1.0, reversal):  # -1 reverses the reversal
        method, batch = make(), batch_of(info_of())
        method.strength = strength
        kept = keep_parts(method, monkeypatch)
        method.terms(batch.inputs, batch.targets)[0]["adversarial"].backward()
        found.append((kept["left"].invariant.grad, method.heads.adversary.weight.grad))

    (plain, head), (turned, same) = found
    torch.testing.assert_close(turned, -reversal * plain)
    torch.testing.assert_close(head, same)


def test_the_strength_may_grow_with_training():
    ramped, constant = make(reversal=2.0, reversal_ramp=True), make(reversal=2.0)
    for method in (ramped, constant):
        method.on_epoch_start(5, 10)
    start = make(reversal_ramp=True)
    start.on_epoch_start(0, 10)

    assert constant.strength == 2.0 and start.strength == 0.0
    assert ramped.strength == pytest.approx(2.0 * (2 / (1 + math.exp(-5)) - 1))


# ---- what the authors' code computes


def test_released_targets_give_the_second_modality_exactly_no_gradient_and_index_targets_give_both_some(monkeypatch):
    for targets, silent in (("released", True), ("index", False)):
        method, batch = make(domain_targets=targets), batch_of(info_of())
        kept = keep_parts(method, monkeypatch)
        terms, _ = method.terms(batch.inputs, batch.targets)

        (terms["adversarial"] + terms["modality"]).backward()

        assert all(part.grad.any() for part in kept["left"])
        assert all(part.grad is None or not part.grad.any() for part in kept["right"]) == silent
        assert any(part.grad is not None and bool(part.grad.any()) for part in kept["right"]) != silent


def test_released_targets_and_heads_that_say_nothing_give_ln_2_and_the_log_names_them():
    method, batch = make(domain_targets="released").eval(), batch_of(info_of())
    for head in (method.heads.adversary, method.heads.informative, method.heads.irrelevant):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)

    losses = method(batch, {}).losses

    assert losses[f"adversarial{RELEASED}"].item() == pytest.approx(LN2)
    assert losses[f"modality{RELEASED}"].item() == pytest.approx(LN2)


def test_released_targets_are_for_two_modalities():
    with pytest.raises(InputError, match=r"defined for two modalities, and there are 3 \(a, b, c\)"):
        make(info_of(("a", "b", "c")), domain_targets="released")


# ---- rows


def test_the_terms_do_not_depend_on_how_the_rows_of_one_modality_are_ordered():
    info = info_of()
    method, batch = make(info).eval(), batch_of(info)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Batch(
        {**batch.inputs, "right": batch.inputs["right"][order]},
        {**batch.targets, "right": batch.targets["right"][order]},
    )

    for name, value in method(batch, {}).losses.items():
        torch.testing.assert_close(method(shuffled, {}).losses[name], value)


def test_rows_that_do_not_count_have_no_label_but_a_modality():
    info = info_of()
    method, batch = make(info).eval(), batch_of(info)
    batch.valid = {"right": torch.tensor([True, False, True, True, False, True])}
    changed = Batch(batch.inputs, {**batch.targets, "right": batch.targets["right"].clone()}, batch.valid)
    changed.targets["right"][[1, 4]] = (batch.targets["right"][[1, 4]] + 1) % 3

    step, other = method(batch, {}), method(changed, {})

    assert {name: int(count) for name, count in step.counts.items()} == {"task": 10, "auxiliary": 10}
    for name, value in step.losses.items():
        torch.testing.assert_close(other.losses[name], value)
    assert step.losses["adversarial"].item() == pytest.approx(by_numpy(method, batch)["adversarial"])


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_other_tasks_change_the_first_two_terms_alone(task):
    info = info_of(task=task, classes=2)
    method, batch = make(info).eval(), batch_of(info)

    losses = method(batch, {}).losses
    values = []
    for branches in method.branches:
        outputs, target = branches(batch.inputs), batch.targets[branches.modality].double()
        if task == "regression":
            values.append((outputs - target).square().mean(dim=1))
        else:
            shaped = outputs.flatten() if task == "binary" else outputs
            each = torch.nn.functional.binary_cross_entropy_with_logits(shaped, target, reduction="none")
            values.append(each if task == "binary" else each.mean(dim=1))

    torch.testing.assert_close(losses["task"], torch.cat(values).mean())
    assert losses["adversarial"].item() > 0


def test_values_are_learned_in_units_of_their_deviation():
    drawn = torch.linspace(-50, 150, 7, dtype=torch.float64)[:, None]
    info = info_of(task="regression", classes=1, train_targets={"left": drawn.float(), "right": drawn.float()})
    batch = batch_of(info, 7, 7)
    batch.targets = {"left": drawn, "right": drawn}
    for loss, form in (("mse", torch.nn.functional.mse_loss), ("huber", torch.nn.functional.huber_loss)):
        method = make(info, regression_loss=loss).eval()

        found = method(batch, {}).losses["task"]

        scale = drawn.std(correction=0)
        units = [
            ((branches(batch.inputs) - drawn.mean()) / scale, (drawn - drawn.mean()) / scale)
            for branches in method.branches
        ]
        answers, targets = (torch.cat(column) for column in zip(*units, strict=True))
        torch.testing.assert_close(found, form(answers, targets))


# ---- without a term


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_weight_zero_is_left_out_and_its_heads_rest(term):
    method, batch = make(**{f"{term}_weight": 0.0}), batch_of(info_of())

    step = method(batch, {})
    sum(step.losses.values()).backward()

    assert term not in step.losses and len(step.losses) == 4
    trained = [parameter for group in method.param_groups() for parameter in group["params"]]
    assert all(parameter.grad is not None for parameter in trained)
    resting = {"auxiliary": 1, "adversarial": 1, "modality": 2, "task": 2, "orthogonality": 0}[term]
    assert len(list(method.parameters())) - len(trained) == 2 * resting  # weight and bias of each head


# ---- trained


def unpaired(rows=(150, 90), dims=(6, 4)):
    random = np.random.default_rng(0)
    columns, targets = {}, {}
    for name, count, width in zip(("long", "short"), rows, dims, strict=True):
        y = np.arange(count) % 3
        columns[name] = 2.0 * np.eye(3)[y] @ random.normal(size=(3, width)) + random.normal(size=(count, width))
        targets[name] = y
    return from_arrays(columns, targets)


def method_for(data, width=8):
    torch.manual_seed(0)
    info = data.info
    encoders = {
        name: build_for(info, [name], encoder="mlp", width=width).arguments["inputs"][name] for name in info.modalities
    }
    return DisCoM({name: branches_for(info, name, encoders[name]) for name in info.modalities}, info)


@pytest.mark.parametrize("unequal", ["recycle", "cut"])
def test_modalities_with_different_numbers_of_rows_train_and_choose_epochs_of_their_own(unequal):
    data = unpaired()
    settings = FitSettings(epochs=12, batch_size=32, learning_rate=1e-2, unequal=unequal)

    run = fit(method_for(data), data, settings, fabric=launch())

    rows = data.info.rows["train"]
    steps = {"recycle": max, "cut": min}[unequal](rows.values())
    assert run.history[0]["steps"] == math.ceil(steps / 32) - (steps % 32 == 1)
    scores = evaluate(run.students, data.valid, data.info, fabric=launch())
    for name, student in run.best.items():
        curve = [row["valid"][name]["accuracy"] for row in run.history]
        assert scores[name]["accuracy"] == student["score"] == max(curve)  # reloads to exactly its recorded score
        assert student["epoch"] == curve.index(max(curve))
    assert {student["epoch"] for student in run.best.values()} != {11} and scores["long"]["accuracy"] > 0.6


def test_a_last_batch_of_one_row_joins_the_one_before():
    data = unpaired()
    longest = max(data.info.rows["train"].values())

    run = fit(method_for(data), data, FitSettings(epochs=1, batch_size=longest - 1), fabric=launch())

    assert run.history[0]["steps"] == 1


def test_the_student_answers_like_the_joint_network_to_the_last_bit():
    data = unpaired()
    run = fit(method_for(data), data, FitSettings(epochs=1, batch_size=32), fabric=launch())
    inputs = {name: torch.randn(9, *data.info.inputs[name].shape) for name in data.info.modalities}

    together = run.method.eval().predict(inputs)

    for name, student in run.method.students().items():
        assert torch.equal(student.module({name: inputs[name]}), together[name])


# ---- refusals


def test_what_can_not_be_trained_together_is_a_sentence():
    info = info_of()
    alone = {"left": branches_for(info, "left", MLP)}
    unlike = {**alone, "right": branches_for(info, "right", {**MLP, "width": 6})}
    foreign = {**alone, "right": build_for(info, ["right"])}

    with pytest.raises(InputError, match="two modalities or more together, and was given left"):
        DisCoM(alone, info)
    with pytest.raises(InputError, match=r"different widths \(left 8, right 6\)"):
        DisCoM(unlike, info)
    with pytest.raises(InputError, match="branches_for or branches_of"):
        DisCoM(foreign, info)
    with pytest.raises(InputError, match="one embedding per sample"):
        DisCoM({name: branches_for(info, name, MLP) for name in info.modalities}, info_of(dense=True))

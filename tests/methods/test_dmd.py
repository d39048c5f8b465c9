"""DMD: each term against NumPy, what it trains, who may see whom, four modalities, priors through a training."""

import math

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.export import export_student
from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.settings import DMDSettings
from xmodal.models.student_file import load_student, save_student
from xmodal.types import Batch, DataInfo, InputInfo

SHAPES = {"text": (6, 8), "vision": (4, 10), "audio": (3, 8), "touch": (5,)}  # sequences, and a vector
TINY = {"width": 8, "heads": 2, "layers": 1, "kernel": (1,), "attention_dropout": (0.1,)}
SIZES = {"output_dropout", "embed_dropout"}  # options of the network among those of `make`
GRAPH_TERMS = ("homo_logit", "homo_reg", "hetero_logit", "hetero_repr", "hetero_reg")


def info_of(names=("text", "vision", "audio"), task="regression", classes=1, **facts):
    inputs = {name: InputInfo(SHAPES[name], layout="sequence" if len(SHAPES[name]) > 1 else "vector") for name in names}
    return DataInfo(inputs, task, classes, {}, select=("mae", "min"), **facts)


def make(info=None, *, seed=0, **options):
    info = info or info_of()
    kernels = tuple(3 if len(known.shape) > 1 else 1 for known in info.inputs.values())
    sizes = {**TINY, "kernel": kernels, **{name: options.pop(name) for name in SIZES & set(options)}}
    torch.manual_seed(seed)
    return DMD(build_network(info, info.modalities, DMDSettings(**sizes)), info, **options)


def batch_of(info, rows=6, seed=0):
    random = np.random.default_rng(seed)
    inputs = {
        name: torch.tensor(random.normal(size=(rows, *known.shape)), dtype=torch.float32)
        for name, known in info.inputs.items()
    }
    target = {
        "regression": lambda: torch.tensor(random.integers(-2, 3, (rows, info.classes)) / 2, dtype=torch.float32),
        "multiclass": lambda: torch.tensor(random.integers(0, info.classes, rows)),
        "binary": lambda: torch.tensor(random.integers(0, 2, rows)),
        "multilabel": lambda: torch.tensor(random.integers(0, 2, (rows, info.classes))),
    }[info.task]()
    return Batch(inputs, dict.fromkeys(inputs, target), {}, dict.fromkeys(inputs, torch.arange(rows)))


# ---- the objective


def by_numpy(method, batch):
    """All terms of a regression in evaluation mode, as in the table of the file's docstring."""
    with torch.no_grad():
        said = method.network(batch.inputs)
        y = batch.target.numpy()

    def numbers(values):
        return {name: value.detach().numpy().astype(float) for name, value in values.items()}

    heads = {"fused": said.fused, "common": said.common}
    heads |= {f"homo_{name}": value for name, value in said.homo.items()}
    heads |= {f"hetero_{name}": value for name, value in said.hetero.items()}
    terms = {f"task_{name}": np.abs(value - y).mean() for name, value in numbers(heads).items()}
    for graph, logits, features in (
        ("homo", said.homo, said.homo_features),
        ("hetero", said.hetero, said.hetero_features),
    ):
        terms |= graph_by_numpy(graph, method.units[graph], numbers(logits), numbers(features))
    pairs = {"reconstruction": (said.rebuilt, said.projected), "cycle": (said.private, said.private_again)}
    for name, (found, wanted) in pairs.items():
        found, wanted = numbers(found), numbers(wanted)
        terms[name] = 0.1 * sum(((found[m] - wanted[m]) ** 2).mean() for m in found)
    terms["orthogonality"] = 0.01 * sum(
        np.maximum(0, cosine(private, shared, axis=1)).mean()
        for private, shared in zip(numbers(said.private).values(), numbers(said.shared).values(), strict=True)
    )
    rows = np.stack(list(numbers(said.aligned).values()), axis=1).reshape(-1, method.network.numbers.width)
    terms["margin"] = 0.01 * margin_by_numpy(rows, np.repeat(y[:, 0], len(said.aligned)))
    return terms


def cosine(one, other, axis):
    return (one * other).sum(axis) / (np.linalg.norm(one, axis=axis) * np.linalg.norm(other, axis=axis))


def graph_by_numpy(graph, unit, logits, features):
    weights = {name: value.detach().numpy().astype(float) for name, value in unit.named_parameters()}
    z = {
        name: np.hstack(
            [
                logits[name] @ weights["W_logit.weight"].T + weights["W_logit.bias"],
                features[name] @ weights["W_repr.weight"].T + weights["W_repr.bias"],
            ]
        )
        for name in logits
    }
    pairs = [(j, i) for j in logits for i in logits if i != j]
    scores = np.hstack([np.hstack([z[j], z[i]]) @ weights["W_edge.weight"].T for j, i in pairs])
    powers = np.exp(scores / 8)
    edges = powers / powers.sum(axis=1, keepdims=True)
    prior = unit.prior.numpy().astype(float)
    omega, found = edges + prior, {"logit": 0.0, "repr": 0.0, "reg": 10 * ((edges.mean(0) - prior) ** 2).sum()}
    for number, (j, i) in enumerate(pairs):
        found["logit"] += (omega[:, number] * np.abs(logits[j] - logits[i]).sum(1)).mean()
        alike = np.maximum(0, cosine(features[j], features[i], axis=1)).mean()
        found["repr"] += 10 * omega[:, number].mean() * alike
    if graph == "homo":
        del found["repr"]
    return {f"{graph}_{name}": 0.05 * value for name, value in found.items()}


def margin_by_numpy(rows, y):
    rows = rows / np.sqrt((rows**2).sum(1, keepdims=True) + 1e-8)
    cosines, found = rows @ rows.T, []
    for a in range(len(rows)):
        near = [p for p in range(len(rows)) if p != a and y[p] == y[a]]
        far = [n for n in range(len(rows)) if y[n] != y[a]]
        gaps = [max(0.0, 0.15 * abs(y[a] - y[n]) - cosines[a, p] + cosines[a, n]) for p in near for n in far]
        found += [np.mean(gaps)] if gaps else []
    return np.mean(found)


@pytest.mark.parametrize("names", [("text", "audio"), ("text", "vision", "audio"), tuple(SHAPES)])
def test_every_term_is_its_equation(names):
    info = info_of(names)
    method, batch = make(info).eval(), batch_of(info)

    step = method(batch, {})

    expected = by_numpy(method, batch)
    assert step.losses.keys() == expected.keys()
    assert {name: loss.item() for name, loss in step.losses.items()} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert sum(name.startswith("task_") for name in step.losses) == 2 * len(names) + 2


def test_weights_multiply_their_terms():
    batch = batch_of(info_of())
    plain = make().eval()(batch, {}).losses
    weights = {"task_weight": 2.0, "reconstruction_weight": 0.3, "cycle_weight": 0.4, "margin_weight": 0.5}
    weights |= {"orthogonality_weight": 0.6, "distil_weight": 0.1, "logit_weight": 3.0}
    weights |= {"representation_weight": 5.0, "regularisation_weight": 7.0}

    found = make(**weights).eval()(batch, {}).losses

    factors = {"reconstruction": 3.0, "cycle": 4.0, "margin": 50.0, "orthogonality": 60.0}
    factors |= {"homo_logit": 6.0, "hetero_logit": 6.0, "homo_reg": 1.4, "hetero_reg": 1.4, "hetero_repr": 1.0}
    for name, value in plain.items():
        torch.testing.assert_close(found[name], factors.get(name, 2.0) * value)


def test_without_distillation_the_task_losses_of_the_first_batch_are_the_same_and_the_graphs_rest():
    batch, found = batch_of(info_of()), {}
    for weight in (0.05, 0.0):
        method = make(distil_weight=weight, output_dropout=0.5, embed_dropout=0.2).train()
        torch.manual_seed(1)  # of the dropout
        step = method(batch, {})
        sum(step.losses.values()).backward()
        found[weight] = (step, method)

    (step, teacher_outputs), (plain, alone) = found[0.05], found[0.0]
    assert set(step.losses) - set(plain.losses) == set(GRAPH_TERMS) and plain.logs == {}
    assert all(torch.equal(plain.losses[name], step.losses[name]) for name in plain.losses)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in alone.units.parameters())
    assert all(parameter.grad is not None for parameter in teacher_outputs.units.parameters())
    asked = {id(parameter) for group in alone.param_groups() for parameter in group["params"]}
    assert not asked & {id(parameter) for parameter in alone.units.parameters()}


@pytest.mark.parametrize(
    ("weights", "gone", "resting"),
    [
        ({"margin_weight": 0.0}, {"margin"}, "alignments"),
        ({"reconstruction_weight": 0.0, "cycle_weight": 0.0}, {"reconstruction", "cycle"}, "decoders"),
        ({"orthogonality_weight": 0.0}, {"orthogonality"}, ""),
        ({"logit_weight": 0.0}, {"homo_logit", "hetero_logit"}, ""),
        ({"regularisation_weight": 0.0}, {"homo_reg", "hetero_reg"}, ""),
        ({"hetero_representation": "off"}, {"hetero_repr"}, ""),
    ],
)
def test_a_term_of_weight_zero_is_left_out_and_what_it_alone_trains_rests(weights, gone, resting):
    batch = batch_of(info_of())
    method = make(**weights)
    step = method(batch, {})

    sum(step.losses.values()).backward()

    assert set(make()(batch, {}).losses) - set(step.losses) == gone
    for name, parameter in method.named_parameters():
        rests = bool(resting) and name.startswith(f"network.{resting}")
        assert (parameter.grad is None) == rests and parameter.requires_grad != rests


def test_what_representations_learn_can_be_chosen_for_each_graph():
    batch = batch_of(info_of())
    repels, imitates = (make(hetero_representation=kind).eval()(batch, {}) for kind in ("min_cosine", "cosine"))
    both = make(homo_representation="l1").eval()(batch, {})

    assert repels.losses["hetero_repr"] != imitates.losses["hetero_repr"]
    assert set(both.losses) - set(repels.losses) == {"homo_repr"}


# ---- rows, targets, tasks


def test_rows_without_a_target_teach_and_learn_without_labels():
    info = info_of()
    method, batch = make(info).eval(), batch_of(info)
    valid = torch.tensor([True, False, True, True, False, True])
    batch.valid = dict.fromkeys(batch.inputs, valid)
    changed = Batch(batch.inputs, dict.fromkeys(batch.inputs, batch.target.clone()), batch.valid, batch.index)
    changed.target[~valid] += 1

    step, other = method(batch, {}), method(changed, {})

    for name, value in step.losses.items():
        torch.testing.assert_close(other.losses[name], value)
    assert int(step.counts["task_fused"]) == 4
    picked = Batch(
        {name: rows[valid] for name, rows in batch.inputs.items()}, dict.fromkeys(batch.inputs, batch.target[valid])
    )
    alone = method(picked, {}).losses
    for name in ("task_fused", "task_homo_text", "margin"):
        torch.testing.assert_close(step.losses[name], alone[name])


@pytest.mark.parametrize(("task", "classes"), [("multiclass", 3), ("binary", 2), ("multilabel", 2), ("regression", 2)])
def test_other_targets_train_with_the_loss_of_their_task(task, classes):
    info = info_of(task=task, classes=classes)
    method, batch = make(info), batch_of(info)

    step = method(batch, {})
    sum(step.losses.values()).backward()

    assert set(step.losses) == set(make()(batch_of(info_of()), {}).losses)
    assert all(math.isfinite(loss.item()) for loss in step.losses.values())
    assert {student.module(batch.inputs).shape for student in method.students().values()} == {(6, info.outputs)}


def test_unlike_classes_are_one_apart_in_the_margin():
    info = info_of(task="multiclass", classes=3)
    method, batch = make(info).eval(), batch_of(info)

    found = method(batch, {}).losses["margin"].item()

    said = method.network(batch.inputs)
    rows = torch.stack(list(said.aligned.values()), 1).flatten(0, 1).detach().numpy().astype(float)
    rows = rows / np.sqrt((rows**2).sum(1, keepdims=True) + 1e-8)
    cosines, y, means = rows @ rows.T, np.repeat(batch.target.numpy(), 3), []
    for a in range(len(rows)):
        near = [p for p in range(len(rows)) if p != a and y[p] == y[a]]
        far = [n for n in range(len(rows)) if y[n] != y[a]]
        means.append(np.mean([max(0.0, 0.15 - cosines[a, p] + cosines[a, n]) for p in near for n in far]))
    assert found == pytest.approx(0.01 * np.mean(means), rel=1e-4)


def test_as_published_sets_what_the_list_of_differences_says():
    published, ours = DMDSettings(as_published=True), DMDSettings()

    assert (published.orthogonality, published.round_targets) == ("legacy_batch", False)
    assert (ours.orthogonality, ours.round_targets) == ("frame", True)
    network = build_network(info_of(), ("text", "vision", "audio"), DMDSettings(as_published=True, **TINY))
    assert len(network.cosine_projections) == 3
    assert not any(parameter.requires_grad for parameter in network.cosine_projections.parameters())


# ---- deployment


def test_a_modality_alone_is_unchanged_when_the_others_are_noise():
    info = info_of()
    method, batch = make(info).eval(), batch_of(info)
    noise = batch_of(info, seed=9).inputs
    for name in info.modalities:
        spoilt = {**noise, name: batch.inputs[name]}

        logits = method.network(spoilt).homo[name]

        assert torch.equal(logits, method.network(batch.inputs).homo[name])
        torch.testing.assert_close(method.predict({name: batch.inputs[name]})[name], logits, rtol=0, atol=1e-6)
    fused = method.predict(batch.inputs)["fused"]
    torch.testing.assert_close(fused, method.network(batch.inputs).fused, rtol=0, atol=1e-6)
    assert method.predict({"text": batch.inputs["text"]}).keys() == {"text"}


def test_language_alone_of_mosi_has_the_published_number_of_parameters():
    shapes = {"text": (768, 50), "vision": (20, 50), "audio": (5, 50)}
    info = DataInfo({name: InputInfo(shape, layout="sequence") for name, shape in shapes.items()}, "regression", 1, {})
    with torch.device("meta"):
        method = DMD(build_network(info, info.modalities, DMDSettings()), info)

    counts = {
        name: sum(parameter.numel() for parameter in student.module.parameters())
        for name, student in method.students().items()
    }
    assert counts["text"] == 429_151 and counts["fused"] > max(counts[name] for name in shapes)


FUSED_TOO = pytest.param("fused", marks=pytest.mark.slow)  # twelve transformers are traced for half a minute


@pytest.mark.parametrize("name", ["text", FUSED_TOO])
@pytest.mark.parametrize("format", ["safetensors", "onnx", "torch"])
def test_a_student_is_exported_and_says_the_same(format, name, tmp_path):
    data = toy(("text", "audio"))
    student = make(data.info).eval().students()[name]
    samples = {need: data.test.columns[need][data.test.numbers[need]] for need in student.needs}

    written = export_student(student, data.info, tmp_path / name, format=format, samples=samples)

    assert written["difference"] < 1e-5


@pytest.mark.parametrize("name", ["text", "fused"])
def test_a_saved_student_is_rebuilt_from_its_file(name, tmp_path):
    data = toy(("text", "audio"))
    student, batch = make(data.info).eval().students()[name], batch_of(data.info)

    loaded, description = load_student(save_student(tmp_path / "student.safetensors", student, data.info))

    assert description["needs"] == list(student.needs) and description["builder"] in ("dmd", "dmd_head")
    assert torch.equal(loaded.module(batch.inputs), student.module(batch.inputs))


# ---- a whole training


def toy(names, rows=60, seed=0):
    """A value that every modality shows, the first one most clearly."""
    random = np.random.default_rng(seed)
    y = np.round(random.normal(size=rows), 1)
    inputs = {}
    for place, name in enumerate(names):
        shape = SHAPES[name]
        shown = y.reshape(-1, *[1] * len(shape)) * random.normal(size=shape)
        inputs[name] = shown + 0.3 * (1 + place) * random.normal(size=(rows, *shape))
    layouts = {name: "sequence" if len(SHAPES[name]) > 1 else "vector" for name in names}
    return from_arrays(inputs, y, task="regression", layouts=layouts)


def test_four_modalities_of_different_lengths_train_with_twelve_edges(tmp_path):
    data = toy(tuple(SHAPES))
    method = make(data.info, homo_prior="auto")
    settings = FitSettings(epochs=3, batch_size=16, learning_rate=5e-3, accumulate=2, accumulate_mode="sum")

    run = fit(method, data, settings, seed=0, folder=tmp_path / "run")

    logged = run.history[-1]["logs"]
    for graph in ("homo", "hetero"):
        edges = {name: value for name, value in logged.items() if name.startswith(f"edge {graph}")}
        means = [value for name, value in edges.items() if len(name.split()) == 3]
        assert len(means) == 12 and sum(means) == pytest.approx(1.0, abs=1e-5)
        assert sum(name.endswith(" std") for name in edges) == sum(name.endswith(" prior") for name in edges) == 12
    assert set(run.students) == {*SHAPES, "fused"}
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert all(found["mae"] < 1.5 for found in run.history[-1]["valid"].values())


def test_edges_before_training_are_kept_with_the_run(tmp_path):
    data = toy(("text", "vision", "audio"))
    method = make(data.info)
    method.measure_start([batch_of(data.info, rows=7), batch_of(data.info, rows=3, seed=1)])

    edges = method.edges_of([batch_of(data.info, rows=7), batch_of(data.info, rows=3, seed=1)])
    fit(method, data, FitSettings(epochs=1, batch_size=20), seed=0, folder=tmp_path / "run")
    again = make(data.info)
    again.load_extra_state(method.extra_state())

    kept = method.report()["edges"]["homo"]
    assert edges["homo"].shape == (10, 6) and sum(kept["start"]["mean"]) == pytest.approx(1.0)
    assert kept["start"]["mean"] == pytest.approx(edges["homo"].mean(0).tolist())
    assert kept["start"]["std"] == pytest.approx(edges["homo"].std(0, correction=0).tolist())
    assert kept["prior"] == method.units["homo"].prior.tolist() and kept["names"][2] == "text>vision"
    assert again.start == method.start and '"start"' in (tmp_path / "run" / "result.json").read_text()


def test_the_prior_auto_is_learned_in_training_and_not_moved_by_evaluation():
    info = info_of()
    method, batch = make(info, homo_prior="auto"), batch_of(info)
    unit = method.units["homo"]

    method.eval()(batch, {})
    assert not unit.errors.any()

    method.train()(batch, {})
    with torch.no_grad():
        said = make(info, homo_prior="auto").train().network(batch.inputs)
    assert unit.errors[-1] == pytest.approx(0.05) and unit.prior.std() > 0
    assert unit.errors.shape == (4,) and said.fused.isfinite().all()
    assert not method.units["hetero"].errors.any()


# ---- errors


def test_what_can_not_be_built_is_told_at_once():
    inputs = {"text": InputInfo((6, 8), layout="sequence"), "picture": InputInfo((3, 8, 8), layout="image")}
    info = DataInfo(inputs, "regression", 1, {})

    with pytest.raises(InputError) as error:
        build_network(info, ("text", "picture"), DMDSettings(kernel=(3, 3, 3), mask_padding=True))

    assert len(error.value.problems) == 4
    for words in ("kernel has 3 numbers for 2 modalities", "text.lengths", "picture.lengths", "samples of shape"):
        assert words in str(error.value)


def test_dense_targets_and_unknown_names_are_refused():
    with pytest.raises(InputError, match="one output per sample"):
        make(info_of(dense=True))
    with pytest.raises(InputError, match="does not have"):
        build_network(info_of(), ("text", "smell"), DMDSettings())
    with pytest.raises(InputError, match="no prior called"):
        make(homo_prior="learned")
    with pytest.raises(InputError, match="names no edge"):
        make(hetero_prior="given", hetero_edges=("text>smell:1",))


def test_settings_refuse_a_task_that_nothing_trains():
    with pytest.raises(ValueError, match="task_weight"):
        DMDSettings(task_weight=0.0)

"""What every method of the list promises, on data small enough to train in a moment."""

import copy
import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from xmodal.cards import load
from xmodal.data.loader import Pick, in_order
from xmodal.data.split import unlabelled
from xmodal.deploy import deployed
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.errors import InputError
from xmodal.export import export_student
from xmodal.method import Method
from xmodal.methods import METHODS
from xmodal.models.student_file import load_student, save_student
from xmodal.study.bench import Bench
from xmodal.study.settings import PairSettings
from xmodal.types import TASKS, Student

every_method = pytest.mark.parametrize("card", METHODS.values(), ids=METHODS)
LEARNED = {  # metric → what an untrained network misses by far; trained ones reach 1.0 (mse: 0.02) with every seed
    "multiclass": ("accuracy", lambda found: found > 0.9),
    "binary": ("accuracy", lambda found: found > 0.95),
    "multilabel": ("macro_f1", lambda found: found > 0.9),
    "regression": ("mse", lambda found: found < 0.08),
}
DENSE = ("mean_iou_present", lambda found: found > 0.3)  # a picture that is all ground has 0.2


@pytest.fixture
def make_bench(make_bench, make_pictures, card):
    """The bench of all tests, with pictures for methods that answer for every pixel."""

    def make(task="multiclass", *, seed=0, paired=True, **settings):
        if card.targets != "place" or task not in card.tasks:
            return make_bench(task, seed=seed, paired=paired, **settings)
        size = 9 if "epochs" in settings else 3  # few updates do where nothing is to be learned
        usual = {"epochs": 8, "batch_size": size, "learning_rate": 1e-2, "threads": 1}
        asked = PairSettings(**(usual | settings), teacher=("clear",), student=("faint",))
        return Bench(make_pictures(paired=paired), asked.plan(), seed=seed, fabric=launch(asked.machine()))

    return make


def train(card, bench, build_method, *, seed=0):
    method = build_method(card, bench)
    return fit(method, bench.data, bench.plan.fit(), seed=seed, fabric=bench.fabric)


def bits(run):
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in run.history]
    weights = {name: student.module.state_dict() for name, student in run.students.items()}
    return weights, run.method.state_dict(), history


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def unseen(data):
    return next(iter(in_order(data.test, batch_size=64)))


@every_method
@pytest.mark.parametrize("task", TASKS)
def test_a_toy_is_learned(card, task, make_bench, build_method):
    bench = make_bench(task)
    if task not in card.tasks:
        with pytest.raises(InputError, match=f"not {task}"):
            bench.train_card(card, load(card.settings)())
        return

    run = train(card, bench, build_method)

    metric, good = DENSE if bench.info.dense else LEARNED[task]
    scores = evaluate(run.students, bench.data.test, bench.info, fabric=bench.fabric)
    untrained = evaluate(build_method(card, bench).eval().students(), bench.data.test, bench.info, fabric=bench.fabric)
    assert all(good(found[metric]) for found in scores.values())
    assert not all(good(found[metric]) for found in untrained.values())


@every_method
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(card, make_bench, build_method):
    first, again = (train(card, make_bench(epochs=2), build_method) for _ in range(2))
    other_weights = train(card, make_bench(epochs=2, seed=1), build_method)
    other_order = train(card, make_bench(epochs=2), build_method, seed=1)

    (students, method, history), (others, other_method, other_history) = bits(first), bits(again)
    assert all(equal(students[name], others[name]) for name in students) and students.keys() == others.keys()
    assert equal(method, other_method) and history == other_history
    for different in (other_weights, other_order):
        assert not equal(method, bits(different)[1]) and history != bits(different)[2]


@every_method
def test_layers_of_its_own_depend_on_seed_and_method_alone(card, make_bench, build_method):
    built = {}
    for name, seed, draws in (("first", 0, 1), ("again", 0, 2), ("other", 1, 1)):
        torch.manual_seed(draws)
        bench = make_bench(epochs=1, seed=seed)
        if name == "again":  # the teacher and the stages are not trained inside of `build`
            build_method(card, bench)
        before = torch.get_rng_state()
        built[name] = build_method(card, bench).state_dict()
        assert torch.equal(torch.get_rng_state(), before)

    assert equal(built["first"], built["again"])
    assert not equal(built["first"], built["other"])


@every_method
def test_in_64_bits_everything_is_and_what_is_deployed_has_32(card, make_bench, build_method, tmp_path):
    usual = train(card, make_bench(epochs=1), build_method)
    bench = make_bench(epochs=1, precision="64")

    run = train(card, bench, build_method)

    tensors = [*run.method.state_dict().values(), *run.method.parameters()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float64}
    # the same seed begins with the same weights, rounded: the terms of the first epoch are near, and not the same
    for name, value in usual.history[0]["losses"].items():
        assert run.history[0]["losses"][name] == pytest.approx(value, rel=0.02, abs=0.02)
    assert run.history[0]["losses"] != usual.history[0]["losses"]
    batch = unseen(bench.data)
    for name, student in run.students.items():
        loaded, description = load_student(save_student(tmp_path / name / "student.safetensors", student, bench.info))
        assert {tensor.dtype for tensor in loaded.module.parameters()} == {torch.float32}
        assert {known["dtype"] for known in description["inputs"].values()} <= {"float32", "int64"}
        single = {need: batch.inputs[need].float() for need in student.needs}
        expected = student.module(batch.inputs).detach()
        torch.testing.assert_close(loaded.module(single).double(), expected, rtol=1e-3, atol=1e-4)


@every_method
def test_many_at_once_end_like_each_alone(card, make_bench, build_method):
    settings = make_bench(epochs=2, dropout=0.0, optimizer="sgd").plan.fit()
    benches = [make_bench(seed=seed, dropout=0.0) for seed in range(2)]
    methods = [build_method(card, bench) for bench in benches]

    many = fit_many(methods, [bench.data for bench in benches], settings)

    for number, (bench, run) in enumerate(zip(benches, many, strict=True)):
        alone = fit(build_method(card, bench), bench.data, settings, seed=number)
        assert bool(run.notes) is not methods[number].stackable  # whoever promises it can be stacked is
        for name, student in alone.students.items():
            for key, tensor in student.module.state_dict().items():
                torch.testing.assert_close(run.students[name].module.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)


@every_method
def test_what_is_frozen_does_not_change(card, make_bench, build_method):
    bench = make_bench(epochs=2)
    method = build_method(card, bench)
    before = [copy.deepcopy(module.state_dict()) for module in method.frozen]
    student_before = copy.deepcopy(next(iter(method.students().values())).module.state_dict())

    fit(method, bench.data, bench.plan.fit(), fabric=bench.fabric)
    method.train()

    for module, weights in zip(method.frozen, before, strict=True):
        assert equal(module.state_dict(), weights)  # batch statistics are in it
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())
    assert not equal(next(iter(method.students().values())).module.state_dict(), student_before)


@every_method
def test_saved_loaded_and_exported_students_agree(card, make_bench, build_method, make_toy, tmp_path):
    bench = make_bench(epochs=2)
    run = train(card, bench, build_method)
    batch, data = unseen(bench.data), bench.data

    for name, student in run.students.items():
        expected = student.module(batch.inputs).detach()
        loaded, _ = load_student(save_student(tmp_path / name / "student.safetensors", student, data.info))
        raw = {need: data.test.columns[need][data.test.numbers[need]] for need in student.needs}
        takes_raw = deployed(loaded)({need: torch.tensor(rows, dtype=torch.float32) for need, rows in raw.items()})
        written = export_student(student, data.info, tmp_path / f"{name}-out", format="safetensors", samples=raw)

        assert torch.equal(loaded.module(batch.inputs), expected)
        torch.testing.assert_close(takes_raw[: len(expected)], expected, rtol=1e-4, atol=1e-5)  # float32 statistics
        assert written["difference"] == 0.0


@every_method
def test_a_student_never_reads_a_modality_that_it_will_not_have(card, make_bench, build_method):
    bench = make_bench(epochs=2)
    run = train(card, bench, build_method)
    method, batch = run.method.eval(), unseen(bench.data)
    expected = method.predict(batch.inputs)

    for name, student in method.students().items():
        spoilt = {
            key: rows if key in student.needs else torch.full_like(rows, float("nan"))
            for key, rows in batch.inputs.items()
        }
        assert torch.equal(method.predict(spoilt)[name], expected[name])
        assert torch.equal(student.module({need: batch.inputs[need] for need in student.needs}), expected[name])
        assert torch.isfinite(run.students[name].module(spoilt)).all()
    # a student may need all modalities, but not every student does
    assert any(len(student.needs) < len(batch.inputs) for student in method.students().values())


@every_method
def test_predictions_and_students_have_the_same_names(card, make_bench, build_method):
    bench = make_bench()
    method = build_method(card, bench)
    batch = unseen(bench.data)

    students = method.students()

    assert method.predict(batch.inputs).keys() == students.keys() and students
    assert all(isinstance(student, Student) and student.target in student.needs for student in students.values())
    assert method.predict({}) == {}
    names = {id(parameter) for parameter in method.parameters()}
    assert all(id(parameter) in names for student in students.values() for parameter in student.module.parameters())


@every_method
def test_a_training_step_returns_named_scalars_that_the_engine_can_sum(card, make_bench, build_method):
    bench = make_bench()
    method = build_method(card, bench).train()
    batch = bench.data.train[Pick(dict.fromkeys(bench.data.train.rows, torch.arange(9)), 0)]

    step = method(batch, method.teach(batch))
    sum(step.losses.values()).backward()

    assert step.losses and all(loss.shape == () and loss.dtype == torch.float32 for loss in step.losses.values())
    assert set(step.counts) <= set(step.losses) and all(
        int(count) == 9 * batch.target[0].numel() for count in step.counts.values()
    )
    asked = [parameter for group in method.param_groups() for parameter in group["params"]]
    assert all(parameter.grad is not None for parameter in asked)


# a loss that first picks the pixels that count can't say how many they are where nothing has a value
@pytest.mark.parametrize(
    "card", [card for card in METHODS.values() if card.targets != "place"], ids=lambda card: card.name
)
def test_everything_lives_on_the_device_of_the_batch(card, make_bench, build_method):
    """The meta device holds shapes alone: a tensor that a method makes elsewhere can't meet its tensors."""
    bench = make_bench()
    method = build_method(card, bench).to("meta")
    batch = bench.data.train[Pick(dict.fromkeys(bench.data.train.rows, torch.arange(9)), 0)].to("meta")

    teacher_outputs = method.teach(batch)
    step = method(batch, teacher_outputs)

    made = [
        *teacher_outputs.values(),
        *step.losses.values(),
        *step.logs.values(),
        *method.predict(batch.inputs).values(),
    ]
    made += [count for count in step.counts.values() if isinstance(count, torch.Tensor)]
    assert {tensor.device.type for tensor in made} == {"meta"}


@every_method
def test_the_card_says_whether_data_must_be_paired(card, make_bench, build_method):
    bench = make_bench(paired=False, epochs=1)

    if card.paired:
        with pytest.raises(InputError, match=f"'{card.name}' needs paired samples, and this data is unpaired"):
            bench.train_card(card, load(card.settings)())
        paired = build_method(card, make_bench(epochs=1))
        with pytest.raises(InputError, match="unpaired"):
            fit(paired, bench.data, bench.plan.fit(), fabric=bench.fabric)
    else:
        assert len(train(card, bench, build_method).history) == 1


@every_method
def test_the_card_says_what_kind_of_teacher_there_is(card, make_bench, build_method):
    bench = make_bench(epochs=1)
    method = build_method(card, bench)

    batch = unseen(bench.data)
    teacher_outputs = method.teach(batch)

    assert card.teacher in ("none", "frozen", "own")
    assert (type(method).teach is not Method.teach) == bool(teacher_outputs) == (card.teacher == "frozen")
    assert bool(method.frozen) == (card.teacher == "frozen")
    assert all(len(answers) == batch.rows for answers in teacher_outputs.values())
    assert not any(answers.requires_grad for answers in teacher_outputs.values())


@every_method
def test_a_frozen_teacher_can_be_shuffled_and_none_can_not(card, make_bench, build_method):
    bench = make_bench(epochs=1)
    method, settings = build_method(card, bench), bench.plan.fit()

    if card.teacher == "frozen":
        shuffled = fit(method, bench.data, settings, fabric=bench.fabric, exchange_teacher="class")
        assert not equal(
            shuffled.method.state_dict(), train(card, make_bench(epochs=1), build_method).method.state_dict()
        )
    else:
        with pytest.raises(InputError, match="needs a method with a teacher"):
            fit(method, bench.data, settings, fabric=bench.fabric, exchange_teacher="class")


@every_method
def test_the_card_leads_to_settings_and_documentation(card):
    settings = load(card.settings)
    module = inspect.getmodule(card.load())

    assert issubclass(settings, BaseModel) and settings.model_config["extra"] == "forbid"
    assert all(field.description for field in settings.model_fields.values())
    assert len(inspect.getdoc(module)) > 200 and set(card.tasks) <= set(TASKS)
    assert card.year is None or re.search(str(card.year), module.__doc__)


@every_method
@pytest.mark.parametrize("task", TASKS)
def test_rows_without_a_label_serve_the_terms_that_read_none(card, task, make_bench, build_method):
    if task not in card.tasks:
        return
    bench = make_bench(task, epochs=1, dropout=0.0)
    method = build_method(card, bench).eval()
    if card.targets == "place":
        method.threshold = 0.0  # of the confidence that pmf asks of its guides, which untrained networks lack
    batch = bench.data.train[Pick(dict.fromkeys(bench.data.train.rows, torch.arange(9)), None)]
    mask = torch.arange(9) % 3 == 0
    mixed = replace(
        batch,
        targets=dict.fromkeys(batch.targets, unlabelled(batch.target, ~mask)),
        labelled=dict.fromkeys(batch.targets, mask),
    )

    alone = mixed.take(mask)
    step, of_labelled = method(mixed, method.teach(mixed)), method(alone, method.teach(alone))
    sum(step.losses.values()).backward()

    equal = {name: torch.allclose(loss, of_labelled.losses[name], rtol=1e-4) for name, loss in step.losses.items()}
    read_labels = [name for name in equal if re.search("task|auxiliary|margin|mix", name)]
    assert read_labels and all(equal[name] for name in read_labels)
    for name in read_labels:
        # the margin has the same value in every process, so all rows are as good a count as any
        assert name == "margin" or float(step.counts[name]) == float(of_labelled.counts[name])
    gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(values).all() for values in [*step.losses.values(), *gradients])
    # the card says "used by …" or "left out: …", and the engine reads `uses_unlabelled`
    assert card.unlabelled.split()[0] in ("used", "left")
    assert card.unlabelled.startswith("used") == method.uses_unlabelled == (not all(equal.values()))


@every_method
def test_the_order_of_the_rows_of_a_batch_does_not_matter(card, make_bench, build_method):
    bench = make_bench(dropout=0.0)
    method = build_method(card, bench).eval()
    rows = torch.from_numpy(np.random.default_rng(0).permutation(16))

    def terms(picked):
        batch = bench.data.train[Pick(dict.fromkeys(bench.data.train.rows, picked), None)]
        return method(batch, method.teach(batch)).losses

    one, other = terms(torch.arange(16)), terms(rows)

    for name in one:
        torch.testing.assert_close(one[name], other[name])

"""Teachers from outside: functions, modules with their own preprocessing, ONNX files, folders of transformers."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError
from xmodal.models.student_file import save_student
from xmodal.study.bench import TEACHER
from xmodal.teachers.functions import function_in
from xmodal.teachers.given import open_teacher
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.tabulate import tabulated


def answers_of(given):
    values, rows = tabulated(given)
    return values[rows.argsort()]


def opened(source, data, modalities=("clear",), **request):
    return open_teacher(TeacherRequest(source=source, **request), data, modalities)


@pytest.fixture
def raw(toy):
    return {name: np.asarray(toy.train.columns[name]) for name in ("clear", "faint")}


class Pretrained(nn.Module):
    """A network that scales its input by itself and knows five classes, three of them those of the data."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop = nn.Linear(5, 5), nn.Dropout(0.5)

    def forward(self, inputs):
        assert inputs["clear"].dtype == torch.float64, "raw inputs keep their type"
        return {"logits": self.layer(self.drop((inputs["clear"].float() - 1.0) / 7.0))}


CLASSES = ["x", "2", "0", "y", "1"]


def test_a_module_gets_raw_inputs_and_its_classes_are_mapped_by_name(toy, raw, taught):
    module = Pretrained().train()
    given = opened(module, toy, classes=CLASSES)

    outputs = module.eval()({"clear": torch.from_numpy(raw["clear"])})["logits"].detach().numpy()
    assert np.array_equal(answers_of(given), outputs[:, [2, 4, 1]])
    assert "of its 5 classes 3 are used, renormalised over these" in given.notes[0]
    probabilities = torch.from_numpy(outputs).softmax(dim=1)[:, [2, 4, 1]]
    renormalised = torch.from_numpy(answers_of(given)).softmax(dim=1)
    assert torch.allclose(renormalised, probabilities / probabilities.sum(dim=1, keepdim=True), atol=1e-6)
    assert taught(toy, module, classes=CLASSES).runs["kd"].history


def test_a_module_is_left_as_it_was(toy):
    module = Pretrained().train()
    before = {name: part.clone() for name, part in module.state_dict().items()}
    state = torch.get_rng_state()

    opened(module, toy, classes=CLASSES)

    assert module.training and all(torch.equal(part, before[name]) for name, part in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_that_the_teacher_does_not_know_has_no_answers_in_training(toy, raw):
    given = opened(lambda inputs: inputs["clear"][:, :2], toy, classes=["2", "0"])

    train = given.data.train
    known = train.present["teacher_answers"]
    assert torch.equal(known, train.targets["clear"] != 1)
    predicted = answers_of(given)
    assert set(predicted.argmax(axis=1)) == {0, 2} and given.scored
    assert "it does not know 1, so rows with that label have no answer" in given.notes[0]


def test_classes_that_become_one_are_joined(toy):
    shares = np.array([[0.2, 0.3, 0.4, 0.1]])
    given = opened(
        {"probabilities": np.repeat(shares, 240, axis=0), "rows": np.arange(240)},
        toy,
        classes={"kitten": "0", "cat": "0", "dog": "1", "bird": "2"},
    )

    assert np.allclose(np.exp(answers_of(given)[0]), [0.5, 0.4, 0.1], atol=1e-6)


def test_teacher_classes_from_files(toy, tmp_path):
    table = {"probabilities": np.full((240, 3), 1 / 3), "rows": np.arange(240)}
    (tmp_path / "names.txt").write_text("2\n0\n1\n")
    (tmp_path / "names.json").write_text('{"a": "2", "b": "0", "c": "1"}')
    (tmp_path / "wrong.json").write_text('{"a": "2", "b": "7"}')

    for file in ("names.txt", "names.json"):
        assert opened(table, toy, classes=tmp_path / file).scored
    with pytest.raises(InputError, match="lead to '7'"):
        opened(table, toy, classes=tmp_path / "wrong.json")
    with pytest.raises(InputError, match="There is no file"):
        opened(table, toy, classes=tmp_path / "absent.txt")


def test_a_teacher_that_is_right_by_chance_alone_is_noted(toy, logits):
    shifted = opened({"logits": np.roll(logits, 40, axis=0), "rows": np.arange(240)}, toy)

    # 40 is no multiple of three: every row has the answer of a row of another class
    assert "check what it receives and which classes it predicts" in shifted.notes[0]


def test_classes_with_no_common_name_are_refused(toy):
    with pytest.raises(InputError, match="none or one of them is the same. Say which is which"):
        opened(lambda inputs: inputs["clear"][:, :2], toy, classes=["cat", "dog"])


def test_a_function_in_a_file(toy, raw, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef teacher(inputs):\n    return inputs['clear'][:, :3] * 2\n\nbroken = 1 / 1\n"
    )

    given = opened(f"{tmp_path / 'mine.py'}:teacher", toy)

    assert np.array_equal(answers_of(given), (raw["clear"][:, :3] * 2).astype(np.float32))
    for name, match in (("techer", "Did you mean 'teacher'"), ("broken", "a function or module")):
        with pytest.raises(InputError, match=match):
            opened(f"{tmp_path / 'mine.py'}:{name}", toy)
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="can't be run: ZeroDivisionError"):
        opened(f"{tmp_path / 'bad.py'}:teacher", toy)


def test_a_function_is_called_once_in_a_process_and_leaves_nothing_on_disk(toy, cache):
    rows = []

    def teacher(inputs):
        rows.append(len(inputs["clear"]))
        return inputs["clear"][:, :3]

    first = answers_of(opened(teacher, toy))
    count = sum(rows)
    second = answers_of(opened(teacher, toy))

    # the second time only the rows that show whether it still answers the same
    assert count == 240 + 16 and sum(rows) == count + 16 and np.array_equal(first, second)
    assert not cache.exists()
    changed = {"clear": np.asarray(toy.train.columns["clear"]) + 1, "faint": toy.train.columns["faint"]}
    assert not np.array_equal(answers_of(opened(teacher, from_arrays(changed, np.arange(240) % 3))), first)


def test_a_file_is_run_once_and_its_outputs_are_found_again(toy, tmp_path):
    (tmp_path / "mine.py").write_text(
        "calls = []\n\n\ndef teacher(inputs):\n    calls.append(len(inputs['clear']))\n"
        "    return inputs['clear'][:, :3]\n"
    )
    source = f"{tmp_path / 'mine.py'}:teacher"

    first, second = answers_of(opened(source, toy)), answers_of(opened(source, toy))

    assert np.array_equal(first, second)
    assert sum(function_in(f"{tmp_path / 'mine.py'}:calls")) == 240 + 2 * 16


def test_two_functions_that_agree_on_some_rows_are_two_teachers(toy):
    """Classes that agree on the rows that identify a teacher's outputs, and nowhere else."""
    probed = np.unique(np.linspace(0, 239, 8).astype(int))
    truth = np.arange(240) % 3
    keys = {row.tobytes(): number for number, row in enumerate(np.asarray(toy.train.columns["clear"]))}

    def numbers(inputs):
        return np.array([keys[row.tobytes()] for row in inputs["clear"]])

    first = answers_of(opened(lambda inputs: truth[numbers(inputs)], toy))
    other = np.where(np.isin(np.arange(240), probed), truth, (truth + 1) % 3)
    second = answers_of(opened(lambda inputs: other[numbers(inputs)], toy))

    assert (first.argmax(1) != second.argmax(1)).sum() == 240 - len(probed)


class Rule(nn.Module):
    """No weights: what it computes stands in its code alone."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, inputs):
        numbers = torch.arange(len(inputs["clear"])) % 3
        # wrong for whole blocks only, so not for the eight rows that are asked twice
        return torch.eye(3)[(numbers + 1) % 3 if self.wrong and len(numbers) > 8 else numbers]


def test_modules_without_weights_are_told_apart(toy):
    first, second = (answers_of(opened(Rule(wrong), toy)) for wrong in (False, True))

    assert not np.array_equal(first, second)


def test_outputs_of_a_file_are_kept_on_disk_and_a_damaged_copy_is_computed_again(toy, cache, tmp_path):
    onnx_file(tmp_path / "teacher.onnx")
    first = answers_of(opened(tmp_path / "teacher.onnx", toy))
    (file,) = (cache / "teachers").iterdir()
    file.write_bytes(b"nothing")

    again = answers_of(opened(tmp_path / "teacher.onnx", toy))

    assert np.array_equal(first, again) and np.load(file).shape == (240, 3)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda inputs: 1 / 0, "cannot read 'clear' .* ZeroDivisionError"),
        (lambda inputs: sys.exit(7), "cannot read 'clear' .* SystemExit"),
        (
            lambda inputs: np.random.default_rng().normal(size=(len(inputs["clear"]), 3)),
            "different outputs for the same",
        ),
        (lambda inputs: inputs["clear"][:2, :3], "returns \\(2, 3\\) for 8 rows"),
        (lambda inputs: None, "returns NoneType"),
        (lambda inputs: inputs["clear"], "has 5 columns, and 3 were expected"),
    ],
)
def test_functions_that_do_not_fit(toy, function, match):
    with pytest.raises(InputError, match=match):
        opened(function, toy)


def onnx_file(path, batch="rows"):
    weight = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["clear", "w"], ["logits"])],
        "teacher",
        [helper.make_tensor_value_info("clear", TensorProto.FLOAT, [batch, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return weight


@pytest.mark.parametrize("batch", ["rows", 7])
def test_an_onnx_file(toy, raw, tmp_path, batch):
    weight = onnx_file(tmp_path / "teacher.onnx", batch)

    given = opened(tmp_path / "teacher.onnx", toy, ("clear", "faint"))

    assert np.allclose(answers_of(given), raw["clear"].astype(np.float32) @ weight, atol=1e-4)


def test_an_onnx_file_that_reads_other_inputs(toy, raw, tmp_path):
    onnx_file(tmp_path / "teacher.onnx")
    renamed = from_arrays({"faint": raw["faint"], "third": raw["clear"]}, np.arange(240) % 3)

    # one input and one modality need no common name
    assert opened(tmp_path / "teacher.onnx", renamed, ("third",)).scored
    with pytest.raises(InputError, match="reads clear, and the teacher's modalities are faint, third"):
        opened(tmp_path / "teacher.onnx", renamed, ("faint", "third"))
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged or not an ONNX file"):
        opened(tmp_path / "damaged.onnx", toy)


def test_a_student_with_other_classes_is_asked_for_raw_inputs(toy, raw, taught, tmp_path):
    names = ("bird", "cat", "dog")
    splits = {name: toy.split(name).numbers["clear"] for name in ("train", "valid", "test")}
    trained_on = from_arrays(raw, np.arange(240) % 3, class_names=names, splits=splits)
    bench = taught(trained_on, None)
    (teacher,) = bench.runs[TEACHER].students.values()
    file = save_student(tmp_path / "student.safetensors", teacher, trained_on.info)
    turned = from_arrays(raw, (np.arange(240) + 1) % 3, class_names=("dog", "bird", "cat"), splits=splits)

    (own,) = [answers_of(opened(file, trained_on))]
    other = answers_of(opened(file, turned))

    assert np.allclose(other, own[:, [2, 0, 1]], atol=1e-4)


def test_labels_of_another_student_are_matched_by_value(toy, raw, taught, tmp_path):
    """The labels 10, 20, 30 of a student are not the labels 20, 30, 10 of the data by position."""
    splits = {name: toy.split(name).numbers["clear"] for name in ("train", "valid", "test")}
    trained_on = from_arrays(raw, np.array([10, 20, 30])[np.arange(240) % 3], splits=splits)
    bench = taught(trained_on, None)
    (teacher,) = bench.runs[TEACHER].students.values()
    file = save_student(tmp_path / "student.safetensors", teacher, trained_on.info)
    other = from_arrays(raw, np.array([10, 20, 40])[np.arange(240) % 3], splits=splits)

    own = answers_of(opened(file, trained_on))
    given = opened(file, other)

    assert "it does not know 40" in given.notes[0]
    values, rows = tabulated(given)
    assert np.allclose(values[:, :2], own[rows][:, :2], atol=1e-4)


def test_a_misspelt_class_in_a_dictionary_is_refused(toy):
    table = {"logits": np.zeros((240, 3)), "rows": np.arange(240), "class_names": ["cat", "dog", "bird"]}

    with pytest.raises(InputError, match="no class called 'catt'. Did you mean 'cat'"):
        opened(table, toy, classes={"catt": "0", "dog": "1", "bird": "2"})


def test_what_is_no_teacher(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"x")
    for source, match in (
        (tmp_path / "absent", "There is no teacher in"),
        (tmp_path / "empty", "holds no student, no finished run and no model of transformers"),
        (tmp_path / "weights.pt", "is no teacher that can be read"),
    ):
        with pytest.raises(InputError, match=match):
            opened(source, toy)

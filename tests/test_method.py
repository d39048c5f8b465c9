import pytest
import torch
from torch import nn

from xmodal.method import DescribesTeacher, Method, Reports, gather_rows, trainable
from xmodal.types import Batch, Step, Student


class TwoStudents(Method):
    """Two students, one of which reads two inputs, and a frozen part."""

    def __init__(self):
        super().__init__()
        self.audio = Sum(("audio",))
        self.both = Sum(("audio", "image"))
        self.teacher = self.freeze(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)))

    def training_step(self, batch, teacher_outputs):
        return Step({"task": self.audio(batch.inputs).mean()}, logs={"seen": torch.tensor(float(batch.rows))})

    def students(self):
        return {
            "audio": Student(self.audio, ("audio",), "audio"),
            "both": Student(self.both, ("audio", "image"), "audio"),
        }


class Sum(nn.Module):
    """The sum of its inputs, scaled; it accepts no input that it didn't ask for."""

    def __init__(self, names):
        super().__init__()
        self.names, self.scale = names, nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        assert tuple(inputs) == self.names
        return self.scale * sum(inputs[name] for name in self.names)


def inputs(*names):
    return {name: torch.full((3, 2), float(number + 1)) for number, name in enumerate(names)}


def test_a_method_must_say_how_it_trains_and_what_it_deploys():
    with pytest.raises(TypeError, match="students.*training_step"):
        Method()


def test_forward_is_the_training_step():
    method, batch = TwoStudents(), Batch(inputs("audio"), {"audio": torch.zeros(3)})

    assert method(batch, {}).losses["task"].item() == method.training_step(batch, {}).losses["task"].item() == 1.0


def test_each_student_is_fed_what_it_needs_and_nothing_else():
    found = TwoStudents().predict(inputs("audio", "image", "depth"))

    assert set(found) == {"audio", "both"}
    assert found["audio"].unique().tolist() == [1.0] and found["both"].unique().tolist() == [3.0]


def test_students_whose_inputs_are_absent_are_left_out():
    assert set(TwoStudents().predict(inputs("audio"))) == {"audio"}


def test_what_is_not_written_does_nothing():
    method, batch = TwoStudents(), Batch(inputs("audio"), {"audio": torch.zeros(3)})

    method.on_epoch_start(0, 10)
    method.load_extra_state({})

    assert method.teach(batch) == {} and method.extra_state() == {} and not method.stackable
    assert not isinstance(method, DescribesTeacher | Reports)  # two protocols that a method may leave out


def test_only_what_needs_gradients_is_optimised():
    method = TwoStudents()

    (group,) = method.param_groups()

    assert set(group["params"]) == {method.audio.scale, method.both.scale}


def test_frozen_parts_stay_in_eval_mode_at_once_and_after_every_train():
    method = TwoStudents()
    at_once = [module.training for module in method.teacher.modules()]

    method.train()

    assert not any(at_once) and not any(module.training for module in method.teacher.modules())
    assert method.training and method.audio.training and method.frozen == (method.teacher,)
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


def test_statistics_of_a_frozen_part_do_not_move():
    method = TwoStudents()
    before = method.teacher[1].running_mean.clone()

    method.train()
    method.teacher(torch.randn(8, 2) + 5.0)

    assert torch.equal(method.teacher[1].running_mean, before)


def test_eval_and_train_give_the_method_back():
    method = TwoStudents()

    assert method.train() is method and method.eval() is method and not method.audio.training


def test_frozen_parts_are_saved_with_the_method():
    method, other = TwoStudents(), TwoStudents()

    other.load_state_dict(method.state_dict())

    assert torch.equal(other.teacher[0].weight, method.teacher[0].weight)


def test_rows_of_one_process_are_the_rows():
    rows = torch.randn(3, 2, requires_grad=True)

    assert TwoStudents().gather(rows) is rows and gather_rows(rows) is rows


def test_trainable_lists_parameters_of_all_modules_that_learn():
    free, fixed = nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)

    assert trainable([free, fixed]) == [free.weight, free.bias]

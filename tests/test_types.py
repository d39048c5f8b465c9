import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from xmodal.errors import InputError
from xmodal.types import Batch, DataInfo, InputInfo, Normalisation, Step, Student


def paired_batch():
    target, rows = torch.tensor([0, 1, 1]), torch.arange(3)
    inputs = {"audio": torch.randn(3, 2), "image": torch.randn(3, 4)}
    return Batch(inputs, dict.fromkeys(inputs, target), dict.fromkeys(inputs, target > 0), dict.fromkeys(inputs, rows))


def unpaired_batch():
    inputs = {"audio": torch.zeros(3, 2), "image": torch.zeros(2, 4)}
    return Batch(inputs, {"audio": torch.tensor([0, 1, 1]), "image": torch.tensor([1, 0])})


def make_info(**facts):
    inputs = {"audio": InputInfo((2,)), "audio.lengths": InputInfo((), "int64"), "image": InputInfo((4,))}
    known = {"task": "multiclass", "classes": 3, "rows": {}} | facts
    return DataInfo(inputs, **known)


def test_paired_data_has_one_target_and_counts_rows_once():
    batch = paired_batch()

    assert batch.paired and batch.rows == 3 and batch.target is batch.targets["audio"]


def test_equal_targets_in_two_tensors_are_shared_too():
    batch = Batch({}, {"audio": torch.tensor([0, 1]), "image": torch.tensor([0, 1])})

    assert batch.paired and batch.target.tolist() == [0, 1]


def test_unpaired_data_has_no_shared_target_and_says_what_to_do():
    batch = unpaired_batch()

    assert not batch.paired and batch.rows == 5
    with pytest.raises(InputError, match=r"audio, image have targets of their own.*Use batch.targets\[modality\]"):
        _ = batch.target


def test_a_batch_without_labels_has_rows_and_a_sentence_instead_of_a_target():
    inputs = {"audio": torch.zeros(4, 2), "image": torch.zeros(4, 3)}
    batch = Batch(inputs, {}, {}, dict.fromkeys(inputs, torch.arange(4)))

    assert batch.rows == 4 and batch.paired
    with pytest.raises(InputError, match="no targets: a labelled split was expected"):
        _ = batch.target


def test_without_labels_the_rows_tell_whether_a_batch_is_paired():
    index = {"audio": torch.tensor([0, 1]), "image": torch.tensor([1, 0])}

    assert not Batch({"audio": torch.zeros(2, 1), "image": torch.zeros(2, 1)}, {}, {}, index).paired
    assert Batch({"audio": torch.zeros(2, 1)}, {}).paired


def test_an_absent_input_is_answered_with_the_closest_one():
    with pytest.raises(InputError, match=r"no input called 'adio'. Did you mean 'audio'\? Known: audio, image."):
        paired_batch().input("adio")


def test_an_input_is_found_by_its_name():
    batch = paired_batch()

    assert batch.input("image") is batch.inputs["image"]


def test_moving_a_batch_moves_every_part_and_keeps_shared_tensors_shared():
    batch = paired_batch()

    moved = batch.to("meta")

    parts = (moved.inputs, moved.targets, moved.valid, moved.index)
    assert {tensor.device.type for part in parts for tensor in part.values()} == {"meta"}
    assert moved.targets["audio"] is moved.targets["image"] and moved.index["audio"] is moved.index["image"]
    assert batch.inputs["audio"].device.type == "cpu" and moved.paired


def test_a_batch_is_a_tree_of_tensors_that_comes_back_whole():
    batch = paired_batch()

    leaves, shape = pytree.tree_flatten(batch)
    again = pytree.tree_unflatten(leaves, shape)
    doubled = pytree.tree_map(lambda tensor: 2 * tensor, batch)

    assert len(leaves) == 8 and isinstance(again, Batch)
    assert all(torch.equal(again.inputs[name], batch.inputs[name]) for name in batch.inputs)
    assert torch.equal(doubled.inputs["audio"], 2 * batch.inputs["audio"])


def test_lightning_fabric_can_rebuild_a_batch_when_it_moves_it():
    from lightning_fabric.utilities import move_data_to_device

    moved = move_data_to_device(paired_batch(), torch.device("cpu"))

    assert isinstance(moved, Batch) and moved.rows == 3 and moved.paired


@given(st.sampled_from(["multiclass", "binary", "multilabel", "regression"]), st.integers(2, 9))
def test_a_binary_target_needs_one_output_and_any_other_as_many_as_classes(task, classes):
    assert make_info(task=task, classes=classes).outputs == (1 if task == "binary" else classes)


def test_what_goes_with_a_modality_is_none():
    assert make_info().modalities == ("audio", "image")


def test_modalities_that_are_there_are_given_back_in_the_order_asked_for():
    assert make_info().require(("image", "audio"), "teacher") == ("image", "audio")


@pytest.mark.parametrize("name", ["imgae", "audio.lengths"])
def test_a_modality_that_is_not_there_is_refused_with_role_and_known_names(name):
    with pytest.raises(InputError, match=f"The student asks for the modality '{name}'.*Known: audio, image"):
        make_info().require((name,), "student")


def test_statistics_become_tensors_that_broadcast_over_one_sample():
    mean, std = Normalisation([[1.0], [2.0]], [[0.5], [4.0]]).tensors()

    standardised = (torch.tensor([[1.0, 1.5], [2.0, 6.0]]) - mean) / std
    assert standardised.tolist() == [[0.0, 1.0], [0.0, 1.0]] and mean.dtype == torch.float32


def test_steps_and_students_do_not_share_their_empty_dictionaries():
    one, other = Step({}), Step({})
    one.counts["kd"] = 1
    first, second = (Student(torch.nn.Identity(), ("audio",), "audio") for _ in range(2))

    assert other.counts == {} and first.normalisation is not second.normalisation


def test_what_is_known_of_data_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot assign"):
        make_info().task = "binary"


def test_large_samples_pass_in_smaller_blocks_where_nothing_is_trained():
    small = DataInfo({"x": InputInfo((64,))}, "multiclass", 10, {})
    pictures = DataInfo({"x": InputInfo((8, 512, 1024))}, "multiclass", 24, {}, dense=True)
    huge = DataInfo({"x": InputInfo((1000, 1000, 1000))}, "multiclass", 2, {})

    assert small.block(512) == 512
    assert pictures.block(512) == 4  # 32 numbers of 4 bytes for each of 2**19 places: a quarter of 2**28
    assert huge.block(512) == 1


def test_losses_of_labels_are_known_and_fit_the_task_and_the_classes():
    with pytest.raises(InputError, match="no loss of labels called 'lovas'. Did you mean 'lovasz'"):
        DataInfo({}, "multiclass", 3, {}, label_losses={"lovas": 1.0})
    with pytest.raises(InputError, match="the task is regression"):
        DataInfo({}, "regression", 3, {}, label_losses={"focal": 1.0})
    with pytest.raises(InputError, match="There are 2 class weights and 3 classes"):
        DataInfo({}, "multiclass", 3, {}, class_weights=(1.0, 1.0))

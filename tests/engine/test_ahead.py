"""How batches reach a device, how numbers come back from it, and how exact its products are."""

import torch

from xmodal.devices import OneProcess, matmul_precision, read
from xmodal.engine.ahead import on_device, one_ahead
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.engine.step_sums import StepSums, agree
from xmodal.methods.supervised import Supervised
from xmodal.types import Batch, Step

CPU = OneProcess(torch.device("cpu"))


def batch_of(number):
    target = torch.full((2,), number)
    return Batch({"a": torch.zeros(2)}, {"a": target, "b": target})


def test_one_batch_more_is_prepared_than_is_trained_on():
    prepared = []
    results = one_ahead(range(3), lambda item: prepared.append(item) or 10 * item)

    seen = [(result, list(prepared)) for result in results]

    assert seen == [(0, [0, 1]), (10, [0, 1, 2]), (20, [0, 1, 2])]
    assert list(one_ahead([], str)) == [] and list(one_ahead([7], str)) == ["7"]


def test_on_a_cpu_batches_stay_what_they_are():
    batches = [batch_of(number) for number in range(3)]

    assert all(found is given for found, given in zip(on_device(batches, torch.device("cpu")), batches, strict=True))


def test_on_another_device_every_batch_arrives_and_shared_targets_stay_shared():
    found = list(on_device([batch_of(0), batch_of(1)], torch.device("meta")))

    assert len(found) == 2
    for batch in found:
        assert batch.inputs["a"].device.type == "meta" and batch.targets["a"] is batch.targets["b"]


def test_values_of_all_shapes_and_types_are_read_in_their_order():
    tensors = [
        torch.tensor(0.1),
        torch.arange(6).reshape(2, 3),
        torch.tensor([1.5, 2.5]),
        torch.tensor(2**40 + 1),
        torch.zeros(2, 0),
        torch.tensor(True),
    ]

    assert read(tensors) == [tensor.tolist() for tensor in tensors]
    assert read([]) == [] and read([torch.tensor(3.0, requires_grad=True)]) == [3.0]


def test_sums_of_an_epoch_are_those_of_float64_by_hand():
    terms, counts, logs = [0.1, 1e8, -3.3], [3, 7, 0], [0.7, 1e-9, 5.0]
    sums, total, rows_seen, logged = StepSums(), 0.0, 0.0, 0.0
    for term, count, log in zip(terms, counts, logs, strict=True):
        loss, value = torch.tensor(term), torch.tensor(log)
        step = Step({"task": loss, "other": 2 * loss}, {"task": torch.tensor(count)}, {"log": value})
        sums.add(agree(step, 5, CPU, signal=0, save=False).numbers)
        total, rows_seen, logged = total + loss.item() * count, rows_seen + count, logged + value.item() * 5

    assert sums.state()["losses"]["task"] == [total, rows_seen]
    assert sums.state()["logs"] == {"log": [logged, 15.0]}
    assert sums.means(CPU)["losses"]["task"] == total / rows_seen


class Looks(Supervised):
    """Notes how exact products are while it is trained."""

    def training_step(self, batch, teacher_outputs):
        self.seen = torch.get_float32_matmul_precision()
        return super().training_step(batch, teacher_outputs)


def test_products_are_as_exact_as_asked_in_training_and_as_before_afterwards(make_bench):
    bench = make_bench(epochs=1)
    method = Looks(bench.network(bench.student), bench.info)

    with matmul_precision("medium"):
        for asked in ("highest", "high"):
            fit(method, bench.data, FitSettings(epochs=1, matmul=asked), fabric=bench.fabric)
            assert (method.seen, torch.get_float32_matmul_precision()) == (asked, "medium")
    assert torch.get_float32_matmul_precision() == "highest"

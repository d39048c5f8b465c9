"""How often a training waits for its device: once per step, and once per epoch.

On a CPU nothing waits, but the same operations are called. Counted are those that hand a value, or a shape that depends
on values, from the device to the program.
"""

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from xmodal.data.labels import hide_labels
from xmodal.engine.loop import Loop
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.losses.reduce import numbers_known
from xmodal.methods import METHODS
from xmodal.methods.supervised import Supervised
from xmodal.metrics.task import Scores
from xmodal.study.bench import Bench
from xmodal.study.settings import PairSettings

ATEN = torch.ops.aten
WAITING = {
    ATEN._local_scalar_dense.default: "one number",
    ATEN.nonzero.default: "the rows of a mask",
    ATEN.masked_select.default: "the rows of a mask",
    ATEN.equal.default: "a comparison",
    ATEN.bincount.default: "the largest number",
    ATEN._unique2.default: "different values",
    ATEN.unique_dim.default: "different values",
    ATEN.repeat_interleave.Tensor: "a sum",
}
LISTS = {torch.Tensor.tolist: "a list", torch.Tensor.numpy: "an array", torch.Tensor.cpu: "a copy"}


class Lists(TorchFunctionMode):
    """Counts what is read as a whole: on a CPU these functions call no operation."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.found[LISTS.get(function, "")] += 1
        return function(*args, **(kwargs or {}))


class HostReads(TorchDispatchMode):
    """Counts the values that are read within a block; `found` says of which kind they are."""

    def __init__(self):
        super().__init__()
        self.found = Counter()
        self.lists = Lists(self.found)

    def __enter__(self):
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.lists.__exit__(*error)
        del self.found[""]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masked = function is ATEN.index.Tensor and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        self.found["the rows of a mask" if masked else WAITING.get(function, "")] += 1
        return function(*args, **(kwargs or {}))


class Loaded:
    """A loader whose batches are there: loading happens on the CPU, and its reads are free."""

    def __init__(self, loader):
        self.sampler, self.batches = loader.sampler, list(loader.epoch(0))

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, start=0):
        return iter(self.batches[start:])


@pytest.fixture
def make_loop(make_toy, make_pictures, build_method):
    """A prepared training of a card's method, with batches that are loaded."""

    def make(card, task="multiclass", *, few=False, **settings):
        dense = card.targets == "place"
        data = make_pictures() if dense else make_toy(task)
        if few:
            data = hide_labels(data, labelled="9" if dense else "60", valid_labels="all")
        usual = {"epochs": 2, "batch_size": 9 if dense else 64, "optimizer": "sgd", "threads": 1}
        asked = PairSettings(**(usual | settings), teacher=("clear",), student=("faint",))
        bench = Bench(data, asked.plan(), seed=0, fabric=launch(asked.machine()))
        method, progress = build_method(card, bench), Progress(quiet=True)
        loop = Loop(method, data, bench.plan.fit(), 0, None, bench.fabric, "", progress, Scores)
        loop.prepare()
        loop.loader = Loaded(loop.loader)
        return loop

    return make


def reads_of_training(loop):
    """Of which kind the reads of an epoch are, without its validation."""
    # checks of labels read values on a CPU alone
    with numbers_known(), HostReads() as reads:
        loop.train_epoch()
    return reads.found


def reads_of_validation(loop):
    with HostReads() as reads:
        loop.end_epoch()
    return reads.found


# the loss of labels of `pmf` compares pixels with one another, for which it takes the labelled ones of either stream
MASKS = {"pmf": 2}


@pytest.mark.parametrize("few", [False, True], ids=["all labels", "few labels"])
@pytest.mark.parametrize("card", METHODS.values(), ids=METHODS)
def test_a_step_of_every_method_is_read_once(card, few, make_loop):
    loop = make_loop(card, few=few)

    found = reads_of_training(loop)

    assert loop.step > 1
    assert found.pop("the rows of a mask", 0) == MASKS.get(card.name, 0) * loop.step
    assert found.total() == loop.step
    # pixels are counted by torchmetrics, batch by batch
    assert card.targets == "place" or reads_of_validation(loop).total() == 1


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_a_clipped_and_accumulated_epoch_is_read_as_often(task, make_loop):
    loop = make_loop(METHODS["kd"], task, accumulate=2, clip=1.0, schedule="cosine")

    assert reads_of_training(loop).total() == loop.step > 1
    assert reads_of_validation(loop).total() == 1


class Talking(Supervised):
    """A method that looks at its loss in every step, three times."""

    def training_step(self, batch, teacher_outputs):
        step = super().training_step(batch, teacher_outputs)
        loss = step.losses["task"].detach()
        step.logs = {"rounded": torch.tensor(round(loss.item(), 2)), "high": loss if loss > 1 else 0 * loss}
        step.logs["rows"] = torch.tensor(float(len(batch.inputs["faint"][batch.target == 0])))
        return step


def test_a_method_that_reads_more_is_found_out(make_loop):
    loop = make_loop(METHODS["supervised"])
    loop.method = loop.forward = Talking(next(iter(loop.method.students().values())), loop.data.info)

    found = reads_of_training(loop)

    assert found == {"one number": 2 * loop.step, "the rows of a mask": loop.step, "a list": loop.step}

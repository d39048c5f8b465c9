"""Content of the parts of embeddings: probes against scikit-learn, networks with known content, the picture."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from torch import nn

from xmodal.diagnostics.branches import embed_batches, measure_branches, plane, probe
from xmodal.errors import InputError
from xmodal.models.discom_net import Branches, SharedHeads
from xmodal.types import Batch


class Passes(nn.Module):
    """An encoder that returns its input."""

    width = 4

    def forward(self, samples):
        return samples


def networks():
    """Two modalities whose inputs are (specific part, specific part): informative = columns 0-1, irrelevant = 2-3."""
    torch.manual_seed(0)
    return [Branches(name, Passes(), Passes(), 2) for name in ("left", "right")], SharedHeads(2, 2, 2)


def batches(rows=60, seed=0, paired=True):
    """The class is in column 0, the modality in column 2; the invariant part is a mixture of all columns."""
    random = np.random.default_rng(seed)
    inputs, targets = {}, {}
    for sign, name in ((-1.0, "left"), (1.0, "right")):
        y = np.arange(rows) % 2
        noise = 0.1 * random.normal(size=(rows, 4))
        columns = np.stack([2.0 * y - 1, np.zeros(rows), np.full(rows, sign), np.zeros(rows)], axis=1)
        inputs[name] = torch.tensor(columns + noise, dtype=torch.float32)
        targets[name] = torch.tensor(y)
    if paired:
        return [Batch(inputs, targets)]
    return [Batch({name: inputs[name]}, {name: targets[name]}) for name in inputs]


def test_probe_agrees_with_ridge_regression_of_scikit_learn():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 80)
    x = random.normal(size=(80, 5)) * [1, 10, 0.1, 1, 1] + 2 * np.eye(3, 5)[y]
    x = (x - x[:50].mean(axis=0)) / x[:50].std(axis=0)

    reference = RidgeClassifier(alpha=1e-3 * 50).fit(x[:50], y[:50]).score(x[50:], y[50:])
    table = torch.tensor(x)
    ours = probe(table[:50], torch.tensor(y[:50]), table[50:], torch.tensor(y[50:]))

    assert ours == pytest.approx(reference)
    assert probe(1000 * table[:50] - 7, torch.tensor(y[:50]), 1000 * table[50:] - 7, torch.tensor(y[50:])) == ours


def test_probe_of_a_constant_predicts_the_most_frequent_class():
    assert (
        probe(torch.zeros(5, 2), torch.tensor([0, 1, 1, 1, 0]), torch.zeros(4, 2), torch.tensor([1, 1, 0, 1])) == 0.75
    )


@pytest.mark.parametrize("paired", [True, False])
def test_probes_recover_what_the_parts_contain(paired):
    branches, heads = networks()

    content = measure_branches(branches, heads, batches(paired=paired), batches(seed=1, paired=paired))

    assert content.classes["informative"] == 1.0 and content.classes["irrelevant"] < 0.75
    assert content.modality["irrelevant"] == 1.0 and content.modality["informative"] < 0.75
    assert content.classes["invariant"] > 0.9


def test_heads_are_scored_without_training():
    branches, heads = networks()
    with torch.no_grad():
        for head in (heads.irrelevant, heads.informative, heads.auxiliary):
            head.weight.zero_()
            head.bias.zero_()
        heads.irrelevant.weight[1, 0] = 1.0  # column 2 is positive for the second modality
        heads.irrelevant.bias[0] = 1e-3
        heads.informative.bias[0] = 1.0  # always the first modality
        heads.auxiliary.weight[1, 0] = 1.0  # column 0 is positive for class 1

    content = measure_branches(branches, heads, batches(), batches(seed=1))

    assert content.heads["irrelevant"] == 1.0 and content.heads["informative"] == 0.5
    assert content.auxiliary["informative"] == 1.0


def test_cosines_are_those_of_the_parts():
    branches, heads = networks()
    embedded = embed_batches(branches, batches(seed=1))

    content = measure_branches(branches, heads, batches(), batches(seed=1))

    for part in ("invariant", "irrelevant"):
        values = []
        for each in embedded.values():
            u, v = each.parts.informative.double(), getattr(each.parts, part).double()
            lengths = u.norm(dim=1) * v.norm(dim=1)
            values.append(((u * v).sum(dim=1) / lengths.clamp(min=1e-12)).abs())
        assert content.cosines[part] == pytest.approx(torch.cat(values).mean().item(), abs=1e-6)


def test_targets_that_are_no_classes_give_no_class_scores():
    branches, heads = networks()
    given = batches()
    given[0].targets = {name: torch.randn(60, 2) for name in ("left", "right")}

    content = measure_branches(branches, heads, given, given)

    assert content.classes == {} == content.auxiliary
    assert set(content.modality) == {"invariant", "informative", "irrelevant"}


def test_networks_keep_their_modes():
    branches, heads = networks()
    branches[0].train()
    branches[1].eval()
    statistics = branches[0].projection[1].running_mean.clone()

    measure_branches(branches, heads, batches(), batches())

    assert branches[0].training and not branches[1].training and heads.training
    assert torch.equal(branches[0].projection[1].running_mean, statistics)


def test_a_modality_without_rows_is_refused():
    branches, heads = networks()

    with pytest.raises(InputError, match="no rows of right"):
        measure_branches(branches, heads, batches(paired=False)[:1], batches())


def test_the_plane_is_that_of_principal_components():
    random = np.random.default_rng(0)
    rows = random.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1]

    points, shares = plane({"a": torch.tensor(rows[:10]), "b": torch.tensor(rows[10:])})

    reference = PCA(2).fit(rows)
    ours = torch.cat([points["a"], points["b"]]).numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(reference.transform(rows)), atol=1e-5)
    assert shares == pytest.approx(tuple(reference.explained_variance_ratio_))
    again, _ = plane({"a": torch.tensor(rows[:10]), "b": torch.tensor(rows[10:])})
    assert torch.equal(points["a"], again["a"])


def test_a_plane_needs_two_columns():
    with pytest.raises(InputError, match="two rows and two columns"):
        plane({"a": torch.zeros(5, 1)})

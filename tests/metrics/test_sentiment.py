import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from xmodal.engine.selection import measured
from xmodal.engine.stacked.scores import ManyScores
from xmodal.errors import InputError, NonFinite
from xmodal.metrics.sentiment import ALIASES, SignScore, sentiment_metrics, sentiment_scores
from xmodal.metrics.task import Scores, scalar_metrics
from xmodal.reports.numbers import in_percent
from xmodal.reports.tables import metrics_table
from xmodal.types import DataInfo, InputInfo

INFO = DataInfo({"text": InputInfo((1,))}, "regression", 1, {}, metrics="sentiment", select=("mae", "min"))


def drawn(count, seed=0):
    random = np.random.default_rng(seed)
    y = np.round(np.clip(1.5 * random.normal(size=count), -3, 3) * 5) / 5
    return (y + random.normal(size=count)).astype(np.float32), y.astype(np.float32)


def slowly(p, y):
    """The definitions, sample by sample and with scikit-learn."""
    told = [(a, b) for a, b in zip(p.tolist(), y.tolist(), strict=True) if b != 0]
    clip = lambda value, most: round(max(-most, min(most, value)))  # noqa: E731
    return {
        "MAE": sum(abs(a - b) for a, b in zip(p.tolist(), y.tolist(), strict=True)) / len(p),
        "Corr": float(np.corrcoef(p, y)[0, 1]),
        "Mult_acc_7": sum(clip(a, 3) == clip(b, 3) for a, b in zip(p.tolist(), y.tolist(), strict=True)) / len(p),
        "Mult_acc_5": sum(clip(a, 2) == clip(b, 2) for a, b in zip(p.tolist(), y.tolist(), strict=True)) / len(p),
        "Non0_acc_2": sum((a > 0) == (b > 0) for a, b in told) / len(told),
        "Non0_F1_score": f1_score([b > 0 for _, b in told], [a > 0 for a, _ in told], average="weighted"),
        "Has0_acc_2": float(np.mean((p >= 0) == (y >= 0))),
        "Has0_F1_score": f1_score(y >= 0, p >= 0, average="weighted"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_all_of_them_are_what_the_definitions_say(seed):
    p, y = drawn(61, seed)

    found = sentiment_scores(p, y, digits=None)

    assert found == pytest.approx({**slowly(p, y), **{alias: slowly(p, y)[name] for alias, name in ALIASES.items()}})


def test_a_small_set_by_hand():
    scores = sentiment_scores([0.0, -0.4, 2.5, -3.7], [0.0, 0.2, 3.0, -3.0])

    assert scores["MAE"] == 0.45  # (0 + 0.6 + 0.5 + 0.7) / 4
    assert scores["Mult_acc_7"] == 0.75  # 2.5 rounds to 2, -3.7 is clipped to -3
    assert scores["Mult_acc_5"] == 1.0
    assert scores["Non0_acc_2"] == 0.6667 and scores["Has0_acc_2"] == 0.75


def merged(metric, parts):
    """One metric after the states of several processes were joined by the rule of each state."""
    for name, how in metric._reductions.items():
        setattr(metric, name, how(torch.stack([getattr(part, name) for part in parts])))
    metric._update_count, metric._computed = 1, None
    return metric


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_two_processes_together_say_what_one_says(cut):
    p, y = (torch.from_numpy(values) for values in drawn(41))
    whole, joined = sentiment_metrics(), sentiment_metrics()
    halves = [sentiment_metrics(), sentiment_metrics()]

    for name, metric in whole.items():
        metric.update(p, y)
        halves[0][name].update(p[:cut], y[:cut])
        halves[1][name].update(p[cut:], y[cut:])

        together = merged(joined[name], [half[name] for half in halves])
        assert together.compute().item() == pytest.approx(metric.compute().item(), abs=1e-12), name


def test_a_process_without_samples_changes_nothing():
    p, y = (torch.from_numpy(values) for values in drawn(9))
    for name, metric in sentiment_metrics().items():
        metric.update(p, y)
        alone = metric.compute().item()
        empty = sentiment_metrics()[name]
        empty.update(p[:0], y[:0])

        assert merged(sentiment_metrics()[name], [metric, empty]).compute().item() == alone


def test_the_order_and_the_batches_do_not_matter():
    p, y = drawn(50)
    order = np.random.default_rng(1).permutation(50)

    assert sentiment_scores(p, y) == sentiment_scores(p[order], y[order])


@pytest.mark.parametrize(("p", "y"), [([0.7] * 1000, None), (None, [0.3] * 1000)])
def test_a_correlation_with_something_constant_is_nan_whatever_the_rounding(p, y):
    drawn_p, drawn_y = drawn(1000)

    scores = sentiment_scores(p or drawn_p, y or drawn_y)

    assert math.isnan(scores["Corr"]) and math.isfinite(scores["MAE"])


def test_without_a_label_other_than_zero_the_rest_is_still_computed():
    scores = sentiment_scores([0.1, -0.2], [0.0, 0.0])

    assert math.isnan(scores["Acc_2"]) and math.isnan(scores["F1_score"])
    assert scores["Has0_acc_2"] == 0.5 and scores["MAE"] == 0.15


def test_predictions_that_are_nan_are_named_and_not_scored():
    p = [math.nan] * 7 + [1.0]

    with pytest.raises(InputError, match=r"the samples a0, a1, a2, a3, a4, a5 and 1 more are NaN"):
        sentiment_scores(p, [1.0] * 8, ids=[f"a{row}" for row in range(8)])
    with pytest.raises(InputError, match="the rows 0"):
        sentiment_scores([math.nan], [1.0])

    scores = Scores(INFO)
    scores.update(torch.tensor(p)[:, None], torch.ones(8, 1))
    with pytest.raises(NonFinite, match="7 of 8 predictions are NaN"):
        scores.compute()


def test_no_samples_and_different_numbers_are_errors():
    with pytest.raises(InputError, match="no samples"):
        sentiment_scores([], [])
    with pytest.raises(InputError, match=r"2 predictions \(2,\) and 1 labels"):
        sentiment_scores([1.0, 2.0], [1.0])


def test_a_class_that_is_never_told_counts_nothing_in_the_weighted_f1():
    metric = SignScore("f1", zeros=True)

    metric.update(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, -1.0]))

    assert metric.compute().item() == pytest.approx(2 / 3 * 0.8)  # precision 2/3, recall 1; the other class has 0


def test_data_that_names_the_set_is_scored_by_it_everywhere():
    scores = Scores(INFO)
    scores.update(torch.tensor([[1.0], [-2.0]]), torch.tensor([[1.5], [-1.0]]))
    found = scores.compute()

    assert list(found) == scalar_metrics(INFO) == ["mae", *list(sentiment_metrics())[1:], "mse"]
    assert found["mae"] == 0.75 and found["mse"] == 0.625
    measured(INFO.select[0], found)  # the metric that chooses an epoch is among them
    assert not ManyScores.applies(INFO)


def test_shares_of_the_set_are_shown_in_per_cent():
    header, rows = metrics_table([("dmd", {"mae": 0.5, "Corr": 0.25, "Mult_acc_7": 0.5, "Non0_F1_score": 0.25})])

    assert header == ["name", "mae", "Corr", "Mult acc 7 (%)", "Non0 F1 score (%)"]
    assert rows == [["dmd", "0.5000", "0.2500", "50.0", "25.0"]] and not in_percent("MAE")


def test_an_unknown_set_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="no set of metrics called 'sentimental'. Did you mean 'sentiment'"):
        scalar_metrics(DataInfo({"text": InputInfo((1,))}, "regression", 1, {}, metrics="sentimental"))

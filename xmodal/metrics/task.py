"""The metrics of each kind of target, which also sum over processes: counts of our own, or torchmetrics objects.

A data set that is not scored by the default metrics of its task names one of `SETS` in ``DataInfo.metrics``. Training,
the choice of an epoch, comparison and evaluation then use this set only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.errors import InputError, did_you_mean
from xmodal.metrics.counts import BinaryCounts, Counts, Mean, on_host
from xmodal.metrics.further import as_number
from xmodal.types import DataInfo

if TYPE_CHECKING:
    from torchmetrics import Metric


OWN = (Counts, BinaryCounts)  # metrics whose values are read from the device with those of others


class Scores:
    """Collects outputs of one student and computes its metrics.

    Args:
        info: description of the data, which determines the metrics.
        full: also compute what only a final evaluation needs (per class, confusion matrix, areas).
        device: device of the outputs.
    """

    def __init__(self, info: DataInfo, *, full: bool = False, device: torch.device | str = "cpu") -> None:
        self.info = info
        self.metrics = {name: metric.to(device) for name, metric in _build(info, full=full).items()}
        self.loss = None if info.task == "regression" else Mean().to(device)
        self.further = {name: metric.fresh().to(device) for name, metric in info.further_metrics.items()}

    def update(
        self, outputs: Tensor, target: Tensor, valid: Tensor | None = None, scored: Tensor | None = None
    ) -> None:
        """Count one batch; pixels outside of all scored regions do not count."""
        # Half precision would round the logits of ranking metrics and the cross-entropy.
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        # These metrics count image by image and region by region, so they get the batch before it is flattened.
        if self.info.metrics in IMAGES:
            for metric in self.metrics.values():
                metric.update(outputs, _without(target, valid, self.info.ignore), scored)
        if scored is not None:
            valid = scored > 0 if valid is None else valid & (scored > 0)
        if self.info.task == "binary":
            outputs = outputs.flatten()
        if self.info.dense and self.info.task == "multiclass":
            mask = _counted(target, valid, self.info.ignore)
            outputs, target, valid = outputs.movedim(1, -1)[mask], target[mask], None
        if valid is not None:
            outputs, target = outputs[valid.flatten()], target[valid.flatten()]
        if not len(target) and not self.info.dense:
            # Metrics with lists of predictions synchronise only if every process has an entry: an empty batch adds one.
            for metric in self.metrics.values():
                if any(isinstance(state, list) for state in metric.metric_state.values()):
                    metric.update(outputs.sigmoid(), target)
            for metric in self.further.values():
                metric.update(outputs, target)
            return
        # torchmetrics mistakes logits that all lie in [0, 1] for probabilities. Probabilities leave no doubt.
        predictions = outputs.sigmoid() if self.info.task in ("binary", "multilabel") else outputs
        for metric in () if self.info.metrics in IMAGES else self.metrics.values():
            metric.update(predictions, target)
        if self.further:
            chances = outputs.softmax(dim=1) if self.info.task == "multiclass" else predictions
            for metric in self.further.values():
                metric.update(chances, target)
        if self.loss is not None:
            self.loss.update(_cross_entropy(outputs, target, self.info))

    def reset(self) -> None:
        """Forget all batches."""
        for metric in [*self.metrics.values(), *self.further.values(), *([] if self.loss is None else [self.loss])]:
            metric.reset()

    def values(self) -> dict[str, Any]:
        """As `compute`, with tensors on the device in place of numbers, see `xmodal.metrics.counts.on_host`."""
        scores: dict[str, Any] = {}
        for name, metric in self.metrics.items():
            value = metric.values() if isinstance(metric, OWN) else _quietly(metric)
            scores |= value if isinstance(value, dict) else {name: value}
        for name, metric in self.further.items():
            scores[name] = as_number(name, _quietly(metric))
        if self.loss is not None:
            scores["cross_entropy"] = self.loss.compute()
        return scores

    def compute(self) -> dict[str, Any]:
        """Name → number, or nested lists for per-class values and the confusion matrix."""
        scores: dict[str, Any] = on_host(self.values())
        return scores


def _quietly(metric: Any) -> Any:
    """The value of a torchmetrics object."""
    import warnings

    with warnings.catch_warnings():
        # A class without samples has no recall; torchmetrics counts it as 0, as documented here, and warns.
        warnings.filterwarnings("ignore", message="No (positive|negative) samples", category=UserWarning)
        try:
            return metric.compute()
        except ValueError as error:
            # R² of a single row is undefined, and torchmetrics raises an error instead of returning NaN.
            if "at least two samples" in str(error):
                return float("nan")
            raise


def _cross_entropy(outputs: Tensor, target: Tensor, info: DataInfo) -> Tensor:
    """One value per sample or label, without ignored targets."""
    if info.task == "multiclass":
        # With its argument ignore_index, F.cross_entropy would return zeros, which would enter the mean.
        labelled = target != info.ignore if info.ignore is not None else slice(None)
        return F.cross_entropy(outputs[labelled], target[labelled], reduction="none")
    return F.binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), reduction="none")


def _counted(target: Tensor, valid: Tensor | None, ignore: int | None) -> Tensor:
    """Mask of the pixels that count: valid, and with a target that is not ignored."""
    labelled = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    return labelled if valid is None else valid & labelled


def _without(target: Tensor, valid: Tensor | None, ignore: int | None) -> Tensor:
    """The target with the ignored value where it is not valid."""
    return target if valid is None or ignore is None else target.masked_fill(~valid, ignore)


def scalar_metrics(info: DataInfo) -> list[str]:
    """Names of the metrics of a final evaluation that are single numbers."""
    if info.metrics in IMAGES:
        from xmodal.metrics.scenes import NUMBERS

        return [*NUMBERS, "cross_entropy"]
    if info.dense and info.task == "multiclass":
        from xmodal.metrics.segmentation import scores_of

        return [*scores_of(torch.zeros(info.classes, info.classes)), "cross_entropy"]
    counted = {"multiclass": ("accuracy", "macro_f1", "weighted_f1"), "binary": ("accuracy", "f1", "auroc")}
    names = list(counted.get(info.task, ())) if not info.metrics else []
    names = names or [name for name in _build(info, full=True) if name != "per_class"]
    names += info.further_metrics
    return names if info.task == "regression" else [*names, "cross_entropy"]


def _build(info: DataInfo, *, full: bool) -> dict[str, Any]:
    if info.metrics:
        if info.metrics not in SETS:
            raise InputError(f"There is no set of metrics called '{info.metrics}'. {did_you_mean(info.metrics, SETS)}")
        return SETS[info.metrics](info, full)
    builders = {
        "multiclass": _multiclass,
        "binary": _binary,
        "multilabel": _multilabel,
        "regression": _regression,
    }
    return builders[info.task](info, full)


def _multiclass(info: DataInfo, full: bool) -> dict[str, Any]:
    classes, ignore = info.classes, info.ignore
    if info.dense:
        from xmodal.metrics.segmentation import SegmentationScores

        return {"pixels": SegmentationScores(classes, ignore=() if ignore is None else (ignore,), full=full)}
    return {"counts": Counts(classes, ignore=ignore, full=full)}


def _binary(info: DataInfo, full: bool) -> dict[str, Any]:
    if not full:
        return {"counts": BinaryCounts()}
    # imported here and below, because torchmetrics takes a second to import and many commands do without it
    from torchmetrics.classification import BinaryAUROC

    return {"counts": BinaryCounts(full=True), "auroc": BinaryAUROC()}


def _multilabel(info: DataInfo, full: bool) -> dict[str, Metric]:
    from torchmetrics import classification as tm

    common: dict[str, Metric] = {
        "accuracy": tm.MultilabelAccuracy(info.classes, average="micro"),
        "macro_f1": tm.MultilabelF1Score(info.classes, average="macro"),
        "exact_match": tm.MultilabelExactMatch(info.classes),
    }
    if full:
        common["average_precision"] = tm.MultilabelAveragePrecision(info.classes)
        common["per_class"] = tm.MultilabelF1Score(info.classes, average="none")
    return common


def _regression(info: DataInfo, full: bool) -> dict[str, Metric]:
    import torchmetrics.regression as tm

    width = info.classes
    metrics: dict[str, Metric] = {"mse": tm.MeanSquaredError(), "mae": tm.MeanAbsoluteError()}
    if full:
        metrics["r2"] = tm.R2Score()
        metrics["pearson"] = tm.PearsonCorrCoef() if width == 1 else tm.PearsonCorrCoef(num_outputs=width)
    return metrics


def _sentiment(info: DataInfo, full: bool) -> dict[str, Metric]:
    from torchmetrics.regression import MeanSquaredError

    from xmodal.metrics.sentiment import sentiment_metrics

    # One name for the mean absolute error of all regression data.
    metrics: dict[str, Metric] = {
        "mae" if name == "MAE" else name: metric for name, metric in sentiment_metrics().items()
    }
    return {**metrics, "mse": MeanSquaredError()}


def _scenes(info: DataInfo, full: bool) -> dict[str, Metric]:
    from xmodal.metrics.scenes import SceneScores

    return {"voxels": SceneScores(info.classes, unknown=info.ignore, full=full)}


SETS: dict[str, Callable[[DataInfo, bool], dict[str, Metric]]] = {"sentiment": _sentiment, "scenes": _scenes}
IMAGES = ("scenes",)  # sets that need whole images and their scored regions, not rows of voxels

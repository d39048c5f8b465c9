"""Flags of a comparison of methods, and the comparison that they describe.

This module imports no torch, which takes seconds: `--help` responds immediately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_origin

from pydantic import Field, model_validator

from xmodal.cards import load
from xmodal.errors import InputError, did_you_mean
from xmodal.losses import LOSSES
from xmodal.methods import METHODS
from xmodal.study.plan import Comparison, Entry, Plan, method_settings
from xmodal.study.settings import JobSettings, Names, PairSettings

ALL = "all"  # of the training rows have a label


class ComparisonSettings(PairSettings, JobSettings):
    """Compare methods over seeds, with a no-KD and a shuffled-teacher control."""

    methods: Names = Field(("supervised", "kd"), min_length=1, description="methods of `xmodal list methods`")
    losses: Names = Field((), description="run kd once per loss of `xmodal list losses`; all: every loss that fits")
    vary: Names = Field((), description="further rows with other settings, METHOD.FIELD=VALUE[+FIELD=VALUE] each")
    metric: str = Field("", description="metric to compare; default: the one that selects the epoch")
    margin: float | None = Field(
        None, gt=0, description="difference that counts as none, in points (or the metric's unit); default: none does"
    )
    shuffled: bool = Field(True, description="run the shuffled-teacher control")
    untrained: bool = Field(False, description="run the untrained-teacher control")
    controls: Literal["first", "all", "none"] = Field(
        "first", description="with unlabelled rows: methods whose controls are trained"
    )
    curve: Names = Field((), description="with hidden labels: further numbers at which no-KD is trained, 100,300")

    @property
    def label_counts(self) -> tuple[str, ...]:
        """The numbers of labels of ``labelled``; the first is that of the table."""
        return tuple(word.strip() for word in self.labelled.split(",") if word.strip())

    @property
    def curve_counts(self) -> tuple[str, ...]:
        """The numbers of labels besides the first: those of ``labelled``, or those of ``curve`` and all."""
        if len(self.label_counts) > 1:
            return self.label_counts[1:]
        return (*self.curve, ALL) if self.label_counts or self.labelled_groups else ()

    def plan(self) -> Plan:
        """Data, networks and training, with the first number of labels."""
        return replace(super().plan(), labelled=(*self.label_counts, "")[0])

    def comparison(self) -> Comparison:
        """The comparison, together with all problems of the names in these settings."""
        entries: list[Entry] = []
        problems = self._wrong_names()
        for method in self.methods:
            try:
                entries += self._entries_of(method)
            except InputError as error:
                problems += error.problems
        for text in self.vary:
            try:
                method, options = varied(text, self.options)
                method_settings(METHODS[method], options)
                # no controls: those of the method itself stand in the table already
                entries.append(Entry(text, method, options, controls=False))
            except InputError as error:
                problems += [f"--vary {text}: {problem}" for problem in error.problems]
        names = dict.fromkeys([*self.methods, *(entry.method for entry in entries)])
        methods = tuple(METHODS[name] for name in names if name in METHODS)
        return Comparison(
            plan=self.plan(),
            methods=methods,
            entries=tuple(entries),
            metric=self.metric,
            margin=self.margin,
            shuffled=self.shuffled,
            untrained=self.untrained,
            controls=self.controls,
            train_teacher=any(card.teacher == "frozen" for card in methods),
            problems=tuple(problems),
        )

    def _entries_of(self, method: str) -> list[Entry]:
        """Rows of a method: one, or one per loss; the method supervised is the control and has none."""
        options = dict(self.options.get(method, {}))
        # raises an error about wrong options, also for a method without a row
        method_settings(METHODS[method], options)
        if method == "supervised":
            return []
        losses = tuple(LOSSES) if self.losses == ("all",) else self.losses
        if method != "kd" or not losses:
            return [Entry(method, method, options)]
        return [
            Entry(f"kd {loss}", method, {**options, "loss": (loss,)}, controls=False, optional=True) for loss in losses
        ]

    def _wrong_names(self) -> list[str]:
        """Problems with losses that do not exist, and with options that belong neither to a method nor to the data."""
        problems = []
        if self.losses and "kd" not in self.methods:
            problems.append(
                f"--losses {','.join(self.losses)} runs kd once per loss, and --methods {','.join(self.methods)} "
                "leaves kd out. Add kd to --methods, or leave --losses out."
            )
        for name in () if self.losses == ("all",) else self.losses:
            try:
                LOSSES[name.partition(":")[0]]
            except InputError as error:
                problems += error.problems
        unused = set(self.options) - set(METHODS) - {self.data, *self.methods}
        problems += [f"There are options for '{name}', which is no method and not the data set." for name in unused]
        return problems


class SweepSettings(ComparisonSettings):
    """Compare methods over seeds, with a no-KD and a shuffled-teacher control; or at several values of a setting."""

    sweep: str = Field("", description="FIELD=A,B,…: compare at each value, and relate gain to divergence")
    folds: int = Field(
        0,
        ge=0,
        description="cross-validation in place of seeds: each fold is tested once, by group where there are any",
    )

    @model_validator(mode="before")
    @classmethod
    def _folds_in_place_of_seeds(cls, given: Any) -> Any:
        folds = given.get("folds") if isinstance(given, dict) else None
        # other types and negative numbers are refused by the check of the field
        if not str(folds).isdigit() or not int(str(folds)):
            return given
        if int(str(folds)) < 2:
            raise ValueError("--folds is 1: 2 or more were expected, or 0 for seeds.")
        for other in ("seeds", "sweep"):
            if given.get(other):
                raise ValueError(f"--folds divides the rows in place of --{other}: leave one of the two out.")
        # fold k takes the place of seed k: it has its own split and its own initial weights
        return {**given, "seeds": tuple(range(int(str(folds))))}

    @property
    def tasks(self) -> int:
        """How many parts can be trained at the same time: seeds, at every value of a sweep."""
        return len(self.seeds) * (self.sweep.count(",") + 1)

    def plan(self) -> Plan:
        """Data, networks and training, with the folds."""
        return replace(super().plan(), folds=self.folds)

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records; the seeds of folds follow from their number."""
        described = super().described()
        return {key: value for key, value in described.items() if key != "seeds" or not self.folds}


def varied(text: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A method and its options: those of all its rows, with the changes ``METHOD.FIELD=VALUE[+FIELD=VALUE]``.

    Example:
        >>> varied("kd.task-weight=0+loss=dkd", {"kd": {"temperature": 2.0}})
        ('kd', {'temperature': 2.0, 'task_weight': '0', 'loss': ('dkd',)})
    """
    name, _, changes = text.partition(".")
    fields = load(METHODS[name].settings).model_fields
    values = dict(options.get(name, {}))
    for change in changes.split("+"):
        field, equals, value = change.partition("=")
        field = field.strip().replace("-", "_")
        if not equals:
            raise InputError(f"'{change}' was given; expected FIELD=VALUE, as in kd.temperature=2.")
        if field not in fields:
            raise InputError(f"The method {name} has no setting '{field}'. {did_you_mean(field, fields)}")
        # commas separate the rows of --vary, so the items of a tuple are separated by |
        several = get_origin(fields[field].annotation) is tuple
        values[field] = tuple(value.split("|")) if several else value.strip()
    return name, values

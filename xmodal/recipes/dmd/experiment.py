"""DMD on MOSI, MOSEI or a synthetic set: three modalities teach one another over two graphs, with and without.

For every seed the method and a control that differs in one number, λ₁ = 0: no distillation. Each of them gives a
student of every modality and the fused model. The page shows their metrics over the seeds, the learned edges of both
graphs epoch by epoch with the prior as a dotted line, and the difference from the control. Expected result: edges move
to the prior, and at the published weight no difference that a few seeds can show (docs/methods/dmd.md).

    xmodal run dmd                                             # a synthetic set, 3 seeds: a minute on a CPU
    xmodal run dmd --dataset mosi --data aligned_50.pkl        # published numbers, seeds 1111 to 1115; needs a GPU
    xmodal run dmd --dataset mosei --data ROOT --config config.json --weights dmd.pth --no-train

ROOT may have the layout of the authors (MOSI/Processed/aligned_50.pkl, …). Reference: Li, Wang, Cui: Decoupled
Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802; numbers from the authors' code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from xmodal.data import open_data
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.methods.settings import DMDSettings, Prior
from xmodal.recipes.dmd.authors_config import SYNTHETIC, read_config
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Plan
from xmodal.study.references import references_for
from xmodal.study.seeds import each_seed
from xmodal.study.settings import JobSettings, Names, Options, Presets, RowFlags, Seeds, parse_names

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.methods.dmd import DMD
    from xmodal.study.bench import Bench

METHOD, CONTROL = "dmd", "no distillation"
MODALITIES = ("text", "vision", "audio")  # names in the files, in the order of the graphs' nodes
PER_MODALITY = ("kernel", "input_dropout", "attention_dropout")  # settings with a number for each modality
# Training of the authors' code on both data sets. It sums the gradients of 10 batches for a step, and clips their
# values after each of the 10 backward passes, not once before the step.
PUBLISHED = {
    "epochs": 200,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "accumulate": 10,
    "accumulate_mode": "sum",
    "clip": 0.6,
    "clip_mode": "value",
    "clip_at": "backward",
    "schedule": "plateau",
    "schedule_factor": 0.5,
    "schedule_every": 5,
    "patience": 10,
    "layers": 4,
    "output_dropout": 0.5,
    "seeds": (1111, 1112, 1113, 1114, 1115),
    "threads": None,
}


def current_name(dataset: Any) -> Any:
    """The name of a data set, also for the former name of the synthetic one.

    Example:
        >>> current_name("made"), current_name("mosi")
        ('synthetic', 'mosi')
    """
    # command lines and settings.json of earlier versions say "made"
    return SYNTHETIC if dataset == "made" else dataset


class Settings(Presets, DMDSettings, RowFlags, JobSettings):
    """Three modalities that teach one another; without --data a synthetic set and a small network."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        SYNTHETIC: {
            "epochs": 12,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "width": 20,
            "heads": 4,
            "layers": 2,
            "kernel": (3, 3, 3),
            "input_dropout": (0.2, 0.0, 0.0),
            "attention_dropout": (0.1, 0.1, 0.1),
            "embed_dropout": 0.1,
            "output_dropout": 0.2,
            "seeds": (0, 1, 2),
            "threads": 1,
            "options": {"mosi": {"stand_in": True, "noise": 0.5}},
        },
        "mosi": {
            **PUBLISHED,
            "width": 50,
            "heads": 10,
            "kernel": (5, 5, 5),
            "input_dropout": (0.5, 0.0, 0.0),
            "attention_dropout": (0.3, 0.0, 0.2),
            "embed_dropout": 0.2,
        },
        "mosei": {
            **PUBLISHED,
            "width": 30,
            "heads": 6,
            "kernel": (5, 3, 1),
            "input_dropout": (0.3, 0.0, 0.0),
            "attention_dropout": (0.4, 0.0, 0.0),
            "embed_dropout": 0.0,
        },
    }
    SOURCES: ClassVar[tuple[str, ...]] = ("dataset", "config", "modalities")
    DATA_SET: ClassVar[str] = "mosi"  # its options are flags

    dataset: Annotated[Literal["synthetic", "mosi", "mosei"], BeforeValidator(current_name)] = Field(
        "synthetic", description="data set whose numbers are the defaults"
    )
    data: Path | None = Field(
        None, description="the pickle, the folder that `data prepare` wrote, or a parent of these"
    )
    alignment: Literal["aligned", "unaligned"] = Field("aligned", description="which pickle of a folder with both")
    config: Path | None = Field(None, description="config.json of the authors' code; flags replace its values")
    weights: Path | None = Field(None, description="state dict of the authors' code to start from (.pth)")
    train: bool = Field(True, description="train; --no-train: only score --weights")
    skip_text: bool = Field(False, description="ignore the text encoder that --weights may hold")
    text: Literal["", "features", "tokens"] = Field(
        "", description="features of the file, or tokens for --text-encoder; default: tokens if there is one"
    )
    prior: Literal["", Prior] = Field(
        "", description="prior of both graphs, in place of --homo-prior and --hetero-prior"
    )
    control: bool = Field(True, description="also train a control without distillation (λ1 = 0)")
    select: str = Field("", description="metric that selects the epoch; default: mae")
    result_csv: bool = Field(False, description="also write result.csv as the authors' code does (×100, tuples)")
    modalities: Names = Field((), description="modalities, in the order of the graphs' nodes; default: all")
    seeds: Seeds = Field((0,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    as_published: bool = Field(
        False,
        description="as the authors' code: --orthogonality legacy_batch --no-round-targets --remainder drop "
        "--mosi.nonfinite published",
    )
    options: Options = Field({}, description="options of the data")

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The preset of the data set, with the values of the authors' file in place of some."""
        # the given values are not validated yet: text from flags, or a former name
        dataset = current_name(given.get("dataset") or SYNTHETIC)
        values = dict(cls.PRESETS.get(dataset, {}))
        if given.get("config") and dataset in cls.PRESETS:
            read = read_config(Path(given["config"]), dataset).values
            options = {**values.get("options", {}).get("mosi", {}), **read["options"]["mosi"]}
            values |= {**read, "options": {"mosi": options}}
        modalities = given.get("modalities") or ()
        names = parse_names(modalities) if isinstance(modalities, str) else tuple(modalities)
        # of the numbers for each modality only those of the modalities that train
        if names and set(names) <= set(MODALITIES):
            order = [MODALITIES.index(name) for name in names]
            values |= {key: tuple(values[key][number] for number in order) for key in PER_MODALITY if key in values}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        # flags that stand for others, set on the finished object: settings are frozen
        if self.prior:
            object.__setattr__(self, "homo_prior", self.prior)
            object.__setattr__(self, "hetero_prior", self.prior)
        if self.as_published:
            object.__setattr__(self, "remainder", "drop")
        if self.text == "tokens" and self.text_encoder is None:
            raise ValueError(
                "text is read as tokens (use_bert in a config.json), and no text encoder is named. Name its folder "
                "with --text-encoder DIR, or take the features of the file with --text features."
            )
        if self.text == "features" and self.text_encoder is not None:
            raise ValueError("text is read as features, and a text encoder is named. Leave one of the two out.")
        if not self.train and self.weights is None:
            raise ValueError("--no-train scores the weights of a file, and no file is named. Name it with --weights.")
        if self.dataset != SYNTHETIC and self.root is None:
            raise ValueError(
                f"--dataset {self.dataset} needs the data set, and no data is named. Give --data FILE or ROOT, or "
                "leave --dataset out for a synthetic set."
            )
        return self

    @property
    def root(self) -> Path | None:
        """The path of the data, from its own flag or from the options; None: a synthetic set."""
        named = self.data or self.options.get("mosi", {}).get("root")
        return None if named is None else Path(named)

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records: values of a config.json are in their own fields."""
        from xmodal.data.mosi.dataset import MosiSettings

        settings = {key: value for key, value in super().described().items() if key != "config"}
        # all options, because flags give all and Python code only some: both must describe the same run
        options = MosiSettings.model_validate(self.options.get("mosi", {})).model_dump(mode="json")
        return {**settings, "options": {**settings["options"], "mosi": options}}

    def plan(self, modalities: tuple[str, ...]) -> Plan:
        """Data and training for a bench on which every modality is teacher and student."""
        return Plan(data="mosi", teacher=modalities, student=modalities, training=self.training())

    def method(self, **changes: Any) -> DMDSettings:
        """The fields that the method takes, with these changes."""
        fields = {name: getattr(self, name) for name in DMDSettings.model_fields}
        return DMDSettings(**{**fields, **changes})

    def source(self) -> dict[str, Any]:
        """Options of the data."""
        options = dict(self.options.get("mosi", {}))
        if self.data is not None:
            options["root"] = str(located(self.data, self.dataset, self.alignment))
        options["text"] = self.text or ("tokens" if self.text_encoder else options.get("text", "features"))
        options |= {"modalities": self.modalities} if self.modalities else {}
        options |= {"as_published": True} if self.as_published else {}
        return options


def located(data: Path, dataset: str, alignment: str) -> Path:
    """The path of the data: the pickle of this alignment in a folder, or else the path itself."""
    name = f"{alignment}_50.pkl"
    candidates = [data / name, data / "Processed" / name]
    for folder in ("MOSI", "MOSEI"):
        if dataset in (SYNTHETIC, folder.lower()):
            candidates.append(data / folder / "Processed" / name)
    return next((path for path in candidates if path.is_file()), data)


def published() -> Settings:
    """The settings of the reference figures: ten synthetic sets, the method alone."""
    return Settings(seeds=tuple(range(10)), control=False)


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder, its tables and its page; return the result."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.dmd.tables import edge_figures, metric_table
    from xmodal.study.comparison import summarised

    with open_study(settings, "dmd", progress=progress) as study:
        # data of the first seed, weights to start from, and all checks: nothing is written yet
        opened = functools.partial(open_seed, settings)
        first = open_set(settings, settings.seeds[0])
        modalities = settings.modalities or first.info.modalities
        plan = settings.plan(modalities)
        weights = read_weights(settings)
        check(settings, plan, first, weights, study.fabric)
        # a folder of an earlier version names the synthetic set "made": the same data, so the run may be resumed
        free = ("dataset",) if settings.dataset == SYNTHETIC else ()
        fits = len(settings.seeds) * (1 + settings.control) * settings.train
        study.start(fits=fits, name=f"dmd-{settings.dataset}", free=free)

        # the seeds, one after the other or several at a time; a synthetic set is drawn from its seed, a file is not
        work, same = (settings, plan), settings.root is not None
        found = each_seed(study, train_seed, plan, settings.seeds, first, *work, opened=opened, same=same)
        rows = [row for rows_of_seed in found for row in rows_of_seed["rows"]]

        # report
        result = summarised(Comparison(plan=plan), first, rows, notes(settings), title=titled(settings))
        result |= {"teacher": [], "student": list(modalities), "tables": [metric_table(rows)]}
        result["figures"] |= edge_figures(study.folder, rows)
        references = references_for(RECIPES["dmd"], settings, result["figures"])
        result |= {"references": references} if references else {}
        if study.first:
            write_tables(settings, result, study.folder)
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, plan: Plan) -> dict[str, Any]:
    """The method and its control; the test split is read when both are trained."""
    from xmodal.recipes.dmd.tables import write_files

    bench = study.bench(plan, data, seed)
    train_both(bench, settings, read_weights(settings))
    rows = bench.score(every=True, unscored=every_head(bench))
    write_files(bench, study.folder / f"seed-{seed}")
    return {"rows": rows}


def write_tables(settings: Settings, result: Mapping[str, Any], out: Path) -> None:
    """Write `edges.csv`, `summary.csv` and, with ``result_csv``, `result.csv`."""
    from xmodal.recipes.dmd import tables

    tables.write_edges(out, result["rows"])
    tables.write_summary(out, result["rows"])
    if settings.result_csv:
        tables.write_published_result(out, result["rows"], METHOD)


def open_seed(settings: Settings, plan: Plan, seed: int) -> Data:
    """The data of a seed; the plan follows from it."""
    return open_set(settings, seed)


def open_set(settings: Settings, seed: int) -> Data:
    """The data of a seed."""
    data = open_data("mosi", options=settings.source(), seed=seed, **settings.request())
    if settings.select:
        lower = settings.select.lower() in ("mse", "mae")
        data.info = replace(data.info, select=(settings.select, "min" if lower else "max"))
    return data


def read_weights(settings: Settings) -> Mapping[str, Any] | None:
    """The state dict that training starts from; None: initial weights are drawn."""
    from xmodal.models.dmd.authors_weights import read_published

    return None if settings.weights is None else read_published(settings.weights)


def build(bench: Bench, settings: Settings, weights: Mapping[str, Any] | None, **changes: Any) -> DMD:
    """The method with its initial weights, or with those of a file."""
    from xmodal.models.dmd.authors_weights import load_published

    method = cast("DMD", bench.build(METHODS["dmd"], settings.method(modalities=bench.teaching, **changes)))
    if weights is not None:
        load_published(method.network, weights, str(settings.weights), skip_text=settings.skip_text)
        # `build` has recorded the edges of the drawn weights as those before training
        method.measure_start(bench.batches("valid"))
    return method


def check(settings: Settings, plan: Plan, data: Data, weights: Mapping[str, Any] | None, fabric: Devices) -> None:
    """Build the method once and discard it, so that an error in weights, data or metric appears before training."""
    from xmodal.metrics.task import scalar_metrics
    from xmodal.study.rehearsal import Rehearsal

    metrics = scalar_metrics(data.info)
    if data.info.select[0] not in metrics:
        raise InputError(
            f"There is no metric '{data.info.select[0]}' for this data. {did_you_mean(data.info.select[0], metrics)}"
        )
    build(Rehearsal(data, plan, seed=0, fabric=fabric), settings, weights)


def train_both(bench: Bench, settings: Settings, weights: Mapping[str, Any] | None) -> None:
    """Train the method, and from the same initial weights the control without distillation; or add given weights."""
    if not settings.train:
        bench.take(METHOD, build(bench, settings, weights), role="method")
        return
    bench.train(METHOD, build(bench, settings, weights), role="method")
    if settings.control:
        bench.train(CONTROL, build(bench, settings, weights, distil_weight=0.0), role="control")


def every_head(bench: Bench) -> dict[str, Any]:
    """All heads of the method with the weights after the last epoch, also of those that are not deployed."""
    from xmodal.methods.dmd import other_students

    method = cast("DMD", bench.runs[METHOD].method)
    return {**method.students(), **other_students(method)}


def titled(settings: Settings) -> str:
    """The title of the page."""
    data = {SYNTHETIC: "a synthetic set", "mosi": "MOSI", "mosei": "MOSEI"}[settings.dataset]
    # your own file with the small network of the synthetic set
    if settings.dataset == SYNTHETIC and settings.root:
        data = settings.root.name
    return f"DMD on {data}{', as published' if settings.as_published else ''}"


def notes(settings: Settings) -> list[str]:
    """Sentences about consequences of these settings."""
    notes = []
    if settings.config is not None and settings.config.is_file():
        notes += read_config(settings.config, settings.dataset).notes
    if settings.root is not None and settings.dataset == SYNTHETIC:
        notes.append(
            "The network is the small one of the synthetic set; --dataset mosi or mosei takes the published numbers."
        )
    # |logit_j - logit_i| is symmetric, so the direction of an edge comes from the prior alone
    if settings.homo_prior == settings.hetero_prior == "reference" and settings.distil_weight:
        notes.append("Edges move to the prior, which the settings fix, whichever modality is the better one.")
    return notes

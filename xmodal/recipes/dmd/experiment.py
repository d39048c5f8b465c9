"""DMD on MOSI, MOSEI or a made set: three modalities teach one another over two graphs, with and without.

For every seed the method and a control that differs in one number, λ₁ = 0: no distillation. Each of them gives a
student of every modality and the fused model. Shown are their metrics over the seeds, the learned edges of both graphs
epoch by epoch with the prior as a dotted line, and the difference from the control. What should come out: edges that go
where the prior points, and at the published weight no difference that a few seeds can show (docs/methods/dmd.md).

    xmodal run dmd                                             # a made set, small network, 3 seeds: a minute on a CPU
    xmodal run dmd --dataset mosi --data aligned_50.pkl        # published numbers, seeds 1111 to 1115; wants a GPU
    xmodal run dmd --dataset mosei --data ROOT --config config.json --weights dmd.pth --no-train

ROOT may be laid out as the authors have it (MOSI/Processed/aligned_50.pkl, …). Reference: Li, Wang, Cui: Decoupled
Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802; numbers from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from xmodal.data import open_data
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.methods.settings import DMDSettings, Prior
from xmodal.recipes.dmd.authors_config import read_config
from xmodal.study.opening import open_study
from xmodal.study.plan import Comparison, Plan
from xmodal.study.references import references_for
from xmodal.study.settings import Names, Options, Presets, RunSettings, Seeds, parse_names

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.methods.dmd import DMD
    from xmodal.study.bench import Bench

METHOD, CONTROL = "dmd", "no distillation"
MODALITIES = ("text", "vision", "audio")  # as the files have them, and the order of the graphs' nodes
PER_MODALITY = ("kernel", "input_dropout", "attention_dropout")
PUBLISHED = {  # of both data sets; the authors' code, clipping and all
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


class Settings(Presets, DMDSettings, RunSettings):
    """Three modalities that teach one another; without --data a made set and a small network."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "made": {
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

    dataset: Literal["made", "mosi", "mosei"] = Field("made", description="whose numbers are the defaults")
    data: Path | None = Field(None, description="the pickle, what `data prepare` made of it, or a folder of these")
    alignment: Literal["aligned", "unaligned"] = Field("aligned", description="which pickle of a folder with both")
    config: Path | None = Field(None, description="config.json of the authors' code; flags go on top of it")
    weights: Path | None = Field(None, description="state dict of the authors' code to start from (.pth)")
    train: bool = Field(True, description="train; --no-train: score --weights as they are")
    skip_text: bool = Field(False, description="leave out the text encoder that --weights may hold")
    text: Literal["", "features", "tokens"] = Field(
        "", description="features of the file, or tokens for --text-encoder; default: tokens if there is one"
    )
    prior: Literal["", Prior] = Field("", description="of both graphs, in place of --homo-prior and --hetero-prior")
    control: bool = Field(True, description="train a control without distillation (λ1 = 0) beside it")
    select: str = Field("", description="metric that chooses the epoch; default: mae")
    result_csv: bool = Field(False, description="write result.csv as the authors' code does (×100, tuples), too")
    modalities: Names = Field((), description="which train together, in the order of the graphs' nodes; default: all")
    seeds: Seeds = Field((0,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    as_published: bool = Field(
        False,
        description="as the authors' code: --orthogonality legacy_batch --no-round-targets --remainder drop "
        "--mosi.nonfinite published",
    )
    options: Options = Field({}, description="options of the data")

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The preset of the data set, and the authors' file on top of it."""
        dataset = given.get("dataset") or "made"
        values = dict(cls.PRESETS.get(dataset, {}))
        if given.get("config") and dataset in cls.PRESETS:
            read = read_config(Path(given["config"]), dataset).values
            own = {**values.get("options", {}).get("mosi", {}), **read["options"]["mosi"]}
            values |= {**read, "options": {"mosi": own}}
        asked = given.get("modalities") or ()
        names = parse_names(asked) if isinstance(asked, str) else tuple(asked)
        if names and set(names) <= set(MODALITIES):  # what has a number for each modality has those of these
            at = [MODALITIES.index(name) for name in names]
            values |= {key: tuple(values[key][place] for place in at) for key in PER_MODALITY if key in values}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.prior:
            object.__setattr__(self, "homo_prior", self.prior)
            object.__setattr__(self, "hetero_prior", self.prior)
        if self.as_published:
            object.__setattr__(self, "remainder", "drop")
        if self.text == "tokens" and self.text_encoder is None:
            raise ValueError(
                "a text encoder is asked for (tokens; use_bert in a config.json) and none is named. Name its folder "
                "with --text-encoder DIR, or take the features of the file with --text features."
            )
        if self.text == "features" and self.text_encoder is not None:
            raise ValueError("the text is to be features, and a text encoder is named. Leave one of the two out.")
        if not self.train and self.weights is None:
            raise ValueError("--no-train scores the weights that --weights names, and none are named. Name a file.")
        if self.dataset != "made" and self.root is None:
            raise ValueError(
                f"the numbers of {self.dataset} are asked for and no data is named. Give --data FILE or ROOT, or leave "
                "--dataset out for a made set."
            )
        return self

    @property
    def root(self) -> Path | None:
        """The data that is named, by its own flag or among the options."""
        named = self.data or self.options.get("mosi", {}).get("root")
        return None if named is None else Path(named)

    def described(self) -> dict[str, Any]:
        """What a run is replayed from: what came from a config.json stands in its own fields, options are complete."""
        from xmodal.data.mosi.dataset import MosiSettings

        found = {key: value for key, value in super().described().items() if key != "config"}
        options = MosiSettings.model_validate(self.options.get("mosi", {})).model_dump(mode="json")
        return {**found, "options": {**found["options"], "mosi": options}}

    def plan(self, modalities: tuple[str, ...]) -> Plan:
        """A bench on which all modalities are equal."""
        return Plan(data="mosi", teacher=modalities, student=modalities, training=self.training())

    def method(self, **changes: Any) -> DMDSettings:
        """The part that the method takes."""
        own = {name: getattr(self, name) for name in DMDSettings.model_fields}
        return DMDSettings(**{**own, **changes})

    def source(self) -> dict[str, Any]:
        """Options of the data."""
        own = dict(self.options.get("mosi", {}))
        if self.data is not None:
            own["root"] = str(located(self.data, self.dataset, self.alignment))
        own["text"] = self.text or ("tokens" if self.text_encoder else own.get("text", "features"))
        own |= {"modalities": self.modalities} if self.modalities else {}
        own |= {"as_published": True} if self.as_published else {}
        return own


def located(data: Path, dataset: str, alignment: str) -> Path:
    """The file that a path means: itself, or the pickle of this alignment below it."""
    name = f"{alignment}_50.pkl"
    below = [data / name, data / "Processed" / name]
    below += [data / of / "Processed" / name for of in ("MOSI", "MOSEI") if dataset in ("made", of.lower())]
    return next((path for path in below if path.is_file()), data)


def published() -> Settings:
    """The settings behind the reference figures: ten made sets, the method alone."""
    return Settings(seeds=tuple(range(10)), control=False)


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train everything, write the run folder, its tables and its page; return what `result.json` holds."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.dmd.tables import edge_figures, metric_table, write_files
    from xmodal.study.comparison import summarised

    with open_study(settings, "dmd", progress=progress) as study:
        # data and weights, and everything that can be refused before anything is written
        first = open_set(settings, settings.seeds[0])
        modalities = settings.modalities or first.info.modalities
        plan = settings.plan(modalities)
        weights = read_weights(settings)
        check(settings, plan, first, weights, study.fabric)
        study.start(fits=len(settings.seeds) * (1 + settings.control) * settings.train, name=f"dmd-{settings.dataset}")

        # the method and its control, once per seed; the test split of each is read when both are trained
        rows: list[dict[str, Any]] = []
        for seed in settings.seeds:
            data = first if seed == settings.seeds[0] or settings.root else open_set(settings, seed)
            bench = study.bench(plan, data, seed)
            train_both(bench, settings, weights)
            rows += bench.score(every=True, unscored=other_heads(bench))
            write_files(bench, study.folder / f"seed-{seed}")

        # report
        result = summarised(Comparison(plan=plan), data, rows, notes(settings), title=titled(settings))
        result |= {"teacher": [], "student": list(modalities), "tables": [metric_table(rows)]}
        result["figures"] |= edge_figures(study.folder, rows)
        references = references_for(RECIPES["dmd"], settings, result["figures"])
        result |= {"references": references} if references else {}
        if study.first:
            write_tables(settings, result, study.folder)
        return study.finish(result)


def write_tables(settings: Settings, result: Mapping[str, Any], out: Path) -> None:
    """`edges.csv`, `summary.csv` and, if asked for, `result.csv`."""
    from xmodal.recipes.dmd import tables

    tables.write_edges(out, result["rows"])
    tables.write_summary(out, result["rows"])
    if settings.result_csv:
        tables.write_published_result(out, result["rows"], METHOD)


def open_set(settings: Settings, seed: int) -> Data:
    """The data of a seed: a synthetic set is drawn from it, a file is the same for all."""
    data = open_data("mosi", options=settings.source(), seed=seed)
    if settings.select:
        lower = settings.select.lower() in ("mse", "mae")
        data.info = replace(data.info, select=(settings.select, "min" if lower else "max"))
    return data


def read_weights(settings: Settings) -> Mapping[str, Any] | None:
    """The state dict that training starts from; None where nothing is named."""
    from xmodal.models.dmd.authors_weights import read_published

    return None if settings.weights is None else read_published(settings.weights)


def build(bench: Bench, settings: Settings, weights: Mapping[str, Any] | None, **changes: Any) -> DMD:
    """The method, with the weights that were read in place of fresh ones."""
    from xmodal.models.dmd.authors_weights import load_published
    from xmodal.seeding import seeded

    card = METHODS["dmd"]
    options = settings.method(modalities=bench.teaching, **changes)
    with seeded(bench.seed, "method", card.name):
        method = cast("DMD", card.load()(bench, options))
    if weights is not None:
        load_published(method.network, weights, str(settings.weights), skip_text=settings.skip_text)
        method.measure_start(bench.batches("valid"))
    return method


def check(settings: Settings, plan: Plan, data: Data, weights: Mapping[str, Any] | None, fabric: Fabric) -> None:
    """Build everything once and throw it away: what can't be built, read or measured is told before training."""
    from xmodal.metrics.task import scalar_metrics
    from xmodal.study.bench import Rehearsal

    metrics = scalar_metrics(data.info)
    if data.info.select[0] not in metrics:
        raise InputError(
            f"There is no metric '{data.info.select[0]}' here. {did_you_mean(data.info.select[0], metrics)}"
        )
    build(Rehearsal(data, plan, seed=0, fabric=fabric), settings, weights)


def train_both(bench: Bench, settings: Settings, weights: Mapping[str, Any] | None) -> None:
    """The method, and from the same initial weights the control without distillation; or weights that are scored."""
    if not settings.train:
        bench.take(METHOD, build(bench, settings, weights), role="method")
        return
    bench.train(METHOD, build(bench, settings, weights), role="method")
    if settings.control:
        bench.train(CONTROL, build(bench, settings, weights, distil_weight=0.0), role="control")


def other_heads(bench: Bench) -> dict[str, Any]:
    """The heads that are not deployed, with their weights after the last epoch: their answers are kept, too."""
    from xmodal.methods.dmd import other_students

    return other_students(cast("DMD", bench.runs[METHOD].method))


def titled(settings: Settings) -> str:
    """What the page is called."""
    what = {"made": "a made set", "mosi": "MOSI", "mosei": "MOSEI"}[settings.dataset]
    if settings.dataset == "made" and settings.root:
        what = settings.root.name
    return f"DMD on {what}{', as published' if settings.as_published else ''}"


def notes(settings: Settings) -> list[str]:
    """What is worth knowing of these settings, in sentences."""
    notes = []
    if settings.config is not None and settings.config.is_file():
        notes += read_config(settings.config, settings.dataset).notes
    if settings.root is not None and settings.dataset == "made":
        notes.append(
            "The network is the small one of the made set; --dataset mosi or mosei takes the published numbers."
        )
    if settings.homo_prior == settings.hetero_prior == "reference" and settings.distil_weight:
        notes.append("Edges go where the prior points, whatever modality is the better one: it is set by the settings.")
    return notes

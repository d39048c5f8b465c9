"""DisCoM-KD: one training without a teacher, a student for each modality, and what each could have learned alone.

For every split (or seed): the method, and per modality two controls that learn from labels alone, one with the same
encoder (no-KD) and one as large as what is deployed. The authors' numbers: 300 epochs, batches of 128 per modality,
Adam 1e-4, LeNet or ResNet-18 by the size of the pictures, mirrored and turned in training, an epoch chosen for each
modality by weighted F1. Their tables could not be read; what should come out on the demo (digits with few labels, 5
seeds side by side, a quarter of a minute on a CPU) is a small gain over the same encoder, and none over a plain network
of the same size.

    xmodal run discom                      # the demo: width 64, 60 epochs, batches of 32, Adam 1e-3
    xmodal run discom DIR FIRST SECOND     # a folder with FIRST_data_normalized.npy, labels.npy, train_idx.npy, …
    xmodal run discom DIR FIRST SECOND --splits 0-4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from xmodal.data import DATA, open_data
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag
from xmodal.methods import METHODS
from xmodal.methods.settings import DisCoMSettings, DisCoMTerms
from xmodal.study.opening import open_study
from xmodal.study.plan import Comparison, Plan
from xmodal.study.references import against_references, read_references
from xmodal.study.settings import Options, RunSettings, Seeds

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.method import Method
    from xmodal.study.bench import Bench
    from xmodal.types import DataInfo

DEMO = "discom"
DEMO_DEFAULTS: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "width": 64,
    "seeds": (0, 1, 2, 3, 4),
    "threads": 1,
}
WITHOUT_AUGMENTATION = ("SPECTRO",)  # prefixes that the released code leaves as they are
SELECT = {"multiclass": ("weighted_f1", "max"), "regression": ("mae", "min")}


class Settings(DisCoMTerms, RunSettings):
    """One student per modality, without a teacher; without DIR the demo, with settings of its own (60 epochs, …)."""

    data: Annotated[str, Flag(metavar="DIR", positional=True)] = Field(
        DEMO, description="a folder in the method's format, or a data set's name"
    )
    modalities: Annotated[tuple[str, ...], Flag(metavar="FIRST SECOND …", positional=True)] = Field(
        (), description="two or more of its modalities; default: all"
    )
    epochs: int = Field(300, ge=1, description="passes over the training split (demo: 60)")
    batch_size: int = Field(128, ge=2, description="rows per step and modality (demo: 32)")
    learning_rate: float = Field(1e-4, gt=0, allow_inf_nan=False, description="step size of Adam (demo: 0.001)")
    seeds: Seeds = Field((0,), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3 (demo: 5)")
    splits: Seeds = Field((), description="numbered splits of DIR, as 0-4; the number is the seed too")
    encoder: str = Field("auto", description="network per modality, twice each; auto: by the shape of the samples")
    width: int | None = Field(None, ge=2, description="width D of the embeddings, even (demo: 64)")
    dropout: float = Field(0.0, ge=0, lt=1, description="in the encoders")
    augment: str = Field("published", description="published: pictures mirrored and turned; none; or as in compare")
    task: Literal["", "multiclass", "binary", "multilabel", "regression"] = Field(
        "multiclass", description="kind of target; empty: told by the labels"
    )
    select: str = Field("", description="metric that chooses the epoch; default: weighted_f1, for values mae")
    train_fraction: float = Field(1.0, gt=0, le=1, description="share of the training rows to use, class by class")
    independent: bool = Field(True, description="shuffle each modality by itself; --no-independent: row by row alike")
    control: bool = Field(True, description="train the two controls of each modality")
    together: bool = Field(True, description="train seeds or splits of small networks side by side")
    nan: Literal["refuse", "drop", "zero"] = Field("refuse", description="samples with NaN: stop, leave out, read as 0")
    allow_overlap: bool = Field(False, description="let a row be in two splits")
    published_files: bool = Field(True, description="write OUR-DisCoM-KD_<modality> into DIR, or below --out")
    overwrite: bool = Field(False, description="replace what an earlier run wrote there")
    options: Options = Field({}, description="options of data sets by their names")

    @model_validator(mode="before")
    @classmethod
    def _demo(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("data", DEMO) == DEMO:
            return {**DEMO_DEFAULTS, **given}
        return given

    @model_validator(mode="after")
    def _each_once(self) -> Settings:
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities {', '.join(self.modalities)}: expected two or more, each of them once.")
        if len(self.modalities) == 1:
            raise ValueError(f"modalities {self.modalities[0]}: expected two or more, and one was given.")
        if self.splits and self.seeds not in ((0,), DEMO_DEFAULTS["seeds"]):
            raise ValueError("splits and seeds: the number of a split is its seed. Give one of the two.")
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """One per training of everything: numbered splits, or seeds."""
        return self.splits or self.seeds

    def plan(self, modalities: tuple[str, ...]) -> Plan:
        """A bench on which all modalities are equal: each has a student of its own."""
        network = {"encoder": self.encoder, "width": self.width, "dropout": self.dropout}
        return Plan(
            data=self.data,
            task=self.task,
            teacher=modalities,
            student=modalities[-1:],
            training=self.training(),
            networks={"student": network},
        )

    def method(self, modalities: tuple[str, ...]) -> DisCoMSettings:
        """The part that the method takes."""
        return DisCoMSettings(modalities=modalities, **{name: getattr(self, name) for name in DisCoMTerms.model_fields})


def published() -> Settings:
    """The settings behind the reference figures: the demo with 20 splits."""
    return Settings(seeds=tuple(range(20)))


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train everything, write the run folder, its page and the published files; return what `result.json` holds."""
    from xmodal.recipes.discom.authors_files import files_in, refuse_existing, write_published
    from xmodal.study.comparison import summarised

    with open_study(settings, "discom", progress=progress) as study:
        # data, and everything that can be refused before anything is written
        first = open_turn(settings, settings.numbers[0])
        modalities = settings.modalities or first.info.modalities
        plan = settings.plan(modalities)
        method = check(settings, plan, first, study.fabric)
        files = files_in(settings.data, settings.out) if settings.published_files else None
        if files is not None and not (settings.overwrite or settings.resume):
            refuse_existing(files, modalities)

        # seeds or splits are trained side by side where networks are small, one after the other elsewhere
        turns = {settings.numbers[0]: first}
        groups, notes = grouped(settings, plan, turns, method, study.fabric)
        fits = len(groups) * (1 + len(modalities) * settings.control)
        study.start(fits=fits, name=f"discom-{Path(settings.data).name}")

        # the method and its controls; the test split of each seed is read when all of it is trained
        rows: list[dict[str, Any]] = []
        contents: list[dict[str, Any]] = []
        for numbers in groups:
            data = {number: turns.pop(number) if number in turns else open_turn(settings, number) for number in numbers}
            benches = [study.bench(plan, views, number) for number, views in data.items()]
            train_turns(settings, benches, modalities)
            for bench in benches:
                contents.append(described_branches(bench))
                rows += bench.score(every=True)
                notes += [f"{name}: {note}" for name, run in bench.runs.items() for note in run.notes]

        # report
        title = f"{settings.data}: DisCoM-KD{', released targets' if settings.domain_targets == 'released' else ''}"
        result = summarised(Comparison(plan=plan), data[numbers[-1]], rows, notes, title=title)
        result |= {"teacher": [], "student": list(modalities), "branches": merged(contents)}
        if settings.data == DEMO:
            result["references"] = against_references(result["figures"], read_references("discom.json"))
        if files is not None and study.first:
            result["published_files"] = write_published(files, study.folder, result, settings.described())
        return study.finish(result)


def open_turn(settings: Settings, number: int) -> Data:
    """The data of one split or seed."""
    options = dict(settings.options.get(settings.data, {}))
    if settings.data not in DATA:
        options |= {"modalities": settings.modalities} if settings.modalities else {}
        options |= {"nan": settings.nan, "allow_overlap": settings.allow_overlap, "repeated": "once", "renumber": True}
        options |= {"split": number} if settings.splits else {}
    elif settings.splits:
        raise InputError(
            f"--splits names numbered index files of a folder, and '{settings.data}' has none: use --seeds."
        )

    def opened(augment: str) -> Data:
        fraction = settings.train_fraction
        return open_data(
            settings.data, options=options, task=settings.task, train_fraction=fraction, augment=augment, seed=number
        )

    data = opened("" if settings.augment in ("published", "none") else settings.augment)
    data.info.require(settings.modalities, "command")
    if settings.augment == "published" and (augment := published_augmentation(data.info)):
        data = opened(augment)
    return as_asked(data, settings)


def as_asked(data: Data, settings: Settings) -> Data:
    """Data with the metric that chooses an epoch, its modalities taken apart unless they are to be shuffled alike."""
    metric, direction = SELECT.get(data.info.task, data.info.select)
    if settings.select:
        metric, direction = settings.select, "min" if settings.select in ("mse", "mae", "cross_entropy") else "max"
    data.info = replace(data.info, select=(metric, direction))
    return data.apart() if settings.independent and data.info.paired else data


def published_augmentation(info: DataInfo) -> str:
    """Pictures are mirrored and turned, each with probability one half; spectrograms are not."""
    names = [
        name
        for name, known in info.inputs.items()
        if known.layout == "image" and not name.upper().startswith(WITHOUT_AUGMENTATION)
    ]
    return ",".join(f"{name}.geometric:0.5" for name in names)


def check(settings: Settings, plan: Plan, data: Data, fabric: Fabric) -> Method:
    """Build everything once: what can't be built or measured is told before training."""
    from xmodal.metrics.task import scalar_metrics
    from xmodal.study.bench import Rehearsal

    metrics = scalar_metrics(data.info)
    if data.info.select[0] not in metrics:
        raise InputError(
            f"There is no metric called '{data.info.select[0]}' for {data.info.task}. "
            f"{did_you_mean(data.info.select[0], metrics)}"
        )
    return Rehearsal(data, plan, seed=0, fabric=fabric).rehearse(METHODS["discom"], settings.method(plan.teacher))


def grouped(
    settings: Settings, plan: Plan, turns: dict[int, Data], method: Method, fabric: Fabric
) -> tuple[list[tuple[int, ...]], list[str]]:
    """Splits or seeds that are trained side by side, and a note where several are not.

    ``turns`` holds the data of the first; that of the others is added where it had to be looked at.
    """
    from xmodal.study.side_by_side import apart_because, unlike

    numbers = settings.numbers
    if len(numbers) == 1 or not settings.together:
        return [(number,) for number in numbers], []
    reason = apart_because(method, turns[numbers[0]], plan, count=len(numbers), fabric=fabric)
    if not reason:
        turns.update((number, open_turn(settings, number)) for number in numbers[1:])
        reason = unlike(list(turns.values()))
    if not reason:
        return [numbers], []
    kind = "Splits" if settings.splits else "Seeds"
    return [(number,) for number in numbers], [f"{kind} were trained one by one, not side by side: {reason}."]


def train_turns(settings: Settings, benches: Sequence[Bench], modalities: tuple[str, ...]) -> None:
    """On each bench the method, and for each modality a control with the same encoder and one of the same size."""
    from xmodal.methods.supervised import Supervised
    from xmodal.study.bench import CONTROL, MATCHED
    from xmodal.study.side_by_side import train_side_by_side

    card, options = METHODS["discom"], settings.method(modalities)
    train_side_by_side(benches, card.name, [bench.build(card, options) for bench in benches], role="method")
    for name in modalities if settings.control else ():
        label = f"{CONTROL}: {name}"
        plain = [Supervised(bench.network((name,)), bench.info) for bench in benches]
        train_side_by_side(benches, label, plain, role="control")
        like = benches[0].network((name,))
        students = [bench.runs[card.name].students[name] for bench in benches]
        width = benches[0].width_as_large(students[0], like=like)  # equal networks: the same for all of them
        if width is None:
            continue
        larger = [bench.as_large(each, like=like, width=width) for bench, each in zip(benches, students, strict=True)]
        benches[0].progress.expect()
        matched = f"{label}, width {width}"
        train_side_by_side(benches, matched, larger, role=MATCHED)
        for bench in benches:
            bench.matched[f"{card.name}: {name}"] = matched


def described_branches(bench: Bench) -> dict[str, Any]:
    """What the parts of the embeddings contain after the last epoch, probed on the validation split; and a picture."""
    from dataclasses import asdict

    from xmodal.diagnostics.branches import embed_batches, measure_branches, picture
    from xmodal.methods.discom import DisCoM

    method = bench.runs["discom"].method
    assert isinstance(method, DisCoM)
    content = measure_branches(method.each, method.heads, bench.batches("train"), bench.batches("valid"))
    drawn = picture(embed_batches(method.each, bench.batches("valid")))
    return {"content": asdict(content), "modalities": len(method.each), **drawn}


def merged(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over splits or seeds, and the picture of the first."""
    first = contents[0]
    means = {
        group: {key: sum(each["content"][group][key] for each in contents) / len(contents) for key in values}
        for group, values in first["content"].items()
    }
    return {**first, "content": means, "seeds": len(contents)}

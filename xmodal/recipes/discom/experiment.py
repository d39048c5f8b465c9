"""DisCoM-KD: one training without a teacher, a student for each modality, and two controls for each student.

For every split (or seed): the method, and per modality two controls trained on labels alone, one with the same encoder
(no-KD) and one of the size of the deployed student. The authors' numbers: 300 epochs, batches of 128 per modality, Adam
1e-4, LeNet or ResNet-18 by the size of the images, random flips and rotations in training, the epoch of each modality
selected by weighted F1. Their tables could not be read. Expected on the demo (digits with few labels, 5 seeds side by
side, a quarter of a minute on a CPU): a small gain over the same encoder, none over a plain network of the same size.

    xmodal run discom                      # the demo: width 64, 60 epochs, batches of 32, Adam 1e-3
    xmodal run discom DIR FIRST SECOND     # a folder with FIRST_data_normalized.npy, labels.npy, train_idx.npy, …
    xmodal run discom DIR FIRST SECOND --splits 0-4
    xmodal run discom DIR FIRST SECOND --weights DIR --no-train     # scores the authors' weights
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from xmodal.data import DATA, open_data
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag
from xmodal.methods import METHODS
from xmodal.methods.settings import DisCoMSettings, DisCoMTerms
from xmodal.recipes.discom.encoders import chosen_encoders, note_on_encoders, unknown_encoders
from xmodal.study.opening import open_study
from xmodal.study.plan import Comparison, Plan
from xmodal.study.references import paired_figures, references_for
from xmodal.study.settings import Options, RowFlags, RunSettings, Seeds

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.method import Method
    from xmodal.methods.discom import DisCoM
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
# Prefixes of the modalities that the released code does not augment: in a mirrored spectrogram time runs backwards.
WITHOUT_AUGMENTATION = ("SPECTRO",)
SELECT = {"multiclass": ("weighted_f1", "max"), "regression": ("mae", "min")}


class Settings(DisCoMTerms, RowFlags, RunSettings):
    """One student per modality, without a teacher; without DIR the demo, which has its own defaults (60 epochs, …)."""

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
    splits: Seeds = Field((), description="numbered splits of DIR, as 0-4; the number is also the seed")
    encoder: str = Field(
        "published",
        description="encoder of each modality, built twice: published (known names as in the authors' code, others "
        "by the shape of samples), auto (all by shape), one for all, or one for each: RGB=resnet18,DEPTH=lenet",
    )
    width: int | None = Field(None, ge=2, description="width D of the embeddings, even (demo: 64)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in the encoders")
    augment: str = Field("published", description="published: images flipped and rotated; none; or as in compare")
    task: Literal["", "multiclass", "binary", "multilabel", "regression"] = Field(
        "multiclass", description="kind of target; empty: inferred from the labels"
    )
    select: str = Field("", description="metric that selects the epoch; default: weighted_f1, for regression mae")
    independent: bool = Field(True, description="shuffle each modality by itself; --no-independent: in pairs")
    control: bool = Field(True, description="train the two controls of each modality")
    together: bool = Field(True, description="train seeds or splits of small networks side by side")
    weights: Path | None = Field(
        None,
        description="WEIGHTS.pth of the authors' code to start from, or a folder with OUR-DisCoM-KD_<modality>/: each "
        "modality from its own file",
    )
    train: bool = Field(True, description="train; --no-train: only score --weights")
    nan: Literal["refuse", "drop", "zero"] = Field(
        "refuse", description="samples with NaN: an error, left out, or read as 0"
    )
    allow_overlap: bool = Field(False, description="accept rows that are in two splits")
    published_files: bool = Field(True, description="write folders OUR-DisCoM-KD_<modality> to DIR, or to --out")
    overwrite: bool = Field(False, description="overwrite the folders that an earlier run wrote there")
    options: Options = Field({}, description="options of data sets, by name")

    @model_validator(mode="before")
    @classmethod
    def _demo(cls, given: Any) -> Any:
        # the demo must end within a minute, so its numbers are not the authors'
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
            raise ValueError("splits and seeds: the number of a split is also its seed. Give one of the two.")
        if problems := unknown_encoders(self.encoder):
            raise ValueError(" ".join(problems))
        if not self.train and self.weights is None:
            raise ValueError("--no-train scores the weights of a file, and no file is named. Name it with --weights.")
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the splits, or else the seeds: one for each training of method and controls."""
        return self.splits or self.seeds

    def plan(self, modalities: tuple[str, ...], info: DataInfo) -> Plan:
        """Data, networks and training for a bench; every modality has a student."""
        network = {
            "encoder": chosen_encoders(self.encoder, modalities, info),
            "width": self.width,
            "dropout": self.dropout,
        }
        return Plan(
            data=self.data,
            task=self.task,
            teacher=modalities,
            student=modalities[-1:],
            training=self.training(),
            networks={"student": network},
        )

    def method(self, modalities: tuple[str, ...]) -> DisCoMSettings:
        """The fields that the method takes."""
        return DisCoMSettings(modalities=modalities, **{name: getattr(self, name) for name in DisCoMTerms.model_fields})


def published() -> Settings:
    """The settings of the reference figures: the demo with 20 splits."""
    return Settings(seeds=tuple(range(20)))


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train and score everything, write the run folder, its page and the authors' files; return the result."""
    from xmodal.recipes import RECIPES
    from xmodal.recipes.discom.authors_files import files_in, refuse_existing, write_published
    from xmodal.study.comparison import summarised

    card = RECIPES["discom"]
    with open_study(settings, card.name, progress=progress) as study:
        # data of the first split or seed, and all checks: nothing is written yet
        first = open_split(settings, settings.numbers[0])
        modalities = settings.modalities or first.info.modalities
        plan = settings.plan(modalities, first.info)
        method = check(settings, plan, first, study.fabric)
        # weights that are only scored exist already
        wanted = settings.published_files and settings.train
        files = files_in(settings.data, settings.out) if wanted else None
        if files is not None and not (settings.overwrite or settings.resume):
            refuse_existing(files, modalities)

        # small networks are trained side by side, all splits or seeds in one group; others one after the other
        opened = {settings.numbers[0]: first}
        groups, notes = grouped(settings, plan, opened, method, study.fabric)
        notes = [*note_on_encoders(settings.encoder, modalities, first.info), *notes]
        fits = len(groups) * (1 + len(modalities) * settings.control) * settings.train
        study.start(fits=fits, name=f"discom-{Path(settings.data).name}")

        # the method and its controls; the test split of a seed is read when everything of it is trained
        rows: list[dict[str, Any]] = []
        contents: list[dict[str, Any]] = []
        for numbers in groups:
            data = {
                number: opened.pop(number) if number in opened else open_split(settings, number) for number in numbers
            }
            benches = [study.bench(plan, part, number) for number, part in data.items()]
            train_group(settings, benches, modalities)
            for bench in benches:
                contents.append(described_branches(bench))
                rows += bench.score(every=True)
                notes += [f"{name}: {note}" for name, run in bench.runs.items() for note in run.notes]

        # report
        title = f"{settings.data}: DisCoM-KD{', released targets' if settings.domain_targets == 'released' else ''}"
        result = summarised(Comparison(plan=plan), data[numbers[-1]], rows, notes, title=title)
        result |= {"teacher": [], "student": list(modalities), "branches": merged(contents)}
        result |= paired_figures(result)
        result["figures"] |= branch_figures(result["branches"]["content"])
        if references := references_for(card, settings, result["figures"], result["standard_errors"]):
            result["references"] = references
        if files is not None and study.first:
            result["published_files"] = write_published(files, study.folder, result, settings.described())
        return study.finish(result)


def open_split(settings: Settings, number: int) -> Data:
    """The data of one numbered split, or of one seed."""
    options = dict(settings.options.get(settings.data, {}))
    if settings.data not in DATA:
        options |= {"modalities": settings.modalities} if settings.modalities else {}
        options |= {"nan": settings.nan, "allow_overlap": settings.allow_overlap, "repeated": "once"}
        options |= {"split": number} if settings.splits else {}
    elif settings.splits:
        raise InputError(
            f"--splits names numbered index files of a folder, and '{settings.data}' has none: use --seeds."
        )
    request: dict[str, Any] = {"options": options, "task": settings.task, **settings.request()}
    augment = "" if settings.augment in ("published", "none") else settings.augment
    data = open_data(settings.data, augment=augment, seed=number, **request)
    data.info.require(settings.modalities, "command")
    # which modalities are images is known only now, so the data is opened again with their augmentation
    if settings.augment == "published" and (augment := published_augmentation(data.info)):
        data = open_data(settings.data, augment=augment, seed=number, **request)
    return prepared(data, settings)


def prepared(data: Data, settings: Settings) -> Data:
    """The data with the metric that selects an epoch, and unpaired unless its modalities are shuffled in pairs."""
    metric, direction = SELECT.get(data.info.task, data.info.select)
    if settings.select:
        metric, direction = settings.select, "min" if settings.select in ("mse", "mae", "cross_entropy") else "max"
    data.info = replace(data.info, select=(metric, direction))
    # the released code shuffles the rows of each modality by themselves: no loss compares the rows of a pair
    return data.apart() if settings.independent and data.info.paired else data


def published_augmentation(info: DataInfo) -> str:
    """Augmentation of the images among the modalities: random flips and rotations with probability one half."""
    names = [
        name
        for name, details in info.inputs.items()
        if details.layout == "image" and not name.upper().startswith(WITHOUT_AUGMENTATION)
    ]
    return ",".join(f"{name}.geometric:0.5" for name in names)


def check(settings: Settings, plan: Plan, data: Data, fabric: Devices) -> Method:
    """Build the method once, so that an error in it, or in the name of the metric, appears before training."""
    from xmodal.metrics.task import scalar_metrics
    from xmodal.recipes.discom.authors_files import start_from
    from xmodal.study.rehearsal import Rehearsal

    metrics = scalar_metrics(data.info)
    if data.info.select[0] not in metrics:
        raise InputError(
            f"There is no metric called '{data.info.select[0]}' for {data.info.task}. "
            f"{did_you_mean(data.info.select[0], metrics)}"
        )
    method = Rehearsal(data, plan, seed=0, fabric=fabric).rehearse(METHODS["discom"], settings.method(plan.teacher))
    if settings.weights is not None:
        start_from(cast("DisCoM", method), settings.weights)
    return method


def grouped(
    settings: Settings, plan: Plan, opened: dict[int, Data], method: Method, fabric: Devices
) -> tuple[list[tuple[int, ...]], list[str]]:
    """Groups of splits or seeds that are trained side by side, and a note if they can't be one group.

    Args:
        settings: of the recipe.
        plan: of the benches.
        opened: number → data; holds that of the first, and receives that of the others if it has to be compared.
        method: of the first split or seed.
        fabric: started devices.
    """
    from xmodal.study.side_by_side import apart_because, unlike

    numbers = settings.numbers
    if len(numbers) == 1 or not settings.together:
        return [(number,) for number in numbers], []
    reason = apart_because(method, opened[numbers[0]], plan, count=len(numbers), fabric=fabric)
    # data is compared last: opening all of it is the expensive check
    if not reason:
        opened.update((number, open_split(settings, number)) for number in numbers[1:])
        reason = unlike(list(opened.values()))
    if not reason:
        return [numbers], []
    kind = "Splits" if settings.splits else "Seeds"
    return [(number,) for number in numbers], [f"{kind} were trained one by one, not side by side: {reason}."]


def train_group(settings: Settings, benches: Sequence[Bench], modalities: tuple[str, ...]) -> None:
    """Train on each bench the method, and per modality a control with the same encoder and one of the same size."""
    from xmodal.methods.supervised import Supervised
    from xmodal.recipes.discom.authors_files import start_from
    from xmodal.study.bench import CONTROL, MATCHED
    from xmodal.study.side_by_side import train_side_by_side

    card, options = METHODS["discom"], settings.method(modalities)
    methods = [bench.build(card, options) for bench in benches]
    if settings.weights is not None:
        for method in methods:
            start_from(cast("DisCoM", method), settings.weights)
    if not settings.train:
        for bench, method in zip(benches, methods, strict=True):
            bench.take(card.name, method, role="method")
        return
    train_side_by_side(benches, card.name, methods, role="method")
    for name in modalities if settings.control else ():
        label = f"{CONTROL}: {name}"
        plain = [Supervised(bench.network((name,)), bench.info) for bench in benches]
        train_side_by_side(benches, label, plain, role="control")

        # a deployed student has two encoders, so the fair comparison is a plain network of its size
        like = benches[0].network((name,))
        students = [bench.runs[card.name].students[name] for bench in benches]
        # the networks of all seeds have the same shapes, so the width of the first one fits all
        width = benches[0].width_as_large(students[0], like=like)
        if width is None:
            continue
        larger = [bench.as_large(each, like=like, width=width) for bench, each in zip(benches, students, strict=True)]
        benches[0].progress.expect()
        matched = f"{label}, width {width}"
        train_side_by_side(benches, matched, larger, role=MATCHED)
        for bench in benches:
            bench.matched[f"{card.name}: {name}"] = matched


def described_branches(bench: Bench) -> dict[str, Any]:
    """The content of the parts of the embeddings after the last epoch, probed on the validation split, and a plot."""
    from dataclasses import asdict

    from xmodal.diagnostics.branches import embed_batches, measure_branches, picture
    from xmodal.methods.discom import DisCoM

    method = bench.runs["discom"].method
    assert isinstance(method, DisCoM)
    content = measure_branches(method.each, method.heads, bench.batches("train"), bench.batches("valid"))
    plot = picture(embed_batches(method.each, bench.batches("valid")))
    return {"content": asdict(content), "modalities": len(method.each), **plot}


def branch_figures(content: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The content of the parts as figures: ``head adversary`` → accuracy in per cent, ``cosine invariant`` → cosine.

    A network without the terms of the method has heads at the level of chance and parts that are not orthogonal.
    """
    heads = {f"head {name}": 100.0 * accuracy for name, accuracy in content["heads"].items()}
    return heads | {f"cosine {name}": value for name, value in content["cosines"].items()}


def merged(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over splits or seeds, and the plot of the first."""
    first = contents[0]
    means = {
        group: {key: sum(each["content"][group][key] for each in contents) / len(contents) for key in values}
        for group, values in first["content"].items()
    }
    return {**first, "content": means, "seeds": len(contents)}

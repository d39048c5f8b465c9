"""The command lines of the authors' `main_overlap_tag.py` (MFH) and `main.py` (NTDH) on RAVDESS.

    python main_overlap_tag.py --place 5 --num-permute 10 --first_time --cal_tag
    python main_overlap_tag.py --ratio 0.75 --mode 1 --eval_tag

become, with the same flags and with - or _ in any of them,

    xmodal run ravdess-original --place 5 --num-permute 10 --first_time --cal_tag
    xmodal run ravdess-original --ratio 0.75 --mode 1 --eval_tag

and `python main.py --distill hint` of NTDH becomes

    xmodal run ravdess-original --system ntdh --distill hint

| flag | what it runs |
|---|---|
| --first-time, --cal-tag | `ravdess-saliency`; it writes the authors' three files to --results |
| --eval-tag | `ravdess --saliency RESULTS`, with our files or theirs: the teacher, and the tag for modes 1 and 2 |
| --system ntdh | the defaults of NTDH's `main.py`: 40 epochs, mode 0, hint, evaluation on, removed channels are 0 |
| --distill NAME | the same, with this loss |
| --batch-size2 | nothing: channels are permuted over all training clips, not within batches |

Random numbers are ours, and seeded; the authors' code sets no seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.recipes.ravdess import experiment, saliency
from xmodal.recipes.ravdess.settings import MODALITIES, SMALL
from xmodal.study.channels import MODES
from xmodal.study.settings import Presets

NARROW = ("teacher_width", "student_width", "hidden", "channels")
WHOLE = 100_000  # rows of a batch that holds any split of RAVDESS, which has 1440 clips of speech


class Settings(Presets):
    """The authors' flags for RAVDESS, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # the defaults of NTDH's main.py; --distill is a flag of that script alone
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "mfh": {},
        "ntdh": {
            "system": "ntdh",
            "num_epochs": 40,
            "batch_size2": 256,
            "mode": 0,
            "eval_tag": True,
            "distill": "hint",
        },
    }
    SOURCES: ClassVar[tuple[str, ...]] = ("system", "distill")

    system: Literal["mfh", "ntdh"] = Field(
        "mfh", description="whose script: main_overlap_tag.py of MFH, or main.py of NTDH"
    )
    gpu: int = Field(0, description="negative: the CPU; otherwise a GPU if there is one")
    stu_type: int = Field(0, ge=0, le=1, description="modality of the student: 0 image, 1 audio")
    num_runs: int = Field(1, ge=1, description="number of students")
    num_epochs: int = Field(100, ge=1, description="epochs of each training")
    batch_size: int = Field(64, description="rows per step; 0 or less: the whole split")
    batch_size2: int = Field(512, description="rows per batch of the saliency; has no effect here")
    num_workers: int = Field(0, ge=0, description="processes that load data; the authors' default is 10")
    lr: float = Field(0.01, gt=0, description="step size of gradient descent with momentum 0.9")
    num_permute: int = Field(10, ge=1, description="permutations per channel")
    first_time: bool = Field(False, description="train both networks jointly; otherwise they are read from --results")
    cal_tag: bool = Field(False, description="rank the channels")
    eval_tag: bool = Field(False, description="train students of the teacher without some channels")
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels to remove")
    place: int = Field(5, ge=0, le=6, description="layer of the channels")
    mode: int = Field(
        1, le=2, description="0 random, 1 least salient removed, 2 most salient; negative: nothing removed"
    )
    gt_weight: float = Field(0.0, ge=0, description="weight of the loss of the labels")
    pl_weight: float = Field(1.0, ge=0, description="weight of the distillation loss")
    distill: Literal["", "kl", "kd", "hint", "rkd", "pkt", "similarity", "dkd"] = Field(
        "", description="loss of NTDH's code, kd for kl; empty: that of MFH"
    )
    # flags that the authors' scripts do not have
    data: Path = Field(Path("data"), description="folder with aud_features, vid_features and data_file")
    results: Path = Field(Path("results"), description="folder of the authors' files")
    teacher_weights: Path | None = Field(
        None, description="file of a teacher that was trained alone, in place of the one in --results"
    )
    seed: int = Field(0, ge=0, description="seed of the first student")
    narrow: bool = Field(False, description="networks of 0.1 million parameters, to try things on a CPU")
    as_published: bool = Field(False, description="read data, fill channels and compute hint as the authors' code does")

    @model_validator(mode="after")
    def _one_script(self) -> Settings:
        if self.distill and self.system == "mfh":
            raise ValueError("--distill is a flag of NTDH's main.py: give --system ntdh, or leave it out.")
        return self

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the script that the flags belong to."""
        return cls.preset_values("ntdh" if given.get("distill") else given.get("system") or "mfh")

    def shared(self) -> dict[str, Any]:
        """Settings of both recipes."""
        teacher, student = MODALITIES[1 - self.stu_type], MODALITIES[self.stu_type]
        return {
            "preset": self.system,
            "teacher": (teacher,),
            "student": (student,),
            "place": self.place,
            "permutations": self.num_permute,
            "distance": "mse",
            "epochs": self.num_epochs,
            "batch_size": self.batch_size if self.batch_size > 0 else WHOLE,
            "learning_rate": self.lr,
            "workers": self.num_workers,
            "accelerator": "cpu" if self.gpu < 0 else "auto",
            "as_published": self.as_published,
            "options": {"ravdess": {"root": str(self.data)}},
            **({name: SMALL[name] for name in NARROW} if self.narrow else {}),
        }

    @property
    def _folder(self) -> Path | None:
        """The folder of the ranking; None: a given teacher, and channels that need no ranking."""
        return None if self.teacher_weights is not None and self.mode < 1 else self.results

    def ranking(self) -> saliency.Settings:
        """Settings of joint training and saliency."""
        networks = None if self.first_time else self.results
        return saliency.Settings(
            **self.shared(), seeds=(self.seed,), networks=networks, share=0.25, published_files=True
        )

    def students(self) -> experiment.Settings:
        """Settings of the students of the teacher without some channels."""
        modes = {number: mode for mode, number in MODES.items()}
        return experiment.Settings(
            **self.shared(),
            **({"loss": (self.distill,)} if self.distill else {}),
            seeds=tuple(range(self.seed, self.seed + self.num_runs)),
            # their code takes any negative number for no removal
            mode=(modes[str(max(self.mode, -1))],),
            ratio=self.ratio,
            task_weight=self.gt_weight,
            kd_weight=self.pl_weight,
            teacher_weights=self.teacher_weights,
            saliency=self._folder,
        )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run the stages of the flags in their order, and return the result of the last one."""
    if not (settings.first_time or settings.cal_tag or settings.eval_tag):
        raise InputError("These flags run no stage: add --first-time and --cal-tag, or --eval-tag.")
    result: dict[str, Any] = {}
    if settings.first_time or settings.cal_tag:
        result = saliency.run(settings.ranking(), progress=progress)
        copy_files(Path(result["folder"]) / f"seed-{settings.seed}", settings)
    if settings.eval_tag:
        result = experiment.run(settings.students(), progress=progress)
    return result


def copy_files(folder: Path, settings: Settings) -> None:
    """Copy the authors' files of a run to the folder in which their code looks for them."""
    settings.results.mkdir(parents=True, exist_ok=True)
    patterns = ["*_overlap.pkl"] * settings.first_time + ["overlap_tag_*.npy"] * settings.cal_tag
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.copyfile(path, settings.results / path.name)

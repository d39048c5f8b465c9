"""The command line of the authors' `main.py` of NTDH on MNIST and MNIST-M, with their flags and defaults.

    python main.py --first-time --cal_tag
    python main.py --distill similarity --mode 1 --ratio 0.75

become, with the same flags and with - or _ in any of them,

    xmodal run ntdh-mnist-original --first-time --cal_tag
    xmodal run ntdh-mnist-original --distill similarity --mode 1 --ratio 0.75

| flag | what it runs |
|---|---|
| --first-time, --cal-tag | `ntdh-mnist --until saliency`; it writes the authors' three files to --results |
| --eval-tag (the default) | `ntdh-mnist --saliency RESULTS`: the teacher's file, and for modes 1 and 2 the ranking |
| --base-line | nothing more: the student that learns from labels alone, no-KD, is a row of every table |
| --heat-map | nothing more: heat maps are on every page |
| --num-permute | nothing: a channel is set to zero, not permuted; the number is part of a file's name |

Without --first-time the networks are read from --results. Their code takes the sizes of the pictures and the constants
of CRD as flags too; other values than theirs have no effect there, and are accepted here. Random numbers are ours, and
seeded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.recipes.ntdh_synthetic import mnist
from xmodal.study.channels import MODES

NO_EFFECT = "has no effect, as in the authors' code"


class Settings(BaseModel):
    """The authors' flags for MNIST, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(28, ge=28, le=28, description="width and height of a picture")
    noise_level: float = Field(1.0, ge=0, description="level of the noise on MNIST-M; four times that on MNIST")
    gpu: int = Field(0, description="negative: the CPU; otherwise a GPU if there is one")
    stu_type: int = Field(0, ge=0, le=1, description="modality of the student: 0 MNIST-M, 1 MNIST")
    num_runs: int = Field(1, ge=1, description="number of students")
    num_epochs: int = Field(50, ge=1, description="epochs of each training")
    batch_size: int = Field(128, ge=2, description="rows per step")
    num_workers: int = Field(0, ge=0, description="processes that load data; the authors' default is 10")
    lr: float = Field(1e-3, gt=0, description="step size of gradient descent with momentum 0.9")
    num_permute: int = Field(10, ge=1, description="part of the name of the ranking's file")
    first_time: bool = Field(False, description="train both networks jointly; otherwise they are read from --results")
    cal_tag: bool = Field(False, description="rank the channels")
    eval_tag: bool = Field(True, description="train students of the teacher without some channels")
    base_line: bool = Field(False, description="has no effect: the row no-KD is in every table")
    heat_map: bool = Field(False, description="has no effect: heat maps are on every page")
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the channels to remove")
    place: int = Field(1, ge=0, le=3, description="layer of the channels")
    mode: int = Field(
        2, le=2, description="0 random, 1 least salient removed, 2 most salient; negative: nothing removed"
    )
    gt_weight: float = Field(0.5, ge=0, description="weight of the loss of the labels")
    pl_weight: float = Field(0.5, ge=0, description="weight of the distillation loss")
    distill: Literal["kl", "kd", "hint", "rkd", "pkt", "similarity", "dkd", "crd"] = Field(
        "similarity", description="distillation loss, kd for kl"
    )
    feat_dim: int = Field(32, description=NO_EFFECT)
    nce_k: int = Field(10_000, description=NO_EFFECT)
    nce_t: float = Field(0.07, description=NO_EFFECT)
    nce_m: float = Field(0.5, description=NO_EFFECT)
    n_data: int = Field(60_000, description=NO_EFFECT)
    s_dim: int = Field(10, description=NO_EFFECT)
    t_dim: int = Field(10, description=NO_EFFECT)
    # flags that the authors' script does not have
    data: Path = Field(Path(), description="folder with MNIST/mnist_data.pkl and MNIST_M/mnist_m_data.pkl")
    results: Path = Field(Path("results"), description="folder of the authors' files")
    seed: int = Field(0, ge=0, description="seed of the first student")
    narrow: bool = Field(False, description="networks of a few channels, to try things on a CPU")
    as_published: bool = Field(False, description="every difference of their code, see `ntdh-mnist --as-published`")

    def shared(self) -> dict[str, Any]:
        """Settings of both stages."""
        sides = ("mnist", "mnist_m") if self.stu_type == 0 else ("mnist_m", "mnist")
        modes = {number: mode for mode, number in MODES.items()}
        width = 16 if self.narrow else 256
        return {
            "preset": "published",
            "teacher": sides[:1],
            "student": sides[1:],
            "teacher_width": width,
            "student_width": width,
            "place": self.place,
            "distill": (self.distill,),
            # their code takes any negative number for no removal
            "modes": (modes[str(max(self.mode, -1))],),
            "ratio": self.ratio,
            "task_weight": self.gt_weight,
            "kd_weight": self.pl_weight,
            "epochs": self.num_epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.lr,
            "workers": self.num_workers,
            "accelerator": "cpu" if self.gpu < 0 else "auto",
            "as_published": self.as_published,
            "options": {"mnist": {"root": str(self.data), "noise": self.noise_level}},
        }

    def ranking(self) -> mnist.Settings:
        """Settings of joint training and ranking."""
        networks = None if self.first_time else self.results
        return mnist.Settings(
            **self.shared(), until="saliency", seeds=(self.seed,), networks=networks, published_files=True
        )

    def students(self) -> mnist.Settings:
        """Settings of the students of the teacher without some channels."""
        seeds = tuple(range(self.seed, self.seed + self.num_runs))
        return mnist.Settings(**self.shared(), seeds=seeds, saliency=self.results)


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run the stages of the flags in their order, and return the result of the last one."""
    if not (settings.first_time or settings.cal_tag or settings.eval_tag):
        raise InputError("These flags run no stage: add --first-time and --cal-tag, or leave --no-eval-tag out.")
    result: dict[str, Any] = {}
    if settings.first_time or settings.cal_tag:
        result = mnist.run(settings.ranking(), progress=progress)
        copy_files(Path(result["folder"]) / f"seed-{settings.seed}", settings)
    if settings.eval_tag:
        result = mnist.run(settings.students(), progress=progress)
    return result


def copy_files(folder: Path, settings: Settings) -> None:
    """Copy the authors' files of a run to the folder in which their code looks for them."""
    from xmodal.recipes.ntdh_synthetic.mnist_files import tag_name

    settings.results.mkdir(parents=True, exist_ok=True)
    names = {path.name: path.name for path in folder.glob("*_overlap.pkl") if settings.first_time}
    if settings.cal_tag:
        names[tag_name(settings.place)] = tag_name(settings.place, settings.num_permute)
    for ours, theirs in names.items():
        shutil.copyfile(folder / ours, settings.results / theirs)

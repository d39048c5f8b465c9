"""The command lines of the authors' VGGSound scripts, one for each folder of their code.

    cd audio            && python main_audio.py
    cd video            && python main_audio.py
    cd modality_general && python cal_overlap_permute.py --a_ckpt A --v_ckpt V
    cd mfh_kd           && python -m torch.distributed.launch --nproc_per_node 2 python main.py --a_ckpt A

each with --train_dataset TRAIN --test_dataset TEST, become, with the same flags, with - or _ in any of them, and with
the name of the folder as the stage,

    xmodal run vggsound-original --stage audio
    xmodal run vggsound-original --stage video
    xmodal run vggsound-original --stage modality_general --a_ckpt A --v_ckpt V
    xmodal run vggsound-original --stage mfh_kd --a_ckpt A --modality_general audio_permute.npy

| stage | what it runs | the authors' files that it writes to --out-dir |
|---|---|---|
| audio | `vggsound --until teacher` | audio_{epoch}_{accuracy}.pt |
| video | `vggsound --start video --until video` | video_{epoch}_{accuracy}.pt |
| modality_general | `vggsound --start saliency --until saliency` | audio_permute.npy |
| mfh_kd | `vggsound --start students` | video_{epoch}_{accuracy}.pt |

Their code writes a checkpoint after every epoch; here it is that of the best epoch on a part of the training clips, or
of the last with --as-published. Their mfh_kd removes the last channels whatever the saliency; here the least salient
are removed, and the last with --as-published. Random numbers are ours, and seeded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.recipes.vggsound import experiment
from xmodal.recipes.vggsound.settings import SMALL

STAGES = {  # the authors' folder → first and last stage of `vggsound`, and the default of --out-dir
    "audio": ("teacher", "teacher", "ckpt"),
    "video": ("video", "video", "ckpt"),
    "modality_general": ("saliency", "saliency", "."),
    "mfh_kd": ("students", "students", "close_permute_overlap_50"),
}
NEEDED = {"modality_general": ("a_ckpt", "v_ckpt"), "mfh_kd": ("a_ckpt", "modality_general")}
FLAGS = {"a_ckpt": "--a_ckpt", "v_ckpt": "--v_ckpt", "modality_general": "--modality_general"}
NARROW = {"teacher_width": 16, "student_width": 16}


class Settings(BaseModel):
    """The authors' flags for VGGSound, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["", "audio", "video", "modality_general", "mfh_kd"] = Field(
        "", description="folder of the authors' code whose script is run"
    )
    train_dataset: Path | None = Field(None, description="folder of the training clips")
    test_dataset: Path | None = Field(None, description="folder of the test clips")
    batch_size: int = Field(32, ge=2, description="rows per step, over all processes together")
    epoch: int = Field(50, ge=1, description="epochs of each training")
    lr: float = Field(1e-3, gt=0, description="step size of AdamW")
    nb_workers: int = Field(0, ge=0, description="processes that load data; their default is 16")
    nb_class: int = Field(0, ge=0, description="number of classes, the first by name; 0: all of the labels")
    nb_frames: int = Field(32, ge=1, description="frames of a clip")
    local_rank: int = Field(0, description="has no effect here: --devices of `xmodal run vggsound` starts processes")
    out_dir: Path | None = Field(
        None, description="folder of the authors' files; None: ckpt, this folder, or close_permute_overlap_50"
    )
    a_ckpt: Path | None = Field(None, description="checkpoint of the sound network")
    v_ckpt: Path | None = Field(None, description="checkpoint of the video network; with mfh_kd, a row to compare with")
    modality_general: Path | None = Field(None, description="saliency of the channels, audio_permute.npy")
    # flags that the authors' scripts do not have
    labels: Path | None = Field(None, description="file with the index of each class; None: see the data")
    seconds: float | None = Field(None, gt=0, description="length of a clip; None: 10")
    ratio: float = Field(0.5, gt=0, lt=1, description="share of the channels to remove")
    seed: int = Field(0, ge=0, description="of initial weights and batches")
    gpu: int = Field(0, description="negative: the CPU; otherwise a GPU if there is one")
    narrow: bool = Field(False, description="networks of 0.1 million parameters, to try things on a CPU")
    as_published: bool = Field(False, description="every difference of their code, see `vggsound --as-published`")

    def experiment(self) -> experiment.Settings:
        """Settings of `vggsound` for one stage."""
        start, until, _ = STAGES[self.stage]
        small = {name: SMALL["options"]["vggsound"][name] for name in ("window", "hop")} if self.narrow else {}
        options = {
            **({"train": self.train_dataset} if self.train_dataset else {}),
            **({"test": self.test_dataset} if self.test_dataset else {}),
            "frames": self.nb_frames,
            **({"classes": str(self.nb_class)} if self.nb_class else {}),
            **({"labels": self.labels} if self.labels else {}),
            **({"seconds": self.seconds} if self.seconds else {}),
            **small,
        }
        return experiment.Settings(
            start=start,
            until=until,
            teacher_weights=self.a_ckpt if self.stage in ("modality_general", "mfh_kd") else None,
            video_weights=self.v_ckpt if self.stage in ("modality_general", "mfh_kd") else None,
            saliency=self.modality_general if self.stage == "mfh_kd" else None,
            # their script trains one student, without the last channels whatever their saliency
            remove=("index",) if self.as_published else ("least",),
            ratio=(self.ratio,),
            shuffled=False,
            epochs=self.epoch,
            batch_size=self.batch_size,
            learning_rate=self.lr,
            workers=self.nb_workers,
            seeds=(self.seed,),
            accelerator="cpu" if self.gpu < 0 else "auto",
            published_files=True,
            as_published=self.as_published,
            options={"vggsound": {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}},
            **(NARROW if self.narrow else {}),
        )


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run a stage, copy its files to the folder of the authors' files, and return its result."""
    check(settings)
    result = experiment.run(settings.experiment(), progress=progress)
    out_dir = settings.out_dir or Path(STAGES[settings.stage][2])
    out_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(result["folder"]) / f"seed-{settings.seed}"
    for path in (*folder.glob("*/*_*.pt"), *folder.glob("audio_permute.npy")):
        shutil.copyfile(path, out_dir / path.name)
    return result


def check(settings: Settings) -> None:
    """Raise an `InputError` with all flags that a stage needs and lacks."""
    if not settings.stage:
        raise InputError(f"These flags run no stage: add --stage, one of {', '.join(STAGES)}.")
    problems = [
        f"The stage {settings.stage} needs {FLAGS[name]} FILE."
        for name in NEEDED.get(settings.stage, ())
        if getattr(settings, name) is None
    ]
    problems += [
        f"--{split}_dataset DIR is missing: the folder of the {split} clips."
        for split in ("train", "test")
        if getattr(settings, f"{split}_dataset") is None
    ]
    if problems:
        raise InputError(problems)

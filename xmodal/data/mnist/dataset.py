"""MNIST and MNIST-M: the same digits, grey and on coloured backgrounds, both with added noise.

    mnist_root/
    ├── train-images-idx3-ubyte.gz   train-labels-idx1-ubyte.gz     60,000 digits of 28x28 pixels (or without .gz)
    ├── t10k-images-idx3-ubyte.gz    t10k-labels-idx1-ubyte.gz      10,000
    └── mnist_m/train-00000.npy …  mnist_m.json                     optional: written by `prepare`

The pickles of NTDH's code and the picture folders of Ganin et al. are read as well, see
`xmodal.data.mnist.authors_files`.

    mnist    (1, 28, 28)  the grey digit
    mnist_m  (3, 28, 28)  the same digit, binarised, on a patch of a picture: see `xmodal.data.mnist.backgrounds`

Without ``mnist_m``, the same values are computed when the data is opened. Noise is added to both modalities
(`xmodal.data.mnist.noisy`); pixels from 0 to 255 reach a network as (x - 127.5) / 127.5.

References: LeCun et al.: Gradient-based learning applied to document recognition, 1998. Ganin et al.:
Domain-adversarial training of neural networks, 2016. The noise: Chen et al.: Non-target Divergence Hypothesis, 2024,
authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.mnist.backgrounds import blend, find_pictures, read_pictures
from xmodal.data.mnist.digits import PARTS
from xmodal.data.mnist.files import (
    BACKGROUND_SEED,
    TEXTURES,
    Facts,
    Grey,
    Opened,
    cached_textures,
    open_folder,
    stand_in,
)
from xmodal.data.request import DataRequest
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.split import Column

CLASS_NAMES = tuple(str(digit) for digit in range(10))
# the published noise on mnist is 4 times the noise on mnist_m, which makes the grey digits the weak modality
MNIST_FACTOR = 4.0
TEXTURED = "The backgrounds of mnist_m are procedural textures."


class MnistSettings(BaseModel):
    """Options of MNIST and MNIST-M."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = Field(
        None, description="folder with the four IDX files, or with the two pickles of NTDH's code"
    )
    stand_in: bool = Field(False, description="without a root, use scikit-learn's digits instead")
    noise: float = Field(
        1.0,
        ge=0,
        description="level of the noise on mnist_m; at the published one, short trainings stay at chance",
    )
    mnist_noise: float | None = Field(
        None, ge=0, description="level of the noise on mnist; None: four times noise, as published"
    )
    fresh: bool = Field(True, description="new noise in every epoch of training; --no-fresh: one draw per sample")
    valid_share: float = Field(0.1, gt=0, lt=1, description="share of the training digits that choose the epoch")
    valid_is_test: bool = Field(False, description="the test digits choose the epoch, as in the authors' code")
    backgrounds: Path | None = Field(
        None, description="folder of pictures; None: as prepared, or else procedural textures"
    )
    background_seed: int | None = Field(
        None, ge=0, description="seed of pictures and positions; None: as prepared, or else 42"
    )
    as_published: bool = Field(False, description="as in the authors' code: --valid-is-test")

    @model_validator(mode="after")
    def _published(self) -> MnistSettings:
        # a frozen model refuses plain assignment, also from its own validator
        if self.as_published:
            object.__setattr__(self, "valid_is_test", True)
        return self


def load(root: str | None, settings: MnistSettings, request: DataRequest) -> Data:
    """Three splits of both modalities.

    Args:
        root: folder with the digits; None: scikit-learn's digits.
        settings: noise, backgrounds, validation.
        request: task ``multiclass``; the seed draws noise and validation rows, but not the backgrounds.
    """
    from xmodal.data.base import assemble
    from xmodal.data.draw import stratified_split
    from xmodal.data.mnist.noisy import NoisyColumn
    from xmodal.types import Normalisation

    request.check_task("mnist", "multiclass")
    opened = Opened(stand_in()) if root is None else open_folder(Path(root))
    digits = opened.digits
    coloured, warnings = blended(opened, settings)
    labels = np.concatenate([digits[part].labels for part in PARTS])
    train = len(digits["train"].labels)
    test = np.arange(train, len(labels))
    shares = (1 - settings.valid_share, settings.valid_share, 0.0)
    drawn = stratified_split(digits["train"].labels, shares, request.seed)
    rows = {"train": drawn["train"], "valid": drawn["valid"], "test": test}
    if settings.valid_is_test:
        rows |= {"train": np.arange(train), "valid": test}
        warnings.append(
            "The test digits choose the epoch, as published: test figures are too good by an unknown amount."
        )
    mnist_noise = MNIST_FACTOR * settings.noise if settings.mnist_noise is None else settings.mnist_noise
    levels = {"mnist": mnist_noise, "mnist_m": settings.noise}
    clean: dict[str, Column] = {"mnist": Grey([digits[part].images for part in PARTS]), "mnist_m": coloured}
    data = assemble(
        {
            name: NoisyColumn(column, name, level=levels[name], seed=request.seed, fresh=settings.fresh)
            for name, column in clean.items()
        },
        dict.fromkeys(clean, labels),
        {split: dict.fromkeys(clean, numbers) for split, numbers in rows.items()},
        normalise=dict.fromkeys(clean, Normalisation([[[127.5]]], [[[127.5]]])),
        class_names=CLASS_NAMES,
        request=request,
    )
    if root is None:
        warnings.insert(0, "Stand-in data: scikit-learn's digits in place of MNIST.")
    data.warnings.extend(warnings)
    return data


def blended(opened: Opened, settings: MnistSettings) -> tuple[Column, list[str]]:
    """The column of mnist_m, stored or computed now, and warnings about it."""
    if opened.coloured is not None:
        _check_options(opened, settings)
        textured = opened.facts is not None and opened.facts.backgrounds == TEXTURES
        return opened.coloured, [TEXTURED] * textured
    if settings.backgrounds is not None:
        pictures, warnings = read_pictures(find_pictures(settings.backgrounds))
    else:
        pictures, warnings = cached_textures(_seed(settings)), [TEXTURED]
    parts = [
        blend(opened.digits[part].images, pictures, seed=_seed(settings), part=number)
        for number, part in enumerate(PARTS)
    ]
    return np.concatenate(parts), warnings


def _check_options(opened: Opened, settings: MnistSettings) -> None:
    """Refuse options that differ from the stored digits: they would be ignored silently."""
    options = {"background seed": settings.background_seed, "backgrounds": settings.backgrounds}
    asked = {name: value for name, value in options.items() if value is not None}
    if opened.facts is None:
        problems = [
            f"The coloured digits are {opened.source}, and the {option} {value} was asked for. Leave the option out."
            for option, value in asked.items()
        ]
    else:
        prepared = _described(opened.facts)
        problems = [
            f"{opened.source} was prepared with the {option} {prepared[option]}, and {value} was asked for. Leave the "
            "option out, or prepare another folder."
            for option, value in asked.items()
            if prepared[option] != (str(value.absolute()) if isinstance(value, Path) else value)
        ]
    if problems:
        raise InputError(problems)


def _described(facts: Facts) -> dict[str, int | str]:
    return {"background seed": facts.seed, "backgrounds": facts.backgrounds}


def _seed(settings: MnistSettings) -> int:
    return BACKGROUND_SEED if settings.background_seed is None else settings.background_seed

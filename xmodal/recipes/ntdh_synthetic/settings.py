"""Settings of `ntdh-classification`: training, masks of columns, and the quirks of the authors' code as flags.

Numbers in parentheses refer to the list of differences in docs/recipes/ntdh.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from xmodal.study.settings import DivergenceSettings, Names, Seeds, known_names

# Seeds that the authors' code draws with randint(0, 100) from Python's generator, seeded with 42. It draws 94 twice,
# which would count as two independent runs here.
RUNS = (81, 14, 3, 94, 35, 31, 28, 17, 13, 86)
PRESETS = {"published": {"epochs": 1000, "learning_rate": 0.01, "momentum": 0.0}}  # longer is the default
MASKS = {"alg1": "most salient", "reverse": "least salient", "random": "random"}
LABEL = "γ, share of common columns"
KL = "kl(temperature=1,scale=none)"


class Settings(DivergenceSettings):
    """Teachers and students of three layers on scikit-learn's classes, from everything in common to nothing."""

    PUBLISHED: ClassVar[dict[str, Any]] = {
        "detach": False,
        "scale_logits": True,
        "hint_batchnorm": True,
        "frozen_embeddings": True,
        "replacement": True,
        "same_start": True,
        "scale_on_all": True,
        "split_seed": 42,
        "group": 0,
        "negatives": 3000,
        "preset": "published",
    }

    seeds: Seeds = Field(
        RUNS, min_length=1, description="seeds of the networks; 5 means 0 to 4; ranges 42-51; lists 1,3"
    )
    shared: tuple[int, ...] = Field((20, 15, 10, 5, 0), min_length=1, description="common decisive columns, of twenty")
    preset: Literal["longer", "published"] = Field(
        "longer", description="training; published: 1000 steps at rate 0.01 without momentum (25)"
    )
    epochs: int = Field(300, ge=1, description="steps of gradient descent over the whole training set")
    learning_rate: float = Field(0.1, gt=0, description="step size of gradient descent")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of gradient descent")
    mask: Names = Field((), description="teachers of some columns: alg1, reverse, random")
    mask_dim: int = Field(2, ge=1, le=50, description="number of columns of these teachers")
    permutations: int = Field(10, ge=1, description="permutations of each column for the ranking")
    data_seed: int = Field(42, ge=0, description="seed of samples and noise, the same in all runs")
    split_seed: int | None = Field(
        None, ge=0, description="seed of training and test rows; None: that of the samples, as published: 42"
    )
    samples: int = Field(10_000, ge=100, description="number of samples; 40 % are the test split")
    group: int = Field(50, ge=0, description="rows that rkd, pkt and similarity compare at a time; 0: all (28)")
    negatives: int = Field(256, ge=1, description="rows with which crd contrasts each row (28)")
    replacement: bool = Field(False, description="draw random columns with replacement (10)")
    same_start: bool = Field(False, description="the teacher begins with the weights of its student (11)")
    scale_on_all: bool = Field(False, description="standardise the columns over training and test rows (12)")

    @field_validator("shared")
    @classmethod
    def _some_of_twenty(cls, shared: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= count <= 20 for count in shared):
            raise ValueError(f"{', '.join(map(str, shared))} columns are shared: expected 0 to 20.")
        return tuple(dict.fromkeys(shared))

    @field_validator("mask")
    @classmethod
    def _masks(cls, masks: tuple[str, ...]) -> tuple[str, ...]:
        return known_names("mask", masks, MASKS)

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The given values, on top of those that ``as_published`` and the preset set."""
        given = super().completed(given)
        return {**PRESETS.get(given.get("preset", ""), {}), **given}

    def losses(self, mode: str) -> tuple[str, ...]:
        """The losses of a mode, with the numbers of the authors' code."""
        hint = "batchnorm_relu=true" if self.hint_batchnorm else "adaptor=linear"
        crd = f"negatives={self.negatives},learned={str(not self.frozen_embeddings).lower()}"
        group = f"group={self.group}"
        return {
            "kl": (f"{KL}:1",),
            "dkd": ("dkd(alpha=16,beta=1,temperature=0.7):1",),
            "hint": (f"hint({hint}):0.1", f"{KL}:1"),
            "pkt": (f"pkt({group}):1", f"{KL}:1"),
            "similarity": (f"sp({group}):1", f"{KL}:1"),
            "rkd": (f"rkd(distance_weight=25,angle_weight=50,{group}):1", f"{KL}:0.1"),
            "crd": (f"crd(width=8,exact=true,{crd}):1", f"{KL}:1"),
        }[mode.removesuffix("_pssm")]

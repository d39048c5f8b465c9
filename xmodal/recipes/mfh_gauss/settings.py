"""Settings of `gauss-removal`: the channels of the reduced teacher, and the quirks of the authors' code as flags.

G1, G2, … refer to the list of differences in docs/recipes/gauss.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from xmodal.data.gaussian.draws import Design, modify_gamma
from xmodal.errors import did_you_mean
from xmodal.study.settings import Names, Seeds, StudySettings

# Pairs specific:shared. The authors' script runs other values of γ than the paper's table shows; the pairs of table2
# give the values of the table (G9).
PRESETS = {
    "script": ("10:5", "10:10", "10:15", "10:20", "10:25", "10:30"),
    "table2": ("30:10", "10:5", "10:10", "10:20", "10:30"),
}
PUBLISHED = {"swapped": True, "replacement": True, "permutations": 100}  # values that --as-published sets
WIDTH = 50  # channels of either modality
TITLES = {
    "gt": "Truly shared channels stay",
    "alg1": "Channels identified by Algorithm 1 stay",
    "random": "Random channels stay",
}


class Settings(StudySettings):
    """Students of a teacher reduced to shared channels, of a full one, and of none."""

    seeds: Seeds = Field(tuple(range(42, 52)), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    mode: Names = Field(
        tuple(TITLES),
        min_length=1,
        description="channels that stay: truly shared, by Algorithm 1, random; one or several",
    )
    preset: Literal["script", "table2"] = Field(
        "script", description="dims of the authors' script or of the paper's table"
    )
    dims: Names = Field((), description="specific:shared decisive channels, 10:5,10:10; default: those of the preset")
    keep: int | None = Field(
        None, ge=1, le=WIDTH, description="channels that stay; default: as many as are shared (G5)"
    )
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        "exact", description="of Algorithm 1: exact mean, or number of draws"
    )
    joint_learning_rate: float = Field(
        0.01, gt=0, description="step size of Algorithm 1's joint training, with momentum 0.9"
    )
    mg_teacher_set: int = Field(2, ge=1, le=2, description="training set of the MG teacher; students use 2 (G4)")
    swapped: bool = Field(False, description="train regular KD with modalities exchanged, as published (G1)")
    replacement: bool = Field(False, description="draw random channels with replacement, as published (G2)")
    as_published: bool = Field(False, description="set swapped, replacement, and 100 permutations")

    @model_validator(mode="before")
    @classmethod
    def _quirks(cls, given: Any) -> Any:
        quirks = isinstance(given, Mapping) and given.get("as_published") is True
        return {**PUBLISHED, **given} if quirks else given

    @field_validator("mode")
    @classmethod
    def _known(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        for mode in modes:
            if mode not in TITLES:
                raise ValueError(f"there is no mode '{mode}'. {did_you_mean(mode, TITLES)}")
        return tuple(dict.fromkeys(modes))

    @field_validator("dims")
    @classmethod
    def _readable(cls, dims: tuple[str, ...]) -> tuple[str, ...]:
        seen: dict[float, str] = {}
        for pair in dims:
            specific, colon, shared = pair.partition(":")
            if not (colon and specific.isdecimal() and shared.isdecimal()):
                raise ValueError(f"'{pair}' is no pair of numbers: expected specific:shared, such as 10:5.")
            # raises an error about channels that do not fit
            gamma = modify_gamma(int(specific), int(shared)).gamma
            if gamma in seen:
                raise ValueError(
                    f"'{pair}' and '{seen[gamma]}' have the same γ, along which means are taken. Drop one."
                )
            seen[gamma] = pair
        return dims

    def kept(self, design: Design) -> int:
        """The number of channels that stay."""
        return self.keep or len(design.shared)

    @property
    def designs(self) -> list[Design]:
        """The design of each pair of numbers: which channels each modality holds."""
        return [modify_gamma(*map(int, pair.split(":"))) for pair in self.dims or PRESETS[self.preset]]

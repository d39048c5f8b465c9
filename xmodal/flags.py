"""How a field of a settings class looks on the command line.

The type, default and description of a field already say most of it. A `Flag` in its annotation says the rest:

    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field("digits", description="…")
    layer: Annotated[str, Flag(aliases=("place",))] = Field("embedding", description="…")
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """The look of a field on the command line.

    Attributes:
        metavar: word for the value in the help, such as ``FILE``; empty: derived from the type.
        positional: the value is a word of its own, without ``--name`` before it.
        hidden: the field has no flag.
        name: name of the flag, where it differs from the field; without dashes.
        aliases: earlier names of the field. Their flags work too, and so do these keys in a ``settings.json``.
    """

    metavar: str = ""
    positional: bool = False
    hidden: bool = False
    name: str = ""
    aliases: tuple[str, ...] = ()


def flag_of(metadata: Iterable[object]) -> Flag:
    """The `Flag` in the metadata of a pydantic field; a plain one if there is none."""
    return next((part for part in metadata if isinstance(part, Flag)), Flag())

"""Networks for scenes as students: which inputs of a data set they read, and the volume that they fill.

A picture ``depth`` goes with an input ``depth.position``, the voxel of each of its pixels; where it has none of its
own, the only input of that ending serves all. PALNet reads distances besides: a modality, or an input that goes with
one. The volume has four times the sides of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xmodal.cards import load
from xmodal.errors import InputError, did_you_mean
from xmodal.models import BUILDERS
from xmodal.models.network import statistics_for
from xmodal.models.scenes.streams import FINEST
from xmodal.types import DataInfo, Student

STREAMED = ("ddrnet", "aicnet", "grfnet")  # take any modalities that are pictures
SCENES = (*STREAMED, "palnet")


def build_scene(
    info: DataInfo,
    modalities: Sequence[str],
    *,
    network: str = "ddrnet",
    sparse: bool = True,
    recompute: bool = False,
    unused: bool = False,
) -> Student:
    """One of the published networks for this data.

    Args:
        info: of the data.
        modalities: what it reads; `GRFNet` reads them in this order, PALNet depth and, named or not, distances.
        network: one of `SCENES`.
        sparse: see `Streams`; no matter to PALNet.
        recompute: see `Streams`; no matter to PALNet.
        unused: see `DDRNet`.

    Example:
        >>> from xmodal.types import InputInfo
        >>> inputs = {"depth": InputInfo((1, 6, 8)), "depth.position": InputInfo((6, 8), dtype="int64")}
        >>> info = DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=(4, 3, 4))
        >>> build_scene(info, ["depth"]).needs
        ('depth', 'depth.position')
    """
    if network not in SCENES:
        raise InputError(f"There is no network for scenes called '{network}'. {did_you_mean(network, SCENES)}")
    names = info.require(tuple(modalities), "network")
    if len(info.target_shape) != 3:
        raise InputError(
            f"The network '{network}' answers for every voxel of a volume, and the targets of this data have the axes "
            f"{tuple(info.target_shape) or 'unknown'}. Choose another network."
        )
    arguments: dict[str, Any] = {
        "outputs": info.outputs,
        "volume": [FINEST * side for side in reversed(info.target_shape)],
    }
    if network in STREAMED:
        _pictures(info, names, network)
        positions = {name: beside(info, name, "position", network) for name in names}
        channels = {name: info.inputs[name].shape[0] for name in names}
        arguments |= {"channels": channels, "positions": positions, "sparse": sparse, "recompute": recompute}
        arguments |= {"unused": unused} if network == "ddrnet" else {}
        needs = (*names, *dict.fromkeys(positions.values()))
    else:
        needs = _with_distances(info, names)
        arguments["names"] = list(needs)
    module = load(BUILDERS[network])(**arguments)
    return Student(module, needs, names[0], network, arguments, statistics_for(info, needs))


def _pictures(info: DataInfo, names: Sequence[str], network: str) -> None:
    wrong = [name for name in names if len(info.inputs[name].shape) != 3]
    if wrong:
        shapes = ", ".join(f"'{name}' {info.inputs[name].shape}" for name in wrong)
        raise InputError(
            f"The network '{network}' reads pictures (channels, height, width), and is to read {shapes}. Leave that "
            "out, or choose palnet."
        )


def _with_distances(info: DataInfo, names: Sequence[str]) -> tuple[str, ...]:
    """Depth, the voxel of each of its pixels, and distances."""
    pictures = [name for name in names if len(info.inputs[name].shape) == 3]
    volumes = [name for name in names if len(info.inputs[name].shape) == 4]
    if len(pictures) != 1 or info.inputs[pictures[0]].shape[0] != 1 or len(names) > 2 or len(volumes) > 1:
        raise InputError(
            f"The network 'palnet' reads depth, a picture of one channel, and distances, and is to read "
            f"{', '.join(names)}. Name depth, or depth and distances."
        )
    depth = pictures[0]
    distances = volumes[0] if volumes else beside(info, depth, "tsdf", "palnet")
    return depth, beside(info, depth, "position", "palnet"), distances


def beside(info: DataInfo, name: str, what: str, network: str) -> str:
    """The input that goes with a modality, or the only one of that ending."""
    own = f"{name}.{what}"
    others = [other for other in info.inputs if other.rpartition(".")[2] == what]
    if own in info.inputs or len(others) != 1:
        others = [own] if own in info.inputs else []
    if not others:
        raise InputError(
            f"The network '{network}' reads '{own}' beside '{name}', and this data has no such input. "
            f"{did_you_mean(own, info.inputs)}"
        )
    return others[0]

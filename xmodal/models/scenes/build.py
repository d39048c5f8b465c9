"""Networks for scenes as students: which inputs of a data set they read, and the size of their volume.

A picture ``depth`` comes with an input ``depth.position``, the voxel of each of its pixels. A picture without one uses
the only input whose name ends in ``.position``. PALNet reads distances too: a modality, or an input that belongs to
one. The sides of the volume are four times those of the target.
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

STREAMED = ("ddrnet", "aicnet", "grfnet")  # read any modalities that are pictures
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
        info: description of the data.
        modalities: what it reads. `GRFNet` reads them in this order; PALNet reads depth and, named or not, distances.
        network: one of `SCENES`.
        sparse: see `Streams`; without effect on PALNet.
        recompute: see `Streams`; without effect on PALNet.
        unused: see `StreamNetwork`; for DDRNet alone.

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
            f"The network '{network}' predicts a class for every voxel of a volume, and the targets of this data have "
            f"the axes {tuple(info.target_shape) or 'unknown'}. Choose another network."
        )
    arguments: dict[str, Any] = {
        "outputs": info.outputs,
        # Targets have the axes (D, H, W) = (Y, H, X), a volume is given as X, H and Y.
        "volume": [FINEST * side for side in reversed(info.target_shape)],
    }
    if network in STREAMED:
        _check_pictures(info, names, network)
        positions = {name: companion(info, name, "position", network) for name in names}
        channels = {name: info.inputs[name].shape[0] for name in names}
        arguments |= {"channels": channels, "positions": positions, "sparse": sparse, "recompute": recompute}
        arguments |= {"unused": unused} if network == "ddrnet" else {}
        needs = (*names, *dict.fromkeys(positions.values()))
    else:
        needs = _inputs_of_palnet(info, names)
        arguments["names"] = list(needs)
    module = load(BUILDERS[network])(**arguments)
    return Student(module, needs, names[0], network, arguments, statistics_for(info, needs))


def _check_pictures(info: DataInfo, names: Sequence[str], network: str) -> None:
    wrong = [name for name in names if len(info.inputs[name].shape) != 3]
    if wrong:
        shapes = ", ".join(f"'{name}' {info.inputs[name].shape}" for name in wrong)
        raise InputError(
            f"The network '{network}' reads pictures (channels, height, width), and it was given {shapes}. Leave that "
            "out, or choose palnet."
        )


def _inputs_of_palnet(info: DataInfo, names: Sequence[str]) -> tuple[str, ...]:
    """Depth, the voxel of each of its pixels, and distances."""
    pictures = [name for name in names if len(info.inputs[name].shape) == 3]
    volumes = [name for name in names if len(info.inputs[name].shape) == 4]
    if len(pictures) != 1 or info.inputs[pictures[0]].shape[0] != 1 or len(names) > 2 or len(volumes) > 1:
        raise InputError(
            f"The network 'palnet' reads depth, a picture with one channel, and distances, and it was given "
            f"{', '.join(names)}. Name depth, or depth and distances."
        )
    depth = pictures[0]
    distances = volumes[0] if volumes else companion(info, depth, "tsdf", "palnet")
    return depth, companion(info, depth, "position", "palnet"), distances


def companion(info: DataInfo, name: str, ending: str, network: str) -> str:
    """The input ``name.ending`` of a modality, or the only input with that ending."""
    expected = f"{name}.{ending}"
    if expected in info.inputs:
        return expected
    others = [other for other in info.inputs if other.rpartition(".")[2] == ending]
    if len(others) != 1:
        raise InputError(
            f"The network '{network}' reads '{expected}' together with '{name}', and this data has no such input. "
            f"{did_you_mean(expected, info.inputs)}"
        )
    return others[0]

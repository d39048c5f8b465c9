"""Prepare NYU Depth V2: from the raw files to an .npz per frame.

    raw/depthbin/NYUtrain/     NYU0001_0000.png  NYU0001_0000.bin  NYU0001_rgb.png (or NYU0001_colors.png)
                 NYUtest/      NYUCADtrain/      NYUCADtest/       the last two are optional

SSCNet ships depth and rooms without colours: where no folder has any picture with colours, frames are prepared without
``rgb``, and nyu.json records it. A room of origin and pose alone, without voxels, gives a frame without labels.

    raw/nyu.json               sizes, if they differ from the published ones

    root/NYUtrain_npz/NYU0001_0000_voxels.npz   NYUtest_npz/   NYUCADtrain_npz/   NYUCADtest_npz/
         nyu.json  skipped.json                 settings of the preparation, and skipped frames

The contents of the files are described in `xmodal.data.nyu.raw` and `xmodal.data.nyu.frames`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xmodal.data.nyu.frames import SUFFIX, FrameFile, encode_frame, frame_of
from xmodal.data.nyu.voxels import FACTOR, PUBLISHED, RULES, Grid, positions
from xmodal.data.options import validated
from xmodal.data.prepare import Content, Item, Prepared, in_processes, prepare_items
from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_json, write_json, written_whole

RAW_FOLDER, FACTS, PACKED, SKIPPED = "depthbin", "nyu.json", "_npz", "skipped.json"
KINDS = ("NYU", "NYUCAD")
PARTS = tuple(f"{kind}{split}" for kind in KINDS for split in ("train", "test"))
# NYU0001_0000, but not NYU0001_rgb: the published loader lists *.png and takes colour pictures for depth frames.
FRAME = re.compile(r"(.+_)\d{4}$")
# Share of the training frames, the last by name, that are held out to choose the epoch.
VALID_SHARE = 0.1
# Part of the stamp of every prepared frame: increase it when `read_frame` returns other values for the same files.
VERSION = 1
Workload = tuple[Path, "RawFrame", Grid, str, bool]


class GridFacts(BaseModel):
    """The sizes in nyu.json; see `Grid`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    volume: tuple[int, int, int]
    voxel: float = Field(gt=0, allow_inf_nan=False)
    image: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    margin: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class RawFrame:
    """The raw files of a frame.

    Attributes:
        name: name of the frame, such as NYU0001_0000.
        depth: the .png with 16 bits.
        room: the .bin.
        colours: the .png with colours; None where the folder is prepared without them.
    """

    name: str
    depth: Path
    room: Path
    colours: Path | None


def grid_of(folder: Path) -> Grid:
    """The sizes in nyu.json of a folder; without it, the published ones."""
    folder = folder.parent if folder.name == RAW_FOLDER else folder
    if not (folder / FACTS).is_file():
        return PUBLISHED
    sizes = read_json(folder / FACTS).get("grid")
    if sizes is None:
        return PUBLISHED
    return grid_from(sizes, f"{folder / FACTS} (grid)")


def grid_from(sizes: Any, where: str) -> Grid:
    """Sizes from JSON. Raises an `InputError` that starts with ``where`` if they are malformed."""
    facts = validated(GridFacts, sizes, where)
    if any(size % FACTOR for size in facts.volume):
        raise InputError(f"{where} has a volume of {facts.volume} voxels: multiples of {FACTOR} were expected.")
    return Grid(facts.volume, facts.voxel, facts.image, facts.focal, facts.centre, facts.margin)


def raw_parts(raw: Path) -> dict[str, Path]:
    """The existing ones of NYUtrain, NYUtest, NYUCADtrain and NYUCADtest, in a folder or in depthbin below it."""
    base = raw / RAW_FOLDER if (raw / RAW_FOLDER).is_dir() else raw
    return {part: base / part for part in PARTS if (base / part).is_dir()}


def packed_parts(root: Path) -> dict[str, Path]:
    """The existing folders of .npz files, by the same names."""
    return {part: root / f"{part}{PACKED}" for part in PARTS if (root / f"{part}{PACKED}").is_dir()}


def packed_files(folder: Path) -> list[Path]:
    """The frames of a folder, by name."""
    return sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))


def coloured(parts: Mapping[str, Path]) -> bool:
    """Whether any folder has a picture with colours: without any, frames consist of depth and rooms."""
    return any(next(folder.glob(f"*_{word}.png"), None) for folder in parts.values() for word in ("rgb", "colors"))


def raw_frames(folder: Path, *, colours: bool = True) -> tuple[list[RawFrame], list[tuple[str, str]]]:
    """The complete frames of a folder, sorted by name, and (name, problem) of the incomplete ones.

    Args:
        folder: such as NYUtrain.
        colours: whether a frame must have a picture with colours.
    """
    names = {path.stem for path in folder.iterdir() if path.suffix in (".png", ".bin") and FRAME.match(path.stem)}
    complete, incomplete = [], []
    # NYUCAD has the same colour pictures as NYU: they may exist only in the folder of NYU.
    folders = folder, folder.with_name(folder.name.replace("CAD", ""))
    for name in sorted(names):
        prefix = FRAME.match(name)[1]  # type: ignore[index]
        depth, room = folder / f"{name}.png", folder / f"{name}.bin"
        candidates = [place / f"{prefix}{word}.png" for place in folders for word in ("rgb", "colors")]
        picture = next((path for path in candidates if path.is_file()), candidates[0]) if colours else None
        missing = [path.name for path in (depth, room, picture) if path is not None and not path.is_file()]
        if missing:
            expected = ".png, .bin and _rgb.png" if colours else ".png and .bin"
            incomplete.append((name, f"{', '.join(missing)} not found in {folder.name}: {expected} expected"))
        else:
            complete.append(RawFrame(name, depth, room, picture))
    return complete, incomplete


def held_out(frames: int, share: float) -> int:
    """The number of training frames that are held out to choose the epoch: a share of them, at least 1, but not all.

    Example:
        >>> held_out(795, 0.1), held_out(2, 0.1)
        (80, 1)
    """
    return min(max(1, round(share * frames)), frames - 1)


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    position: Literal["reference", "correct"] = "reference",
    repair_positions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write an .npz for every frame.

    Args:
        raw: folder with depthbin, or with NYUtrain and NYUtest.
        root: folder to write; run again with the same folder to continue an interrupted preparation.
        workers: worker processes; 0: work in this process.
        position: value of pixels that show no voxel: reference, 0, which is also the index of a voxel; correct, -1.
        repair_positions: only compute the positions of existing .npz files again, and rewrite files that differ.
        progress: called with (frames done, frames in total).
    """
    raw, root = Path(raw), Path(root)
    if position not in RULES[:2]:
        raise InputError(f"There is no rule of positions called '{position}'. {did_you_mean(position, RULES[:2])}")
    if not raw.is_dir():
        raise InputError(
            f"{raw} is not a folder. Expected: a folder with {RAW_FOLDER}/NYUtrain and {RAW_FOLDER}/NYUtest."
        )
    grid, parts = grid_of(raw), raw_parts(raw)
    _refuse_parts(raw, parts)
    colours = coloured(parts)
    frames_of = {part: raw_frames(folder, colours=colours) for part, folder in parts.items()}
    for part, (frames, incomplete) in frames_of.items():
        if not frames:
            example = f" The first: {incomplete[0][0]}, {incomplete[0][1]}." if incomplete else ""
            what, files = "depth and room", "NYU0001_0000.png and NYU0001_0000.bin"
            if colours:
                what, files = "depth, room and colours", "NYU0001_0000.png, NYU0001_0000.bin and NYU0001_rgb.png"
            raise InputError(f"{parts[part]} holds no frame with {what}: {files} were expected.{example}")
    if repair_positions:
        complete = {part: frames for part, (frames, _) in frames_of.items()}
        return _repair(root, complete, grid, position, workers, progress)
    other_facts = _discard_facts(raw, root)
    total, done = sum(len(frames) for frames, _ in frames_of.values()), 0
    prepared: dict[str, Prepared] = {}
    for part, (frames, incomplete) in frames_of.items():
        done_before = done

        def report_progress(done_in_part: int, _: int, done_before: int = done_before) -> None:
            if progress is not None:
                progress(done_before + done_in_part, total)

        prepared[part] = prepare_items(
            [_item(frame, grid, position) for frame in frames],
            read_frame,
            root / f"{part}{PACKED}",
            workers=workers,
            version=str(VERSION),
            refused=incomplete,
            progress=report_progress,
        )
        done += len(frames)
        if not prepared[part].names:
            reason = prepared[part].skipped[0][1]
            raise InputError(f"None of the {len(frames)} frames in {parts[part]} can be used. The first: {reason}")
    joined = _join(prepared)
    write_json(root / SKIPPED, {"skipped": [{"name": name, "reason": reason} for name, reason in joined.skipped]})
    facts = {
        "grid": asdict(grid),
        "position": position,
        "modalities": ["depth", "rgb", "tsdf"] if colours else ["depth", "tsdf"],
        "frames": {p: len(f.names) for p, f in prepared.items()},
    }
    write_json(root / FACTS, {**other_facts, **facts})
    return joined


def _discard_facts(raw: Path, root: Path) -> dict[str, Any]:
    """Remove the record of an earlier preparation, and return the other entries of nyu.json.

    The record is written last: without it, an interrupted preparation does not look complete. If the raw files are in
    the same folder, nyu.json also contains their sizes, which must stay.
    """
    if not (root / FACTS).is_file():
        return {}
    kept = {
        key: value for key, value in read_json(root / FACTS).items() if key not in ("frames", "position", "modalities")
    }
    if raw.resolve() != root.resolve():
        (root / FACTS).unlink()
        return {}
    write_json(root / FACTS, kept)
    return kept


def read_frame(item: Item) -> dict[str, Content]:
    """The .npz of a frame."""
    depth, room, *colours = map(Path, item.sources)
    grid = grid_from(item.facts["grid"], "The item")
    arrays = frame_of(depth, room, colours[0] if colours else None, grid=grid, rule=item.facts["position"])
    return {".": Content(".npz", encode_frame(arrays))}


def _item(frame: RawFrame, grid: Grid, rule: str) -> Item:
    facts: Mapping[str, Any] = {"grid": GridFacts(**asdict(grid)).model_dump(mode="json"), "position": rule}
    sources = tuple(str(path) for path in (frame.depth, frame.room, frame.colours) if path is not None)
    return Item(frame.name + SUFFIX.removesuffix(".npz"), sources, facts)


def missing_halves(raw: Path, parts: Mapping[str, Path]) -> list[str]:
    """Errors for a training folder without a test folder, and vice versa."""
    problems = []
    for kind in KINDS:
        halves = [part for part in parts if part.removesuffix("train").removesuffix("test") == kind]
        if len(halves) == 1:
            both = f"{kind}train and {kind}test"
            problems.append(f"{raw} has only {halves[0]}: {both} were expected. Add the missing folder.")
    return problems


def _refuse_parts(raw: Path, parts: Mapping[str, Path]) -> None:
    problems = missing_halves(raw, parts)
    if not parts:
        problems.append(
            f"{raw} has neither NYUtrain and NYUtest nor NYUCADtrain and NYUCADtest, and no {RAW_FOLDER} with them. "
            "Give the folder that contains depthbin."
        )
    if problems:
        raise InputError(problems)


def _frame_name(name: str) -> str:
    """The name that the raw files and the .npz of a frame share: NYU0001_0000."""
    return name.removesuffix(SUFFIX.removesuffix(".npz"))


def _join(prepared: Mapping[str, Prepared]) -> Prepared:
    """The results of all folders, with the name of the folder before those of the frames."""
    return Prepared(
        [f"{part}/{name}" for part, result in prepared.items() for name in result.done],
        [f"{part}/{name}" for part, result in prepared.items() for name in result.reused],
        [(f"{part}/{_frame_name(name)}", why) for part, result in prepared.items() for name, why in result.skipped],
    )


# ---- positions


def compare_positions(
    path: Path, frame: RawFrame, grid: Grid, *, rule: str = "reference", rewrite: bool = False
) -> int:
    """The number of pixels in which the positions of an .npz differ from those computed from the raw files.

    Args:
        path: the .npz.
        frame: the raw files.
        grid: sizes.
        rule: rule of positions, see `positions`.
        rewrite: write the file again with the computed positions if they differ.
    """
    from xmodal.data.nyu.raw import read_depth, read_room

    room = read_room(frame.room, grid=grid)
    expected = positions(read_depth(frame.depth, grid=grid), room.pose, room.origin, grid=grid, rule=rule)
    file = FrameFile(path)
    stored = file.arrays(["position"])["position"]
    if stored.shape != expected.shape:
        raise InputError(
            f"{path} has positions of {stored.shape} pixels, and its raw depth {expected.shape}. Prepare it again."
        )
    differing = int((stored != expected).sum())
    if differing and rewrite:
        arrays = file.arrays(file.names())
        with written_whole(path) as partial:
            partial.write_bytes(encode_frame({**arrays, "position": expected}))
    return differing


def _repair(
    root: Path,
    frames_of: Mapping[str, list[RawFrame]],
    grid: Grid,
    rule: str,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Prepared:
    jobs, skipped = [], []
    for part, frames in frames_of.items():
        for frame in frames:
            path = root / f"{part}{PACKED}" / f"{frame.name}{SUFFIX}"
            if path.is_file():
                jobs.append((path, frame, grid, rule, True))
            else:
                skipped.append((f"{part}/{frame.name}", f"{path.name} does not exist"))
    done: list[str] = []
    reused: list[str] = []
    for job, (differing, reason) in in_processes(_compare, jobs, workers):
        name = f"{job[0].parent.name}/{job[0].name}"
        if reason:
            skipped.append((f"{job[0].parent.name.removesuffix(PACKED)}/{job[1].name}", reason))
        else:
            (done if differing else reused).append(name)
        if progress is not None:
            progress(len(done) + len(reused), len(jobs))
    return Prepared(sorted(done), sorted(reused), sorted(skipped))


def _compare(job: Workload) -> tuple[int, str]:
    path, frame, grid, rule, rewrite = job
    try:
        return compare_positions(path, frame, grid, rule=rule, rewrite=rewrite), ""
    except InputError as error:
        return 0, " ".join(error.problems)

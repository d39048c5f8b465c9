"""From the raw files of NYU Depth V2 to one .npz a frame: what is where, and `prepare`.

    raw/depthbin/NYUtrain/     NYU0001_0000.png  NYU0001_0000.bin  NYU0001_rgb.png (or NYU0001_colors.png)
                 NYUtest/      NYUCADtrain/      NYUCADtest/       the last two may be absent
    raw/nyu.json               sizes, where they are not the published ones

    root/NYUtrain_npz/NYU0001_0000_voxels.npz   NYUtest_npz/   NYUCADtrain_npz/   NYUCADtest_npz/
         nyu.json  skipped.json                 how it was prepared, and what was left out

What the files hold is shown in `xmodal.data.nyu.raw` and `xmodal.data.nyu.frames`.
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
FRAME = re.compile(r"(.+_)\d{4}$")  # NYU0001_0000; NYU0001_rgb is none
VALID_SHARE = 0.1  # of the training frames, the last ones by name
VERSION = 1  # of what the work makes of the same files
Workload = tuple[Path, "RawFrame", Grid, str, bool]


class GridFacts(BaseModel):
    """What nyu.json says of the sizes; see `Grid`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    volume: tuple[int, int, int]
    voxel: float = Field(gt=0, allow_inf_nan=False)
    image: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    margin: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class RawFrame:
    """The files of one frame.

    Attributes:
        name: such as NYU0001_0000.
        depth: the .png with 16 bits.
        room: the .bin.
        colours: the .png with colours.
    """

    name: str
    depth: Path
    room: Path
    colours: Path


def grid_of(folder: Path) -> Grid:
    """The sizes that nyu.json of a folder says; the published ones without it."""
    folder = folder.parent if folder.name == RAW_FOLDER else folder
    if not (folder / FACTS).is_file():
        return PUBLISHED
    said = read_json(folder / FACTS).get("grid")
    if said is None:
        return PUBLISHED
    return grid_from(said, f"{folder / FACTS} (grid)")


def grid_from(said: Any, where: str) -> Grid:
    """Sizes from JSON, or a sentence that names the place."""
    facts = validated(GridFacts, said, where)
    if any(size % FACTOR for size in facts.volume):
        raise InputError(f"{where} says a volume of {facts.volume} voxels: multiples of {FACTOR} were expected.")
    return Grid(facts.volume, facts.voxel, facts.image, facts.focal, facts.centre, facts.margin)


def raw_parts(raw: Path) -> dict[str, Path]:
    """NYUtrain, NYUtest, NYUCADtrain and NYUCADtest of a folder, or of depthbin in it; those that are there."""
    base = raw / RAW_FOLDER if (raw / RAW_FOLDER).is_dir() else raw
    return {part: base / part for part in PARTS if (base / part).is_dir()}


def packed_parts(root: Path) -> dict[str, Path]:
    """The folders of .npz files that are there, by the same names."""
    return {part: root / f"{part}{PACKED}" for part in PARTS if (root / f"{part}{PACKED}").is_dir()}


def packed_files(folder: Path) -> list[Path]:
    """The frames of a folder, by name."""
    return sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))


def raw_frames(folder: Path) -> tuple[list[RawFrame], list[tuple[str, str]]]:
    """The frames of a folder that have all files, by name; and (name, what is missing) of the others."""
    names = {path.stem for path in folder.iterdir() if path.suffix in (".png", ".bin") and FRAME.match(path.stem)}
    found, lacking = [], []
    plain = folder.with_name(folder.name.replace("CAD", ""))  # colours of NYUCAD may lie there alone
    for name in sorted(names):
        start = FRAME.match(name)[1]  # type: ignore[index]
        depth, room = folder / f"{name}.png", folder / f"{name}.bin"
        named = [place / f"{start}{word}.png" for place in (folder, plain) for word in ("rgb", "colors")]
        colours = next((path for path in named if path.is_file()), named[0])
        missing = [path.name for path in (depth, room, colours) if not path.is_file()]
        if missing:
            lacking.append((name, f"{', '.join(missing)} not found in {folder.name}: .png, .bin and _rgb.png expected"))
        else:
            found.append(RawFrame(name, depth, room, colours))
    return found, lacking


def kept_back(frames: int, share: float) -> int:
    """How many training frames choose the epoch: a share, one at least, but not all.

    Example:
        >>> kept_back(795, 0.1), kept_back(2, 0.1)
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
    """Turn depth, rooms and colours into one .npz a frame; run it again to go on.

    Args:
        raw: folder with depthbin, or with NYUtrain and NYUtest.
        root: folder to write.
        workers: processes; 0: this one.
        position: what pixels without a voxel get: reference, number 0, which is a voxel too; correct, -1.
        repair_positions: of .npz files that are there, compute the positions from the raw files, and write those files
            again in which they differ; nothing else is made.
        progress: is told (frames so far, frames in all).
    """
    raw, root = Path(raw), Path(root)
    if position not in RULES[:2]:
        raise InputError(f"There is no rule of positions called '{position}'. {did_you_mean(position, RULES[:2])}")
    if not raw.is_dir():
        raise InputError(f"{raw} is no folder: one with {RAW_FOLDER}/NYUtrain and {RAW_FOLDER}/NYUtest was expected.")
    grid, parts = grid_of(raw), raw_parts(raw)
    _refuse_parts(raw, parts)
    found = {part: raw_frames(folder) for part, folder in parts.items()}
    for part, (frames, lacking) in found.items():
        if not frames:
            first = f" The first: {lacking[0][0]}, {lacking[0][1]}." if lacking else ""
            raise InputError(
                f"{parts[part]} holds no frame with depth, room and colours: NYU0001_0000.png, NYU0001_0000.bin and "
                f"NYU0001_rgb.png were expected.{first}"
            )
    if repair_positions:
        return _repair(root, {part: frames for part, (frames, _) in found.items()}, grid, position, workers, progress)
    kept = _begin(raw, root)
    total, done = sum(len(frames) for frames, _ in found.values()), 0
    prepared: dict[str, Prepared] = {}
    for part, (frames, lacking) in found.items():
        before = done

        def tell(now: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + now, total)

        prepared[part] = prepare_items(
            [_item(frame, grid, position) for frame in frames],
            read_frame,
            root / f"{part}{PACKED}",
            workers=workers,
            version=str(VERSION),
            refused=lacking,
            progress=tell,
        )
        done += len(frames)
        if not prepared[part].names:
            reason = prepared[part].skipped[0][1]
            raise InputError(f"None of the {len(frames)} frames in {parts[part]} can be used. The first: {reason}")
    joined = _joined(prepared)
    write_json(root / SKIPPED, {"skipped": [{"name": name, "reason": reason} for name, reason in joined.skipped]})
    facts = {"grid": asdict(grid), "position": position, "frames": {p: len(f.names) for p, f in prepared.items()}}
    write_json(root / FACTS, {**kept, **facts})
    return joined


def _begin(raw: Path, root: Path) -> dict[str, Any]:
    """Take back that the folder is prepared; what nyu.json says where raw files lie in the same folder."""
    if not (root / FACTS).is_file():
        return {}
    kept = {key: value for key, value in read_json(root / FACTS).items() if key not in ("frames", "position")}
    if raw.resolve() != root.resolve():
        (root / FACTS).unlink()
        return {}
    write_json(root / FACTS, kept)
    return kept


def read_frame(item: Item) -> dict[str, Content]:
    """The .npz of one frame."""
    depth, room, colours = map(Path, item.sources)
    grid = grid_from(item.facts["grid"], "The item")
    arrays = frame_of(depth, room, colours, grid=grid, rule=item.facts["position"])
    return {".": Content(".npz", encode_frame(arrays))}


def _item(frame: RawFrame, grid: Grid, rule: str) -> Item:
    facts: Mapping[str, Any] = {"grid": GridFacts(**asdict(grid)).model_dump(mode="json"), "position": rule}
    sources = (str(frame.depth), str(frame.room), str(frame.colours))
    return Item(frame.name + SUFFIX.removesuffix(".npz"), sources, facts)


def missing_halves(raw: Path, parts: Mapping[str, Path]) -> list[str]:
    """Sentences about a training folder without one for the test, and the other way round."""
    problems = []
    for kind in KINDS:
        there = [part for part in parts if part.removesuffix("train").removesuffix("test") == kind]
        if len(there) == 1:
            both = f"{kind}train and {kind}test"
            problems.append(f"{raw} has {there[0]} and no other half: {both} were expected. Add it.")
    return problems


def _refuse_parts(raw: Path, parts: Mapping[str, Path]) -> None:
    problems = missing_halves(raw, parts)
    if not parts:
        problems.append(
            f"{raw} has neither NYUtrain and NYUtest nor NYUCADtrain and NYUCADtest, and no {RAW_FOLDER} with them. "
            "Give the folder that holds depthbin."
        )
    if problems:
        raise InputError(problems)


def _frame(name: str) -> str:
    """What raw files and arrays of a frame are both known by: NYU0001_0000."""
    return name.removesuffix(SUFFIX.removesuffix(".npz"))


def _joined(prepared: Mapping[str, Prepared]) -> Prepared:
    """What became of all folders, with their names before those of the frames."""
    return Prepared(
        [f"{part}/{name}" for part, found in prepared.items() for name in found.done],
        [f"{part}/{name}" for part, found in prepared.items() for name in found.reused],
        [(f"{part}/{_frame(name)}", reason) for part, found in prepared.items() for name, reason in found.skipped],
    )


# ---- positions


def compare_positions(
    path: Path, frame: RawFrame, grid: Grid, *, rule: str = "reference", rewrite: bool = False
) -> int:
    """In how many pixels the positions of an .npz are not those of its raw files; may write the file again.

    Args:
        path: of the .npz.
        frame: its raw files.
        grid: sizes.
        rule: of positions.
        rewrite: put the computed positions in.
    """
    from xmodal.data.nyu.raw import read_depth, read_room

    room = read_room(frame.room, grid=grid)
    right = positions(read_depth(frame.depth, grid=grid), room.pose, room.origin, grid=grid, rule=rule)
    file = FrameFile(path)
    stored = file.arrays(["position"])["position"]
    if stored.shape != right.shape:
        raise InputError(
            f"{path} has positions of {stored.shape} pixels, and its raw depth {right.shape}. Prepare it again."
        )
    differing = int((stored != right).sum())
    if differing and rewrite:
        arrays = file.arrays(file.names())
        with written_whole(path) as beside:
            beside.write_bytes(encode_frame({**arrays, "position": right}))
    return differing


def _repair(
    root: Path,
    found: Mapping[str, list[RawFrame]],
    grid: Grid,
    rule: str,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Prepared:
    jobs, skipped = [], []
    for part, frames in found.items():
        for frame in frames:
            path = root / f"{part}{PACKED}" / f"{frame.name}{SUFFIX}"
            if path.is_file():
                jobs.append((path, frame, grid, rule, True))
            else:
                skipped.append((f"{part}/{frame.name}", f"{path.name} is not there"))
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

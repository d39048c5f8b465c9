"""Video: the frames that are shown at given moments, the sound track, and writing short clips. Needs PyAV.

A frame is shown from its own time to that of the next one, whatever the rate, the order of coding or the length of the
file; the moments are shares of the length that the file's header promises. What ends before is cut off, and refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

    from xmodal.data.sound import Sound

FRAME_RATE = Fraction(30_000, 1001)
SLACK = 0.5  # of a frame, by which the last one may end before the promised length
Pixels = NDArray[np.uint8]


def av_module() -> Any:
    """The package av, or the sentence that says how to install it."""
    try:
        import av
        import av.error
    except ImportError:
        raise MissingExtra("Reading and writing video", "av", "video") from None
    return av


def frames_at(path: str | Path, shares: Sequence[float], *, height: int, width: int) -> Pixels:
    """The frames shown at some shares of a video's length, resized: (shares, height, width, 3), RGB.

    Args:
        path: of the file.
        shares: from 0 to 1, ascending: 0.5 is the middle.
        height: of a frame, in pixels.
        width: of a frame, in pixels; the shape of the picture is not kept.
    """
    from PIL import Image

    size = (width, height)
    pictures = [image.resize(size, Image.Resampling.BILINEAR) for image in _shown(Path(path), shares)]
    return np.stack([np.asarray(picture, np.uint8) for picture in pictures])


def _shown(path: Path, shares: Sequence[float]) -> list[Image]:
    """The picture at each share, in its own size."""
    with _opened(path) as container:
        stream = _video(container, path)
        length = _length(path, stream)
        start = stream.start_time or 0
        wanted = [start + share * length for share in shares]
        found: list[Image] = []
        last, end = None, float(start)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            while last is not None and len(found) < len(wanted) and wanted[len(found)] < frame.pts:
                found.append(last.to_image())
            if len(found) == len(wanted):
                return found
            step = frame.duration or (frame.pts - last.pts if last is not None else 0)
            last, end = frame, frame.pts + (1 + SLACK) * step
        if last is None:
            raise InputError(f"{path.name} holds no frames with a time.")
        if wanted[-1] > end:
            unit = float(stream.time_base)
            raise InputError(
                f"{path.name} is cut off: it ends after {(end - start) * unit:.2f} s, and its header promises "
                f"{length * unit:.2f} s."
            )
        return found + [last.to_image()] * (len(wanted) - len(found))


def _length(path: Path, stream: Any) -> int:
    """How long a video lasts, in units of its time base; files that don't say it are read to their end."""
    if stream.duration:
        return int(stream.duration)
    with _opened(path) as container:
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(video=0) if packet.pts is not None]
    if not ends:
        raise InputError(f"{path.name} holds no frames with a time.")
    return int(max(ends)) - (stream.start_time or 0)


def read_track(path: Path) -> tuple[NDArray[np.float32], int]:
    """The first sound track of a file: (samples, channels) with ±1 as full scale, and the rate."""
    av = av_module()
    with _opened(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path.name} has no sound track.")
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        planar = av.AudioResampler(format="fltp", rate=rate)
        parts = [
            part.to_ndarray()
            for frame in container.decode(stream)
            for part in planar.resample(frame)  # another type of number, the same rate and channels
        ]
    if not parts:
        raise InputError(f"{path.name} holds no sound: its sound track is empty.")
    found: NDArray[np.float32] = np.concatenate(parts, axis=1).T
    return found, rate


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open file; what FFmpeg complains about is a sentence."""
    av = av_module()
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.FFmpegError as error:
        raise InputError(f"{path.name} is no video that can be read ({error.strerror}).") from None


def _video(container: Any, path: Path) -> Any:
    if not container.streams:
        raise InputError(f"{path.name} is no video that can be read (nothing in it is found; perhaps it is cut off).")
    if not container.streams.video:
        raise InputError(f"{path.name} has no pictures: a video stream was expected.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # several files are read at once, one in each process
    return stream


def write_clip(path: Path, frames: Iterable[Pixels], sound: Sound | None, *, quality: int = 20) -> None:
    """An mp4 file: H.264, and AAC where there is a sound.

    Args:
        path: to write.
        frames: (height, width, 3) each, RGB, of even height and width.
        sound: the track, as long as the frames.
        quality: constant rate factor of H.264; smaller is better.
    """
    av = av_module()
    # one thread: the bytes depend on how many there are
    options = {"preset": "ultrafast", "crf": str(quality), "threads": "1"}
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        video.pix_fmt = "yuv420p"
        track = (
            None
            if sound is None
            else container.add_stream("aac", rate=sound.rate, layout="mono", options={"aac_coder": "fast"})
        )
        for number, pixels in enumerate(frames):
            if not number:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None and track is not None:
            _write_track(av, container, track, sound)


def _write_track(av: Any, container: Any, track: Any, sound: Sound) -> None:
    step = 1024  # samples of a frame of AAC
    for first in range(0, len(sound.waveform), step):
        part = np.ascontiguousarray(sound.waveform[None, first : first + step])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sound.rate, first
        container.mux(track.encode(frame))
    container.mux(track.encode())

"""Small frames of a camera's video at given times. PyAV.

Times are seconds from the first frame that is shown. Missing frames are reported: a damaged video decodes without an
error to fewer frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError, Pixels

if TYPE_CHECKING:
    import av.container


Times = npt.NDArray[np.float64]

SIDE = 96
"""Longest side in pixels of the frames that are kept."""
_TICK = Fraction(1, 90_000)
_MOST_PIXELS = 33_177_600
"""8K: of one frame before it is made small."""


class Footage(NamedTuple):
    frames: Pixels
    """(K, h, w, 3): those that were found."""
    found: npt.NDArray[np.bool_]
    """(N,) which of the wanted times have one."""
    decoded: int


class Declared(NamedTuple):
    """What a video's header declares. `frames` 0: it does not say."""

    width: int
    height: int
    frames: int


@contextmanager
def open_video(data: bytes, name: str) -> Iterator[av.container.InputContainer]:
    """The video with its header read and one stream of images; whatever PyAV raises becomes a DecodeError."""
    try:
        import av
    except ImportError as error:
        raise DecodeError("error", "Cameras need PyAV. Run: pip install 'speciate[video]'") from error
    try:
        container = av.open(io.BytesIO(data), "r")
    except Exception as error:
        raise DecodeError("error", f"The video of {name!r} cannot be opened: {str(error)[:100]}") from error
    with container:
        if not container.streams.video:
            raise DecodeError("error", f"The video of {name!r} has no images.")
        context = container.streams.video[0].codec_context
        context.thread_count = 1
        if context.width * context.height > _MOST_PIXELS:
            detail = f"The video of {name!r} has {context.width} x {context.height} pixels, more than 8K."
            raise DecodeError("refused", detail)
        try:
            yield container
        except DecodeError:
            raise
        except Exception as error:  # FFmpeg's errors are of a dozen classes
            raise DecodeError("partial", f"The video of {name!r} is damaged: {str(error)[:100]}") from error


def declared_size(container: av.container.InputContainer) -> Declared:
    stream = container.streams.video[0]
    return Declared(stream.codec_context.width, stream.codec_context.height, stream.frames)


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height when the longest side is SIDE; what is smaller stays as it is."""
    scale = min(1.0, SIDE / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))


def frames_at(data: bytes, name: str, wanted: Times, tolerance: float, *, whole: bool, stride: int = 1) -> Footage:
    """The frames nearest to these times, ascending, each no further away than `tolerance` seconds.

    `whole`: every frame of the video is decoded, and as many as it declares must be there; else only from the last
    keyframe before the first of the times to the last of them. `stride`: every so many-th of the times has its frame
    kept, though all are looked for.
    """
    with open_video(data, name) as container:
        stream = container.streams.video[0]
        declared = declared_size(container)
        size = small_size(declared.width, declared.height)
        begin = _begin(stream)
        if not whole and len(wanted):
            container.seek(round((begin + wanted[0]) / stream.time_base), stream=stream)
        found = np.zeros(len(wanted), np.bool_)
        kept: list[Pixels] = []
        decoded = place = 0
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DecodeError("partial", f"The video of {name!r} is damaged: frame {decoded} does not decode.")
            decoded += 1
            time = float((frame.pts or 0) * (stream.time_base or 0)) - begin
            while place < len(wanted) and wanted[place] < time - tolerance:
                place += 1  # it has no frame
            if place < len(wanted) and abs(wanted[place] - time) <= tolerance:
                if place % stride == 0:
                    kept.append(_small(frame, size))
                found[place] = True
                place += 1
            if not whole and place == len(wanted):
                break
        if whole and declared.frames > decoded:
            detail = f"The video of {name!r} has {decoded} frames where it declares {declared.frames}."
            raise DecodeError("partial", detail)
    empty = np.zeros((0, size[1], size[0], 3), np.uint8)
    return Footage(np.stack(kept) if kept else empty, found, decoded)


def encode(frames: Sequence[Pixels] | Iterator[Pixels], times: Sequence[float], fps: float) -> bytes:
    """An MP4 (H.264, no frame that depends on a later one, a keyframe at least every second one as LeRobot has it) of
    frames (h, w, 3), odd sides padded by one pixel, each shown at its time."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = None
        for frame, time in zip(frames, times, strict=True):
            height, width = frame.shape[0] + frame.shape[0] % 2, frame.shape[1] + frame.shape[1] % 2
            if stream is None:
                options = {"crf": "18", "bf": "0", "g": "2", "threads": "1"}
                stream = container.add_stream("libx264", rate=max(1, round(fps)), options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = _TICK
            padded = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
            image = av.VideoFrame.from_ndarray(padded, format="rgb24")
            image.pts, image.time_base = round(time / _TICK), _TICK
            container.mux(stream.encode(image))
        if stream is not None:
            container.mux(stream.encode())
    return buffer.getvalue()


def _begin(stream: Any) -> float:
    """Time of the first frame that is shown, in seconds."""
    return float((stream.start_time or 0) * stream.time_base)


def _small(frame: Any, size: tuple[int, int]) -> Pixels:
    """Bilinear, by FFmpeg."""
    small: Pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    return small

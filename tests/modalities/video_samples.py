"""Small real videos of every container, encoded with PyAV from a photograph that moves; and what is far too long."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_sample_image

Pixels = npt.NDArray[np.uint8]


def panned(count: int = 24, size: tuple[int, int] = (96, 64), photo: str = "flower.jpg") -> list[Pixels]:
    """A window of `size` (width, height) that moves over a photograph of scikit-learn."""
    whole = load_sample_image(photo)[::2, ::2]
    width, height = size
    return [
        np.ascontiguousarray(whole[place : place + height, 2 * place : 2 * place + width]) for place in range(count)
    ]


def encode(
    frames: Sequence[Pixels],
    format: str = "mp4",  # noqa: A002 - PyAV's word
    codec: str = "libx264",
    *,
    fps: int = 25,
    gop: int = 12,
    times: Iterable[float] | None = None,
    sound: npt.NDArray[np.float32] | None = None,
    rotation: int = 0,
    size: tuple[int, int] | None = None,
    index_first: bool = False,
    **options: str,
) -> bytes:
    """The bytes of a video of (H, W, 3) frames. `times`: seconds of each, in the place of a constant rate. `sound`:
    (T,) at 16 kHz. `size`: width and height that frames are brought to. `index_first`: of an MP4. The same arguments
    give the same bytes."""
    muxer = {"fflags": "+bitexact", **({"movflags": "faststart"} if index_first else {})}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video"  # to lay the index first, the file is opened again
        _write(path, muxer, frames, format, codec, fps, gop, times, sound, rotation, size, options)
        return path.read_bytes()


def _write(
    path: Path, muxer: dict[str, str], frames: Sequence[Pixels], format: str, codec: str, fps: int, gop: int,  # noqa: A002
    times: Iterable[float] | None, sound: npt.NDArray[np.float32] | None, rotation: int,
    size: tuple[int, int] | None, options: dict[str, str],
) -> None:  # fmt: skip
    with av.open(path, "w", format=format, options=muxer) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size or (frames[0].shape[1], frames[0].shape[0])
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        stream.options = options
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        voice = _voice(container, format) if sound is not None else None
        stamps = [None] * len(frames) if times is None else [round(1000 * second) for second in times]
        for frame, stamp in zip(frames, stamps, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                width=stream.width, height=stream.height
            )
            picture.pts = stamp
            if stamp is not None:
                picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if voice is not None and sound is not None:
            _speak(container, voice, sound)


def sound_file(sound: npt.NDArray[np.float32], format: str = "ipod", codec: str = "aac") -> bytes:  # noqa: A002
    """(T,) at 16 kHz, without images."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options={"fflags": "+bitexact"}) as container:
        _speak(container, container.add_stream(codec, rate=16_000, layout="mono"), sound)
    return buffer.getvalue()


def _voice(container: Any, format: str) -> Any:  # noqa: A002
    codec, rate = ("libopus", 48_000) if format == "webm" else ("mp3" if format == "avi" else "aac", 16_000)
    return container.add_stream(codec, rate=rate, layout="mono")


def _speak(container: Any, voice: Any, sound: npt.NDArray[np.float32]) -> None:
    samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)[np.newaxis]
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "s16", "mono")
        frame.sample_rate, frame.pts = 16_000, start
        container.mux(voice.encode(frame))
    container.mux(voice.encode())


_HUM = (0.3 * np.sin(np.arange(16_000) / 10)).astype(np.float32)

VIDEOS = {
    "pan.mp4": encode(panned(), sound=_HUM),
    "pan.m4v": encode(panned(), index_first=True),
    "turned.mov": encode(panned(), "mov", rotation=90),
    "pan.mkv": encode(panned(), "matroska", "libx265", **{"x265-params": "log-level=none"}),
    "pan.webm": encode(panned(), "webm", "libvpx-vp9", sound=_HUM),
    "pan.avi": encode(panned(), "avi", "mpeg4"),
    "pictures.avi": encode(panned(), "avi", "mjpeg"),
}
ENDLESS = encode(panned(2), times=[0, 20 * 3600])
"""Claims to last twenty hours."""


DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def moving(seed: int, *ways: tuple[float, float], count: int = 16, side: int = 48) -> list[Pixels]:
    """Discs of different gray that move over noise, each by so many pixels to the right and down from frame to frame.
    They begin anywhere and come in again at the other side, so that no single frame tells whither they move."""
    generator = np.random.default_rng(seed)
    ground = generator.integers(60, 110, (side, side, 1)).repeat(3, axis=2)
    discs = [(generator.uniform(0, side, 2), generator.uniform(5, 8), generator.integers(150, 255, 3)) for _ in ways]
    y, x = np.indices((side, side))
    frames = []
    for step in range(count):
        frame = ground.copy()
        for (start, radius, colour), way in zip(discs, ways, strict=True):
            across, down = (np.abs((axis - place - speed * step + side / 2) % side - side / 2)
                            for axis, place, speed in zip((x, y), start, way, strict=True))  # fmt: skip
            frame[across**2 + down**2 < radius**2] = colour
        frames.append(frame.astype(np.uint8))
    return frames


def clip(seed: int, *ways: tuple[float, float], **more: Any) -> bytes:
    """The same as a video of 0.64 seconds."""
    return encode(moving(seed, *ways), gop=16, crf="20", **more)

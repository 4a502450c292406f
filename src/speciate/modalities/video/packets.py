"""The packets of a video, without decoding a frame: PyAV reads the container, and the number of packets is compared
with the header's.

Missing frames are told apart from a variable frame rate. The rate is constant if nine of ten intervals between frames
are the usual one, within a tenth; then an interval of several usual ones is a gap, in which frames are missing.
Otherwise the rate is variable, and an interval of any length means nothing.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError
from speciate.modalities.video.containers import Container, container_of, missing, rotation

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


LONGEST = 12 * 3600
"""Seconds."""
MOST_PIXELS = 40_000_000
"""Most pixels of one frame; 8K has 33 million."""
MOST_PACKETS = 3_000_000
_MOST_STREAMS = 64
_BUFFER = 1 << 18
_NAMES = {"mp4": "mp4", "matroska": "matroska", "avi": "avi"}
_JITTER, _USUAL_SHARE = 0.1, 0.9
_ODDEST_PIXEL = 8
_DEEPEST_REORDERING = 16  # frames, in H.264 and HEVC
_SHORT_BY = 1.0  # seconds

Ticks = npt.NDArray[np.int64]


class OpenVideo(NamedTuple):
    """A video whose header was read and is within the budgets."""

    container: InputContainer
    stream: VideoStream
    kind: Container
    rotation: int
    """Degrees counterclockwise."""
    width: int
    height: int
    """`width` and `height` in pixels as the video is shown: turned, and with square pixels."""

    @property
    def tick(self) -> Fraction:
        """Seconds."""
        return Fraction(self.stream.time_base or Fraction(1, 1000))

    @property
    def origin(self) -> int:
        """The time stamp that counts as 0 seconds."""
        return self.stream.start_time or 0

    def seconds(self, ticks: Ticks) -> npt.NDArray[np.float64]:
        """Ticks as seconds, to the microsecond."""
        return np.asarray(((ticks - self.origin) * float(self.tick)).round(6))

    def ticks(self, seconds: float) -> int:
        """The first time stamp that is not before."""
        return self.origin + math.ceil(seconds / float(self.tick) - 1e-3)


class Rate(NamedTuple):
    frame_rate: str
    """`constant` or `variable`."""
    gaps: int
    """Intervals in which frames are missing."""
    missing_frames: int


class AudioTrack(NamedTuple):
    codec: str = "none"
    seconds: float = 0.0
    channels: int = 0


class PacketIndex(NamedTuple):
    codec: str
    stamps: Ticks
    """(N,) time stamps of the frames, ascending."""
    keys: Ticks
    """Time stamps of the frames that can be decoded without another, ascending."""
    end: int
    """Where the last frame ends."""
    rate: Rate
    audio: AudioTrack
    packets: bytes
    """Digest of the encoded frames: the same in another container."""
    missing: str | None
    """Declared parts that are missing."""


@contextmanager
def open_video(data: bytes) -> Iterator[OpenVideo]:
    """Whatever PyAV raises becomes an error, also in the caller's block; REFUSED if a budget is exceeded."""
    try:
        import av
    except ImportError as error:
        raise DecodeError("error", "Videos need PyAV. Run: pip install 'speciate[video]'") from error
    kind = container_of(data)
    if kind is None:
        reason = "Not an MP4, MOV, Matroska, WebM or AVI file." if data else "The file is empty."
        raise DecodeError("error", reason)
    if (lacking := missing(data, kind)) and lacking.of_index:
        raise DecodeError("error", lacking.why)
    try:
        with av.open(
            io.BytesIO(data), "r", format=_NAMES[kind], buffer_size=_BUFFER, metadata_errors="replace"
        ) as container:
            stream = _video_stream(container)
            _check_budget(container, stream)
            stream.codec_context.thread_count = 1  # there are as many processes as cores
            turned = rotation(data, kind)
            yield OpenVideo(container, stream, kind, turned, *_display_size(stream, turned))
    except DecodeError:
        raise
    except Exception as error:
        if lacking:
            raise DecodeError("partial", lacking.why) from error
        raise DecodeError("error", f"The header or a packet is damaged: {_words(error)}.") from error


def index_packets(data: bytes, video: OpenVideo) -> PacketIndex:
    """Reads every packet of images and audio once. ERROR without a frame, REFUSED beyond the budgets."""
    stream, digest = video.stream, hashlib.sha256()
    audio = next((each for each in video.container.streams.audio if each.codec_context is not None), None)
    stamps: list[int] = []
    keys: list[int] = []
    frames, audio_packets, last, audio_end = 0, 0, 0, 0
    for packet in video.container.demux([each for each in (stream, audio) if each is not None]):
        if not packet.size:  # also the end
            continue
        if packet.stream_index != stream.index:
            audio_packets += 1
            audio_end = max(audio_end, (packet.pts or 0) + (packet.duration or 0))
            continue
        frames += 1
        if frames > MOST_PACKETS:
            raise DecodeError("refused", f"More than {MOST_PACKETS:,} frames.")
        stamp = packet.pts if packet.pts is not None else packet.dts if packet.dts is not None else frames - 1
        digest.update(memoryview(packet))
        if packet.is_discard:  # before the beginning that an edit list sets
            continue
        stamps.append(stamp)
        last = packet.duration or 0
        if packet.is_keyframe:
            keys.append(stamp)
    if not stamps:
        raise DecodeError("error", "It has no frame.")
    if not keys:
        raise DecodeError("error", "It has no keyframe: nothing of it can be decoded.")
    found = np.unique(np.array(stamps, np.int64))
    rate, usual = _rate(found)
    end = int(found[-1]) + (last or usual or 1)
    lacking = missing(data, video.kind)
    return PacketIndex(
        codec=stream.codec_context.codec.canonical_name,
        stamps=found,
        keys=np.unique(np.array(keys, np.int64)),
        end=end,
        rate=rate,
        audio=_audio_track(audio, audio_end),
        packets=digest.digest(),
        missing=lacking.why if lacking else _fewer(video, frames, end, audio, audio_packets, audio_end),
    )


class Span(NamedTuple):
    """A part of a video."""

    stamps: Ticks
    """(N,) of the frames in it, ascending: one at least, which is shown at its beginning."""
    keys: Ticks
    """Time stamps of the keyframes in it, and of one before where it begins with another frame."""


def span(video: OpenVideo, start: int, stop: int) -> Span:
    """The frames from the time stamp `start` up to `stop`, from the packets between the keyframe before and the end of
    the span alone; if none begins in it, the one that is still shown. ERROR without any frame."""
    begin = start
    while True:
        found = _packets(video, begin, stop)
        stamps = np.array(sorted(found), np.int64)
        keys = np.array(sorted(stamp for stamp, is_key in found.items() if is_key), np.int64)
        if (len(keys) and keys[0] <= start) or begin <= video.origin:
            break
        begin = max(video.origin, begin - 2 * (start - begin) - math.ceil(1 / video.tick))
    if not len(stamps):
        raise DecodeError("error", "It has no frame there.")
    within = stamps[stamps >= start]
    if not len(within):
        within = stamps[-1:]
    return Span(within, keys[max(int(np.searchsorted(keys, within[0], side="right")) - 1, 0) :])


def _packets(video: OpenVideo, begin: int, stop: int) -> dict[int, bool]:
    """Time stamp -> whether it is a keyframe, of the frames from the keyframe before `begin` up to `stop`."""
    stream, found = video.stream, dict[int, bool]()
    video.container.seek(begin, stream=stream, backward=True)
    for packet in video.container.demux(stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or stamp is None or packet.is_discard:
            continue
        if stamp < stop:
            found[stamp] = packet.is_keyframe
        decoded = packet.dts if packet.dts is not None else stamp - _DEEPEST_REORDERING * (packet.duration or 1)
        if decoded >= stop:  # whatever is decoded later is shown later
            break
    return found


def _video_stream(container: InputContainer) -> VideoStream:
    if len(container.streams) > _MOST_STREAMS:
        raise DecodeError("refused", f"{len(container.streams)} streams, more than {_MOST_STREAMS}.")
    import av.stream

    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            if stream.codec_context is None:
                raise DecodeError("error", "Its codec is not known here.")
            return stream
    only_audio = ", only audio: modality='audio' reads it" if container.streams.audio else ""
    raise DecodeError("error", f"It has no images{only_audio}.")


def _check_budget(container: InputContainer, stream: VideoStream) -> None:
    context = stream.codec_context
    if context.width * context.height > MOST_PIXELS:
        raise DecodeError("refused", f"Frames of {context.width} x {context.height} pixels, more than {MOST_PIXELS:,}.")
    if context.width < 1 or context.height < 1:
        raise DecodeError("error", "Its frames have no size.")
    seconds = (container.duration or 0) / 1_000_000
    if stream.duration is not None and stream.time_base is not None:
        seconds = max(seconds, float(stream.duration * stream.time_base))
    if seconds > LONGEST:
        raise DecodeError("refused", f"{seconds:,.0f} seconds, more than {LONGEST:,}.")
    if stream.frames > MOST_PACKETS:
        raise DecodeError("refused", f"{stream.frames:,} frames, more than {MOST_PACKETS:,}.")


def _display_size(stream: VideoStream, turned: int) -> tuple[int, int]:
    """Width and height with square pixels, upright. An implausible shape of pixels is ignored."""
    width, height = stream.codec_context.width, stream.codec_context.height
    shape = stream.sample_aspect_ratio
    if shape and 1 / _ODDEST_PIXEL <= shape <= _ODDEST_PIXEL:
        width = max(round(width * shape), 1)
    return (height, width) if turned in (90, 270) else (width, height)


def _rate(stamps: Ticks) -> tuple[Rate, int]:
    """The frame rate, and the usual interval in ticks."""
    if len(stamps) < 3:
        return Rate("constant", 0, 0), int(stamps[-1] - stamps[0])
    intervals = np.diff(stamps)
    usual = float(np.median(intervals))
    apart = np.abs(intervals - usual) <= max(_JITTER * usual, 1.0)  # a tick is what rounding does
    if apart.mean() < _USUAL_SHARE:
        return Rate("variable", 0, 0), round(usual)
    lacking = np.rint(intervals / usual).astype(np.int64) - 1
    return Rate("constant", int((lacking > 0).sum()), int(lacking[lacking > 0].sum())), round(usual)


def _audio_track(stream: Any, end: int) -> AudioTrack:
    if stream is None:
        return AudioTrack()
    seconds = float(end * stream.time_base) if stream.time_base is not None else 0.0
    return AudioTrack(
        stream.codec_context.codec.canonical_name, round(max(seconds, 0.0), 3), int(stream.codec_context.channels)
    )


def _fewer(video: OpenVideo, frames: int, end: int, audio: Any, audio_packets: int, audio_end: int) -> str | None:
    """A message if there is less than the header declares. In AVI a frame that only repeats the last one has no packet.
    Matroska declares no number, but the length of images or audio, whichever lasts longer."""
    declared, stream = video.stream.frames, video.stream
    if video.kind == "avi" and stream.average_rate:
        frames = max(frames, round(float((end - video.origin) * video.tick * stream.average_rate)))
    if frames < declared:
        return f"{frames:,} frames where the header declares {declared:,}."
    if video.kind == "mp4" and audio is not None and audio_packets < audio.frames:
        return f"{audio_packets:,} packets of audio where the header declares {audio.frames:,}."
    if video.kind == "matroska" and len(video.container.streams) == 1 + (audio is not None):
        there = max(float(end * video.tick), float(audio_end * audio.time_base) if audio is not None else 0.0)
        if there + _SHORT_BY < (whole := (video.container.duration or 0) / 1_000_000):
            return f"{there:.1f} seconds where the header declares {whole:.1f}."
    return None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200].rstrip(".")

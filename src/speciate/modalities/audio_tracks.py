"""Audio tracks of MP4 and M4A, MOV, Matroska, WebM and AVI files, with or without video. PyAV.

The number of packets is compared with the header's, and the decoded length with the length that the packets declare:
decoders take a track that ends early for a shorter one. The first of several tracks is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate.modalities.contract import DecodeError, Vector
from speciate.modalities.video.containers import Container, Missing, container_of, missing

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer


_BUFFER = 1 << 18
_MOST_PACKETS = 4_000_000
_SHORT_BY = 0.1  # seconds; what encoders put before and behind is less
_SLACK = 0.01  # of the whole


class Track(NamedTuple):
    container: InputContainer
    stream: AudioStream
    kind: Container
    missing: Missing | None

    @property
    def sample_rate(self) -> int:
        return self.stream.codec_context.sample_rate or 0

    @property
    def channels(self) -> int:
        return int(self.stream.codec_context.channels or 0)

    @property
    def seconds(self) -> float:
        """Length in seconds, as the header has it: of the track, or else of the file."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return (self.container.duration or 0) / 1_000_000

    @property
    def format(self) -> str:
        """`aac in mp4`."""
        return f"{self.stream.codec_context.codec.canonical_name} in {self.kind}"


def is_container(data: bytes) -> bool:
    return container_of(data) is not None


@contextmanager
def open_track(data: bytes) -> Iterator[Track]:
    """The file with its header read; whatever PyAV then raises becomes an error."""
    try:
        import av
    except ImportError as error:
        raise DecodeError("error", "Audio in videos needs PyAV. Run: pip install 'speciate[video]'") from error
    kind = container_of(data)
    assert kind is not None, "is_container says so"
    lacking = missing(data, kind)
    if lacking and lacking.of_index:
        raise DecodeError("error", lacking.why)
    try:
        with av.open(io.BytesIO(data), "r", format=kind, buffer_size=_BUFFER, metadata_errors="replace") as container:
            stream = next((each for each in container.streams.audio if each.codec_context is not None), None)
            if stream is None:
                raise DecodeError("error", "It has no audio.")
            stream.codec_context.thread_count = 1  # there are as many processes as cores
            yield Track(container, stream, kind, lacking)
    except DecodeError:
        raise
    except Exception as error:
        if lacking:
            raise DecodeError("partial", lacking.why) from error
        raise DecodeError("error", f"The header or a packet is damaged: {str(error)[:200].rstrip('.')}.") from error


def read_track(track: Track, sample_rate: int) -> Vector:
    """(T,) the mean of its channels. PARTIAL where it decodes to less than it declares."""
    import av
    import soxr

    if track.missing:
        raise DecodeError("partial", track.missing.why)
    floats = av.AudioResampler(format="fltp", layout=track.stream.codec_context.layout)
    resample: Any = None
    parts, packets, broken, decoded, end = list[Vector](), 0, 0, 0.0, 0.0
    for packet in track.container.demux(track.stream):
        if packet.size:
            packets += 1
            end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * (packet.time_base or 0)))
        if packets > _MOST_PACKETS:
            raise DecodeError("refused", f"More than {_MOST_PACKETS:,} packets of audio.")
        try:
            frames = packet.decode()
        except av.FFmpegError:
            broken += 1
            continue
        for frame in frames:
            decoded += frame.samples / frame.sample_rate
            if resample is None:
                resample = soxr.ResampleStream(frame.sample_rate, sample_rate, 1, dtype="float32")
            for piece in floats.resample(frame):
                mono = np.ascontiguousarray(piece.to_ndarray().mean(axis=0, dtype=np.float32))
                parts.append(resample.resample_chunk(mono, last=False))
    if resample is None:
        raise DecodeError("error", "None of its audio can be decoded.")
    parts.append(resample.resample_chunk(np.zeros(0, np.float32), last=True))
    if broken:
        raise DecodeError("partial", f"{broken:,} of {packets:,} packets of audio cannot be decoded.")
    if track.kind == "mp4" and packets < track.stream.frames:
        raise DecodeError("partial", f"{packets:,} packets of audio where the header declares {track.stream.frames:,}.")
    start = float((track.stream.start_time or 0) * (track.stream.time_base or 0))
    if decoded + _SHORT_BY + _SLACK * end < end - start:
        raise DecodeError("partial", f"{decoded:.2f} seconds of audio where its packets last {end - start:.2f}.")
    return np.concatenate(parts)

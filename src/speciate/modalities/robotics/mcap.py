"""One MCAP file as one episode: its numeric topics on one clock, its compressed images as cameras.

The clock is the topic of actions with most messages, else the topic of numbers with most: each of its messages is a
step, at its log time. Every other topic counts with its last message until then (nearest previous), and steps before
the first message of any of them are left out. Topics whose name has the word action, command, cmd or target are
actions, all other numbers are state. Numbers within texts, in headers and stamps, and lists that change their length
are left out; attachments are not read.

Messages are JSON; protobuf and ROS 2 where the packages that decode them are installed.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError, Pixels
from speciate.modalities.robotics.episode_files import Meta, Recording, Times, Track, check_finite, check_size
from speciate.modalities.video.footage import small_size

MAGIC = b"\x89MCAP0\r\n"
_MOST_BYTES = 2 << 30
"""Most bytes of all chunks together, decompressed."""
_MOST_MESSAGES = 5_000_000
_MOST_NUMBERS = 512
"""Most numbers of one message."""
_MOST_PIXELS = 64_000_000
_ACTION = re.compile(r"(^|[/_.\-])(action|actions|command|commands|cmd|target|targets)([/_.\-]|$)")
_IMAGE = re.compile(r"(^|[/.])CompressedImage$")
_SKIPPED = {"header", "stamp", "seq", "timestamp"}
_DECODERS = {
    "protobuf": ("mcap_protobuf.decoder", "mcap-protobuf-support"),
    "cdr": ("mcap_ros2.decoder", "mcap-ros2-support"),
}  # fmt: skip
"""Encoding of messages -> the module whose DecoderFactory reads it, and the package that has it."""


class Facts(NamedTuple):
    """Facts of the summary at the end of the file."""

    messages: int
    topics: tuple[str, ...]
    seconds: float


class _Topic(NamedTuple):
    times: list[float]
    values: list[Any]
    """Name -> number of each message; or the bytes of an image."""


def facts(data: bytes) -> Facts:
    """Raises DecodeError(partial) if the file ends early, with the number of messages until then."""
    from mcap.reader import make_reader

    try:
        summary = make_reader(io.BytesIO(data)).get_summary() if data.endswith(MAGIC) else None
    except Exception:  # noqa: BLE001 - a summary that cannot be read is none
        summary = None
    if summary is None or summary.statistics is None:
        raise DecodeError("partial", f"The file ends early or has no summary: {_readable(data):,} messages are there.")
    statistics = summary.statistics
    size = sum(index.uncompressed_size for index in summary.chunk_indexes)
    if size > _MOST_BYTES or statistics.message_count > _MOST_MESSAGES:
        raise DecodeError("refused", f"{statistics.message_count:,} messages in {size:,} bytes are more than are read.")
    topics = tuple(sorted({channel.topic for channel in summary.channels.values()}))
    seconds = max(0.0, (statistics.message_end_time - statistics.message_start_time) / 1e9)
    return Facts(statistics.message_count, topics, seconds)


def read(data: bytes) -> Recording:
    """The episode; Raises DecodeError if the file is damaged, ends early, or holds no numbers that can be read."""
    topics, images, unread = _topics_by_kind(_messages(data), facts(data))
    if not topics:
        encodings = ", ".join(f"{count} of {name}" for name, count in sorted(unread.items())) or "none"
        hints = [f"pip install {_DECODERS[name][1]}" for name in unread if name in _DECODERS]
        raise DecodeError(
            "error", f"No topic holds numbers that can be read; messages left unread: {encodings}. {' '.join(hints)}"
        )
    actions = [name for name in topics if _ACTION.search(name)]
    clock = max(actions or topics, key=lambda name: len(topics[name].times))
    begin = max(topic.times[0] for topic in (*topics.values(), *images.values()))
    times = np.unique(np.array(topics[clock].times))
    times = times[times >= begin]
    if not len(times):
        raise DecodeError("error", "No moment at which every topic has a message.")
    columns = {name: _resampled(topic, times) for name, topic in sorted(topics.items())}
    check_size(len(times), sum(len(names) for names, _ in columns.values()), len(images))
    state, action = (
        _together({name: column for name, column in columns.items() if (name in actions) == wanted}, len(times))
        for wanted in (False, True)
    )
    fps = round((len(times) - 1) / (times[-1] - times[0]), 6) if len(times) > 1 else 1.0
    tracks = {name.strip("/").replace("/", "."): _track(topic, times) for name, topic in sorted(images.items())}
    meta = Meta(
        steps=len(times), fps=min(fps, 100_000.0), state=state.names, action=action.names, cameras=tuple(tracks)
    )  # fmt: skip
    since = times - times[0]
    return Recording(meta, since, state.values.astype(np.float32), action.values.astype(np.float32), tracks)


def _messages(data: bytes) -> Iterator[tuple[Any, Any, Any]]:
    """Schema, channel and message, by log time; whatever the library raises becomes a DecodeError."""
    from mcap.reader import make_reader

    try:
        yield from make_reader(io.BytesIO(data), validate_crcs=True).iter_messages()
    except Exception as error:
        raise DecodeError("error", f"The file is damaged: {type(error).__name__}: {str(error)[:200]}") from error


def _topics_by_kind(
    messages: Iterator[tuple[Any, Any, Any]], declared: Facts
) -> tuple[dict[str, _Topic], dict[str, _Topic], Counter[str]]:
    """Topics of numbers, topics of images, and how many messages of which encoding were left unread."""
    topics, images, unread = dict[str, _Topic](), dict[str, _Topic](), Counter[str]()
    decoders = dict[int, Any]()
    count = 0
    for schema, channel, message in messages:
        count += 1
        if channel.id not in decoders:
            decoders[channel.id] = _decoder(channel.message_encoding, schema)
        if decoders[channel.id] is None:
            unread[channel.message_encoding] += 1
            continue
        try:
            content = decoders[channel.id](message.data)
        except Exception as error:
            detail = f"A message of {channel.topic[:60]!r} is damaged: {str(error)[:100]}"
            raise DecodeError("error", detail) from error
        is_image = schema is not None and _IMAGE.search(schema.name)
        value = _image_bytes(content) if is_image else dict(_numbers(content))
        if value:
            topic = (images if is_image else topics).setdefault(channel.topic, _Topic([], []))
            topic.times.append(message.log_time / 1e9)
            topic.values.append(value)
    if count < declared.messages:
        raise DecodeError("partial", f"{count:,} messages where the summary declares {declared.messages:,}.")
    return topics, images, unread


def _decoder(encoding: str, schema: Any) -> Any:
    """bytes -> message; None for an unsupported encoding."""
    if encoding == "json":
        return json.loads
    if encoding not in _DECODERS:
        return None
    try:
        factory = importlib.import_module(_DECODERS[encoding][0]).DecoderFactory()
        return factory.decoder_for(encoding, schema)
    except ImportError:
        return None
    except Exception as error:
        raise DecodeError("error", f"A schema is damaged: {str(error)[:100]}") from error


def _numbers(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """The numbers in a message, each with the way to it: `position.x`, `joints.0`."""
    if isinstance(content, bool | int | float | np.number):
        yield name or "value", float(content)
    elif isinstance(content, list | tuple | np.ndarray) and depth < 4 and len(content) <= _MOST_NUMBERS:
        for place, part in enumerate(content):
            yield from _numbers(part, f"{name}.{place}".lstrip("."), depth + 1)
    elif not isinstance(content, str | bytes | None) and depth < 4:
        for key, part in _fields(content).items():
            if key not in _SKIPPED:
                yield from _numbers(part, f"{name}.{key}".lstrip("."), depth + 1)


def _fields(content: Any) -> Mapping[str, Any]:
    """The fields of a JSON object, a protobuf message, or a ROS message, which is a plain object."""
    if isinstance(content, dict):
        return {str(key): part for key, part in content.items()}
    if hasattr(content, "DESCRIPTOR"):
        return {field.name: getattr(content, field.name) for field in content.DESCRIPTOR.fields}
    return {name: getattr(content, name) for name in getattr(content, "__slots__", ()) if not name.startswith("_")}


def _image_bytes(content: Any) -> bytes:
    data = _fields(content).get("data", b"")
    return base64.b64decode(data) if isinstance(data, str) else bytes(data)


class _Columns(NamedTuple):
    names: tuple[str, ...]
    values: npt.NDArray[np.float64]  # (T, K)


def _resampled(topic: _Topic, times: Times) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """The numbers that every message of the topic has, (T, K): at each time those of the last message until then."""
    shared = set(topic.values[0]).intersection(*(set(each) for each in topic.values))
    names = tuple(name for name in topic.values[0] if name in shared)[:_MOST_NUMBERS]
    places = np.searchsorted(np.array(topic.times), times, side="right") - 1
    rows = np.array([[each[name] for name in names] for each in topic.values], np.float64)
    return names, rows.reshape(len(topic.values), len(names))[places]


def _together(columns: Mapping[str, tuple[tuple[str, ...], npt.NDArray[np.float64]]], steps: int) -> _Columns:
    names = tuple(f"{topic.strip('/')}.{name}" for topic, (each, _) in columns.items() for name in each)
    parts = [values for _, values in columns.values()]
    found = np.concatenate(parts, axis=1) if parts else np.zeros((steps, 0))
    check_finite(found, "recording")
    return _Columns(names, found)


def _track(topic: _Topic, times: Times) -> Track:
    """Images on the file's own clock: each step sees the last one until then."""
    clock = np.array(topic.times)
    at = clock[np.searchsorted(clock, times, side="right") - 1]
    size = _size(topic.values[0])
    return Track(at, _Images(clock, topic.values, size).frames, 3 * size[0] * size[1])


class _Images(NamedTuple):
    times: Times
    files: Sequence[bytes]
    size: tuple[int, int]

    def frames(self, wanted: Times, whole: bool, stride: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        places = np.searchsorted(self.times, wanted)
        found = np.stack([_decode_image(self.files[place], self.size) for place in places[::stride]])
        return found, np.ones(len(wanted), np.bool_)


def _size(file: bytes) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
    except Exception as error:
        raise DecodeError("error", f"An image is damaged: {str(error)[:100]}") from error
    if width * height > _MOST_PIXELS:
        raise DecodeError("refused", f"An image of {width} x {height} pixels.")
    return small_size(width, height)


def _decode_image(file: bytes, size: tuple[int, int]) -> Pixels:
    from PIL import Image

    _size(file)
    try:
        with Image.open(io.BytesIO(file), formats=("JPEG", "PNG", "WEBP")) as image:
            image.draft("RGB", (2 * size[0], 2 * size[1]))
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    except Exception as error:
        raise DecodeError("partial", f"An image is damaged: {str(error)[:100]}") from error


def _readable(data: bytes) -> int:
    """How many messages can be read from the beginning until the file breaks off."""
    from mcap.reader import NonSeekingReader

    count = 0
    try:
        for _ in NonSeekingReader(io.BytesIO(data)).iter_messages(log_time_order=False):
            count += 1
            if count > _MOST_MESSAGES:
                break
    except Exception:  # noqa: BLE001 - that is where it breaks off
        pass
    return count

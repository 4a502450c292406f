"""The sandboxed half of `inspect_log.py`: reads a log of inspect-ai (`.eval`, a zip with a JSON file for each sample,
or
one JSON file) without inspect-ai.

What is read is bounded: members by their sizes as they are unpacked, not as the zip says; names are only compared,
never written to. What is not understood of a sample makes it an error, or is left out.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import pyarrow as pa

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

MOST_BYTES = 1 << 30
"""Size of the largest log that is read."""
_MOST_JSON, _MOST_MEMBER, _MOST_SAMPLES = 256 << 20, 64 << 20, 200_000
_LONGEST_TEXT, _LONGEST_NAME = 1 << 20, 200
_PAGE = 8 << 20
"""Characters that one answer of this service holds, about."""
_SAMPLE = re.compile(r"samples/[^/\\]+\.json")
_ZSTD = 93
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ATTACHED = "attachment://"
_NOT_ANSWERED = {"content_filter": "the model withheld its answer (content_filter)", "max_tokens": "cut by length"}


class Sample(NamedTuple):
    """One sample in one epoch. Seconds, USD and tokens as the log has them; None where it has not."""

    id: str
    epoch: int
    input: str
    output: str | None
    error: str | None
    input_tokens: int | None
    output_tokens: int | None
    usage: dict[str, tuple[int, int]]
    """Input and output tokens by model, for prices."""
    usd: float | None
    latency_s: float | None


class LogRequest(TypedDict):
    file: str
    identity: str
    start: int
    """The first sample."""


class LogPage(TypedDict):
    model: str
    status: str
    samples: list[Mapping[str, object]]
    """`Sample`s."""
    next: int | None
    """The first sample of the next page; None: these were the last."""
    unreadable: int


def read(payload: LogRequest) -> LogPage:
    """The service."""
    log = _open_log(payload["file"], payload["identity"])
    samples, size, place = list[Mapping[str, object]](), 0, int(payload["start"])
    unreadable = 0
    while place < log.count and size < _PAGE:
        try:
            sample = _sample(log.sample(place))
        except (ValueError, KeyError, TypeError, RecursionError, zlib.error, OSError):
            unreadable += 1
        else:
            size += len(sample.input) + len(sample.output or "")
            samples.append(sample._asdict())
        place += 1
    return {
        "model": log.model,
        "status": log.status,
        "samples": samples,
        "next": place if place < log.count else None,
        "unreadable": unreadable,
    }


def log_identity(path: Path) -> str:
    """What a log of this content is known by. INVALID where it is too large, or no plain file."""
    try:
        opened = foreign_files.open_named(path)
    except foreign_files.NotAFile as error:
        raise foreign_files.unreadable(path, error) from error
    with opened as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise SpeciateError(
                Code.INVALID, f"{path.name} has more than {MOST_BYTES >> 30} GiB.", "Name a log with fewer samples."
            )
        return f"inspect-{hashlib.file_digest(file, 'sha256').hexdigest()}"


# The file


class _Log(ABC):
    def __init__(self, header: Mapping[str, Any]) -> None:
        spec = header.get("eval")
        model = spec.get("model") if isinstance(spec, dict) else None
        self.model = _name(model) or "unknown"
        self.status = _name(header.get("status")) or "unknown"
        self.count = 0

    @abstractmethod
    def sample(self, place: int) -> Mapping[str, Any]: ...


class _Whole(_Log):
    """One JSON file."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(said)
        samples = said.get("samples")
        self._samples = samples if isinstance(samples, list) else []
        self.count = min(len(self._samples), _MOST_SAMPLES)

    def sample(self, place: int) -> Mapping[str, Any]:
        return _object(self._samples[place])


class _Zip(_Log):
    """Python's own zipfile only lists the members: before 3.14 it cannot unpack Zstandard, which inspect-ai writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
        if "header.json" not in members:
            raise ValueError("it has no header.json, so the evaluation did not end")
        super().__init__(_object(json.loads(self._bytes(members["header.json"]))))
        self._members = [info for name, info in members.items() if _SAMPLE.fullmatch(name)][:_MOST_SAMPLES]
        self.count = len(self._members)

    def sample(self, place: int) -> Mapping[str, Any]:
        return _object(json.loads(self._bytes(self._members[place])))

    def _bytes(self, info: zipfile.ZipInfo) -> bytes:
        with self._path.open("rb") as file:
            file.seek(info.header_offset)
            header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if header[0] != b"PK\x03\x04" or info.flag_bits & 1 or info.compress_size > _MOST_MEMBER:
                raise ValueError("a member that is no file, is encrypted or too large")
            file.seek(header[9] + header[10], 1)
            data = _decompress(file.read(info.compress_size), info.compress_type)
        if len(data) > _MOST_MEMBER:
            raise ValueError("a member is too large")
        if zlib.crc32(data) != info.CRC:
            raise ValueError("a member is damaged")
        return data


def _decompress(packed: bytes, form: int) -> bytes:
    """The member's bytes, at most one more than a member may have."""
    if form == zipfile.ZIP_STORED:
        return packed
    if form == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _MOST_MEMBER + 1)
    if form != _ZSTD:
        raise ValueError(f"a member is packed by method {form}")
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return bytes(stream.read(_MOST_MEMBER + 1))


@functools.lru_cache(maxsize=1)
def _open_log(path: str, identity: str) -> _Log:
    """Known for the next page. Raises CONFLICT where the file has changed, INVALID where it is no log."""
    name = Path(path).name
    if log_identity(Path(path)) != identity:
        raise SpeciateError(
            Code.CONFLICT, f"{name} has changed since the evaluation was asked for.", "Call evaluate_models again."
        )
    try:
        log: _Log = _Zip(Path(path)) if zipfile.is_zipfile(path) else _Whole(_json_file(Path(path)))
    except (ValueError, RecursionError, zipfile.BadZipFile, zlib.error, struct.error, OSError) as error:
        raise _no_log(str(error)[:200]) from error
    if log.count == 0:
        raise _no_log("it holds no samples; inspect-ai leaves them out with --no-log-samples")
    return log


def _json_file(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MOST_JSON:
        raise ValueError(f"more than {_MOST_JSON >> 20} MiB of JSON; write it as .eval: inspect log convert")
    return _object(json.loads(path.read_bytes()))


def _no_log(why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The file is no finished log of inspect-ai: {why}.",
        "Name one as inspect-ai writes it: 'inspect:PATH.eval', or '.json'.",
    )


# A sample


def _sample(said: Mapping[str, Any]) -> Sample:
    attached = said.get("attachments")
    attached = attached if isinstance(attached, dict) else {}
    answer, stopped, seconds = _completion(said.get("output"), attached)
    error = said.get("error")
    if isinstance(error, dict):
        answer, why = None, _text(error.get("message"), attached)[:300] or "the sample failed"
    else:
        why = _NOT_ANSWERED.get(stopped or "", "") or ("the log holds no answer" if not answer else "")
    usage = dict(_usage(said.get("model_usage")))
    total = [sum(counts[place] for counts in usage.values()) if usage else None for place in (0, 1)]
    if not isinstance(said["id"], str | int):
        raise TypeError("an invalid id")
    return Sample(
        str(said["id"])[:_LONGEST_NAME],
        int(said["epoch"]),
        _input_text(said["input"], attached)[:_LONGEST_TEXT],
        None if why else answer,
        why or None,
        total[0],
        total[1],
        usage,
        _cost(said.get("model_usage")),
        seconds if seconds is not None else _number(said.get("working_time")),
    )


def _completion(output: Any, attached: Mapping[str, Any]) -> tuple[str | None, str | None, float | None]:
    """Text, why it stopped, and the seconds of the last call."""
    output = _object(output)
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message, stopped = first.get("message"), first.get("stop_reason")
    text = _content(message.get("content") if isinstance(message, dict) else output.get("completion"), attached)
    if len(text) > _LONGEST_TEXT:
        raise ValueError("an answer of more than 1 MiB")
    return text or None, stopped if isinstance(stopped, str) else None, _number(output.get("time"))


def _input_text(said: Any, attached: Mapping[str, Any]) -> str:
    """The input as it was given: a text, or the last thing that the user says."""
    if isinstance(said, str):
        return _text(said, attached)
    messages = [each for each in said if isinstance(each, dict) and each.get("role") == "user"]
    return _content(messages[-1].get("content"), attached) if messages else ""


def _content(content: Any, attached: Mapping[str, Any]) -> str:
    """Text alone: what a model thought, images and the like are no part of it."""
    if isinstance(content, list):
        parts = [each for each in content if isinstance(each, dict) and each.get("type") == "text"]
        return "".join(_text(each.get("text"), attached) for each in parts)
    return _text(content, attached)


def _text(text: Any, attached: Mapping[str, Any]) -> str:
    if not isinstance(text, str):
        return ""
    if text.startswith(_ATTACHED):
        found = attached.get(text.removeprefix(_ATTACHED))
        return found if isinstance(found, str) else ""
    return text


def _usage(said: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, counts in said.items() if isinstance(said, dict) else ():
        tokens = counts if isinstance(counts, dict) else {}
        asked, answered = _number(tokens.get("input_tokens")), _number(tokens.get("output_tokens"))
        if asked is not None and answered is not None:
            yield str(name)[:_LONGEST_NAME], (int(asked), int(answered))


def _cost(said: Any) -> float | None:
    """Where every model's is in the log."""
    each = [_number(counts.get("total_cost")) for counts in said.values()] if isinstance(said, dict) and said else []
    known = [usd for usd in each if usd is not None]
    return sum(known) if known and len(known) == len(each) else None


def _number(value: Any) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if is_one else None


def _name(value: Any) -> str | None:
    """Printable, and short."""
    return "".join(c for c in value if c.isprintable())[:_LONGEST_NAME] if isinstance(value, str) else None


def _object(said: Any) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    return said

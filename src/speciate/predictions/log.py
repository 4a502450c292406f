"""The log of answers, as a serving process writes it: each answer gets an id just before it leaves, and the sample is
written with as much of the inputs as the settings allow.

Texts are redacted before anything is written. Files are kept by the hash of their bytes. They cannot be redacted, so
files whose headers may name people are left out unless a person's settings want them. The record says what was left out
(`left_out`).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import SpeciateError
from speciate.modalities import find
from speciate.modalities.media_answers import is_media_answer, stored_media
from speciate.modalities.media_bytes import media_bytes
from speciate.predictions import prediction_ids
from speciate.predictions.entities import EntityHashes
from speciate.predictions.log_files import ANSWER_LINE, FEEDBACK_LINE, GAP_LINE, KeptInput, LogFolder, LogRecord, encode
from speciate.predictions.pii_redaction import Redaction
from speciate.settings import Log as Settings
from speciate.workspace.blobs import make_folder, sync_folder
from speciate.workspace.clock import Clock

_LONGEST_OUTPUT, _LONGEST_TEXT = 1 << 18, 1 << 20
"""Characters of JSON that an answer, and what was asked, may take in the log."""
_HEAVY = 1 << 15
"""Characters beyond which a request's log is not written on the event loop's own time."""
_MB = 1 << 20
_QUOTA_SLACK = 1.25
"""Times the quota: beyond it nothing is written until old answers were dropped."""
SEGMENT_BYTES, SEGMENT_SECONDS = 16 << 20, 3600.0
"""Bytes and seconds after which another segment begins, so that the first may be sealed."""
_SYNC_SECONDS, _IDLE_SECONDS = 0.1, 5.0
"""Seconds until written lines are synced; seconds between two looks of a writer that has nothing open."""
_MEASURE_SECONDS, _SHARE_OF_TIME = 20.0, 50.0
"""The log's size is measured so often, and for a fiftieth of the time at most: every file is counted."""
_log = logging.getLogger(__name__)
_MODALITIES_WITH_NAMES = {"dicom", "time-series"}
"""Modalities whose files may name people in their headers: DICOM's images and waveforms."""
_CHANNEL, _NUMBERS = rb'"?[A-Za-z_][\w./%()\[\]-]{0,31}"?', rb"[0-9eEnNaA+\-.,;?\t\r ]*"
_NUMBERS_BY_LINE = re.compile(rb"(?:(%b(?:[,;\t] ?%b)*)\r?|%b)(?:\n%b)*" % (_CHANNEL, _CHANNEL, _NUMBERS, _NUMBERS))
"""A table of numbers as text. Its first line may name the channels, in short words without a blank: people's names and
sentences about them have one."""


class AnsweringModel(NamedTuple):
    """The version that answers."""

    model: str
    generation: int
    modality: str


class _AskedBy(NamedTuple):
    hash: str
    """Hash of the entity that asked; "" where none was said."""
    left_out: list[str]


class AnswerLog:
    """The log of one use case, as one process writes it."""

    def __init__(self, folder: LogFolder, settings: Settings, clock: Clock) -> None:
        self.folder, self.settings, self._clock = folder, settings, clock
        self._redaction = Redaction(settings.redact, settings.columns, settings.patterns)
        self._writer = Writer(folder, clock)
        self._entities = EntityHashes(folder.workspace, folder.use_case)
        self._warned = ""
        """What was warned of last, so that a busy use case warns once and not with each answer."""

    @property
    def use_case(self) -> str:
        return self.folder.use_case

    @property
    def missed(self) -> int:
        return self._writer.missed

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    def ids(self, count: int) -> list[str]:
        """For answers that are about to leave."""
        now = self._clock.now()
        return [prediction_ids.new_prediction_id(self.use_case, now) for _ in range(count)]

    def heavy(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `note` is worth a thread: files are hashed and written, long texts searched."""
        return any("data" in item or "parts" in item or _length(item) > _HEAVY for item in items)

    def note(
        self, ids: Sequence[str], items: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]],
        about: AnsweringModel, ms: float, entity: str | None = None,
    ) -> bool:  # fmt: skip
        """Write the answers of the sample, and say whether the system has them; never raises.

        `items`, `predictions`: of `serving.items`, in one order with `ids`. `entity`: who asked, as it was said; its
        hash alone is written.
        """
        share = self.settings.sample
        chosen = [place for place, each in enumerate(ids) if prediction_ids.is_sampled(each, share)]
        if not chosen:
            return True
        if self._writer.folder_bytes > _QUOTA_SLACK * self.settings.quota_mb * _MB:
            self._writer.miss(len(chosen), "the log takes more than its quota")
            return False
        try:
            asked = self._asked_by(entity)
            lines = [
                encode(self._record(ids[place], items[place], predictions[place], about, ms, asked)) for place in chosen
            ]
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer leaves, and the gap is told
            self._writer.miss(len(chosen), str(getattr(error, "strerror", None) or type(error).__name__))
            return False
        return self._writer.append(lines)

    def feedback(self, given: Mapping[str, Any]) -> bool:
        """Write feedback on an answer, and say whether it is on the disk."""
        redacted = {name: self._redaction(given[name]).value for name in ("label", "by") if name in given}
        return self._writer.append(
            [encode({"k": FEEDBACK_LINE, "at": self._clock.now(), **given, **redacted})], durable=True
        )

    def close(self) -> None:
        self._writer.close()

    def _asked_by(self, entity: str | None) -> _AskedBy:
        """A key that cannot be read keeps no answer from the log, which says what it lacks."""
        if entity is None:
            return _AskedBy("", [])
        try:
            return _AskedBy(self._entities.of(entity), [])
        except (SpeciateError, OSError) as error:
            if self._warned != str(error):
                _log.warning("answers of %s are logged without who asked: %s", self.use_case, error)
                self._warned = str(error)
            return _AskedBy("", ["entity: its key cannot be read"])

    # One record

    def _record(
        self, identifier: str, item: Mapping[str, Any], prediction: Mapping[str, Any], about: AnsweringModel,
        ms: float, asked: _AskedBy,
    ) -> LogRecord:  # fmt: skip
        parsed = prediction_ids.parse(identifier)
        kept_input = _InputRecord(self, about.modality)
        kept = kept_input.keep(item) if self.settings.keep_inputs else None
        if not self.settings.keep_inputs:
            kept_input.left_out.append("input: not kept")
        answered, left_out = self._kept_media(prediction["output"])
        kept_input.left_out += [*left_out, *asked.left_out]
        output = self._redaction(answered)
        record = {
            "k": ANSWER_LINE, "id": identifier, "at": parsed.at if parsed else self._clock.now(), "model": about.model,
            "generation": about.generation, "modality": about.modality, "input": kept, "output": output.value,
            "confidence": prediction["confidence"], "error": bool(prediction["error"]), "ms": round(ms, 3),
        }  # fmt: skip
        if asked.hash:
            record["entity"] = asked.hash
        if item.get("id") and not str(item["id"]).isdigit():
            record["given"] = self._redaction(str(item["id"])).value
        if len(str(output.value)) > _LONGEST_OUTPUT:
            record["output"] = None
            kept_input.left_out.append("output: too long")
        if places := output.places + kept_input.redacted:
            record["redacted"] = places
        if kept_input.left_out:
            record["left_out"] = kept_input.left_out
        return record

    def _kept_media(self, output: Any) -> tuple[Any, list[str]]:
        """An image or audio as a file by its hash, and what was left out; any other answer as it is."""
        if not is_media_answer(output):
            return output, []
        data = media_bytes(output)
        if len(data) > self.settings.media_mb * _MB:
            return None, [f"output: larger than {self.settings.media_mb:g} MB"]
        return stored_media(output, self.medium(data), len(data)), []

    def medium(self, data: bytes) -> str:
        """Keep a file; its sha256. Raises OSError where it cannot be written."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.folder.medium(sha256)
        if target.exists():
            os.utime(target)  # as young as what names it
            return sha256
        self.folder.create()
        make_folder(target.parent, mode=0o700)
        partial = target.with_name(f".{sha256}.{secrets.token_hex(4)}.partial")
        try:
            with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # its name says what is in it, from the moment that it has one
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
        return sha256

    @property
    def redaction(self) -> Redaction:
        return self._redaction


class _InputRecord:
    """The part of one input that is logged."""

    def __init__(self, log: AnswerLog, modality: str) -> None:
        self._log, self._modality = log, modality
        self.left_out: list[str] = []
        self.redacted = 0

    def keep(self, item: Mapping[str, Any]) -> KeptInput | None:
        if "parts" in item:
            return {"parts": {name: self._cell(name, cell) for name, cell in item["parts"].items()}}
        form = next((form for form in ("text", "row", "data") if form in item), None)
        if form is None:
            return None
        if form == "data":
            return self._file("data", item["data"], self._modality)
        if _length(item) > _LONGEST_TEXT:
            self.left_out.append(f"{form}: too long")
            return None
        kept = self._clean(item[form])
        return {"text": kept} if form == "text" else {"row": kept}

    def _cell(self, name: str, cell: Mapping[str, Any]) -> Any:
        """The stored form of one cell of a mixed row. `name`: NAME.MODALITY"""
        own, _, modality = name.rpartition(".")
        if self._log.redaction.hides(own) or self._log.redaction.hides(name):
            self.redacted += 1
            return None
        if "data" in cell:
            return self._file(own or name, cell["data"], modality)
        return {"value": self._clean(cell["value"])}

    def _file(self, name: str, text: str, modality: str) -> KeptInput | None:
        """Files of text are kept as redacted text; all others as they are, by their hash."""
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except ValueError:
            self.left_out.append(f"{name}: no Base64")
            return None
        if _is_text_modality(modality):
            if len(data) <= _LONGEST_TEXT:
                return {"text": self._clean(data.decode(errors="replace"))}
            self.left_out.append(f"{name}: too long")
        elif self._log.settings.keep_inputs == "text":
            self.left_out.append(f"{name}: files are not kept")
        elif modality in _MODALITIES_WITH_NAMES and not (
            self._log.settings.identified or (modality == "time-series" and self._names_nobody(data))
        ):
            self.left_out.append(f"{name}: its file may name people")
        elif len(data) > self._log.settings.media_mb * _MB:
            self.left_out.append(f"{name}: larger than {self._log.settings.media_mb:g} MB")
        else:
            return {"data": {"sha256": self._log.medium(data), "bytes": len(data)}}
        return None

    def _names_nobody(self, data: bytes) -> bool:
        """Whether it is numbers alone, below a line of names in which nothing would be redacted."""
        found = _NUMBERS_BY_LINE.fullmatch(data)
        return found is not None and not self._log.redaction((found[1] or b"").decode()).places

    def _clean(self, value: Any) -> Any:
        found = self._log.redaction(value)
        self.redacted += found.places
        return found.value


def _is_text_modality(modality: str) -> bool:
    try:
        return find(modality).analyzer is not None
    except Exception:  # noqa: BLE001 - a modality that nobody knows holds files
        return False


def _length(item: Mapping[str, Any]) -> int:
    text = item.get("text")
    return len(text) if isinstance(text, str) else len(str(item.get("row", "")))


class MissedAnswers(NamedTuple):
    """Answers that could not be written, since when, and why."""

    answers: int = 0
    since: float = 0.0
    why: str = ""


class _OpenSegment(NamedTuple):
    descriptor: int
    path: Path
    began: float


class Writer:
    """Appends lines to the log of one use case, and never delays an answer. Thread-safe; `close` in any case.

    The system has a line before `append` returns, so the death of this process loses none. It is on the disk a tenth of
    a second later (`fdatasync` of many lines at once); a power cut may lose that much. If the disk takes nothing,
    `append` says so and counts, and a line about the gap precedes the next line.

    The first line opens a segment. A segment is locked while it is appended to, and gets its name once it is locked: so
    whoever finds one without a lock may seal it.
    """

    def __init__(
        self, folder: LogFolder, clock: Clock, *, most: int = SEGMENT_BYTES, oldest: float = SEGMENT_SECONDS
    ) -> None:
        self.folder, self._clock, self._most, self._oldest = folder, clock, most, oldest
        self._lock = threading.Lock()
        self._open: _OpenSegment | None = None
        self._size = 0
        self._named = False
        """Whether the segment's name is on the disk, too."""
        self._done: list[_OpenSegment] = []
        self._dirty = threading.Event()
        self._ending = threading.Event()
        self._missed, self._missed_in_all = MissedAnswers(), 0
        self._stamp = folder.roll_stamp()
        self.folder_bytes = 0
        """Bytes of the whole log, as last measured."""
        self._measure_at = 0.0
        self._thread: threading.Thread | None = None

    @property
    def missed(self) -> int:
        """Answers that were not logged for want of room or for another fault, since this writer began."""
        return self._missed_in_all

    def append(self, lines: Sequence[bytes], *, durable: bool = False) -> bool:
        """Whether all of them are written; none of them is otherwise. `durable`: on the disk when this returns."""
        with self._lock:
            try:
                self._write(lines)
            except OSError as error:
                self._miss(len(lines), error)
                return False
            self._dirty.set()
            if not durable:
                return True
            assert self._open
            descriptor = os.dup(self._open.descriptor)
        try:
            os.fdatasync(descriptor)
            sync_folder(self.folder.segments)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def miss(self, count: int, why: str) -> None:
        """Count answers that are not even tried to be written."""
        with self._lock:
            self._miss(count, OSError(why))

    def roll(self) -> None:
        """Let go of the segment; the next line begins another."""
        with self._lock:
            self._let_go()
        self._finish()

    def close(self) -> None:
        self._ending.set()
        self._dirty.set()
        if self._thread:
            self._thread.join()
        self.roll()

    # With the lock held

    def _write(self, lines: Sequence[bytes]) -> None:
        gap = self._gap()
        data = b"".join([*gap, *lines])
        if self._open and (self._size + len(data) > self._most and self._size):
            self._let_go()
        if self._open is None:
            self._begin()
        assert self._open
        written = 0
        try:
            written = os.write(self._open.descriptor, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            if written:
                self._take_back()
            raise
        self._size += len(data)
        self._missed = MissedAnswers() if gap else self._missed

    def _take_back(self) -> None:
        """Half a line must not stay; where it has to, no other follows it in this segment."""
        assert self._open
        try:
            os.ftruncate(self._open.descriptor, self._size)
        except OSError:
            self._let_go()

    def _gap(self) -> list[bytes]:
        if not self._missed.answers:
            return []
        told = {"k": GAP_LINE, "at": self._clock.now(), "n": self._missed.answers, "since": self._missed.since}
        return [encode({**told, "why": self._missed.why})]

    def _miss(self, count: int, error: OSError) -> None:
        why = error.strerror or str(error)
        if not self._missed.answers:
            _log.error("answers of %s are not logged: %s", self.folder.use_case, why)
        since = self._missed.since or self._clock.now()
        self._missed = MissedAnswers(self._missed.answers + count, since, why)
        self._missed_in_all += count

    def _begin(self) -> None:
        self.folder.create()
        now = self._clock.now()
        path = self.folder.segments / f"{int(now * 1000):013d}-{secrets.token_hex(6)}.jsonl"
        hidden = path.with_suffix(".tmp")
        descriptor = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hidden.rename(path)
        except BaseException:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        self._open, self._size, self._named = _OpenSegment(descriptor, path, time.monotonic()), 0, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name=f"log {self.folder.use_case}", daemon=True)
            self._thread.start()

    def _let_go(self) -> None:
        """The thread syncs and closes it: neither is to hold up an answer."""
        if self._open:
            self._done.append(self._open)
            self._open = None
            self._dirty.set()

    # The thread

    def _keep(self) -> None:
        while not self._ending.is_set():
            told = self._dirty.wait(2 * _SYNC_SECONDS if self._open else _IDLE_SECONDS)
            if told:
                self._ending.wait(_SYNC_SECONDS)  # what comes meanwhile goes along
            self._look()
            if told:
                self._dirty.clear()
                self._sync()

    def measure(self) -> None:
        began = time.monotonic()
        self.folder_bytes = self.folder.size().bytes
        ended = time.monotonic()
        self._measure_at = ended + max(_MEASURE_SECONDS, _SHARE_OF_TIME * (ended - began))

    def _look(self) -> None:
        if time.monotonic() >= self._measure_at:
            self.measure()
        stamp = self.folder.roll_stamp()
        with self._lock:
            old = self._open and time.monotonic() - self._open.began > self._oldest
            if stamp != self._stamp or old:
                self._let_go()
            self._stamp = stamp

    def _sync(self) -> None:
        with self._lock:
            descriptor = os.dup(self._open.descriptor) if self._open else None
            named, self._named = self._named, True
        if descriptor is not None:
            try:
                os.fdatasync(descriptor)
                if not named:
                    sync_folder(self.folder.segments)
            except OSError:
                _log.exception("the log of %s could not be flushed", self.folder.use_case)
            finally:
                os.close(descriptor)
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for each in done:
            try:
                os.fdatasync(each.descriptor)
            except OSError:
                _log.exception("%s could not be flushed", each.path.name)
            finally:
                os.close(each.descriptor)  # and with it the lock

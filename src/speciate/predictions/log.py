"""What serves a use case hands its answers over here, just before they leave: each gets an id, and those of the sample
are written with as much of what was asked as the settings let be kept.

Texts are redacted before anything is written. Files are kept by the hash of their bytes; they cannot be redacted, so
those that name people in their headers are left out unless a person's settings want them. What is left out is told in
the record (`left_out`), never silently.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.clock import Clock
from speciate.modalities import find
from speciate.predictions import identity
from speciate.predictions.folder import LogFolder
from speciate.predictions.records import ANSWER, FEEDBACK, encode
from speciate.predictions.redaction import Redaction
from speciate.predictions.writer import Writer
from speciate.settings import Log as Settings

_LONGEST_OUTPUT, _LONGEST_TEXT = 1 << 18, 1 << 20
"""Characters of JSON that an answer, and what was asked, may take in the log."""
_HEAVY = 1 << 15
"""Characters beyond which a request's log is not written on the event loop's own time."""
_MB = 1 << 20
_OVER = 1.25
"""Times the quota: from there on nothing is written, until what is too old was dropped."""
_NAMING = {"dicom", "time-series"}
"""Modalities whose files may name people in their headers: DICOM's pictures and waveforms."""


class About(NamedTuple):
    """The version that answers."""

    model: str
    generation: int
    modality: str


class Log:
    """The log of one use case, as one process writes it."""

    def __init__(self, folder: LogFolder, settings: Settings, clock: Clock) -> None:
        self.folder, self.settings, self._clock = folder, settings, clock
        self._redaction = Redaction(settings.redact, settings.columns, settings.patterns)
        self._writer = Writer(folder, clock)

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
        return [identity.make(self.use_case, now) for _ in range(count)]

    def heavy(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `note` is worth a thread: files are hashed and written, long texts searched."""
        return any("data" in item or "parts" in item or _length(item) > _HEAVY for item in items)

    def note(
        self, ids: Sequence[str], items: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]],
        about: About, ms: float,
    ) -> bool:  # fmt: skip
        """Write what is in the sample: with the system when this returns. Whether it is; it never raises.

        `items`, `said`: of production.answer, in one order with `ids`.
        """
        share = self.settings.sample
        chosen = [place for place, each in enumerate(ids) if identity.sampled(each, share)]
        if not chosen:
            return True
        if self._writer.folder_bytes > _OVER * self.settings.quota_mb * _MB:
            self._writer.miss(len(chosen), "the log takes more than its quota")
            return False
        try:
            lines = [encode(self._record(ids[place], items[place], said[place], about, ms)) for place in chosen]
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer leaves, and the gap is told
            self._writer.miss(len(chosen), str(getattr(error, "strerror", None) or type(error).__name__))
            return False
        return self._writer.append(lines)

    def feedback(self, given: Mapping[str, Any]) -> bool:
        """Write what was said of an answer: on the disk when this returns. Whether it is."""
        said = {name: self._redaction(given[name]).value for name in ("label", "by") if name in given}
        return self._writer.append([encode({"k": FEEDBACK, "at": self._clock.now(), **given, **said})], durable=True)

    def close(self) -> None:
        self._writer.close()

    # One record

    def _record(
        self, identifier: str, item: Mapping[str, Any], said: Mapping[str, Any], about: About, ms: float
    ) -> dict[str, Any]:
        parsed = identity.parse(identifier)
        asked = _Asked(self, about.modality)
        kept = asked.keep(item) if self.settings.keep_inputs else None
        if not self.settings.keep_inputs:
            asked.left_out.append("input: not kept")
        output = self._redaction(said["output"])
        record = {
            "k": ANSWER, "id": identifier, "at": parsed.at if parsed else self._clock.now(), "model": about.model,
            "generation": about.generation, "modality": about.modality, "input": kept, "output": output.value,
            "confidence": said["confidence"], "error": bool(said["error"]), "ms": round(ms, 3),
        }  # fmt: skip
        if item.get("id") and not str(item["id"]).isdigit():
            record["given"] = self._redaction(str(item["id"])).value
        if len(str(output.value)) > _LONGEST_OUTPUT:
            record["output"] = None
            asked.left_out.append("output: too long")
        if places := output.places + asked.redacted:
            record["redacted"] = places
        if asked.left_out:
            record["left_out"] = asked.left_out
        return record

    def medium(self, data: bytes) -> str:
        """Keep a file; its sha256. Raises OSError where it cannot be written."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.folder.medium(sha256)
        if target.exists():
            os.utime(target)  # as young as what names it
            return sha256
        self.folder.create()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        partial = target.with_name(f".{sha256}.{secrets.token_hex(4)}.partial")
        try:
            with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(data)
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return sha256

    @property
    def redaction(self) -> Redaction:
        return self._redaction


class _Asked:
    """What is kept of one input."""

    def __init__(self, log: Log, modality: str) -> None:
        self._log, self._modality = log, modality
        self.left_out: list[str] = []
        self.redacted = 0

    def keep(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
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
        return {form: self._clean(item[form])}

    def _cell(self, name: str, cell: Mapping[str, Any]) -> Any:
        """Of a mixed row. `name`: NAME.MODALITY"""
        own, _, modality = name.rpartition(".")
        if self._log.redaction.hides(own) or self._log.redaction.hides(name):
            self.redacted += 1
            return None
        if "data" in cell:
            return self._file(own or name, cell["data"], modality)
        return {"value": self._clean(cell["value"])}

    def _file(self, name: str, text: str, modality: str) -> dict[str, Any] | None:
        """Files of text are kept as redacted text; all others as they are, by their hash."""
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except ValueError:
            self.left_out.append(f"{name}: no Base64")
            return None
        if _is_written(modality):
            if len(data) <= _LONGEST_TEXT:
                return {"text": self._clean(data.decode(errors="replace"))}
            self.left_out.append(f"{name}: too long")
        elif self._log.settings.keep_inputs == "text":
            self.left_out.append(f"{name}: files are not kept")
        elif modality in _NAMING and not self._log.settings.identified:
            self.left_out.append(f"{name}: its file may name people")
        elif len(data) > self._log.settings.media_mb * _MB:
            self.left_out.append(f"{name}: larger than {self._log.settings.media_mb:g} MB")
        else:
            return {"data": {"sha256": self._log.medium(data), "bytes": len(data)}}
        return None

    def _clean(self, value: Any) -> Any:
        found = self._log.redaction(value)
        self.redacted += found.places
        return found.value


def _is_written(modality: str) -> bool:
    try:
        return find(modality).analyzer is not None
    except Exception:  # noqa: BLE001 - a modality that nobody knows holds files
        return False


def _length(item: Mapping[str, Any]) -> int:
    text = item.get("text")
    return len(text) if isinstance(text, str) else len(str(item.get("row", "")))

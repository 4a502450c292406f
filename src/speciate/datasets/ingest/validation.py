"""The part of ingest that meets foreign files: decodes and validates each once. Runs in a sandboxed process.

It gets the bytes of many files in one: in the sandbox, opening a file costs a tenth of decoding a small image. Imports
little, because such processes are started for every ingest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from speciate.datasets.columns import QUALITIES
from speciate.datasets.sources.file_kinds import explain
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.modalities.bundles import size_of_members
from speciate.modalities.contract import DecodeError, Modality, PairwiseSimilarity, SketchingByPart

LONGEST_REASON = 1000
RECOVERY = "Call control_job(action='retry')."


class Verdict(NamedTuple):
    """The result of validating one file."""

    quality: str
    reason: str | None
    fields: Mapping[str, str | int | float | None]
    """Facts from the file's header, and measured ones."""
    fingerprint: str | None
    sketch: str | None
    """Sketch in hexadecimal."""


class ValidationRequest(TypedDict):
    modality: str
    file: str
    spans: Sequence[tuple[int, int]]
    """Offset and length of each."""
    as_is: bool


class ValidationAnswer(TypedDict):
    verdicts: list[Verdict]
    """Verdict on each span, in order."""


def validate_files(payload: ValidationRequest) -> ValidationAnswer:
    """The service: a verdict on each span of the file."""
    modality = find(payload["modality"])
    with open(payload["file"], "rb", buffering=0) as file:
        verdicts = []
        for offset, length in payload["spans"]:
            data = os.pread(file.fileno(), length, offset)
            verdicts.append(validate_bytes(modality, data, as_is=payload["as_is"]))
    return {"verdicts": verdicts}


def parse_verdicts(answer: Any, modality: str, count: int) -> list[Verdict]:
    """The verdicts of an answer, which comes from a process that met foreign bytes. REFUSED if it is invalid."""
    try:
        verdicts = [Verdict(*row) for row in answer["verdicts"]]
        if len(verdicts) == count and all(_is_valid_verdict(each, find(modality)) for each in verdicts):
            return verdicts
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    raise SpeciateError(Code.REFUSED, "A decoder's process gave an invalid answer.", RECOVERY)


def validate_bytes(modality: Modality[Any], data: bytes, *, as_is: bool = False) -> Verdict:
    """The verdict on one file, in a sandboxed process. `as_is`: use it even if a person should look first."""
    try:
        found = modality.summarize(data)
    except DecodeError as error:
        reason = explain(data, error.detail, modality.suffixes) if error.quality == "error" else error.detail
        fields = {**_header(modality, data), **_members_size(data)}
        return Verdict(error.quality, reason[:LONGEST_REASON], fields, None, None)
    fingerprint = hashlib.sha256(found.fingerprint.encode("utf-8", "surrogatepass")).hexdigest()
    fields = {**found.header.fields, **found.measures, **_members_size(data)}
    sketch = None if found.sketch is None else found.sketch.hex()
    if found.caution is not None and not as_is:
        return Verdict("partial", found.caution[:LONGEST_REASON], fields, fingerprint, sketch)
    return Verdict("ok", None, fields, fingerprint, sketch)


def _members_size(data: bytes) -> dict[str, int]:
    """What the files of a bundle have together, as if each lay for itself; nothing for other files."""
    size = size_of_members(data)
    return {} if size is None else {"bytes": size}


def _header(modality: Modality[Any], data: bytes) -> Mapping[str, str | int | float]:
    """The declared fields of a medium that is not used, if at least those can be read."""
    try:
        return modality.inspect(data).fields
    except DecodeError:
        return {}


def _is_valid_verdict(verdict: Verdict, modality: Modality[Any]) -> bool:
    return (
        verdict.quality in QUALITIES
        and isinstance(verdict.reason, str | None)
        and (verdict.fingerprint is None or len(bytes.fromhex(verdict.fingerprint)) == 32)
        and (verdict.sketch is None or _is_sketch(bytes.fromhex(verdict.sketch), modality))
        and all(isinstance(value, str | int | float | None) for value in verdict.fields.values())
    )


def _is_sketch(sketch: bytes, modality: Modality[Any]) -> bool:
    sketching = modality.sketching
    if isinstance(sketching, SketchingByPart):
        return sketching.is_valid(sketch)
    if isinstance(sketching, PairwiseSimilarity):
        return True  # bytes of any length, which only the PairwiseSimilarity understands
    return sketching is not None and len(sketch) == sketching.width

"""The half of near_copies.py that meets foreign bytes, in a sandboxed process: logged inputs become fingerprints and
sketches. It imports little, as each such process does so anew."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from speciate import foreign_files
from speciate.errors import SpeciateError
from speciate.jobs.pool import ServiceAnswer
from speciate.loop.monitor_describe import LoggedInput
from speciate.modalities import find
from speciate.modalities.contract import DecodeError

_LARGEST = 256 << 20


class SketchRequest(TypedDict):
    modality: str
    inputs: Sequence[LoggedInput]


def sketch_inputs(payload: SketchRequest) -> ServiceAnswer:
    """The service: `sketches`, a fingerprint and a sketch in base64 for each input."""
    kind, found = find(payload["modality"]), list[list[str | None]]()
    for given in payload["inputs"]:
        try:
            if "path" in given:
                summary = kind.summarize(foreign_files.read_named(Path(given["path"]), _LARGEST))
                fingerprint, sketch = summary.fingerprint, summary.sketch
            else:
                media = kind.admit(given["value"])
                fingerprint, sketch = kind.fingerprint(media), kind.sketch(media)
        except (DecodeError, SpeciateError, OSError, ValueError):
            found.append([None, None])
            continue
        found.append([_digest(fingerprint), None if sketch is None else base64.b64encode(sketch).decode()])
    return {"sketches": found}


def _digest(text: str) -> str:
    """As ingest names fingerprints (datasets/identity.py)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

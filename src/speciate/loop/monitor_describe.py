"""The half of `monitor` that meets foreign bytes, in a sandboxed process: inputs become vectors, measures and
thumbnails. An input that cannot be decoded costs itself alone."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from speciate import foreign_files
from speciate.datasets.inspect.contact_sheet import draw_grid
from speciate.errors import SpeciateError
from speciate.jobs.pool import FileAnswer, ImageAnswer
from speciate.modalities import find
from speciate.modalities.contract import DecodeError, Modality

MOST_MEASURES = 3
_LARGEST = 256 << 20


class LoggedInput(TypedDict, total=False):
    """Either a value, as the modality admits it, or a file."""

    value: Any
    path: str


class DescribeRequest(TypedDict):
    modality: str
    inputs: Sequence[LoggedInput]
    measures: Sequence[str] | None
    """None: those of the first input, at most three, by name."""
    vectors: bool


class Described(FileAnswer):
    """The file has a float32 row for each input that could be described: its vector, then its measures."""

    width: int
    measures: list[str]
    usable: list[int]
    """Places of those inputs."""


class SheetOfInputs(TypedDict):
    modality: str
    inputs: Sequence[LoggedInput]
    captions: Sequence[str]


def describe(payload: DescribeRequest) -> Described:
    """The service."""
    kind = find(payload["modality"])
    names = list(payload["measures"]) if payload["measures"] is not None else None
    rows: list[np.ndarray[Any, Any]] = []
    usable: list[int] = []
    width = 0
    for place, given in enumerate(payload["inputs"]):
        try:
            media = read_input(kind, given)
            measured = kind.measure(media)
            if names is None:
                names = sorted(measured)[:MOST_MEASURES]
            vector = np.asarray(kind.features(media), np.float32) if payload["vectors"] else np.zeros(0, np.float32)
        except (DecodeError, SpeciateError, OSError, ValueError):
            continue
        if not np.isfinite(vector).all() or (rows and len(vector) != width):
            continue
        width = len(vector)
        rows.append(np.append(vector, [_number(measured.get(name)) for name in names]).astype(np.float32))
        usable.append(place)
    path = Path.cwd() / "described"
    path.write_bytes(np.asarray(rows, np.float32).tobytes())
    return {"file": path.name, "width": width, "measures": names or [], "usable": usable}


def read_input(kind: Modality[Any], given: LoggedInput) -> Any:
    if "path" in given:
        return kind.decode(foreign_files.read_named(Path(given["path"]), _LARGEST))
    return kind.admit(given["value"])


def draw_sheet(payload: SheetOfInputs) -> ImageAnswer:
    """The service: thumbnails of those that can be drawn, in order, each with its caption."""
    kind = find(payload["modality"])
    images, captions = [], []
    for given, caption in zip(payload["inputs"], payload["captions"], strict=True):
        try:
            images.append(kind.thumbnail(read_input(kind, given)))
        except (DecodeError, SpeciateError, OSError, ValueError):
            continue
        captions.append(caption)
    png = draw_grid(images, captions, kind.thumbnail_side) if images else b""
    return {"png": base64.b64encode(png).decode()}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan

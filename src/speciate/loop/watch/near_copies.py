"""Which logged inputs are near-copies of rows that a suite holds: nobody is asked about these.

What is learned from them would make the suite easier, and what is judged by them would be judged twice. Logged inputs
are foreign bytes: a sandboxed process makes their sketches (sketch_inputs.py), as an ingest does of files and rows. The
comparison is that of splits and evaluations (datasets/similarity/near_duplicates.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import FINGERPRINT, SKETCH
from speciate.datasets.similarity.near_duplicates import near_any_of
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool, PoolProcessEnded
from speciate.loop.monitor_describe import LoggedInput
from speciate.loop.watch.sketch_inputs import SketchRequest
from speciate.modalities import find
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.loop.watch.sketch_inputs:sketch_inputs"
_CHUNK, _SECONDS = 32, 120.0


class SuiteRows(BaseModel):
    """Rows of a dataset version that a suite is made of; `split` None: all of them."""

    model_config = ConfigDict(frozen=True)
    dataset: Manifest
    split: str | None


class InputSketch(NamedTuple):
    """`fingerprint` None: the input cannot be decoded. `sketch` None: there is too little in it to be told from
    others, or its modality has no sketches."""

    fingerprint: str | None
    sketch: bytes | None


class SuiteIndex:
    """The rows of all suites of one modality, read once."""

    def __init__(self, folders: Folders, modality: str, suites: Sequence[SuiteRows]) -> None:
        self._modality, self._sketching = modality, find(modality).sketching
        self._fingerprints, self._sketches = set[str](), list[bytes]()
        for each in suites:
            if each.dataset.modality != modality:
                continue
            splits = None if each.split is None else {each.split}
            try:
                rows = version_rows.read(folders, each.dataset, splits=splits, usable=True)
            except SpeciateError:  # purged or deleted since the plan: there is nothing to be near to
                continue
            if FINGERPRINT in rows.column_names:
                self._fingerprints |= {value for value in rows[FINGERPRINT].to_pylist() if value}
            if SKETCH in rows.column_names:
                self._sketches += [value for value in rows[SKETCH].to_pylist() if value]

    def near(self, inputs: Sequence[InputSketch]) -> set[int]:
        """Places of inputs that equal a suite's row, but for what carries no meaning, or nearly do."""
        found = {place for place, each in enumerate(inputs) if each.fingerprint in self._fingerprints}
        left = [
            (place, each.sketch)
            for place, each in enumerate(inputs)
            if place not in found and each.sketch is not None and self._has_width(each.sketch)
        ]
        if not left or not self._sketches or self._sketching is None:
            return found
        near = near_any_of([sketch for _, sketch in left], self._sketches, self._sketching)
        return found | {place for (place, _), is_near in zip(left, near.tolist(), strict=True) if is_near}

    def _has_width(self, sketch: bytes) -> bool:
        """Whether it can be compared: it comes from a process that met foreign bytes."""
        width = getattr(self._sketching, "width", None)
        return width is None or len(sketch) == width


def sketches(
    pool: Pool, modality: str, media: Path, inputs: Sequence[LoggedInput]
) -> list[InputSketch]:  # fmt: skip
    """One sketch for each input, in order. An input on which the process ends costs itself alone."""
    found: list[InputSketch] = []
    for start in range(0, len(inputs), _CHUNK):
        found += _ask(pool, modality, media, inputs[start : start + _CHUNK])
    return found


def _ask(pool: Pool, modality: str, media: Path, inputs: Sequence[LoggedInput]) -> list[InputSketch]:
    request: SketchRequest = {"modality": modality, "inputs": inputs}
    readable = frozenset({media}) if any("path" in each for each in inputs) else frozenset[Path]()
    try:
        answer = pool.ask(_SERVICE, request, _SECONDS, readable=readable)
    except PoolProcessEnded:
        if len(inputs) == 1:
            return [InputSketch(None, None)]
        half = len(inputs) // 2
        return [*_ask(pool, modality, media, inputs[:half]), *_ask(pool, modality, media, inputs[half:])]
    return _parse(answer, len(inputs))


def _parse(answer: Mapping[str, object], count: int) -> list[InputSketch]:
    given = answer.get("sketches")
    if not isinstance(given, list) or len(given) != count:
        raise ValueError("a service left out inputs that it was asked about")
    return [
        InputSketch(None if name is None else str(name), None if code is None else base64.b64decode(str(code)))
        for name, code in given
    ]

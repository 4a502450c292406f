"""Thumbnails, views and histograms for pages: made by sandboxed processes, kept in memory.

Nothing of a medium is kept on disk: what is forgotten would live on there. What the sandbox wrote is checked by its
first bytes.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import BaseModel

from speciate.datasets.inspect.histograms import HistogramRequest
from speciate.datasets.inspect.viewer import FileViewRequest, ViewRequest
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.thumbnails import CellsRequest
from speciate.jobs.pool import CALL_SECONDS, Pool
from speciate.workspace.workspace import Folders

_DRAW = "speciate.evaluation.reports.thumbnails:draw_cells"
_HISTOGRAMS = "speciate.datasets.inspect.histograms:column_histograms"
_DESCRIBE = "speciate.datasets.inspect.viewer:describe_view"
_WRITE = "speciate.datasets.inspect.viewer:write_file"
_DESCRIBE_FILE = "speciate.datasets.inspect.viewer:describe_file"
_WRITE_OF_FILE = "speciate.datasets.inspect.viewer:write_view_of_file"
_COLUMNS, _CELLS = 8, 24
"""Squares of a sheet: a grid of 48 keeps both processes of the pool busy, and is two requests of a browser."""
_SHEETS = 1000
"""Sheets of which it is known what is on them."""
_KEPT_BYTES = 64 << 20
_LONGEST_FILE = 256 << 20
_FILE_SECONDS = 60.0
_BEGINNINGS = {".png": b"\x89PNG", ".wav": b"RIFF", ".mp4": b"", ".bin": b""}
Name = tuple[str, ...]


class Cell(NamedTuple):
    """Where an example's thumbnail is."""

    sheet: str
    x: int
    y: int
    columns: int
    rows: int


class ShownMedia:
    """Thumbnails and views of examples, for one daemon. Thread-safe."""

    def __init__(self, folders: Folders, pool: Pool) -> None:
        self._folders, self._pool, self._lock = folders, pool, threading.Lock()
        self._kept: OrderedDict[Name, bytes] = OrderedDict()
        self._bytes = 0
        self._sheets: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._coming: dict[Name, Future[Any]] = {}
        self._workers = ThreadPoolExecutor(max(1, pool.size), "page-media")

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    def warm(self) -> None:
        """Somebody has come: a process that decodes is started ahead."""
        self._workers.submit(self._pool.warm)

    def draw(self, manifest: Manifest, ids: Sequence[str]) -> dict[str, Cell]:
        """Begin to draw the thumbnails that a page shows, many on one sheet: so a browser asks for few files."""
        found = dict[str, Cell]()
        for start in range(0, len(ids), _CELLS):
            batch = tuple(ids[start : start + _CELLS])
            reads = (manifest.modality, *manifest.inputs)  # other inputs of the same rows are other tiles
            sheet = sha256("\n".join((manifest.id, *reads, "", *batch)).encode()).hexdigest()[:24]
            columns, name = min(_COLUMNS, len(batch)), (manifest.id, sheet)
            with self._lock:
                self._sheets[sheet] = batch
                self._sheets.move_to_end(sheet)
                while len(self._sheets) > _SHEETS:
                    self._sheets.popitem(last=False)
                if name not in self._kept and name not in self._coming:
                    self._coming[name] = self._workers.submit(self._draw, manifest, name, batch, columns)
            rows = -(-len(batch) // columns)
            found |= {each: Cell(sheet, at % columns, at // columns, columns, rows) for at, each in enumerate(batch)}
        return found

    def sheet(self, manifest: Manifest, sheet: str) -> bytes:
        """A PNG. Raises NOT_FOUND for one that no page of this daemon shows."""
        name = (manifest.id, sheet)
        if (found := self._find(name)) is not None:
            return found
        if (ids := self._sheets.get(sheet)) is not None:
            self.draw(manifest, ids)
        with self._lock:
            coming = self._coming.get(name)
        try:
            found = bytes(coming.result(CALL_SECONDS)) if coming is not None else self._find(name)
        except TimeoutError:
            raise SpeciateError(Code.UNAVAILABLE, "The thumbnails are still being drawn.", "Load it again.") from None
        if found is None:
            raise SpeciateError(Code.NOT_FOUND, "There is no such sheet of thumbnails.", "Load the page again.")
        return found

    def _draw(self, manifest: Manifest, name: Name, ids: tuple[str, ...], columns: int) -> bytes:
        request = CellsRequest(root=self._folders.root, manifest=manifest, ids=ids, columns=columns)
        try:
            payload = request.model_dump(mode="json")
            answer = self._pool.ask(_DRAW, payload, CALL_SECONDS, patience=CALL_SECONDS)
            drawn = base64.b64decode(answer["png"])
            if not drawn.startswith(_BEGINNINGS[".png"]):
                raise SpeciateError(Code.INTERNAL, "What was drawn is no image.")
            self._keep(name, drawn)
            return drawn
        finally:
            with self._lock:
                self._coming.pop(name, None)

    def histograms(self, manifest: Manifest) -> Mapping[str, Any]:
        """A `histograms.Histograms`: of a million rows they take seconds, and a version never changes."""
        name = (manifest.id, "histograms")
        if (found := self._find(name)) is None:
            request = HistogramRequest(root=self._folders.root, manifest=manifest)
            found = json.dumps(self._pool.ask(_HISTOGRAMS, request.model_dump(mode="json"))).encode()
            self._keep(name, found)
        counted: Mapping[str, Any] = json.loads(found)
        return counted

    def describe(self, manifest: Manifest, example: str) -> Mapping[str, Any]:
        """A `viewer.View`. What it holds is foreign."""
        request = ViewRequest(root=self._folders.root, manifest=manifest, id=example)
        return self._pool.ask(_DESCRIBE, request.model_dump(mode="json"), patience=CALL_SECONDS)

    def describe_file(self, data: bytes, modality: str) -> Mapping[str, Any]:
        """A `viewer.View` of a file that lies in no dataset."""
        request = FileViewRequest(data=base64.b64encode(data).decode(), modality=modality)
        return self._pool.ask(_DESCRIBE_FILE, request.model_dump(mode="json"), patience=CALL_SECONDS)

    def view_of_file(self, name: Name, data: bytes, modality: str, part: str) -> bytes:
        """A file of the view of such a file, which `name` names."""
        request = FileViewRequest(data=base64.b64encode(data).decode(), modality=modality, part=part)
        return self._made((*name, part), _WRITE_OF_FILE, request, part)

    def file(self, manifest: Manifest, example: str, part: str, of: str) -> bytes:
        """A file of a view. A browser asks for a video in many ranges, at once: it is written for the first."""
        request = ViewRequest(root=self._folders.root, manifest=manifest, id=example, part=part, of=of)
        return self._made((manifest.id, example, of, part), _WRITE, request, part)

    def _made(self, name: Name, service: str, request: BaseModel, part: str) -> bytes:
        with self._lock:
            found, coming = self._kept.get(name), self._coming.get(name)
            if found is None and coming is None:
                coming = self._coming[name] = Future()
                mine = True
            else:
                mine = False
        if found is not None:
            return found
        assert coming is not None
        if not mine:
            return bytes(coming.result(_FILE_SECONDS))
        try:
            made: bytes = self._pool.ask_for_file(
                service, request.model_dump(mode="json"), partial(_read, part=part), _FILE_SECONDS
            )
        except BaseException as error:
            coming.set_exception(error)
            raise
        else:
            self._keep(name, made)
            coming.set_result(made)
            return made
        finally:
            with self._lock:
                self._coming.pop(name, None)

    def _find(self, name: Name) -> bytes | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def _keep(self, name: Name, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._kept.get(name, b""))
            self._kept[name] = data
            self._kept.move_to_end(name)
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped)


def _read(path: Any, answer: Mapping[str, Any], part: str) -> bytes:
    if path.stat().st_size > _LONGEST_FILE:
        raise SpeciateError(Code.UNAVAILABLE, "What would be shown is too large for a page.")
    data: bytes = path.read_bytes()
    if not data.startswith(_BEGINNINGS[part[part.rindex(".") :]]):
        raise SpeciateError(Code.INTERNAL, "What was drawn is of another kind than was asked for.")
    return data

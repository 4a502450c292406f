"""How `create_dataset` understands a source, from a sample of it: shown by its dry run, so that a wrong guess is seen
before a job.

The sample is read as the job reads the whole, in sandboxed processes, and nothing of it is kept. Splits and
near-duplicates follow from all rows, so the job alone tells of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import clean, type_name
from speciate.datasets.ingest.draft import Draft, quality_report
from speciate.datasets.ingest.ingest import IngestSpec, Payload, SourceContent, plan, read_source, warnings_of_rows
from speciate.datasets.leaks import find_telling_inputs, leak_warnings
from speciate.datasets.next_version import user_columns
from speciate.datasets.readers.formats import format_of, parse_reader
from speciate.datasets.readers.read_table import ROW_BY_ROW
from speciate.datasets.sources.listing import is_path
from speciate.datasets.sources.sandbox_calls import NotLookedAtError, Sample, SourceContext
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool, ServiceAnswer
from speciate.jobs.run import Run, Stopped
from speciate.settings import Settings
from speciate.workspace.disk_space import format_bytes
from speciate.workspace.scratch import scratch_folder
from speciate.workspace.workspace import Folders, Workspace

_SAMPLE = Sample()
_MOST_FILES = 100_000
"""Most files of a folder whose names are listed."""
_ROOM = 512 << 20
"""Bytes that the workspace may take more, at least."""
_UNPACKED_RATIO = 8
"""By how much compressed text is taken to grow."""
_SECONDS = 30.0
_SEATS = threading.BoundedSemaphore(2)
"""Sources that are looked at together."""
_SEAT_SECONDS = 5.0
_COLUMNS_SHOWN = 60
_LABELS_SHOWN = 20


NOT_UNDERSTOOD = "a part, which was not understood"
"""What `looked_at` says of a sample for which the job would fail, unless what was not looked at is understood."""


def preview_source(spec: IngestSpec, workspace: Workspace) -> dict[str, Any]:
    """Modality, columns with their types and roles, label, groups, quality and warnings, as JSON. Foreign words are
    below `untrusted`, but for names of columns and labels. Raises what the job would end with, if all was looked at."""
    if (reason := _reason_to_wait(spec, workspace)) is not None:
        return {"looked_at": f"Nothing: {reason}"}
    if not _SEATS.acquire(timeout=_SEAT_SECONDS):
        return {"looked_at": "Nothing: two other sources are being looked at. Repeat the call in a moment."}
    try:
        with scratch_folder(workspace.folders.cache) as place:
            return _look(spec, workspace, place)
    finally:
        _SEATS.release()


def _look(spec: IngestSpec, workspace: Workspace, place: Path) -> dict[str, Any]:
    own, sample = Folders(place), replace(_SAMPLE)
    own.make()
    folder, work = RunFolder(own.runs / "preview.1"), own.root / "work"
    payload = Payload(spec=spec, cage=workspace.settings.cage, earlier=None, parent=None, now=workspace.clock.now())
    if spec.add:  # in the roles of the version that it is added to, whose rows are looked at
        planned = Payload.model_validate(plan(spec, workspace).payload)
        spec = planned.spec
        payload = payload.model_copy(update={"spec": spec, "parent": planned.parent})
        own.datasets.rmdir()
        own.datasets.symlink_to(workspace.folders.datasets)
    folder.create({"payload": payload.model_dump(mode="json"), "job": "preview", "workspace": str(own.root)})
    work.mkdir()
    pool = _SamplingPool(workspace.folders, workspace.settings, sample)  # its own: what goes wrong closes it
    context = SourceContext(
        pool, workspace.settings.cage, workspace.folders, work, workspace.clock.now(), sample=sample
    )  # fmt: skip
    ended = threading.Event()

    def end() -> None:
        ended.set()
        (folder.path / "cancel").touch()
        pool.close()

    limit, read, failure = threading.Timer(_SECONDS, end), None, None
    limit.daemon = True
    limit.start()
    try:
        read = read_source(payload, Run(folder), None, context)
    except (SpeciateError, NotLookedAtError, Stopped) as error:
        failure = error
    except Exception:
        if not ended.is_set():  # else the processes were ended under it
            raise
    finally:
        limit.cancel()
        pool.close()
    if ended.is_set() or isinstance(failure, Stopped):
        return {"looked_at": f"Nothing: it took more than {_SECONDS:.0f} s."}
    if isinstance(failure, NotLookedAtError):
        return {"looked_at": f"Nothing: {failure}, which only the job reads."}
    if isinstance(failure, SpeciateError):
        if failure.code is Code.UNAVAILABLE:
            return {"looked_at": f"Nothing: {failure.message}"}
        if not sample.is_part:
            raise failure
        shown: dict[str, Any] = {"looked_at": NOT_UNDERSTOOD}
        shown["warnings"] = [_of_part(failure.message)]
        return shown | ({"untrusted": {"reason": failure.foreign}} if failure.foreign else {})
    assert read is not None
    return _shown(read, spec, is_part=sample.is_part)


Content = TypeVar("Content")


class _SamplingPool(Pool):
    """Reads tables whole as long as the sample has bytes for them, then their first rows."""

    def __init__(self, folders: Folders, settings: Settings, sample: Sample) -> None:
        super().__init__(folders, settings, size=1)
        self._sample, self._left = sample, sample.table_bytes

    def ask_for_file(
        self,
        service: str,
        payload: Mapping[str, object],
        read: Callable[[Path, ServiceAnswer], Content],
        timeout: float = 20.0,
        *,
        readable: frozenset[Path] = frozenset(),
    ) -> Content:
        if "most_bytes" in payload:
            payload = {**payload, "most_bytes": self._most_bytes(payload)}

        def noted(path: Path, answer: ServiceAnswer) -> Content:
            self._sample.is_part |= bool(answer.get("cut"))
            return read(path, answer)

        return super().ask_for_file(service, payload, noted, timeout, readable=readable)

    def _most_bytes(self, payload: Mapping[str, object]) -> int:
        """Bytes of the table up to which it is read whole. NotLookedAtError if it must be and is too long."""
        path = Path(str(payload["path"]))
        try:
            size = path.stat().st_size
        except OSError:
            return 0  # reading it reports that
        unpacked = size * (_UNPACKED_RATIO if path.suffix.lower() == ".gz" else 1)
        if unpacked <= self._left:
            self._left -= unpacked
            return size
        in_part = payload["most_bytes"] is not None  # labels and sidecars are of use whole only
        if not in_part or (parse_reader(str(payload["reader"])).format or format_of(path.name)) not in ROW_BY_ROW:
            raise NotLookedAtError(f"a table of {format_bytes(size)}")
        return 0


def _reason_to_wait(spec: IngestSpec, workspace: Workspace) -> str | None:
    """Why the source is not looked at now."""
    if spec.source is None:
        return None
    if not is_path(spec.source):
        return "the job fetches it."
    if workspace.room.look().spare < _ROOM:
        return "the workspace has too little room for it."
    return f"a folder of more than {_MOST_FILES:,} files." if _is_long(Path(spec.source)) else None


def _is_long(folder: Path) -> bool:
    """Whether it holds more files than are listed here, or listing them takes too long."""
    count, end = 0, time.monotonic() + _SECONDS
    for _, _, names in os.walk(folder):
        count += len(names)
        if count > _MOST_FILES or (count > 1_000 and time.monotonic() > end):
            return True
    return False


def _of_part(warning: str) -> str:
    return f"Of the rows that were looked at: {warning}"


def _shown(read: SourceContent, spec: IngestSpec, *, is_part: bool) -> dict[str, Any]:
    draft = read.draft
    usable = draft.table.filter(pc.equal(draft.table["quality"], "ok"))
    columns = user_columns(draft.table)
    if draft.label not in (None, "folder", *columns, *draft.renamed):
        columns[str(draft.label)] = type_name(draft.table["label"].type)
    report = quality_report(draft.table)
    untrusted = {**report.pop("untrusted"), **read.untrusted}
    telling = {} if is_part else find_telling_inputs(usable, draft.inputs)
    warnings = [*warnings_of_rows(read), *leak_warnings(telling)]
    shown = {
        "looked_at": _looked_at(read, is_part=is_part),
        "modality": draft.modality,
        "columns": [
            {"name": clean(name), "type": kind, "role": _role(name, draft, spec)}
            for name, kind in list(columns.items())[:_COLUMNS_SHOWN]
        ],
        "not_shown": f"{len(columns) - _COLUMNS_SHOWN:,} columns" if len(columns) > _COLUMNS_SHOWN else None,
        "inputs": [clean(name) for name in draft.inputs[:_COLUMNS_SHOWN]],
        "label": None if draft.label is None else clean(draft.label),
        "labels": _labels(usable["label"], draft),
        "groups": pc.count_distinct(usable["group_key"]).as_py() or None,
        "splits": _counts(usable["split"]) if draft.brings_split and not is_part else None,
        "quality": {name: count for name, count in report.items() if count},
        "warnings": [
            *read.remarks,
            *(map(_of_part, warnings) if is_part else warnings),
            *filter(None, [read.hint]),
        ],
        "untrusted": {name: value for name, value in untrusted.items() if value},
    }
    return {name: value for name, value in shown.items() if value not in (None, {}, [])}


def _looked_at(read: SourceContent, *, is_part: bool) -> str:
    rows = read.draft.table.num_rows
    if read.survey.media:
        return f"{read.listed:,} of {read.of_files:,} files" if is_part else f"all {rows:,} files"
    return f"the first {rows:,} rows" if is_part else f"all {rows:,} rows"


def _role(name: str, draft: Draft, spec: IngestSpec) -> str:
    if name in draft.inputs:
        return "input"
    if draft.label is not None and name == draft.renamed.get(draft.label, draft.label):
        return "label"
    group_by = spec.group_by
    return "group" if group_by is not None and name == draft.renamed.get(group_by, group_by) else "other"


def _labels(labels: pa.ChunkedArray, draft: Draft) -> Mapping[str, Any] | None:
    """How many examples have each class, or between which numbers the labels lie."""
    if draft.label is None or labels.null_count == len(labels):
        return None
    if draft.numeric:
        return dict(pc.min_max(labels).as_py())
    counts = _counts(labels)
    shown = {clean(name): count for name, count in list(counts.items())[:_LABELS_SHOWN]}
    return shown | ({"...": len(counts) - len(shown)} if len(counts) > len(shown) else {})


def _counts(names: pa.ChunkedArray) -> dict[str, int]:
    counted = [(str(row["values"]), row["counts"]) for row in pc.value_counts(names.drop_null()).to_pylist()]
    return dict(sorted(counted, key=lambda pair: (-pair[1], pair[0])))

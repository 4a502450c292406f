"""How `create_dataset` understands a source, from a sample of it: shown by its dry run, so that a wrong guess is seen
before a job.

The sample is read as the job reads the whole, in sandboxed processes, and nothing of it is kept. Splits and
near-duplicates follow from all rows, so the job alone tells of them.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import clean, type_name
from speciate.datasets.ingest.draft import Draft, quality_report
from speciate.datasets.ingest.ingest import IngestSpec, Payload, SourceContent, read_source, warnings_of_source
from speciate.datasets.leaks import TELLING_INPUTS, find_telling_inputs, leak_warnings
from speciate.datasets.next_version import user_columns
from speciate.datasets.readers.formats import format_of
from speciate.datasets.sources.listing import is_path
from speciate.datasets.sources.sandbox_calls import Sample, SourceContext
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.workspace.workspace import Folders, Workspace

_SAMPLE = Sample()
_MOST_BYTES = 256 << 20
"""Longest file that is read where its first rows cannot be read alone, such as an archive."""
_ROW_BY_ROW = ("csv", "tsv", "jsonl", "parquet", "arrow")
_SECONDS = 30.0
_COLUMNS_SHOWN = 60
_LABELS_SHOWN = 20


def preview_source(spec: IngestSpec, workspace: Workspace) -> dict[str, Any]:
    """Modality, columns with their types and roles, label, groups, quality and warnings, as JSON. Foreign words are
    below `untrusted`, but for names of columns and labels. Raises what the job would end with, if all was looked at."""
    if (reason := _reason_to_wait(spec)) is not None:
        return {"looked_at": reason}
    with tempfile.TemporaryDirectory(prefix="preview-", dir=workspace.folders.cache) as place:
        own = Folders(Path(place))
        own.make()
        folder, work = RunFolder(own.runs / "preview.1"), own.root / "work"
        payload = Payload(spec=spec, cage=workspace.settings.cage, earlier=None, parent=None, now=workspace.clock.now())
        folder.create({"payload": payload.model_dump(mode="json"), "job": "preview", "workspace": str(own.root)})
        work.mkdir()
        pool = Pool(workspace.folders, workspace.settings, size=1)  # its own: what goes wrong closes it
        context = SourceContext(
            pool, workspace.settings.cage, workspace.folders, work, workspace.clock.now(), sample=_SAMPLE
        )
        limit = threading.Timer(_SECONDS, (folder.path / "cancel").touch)
        limit.start()
        try:
            read = read_source(payload, Run(folder), None, context)
        except SpeciateError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            return {"looked_at": f"Nothing: {error.message}"}
        except Stopped:
            return {"looked_at": f"Nothing: it took more than {_SECONDS:.0f} s."}
        finally:
            limit.cancel()
            pool.close()
        return _shown(read, spec)


def _reason_to_wait(spec: IngestSpec) -> str | None:
    """Why the source is not looked at now."""
    if spec.source is None:
        return None
    if not is_path(spec.source):
        return "Nothing: the job fetches it."
    path = Path(spec.source)
    if path.is_file() and path.stat().st_size > _MOST_BYTES and format_of(path.name) not in _ROW_BY_ROW:
        return f"Nothing: a file of more than {_MOST_BYTES >> 20} MB that cannot be read in part."
    return None


def _shown(read: SourceContent, spec: IngestSpec) -> dict[str, Any]:
    draft = read.draft
    usable = draft.table.filter(pc.equal(draft.table["quality"], "ok"))
    columns = user_columns(draft.table)
    if draft.label not in (None, "folder", *columns, *draft.renamed):
        columns[str(draft.label)] = type_name(draft.table["label"].type)
    report = quality_report(draft.table)
    untrusted = {**report.pop("untrusted"), **read.untrusted}
    telling = [each.model_dump() for each in find_telling_inputs(usable, draft.inputs)]
    shown = {
        "looked_at": _looked_at(read),
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
        "splits": _counts(usable["split"]) if draft.brings_split else None,
        "quality": {name: count for name, count in report.items() if count},
        "warnings": [
            *warnings_of_source(read),
            *leak_warnings({TELLING_INPUTS: telling}),
            *filter(None, [read.hint]),
        ],
        "untrusted": {name: value for name, value in untrusted.items() if value},
    }
    return {name: value for name, value in shown.items() if value not in (None, {}, [])}


def _looked_at(read: SourceContent) -> str:
    rows = read.draft.table.num_rows
    if read.survey.media:
        some = len(read.listed) < read.of_files
        return f"{len(read.listed):,} of {read.of_files:,} files" if some else f"all {rows:,} files"
    some = any(path.stat().st_size > _SAMPLE.table_bytes for path in read.listed)
    return f"the first {rows:,} rows" if some else f"all {rows:,} rows"


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

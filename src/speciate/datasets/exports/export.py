"""The job kind `export`: the usable rows of a version as files, for other tools and other people.

A run that is stopped leaves nothing at the path (jobs/atomic_folder.py). The run reads only sealed rows and packed
bytes and decodes nothing. An export can be made again at any time, so files are not synced one by one.

Files that may name people leave only if the caller says so (`identified`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.datasets import exports, version_rows
from speciate.datasets.columns import CONTENT, WINDOW_START, WINDOW_STOP
from speciate.datasets.exports.card import ExportSummary, card, lineage
from speciate.datasets.exports.cells import CsvFile
from speciate.datasets.exports.format import (
    ExportContent,
    Format,
    ReportProgress,
    WriteReport,
    collect_content,
    has_files,
)
from speciate.datasets.operations.deidentify import COLUMN, DEIDENTIFY, holds_dicom
from speciate.datasets.sources.own_export import MARKER, Marker
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Call, Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.atomic_folder import check_free, earlier_result, hidden_folder_beside, move_into_place
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.refs import dataset_ref
from speciate.workspace.filesystem import require_space
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Workspace

EXCLUDED_FILE = "set_aside.csv"
_SHOWN = 5
_EXCLUDED_COLUMNS = ["id", "split", "label", "quality", "reason", "source"]


class ExportSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    format: str
    path: Path
    """Absolute; nothing is there yet."""
    identified: bool = False
    """Whether files may leave that name people."""
    partial: bool = False
    """Whether rows of quality partial leave, too, such as series that lack a slice; the report names them."""
    column: str | None = None
    """The column that a format of masks, boxes or transcripts turns into files; default: the format's own."""


class Payload(BaseModel):
    """What the plan found out for the run."""

    model_config = ConfigDict(frozen=True)
    chain: tuple[dict[str, Any], ...]
    """The version and those it was made from, newest first, as JSON."""
    split: str | None
    format: str
    path: Path
    identified: bool = False
    partial: bool = False
    column: str | None = None


def plan(spec: ExportSpec, workspace: Workspace) -> Plan:
    """Checks all that the catalog and the path can tell."""
    ref = dataset_ref(spec.dataset)
    chain = lineage(workspace.database, spec.dataset)
    manifest = chain[0].manifest
    exports.fitting(spec.format, manifest)
    column = exports.column_of(spec.format, manifest, spec.column)
    check_version(manifest, spec.identified)
    check_free(spec.path)
    size = sum((workspace.folders.root / name).stat().st_size for name in _sealed_files(manifest))
    payload = Payload(
        chain=tuple(_as_json(each) for each in chain),
        split=ref.split,
        format=spec.format,
        path=spec.path,
        identified=spec.identified,
        partial=spec.partial,
        column=column,
    )
    resolved = {"dataset": manifest.ref, "split": ref.split, "format": spec.format, "path": str(spec.path)}
    resolved |= {} if column is None else {"column": column}
    return Plan(
        payload=payload.model_dump(mode="json"),
        resources=Resources(cpu=1, memory_mb=1024),
        bytes=size,
        resolved=resolved,
    )


def run(run: Run) -> dict[str, Any]:
    """Writes the export and reports its contents."""
    payload = Payload.model_validate(run.payload)
    path, identified = payload.path, payload.identified
    if (finished := earlier_result(run, path)) is not None:
        return finished
    check_free(path)
    chain = [_from_json(each) for each in payload.chain]
    manifest, split = chain[0].manifest, payload.split
    chosen = exports.fitting(payload.format, manifest)
    rows = version_rows.read(run.folders, manifest, splits=None if split is None else [split])
    packs = PackReader(run.folders.root / pack for pack in manifest.packs) if has_files(manifest) else None
    try:
        usable = pc.equal(rows["quality"], "ok")
        if payload.partial:
            usable = pc.or_(usable, _incomplete(rows, packs, needs_rewriting=holds_dicom(manifest) and not identified))
        check_rows(rows.filter(usable), manifest, identified)
        export = collect_content(manifest, _rows_of_split(rows.filter(usable), manifest, split), packs)._replace(
            folders=run.folders, column=payload.column
        )
        _require_space(path, export)
        with hidden_folder_beside(path) as folder:
            written = chosen.write(export, folder, _progress_reporter(run, export))
            excluded = rows.filter(pc.invert(usable))
            escaped = written.escaped + _write_excluded(excluded, folder)
            exported = _summarise_export(export, chosen, written, excluded, split)
            notes = (*exported.notes, *_notes_on_partial(rows.filter(usable)), *_notes_on_identities(chain))
            exported = exported._replace(notes=notes)
            (folder / "README.md").write_text(card(redact_history(chain, identified), exported), encoding="utf-8")
            marker = _marker(export, chosen, written.escaped)
            if marker is not None:
                (folder / MARKER).write_text(marker.model_dump_json(indent=2) + "\n", encoding="utf-8")
            report = _report(export, chosen, exported, escaped, folder)
            again = {} if marker is None else {"create_again": {"source": str(path)}}
            result = {"path": str(path), "report": report | again}
            fault("export_before_rename")
            move_into_place(run, folder, path, result)
    finally:
        if packs is not None:
            packs.close()
    fault("export_after_rename")
    return result


def _incomplete(rows: pa.Table, packs: PackReader | None, *, needs_rewriting: bool) -> pa.ChunkedArray:
    """(N,) bool: partial rows whose media are stored and, if they must be, de-identified."""
    found = pc.equal(rows["quality"], "partial")
    if packs is not None:
        stored = [content is not None and content in packs for content in rows[CONTENT].to_pylist()]
        found = pc.and_(found, pa.array(stored))
    if needs_rewriting and COLUMN in rows.column_names:
        found = pc.and_(found, pc.is_valid(rows[COLUMN]))
    return found


def _notes_on_partial(rows: pa.Table) -> list[str]:
    """Which of the exported rows are partial, and why."""
    partial = rows.filter(pc.equal(rows["quality"], "partial"))
    if not partial.num_rows:
        return []
    shown = [f"{row['source']}: {row['reason']}" for row in partial.slice(0, _SHOWN).to_pylist()]
    more = f" And {partial.num_rows - _SHOWN:,} more." if partial.num_rows > _SHOWN else ""
    return [f"{partial.num_rows:,} rows are partial and were exported on request. {' '.join(shown)}{more}"]


def _notes_on_identities(chain: Sequence[Version]) -> list[str]:
    """The proof of the newest de-identification, if the version has one."""
    for each in chain:
        for step in reversed(each.report.get("steps") or ()):
            if step.get("op") == DEIDENTIFY.name and "proof" in step.get("audit", {}):
                return [f"De-identification: {step['audit']['proof']['says']}"]
    return []


def _sealed_files(manifest: Manifest) -> list[str]:
    return [*(part.file for part in manifest.parts), *(manifest.packs if has_files(manifest) else ())]


def _as_json(found: Version) -> dict[str, Any]:
    return {**found._asdict(), "manifest": found.manifest.model_dump(mode="json")}


def _from_json(found: dict[str, Any]) -> Version:
    return Version(**{**found, "manifest": Manifest.model_validate(found["manifest"])})


def _rows_of_split(rows: pa.Table, manifest: Manifest, split: str | None) -> pa.Table:
    if rows.num_rows:
        return rows
    where = f" in the split {split!r}" if split is not None else ""
    raise SpeciateError(
        Code.INVALID,
        f"{manifest.ref} has no usable row{where}: every one was excluded.",
        next=[
            Call(
                "query_dataset",
                {"dataset": manifest.ref, "sql": "SELECT quality, reason, count(*) FROM examples GROUP BY ALL"},
                "to see why",
            )
        ],
    )


def _require_space(path: Path, export: ExportContent) -> None:
    size = int(export.rows.nbytes)
    if export.media is not None:
        size += sum(export.media.packs.length(content) for content in export.media.contents)
    require_space(next(folder for folder in path.parents if folder.exists()), size)


def _progress_reporter(run: Run, export: ExportContent) -> ReportProgress:
    """Reports progress about a hundred times in all, and checks at each step whether to stop."""
    total, done, shown = export.rows.num_rows, 0, 0

    def progress(rows: int) -> None:
        nonlocal done, shown
        done += rows
        if run.stopping:
            raise Stopped
        if 100 * (done - shown) >= total:
            shown = done
            run.progress(done, total, "examples", f"exporting {export.manifest.ref}")

    return progress


def _write_excluded(rows: pa.Table, folder: Path) -> int:
    """Lists the rows that are not exported; returns how many cells were escaped for spreadsheets."""
    if not rows.num_rows:
        return 0
    with CsvFile(folder / EXCLUDED_FILE, _EXCLUDED_COLUMNS) as file:
        file.write([row[name] for name in _EXCLUDED_COLUMNS] for row in rows.select(_EXCLUDED_COLUMNS).to_pylist())
    return file.escaped


def _summarise_export(
    export: ExportContent, chosen: Format, written: WriteReport, excluded: pa.Table, split: str | None
) -> ExportSummary:
    notes = list(written.notes)
    if export.windows:
        unit = find(export.manifest.modality).window_unit
        notes.append(
            f"Rows are windows of a medium, which is here whole and uncut: from {WINDOW_START} up to {WINDOW_STOP}"
            + (f", in {unit}." if unit else ".")
        )
        if chosen.once:
            notes.append("create_dataset makes one example of each medium again, whole: the windows do not come back.")
    return ExportSummary(
        format=chosen.name,
        part=split,
        splits={piece.split or "": piece.rows.num_rows for piece in export.pieces()},
        excluded=dict(sorted(Counter(excluded["quality"].to_pylist()).items())),
        configs=written.configs,
        label=export.label,
        group=export.group,
        notes=notes,
    )


def _report(
    export: ExportContent, chosen: Format, exported: ExportSummary, escaped: int, folder: Path
) -> dict[str, Any]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        "format": chosen.name,
        "examples": export.rows.num_rows,
        "splits": {name: count for name, count in exported.splits.items() if name},
        "set_aside": dict(exported.excluded),
        "escaped_cells": escaped,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "notes": list(exported.notes),
    }


def _marker(export: ExportContent, chosen: Format, escaped: int) -> Marker | None:
    """What our own reader must know about the columns; None if there is nothing to say."""
    if chosen.again is None:
        return None
    return Marker(
        format=chosen.name,
        again=chosen.again,
        modality=export.manifest.modality,
        files=export.media is not None and chosen.files,
        label=export.label,
        group_by=export.group,
        inputs=export.manifest.inputs,
        windows=export.windows,
        texts=tuple(field.name for field in export.rows.schema if _is_text(field.type)),
        escaped=escaped > 0,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def check_version(manifest: Manifest, identified: bool) -> None:
    """REFUSED if no row was de-identified and the caller does not allow names to leave."""
    if not identified and holds_dicom(manifest) and COLUMN not in manifest.columns:
        raise _identities_error(manifest, "files of")


def check_rows(rows: pa.Table, manifest: Manifest, identified: bool) -> None:
    """The check of `check_version` for the exported `rows`: some may have been added later."""
    if identified or not holds_dicom(manifest):
        return
    check_version(manifest, identified)
    lacking = pc.sum(pc.is_null(rows[COLUMN])).as_py() or 0
    if lacking:
        raise _identities_error(manifest, f"{lacking:,} of {rows.num_rows:,} examples of")


def redact_history(chain: Sequence[Version], identified: bool) -> list[Version]:
    """The versions, newest first, as a card may show them.

    Steps before de-identification may quote names (a folder, a condition on a patient), so only their operations are
    named.
    """
    if identified or not holds_dicom(chain[0].manifest):
        return list(chain)
    found, before = list[Version](), False
    for each in chain:
        steps = each.operation.get("steps") or []
        last = max((place for place, step in enumerate(steps) if step.get("op") == DEIDENTIFY.name), default=None)
        if before:
            each = each._replace(operation=_without_parameters(each.operation))  # noqa: PLW2901 - the same version, shortened
        elif last is not None:
            shorter = [_without_parameters(step) if place < last else step for place, step in enumerate(steps)]
            each = each._replace(operation={**each.operation, "steps": shorter})  # noqa: PLW2901
        before = before or last is not None
        found.append(each)
    return found


def _without_parameters(operation: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: operation[name] for name in ("op", "license") if name in operation}
    return kept | (
        {"steps": [_without_parameters(step) for step in operation["steps"]]} if operation.get("steps") else {}
    )


def _identities_error(manifest: Manifest, what: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The {what} {manifest.ref} may name people: they were not de-identified.",
        next=[
            Call(
                "curate_dataset",
                {"dataset": manifest.name, "steps": [{"op": "deidentify"}]},
                "and export the version that it makes; or, where names may leave, export_dataset with identified=true",
            )
        ],
    )


KIND = Kind(name="export", spec=ExportSpec, plan=plan, run="speciate.datasets.exports.export:run", preload="data")

"""The job kind `export`: the usable rows of a version as files, for other tools and other people.

Nothing half done stands at the path, whoever stops the run (jobs/new_folder.py). Only sealed rows and packed bytes are
read, nothing is decoded. An export can be made again at any time, so it is not synced file by file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.datasets import exports, scan
from speciate.datasets.columns import WINDOW_START, WINDOW_STOP
from speciate.datasets.exports.card import Exported, card, lineage
from speciate.datasets.exports.cells import CsvFile
from speciate.datasets.exports.contract import Format, Tell, Written
from speciate.datasets.exports.identities import check_rows, check_version, told
from speciate.datasets.exports.shipment import Shipment, has_files, ship
from speciate.datasets.sources.exported import MARKER, Marker
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.new_folder import check_free, finished_before, hidden_beside, move
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.refs import dataset_ref
from speciate.workspace.filesystem import require_space
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Workspace

SET_ASIDE = "set_aside.csv"
_ASIDE_COLUMNS = ["id", "split", "label", "quality", "reason", "source"]


class ExportSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    format: str
    path: Path
    """Absolute; nothing is there yet."""
    identified: bool = False
    """Whether files may leave that name people."""


def plan(spec: ExportSpec, workspace: Workspace) -> Plan:
    """Checks all that the catalog and the path can tell."""
    ref = dataset_ref(spec.dataset)
    chain = lineage(workspace.database, spec.dataset)
    manifest = chain[0].manifest
    exports.fitting(spec.format, manifest)
    check_version(manifest, spec.identified)
    check_free(spec.path)
    size = sum((workspace.folders.root / name).stat().st_size for name in _sealed(manifest))
    payload = {
        "chain": [_as_json(each) for each in chain],
        "split": ref.split,
        "format": spec.format,
        "path": str(spec.path),
        "identified": spec.identified,
    }
    resolved = {"dataset": manifest.ref, "split": ref.split, "format": spec.format, "path": str(spec.path)}
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=1024), bytes=size, resolved=resolved)


def run(run: Run) -> dict[str, Any]:
    """Writes the export and says what is in it."""
    path = Path(run.payload["path"])
    if (finished := finished_before(run, path)) is not None:
        return finished
    check_free(path)
    chain = [_from_json(each) for each in run.payload["chain"]]
    manifest, split = chain[0].manifest, run.payload["split"]
    chosen = exports.fitting(run.payload["format"], manifest)
    rows = scan.read(run.folders, manifest, splits=None if split is None else [split])
    usable = pc.equal(rows["quality"], "ok")
    identified = bool(run.payload.get("identified", False))
    check_rows(rows.filter(usable), manifest, identified)
    packs = PackReader(run.folders.root / pack for pack in manifest.packs) if has_files(manifest) else None
    try:
        shipment = ship(manifest, _some(rows.filter(usable), manifest, split), packs)._replace(folders=run.folders)
        _require_space(path, shipment)
        with hidden_beside(path) as folder:
            written = chosen.write(shipment, folder, _telling(run, shipment))
            aside = rows.filter(pc.invert(usable))
            escaped = written.escaped + _set_aside(aside, folder)
            exported = _exported(shipment, chosen, written, aside, split)
            (folder / "README.md").write_text(card(told(chain, identified), exported), encoding="utf-8")
            marker = _marker(shipment, chosen, written.escaped)
            if marker is not None:
                (folder / MARKER).write_text(marker.model_dump_json(indent=2) + "\n", encoding="utf-8")
            report = _report(shipment, chosen, exported, escaped, folder)
            again = {} if marker is None else {"create_again": {"source": str(path)}}
            result = {"path": str(path), "report": report | again}
            fault("export_before_rename")
            move(run, folder, path, result)
    finally:
        if packs is not None:
            packs.close()
    fault("export_after_rename")
    return result


def _sealed(manifest: Manifest) -> list[str]:
    return [*(part.file for part in manifest.parts), *(manifest.packs if has_files(manifest) else ())]


def _as_json(found: Version) -> dict[str, Any]:
    return {**found._asdict(), "manifest": found.manifest.model_dump(mode="json")}


def _from_json(found: dict[str, Any]) -> Version:
    return Version(**{**found, "manifest": Manifest.model_validate(found["manifest"])})


def _some(rows: pa.Table, manifest: Manifest, split: str | None) -> pa.Table:
    if rows.num_rows:
        return rows
    where = f" in the split {split!r}" if split is not None else ""
    raise SpeciateError(
        Code.INVALID,
        f"{manifest.ref} has no usable row{where}: every one was set aside.",
        f"Call query_dataset(dataset={manifest.ref!r}, sql='SELECT quality, reason, count(*) FROM examples GROUP BY "
        "ALL') to see why.",
    )


def _require_space(path: Path, shipment: Shipment) -> None:
    size = int(shipment.rows.nbytes)
    if shipment.media is not None:
        size += sum(shipment.media.packs.length(content) for content in shipment.media.contents)
    require_space(next(folder for folder in path.parents if folder.exists()), size)


def _telling(run: Run, shipment: Shipment) -> Tell:
    """Progress a hundred times in all, and a look at each step whether to stop."""
    total, done, shown = shipment.rows.num_rows, 0, 0

    def tell(rows: int) -> None:
        nonlocal done, shown
        done += rows
        if run.stopping:
            raise Stopped
        if 100 * (done - shown) >= total:
            shown = done
            run.progress(done, total, "examples", f"exporting {shipment.manifest.ref}")

    return tell


def _set_aside(rows: pa.Table, folder: Path) -> int:
    """Lists what stays behind; how many cells were escaped for spreadsheets."""
    if not rows.num_rows:
        return 0
    with CsvFile(folder / SET_ASIDE, _ASIDE_COLUMNS) as file:
        file.write([row[name] for name in _ASIDE_COLUMNS] for row in rows.select(_ASIDE_COLUMNS).to_pylist())
    return file.escaped


def _exported(shipment: Shipment, chosen: Format, written: Written, aside: pa.Table, split: str | None) -> Exported:
    notes = list(written.notes)
    if shipment.windows:
        unit = find(shipment.manifest.modality).window_unit
        notes.append(
            f"Rows are windows of a medium, which is here whole and uncut: from {WINDOW_START} up to {WINDOW_STOP}"
            + (f", in {unit}." if unit else ".")
        )
        if chosen.once:
            notes.append("create_dataset makes one example of each medium again, whole: the windows do not come back.")
    return Exported(
        format=chosen.name,
        part=split,
        splits={piece.split or "": piece.rows.num_rows for piece in shipment.pieces()},
        set_aside=dict(sorted(Counter(aside["quality"].to_pylist()).items())),
        configs=written.configs,
        label=shipment.label,
        group=shipment.group,
        notes=notes,
    )


def _report(shipment: Shipment, chosen: Format, exported: Exported, escaped: int, folder: Path) -> dict[str, Any]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        "format": chosen.name,
        "examples": shipment.rows.num_rows,
        "splits": {name: count for name, count in exported.splits.items() if name},
        "set_aside": dict(exported.set_aside),
        "escaped_cells": escaped,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "notes": list(exported.notes),
    }


def _marker(shipment: Shipment, chosen: Format, escaped: int) -> Marker | None:
    """What a reader of ours must know of the columns; None where there is none."""
    if chosen.again is None:
        return None
    return Marker(
        format=chosen.name,
        again=chosen.again,
        modality=shipment.manifest.modality,
        files=shipment.media is not None and chosen.files,
        label=shipment.label,
        group_by=shipment.group,
        inputs=shipment.manifest.inputs,
        windows=shipment.windows,
        texts=tuple(field.name for field in shipment.rows.schema if _is_text(field.type)),
        escaped=escaped > 0,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


KIND = Kind(name="export", spec=ExportSpec, plan=plan, run="speciate.datasets.exports.export:run")

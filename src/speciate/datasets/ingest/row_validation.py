"""Rows of a table, validated in sandboxed processes a slice at a time, as files are (validation.py): each medium is
admitted once.

The verdicts of a slice are kept in the run's checkpoints under the digest of the slice, so that the next attempt after
a kill does not validate it again. `validate_rows` runs in the sandbox, all else in the worker.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.columns import QUALITIES
from speciate.datasets.identity import input_values, row_keys, sha256
from speciate.datasets.ingest.validation import LONGEST_REASON, RECOVERY
from speciate.datasets.roles import Roles
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Busy, FileAnswer, Pool, ServiceAnswer
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.modalities.tabular import plain
from speciate.workspace.blobs import write_durably

_SLICE = 32_768
"""Rows per question to a process."""
_SECONDS, _LEAST_SECONDS = 600.0, 60.0
"""For a slice, and for the smallest piece of one."""
_PIECES = 16
_VALIDATE_ROWS = "speciate.datasets.ingest.row_validation:validate_rows"
VERDICTS = pa.schema(
    [
        ("content", pa.string()),
        ("fingerprint", pa.string()),
        ("key", pa.string()),
        ("sketch", pa.binary()),
        ("quality", pa.string()),
        ("reason", pa.string()),
        ("fields", pa.string()),
    ]
)
"""`content`, `fingerprint` and `key`: sha256 of the model's input, of its fingerprint and of all cells of the row.
`fields`: as JSON the columns that its modality makes, null if there are none. The others are as for files."""
_encode = json.JSONEncoder(sort_keys=True, default=str).encode
T = TypeVar("T")


class RowsRequest(TypedDict):
    file: str
    modality: str
    inputs: list[str]


class RowValidationContext(NamedTuple):
    """What rows are validated with."""

    run: Run
    pool: Pool
    work: Path
    """A folder below `readable`."""
    readable: frozenset[Path]


def validate_table(table: pa.Table, wanted: pa.ChunkedArray, roles: Roles, context: RowValidationContext) -> pa.Table:
    """VERDICTS on every row.

    Rows that are not `wanted` (bool) are not validated and get quality error. So does a single row that kills its
    process.
    """
    chosen = table.filter(wanted)
    slices = [chosen.slice(start, _SLICE) for start in range(0, max(chosen.num_rows, 1), _SLICE)]
    with ThreadPoolExecutor(context.pool.size, thread_name_prefix="ingest") as threads:
        found = [_error_verdicts(1, "It was not validated.")]
        for verdicts in threads.map(lambda rows: _validate_slice(rows, roles, context), slices):
            found.append(verdicts)
            if context.run.stopping:
                context.pool.close()
                raise Stopped
    mask = np.asarray(wanted, bool)
    return pa.concat_tables(found).take(pa.array(np.where(mask, np.cumsum(mask), 0)))


def _validate_slice(rows: pa.Table, roles: Roles, context: RowValidationContext) -> pa.Table:
    run = context.run
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="lz4")
    data = sink.getvalue()
    digest = hashlib.sha256(f"{roles.modality}/{'/'.join(roles.inputs)}".encode("utf-8", "surrogatepass"))
    digest.update(data)
    name = f"rows-{digest.hexdigest()[:32]}.parquet"
    for attempt in (run.folder, *run.resume_from):
        if (kept := attempt.checkpoints / name).exists():
            return _read_verdicts(kept, rows.num_rows)
    file = context.work / name
    file.write_bytes(data)

    def read(path: Path, answer: ServiceAnswer) -> pa.Table:
        return _read_verdicts(path, rows.num_rows)

    payload = RowsRequest(file=str(file), modality=roles.modality, inputs=list(roles.inputs))
    seconds = max(_LEAST_SECONDS, _SECONDS * rows.num_rows / _SLICE)
    try:
        verdicts = ask_until_answered(
            lambda: context.pool.ask_for_file(_VALIDATE_ROWS, payload, read, seconds, readable=context.readable), run
        )
    except SpeciateError as error:
        verdicts = _one_by_one(rows, roles, context, error)
    finally:
        file.unlink(missing_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(verdicts, sink)
    write_durably(run.checkpoints / name, sink.getvalue().to_pybytes())
    return verdicts


def _one_by_one(rows: pa.Table, roles: Roles, context: RowValidationContext, error: SpeciateError) -> pa.Table:
    """Verdicts on rows of which at least one was too much for a process: smaller slices, at last of one row."""
    if rows.num_rows <= 1:
        return _error_verdicts(rows.num_rows, f"The decoder failed on this row: {error.message}"[:LONGEST_REASON])
    size = -(-rows.num_rows // _PIECES)
    pieces = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    return pa.concat_tables([_validate_slice(piece, roles, context) for piece in pieces])


def _error_verdicts(count: int, reason: str) -> pa.Table:
    verdict = dict.fromkeys(VERDICTS.names) | {"quality": "error", "reason": reason}
    return pa.Table.from_pylist([verdict] * count, VERDICTS)


def _read_verdicts(path: Path, count: int) -> pa.Table:
    """Verdicts written by a process that met foreign bytes. REFUSED if they are not valid."""
    try:
        verdicts = pq.read_table(path).cast(VERDICTS)
        if verdicts.num_rows == count and pc.all(pc.is_in(verdicts["quality"], pa.array(QUALITIES))).as_py() in (
            True,
            None,
        ):
            return verdicts
    except (pa.ArrowException, OSError, ValueError):
        pass
    raise SpeciateError(Code.REFUSED, "A decoder's process gave an invalid answer.", RECOVERY)


def validate_rows(payload: RowsRequest) -> FileAnswer:
    """The service: VERDICTS on every row of a Parquet file, as Parquet."""
    table = pq.read_table(payload["file"])
    pq.write_table(row_verdicts(table, payload["modality"], payload["inputs"]), "verdicts.parquet")
    return {"file": "verdicts.parquet"}


def row_verdicts(table: pa.Table, name: str, inputs: list[str]) -> pa.Table:
    """VERDICTS on every row."""
    modality = find(name)
    rows = []
    for value in input_values(name, inputs, table):
        fingerprint, sketch, quality, reason, fields = None, None, "ok", None, None
        try:
            media = modality.admit(value)
            fingerprint, sketch = sha256(modality.fingerprint(media)), modality.sketch(media)
            fields = modality.row_fields(media)
        except DecodeError as error:
            quality, reason = error.quality, error.detail[:LONGEST_REASON]
        content = sha256(_encode(_untyped_value(value)))
        rows.append((content, fingerprint, sketch, quality, reason, json.dumps(fields) if fields else None))
    names = ("content", "fingerprint", "sketch", "quality", "reason", "fields")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    return pa.table({**columns, "key": row_keys(table)}).select(VERDICTS.names).cast(VERDICTS)


def _untyped_value(value: Any) -> Any:
    """The value without its numeric type, which does not make another row."""
    if isinstance(value, dict):
        return {name: _untyped_value(cell) for name, cell in value.items()}
    return [_untyped_value(cell) for cell in value] if isinstance(value, list) else plain(value)


def ask_until_answered(ask: Callable[[], T], run: Run) -> T:
    """The answer of `ask`, repeated while all processes are busy: that says nothing about the file.

    Raises what `ask` raises; Stopped if the run is to stop, whatever went wrong.
    """
    while True:
        try:
            return ask()
        except Busy:
            if run.stopping:
                raise Stopped from None
        except Exception:
            if run.stopping:  # then the processes were ended under it
                raise Stopped from None
            raise

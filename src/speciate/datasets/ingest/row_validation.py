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
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.columns import QUALITIES, with_column
from speciate.datasets.digest_columns import hexadecimal, sha256_of
from speciate.datasets.identity import input_values, row_keys, sha256
from speciate.datasets.ingest.validation import LONGEST_REASON, RECOVERY
from speciate.datasets.roles import Roles
from speciate.datasets.row_json import is_plain, object_rows, repr_cells
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Busy, FileAnswer, Pool, ServiceAnswer
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find, row_similarity
from speciate.modalities.contract import DecodeError
from speciate.modalities.tabular import TABULAR, plain
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
_LONG = pa.large_string()
T = TypeVar("T")
Mask = npt.NDArray[np.bool_]


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
    mask = np.asarray(wanted, bool)
    chosen = table if mask.all() else table.filter(wanted)
    slices = [chosen.slice(start, _SLICE) for start in range(0, max(chosen.num_rows, 1), _SLICE)]
    with ThreadPoolExecutor(context.pool.size, thread_name_prefix="ingest") as threads:
        found = list[pa.Table]()
        for verdicts in threads.map(lambda rows: _validate_slice(rows, roles, context), slices):
            found.append(verdicts)
            if context.run.stopping:
                context.pool.close()
                raise Stopped
    if mask.all():
        return pa.concat_tables(found)
    found = [_error_verdicts(1, "It was not validated."), *found]
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
    pq.write_table(verdicts, sink, compression="zstd")
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
            return _with_content_once(verdicts)
    except (pa.ArrowException, OSError, ValueError):
        pass
    raise SpeciateError(Code.REFUSED, "A decoder's process gave an invalid answer.", RECOVERY)


def _with_content_once(verdicts: pa.Table) -> pa.Table:
    """The fingerprint of most rows of numbers and texts is the content: then both are one column in memory."""
    is_same = verdicts["fingerprint"].equals(verdicts["content"])
    return with_column(verdicts, "fingerprint", verdicts["content"]) if is_same else verdicts


def validate_rows(payload: RowsRequest) -> FileAnswer:
    """The service: VERDICTS on every row of a Parquet file, as Parquet."""
    table = pq.read_table(payload["file"])
    pq.write_table(row_verdicts(table, payload["modality"], payload["inputs"]), "verdicts.parquet")
    return {"file": "verdicts.parquet"}


def row_verdicts(table: pa.Table, name: str, inputs: list[str]) -> pa.Table:
    """VERDICTS on every row."""
    found = tabular_verdicts(table.select(inputs)) if name == TABULAR.name else None
    if found is None:
        found = _verdicts_one_by_one(table, name, inputs)
    return pa.table({**found, "key": row_keys(table)}).select(VERDICTS.names).cast(VERDICTS)


def _verdicts_one_by_one(table: pa.Table, name: str, inputs: list[str]) -> dict[str, Any]:
    """The columns of VERDICTS but the key."""
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
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())


def tabular_verdicts(table: pa.Table) -> dict[str, Any] | None:
    """The columns of VERDICTS but the key, on rows of these inputs: as `_verdicts_one_by_one`, column by column.

    None where a cell may be neither a number nor a text.
    """
    if not table.num_columns or not all(is_plain(field.type) for field in table.schema):
        return None
    table = table.combine_chunks()
    without_nan, missing, infinite = table, np.ones(table.num_rows, bool), dict[str, Mask]()
    for name in table.column_names:
        column = table[name]
        if pa.types.is_floating(column.type):
            is_nan = pc.is_nan(column)
            if pc.any(is_nan).as_py():
                column = pc.if_else(is_nan, None, column)
                without_nan = with_column(without_nan, name, column)
            infinite[name] = np.asarray(pc.fill_null(pc.is_inf(column), False), bool)
        missing &= np.asarray(pc.is_null(column), bool)
    content = hexadecimal(sha256_of(object_rows(table)))
    fingerprint = content if without_nan is table else hexadecimal(sha256_of(object_rows(without_nan)))
    sketch = _tabular_sketches(without_nan)
    if sketch is None:
        return None
    reason = pa.nulls(table.num_rows, pa.string())
    for name in reversed(infinite):  # the first one counts
        if infinite[name].any():
            reason = pc.if_else(pa.array(infinite[name]), f"Column {name!r} is infinite."[:LONGEST_REASON], reason)
    reason = pc.if_else(pa.array(missing), "Every input of the row is missing.", reason)
    fit = reason.is_null()
    return {
        "content": content, "fingerprint": pc.if_else(fit, fingerprint, None), "sketch": pc.if_else(fit, sketch, None),
        "quality": pc.if_else(fit, "ok", "error"), "reason": reason, "fields": pa.nulls(table.num_rows, pa.string()),
    }  # fmt: skip


def _tabular_sketches(table: pa.Table) -> pa.Array | None:
    """What `row_similarity.sketch_row` gives of each row, of which no fraction is NaN."""
    named, numbers, others = list[str](), list[npt.NDArray[np.float64]](), list[pa.ChunkedArray]()
    nothing = pa.scalar("", _LONG)
    for name in sorted(table.column_names):
        column = table[name]
        without = pa.scalar(f"\0{name}=None", _LONG)
        absent = pc.if_else(pc.is_null(column), without, nothing)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            named.append(name)
            numbers.append(np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), np.nan)))
            others.append(absent)
        elif pa.types.is_null(column.type):
            others.append(absent)
        else:
            cells = repr_cells(column.combine_chunks())
            written = pc.binary_join_element_wise(pa.scalar(f"\0{name}=", _LONG), cells, nothing)
            others.append(pc.fill_null(written, without))
    if not numbers:
        return pa.nulls(table.num_rows, pa.binary())
    texts = pc.binary_join_element_wise(*others, nothing)
    encoded = (texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts).dictionary_encode()
    digests = b"".join([row_similarity.digest(each[1:]) for each in encoded.dictionary.to_pylist()])
    chosen = np.frombuffer(digests, np.uint8).reshape(-1, 8)[np.asarray(encoded.indices)]
    codes = row_similarity.sketch_rows(named, np.stack(numbers, axis=1), chosen)
    if codes is None:
        return None
    sketches = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(codes), [None, pa.py_buffer(codes.starts), pa.py_buffer(codes.data)]
    )
    return pc.if_else(pc.equal(pc.binary_length(sketches), 0), None, sketches).cast(pa.binary())


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

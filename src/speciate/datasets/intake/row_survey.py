"""Rows of a table, judged in caged processes a slice at a time. What a slice's verdicts were is kept in the run's
checkpoints under the digest of the slice, so that whoever comes after a kill does not ask again."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.columns import QUALITIES
from speciate.datasets.intake.asking import insist
from speciate.datasets.intake.judging import LONGEST_REASON, RECOVERY
from speciate.datasets.intake.judging_rows import VERDICTS
from speciate.datasets.roles import Roles
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.workspace.blobs import write_durably

_SLICE = 32_768
"""Rows per question to a process."""
_SECONDS, _LEAST_SECONDS = 600.0, 60.0
"""For a slice, and for the smallest piece of one."""
_PIECES = 16
_JUDGE = "speciate.datasets.intake.judging_rows:judge_rows"


class RowDesk(NamedTuple):
    """Where rows are judged."""

    run: Run
    pool: Pool
    work: Path
    """A folder below `readable`."""
    readable: frozenset[Path]


def judge_table(table: pa.Table, wanted: pa.ChunkedArray, roles: Roles, desk: RowDesk) -> pa.Table:
    """VERDICTS on every row: those that are not `wanted` (bool) are not judged, and error. So is a row that costs a
    process its life, alone."""
    chosen = table.filter(wanted)
    slices = [chosen.slice(start, _SLICE) for start in range(0, max(chosen.num_rows, 1), _SLICE)]
    with ThreadPoolExecutor(desk.pool.size, thread_name_prefix="ingest") as threads:
        found = [_unjudged(1, "It was not judged.")]
        for verdicts in threads.map(lambda rows: _judged(rows, roles, desk), slices):
            found.append(verdicts)
            if desk.run.stopping:
                desk.pool.close()
                raise Stopped
    mask = np.asarray(wanted, bool)
    return pa.concat_tables(found).take(pa.array(np.where(mask, np.cumsum(mask), 0)))


def _judged(rows: pa.Table, roles: Roles, desk: RowDesk) -> pa.Table:
    run = desk.run
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="lz4")
    data = sink.getvalue()
    digest = hashlib.sha256(f"{roles.modality}/{'/'.join(roles.inputs)}".encode("utf-8", "surrogatepass"))
    digest.update(data)
    name = f"rows-{digest.hexdigest()[:32]}.parquet"
    for attempt in (run.folder, *run.resume_from):
        if (kept := attempt.checkpoints / name).exists():
            return _checked(kept, rows.num_rows)
    file = desk.work / name
    file.write_bytes(data)

    def read(path: Path, answer: dict[str, Any]) -> pa.Table:
        return _checked(path, rows.num_rows)

    payload = {"file": str(file), "modality": roles.modality, "inputs": list(roles.inputs)}
    seconds = max(_LEAST_SECONDS, _SECONDS * rows.num_rows / _SLICE)
    try:
        verdicts = insist(lambda: desk.pool.ask_for_file(_JUDGE, payload, read, seconds, readable=desk.readable), run)
    except SpeciateError as error:
        verdicts = _one_by_one(rows, roles, desk, error)
    finally:
        file.unlink(missing_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(verdicts, sink)
    write_durably(run.checkpoints / name, sink.getvalue().to_pybytes())
    return verdicts


def _one_by_one(rows: pa.Table, roles: Roles, desk: RowDesk, error: SpeciateError) -> pa.Table:
    """Verdicts on rows of which one at least was too much for a process: smaller slices, at last of one row."""
    if rows.num_rows <= 1:
        return _unjudged(rows.num_rows, f"The decoder failed on this row: {error.message}"[:LONGEST_REASON])
    size = -(-rows.num_rows // _PIECES)
    pieces = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    return pa.concat_tables([_judged(piece, roles, desk) for piece in pieces])


def _unjudged(count: int, reason: str) -> pa.Table:
    verdict = dict.fromkeys(VERDICTS.names) | {"quality": "error", "reason": reason}
    return pa.Table.from_pylist([verdict] * count, VERDICTS)


def _checked(path: Path, count: int) -> pa.Table:
    """What a process that met foreign bytes wrote. REFUSED where it is not what was asked for."""
    try:
        verdicts = pq.read_table(path).cast(VERDICTS)
        if verdicts.num_rows == count and pc.all(pc.is_in(verdicts["quality"], pa.array(QUALITIES))).as_py() in (
            True,
            None,
        ):
            return verdicts
    except (pa.ArrowException, OSError, ValueError):
        pass
    raise SpeciateError(Code.REFUSED, "A decoder's process gave an answer that is none.", RECOVERY)

"""Rows of a table, judged in caged processes a slice at a time. What a slice's verdicts were is kept in the run's
checkpoints under the digest of the slice, so that whoever comes after a kill does not ask again."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.intake.judging import QUALITIES
from speciate.datasets.intake.judging_rows import VERDICTS
from speciate.datasets.intake.roles import Roles
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.workspace.blobs import write_durably

_SLICE = 32_768
"""Rows per question to a process."""
_SECONDS = 600.0
_JUDGE = "speciate.datasets.intake.judging_rows:judge_rows"


def judge_table(table: pa.Table, roles: Roles, run: Run, pool: Pool, work: Path, readable: frozenset[Path]) -> pa.Table:
    """VERDICTS on every row. `work`: a folder below `readable`. UNAVAILABLE where a slice is too much for a process."""
    slices = [table.slice(start, _SLICE) for start in range(0, max(table.num_rows, 1), _SLICE)]
    with ThreadPoolExecutor(pool.size, thread_name_prefix="ingest") as threads:
        found = []
        for verdicts in threads.map(lambda rows: _judged(rows, roles, run, pool, work, readable), slices):
            found.append(verdicts)
            if run.stopping:
                pool.close()
                raise Stopped
    return pa.concat_tables(found)


def _judged(rows: pa.Table, roles: Roles, run: Run, pool: Pool, work: Path, readable: frozenset[Path]) -> pa.Table:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="lz4")
    data = sink.getvalue()
    digest = hashlib.sha256(f"{roles.modality}/{'/'.join(roles.inputs)}".encode("utf-8", "surrogatepass"))
    digest.update(data)
    name = f"rows-{digest.hexdigest()[:32]}.parquet"
    for attempt in (run.folder, *run.resume_from):
        if (kept := attempt.checkpoints / name).exists():
            return _checked(kept, rows.num_rows)
    file = work / name
    file.write_bytes(data)

    def read(path: Path, answer: dict[str, Any]) -> pa.Table:
        verdicts = _checked(path, rows.num_rows)
        write_durably(run.checkpoints / name, path.read_bytes())
        return verdicts

    payload = {"file": str(file), "modality": roles.modality, "inputs": list(roles.inputs)}
    try:
        return pool.ask_for_file(_JUDGE, payload, read, _SECONDS, readable=readable)
    finally:
        file.unlink(missing_ok=True)


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
    raise SpeciateError(Code.REFUSED, "A decoder's process gave an answer that is none.", "Call create_dataset again.")

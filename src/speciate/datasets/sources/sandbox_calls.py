"""Calls of sandboxed processes about a source: files written into a folder, tables, and a table's columns.

Tables come back as Parquet that the process wrote.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.read_table import ColumnsRequest, HeadRequest, TableRequest, check_pattern
from speciate.datasets.sources.archives import NO_ROOM
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import SERVICE_MODULE, Pool, ServiceAnswer, ask_service
from speciate.sandbox import Limits, SandboxPolicy
from speciate.sandbox.client import Access, AnswerTimeout, ProcessDied, SandboxClient
from speciate.workspace.disk_space import format_bytes
from speciate.workspace.workspace import Folders

_log = logging.getLogger(__name__)
_UNPACK_LIMITS = Limits(memory_mb=4096, file_mb=2048)
_UNPACK_SECONDS = 3600.0
_LONGEST_ANSWER = 64 << 20  # bytes
_SPARE = 1 << 30  # bytes of the disk that stay free
_TABLE_SECONDS = 600.0
_READ_TABLE = "speciate.datasets.readers.read_table:read_table"
_READ_HEAD = "speciate.datasets.readers.read_table:read_head"
_HEAD_SECONDS = 60.0
_CHECK_COLUMNS = "speciate.datasets.readers.read_table:check_columns"


class NotLookedAtError(Exception):
    """A sample of the source would take too much; the message says of what."""


@dataclass
class Sample:
    """How much of a source is read to show what it would become. All files are listed by name."""

    files: int = 24
    """Media that are decoded."""
    media_bytes: int = 64 << 20
    """Bytes of them."""
    table_bytes: int = 8 << 20
    """Bytes of all tables that are read whole; of further ones the first rows."""
    archive_bytes: int = 64 << 20
    """Bytes of all archives."""
    unpacked_bytes: int = 256 << 20
    """Bytes of everything in them."""
    is_part: bool = False
    """Whether anything was left out so far."""


class SourceContext(NamedTuple):
    """What a source is prepared with."""

    pool: Pool
    policy: SandboxPolicy
    folders: Folders
    work: Path
    """A folder of the run's own; created if it is missing."""
    now: float = 0.0
    """By the workspace's clock: answers of a log are as old as that says."""
    requested: frozenset[str] = frozenset()
    """Answers of a log about which episodes of a watch asked, drawn at random."""
    sample: Sample | None = None
    """None: everything is read."""


def unpack_into(
    folder: Path, service: str, payload: Mapping[str, object], *, readable: Iterable[Path], context: SourceContext
) -> ServiceAnswer:
    """The answer of `service`, whose working folder is `folder`; as `budget` it gets the bytes that it may write.

    Raises the service's errors; UNAVAILABLE if the process crashed or took longer than an hour.
    """
    access = Access(tuple(readable), _UNPACK_LIMITS, code=False, longest_answer=_LONGEST_ANSWER, fork=True)
    client = SandboxClient(SERVICE_MODULE, folder, context.policy, access, str(context.folders.root), keep=True)
    try:
        budget = max(0, shutil.disk_usage(folder).free - _SPARE)
        if context.sample is not None:
            budget = min(budget, context.sample.unpacked_bytes)
        with context.pool.ends_with_it(client):
            answer = ask_service(client, service, {**payload, "budget": budget}, _UNPACK_SECONDS)
        if context.sample is not None and any(reason == NO_ROOM for _, reason in answer["excluded"]):
            raise NotLookedAtError(f"a file that unpacks to more than {format_bytes(context.sample.unpacked_bytes)}")
        return answer
    except (AnswerTimeout, ProcessDied) as error:
        _log.warning("the process of %s: %s", service, str(error) or "it took too long")
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The process that unpacks was ended: it crashed, needed more than {_UNPACK_LIMITS.memory_mb} MB of "
            "memory, or more than an hour.",
            "Unpack it yourself and call create_dataset with the folder.",
        ) from None
    finally:
        client.end()


def ask_table(
    pool: Pool,
    path: Path,
    reader: Reader = Reader(),  # noqa: B008 - never changed
    modality: str = "auto",
    *,
    readable: Iterable[Path] = (),
    text: Sequence[str] = (),
    label: str | None = None,
    channels: Sequence[str] = (),
    most_bytes: int | None = None,
) -> pa.Table:
    """The table in a file; a row that cannot be read has a reason in REASON.

    `text`: columns that stay as they are written, so that `007` stays `007`. `label`: the label column of series.
    `channels`: columns of lists that are the channels of a series, where not all of them are. `most_bytes`: of a longer
    file only the first rows, where its format has them apart.
    INVALID if the file is no such table, REFUSED beyond a budget, UNAVAILABLE if the process died.
    """
    request = TableRequest(path, reader, modality, tuple(text), label, tuple(channels), most_bytes)
    allowed = frozenset(readable) or frozenset((path,))
    return pool.ask_for_file(_READ_TABLE, request.payload(), read_parquet_answer, _TABLE_SECONDS, readable=allowed)


def ask_head(pool: Pool, path: Path, *, readable: Iterable[Path] = ()) -> pa.Table:
    """The first rows of a table, all cells of text as written; no row where only the whole file tells.

    Raises as `ask_table`.
    """
    allowed = frozenset(readable) or frozenset((path,))
    request = HeadRequest(path=str(path))
    return pool.ask_for_file(_READ_HEAD, request, read_parquet_answer, _HEAD_SECONDS, readable=allowed)


def read_parquet_answer(path: Path, answer: ServiceAnswer) -> pa.Table:
    """The Parquet file that a service answered with."""
    return pq.read_table(path)


def check_named_columns(
    pool: Pool, table: Path, label: str | None, inputs: Sequence[str], group_by: str | None = None
) -> None:
    """INVALID if the header of `table` lacks one of the columns; it passes if that cannot be known at once.

    `group_by` may be a regular expression instead.
    """
    columns = [("label", label)] if label not in (None, "folder") else []
    columns += [("inputs", column) for column in inputs]
    if not table.is_file():
        check_pattern(group_by)
        return
    if not columns and group_by in (None, "folder"):
        return
    _check_columns(pool, table, {"path": str(table), "columns": columns, "group_by": group_by})


def check_labels_file(pool: Pool, labels: Path, key: str, column: str | None) -> None:
    """INVALID if the header of a labels file lacks the key or the column; it passes if that cannot be known at once."""
    columns = [("labels.key", key)] + ([("labels.column", column)] if column is not None else [])
    request: ColumnsRequest = {
        "path": str(labels), "columns": columns, "group_by": None, "file": repr(labels.name[:64]),
    }  # fmt: skip
    _check_columns(pool, labels, request)


def _check_columns(pool: Pool, table: Path, request: ColumnsRequest) -> None:
    try:
        pool.ask(_CHECK_COLUMNS, request, readable=frozenset((table,)))
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE:  # then the job reports it
            raise

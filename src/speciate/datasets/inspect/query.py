"""Asks the SQL sandbox for a page of rows of a version; the daemon's side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.columns import clean
from speciate.datasets.inspect.sql_sandbox import LogRequest, VersionRequest, condition
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.jobs.pool import CALL_SECONDS, Pool
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.datasets.inspect.sql_sandbox:query"
_CURSOR = re.compile(r"v(\d+)\.(\d+)")


class Page(NamedTuple):
    """`rows` are foreign text. `next_cursor` is None at the end."""

    columns: list[str]
    rows: list[list[Any]]
    next_cursor: str | None


def query(
    pool: Pool,
    folders: Folders,
    manifest: Manifest,
    *,
    sql: str | None = None,
    where: str | None = None,
    split: str | None = None,
    since: Manifest | None = None,
    limit: int = 20,
    cursor: str | None = None,
    whole: bool = False,
    timeout: float = 20.0,
) -> Page:
    """Rows of one SELECT over `examples`, or rows that fulfil a condition; all without either.

    `split`: see only this split. `since`: see the changes since that version, with `change` and `label_before`. A page
    ends early if its rows are long, unless it is wanted `whole`. INVALID for wrong or forbidden SQL, UNAVAILABLE if it
    takes too long.
    """
    if sql is not None and where is not None:
        raise SpeciateError(Code.INVALID, "Both sql and where were given.", "Call query_dataset with one of them.")
    offset = _offset(cursor, manifest)
    request = VersionRequest(
        root=folders.root,
        manifest=manifest,
        since=since,
        sql=sql if sql is not None else condition(where if where is not None else "true"),
        split=split,
        limit=limit,
        offset=offset,
        whole=whole,
    )
    answer = pool.ask(_SERVICE, request.model_dump(mode="json"), timeout, patience=CALL_SECONDS)
    rows = answer["rows"]
    more = f"v{manifest.version}.{offset + len(rows)}" if answer["more"] else None
    return Page([clean(name) for name in answer["columns"]], rows, more)


def query_log(
    pool: Pool,
    folder: Path,
    since: float,
    *,
    sql: str | None = None,
    where: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """A page of the answers since then in the log in `folder`: rows of one SELECT, or rows that fulfil a condition. The
    newest come first unless SQL orders them."""
    if sql is not None and where is not None:
        raise SpeciateError(Code.INVALID, "Both sql and where were given.", "Call query_dataset with one of them.")
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise SpeciateError(Code.INVALID, f"{cursor!r} is no cursor of a log.", next=[CallAgain("", {"cursor": None})])
    offset = int(cursor or 0)
    request = LogRequest(
        log=folder,
        since=since,
        sql=sql if sql is not None else f"{condition(where if where is not None else 'true')} ORDER BY id DESC",
        limit=limit,
        offset=offset,
    )
    payload = request.model_dump(mode="json")
    answer = pool.ask(_SERVICE, payload, readable=frozenset((folder,)), patience=CALL_SECONDS)
    rows = answer["rows"]
    return Page([clean(name) for name in answer["columns"]], rows, f"{offset + len(rows)}" if answer["more"] else None)


def _offset(cursor: str | None, manifest: Manifest) -> int:
    """Where the page begins. INVALID if the page before was of another version: rows would be missed or repeated."""
    if cursor is None:
        return 0
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise SpeciateError(
            Code.INVALID,
            f"{cursor!r} is no cursor.",
            "A cursor is next_cursor of the page before.",
            next=[CallAgain("", {"cursor": None})],
        )
    if int(found[1]) != manifest.version:
        raise SpeciateError(
            Code.CONFLICT,
            f"The page before was of {manifest.name}@v{found[1]}, and this is {manifest.ref}.",
            f"Call again with dataset='{manifest.name}@v{found[1]}', or without cursor to begin anew.",
        )
    return int(found[2])

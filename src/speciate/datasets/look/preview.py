"""Some examples of a version as one picture; the daemon's side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets.look.query import query
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.datasets.look.contact_sheet:draw_thumbnails"


class Sheet(NamedTuple):
    """`png`: at most 1,024 pixels wide; `rows` in reading order, foreign text."""

    png: bytes
    columns: list[str]
    rows: list[list[Any]]


def contact_sheet(
    pool: Pool,
    folders: Folders,
    manifest: Manifest,
    *,
    where: str | None = None,
    ids: Sequence[str] | None = None,
    split: str | None = None,
    count: int = 12,
) -> Sheet:
    """The first `count` usable examples where a condition holds, or all those named, in that order.

    INVALID where there are none, NOT_FOUND where one that is named is not among them.
    """
    condition = f"({where}\n)" if where else "true"
    if ids is not None:
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
        condition += f" AND id IN ({listed})"
    sql = f"SELECT id, label, split, group_key, source FROM examples WHERE quality = 'ok' AND {condition} ORDER BY id"
    limit = count if ids is None else len(set(ids))
    page = query(pool, folders, manifest, sql=sql, split=split, limit=limit, whole=True)
    if not page.rows:
        raise SpeciateError(
            Code.INVALID,
            f"No usable example of {manifest.ref} fits, so there is nothing to show.",
            f"Call query_dataset(dataset={manifest.ref!r}) to see what there is.",
        )
    rows = page.rows if ids is None else _as_asked(page.rows, ids, manifest)
    chosen = [row[0] for row in rows]
    payload = {"root": str(folders.root), "manifest": manifest.model_dump(mode="json"), "ids": chosen}
    answer = pool.ask(_SERVICE, payload)
    return Sheet(base64.b64decode(answer["png"]), page.columns, rows)


def _as_asked(rows: list[list[Any]], ids: Sequence[str], manifest: Manifest) -> list[list[Any]]:
    by_id = {row[0]: row for row in rows}
    missing = [name for name in dict.fromkeys(ids) if name not in by_id]
    if missing:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{len(missing)} of the ids are not in {manifest.ref} or are set aside, such as {missing[0][:64]!r}.",
            f"Call query_dataset(dataset={manifest.ref!r}) for ids and their quality.",
        )
    return [by_id[name] for name in dict.fromkeys(ids)]

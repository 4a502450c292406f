"""Some examples of a version as one picture; the daemon's side."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets.look.query import Page, query
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import CALL_SECONDS, Busy, Pool
from speciate.workspace.workspace import Folders

_SHOWN, _QUALITY = ("id", "label", "split", "group_key", "source"), ("quality", "reason")
_ASKS_FOR_QUALITY = re.compile(r"\b(quality|reason)\b", re.IGNORECASE)
_SERVICE = "speciate.datasets.look.contact_sheet:draw_thumbnails"
_LONGEST_ANSWER = 300
"""Characters of a cell of `answers`: 36 examples with two each still make one result; query_dataset shows more."""


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
    answers: Sequence[str] = (),
) -> Sheet:
    """The first `count` usable examples where a condition holds, or all those named, in that order.

    `answers`: columns of the version that the rows show as well, since the picture shows only what is asked.

    What was set aside is shown where it is named, where the condition asks for `quality` or `reason`, and where nothing
    usable fits; the rows then say the quality and the reason. INVALID where there are none, NOT_FOUND where one that is
    named is not among them.
    """
    condition = f"({where}\n)" if where else "true"
    if ids is not None:
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
        condition += f" AND id IN ({listed})"
    limit = count if ids is None else len(set(ids))

    quoted = ('"' + name.replace('"', '""') + '"' for name in answers)
    chosen = ", ".join((*_SHOWN, *quoted, *_QUALITY))

    def ask(condition: str) -> Page:
        sql = f"SELECT {chosen} FROM examples WHERE {condition} ORDER BY id"
        return query(pool, folders, manifest, sql=sql, split=split, limit=limit, whole=True)

    any_quality = ids is not None or _ASKS_FOR_QUALITY.search(where or "")
    page = ask(condition if any_quality else f"quality = 'ok' AND {condition}")
    if not page.rows:
        page = ask(condition)
    if not page.rows:
        raise SpeciateError(
            Code.INVALID,
            f"No example of {manifest.ref} fits, so there is nothing to show.",
            f"Call query_dataset(dataset={manifest.ref!r}) to see what there is.",
        )
    rows = page.rows if ids is None else _as_asked(page.rows, ids, manifest)
    aside = {row[0]: row[-1] or "" for row in rows if row[-2] != "ok"}
    payload = {
        "root": str(folders.root), "manifest": manifest.model_dump(mode="json"), "ids": [row[0] for row in rows],
        "aside": aside,
    }  # fmt: skip
    answer = _drawn(pool, payload, manifest, named=ids is not None)
    said, known = len(_SHOWN), len(_SHOWN) + len(answers)
    shown = len(page.columns) if aside else known
    cut = [[*row[:said], *map(_cut, row[said:known]), *row[known:shown]] for row in rows]
    return Sheet(base64.b64decode(answer["png"]), page.columns[:shown], cut)


def _cut(cell: Any) -> Any:
    """A text, or a conversation as JSON, that ends with a mark where it is long."""
    text = json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
    return text[:_LONGEST_ANSWER] + "…" if isinstance(text, str) and len(text) > _LONGEST_ANSWER else text


def _drawn(pool: Pool, payload: dict[str, Any], manifest: Manifest, *, named: bool) -> dict[str, Any]:
    """What the service answers. Where that takes too long, the call that asks for a third of it."""
    try:
        return pool.ask(_SERVICE, payload, patience=CALL_SECONDS)
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE or isinstance(error, Busy):
            raise
        chosen = payload["ids"]
        fewer = len(chosen) // 3 or len(chosen) // 2
        less = f"ids={chosen[:fewer]!r}" if named else f"count={fewer}"
        recovery = (
            f"Call preview_dataset(dataset={manifest.ref!r}, {less}), else as before."
            if fewer
            else f"Call query_dataset(dataset={manifest.ref!r}) for its row without a picture."
        )
        raise SpeciateError(
            error.code,
            f"{len(chosen)} examples are too many for one picture. {error.message}" if fewer else error.message,
            recovery,
            error.foreign,
        ) from error


def _as_asked(rows: list[list[Any]], ids: Sequence[str], manifest: Manifest) -> list[list[Any]]:
    by_id = {row[0]: row for row in rows}
    missing = [name for name in dict.fromkeys(ids) if name not in by_id]
    if missing:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{len(missing)} of the ids are not in {manifest.ref}, such as {missing[0][:64]!r}.",
            f"Call query_dataset(dataset={manifest.ref!r}) for ids.",
        )
    return [by_id[name] for name in dict.fromkeys(ids)]

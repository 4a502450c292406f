"""Differences between two versions: SQL over the parts that they do not share, and counts of it.

Shared files are not read: only the positions that one of the two removed from them count. So the cost follows the
change, unless one of the versions was written anew. `compare_versions` runs in a service process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import duckdb
import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import PROVENANCE
from speciate.datasets.versions import Manifest, Part
from speciate.workspace.workspace import Folders

_NUMBERS = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\))(?P<lists>(\[\d*\])*)")
_MOVES_SHOWN = 50


def changes_sql(connection: duckdb.DuckDBPyConnection, folders: Folders, old: Manifest, new: Manifest) -> str:
    """SQL that may stand after FROM: rows with `change` (added, removed, changed) and `label_before`, then all columns.

    A row is `changed` if any cell but its provenance differs; it is given as `new` has it.
    """
    before, after = rows_only_in_sql(folders, old, new), rows_only_in_sql(folders, new, old)
    if before is None and after is None:
        empty = version_rows.relation(folders, new)
        return f"(SELECT NULL::VARCHAR AS change, NULL::VARCHAR AS label_before, * FROM {empty} WHERE false)"
    before = before or f"(SELECT * FROM {version_rows.relation(folders, old)} WHERE false)"
    after = after or f"(SELECT * FROM {version_rows.relation(folders, new)} WHERE false)"
    differs = _differs(_types(connection, before), _types(connection, after))
    return f"""(
        WITH o AS (FROM {before}), n AS (FROM {after})
        SELECT 'added' AS change, NULL::VARCHAR AS label_before, n.* FROM n ANTI JOIN o USING (id)
        UNION ALL BY NAME
        SELECT 'removed' AS change, o.label::VARCHAR AS label_before, o.* FROM o ANTI JOIN n USING (id)
        UNION ALL BY NAME
        SELECT 'changed' AS change, o.label::VARCHAR AS label_before, n.* FROM n JOIN o USING (id) WHERE {differs}
    )"""


def rows_only_in_sql(folders: Folders, version: Manifest, other: Manifest) -> str | None:
    """SQL of the rows in parts of `version` that `other` does not hold at the same place; None if there are none."""
    theirs = {part.file: part for part in other.parts}
    pieces = []
    for part in version.parts:
        if part.file not in theirs:
            pieces.append(
                f"SELECT * FROM {version_rows.relation(folders, version.model_copy(update={'parts': (part,)}))}"
            )
        elif (condition := _back(folders, part, theirs[part.file])) is not None:
            pieces.append(version_rows.rows_of_file(folders.root / part.file, condition))
    return f"({' UNION ALL BY NAME '.join(pieces)})" if pieces else None


def _back(folders: Folders, part: Part, other: Part) -> str | None:
    """Rows of a shared file that only `part` still holds."""
    if part.removed == other.removed:
        return None
    if not len(np.setdiff1d(version_rows.positions(folders, other), version_rows.positions(folders, part))):
        return None
    gone = [
        f"SELECT position FROM read_parquet({version_rows.quoted(folders.root / removed)})"
        for removed in (other.removed, part.removed)
        if removed is not None
    ]
    return f"file_row_number IN ({' EXCEPT '.join(gone)})"


def _types(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}


def _differs(before: dict[str, str], after: dict[str, str]) -> str:
    names = [name for name in dict.fromkeys((*before, *after)) if name not in PROVENANCE]
    return " OR ".join(_cell_differs(name, before.get(name), after.get(name)) for name in names) or "false"


def _cell_differs(name: str, before: str | None, after: str | None) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    if before is None or after is None:
        return f"{'n' if before is None else 'o'}.{quoted} IS NOT NULL"
    cast = "" if before == after else f"::{_common(before, after)}"
    return f"n.{quoted}{cast} IS DISTINCT FROM o.{quoted}{cast}"


def _common(before: str, after: str) -> str:
    """The type for comparing two: whole numbers that became fractions are still the same."""
    a, b = _NUMBERS.fullmatch(before), _NUMBERS.fullmatch(after)
    return f"DOUBLE{a['lists']}" if a and b and a["lists"] == b["lists"] else "VARCHAR"


class ComparisonRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    old: Manifest
    new: Manifest


class ComparedVersions(TypedDict):
    added: int
    removed: int
    changed: int
    label_moves: list[tuple[str | None, str | None, int]]
    """Before, after and examples, most frequent first, at most 50."""


def compare_versions(payload: Mapping[str, object]) -> ComparedVersions:
    """The service behind `ask_for_difference`. `payload`: a ComparisonRequest."""
    request = ComparisonRequest.model_validate(payload)
    with duckdb.connect(":memory:") as connection:
        source = changes_sql(connection, Folders(request.root), request.old, request.new)
        connection.execute(
            f"CREATE TABLE changes AS SELECT change, label_before, label::VARCHAR AS label FROM {source}"
        )
        counts = dict(connection.execute("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
        moves = connection.execute(
            "SELECT label_before, label, count(*) AS n FROM changes "
            "WHERE change = 'changed' AND label IS DISTINCT FROM label_before "
            f"GROUP BY ALL ORDER BY n DESC, label_before, label LIMIT {_MOVES_SHOWN}"
        ).fetchall()
    return {
        "added": counts.get("added", 0),
        "removed": counts.get("removed", 0),
        "changed": counts.get("changed", 0),
        "label_moves": [(before, after, examples) for before, after, examples in moves],
    }

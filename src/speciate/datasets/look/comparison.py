"""How many examples differ between two versions, and how their labels moved; runs in a service process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from speciate.datasets import changes
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Folders

_MOVES_SHOWN = 50


def compare(payload: dict[str, Any]) -> dict[str, Any]:
    """The service behind `describe.difference`: {root, old, new} -> {added, removed, changed, label_moves}.

    `label_moves`: [before, after, examples], most frequent first, at most 50.
    """
    folders = Folders(Path(payload["root"]))
    old, new = Manifest.model_validate(payload["old"]), Manifest.model_validate(payload["new"])
    with duckdb.connect(":memory:") as connection:
        source = changes.relation(connection, folders, old, new)
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
        **{change: counts.get(change, 0) for change in ("added", "removed", "changed")},
        "label_moves": [list(move) for move in moves],
    }

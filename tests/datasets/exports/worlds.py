"""Versions made by hand, without an ingest: rows, and media in a pack."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from speciate.datasets import next_version
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.versions import Manifest, register
from speciate.workspace.packs import PackWriter
from speciate.workspace.workspace import Workspace


def seal(
    workspace: Workspace,
    name: str,
    rows: list[dict[str, Any]],
    *,
    media: list[bytes] | None = None,
    **manifest: Any,
) -> Manifest:
    """`rows` may leave out fixed columns; those beyond them are the user's. `media`: one per row."""
    columns: dict[str, Any] = {
        "id": [row.get("id", f"ex-{i:04}") for i, row in enumerate(rows)],
        "split": pa.array([row.get("split") for row in rows], pa.string()),
        "label": pa.array([row.get("label") for row in rows], pa.string()),
        "group_key": pa.array([row.get("group_key") for row in rows], pa.string()),
        "quality": [row.get("quality", "ok") for row in rows],
        "reason": pa.array([row.get("reason") for row in rows], pa.string()),
        "source": [row.get("source", f"rows#{i + 1}") for i, row in enumerate(rows)],
    }
    if any(START in row for row in rows):
        for hidden in (START, STOP):
            columns[hidden] = pa.array([row.get(hidden) for row in rows], pa.float64())
    packs: tuple[str, ...] = ()
    if media is not None:
        with PackWriter(workspace.folders.packs) as writer:
            columns[CONTENT] = [writer.add(each) for each in media]
            packs = (writer.seal().relative_to(workspace.folders.root).as_posix(),)
    user = dict.fromkeys(key for row in rows for key in row if key not in columns and key not in (START, STOP))
    columns |= {key: [row.get(key) for row in rows] for key in user}
    wanted = {"modality": "image" if media is not None else "text", **manifest}
    empty = Manifest(name=name, version=0, id="", parts=(), packs=packs, columns={}, rows=0, **wanted)
    sealed = next_version.seal_first(workspace.folders, pa.table(columns), empty)
    operation = {"op": "ingest", "source": f"/home/somebody/secret/{name}"}
    return workspace.database.transact(
        lambda tx: register(tx, sealed.manifest, sealed.lanes, operation=operation, report={"ok": len(rows)}, job=None)
    )

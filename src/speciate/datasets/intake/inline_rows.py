"""Rows that come with a call lie in a blob of their own, which a spec names by its sha256: so they can be forgotten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Folders, Workspace


def keep_rows(workspace: Workspace, rows: Sequence[dict[str, Any]]) -> str:
    """On disk when this returns."""
    return Blobs(workspace.folders.blobs).put(json.dumps(list(rows), sort_keys=True).encode("utf-8", "surrogatepass"))


def kept_rows(folders: Folders, sha256: str) -> list[dict[str, Any]]:
    """NOT_FOUND where they were forgotten meanwhile."""
    rows: list[dict[str, Any]] = json.loads(Blobs(folders.blobs).get(sha256))
    return rows

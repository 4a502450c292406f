"""A few examples of a dataset version as clients would send them, to try a model on before it serves.

Runs in a process of the service pool. Bytes of files are copied from the packs as they are: nobody decodes them but the
version's own caged process.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from speciate.datasets import scan
from speciate.datasets.columns import CONTENT, START
from speciate.datasets.versions import Manifest
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders

_EXAMPLES = 8
_MOST_BYTES = 32 * 1024 * 1024
"""Of examples together."""


def gather(payload: dict[str, Any]) -> dict[str, Any]:
    """In a process of the service pool: a few examples, spread over the version, as inputs of `production.answer`."""
    folders, manifest = Folders(Path(payload["root"])), Manifest.model_validate(payload["manifest"])
    items = _rows(folders, manifest) if manifest.inputs else _files(folders, manifest)
    Path("warmup.json").write_text(json.dumps(items))
    return {"file": "warmup.json"}


def _rows(folders: Folders, manifest: Manifest) -> list[dict[str, Any]]:
    table = scan.read(folders, manifest, [*manifest.inputs], usable=True)
    table = table.take(_spread(table.num_rows))
    try:
        return [{"row": json.loads(json.dumps(row))} for row in table.to_pylist()]
    except TypeError:  # a cell that JSON does not have: clients could not send it so either
        return []


def _files(folders: Folders, manifest: Manifest) -> list[dict[str, Any]]:
    """Whole files only: a version of windows was trained on parts of files, which no client sends."""
    table = scan.read(folders, manifest, usable=True)
    if START in table.column_names and table[START].null_count < table.num_rows:
        return []
    items, room = [], _MOST_BYTES
    with PackReader([folders.root / pack for pack in manifest.packs]) as packs:
        for content in table.take(_spread(table.num_rows))[CONTENT].to_pylist():
            if packs.length(content) <= room:
                data = packs.get(content)
                room -= len(data)
                items.append({"data": base64.b64encode(data).decode()})
    return items


def _spread(count: int) -> list[int]:
    """Places of a few rows, evenly over all."""
    most = min(_EXAMPLES, count)
    return [place * count // most for place in range(most)]

"""Asks a deployment from the daemon, as any client over HTTP would: one way in, so that every answer is counted there.

Not by its port, which somebody else may have taken while it was not there: by a unix socket of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import uuid
from pathlib import Path
from typing import Any

from speciate import local_sockets
from speciate.production.predict import MOST_BYTES, Said
from speciate.serving import slots
from speciate.serving.folder import slot_folder
from speciate.serving.schema import MOST_INPUTS
from speciate.workspace.workspace import Folders

_SECONDS = 20.0
_ANSWERS = {200, 422}
_ID = "id"


def through(folders: Folders, use_case: str, items: list[dict[str, Any]]) -> Said | None:
    """What the slot of a use case answers to these items of `production.answer`; None where it cannot now: there is
    none, it is loading, or it refuses them as it would refuse a stranger's."""
    view, folder = slots.of(folders, use_case), slot_folder(folders, use_case)
    if view is None or view.serving is None or not (path := folder.state().socket):
        return None
    usable = [item for item in items if "error" not in item]
    if not usable or len(usable) > MOST_INPUTS:
        return None
    wanted = folder.wanted()
    room = wanted.options.body_mb * 1024 * 1024 if wanted else MOST_BYTES
    body = json.dumps({"inputs": usable, "key": _key_of(usable)}).encode()
    if len(body) > room:
        return None
    answer = _post(Path(path), folder.token(), body)
    if answer is None or "predictions" not in answer:
        return None
    found = iter(answer["predictions"])
    return Said([_unusable(item) if "error" in item else next(found) for item in items], answer["model"])


def _key_of(items: list[dict[str, Any]]) -> str:
    """The id of a single input, where it is more than its place; else any, as nobody told these requests apart."""
    [first, *rest] = items
    return str(first[_ID]) if not rest and first[_ID] != "0" else uuid.uuid4().hex


def _unusable(item: dict[str, Any]) -> dict[str, Any]:
    return {_ID: item[_ID], "output": None, "confidence": None, "error": item["error"]}


class _Connection(http.client.HTTPConnection):
    """Over a unix socket of our own user; OSError where it is another's."""

    def __init__(self, path: Path) -> None:
        super().__init__("slot")
        self._path = path

    def connect(self) -> None:
        self.sock = local_sockets.connect(self._path, {os.getuid()}, _SECONDS)


def _post(path: Path, token: str, body: bytes) -> dict[str, Any] | None:
    """None where the slot cannot be reached, or has no answer to give."""
    connection = _Connection(path)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        connection.request("POST", "/predict", body, headers)
        response = connection.getresponse()
        data = response.read()
        return json.loads(data) if response.status in _ANSWERS else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()

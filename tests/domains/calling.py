"""Jobs through a client, as a user's agent calls them."""

from __future__ import annotations

import json
from typing import Any

from speciate.server.client import Client


def ended(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of the job that a tool starts."""
    job = client.call(tool, **arguments)["job"]
    view = client.call("wait_for_job", job=job, timeout_seconds=45)
    while view["state"] not in ("succeeded", "failed", "cancelled", "dead"):
        view = client.call("wait_for_job", job=job, timeout_seconds=45)
    assert view["state"] == "succeeded", json.dumps(view)
    result: dict[str, Any] = view["result"]
    return result

"""Tools and jobs over MCP, for scripts that go on where they were stopped: what was asked before is found again."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from mcp import Client

_ENDED = ("succeeded", "failed", "cancelled", "dead")


class Refused(Exception):
    """A tool refused, or a job ended otherwise than well; in the server's own words."""


def each_of(group: BaseExceptionGroup[Refused]) -> list[Refused]:
    """The refusals in a group of groups, as a client's task groups raise them."""
    return [
        one for item in group.exceptions for one in (each_of(item) if isinstance(item, BaseExceptionGroup) else [item])
    ]


async def job(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Start it, or find it where this script asked the same before, and wait for its result."""
    asked = {name: value for name, value in arguments.items() if value is not None}
    key = hashlib.sha256(json.dumps([tool, asked], sort_keys=True).encode()).hexdigest()[:24]
    started = await call(client, tool, **asked, idempotency_key=f"{Path(sys.argv[0]).stem}-{key}")
    view = await call(client, "get_job", job=started["job"], log_lines=0)
    while view["state"] not in _ENDED:
        view = await call(client, "wait_for_job", job=started["job"], timeout_seconds=45)
    if view["state"] != "succeeded":
        raise Refused(f"{tool} is {view['state']}: {json.dumps(view.get('error') or view.get('reason'))}")
    result: dict[str, Any] = view["result"]
    print(f"{tool} {arguments.get('name', '')}: {view.get('run_seconds', 0):.0f} s", file=sys.stderr)
    return result


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        raise Refused(f"{tool}: " + " ".join(getattr(part, "text", "") for part in answer.content))
    return answer.structured_content or {}

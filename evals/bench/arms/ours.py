"""A new MCP client of a workspace whose daemon runs: starts one job over stdio, waits for its end, prints its result.

python evals/bench/arms/ours.py WORKSPACE TOOL ARGUMENTS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

ENDED = ("succeeded", "failed", "cancelled", "dead")


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        sys.exit(" ".join(getattr(part, "text", "") for part in answer.content))
    return answer.structured_content or {}


async def main(workspace: str, tool: str, arguments: str) -> None:
    command = str(Path(sys.executable).parent / "speciate")
    async with Client(StdioServerParameters(command=command, args=["serve", "--workspace", workspace])) as client:
        view = await call(client, tool, json.loads(arguments))
        while view.get("job") and view.get("state") not in ENDED:
            view = await call(client, "wait_for_job", {"job": view["job"], "timeout_seconds": 45})
    print(json.dumps(view))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])

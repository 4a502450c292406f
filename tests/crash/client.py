"""One MCP client with one open connection: `client.py WORKSPACE FIXTURE NAME JOBS TRACE SHORTEST LONGEST`.

It writes down what was acknowledged, and does what a careful agent does: where a call was interrupted, it repeats it
with the same idempotency key.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

REPEATS = 100


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The structured result; an interrupted call is repeated as it is."""
    said = ""
    for _ in range(REPEATS):
        result = await client.call_tool(tool, arguments)
        if not result.is_error:
            return dict(result.structured_content or {})
        said = result.content[0].text  # type: ignore[union-attr]  # errors are text
        if tool == "move_alias" and "as expected" in said:
            return {}
        await anyio.sleep(0.05)
    raise AssertionError(f"{tool} {arguments}: {said}")


async def ended(client: Client, job: str) -> None:
    """Wait for the job, over whatever dies meanwhile; it must have succeeded."""
    while True:
        view = await call(client, "wait_for_job", {"job": job, "timeout_seconds": 5})
        if view["state"] in {"succeeded", "failed", "dead", "cancelled"}:
            assert view["state"] == "succeeded", json.dumps(view)
            return


async def main(
    workspace: str, fixture: str, name: str, jobs: int, trace: Path, shortest: float, longest: float
) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "speciate.cli", "serve", "--workspace", workspace, "--fixture", fixture]
    )
    chance = random.Random(name)
    acknowledged = (trace / f"{name}.acknowledged").open("a")
    rows = [{"text": f"{name} says {i}", "label": "ab"[i % 2]} for i in range(12)]
    async with Client(server) as client:
        made = await call(
            client, "create_dataset", {"name": name, "rows": rows, "label": "label", "idempotency_key": f"{name}-data"}
        )
        await ended(client, made["job"])
        for number in range(jobs):
            preload = chance.choice(["", "", "classical"])
            arguments = {
                "key": f"{name}-{number}",
                "seconds": chance.uniform(shortest, longest),
                "trace": str(trace),
                "preload": preload,
            }
            job = (await call(client, "start_work", arguments))["job"]
            acknowledged.write(job + "\n")
            acknowledged.flush()
            if number % 3 == 0:
                moved = await call(client, "move_alias", {"use_case": "crash", "model": f"{name}-{number}@v1"})
                assert moved == {} or moved["generation"] > 0
            if number % 2 == 0:  # a service process answers
                counted = await call(client, "query_dataset", {"dataset": name, "sql": "SELECT count(*) FROM examples"})
                assert counted["untrusted"]["rows"] == [[12]], counted
            await ended(client, job)
    print("done")


if __name__ == "__main__":
    given = sys.argv[1:]
    anyio.run(main, *given[:3], int(given[3]), Path(given[4]), float(given[5]), float(given[6]))

"""One MCP client of the soak: `soak_client.py WORKSPACE FIXTURE NAME TRACE`.

It does what a careful agent does. Where its own server (the shim) is killed it starts another one and goes on where it
was; where a call was interrupted it repeats it with the same idempotency key; where a job failed it tries again. A call
that nobody answers within a minute, on a connection that is open, ends it with a word that the soak counts. It works
until the file `TRACE/enough` is there.
"""

from __future__ import annotations

import json
import random
import sys
from math import inf
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

ANSWER_SECONDS, CONNECT_SECONDS = 60.0, 120.0
PATIENCE_SECONDS = 600.0
"""For one step of the script: a disk may be full for a while."""
ENDED = {"succeeded", "failed", "dead", "cancelled"}


class Unanswered(AssertionError):
    """A call on an open connection got no answer in time."""


class Script:
    """What this client does, one step after another. Each may be repeated from its beginning."""

    def __init__(self, name: str, trace: Path) -> None:
        self.name, self._trace = name, trace
        self.done, self.retried = 0, 0
        self._seen = trace / f"{name}.acknowledged"

    @property
    def enough(self) -> bool:
        return self.done > 3 and (self._trace / "enough").exists()

    async def go_on(self, client: Client) -> None:
        while not self.enough:
            await self.take(client, f"job-{self.done}" if self.done else "data")
            self.done += 1

    async def take(self, client: Client, step: str) -> None:
        chance = random.Random(f"{self.name} {step}")
        if step == "data":
            rows = [{"text": f"{self.name} says {i}", "label": "ab"[i % 2]} for i in range(12)]
            key = f"{self.name}-data"
            given = {"name": self.name, "rows": rows, "label": "label", "idempotency_key": key}
            await self._ended(client, (await call(client, "create_dataset", given))["job"])
            return
        work = {
            "key": f"{self.name}-{step}", "seconds": chance.uniform(0.02, 0.6), "trace": str(self._trace),
            "preload": chance.choice(["", "", "classical"]),
        }  # fmt: skip
        job = (await call(client, "start_work", work))["job"]
        with self._seen.open("a") as file:
            file.write(job + "\n")
        if chance.random() < 0.3:
            await call(client, "move_alias", {"use_case": "crash", "model": f"{self.name}-{step}@v1"})
        if chance.random() < 0.5:
            counted = await call(
                client, "query_dataset", {"dataset": self.name, "sql": "SELECT count(*) FROM examples"}
            )
            assert counted["untrusted"]["rows"] == [[12]], counted
        await self._ended(client, job)

    async def _ended(self, client: Client, job: str) -> None:
        while True:
            view = await call(client, "wait_for_job", {"job": job, "timeout_seconds": 5})
            if view["state"] == "succeeded":
                return
            if view["state"] in ENDED:
                self.retried += 1
                assert self.retried < 50, json.dumps(view)
                again = {"job": job, "action": "retry", "idempotency_key": f"{job}-{view['attempt']}"}
                await call(client, "control_job", again)


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The structured result. An error that another try may mend is waited out."""
    said = ""
    with anyio.move_on_after(PATIENCE_SECONDS):
        while True:
            with anyio.move_on_after(ANSWER_SECONDS) as limit:
                result = await client.call_tool(tool, arguments)
            if limit.cancelled_caught:
                raise Unanswered(f"{tool} {json.dumps(arguments)}")
            if not result.is_error:
                return dict(result.structured_content or {})
            said = result.content[0].text  # type: ignore[union-attr]  # errors are text
            if tool == "move_alias" and "as expected" in said:
                return {}
            assert "defect" not in said, said
            await anyio.sleep(0.1)
    raise AssertionError(f"{tool} {arguments}: {said}")


async def main(workspace: str, fixture: str, name: str, trace: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "speciate.cli", "serve", "--workspace", workspace, "--fixture", fixture]
    )
    script = Script(name, trace)
    connections = 0
    while not script.enough:
        connections += 1
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + CONNECT_SECONDS) as opening:
                async with Client(server) as client:
                    opening.deadline = inf
                    await script.go_on(client)
            if opening.cancelled_caught:
                raise Unanswered("opening a connection")
        except* AssertionError as group:
            raise group.exceptions[0] from None
        except* Exception as group:  # noqa: BLE001 - its server was killed: whatever the SDK says of that
            with (trace / f"{name}.reconnects").open("a") as file:
                file.write(f"{group.exceptions[0]!r}\n")
            await anyio.sleep(0.2)
    print(f"done jobs={script.done} connections={connections} retried={script.retried}")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:4], Path(sys.argv[4]))

"""An MCP client's session: calls a tool, waits for a job, and shows how far it is."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import get_default_environment
from tqdm import tqdm

_BAR = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}"
_ENDED = ("succeeded", "failed", "cancelled", "dead")


class Refused(Exception):
    """A tool refused, or a job ended otherwise than well; in the server's own words."""


class Session:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured result."""
        answer = await self._client.call_tool(tool, arguments)
        if answer.is_error:
            raise Refused(f"{tool}: " + " ".join(getattr(part, "text", "") for part in answer.content))
        result: dict[str, Any] = answer.structured_content or {}
        return result

    async def once(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """`call` with a key made from the arguments, so that a second run of the demo gets the first one's answer."""
        text = json.dumps([tool, arguments], sort_keys=True)
        key = "demo-" + hashlib.sha256(text.encode()).hexdigest()[:16]
        return await self.call(tool, **arguments, idempotency_key=key)

    async def job(self, what: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """Start a job and wait for its result, with a bar on a terminal and a line per step elsewhere."""
        started = await self.once(tool, **arguments)
        bar = tqdm(total=1.0, desc=f"  {what}", leave=False, disable=None, bar_format=_BAR)  # None: only on a terminal
        with bar:
            told = set[str]()
            view = await self.call("get_job", job=started["job"], log_lines=0)
            while view["state"] not in _ENDED:
                step = await self._show(bar, what, view)
                if bar.disable and step not in told:
                    print(f"  ... {step}")
                told.add(step)
                view = await self.call("wait_for_job", job=started["job"], until="change", timeout_seconds=1)
        if view["state"] != "succeeded":
            raise Refused(f"{tool} is {view['state']}: {json.dumps(view.get('error') or view.get('reason'))}")
        result: dict[str, Any] = view["result"]
        return result

    async def _show(self, bar: tqdm[Any], what: str, view: dict[str, Any]) -> str:
        """Move the bar to the progress of the job, or, of a composite, to that of the child that runs."""
        child = next((child for child in view.get("children", ()) if child["state"] == "running"), None)
        shown = await self.call("get_job", job=child["job"], log_lines=0) if child else view
        progress = shown.get("progress") or {}
        step = f"{what}: {child['step']}" if child else what
        bar.set_description_str(f"  {step}", refresh=False)
        bar.n = min(1.0, progress["done"] / progress["total"]) if progress.get("total") else 0.0
        bar.refresh()
        return step


@asynccontextmanager
async def connect(workspace: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Session]:
    """Start `speciate serve` as an agent's host would, and speak MCP with it over stdio. `environment`: more of it."""
    command = str(Path(sys.executable).parent / "speciate")
    more = {**get_default_environment(), **environment} if environment else None
    server = StdioServerParameters(command=command, args=["serve", "--workspace", str(workspace)], env=more)
    async with Client(server) as client:
        yield Session(client)

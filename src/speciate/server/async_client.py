"""The tools for asynchronous programs: `client = speciate.connect_async()`, `await client.describe_dataset(...)`.

Each method is the one of `Client`, run in a thread; `async_client.pyi` has the types. A call that is cancelled goes on
in the daemon, and so does a job whose `wait` is cancelled.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speciate.server.client import Client, connect


class AsyncClient:
    """The tools of one workspace; `sync` is the client whose methods these are."""

    def __init__(self, sync: Client) -> None:
        self.sync = sync

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.sync, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(f"An AsyncClient has no {name!r}; its sync client may.")

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call

    def __dir__(self) -> list[str]:
        return ["sync", *(name for name in dir(self.sync) if not name.startswith("_") and name != "workspace")]


def connect_async(workspace: str | Path | None = None) -> AsyncClient:
    """As `connect`, for asynchronous programs."""
    return AsyncClient(connect(workspace))

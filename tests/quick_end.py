"""Imported where servers of uvicorn run in the process that tests: each looks ten times a second whether it is to end,
and then waits as long for its connections. A tenth of that is as good where hundreds begin and end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import uvicorn.server

_sleep = asyncio.sleep


async def _brief_sleep(seconds: float) -> None:
    await _sleep(seconds / 10)


uvicorn.server.asyncio = SimpleNamespace(**vars(asyncio) | {"sleep": _brief_sleep})  # type: ignore[attr-defined]

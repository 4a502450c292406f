"""General models know a little of everything. speciate turns them into special ones.

>>> import speciate
>>> client = speciate.connect()  # doctest: +SKIP
>>> client.describe_dataset(dataset="scans").result.splits  # doctest: +SKIP

Nearly empty on purpose: the shim imports this package before it may answer its first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speciate.server.async_client import connect_async
    from speciate.server.client import JobFailed, ToolError, connect
    from speciate.server.load_model import load

__version__ = "0.2.0"
__all__ = ["JobFailed", "ToolError", "__version__", "connect", "connect_async", "load"]
_PLACES = {
    "JobFailed": "speciate.server.client",
    "ToolError": "speciate.server.client",
    "connect": "speciate.server.client",
    "connect_async": "speciate.server.async_client",
    "load": "speciate.server.load_model",
}


def __getattr__(name: str) -> Any:
    if place := _PLACES.get(name):
        return getattr(importlib.import_module(place), name)
    raise AttributeError(f"module 'speciate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

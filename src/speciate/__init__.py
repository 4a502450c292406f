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
    from speciate.server.client import connect

__version__ = "0.2.0"
__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> Any:
    if name == "connect":
        return importlib.import_module("speciate.server.client").connect
    raise AttributeError(f"module 'speciate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

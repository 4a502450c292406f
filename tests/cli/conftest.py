"""The daemons and clients of the server's tests."""

from __future__ import annotations

from tests.server.conftest import client, daemons

__all__ = ["client", "daemons"]

"""A client of a workspace of its own, started in the test's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.server.client import Client
from tests.server.processes import Daemons


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECIATE_HOME", str(daemons.workspace))  # what a guide's own Python connects to
    yield daemons.connect()
    daemons.close()

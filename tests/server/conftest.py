from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.processes import Daemons, Stdio, end


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Of a workspace that does not exist yet; what was started ends with the test."""
    daemons = Daemons(tmp_path / "workspace")
    yield daemons
    daemons.close()


@pytest.fixture
def client(daemons: Daemons) -> Iterator[Callable[[], Stdio]]:
    """Makes stdio clients of the workspace of `daemons`."""
    made: list[Stdio] = []

    def make() -> Stdio:
        made.append(Stdio(daemons.workspace))
        return made[-1]

    yield make
    for each in made:
        end(each.process)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.evaluation.endpoints.misbehaving import Misbehaving, misbehaving


@pytest.fixture(scope="module")
def server() -> Iterator[Misbehaving]:
    with misbehaving() as app:
        yield app


@pytest.fixture
def stub(server: Misbehaving) -> Misbehaving:
    server.reset()
    return server

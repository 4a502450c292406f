"""What a test that is marked `durable` gets, and all others do not: disks that sync, and programs that start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import forks

PROGRAM = [sys.executable, "-m", "speciate.cli", "--version"]


@pytest.fixture
def pipe() -> Iterator[int]:
    """Its status can be asked for; it cannot be synced."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def executes() -> bool:
    with forks.start(PROGRAM, stdout=subprocess.DEVNULL) as program:
        assert program.wait(60) == 0
        return isinstance(program, subprocess.Popen)


@pytest.fixture
def synced_before(pipe: int) -> bool:
    """Whether a fixture syncs, too."""
    try:
        os.fsync(pipe)
    except OSError:
        return True
    return False


@pytest.mark.durable
def test_a_durable_test_syncs_and_executes_also_in_its_fixtures(pipe: int, synced_before: bool) -> None:
    assert synced_before
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(pipe)
    assert executes()


@pytest.mark.skipif(sys.platform != "linux", reason="programs are forks on Linux alone")
def test_others_do_neither(pipe: int, synced_before: bool, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--durable"):
        pytest.skip("all tests are durable in this run")
    assert not synced_before
    os.fsync(pipe)
    assert not executes()

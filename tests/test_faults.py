from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(fault: str) -> int:
    """Exit status of a process that reaches `here`, started with a fault."""
    code = "from speciate.faults import fault; fault('elsewhere'); fault('here')"
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"SPECIATE_FAULT": fault}, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(("fault", "status"), [("", 0), ("nowhere:kill", 0), ("here:kill", -9), ("here:exit", 71)])
def test_a_process_fails_exactly_where_it_was_told_to(fault: str, status: int) -> None:
    assert run(fault) == status


def test_an_unknown_action_is_refused() -> None:
    assert run("here:faint") == 1

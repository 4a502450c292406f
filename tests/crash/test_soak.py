"""The soak in brief; `make soak` has a thousand kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.durable


@pytest.mark.slow
def test_kills_floods_and_full_disks_break_no_promise() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.soak", "--kills", "60"], capture_output=True, text=True, timeout=1500,
        check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout[done.stdout.index("\n{") :] if done.stdout[0] != "{" else done.stdout)
    assert said["acknowledged"] > 10
    assert min(said["kills"].get(role, 0) for role in ("daemon", "worker", "supervisor", "shim", "deployment")) > 0

"""Attempts to get out of every sandbox that we start, as root and as an ordinary user: 76 of a first table and fourteen
more. Each is the sandbox of its real caller (sandbox_callers.py); without one most of the attempts succeed."""

from __future__ import annotations

import ast
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import speciate
from speciate.sandbox import is_complete
from tests.security import sandbox_attempts
from tests.security.sandbox_callers import NONE, SANDBOXES, STARTING
from tests.security.sandbox_probe import ATTEMPTS

pytestmark = [
    pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attempts use numbers of x86-64"),
]
NOBODY = 65534
USERS = ("root", "user") if os.getuid() == 0 else ("user",)
# Of each mechanism of the sandbox: what gets out without it on any kernel that the sandbox is for
OUT_WITHOUT = {
    "tcp_connect", "fastopen_sendto", "listen_without_bind", "udp_sendto", "netlink_route", "unix_stream_connect",
    "unix_dgram_by_socketpair_sendmsg", "unix_dgram_sendmsg", "unix_abstract_connect", "mkfifo", "inotify_outside",
    "prlimit_parent", "sigio_parent", "signal_parent", "pidfd_parent", "affinity_parent", "nice_parent",
    "log_truncate", "log_unappend", "read_outside", "write_outside", "chmod_outside", "fork_twice", "sysv_messages",
    "message_queue", "lease_on_a_listed_file", "parent_environment", "hard_link_outside",
}  # fmt: skip
FAST = {("pool", USERS[0]), ("pool by exec", "user"), ("code scorer", "user"), (NONE, "user")}
"""Our own code on foreign bytes, others' code, and the control. All the rest is as many processes again, and slow."""


def each_user(*names: str) -> pytest.MarkDecorator:
    pairs = [(name, user) for name in names for user in USERS]
    return pytest.mark.parametrize(
        ("name", "user"), [pair if pair in FAST else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]
    )


def attempted(name: str, user: str) -> dict[str, Any]:
    uid = [str(NOBODY)] if user == "user" and os.getuid() == 0 else []
    command = [sys.executable, sandbox_attempts.__file__, name, *uid]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "another user cannot reach" in done.stderr:
        pytest.skip("no other user can reach this interpreter, and this one may not make mounts")
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["uid"] == 0) == (user == "root")
    return found


@each_user(*SANDBOXES)
def test_nothing_gets_out_of(name: str, user: str) -> None:
    found = attempted(name, user)
    rows = found["rows"]
    assert rows.pop("works") == ["works", "ok"]
    assert {attempt: row for attempt, row in rows.items() if row[0] != "held"} == {}
    assert rows.keys() == ATTEMPTS.keys()
    assert found["heard"] == []
    assert found["log"] == "an earlier line\n"


@each_user(NONE)
def test_without_a_sandbox_the_attempts_get_out(name: str, user: str) -> None:
    found = attempted(name, user)
    out = {attempt for attempt, row in found["rows"].items() if row[0] == "OUT"}
    assert OUT_WITHOUT - out == set()
    assert len(out) > 50
    assert any("stolen" in each for each in found["heard"])


def test_every_caller_of_the_sandbox_is_attacked() -> None:
    """A module that imports `start` or `SandboxClient` is to be added to sandbox_callers.py."""
    root = Path(speciate.__path__[0])
    starting, asking = set[str](), set[str]()
    for path in root.rglob("*.py"):
        if path in (root / "sandbox" / "__init__.py", root / "sandbox" / "process.py"):  # where `start` comes from
            continue
        if "sandbox" not in (text := path.read_text()):
            continue
        tree = ast.parse(text)
        module = ".".join(("speciate", *path.relative_to(root).with_suffix("").parts))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("speciate.sandbox"):
                names = {each.name for each in node.names}
                starting |= {module} if "start" in names else set()
                asking |= {module} if "SandboxClient" in names else set()
            by_module = isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "sandbox.start",
                "client.SandboxClient",
            )
            assert not by_module, module
    assert starting == {each.__name__ for each in STARTING}
    assert asking == {
        "speciate.datasets.sources.sandbox_calls", "speciate.evaluation.environments.simulators",
        "speciate.evaluation.predictors.code", "speciate.evaluation.scorers.sandboxed_scorers", "speciate.jobs.pool",
        "speciate.models.pickled_weights",
        "speciate.sandbox.user_code", "speciate.serving.replica", "speciate.training.rewards.sandboxed_rewards",
        "speciate.training.rewards.tool_environment",
    }  # fmt: skip

"""What `speciate status` says to a person."""

from __future__ import annotations

from speciate.cli.workspace_commands import status_text

FOUND = {
    "workspace": "/data/ws", "pid": 7, "version": "1.2", "running_seconds": 3725.4, "clients": 1,
    "jobs": {"succeeded": 5, "failed": 1}, "policy": "person", "newest_backup": None, "policies": {"digits": "auto"},
    "approvals": "No key is enrolled here.", "problems": ["row 3"], "paused_as_copied": 2,
}  # fmt: skip


def test_the_status_is_sentences() -> None:
    assert status_text(FOUND).splitlines() == [
        "/data/ws: the daemon 1.2 (process 7) has run for 1:02:05, with 1 client.",
        "Jobs: 5 succeeded, 1 failed.",
        "Policy: person. Newest backup: none yet.",
        "Policy of digits: auto.",
        "No key is enrolled here.",
        "Not as a person decided it: row 3",
        "A copy: 2 jobs are paused until `speciate resume`.",
    ]


def test_of_a_new_workspace_too() -> None:
    new = FOUND | {"jobs": {}, "clients": 0, "problems": [], "policies": {}, "paused_as_copied": 0}
    assert "Jobs: none yet." in status_text(new)
    assert "with 0 clients." in status_text(new)
    assert "A copy" not in status_text(new)

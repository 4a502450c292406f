"""Every tool on a disk that is full to the last byte: one clear error, nothing half done, and afterwards it works.

The table below must name every tool that is not read-only, so a new one fails here until somebody says how to call it.
The disk is a real one, a small tmpfs. Where nobody may mount one, /dev/full gives the same refusal, to one tool.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.server.mcp.app import Server, offered_tools
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app
from tests.server.processes import Daemons, Stdio, end
from tests.server.small_world import World, make, said, use_case
from tests.server.test_daemon import fill

TABLE: dict[str, Callable[[World], dict[str, Any]]] = {
    "add_examples": lambda world: {"dataset": "points", "rows": [{"a": 90.5, "b": 1.0, "label": "a"}]},
    "control_job": lambda world: {"job": world.waiting, "action": "cancel"},
    "create_dataset": lambda world: {"name": "notes", "rows": [{"text": "one row", "label": "x"}]},
    "curate_dataset": lambda world: {"dataset": "points@v1", "steps": [{"op": "filter", "where": "a > 1"}]},
    "define_use_case": lambda world: use_case("other", description="x" * 1500),
    "evaluate_models": lambda world: {"models": ["constant:", "sorter"], "dataset": "points@v1", "latency": False},
    "export_dataset": lambda world: {"dataset": "points", "format": "csv", "path": str(world.folder / "rows")},
    "export_model": lambda world: {"model": "sorter@v1", "path": str(world.folder / "model")},
    "label_examples": lambda world: {
        "dataset": "points", "labels": [{"id": world.example, "label": "b"}], "source": "human",
    },
    "manage_data": lambda world: {"action": "tag", "ref": "points@v1", "tag": "kept"},
    "merge_models": lambda world: {"name": "merged", "models": ["sorter@v1", "sorter@v1"], "method": "soup"},
    "plan_training": lambda world: {"dataset": "points@v1", "method": "classical", "measure": True},
    "predict": lambda world: {
        "model": "sorter@v1", "dataset": "points@v1", "path": str(world.folder / "answers.csv"),
    },
    "rollback_model": lambda world: {
        "use_case": "sorting", "expected_current": "second@v1", "reason": "a test " * 60,
    },
    "promote_model": lambda world: {"use_case": "spare", "model": "second@v1"},
    "record_feedback": lambda world: {"prediction": world.prediction, "label": "a", "source": "human"},
    "register_model": lambda world: {
        "name": "there", "endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}, "task": "text-generation",
    },
    "specialize": lambda world: {"use_case": "sorting", "dataset": "points@v1", "budget_minutes": 1},
    "train_model": lambda world: {"name": "later", "dataset": "points@v1", "method": "classical"},
    "watch_use_case": lambda world: {"use_case": "sorting", "triggers": [{"on": "schedule", "cron": "0 3 * * *"}]},
}  # fmt: skip
"""How each writing tool is called. What cannot succeed in this small world is refused for its own reason once there is
room (`merge_models` wants networks, and nobody allowed the host of `register_model`)."""
REFUSED_ANYWAY = {"merge_models", "register_model"}
WRITES_ELSEWHERE = {"export_evidence"}
"""Needs no room in the workspace; what a full disk at its path does is in tests/promotion/test_evidence_bundle.py."""


def test_every_tool_that_writes_is_in_the_table() -> None:
    writing = {tool.name for tool in offered_tools() if not (tool.annotations and tool.annotations.read_only_hint)}
    assert {*TABLE, *WRITES_ELSEWHERE} == writing


def test_rows_that_the_disk_does_not_take_are_no_defect(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mount: every temporary file of a blob is /dev/full, which refuses as a full disk does."""
    server = Server(make_app(workspace))
    opened = Path.open

    def full(path: Path, *arguments: Any, **more: Any) -> Any:
        return (
            opened(Path("/dev/full"), "wb")
            if path.is_relative_to(workspace.folders.blobs)
            else opened(path, *arguments, **more)
        )

    rows = {"name": "notes", "rows": [{"text": "one row", "label": "x"}]}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        answer = server.call("create_dataset", rows)
    text = "".join(getattr(block, "text", "") for block in answer.content)
    assert answer.is_error
    assert "is full" in text
    assert "defect" not in text
    assert [path for path in workspace.folders.blobs.rglob("*") if path.is_file()] == []
    assert workspace.database.read("SELECT count(*) FROM jobs") == [(0,)]
    assert not server.call("create_dataset", rows | {"dry_run": True}).is_error


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("full")
    daemons = Daemons(root / "workspace")
    daemons.workspace.mkdir()
    mounted = (
        os.getuid() == 0
        and shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(daemons.workspace)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("nobody may mount a small disk here; what /dev/full says is tested below all the same")
    (root / "folder").mkdir()
    (daemons.workspace / "settings.toml").write_text(
        f'policy = "auto"\nroots = ["{root / "folder"}"]\n[disk]\nstop_below_gb = 0.02\n'
    )
    shell = None
    try:
        daemons.start()
        shell = Stdio(daemons.workspace)
        shell.initialize()
        yield make(shell, daemons.workspace, root / "folder")
    finally:
        if shell:
            end(shell.process)
        daemons.close()
        subprocess.run(["umount", "-l", str(daemons.workspace)], check=True)


def listed(world: World) -> set[str]:
    """Every file but logs and what a pass of the daemon writes by itself."""
    left_out = ("daemon.log", "catalog.duckdb", "ballast", "cache/", "backups/")
    found = (path.relative_to(world.workspace).as_posix() for path in world.workspace.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith(left_out)}


def use_up_what_is_open(world: World) -> None:
    """The catalog's log and the log of answers have some room in the last page of the disk that they have already:
    what fits there is done, rightly. So that is filled, too."""
    padding = {
        "define_use_case": [use_case(f"pad{size}", description="x" * size) for size in (1500, 300, 60, 1)],
        "record_feedback": [{"prediction": world.prediction, "label": "a", "source": "human"}],
    }
    for tool, each in padding.items():
        for arguments in each:
            while not (answer := world.shell.call(tool, arguments))["isError"]:
                arguments = arguments | ({"name": arguments["name"] + "x"} if "name" in arguments else {})  # noqa: PLW2901
            assert "full" in said(answer), said(answer)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TABLE)
def test_a_full_disk_is_said_nothing_is_half_done_and_with_room_it_works(world: World, tool: str) -> None:
    arguments = TABLE[tool](world)
    fill(world.ballast)
    try:
        use_up_what_is_open(world)
        before = listed(world)
        answer = world.shell.call(tool, arguments)
        text = said(answer)
        assert answer["isError"], text
        assert "full" in text, text
        assert "defect" not in text, text
        assert "Next: Free some space" in text, text
        assert answer["_meta"]["speciate/error"]["code"] == "unavailable"
        assert listed(world) == before
    finally:
        with contextlib.suppress(FileNotFoundError):
            world.ballast.unlink()
    again = world.shell.call(tool, arguments)
    if tool in REFUSED_ANYWAY:
        assert "full" not in said(again), said(again)
    else:
        assert not again["isError"], said(again)
        if job := (again.get("structuredContent") or {}).get("job"):
            world.shell.call("control_job", {"job": job, "action": "cancel"})

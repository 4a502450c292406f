"""docs/ten-calls.md, call by call over stdio: from files to a model that serves, and what its answer rests on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from mcp import Client, StdioServerParameters

from speciate.sandbox import is_complete
from tests import forks
from tests.documentation import ToolCall, calls_in, page, programs_in
from tests.server.processes import Daemons

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")

_ENDED = {"succeeded", "failed", "cancelled", "dead"}
_SECONDS = 300


class Section(NamedTuple):
    program: str
    calls: list[ToolCall]


def sections() -> tuple[str, dict[str, Section]]:
    """The page's settings, and by heading the program that writes the files and the calls."""
    text = page("ten-calls.md")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return toml, {
        title: Section("\n".join(programs_in(part)), calls) for title, _, part in parts if (calls := calls_in(part))
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A caller's folder, and beside it a workspace with the page's settings."""
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text(sections()[0])
    (tmp_path / "folder").mkdir()
    daemons.start()
    yield tmp_path / "folder"
    forks.run([*_speciate("deployment", "stop"), *_slots(daemons.workspace)])
    daemons.close()


def _speciate(*words: str) -> list[str]:
    return [sys.executable, "-m", "speciate.cli", *words]


def _slots(workspace: Path) -> list[str]:
    names = [path.name for path in (workspace / "slots").glob("*")]
    return [*names, "--workspace", str(workspace)]


@pytest.mark.parametrize(
    "title",
    [
        "Time series",
        pytest.param("Images", marks=pytest.mark.slow),
        pytest.param("Language model", marks=pytest.mark.slow),
    ],
)
def test_from_a_folder_to_production_in_ten_calls(folder: Path, title: str) -> None:
    section = sections()[1][title]
    assert len(section.calls) <= 10
    subprocess.run([sys.executable, "-c", section.program], cwd=folder, check=True)
    workspace = folder.parent / "workspace"
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "speciate.cli", "serve", "--workspace", str(workspace)], cwd=str(folder),
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip

    async def main() -> None:
        with anyio.fail_after(_SECONDS):
            async with Client(server) as client:
                await follow(client, section.calls, workspace)

    anyio.run(main)


async def follow(client: Client, calls: list[ToolCall], workspace: Path) -> None:
    words: dict[str, str] = {}
    answers: dict[str, dict[str, Any]] = {}
    for call in calls:
        name, use_case = call.tool, calls[0].arguments["name"]
        if name == "predict":
            await serving(client, use_case)
        text = json.dumps(call.arguments)
        for word, meant in words.items():
            text = text.replace(f'"{word}"', f'"{meant}"')
        answers[name] = await ended(client, await said(client, name, json.loads(text)))
        if name == "promote_model":
            assert answers[name]["state"] == "applied", answers
        if name == "predict":
            words["PREDICTION"] = answers[name]["predictions"][0]["prediction"]
    check(answers)
    assert requests(workspace / "slots" / use_case) >= 1  # the slot answered, not the daemon


def check(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["define_use_case"]["state"] == "active"
    assert answers["plan_training"]["candidates"]
    predicted = answers["predict"]
    (one,) = predicted["predictions"]
    feedback = answers["record_feedback"]
    assert feedback["recorded"] == one["prediction"]
    assert feedback["model"] == predicted["model"]
    nodes = {node["id"].partition(":")[0] for node in answers["describe_model"]["lineage"]["nodes"]}
    assert {"answer", "model", "job", "dataset", "code"} <= nodes, nodes
    (shown,) = answers["get_status"]["use_cases"]
    assert shown["production"] == predicted["model"]
    assert shown["slot"]["state"] == "serving"
    assert shown["time_to_model"]["state"] == "provisional"  # its bake goes on


async def said(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def ended(client: Client, answer: dict[str, Any]) -> dict[str, Any]:
    """Where a job began, its result once it ended."""
    if set(answer) <= {"job", "kind", "state", "eta_seconds", "next_actions"}:
        job = answer["job"]
        while (answer := await said(client, "wait_for_job", {"job": job, "timeout_seconds": 45}))[
            "state"
        ] not in _ENDED:
            pass
        assert answer["state"] == "succeeded", answer
        result: dict[str, Any] = answer["result"]
        return result
    return answer


async def serving(client: Client, use_case: str) -> None:
    """The slot began with the promotion, and loads its model."""
    while True:
        (shown,) = (await said(client, "get_status", {"use_case": use_case}))["use_cases"]
        state = (shown.get("slot") or {}).get("state")
        if state == "serving":
            return
        assert state in (None, "starting", "loading"), shown
        await anyio.sleep(0.2)


def requests(slot: Path) -> int:
    """That the slot counted; it writes its counts once a second."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            found = json.loads((slot / "tallies.json").read_text())
        except (OSError, ValueError):
            found = {}
        if count := _count(found):
            return count
        time.sleep(0.2)
    return 0


def _count(document: Any) -> int:
    """Of all versions: each is a tally (promotion/request_counters.py), whose shares are of the requests."""
    if isinstance(document, dict):
        return document["failed"]["n"] if "failed" in document else sum(_count(value) for value in document.values())
    return sum(_count(item) for item in document) if isinstance(document, list) else 0

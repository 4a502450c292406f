"""Python's client with a real daemon: typed methods, waiting, whole tables, images."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

import speciate
from speciate import JobFailed, ToolError
from speciate.errors import Code, SpeciateError
from speciate.server.client_results import Shown
from speciate.server.tool_api import DryRun, JobStarted
from tests.server.processes import Daemons

ROOT = Path(__file__).parents[2]


def test_a_person_at_python_gets_types_waits_and_tables(daemons: Daemons, tmp_path: Path) -> None:
    client = daemons.connect()
    rows = [{"text": f"letter {number} {'x' * (number % 400)}", "ward": "ab"[number % 2]} for number in range(603)]
    planned = client.create_dataset(name="letters", rows=rows, label="ward", dry_run=True)
    assert isinstance(planned, DryRun)
    with pytest.raises(SpeciateError, match="DryRun is no job"):
        client.wait(planned)

    started = client.create_dataset(name="letters", rows=rows, label="ward")
    assert isinstance(started, JobStarted)
    heard: list[str] = []
    ended = client.wait(started, progress=lambda view: heard.append(view.state))
    assert ended.state == heard[-1] == "succeeded"
    assert client.wait(started.job).result == ended.result

    described = client.describe_dataset(dataset="letters")
    assert isinstance(described, Shown)
    assert described.images[0].startswith(b"\x89PNG")
    assert described.save(tmp_path / "chart.png").read_bytes() == described._repr_png_()

    table = client.table("letters", sql="SELECT text, label FROM examples ORDER BY text")
    assert table.column_names == ["text", "label"]
    assert sorted(table["text"].to_pylist()) == sorted(row["text"] for row in rows)

    with pytest.raises(SpeciateError, match="longer than an answer"):
        client.table("letters", sql="SELECT repeat('x', 20000)")
    with pytest.raises(ToolError) as refused:
        client.describe_dataset(dataset="leters")
    assert refused.value.code is Code.NOT_FOUND
    broken = client.curate_dataset(dataset="letters", steps=[{"op": "filter", "where": "text::INT > 0"}])
    with pytest.raises(JobFailed, match="failed") as failed:
        client.wait(broken)
    assert failed.value.job.error
    client.call("get_status")
    assert "connect" in dir(speciate)


def test_an_asynchronous_program_calls_the_same_methods_at_once(daemons: Daemons) -> None:
    daemons.workspace.mkdir(mode=0o700)
    client = speciate.connect_async(daemons.workspace)

    async def talk() -> None:
        started = await client.create_dataset(name="few", rows=[{"text": "a"}, {"text": "b"}])
        ended, status = await asyncio.gather(client.wait(started), client.get_status())
        assert ended.state == "succeeded"
        assert status.use_cases == ()
        with pytest.raises(ToolError):
            await client.describe_dataset(dataset="none")

    asyncio.run(talk())
    assert {"get_status", "wait", "table"} <= set(dir(client))
    with pytest.raises(AttributeError, match="no 'workspace'"):
        _ = client.workspace  # type: ignore[attr-defined]  # that is what is tested


def test_a_named_workspace_that_is_not_there_is_refused_as_by_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for connect in (speciate.connect, speciate.connect_async):
        with pytest.raises(SpeciateError, match=r"There is no workspace .*nowhere") as refused:
            connect(tmp_path / "nowhere")
        assert f"speciate init --workspace {tmp_path / 'nowhere'}" in refused.value.recovery
    assert not (tmp_path / "nowhere").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SPECIATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert speciate.connect().workspace == tmp_path / ".speciate"  # the first call makes it


def test_what_is_no_job_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="SimpleNamespace is no job"):
        speciate.connect(tmp_path).wait(SimpleNamespace())


def test_the_methods_are_those_of_the_tools() -> None:
    """Written by `make docs`."""
    made = runpy.run_path(str(ROOT / "docs/client_methods.py"))
    assert made["TARGET"].read_text() == made["client_methods"](), "make docs"
    assert made["ASYNC_TARGET"].read_text() == made["async_types"](), "make docs"


def test_a_number_that_json_has_not_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="write None for a number that is not known"):
        speciate.connect(tmp_path).predict(model="prices@v1", inputs=[{"row": {"area": float("nan")}}])

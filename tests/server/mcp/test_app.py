"""The server through a real client in memory, in both eras of the protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client, MCPError

from speciate.errors import Code
from speciate.server.mcp import app as mcp_app
from speciate.server.mcp.app import Server
from speciate.server.tool_api import App, Result, tool
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

ERAS = ("auto", "legacy")


@tool(read_only=True)
def broken(app: App) -> Result:
    """Fails by a defect."""
    raise ZeroDivisionError("a secret")


@tool(read_only=True)
def steps(app: App) -> Result:
    """Reports progress."""
    for done in (1, 2):
        if app.progress:
            app.progress(done, 2, f"step {done}")
    return Result()


BARRIER = threading.Barrier(40, timeout=120)


@tool(read_only=True)
def meet(app: App) -> Result:
    """Waits until forty calls run at once."""
    BARRIER.wait()
    return Result()


@pytest.fixture
def server(workspace: Workspace) -> Server:
    server = Server(make_app(workspace))
    for function in (broken, steps, meet):
        server.add(function.__tool__)  # type: ignore[attr-defined]
    return server


def with_client(server: Server, era: str, talk: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        with anyio.fail_after(120):
            async with Client(server.mcp, mode=era, **options) as client:
                await talk(client)

    anyio.run(main)


@pytest.mark.parametrize("tool", ["list_jobs", "get_job"])
def test_the_first_call_in_a_workspace_that_nobody_named_says_where_it_was_made(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody in another folder than usual would look at an empty workspace and believe that all is lost."""
    monkeypatch.setenv("HOME", str(tmp_path))
    root, arguments = tmp_path / ".speciate", {"job": "job-none"} if tool == "get_job" else {}
    for opened, times in enumerate((1, 0)):
        workspace = Workspace(root)
        server = Server(make_app(workspace))
        results = [server.call(tool, arguments) for _ in range(2)]
        workspace.close()
        said = [part.text for result in results for part in result.content if f"was made in {root}" in part.text]  # type: ignore[union-attr]
        assert len(said) == times, f"when it was opened {opened} times before"
    assert results[0].is_error == (tool == "get_job")


def test_a_workspace_that_was_named_is_made_without_a_word(workspace: Workspace) -> None:
    [part] = Server(make_app(workspace)).call("list_jobs", {}).content
    assert part.text == '{"jobs":[]}'  # type: ignore[union-attr]


def test_the_status_names_the_workspace(workspace: Workspace) -> None:
    status = Server(make_app(workspace)).call("get_status", {}).structured_content
    assert status is not None
    assert status["workspace"] == str(workspace.folders.root)


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


@pytest.mark.parametrize("era", ERAS)
def test_a_call_is_answered_twice_alike(server: Server, era: str) -> None:
    async def talk(client: Client) -> None:
        result = await client.call_tool("list_jobs", {"limit": 2})
        assert not result.is_error
        assert json.loads(text_of(result)) == result.structured_content == {"jobs": []}

    with_client(server, era, talk)


@pytest.mark.parametrize("era", ERAS)
def test_unknown_tools_and_arguments_are_answered_with_near_names(server: Server, era: str) -> None:
    async def talk(client: Client) -> None:
        result = await client.call_tool("list_job", {})
        assert result.is_error
        assert "did you mean 'list_jobs'" in text_of(result)
        result = await client.call_tool("list_jobs", {"limits": 3})
        assert result.is_error
        assert "did you mean 'limit'" in text_of(result)

    with_client(server, era, talk)


def test_a_defect_is_told_without_its_text(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    result = server.call("broken", {})
    assert "internal" in text_of(result)
    assert "ZeroDivisionError" in text_of(result)
    assert "a secret" not in text_of(result)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("era", ERAS)
def test_progress_reaches_the_client_that_asked(server: Server, era: str) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async def talk(client: Client) -> None:
        assert not (await client.call_tool("steps", {}, progress_callback=hear)).is_error
        assert not (await client.call_tool("steps", {})).is_error
        while len(heard) < 2:
            await anyio.sleep(0.001)

    with_client(server, era, talk)
    assert heard == [1, 2]


def test_many_waiting_calls_do_not_hold_up_others(server: Server) -> None:
    async def talk(client: Client) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(39):
                tasks.start_soon(client.call_tool, "meet", {})
            assert not (await client.call_tool("list_jobs", {})).is_error
            assert not (await client.call_tool("meet", {})).is_error

    with_client(server, "auto", talk)


def test_tools_come_in_the_order_of_their_names(server: Server) -> None:
    async def talk(client: Client) -> None:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == sorted(names)
        assert {"get_job", "list_jobs", "wait_for_job", "control_job", "list_options"} <= set(names)

    with_client(server, "auto", talk)


@pytest.mark.parametrize("era", ERAS)
def test_resources_are_read_and_missing_ones_are_named(server: Server, era: str) -> None:
    job = server.engine.submit("greet", {})

    async def talk(client: Client) -> None:
        read = (await client.read_resource(f"speciate://jobs/{job.id}")).contents[0]
        assert isinstance(read, t.TextResourceContents)
        assert json.loads(read.text)["state"] == "succeeded"
        read = (await client.read_resource(f"speciate://jobs/{job.id}/log?after=3")).contents[0]
        assert isinstance(read, t.TextResourceContents)
        assert json.loads(read.text)["next_after"] == 0
        assert (await client.read_resource("speciate://status")).contents
        for missing in ("jobs/job-no", "datasets/none/v1", "evaluations/none", "use-cases/none"):
            with pytest.raises(MCPError) as raised:
                await client.read_resource(f"speciate://{missing}")
            assert raised.value.code == t.INVALID_PARAMS

    with_client(server, era, talk)


def test_names_are_completed(server: Server) -> None:
    job = server.engine.submit("greet", {})

    async def talk(client: Client) -> None:
        reference = t.ResourceTemplateReference(type="ref/resource", uri="speciate://jobs/{job}")
        found = await client.complete(reference, {"name": "job", "value": "job-"})
        assert found.completion.values == [job.id]
        reference = t.ResourceTemplateReference(type="ref/resource", uri="speciate://datasets/{name}/{version}")
        found = await client.complete(reference, {"name": "version", "value": ""}, {"name": "nothing"})
        assert found.completion.values == []
        reference = t.ResourceTemplateReference(
            type="ref/resource", uri="speciate://use-cases/{name}/queue{?strategy,source,count}"
        )
        found = await client.complete(reference, {"name": "source", "value": "h"}, {"name": "digits"})
        assert found.completion.values == ["human"]

    with_client(server, "auto", talk)


def test_arguments_of_prompts_are_completed_from_the_catalog_and_the_table_of_models(server: Server) -> None:
    async def talk(client: Client) -> None:
        adopt = t.PromptReference(type="ref/prompt", name="adopt_new_base_model")
        found = await client.complete(adopt, {"name": "base_model", "value": "timm:vit_base_patch16_224."})
        assert found.completion.values
        assert all(each.startswith("timm:vit_base_patch16_224.") for each in found.completion.values)
        within = await client.complete(adopt, {"name": "base_model", "value": "MiniLM"})
        assert any("minilm" in each.lower() for each in within.completion.values)
        beat = t.PromptReference(type="ref/prompt", name="beat_the_api")
        assert (await client.complete(beat, {"name": "api", "value": "api:"})).completion.values
        for name in ("use_case", "dataset", "data", "evaluation", "goal"):  # nothing is there yet, or it is free text
            assert (await client.complete(beat, {"name": name, "value": ""})).completion.values == []

    with_client(server, "auto", talk)


def test_a_listener_hears_that_a_job_changed(server: Server) -> None:
    async def talk(client: Client) -> None:
        job = server.engine.submit("wait", {"name": "for ever"})
        uri = f"speciate://jobs/{job.id}"
        async with client.listen(resource_subscriptions=[uri]) as heard:
            await client.call_tool("control_job", {"job": job.id, "action": "cancel"})
            async for event in heard:
                assert getattr(event, "uri", None) == uri
                break

    with_client(server, "auto", talk)


@pytest.mark.filterwarnings("ignore:resources/:mcp.MCPDeprecationWarning")
def test_a_subscriber_of_the_older_era_hears_it_too(server: Server) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        if isinstance(message, t.ResourceUpdatedNotification):
            heard.append(message.params.uri)

    async def talk(client: Client) -> None:
        job = server.engine.submit("wait", {"name": "for ever"})
        uri = f"speciate://jobs/{job.id}"
        await client.subscribe_resource(uri)
        await client.call_tool("control_job", {"job": job.id, "action": "cancel"})
        while uri not in heard:
            await anyio.sleep(0.001)
        await client.unsubscribe_resource(uri)

    with_client(server, "legacy", talk, message_handler=hear)


def test_a_call_in_process_needs_no_protocol(server: Server) -> None:
    assert server.call("list_jobs", {}).structured_content == {"jobs": []}


def test_each_tool_is_declared_once() -> None:
    names = [tool.name for tool in mcp_app.offered_tools()]
    assert len(names) == len(set(names))


def test_errors_keep_their_code_for_programs(server: Server) -> None:
    meta = server.call("get_job", {"job": "job-no"}).meta or {}
    assert meta["speciate/error"]["code"] == Code.NOT_FOUND
    assert meta["speciate/error"]["next"] == [{"tool": "list_jobs", "arguments": {}}]

"""Prompts through a real client in both eras: what each says, carries and refuses; their calls are calls of tools."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

import anyio
import duckdb
import mcp_types as t
import pytest
from jinja2 import Environment, meta
from mcp import Client, MCPError

from speciate.datasets.inspect import sql_sandbox
from speciate.server.mcp.app import Server, offered_tools
from speciate.server.mcp.arguments import input_schema
from speciate.server.mcp.prompts import Playbook, fill, playbooks
from speciate.server.tool_api import DECLARED
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

ERAS = ("auto", "legacy")
ALL = {each.name: each for each in playbooks()}
TOOLS = {each.name: each for each in offered_tools()}
MOST_TOKENS = 700
NAMES = {
    "specialize",
    "curate",
    "beat_the_api",
    "diagnose_regression",
    "adopt_new_base_model",
    "review_promotion",
    "label",
}


@pytest.fixture
def server(workspace: Workspace) -> Server:
    server = Server(make_app(workspace))
    asked = {"name": "smears", "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.9}}
    assert not server.call("define_use_case", asked).is_error
    return server


def ask(server: Server, era: str, name: str, arguments: Mapping[str, str]) -> list[Any]:
    """The contents of the prompt's messages. Raises MCPError as the client does."""

    async def main() -> list[Any] | MCPError:
        with anyio.fail_after(120):
            async with Client(server.mcp, mode=era) as client:
                try:
                    result = await client.get_prompt(name, dict(arguments))
                except MCPError as error:
                    return error
        return [message.content for message in result.messages]

    found = anyio.run(main)
    if isinstance(found, MCPError):
        raise found
    return found


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", sorted(NAMES - {"curate"}))
def test_a_prompt_carries_the_state_that_it_is_about(server: Server, era: str, name: str) -> None:
    *held, text = ask(server, era, name, {"use_case": "smears"})
    assert [each.resource.uri for each in held] == [
        each.replace("{use_case}", "smears") for each in ALL[name].about + ALL[name].about_if_known
    ]
    assert json.loads(held[0].resource.text)["objective"] == {"metric": "accuracy", "target": 0.9, "aim": "pass"}
    assert "smears" in text.text


def test_what_is_yet_to_be_made_is_asked_for_and_what_is_there_is_not(server: Server) -> None:
    (new,) = ask(server, "auto", "specialize", {"use_case": "blood", "data": 'my "films".csv'})
    assert 'define_use_case(name="blood"' in new.text
    assert 'source="my \\"films\\".csv"' in new.text
    *_, known = ask(server, "auto", "specialize", {"use_case": "smears"})
    assert "define_use_case(" not in known.text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("label", {}, "needs use_case"),
        ("label", {"use_case": " "}, "needs use_case"),
        ("label", {"use_case": "smear"}, "did you mean 'smears'"),
        ("label", {"use_case": "smears", "cuont": "3"}, "did you mean 'count'"),
        ("specialise", {}, "did you mean 'specialize'"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_is_right(
    server: Server, era: str, name: str, arguments: Mapping[str, str], said: str
) -> None:
    with pytest.raises(MCPError, match=said):
        ask(server, era, name, arguments)


def test_prompts_are_listed_and_their_arguments_completed(server: Server) -> None:
    async def main() -> None:
        async with Client(server.mcp) as client:
            assert {each.name for each in (await client.list_prompts()).prompts} == NAMES
            ref = t.PromptReference(name="label")
            found = await client.complete(ref, {"name": "use_case", "value": "sm"})
            assert found.completion.values == ["smears"]

    anyio.run(main)


@pytest.mark.parametrize("playbook", ALL.values(), ids=ALL)
def test_a_playbook_uses_what_it_declares_and_is_short(playbook: Playbook) -> None:
    declared = {each.name for each in playbook.arguments}
    addresses = set(re.findall(r"\{(\w+)\}", " ".join(playbook.about + playbook.about_if_known)))
    used = meta.find_undeclared_variables(Environment().parse(playbook.text.replace("| quoted", "")))
    assert addresses | used - {"known"} == declared
    assert len(playbook.arguments) <= 3
    assert len(fill(playbook, dict.fromkeys(declared, "x"), known=False)) / 4 < MOST_TOKENS


@pytest.mark.parametrize("playbook", ALL.values(), ids=ALL)
@pytest.mark.parametrize("given", ["all", "required"])
def test_every_call_in_a_playbook_is_a_tool_with_these_arguments(playbook: Playbook, given: str) -> None:
    names = [each.name for each in playbook.arguments if given == "all" or each.required]
    text = fill(playbook, {name: "3" if name == "count" else "x" for name in names}, known=False)
    calls = [
        node
        for code in re.findall(r"`([a-z_]+\(.*?\))`", text)
        for node in ast.walk(ast.parse(code, mode="eval"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert calls, "a playbook is made of calls"
    for call in calls:
        assert isinstance(call.func, ast.Name)
        schema = input_schema(DECLARED[call.func.id].arguments)
        assert {each.arg for each in call.keywords} <= schema["properties"].keys(), call.func.id
        for each in call.keywords:
            if isinstance(each.value, ast.Constant) and (allowed := schema["properties"][each.arg].get("enum")):
                assert each.value.value in [*allowed, ...], each.arg
        for sql in (each.value for each in call.keywords if each.arg == "sql"):
            assert isinstance(sql, ast.Constant)
            sql_sandbox.check(duckdb.connect(), str(sql.value))
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", text):
        assert name in TOOLS or name in KNOWN_WORDS, name


KNOWN_WORDS = {
    "needed_test_examples", "needs_approval", "usd_per_1k", "break_even", "dry_run", "group_by", "not_checked",
    "find_label_errors", "slice_by",
}  # fmt: skip

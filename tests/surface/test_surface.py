"""The tools as clients see them, one golden file each, so that every change of the surface shows in the diff.

`pytest tests/surface --update-surface` writes them anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from mcp_types import Tool

from evals import tool_definitions
from speciate.errors import Code, SpeciateError
from speciate.server.mcp.app import CORE, INSTRUCTIONS, offered_tools
from speciate.server.mcp.arguments import input_schema, is_deferred, parse
from speciate.server.option_catalog import list_options
from speciate.server.tool_api import DECLARED

HERE = Path(__file__).parent
MOST_TOKENS = 7_500
MOST_TOKENS_OF_CORE = 5_500
MOST_TOKENS_WITH_RESULTS = 14_000
"""As hosts load `tools/list`: names, descriptions, schemas of arguments and results, annotations."""
TOOLS = {tool.name: tool for tool in offered_tools()}


def shown(tool: Tool) -> dict[str, Any]:
    return tool.model_dump(by_alias=True, mode="json", exclude_none=True)


def tokens(tool: Tool) -> int:
    """Roughly what a model reads of a tool: a token is about four bytes of JSON."""
    seen = {key: shown(tool)[key] for key in ("name", "description", "inputSchema")}
    return len(json.dumps(seen, separators=(",", ":"))) // 4


def golden(tool: Tool) -> dict[str, Any]:
    """With the arguments that `tools/list` does not write out."""
    written = input_schema(DECLARED[tool.name].arguments)["properties"]
    deferred = {name: field for name, field in written.items() if is_deferred(field)}
    return shown(tool) | ({"deferred": deferred} if deferred else {})


def test_each_tool_is_as_its_golden_file_says(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-surface", default=False):
        for path in HERE.glob("*.json"):
            path.unlink()
        for name, tool in TOOLS.items():
            (HERE / f"{name}.json").write_text(json.dumps(golden(tool), indent=2, ensure_ascii=False) + "\n")
    kept = {path.stem: json.loads(path.read_text()) for path in HERE.glob("*.json")}
    assert kept == {name: golden(tool) for name, tool in TOOLS.items()}, "see --update-surface in this file"


def test_all_tools_together_cost_less_than_their_budget() -> None:
    assert sum(tokens(tool) for tool in TOOLS.values()) < MOST_TOKENS


def test_the_core_tools_cost_less_than_theirs() -> None:
    assert not CORE - TOOLS.keys()
    assert sum(tokens(TOOLS[name]) for name in CORE) < MOST_TOKENS_OF_CORE


def test_every_argument_is_described() -> None:
    bare = [
        f"{tool.name}.{name}"
        for tool in TOOLS.values()
        for name, field in tool.input_schema["properties"].items()
        if not field.get("description")
    ]
    assert bare == []


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_names_another_one_and_what_for(name: str) -> None:
    """`For rows, call query_dataset`: what this tool is not for, and which one is."""
    others = "|".join(TOOLS.keys() - {name})
    assert re.search(
        rf"\b(for|to|then|without|afterwards|needs)\b[^.;]*\b({others})\b", TOOLS[name].description or "", re.I
    )


def test_all_tools_as_hosts_load_them_cost_less_than_that() -> None:
    assert sum(len(json.dumps(shown(tool), separators=(",", ":"))) for tool in TOOLS.values()) // 4 < (
        MOST_TOKENS_WITH_RESULTS
    )


def test_what_is_not_written_out_is_found_by_the_name_that_is_given() -> None:
    named = {
        name: argument["description"].partition("name='")[2].partition("'")[0]
        for tool in TOOLS.values()
        for name, argument in tool.input_schema["properties"].items()
        if "list_options(kind='argument'" in argument.get("description", "")
    }
    assert {"gates", "judge"} <= named.keys()
    for name in named.values():
        (option,) = list_options("argument", name)
        assert len(option.parameter_names) > 1
        assert all(option.parameters["properties"].values())


def test_descriptions_and_instructions_are_not_cut_by_clients() -> None:
    assert len(INSTRUCTIONS.encode()) < 2048
    assert {name for name, tool in TOOLS.items() if len((tool.description or "").encode()) >= 2048} == set()


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_says_when_to_use_it_and_what_it_returns(name: str) -> None:
    tool = TOOLS[name]
    assert "_" in name or name in {"predict", "specialize"}
    assert tool.description
    assert tool.output_schema
    assert tool.output_schema["type"] == "object"
    assert tool.annotations is not None
    assert not (tool.annotations.read_only_hint and tool.annotations.destructive_hint)


@pytest.mark.parametrize("name", TOOLS)
def test_schemas_are_whole(name: str) -> None:
    schema = TOOLS[name].input_schema
    assert "$ref" not in json.dumps(schema)
    assert set(schema.get("required", ())) <= set(schema["properties"])


@pytest.mark.parametrize("name", TOOLS)
def test_an_unknown_argument_is_refused_with_the_one_that_was_meant(name: str) -> None:
    """`tools/list` does not say it, and the refusal does."""
    arguments = DECLARED[name].arguments
    known = next(iter(TOOLS[name].input_schema["properties"]))
    with pytest.raises(SpeciateError) as refused:
        parse(name, arguments, input_schema(arguments), {f"{known}_s": "x"})
    assert refused.value.code is Code.INVALID
    assert f"there is no argument '{known}_s', did you mean '{known}'" in str(refused.value)


def test_the_fields_of_an_argument_that_is_not_written_out_are_named() -> None:
    unnamed = [
        f"{tool.name}.{name}.{field}"
        for tool in TOOLS.values()
        for name, argument in input_schema(DECLARED[tool.name].arguments)["properties"].items()
        if is_deferred(argument)
        for field in argument.get("items", argument)["properties"]
        if not re.search(rf"\b{field}\b", tool.input_schema["properties"][name]["description"])
    ]
    assert unnamed == []


def test_values_that_are_listed_elsewhere_are_those_of_the_argument_that_has_them() -> None:
    listed = TOOLS["train_model"].input_schema["properties"]["method"]["enum"]
    for tool, name in (("plan_training", "method"), ("specialize", "methods")):
        written = input_schema(DECLARED[tool].arguments)["properties"][name]
        assert set(written.get("items", written)["enum"]) <= set(listed)
        assert "train_model" in TOOLS[tool].input_schema["properties"][name]["description"]


def test_the_definitions_score_as_they_did() -> None:
    names = frozenset(TOOLS)
    scores = [tool_definitions.marked(tool, names) for tool in TOOLS.values()]
    assert min(score.total for score in scores) >= 4.6
    assert tool_definitions.of_server(scores) >= 4.7


@pytest.mark.parametrize("name", [name for name, tool in TOOLS.items() if not (tool.annotations or 0).read_only_hint])  # type: ignore[union-attr]
def test_tools_that_change_something_take_an_idempotency_key(name: str) -> None:
    naturally = {"control_job", "predict"}  # repeating them changes nothing more
    assert name in naturally or "idempotency_key" in TOOLS[name].input_schema["properties"]

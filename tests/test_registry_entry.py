"""`docs/registry/server.json`, what registries of MCP servers list: its facts are those of the package."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from speciate.cli import _parser

ROOT = Path(__file__).parents[1]
ENTRY = json.loads((ROOT / "docs/registry/server.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_entry_names_the_package_as_it_is() -> None:
    (package,) = ENTRY["packages"]
    assert package["identifier"] == PROJECT["name"]
    assert ENTRY["version"] == package["version"] == PROJECT["version"]
    assert len(ENTRY["description"]) <= 100, "registries refuse longer ones"
    assert f"mcp-name: {ENTRY['name']}" in (ROOT / "README.md").read_text(), "how a registry knows whose it is"


@pytest.mark.parametrize("tools", ["all", "core"])
def test_the_command_line_takes_its_arguments(tools: str) -> None:
    (package,) = ENTRY["packages"]
    words = []
    for each in package["packageArguments"]:
        words += [each["name"]] if each["type"] == "named" else []
        words.append(each["value"].replace("{tools}", tools))
    assert tools in package["packageArguments"][1]["variables"]["tools"]["choices"]
    assert vars(_parser().parse_args(words))["tools"] == tools

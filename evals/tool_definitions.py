"""Score the definitions of the tools as registries do: the public formula of the Tool Definition Quality Score.

    .venv/bin/python -m evals.tool_definitions               # marks by the rules below
    .venv/bin/python -m evals.tool_definitions marks.json    # {tool: {dimension: 1..5}}, given by a model or a person
    .venv/bin/python -m evals.tool_definitions --list > tools.json    # what linters of a registry read

The weights of the six dimensions and the sums are those of the specification 1.2 (`pip install tdqs`; `tdqs lint --file
tools.json` runs the stages that need no model). The marks are given by a model there. Here they come from rules over
the text that can only see what is named, so they bound what is missing and do not judge how well it is said.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

from mcp_types import Tool

from speciate.server.mcp.app import offered_tools

WEIGHTS = {"purpose": 25, "guidelines": 20, "behaviour": 20, "parameters": 15, "conciseness": 10, "completeness": 10}
"""Percent, from the specification."""
_EFFECTS = (
    "starts a job|as a job|by a job|one job|a job|never overwrites|next version|a person|no tool approves|at once|"
    "works offline|fetches nothing|trains nothing|compares nothing|replaces|skipped|the bake|no code|logged|one image|"
    "at most|of every quality|whether its files|newest first|a moment later|where to begin|without"
)
_LONG = 700
"""Characters: longer descriptions are read by nobody to their end."""


class Score(NamedTuple):
    tool: str
    marks: dict[str, int]

    @property
    def total(self) -> float:
        return sum(self.marks[name] * weight for name, weight in WEIGHTS.items()) / 100


def marked(tool: Tool, names: frozenset[str]) -> Score:
    """By rules: what the description names, and how much of the schema is described."""
    said = tool.description or ""
    others = sum(bool(re.search(rf"\b{other}\b", said)) for other in names - {tool.name})
    fields = tool.input_schema["properties"].values()
    described = sum(bool(field.get("description")) for field in fields) / max(len(fields), 1)
    effects = len(set(re.findall(_EFFECTS, said.lower())))
    named = any(re.search(rf"\b{name}\b", said) for name in tool.input_schema["properties"])
    verb = re.match(r"[A-Z][a-z]+ ", said) is not None
    marks = {
        "purpose": 3 + verb + (others > 0),
        "guidelines": min(5, 3 + others),
        "behaviour": min(5, 3 + effects),
        "parameters": (3 if described > 0.8 else 2) + named + (described == 1),
        "conciseness": 5 if len(said) <= _LONG else 3,
        "completeness": 3 + (tool.output_schema is not None) + (tool.annotations is not None),
    }
    return Score(tool.name, marks)


def of_server(scores: list[Score]) -> float:
    """60 % the mean and 40 % the worst: one definition that nobody understands harms the choice among all."""
    totals = [score.total for score in scores]
    return 0.6 * sum(totals) / len(totals) + 0.4 * min(totals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("marks", nargs="?", type=Path, help="marks by a model or a person, instead of rules")
    parser.add_argument("--list", action="store_true", help="print tools/list as JSON, for linters")
    arguments = parser.parse_args()
    tools = offered_tools()
    if arguments.list:
        print(json.dumps([tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in tools], indent=1))
        return
    if arguments.marks:
        scores = [Score(name, marks) for name, marks in json.loads(arguments.marks.read_text()).items()]
    else:
        names = frozenset(tool.name for tool in tools)
        scores = [marked(tool, names) for tool in tools]
    for score in sorted(scores, key=lambda each: each.total):
        print(f"{score.total:.2f}  {score.tool:22}", " ".join(f"{name} {mark}" for name, mark in score.marks.items()))
    totals = [score.total for score in scores]
    print(f"mean {sum(totals) / len(totals):.2f}, worst {min(totals):.2f}, server {of_server(scores):.2f}")


if __name__ == "__main__":
    main()

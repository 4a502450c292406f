"""The calls that the guides show, in their one notation: Python blocks that hold nothing but `tool(argument=value)`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
TOOLS = frozenset(path.stem for path in (Path(__file__).parent / "surface").glob("*.json"))
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


class ToolCall(NamedTuple):
    tool: str
    arguments: dict[str, Any]


def page(name: str) -> str:
    return (DOCS / name).read_text()


def calls_in(text: str) -> list[ToolCall]:
    """The calls of all blocks of calls, in their order; programs are passed over."""
    return [call for block in _BLOCK.findall(text) for call in calls_of(block)]


def programs_in(text: str) -> list[str]:
    """The Python blocks that are no calls of tools."""
    return [block for block in _BLOCK.findall(text) if not calls_of(block)]


def calls_of(block: str) -> list[ToolCall]:
    """The calls of one block, or none where it is a program."""
    try:
        statements = ast.parse(block).body
    except SyntaxError:
        return []
    values = [each.value for each in statements if isinstance(each, ast.Expr)]
    calls = [each for each in values if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)]
    if len(calls) < len(statements) or not {ast.unparse(call.func) for call in calls} <= TOOLS:
        return []
    return [ToolCall(ast.unparse(call.func), _arguments(call)) for call in calls]


def _arguments(call: ast.Call) -> dict[str, Any]:
    assert not call.args, f"{ast.unparse(call)} leaves out the name of an argument"
    return {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}

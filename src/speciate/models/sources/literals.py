"""What Python source says in literals, read without running it: packages that publish models as code are data here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any


def files(package: str, below: str) -> list[Path]:
    """The Python files of a distribution below a folder such as `mteb/models`, sorted."""
    found = distribution(package).files or []
    return sorted(Path(str(file.locate())) for file in found if file.suffix == ".py" and str(file).startswith(below))


def calls(path: Path, function: str) -> Iterator[dict[str, Any]]:
    """The keyword arguments of each call of `function` in a file, as far as they are literals or constants of it."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == function:
            found = {word.arg: _value(word.value, constants) for word in node.keywords if word.arg}
            yield {name: value for name, value in found.items() if value is not None}


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    """None for what is neither a literal nor the name of one."""
    if isinstance(node, ast.Name) and node.id in constants:
        node = constants[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None

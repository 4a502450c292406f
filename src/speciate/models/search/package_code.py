"""The source files of installed packages, read as text: what they name, without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any


def source_files(package: str, below: str) -> list[Path]:
    """The Python files of a distribution below a folder such as `mteb/models`, sorted."""
    found = distribution(package).files or []
    return sorted(Path(str(file.locate())) for file in found if file.suffix == ".py" and str(file).startswith(below))


def literal_calls(path: Path, function: str) -> Iterator[Mapping[str, Any]]:
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


def literal_tables(path: Path, names: tuple[str, ...]) -> Mapping[str, Any]:
    """The dictionaries in a file that are assigned to these names, as far as their entries are literals."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return {}
    return {
        target.id: _literal(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in names
    }


def _literal(node: ast.expr) -> Any:
    """Entries of a dictionary that are no literals are left out, at every depth."""
    if not isinstance(node, ast.Dict):
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    found = {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return {key: value for key, value in found.items() if isinstance(key, str) and value is not None}

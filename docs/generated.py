"""The generated parts of README and docs: `make docs` writes them, `make check` finds what is stale."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import speciate.tools
from speciate.server.tool_api import Declaration

_ROOT = Path(__file__).parent.parent
_ROOMS = ("src/speciate", "tools", "resources", "prompts", "evals", "docs")
"""`tests/` mirrors `src/`, so it is not shown."""


def tool_table() -> str:
    """One row per tool, in the order of modules and declarations: what it is for, and what it changes."""
    rows = [
        f"| `{declaration.name}` | {_first_sentences(declaration)} | {_effect(declaration)} |"
        for declaration in declarations()
    ]
    return "\n".join(["", "| tool | when to use it | effect |", "|---|---|---|", *rows, "", ""])


def declarations() -> list[Declaration]:
    found = []
    for module in sorted(info.name for info in pkgutil.iter_modules(speciate.tools.__path__)):
        for value in vars(importlib.import_module(f"speciate.tools.{module}")).values():
            declaration = getattr(value, "__tool__", None)
            if isinstance(declaration, Declaration):
                found.append(declaration)
    return found


def _first_sentences(declaration: Declaration) -> str:
    """The first paragraph, which may be broken into lines."""
    return " ".join(declaration.description.partition("\n\n")[0].split()).replace("|", "\\|")


def _effect(declaration: Declaration) -> str:
    if declaration.read_only:
        return "reads"
    return "changes, can undo work" if declaration.destructive else "changes"


def tree() -> str:
    """Every module with the first sentence of its docstring."""
    lines = ["", "```"]
    for room in _ROOMS:
        lines.append(f"{room}/")
        lines.extend(_below(_ROOT / room, depth=1))
    return "\n".join([*lines, "```", "", ""])


def _below(folder: Path, depth: int) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        indent = "  " * depth
        if path.is_dir() and any(path.rglob("*.py")) and path.name != "__pycache__":
            lines += [f"{indent}{path.name}/", *_below(path, depth + 1)]
        elif path.suffix == ".py" and (summary := _summary(path)):
            lines.append(f"{indent}{path.name:<{28 - len(indent)}} {summary}")
    return lines


def _summary(path: Path) -> str:
    """The first sentence of a module's docstring; nothing for a module without one."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    sentence = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    head, stop, _ = sentence.partition(". ")
    return head if stop else sentence.removesuffix(".")

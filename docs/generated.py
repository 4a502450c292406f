"""The generated parts of README and docs: `make docs` writes them, `make check` finds what is stale."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import speciate.tools
from speciate.server.tool_api import Declaration
from speciate.settings import Place, Settings
from speciate.training.train_spec import PARAMETERS, parameters_of

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
    for room in filter(lambda room: (_ROOT / room).is_dir(), _ROOMS):
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


_UNITS = {
    "_gb": "GiB", "_mb": "MiB", "_ms": "ms", "_seconds": "seconds", "_minutes": "minutes", "_hours": "hours",
    "hours": "hours", "_days": "days", "usd_per_hour": "USD", "cpu": "cores", "gpu": "GPUs", "per_second": "requests",
    "requests": "requests", "queue": "inputs", "max_batch": "inputs", "keep_versions": "versions", "sample": "share",
    "error_rate": "share",
}  # fmt: skip
"""By the end of a key's name."""


def settings_tables() -> str:
    """A table for the keys at the top of settings.toml, and one for each section."""
    sections = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    lines = ["", "## Keys without a section", "", *_key_table(Settings, set(sections))]
    for name, model in sorted({**sections, "executors.NAME": Place}.items()):
        lines += ["", f"## `[{name}]`", "", " ".join((model.__doc__ or "").split()), "", *_key_table(model, set())]
    return "\n".join([*lines, "", ""])


def _key_table(model: type[BaseModel], leave_out: set[str]) -> list[str]:
    descriptions = _field_docstrings(model)
    rows = [
        f"| `{name}` | {_default(field)} | {_unit(name)} | {_choices(field, descriptions[name])} |"
        for name, field in model.model_fields.items()
        if name not in leave_out
    ]
    return ["| key | default | unit | description |", "|---|---|---|---|", *rows]


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field of a class, which Python itself drops."""
    tree = ast.parse(Path(importlib.import_module(model.__module__).__file__ or "").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model.__name__).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _default(field: FieldInfo) -> str:
    """As TOML and JSON write it."""
    if field.is_required():
        return "must be there"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "not set"
    if value is None or value in ({}, ()):
        return "not set"
    if isinstance(value, tuple):
        value = [each.model_dump(mode="json") if isinstance(each, BaseModel) else each for each in value]
    return f"`{json.dumps(value)}`"


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _choices(field: FieldInfo, description: str) -> str:
    """The description, with those of a field's values that it does not explain itself."""
    if get_origin(field.annotation) is not Literal:
        return description
    unexplained = [f"`{each}`" for each in get_args(field.annotation) if f"`{each}`" not in description]
    return description + (f" Also: {', '.join(unexplained)}." if unexplained else "")


def floors_table() -> str:
    """The floors of `tests/test_floors.py`, with the first sentence of each package."""
    tree = ast.parse((_ROOT / "tests" / "test_floors.py").read_text())
    (floors,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    rows = [
        f"| {floor} | `{name}` | {_room_summary(name)} |"
        for name, floor in sorted(floors.items(), key=lambda item: item[1])
        if name != "__init__"
    ]
    return "\n".join(["", "| floor | package or module | what lives there |", "|---|---|---|", *rows, "", ""])


def _room_summary(name: str) -> str:
    path = _ROOT / "src" / "speciate" / name
    return _summary(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


def folder_table(folder: str) -> str:
    """The folders below one, each with the first sentence of its `__init__`."""
    paths = sorted((_ROOT / folder).glob("*/__init__.py"))
    rows = [f"| `{path.parent.name}/` | {_summary(path)} |" for path in paths]
    return "\n".join(["", "| folder | what lives there |", "|---|---|", *rows, "", ""])


def option_table(method: str, beside: str = "", task: str = "") -> str:
    """The hyperparameters of a method of `train_model`; `beside` names one whose options are not repeated."""
    known = PARAMETERS[beside].model_fields if beside else {}
    options = parameters_of(method, task).model_fields
    rows = [
        f"| `{name}` | {_default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |"
        for name, field in options.items()
        if repr(known.get(name)) != repr(field)
    ]
    return "\n".join(["", "| option | default | meaning |", "|---|---|---|", *rows, "", ""])


def python_block(path: str) -> str:
    """A file of the tree as a block of Python, so that a guide shows what a test runs."""
    return f"\n```python\n{(_ROOT / path).read_text()}```\n\n"

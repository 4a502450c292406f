"""The tasks of reasoning-gym, read from the text of its modules, and their entries as text. Imports little.

Entries are JSON that keeps tuples apart from lists, which some scorers compare. The examples themselves are made in
gym_examples.py. The sandbox that scores answers imports this file.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from speciate.errors import Call, Code, SpeciateError, unknown

PACKAGE = "reasoning_gym"
INSTALL = "pip install 'speciate[rewards]'"
_GIVEN = ("seed", "size")
"""Settings of every task that the source gives."""
_TUPLE = "__tuple__"


class GymTask(NamedTuple):
    name: str
    what: str
    settings: dict[str, str]
    """Name -> its type and default, as the package writes them."""


class GymEntry(TypedDict):
    """What a task makes, and what its scorer reads."""

    question: str
    answer: str
    metadata: Mapping[str, Any]
    """Its `source_dataset`, and what each task needs."""


@cache
def list_tasks() -> dict[str, GymTask]:
    """The tasks by name, sorted; empty if the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return {}
    files = sorted(Path(found.origin).parent.rglob("*.py"))
    named = (_task(file.read_text("utf-8"), file.parent.name) for file in files)
    return {task.name: task for task in sorted(filter(None, named))}


def find_task(name: str) -> GymTask:
    """MISSING_EXTRA if the package is not installed, NOT_FOUND with near names."""
    if not list_tasks():
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The tasks of 'gym:{name}' are not installed: the package {PACKAGE!r} was not found.",
            f"Run: {INSTALL}",
        )
    if name not in list_tasks():
        raise unknown("task of reasoning-gym", name, list_tasks(), next=[Call("list_options", {"kind": "gym"})])
    return list_tasks()[name]


def _task(source: str, room: str) -> GymTask | None:
    if "DATASET_NAME" not in source:
        return None
    body = ast.parse(source).body
    constants = {
        target.id: statement.value.value
        for statement in body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    called = next((call for each in body if (call := _registered(each)) is not None), None)
    name = constants.get("DATASET_NAME")
    if called is None or not isinstance(name, str):
        return None
    classes = {each.name: each for each in body if isinstance(each, ast.ClassDef)}
    made, config = (classes.get(ast.unparse(argument)) for argument in called.args[1:3])
    words = (ast.get_docstring(made) if made else "") or ""
    return GymTask(name, f"{room}: {words.partition(chr(10))[0] or name.replace('_', ' ')}", _settings(config))


def _registered(statement: ast.stmt) -> ast.Call | None:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "register_dataset" or len(call.args) < 3:
        return None
    return call


def _settings(config: ast.ClassDef | None) -> dict[str, str]:
    fields = [each for each in (config.body if config else ()) if isinstance(each, ast.AnnAssign)]
    return {
        ast.unparse(each.target): ast.unparse(each.annotation) + (f" = {ast.unparse(each.value)}" if each.value else "")
        for each in fields
        if ast.unparse(each.target) not in _GIVEN
    }


def encode_entry(entry: GymEntry) -> str:
    """An entry as JSON; a value that is neither JSON nor a tuple of it, such as a fraction, becomes its text."""
    return json.dumps(_mark_tuples(entry), ensure_ascii=False, default=str)


def decode_entry(text: str) -> GymEntry:
    """What `encode_entry` wrote; its keys are not checked."""
    found: GymEntry = json.loads(text, object_hook=_restore_tuple)
    return found


def _mark_tuples(value: Any) -> Any:
    if isinstance(value, tuple):
        return {_TUPLE: [_mark_tuples(each) for each in value]}
    if isinstance(value, list):
        return [_mark_tuples(each) for each in value]
    if isinstance(value, dict):
        return {key: _mark_tuples(each) for key, each in value.items()}
    return value.item() if hasattr(value, "item") else value


def _restore_tuple(value: Mapping[str, Any]) -> Any:
    return tuple(value[_TUPLE]) if value.keys() == {_TUPLE} else value

"""What completes an argument that somebody began to type, of a prompt or of a resource's address.

Names that begin with the typed text come first, then those that hold it. Names of things come from the catalog, base
models and served models from the table of known models, pages from the guides, and choices from the function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from speciate.models.search import known_models
from speciate.resources.docs import guides
from speciate.workspace.workspace import Workspace

MOST = 100
"""Values that the protocol allows in one answer."""

_NAMES = {
    "job": "SELECT id FROM jobs WHERE contains(id, $1) ORDER BY NOT starts_with(id, $1), created DESC LIMIT $2",
    "evaluation": """
        SELECT id FROM evaluations WHERE contains(id, $1) AND ($3 = '' OR use_case = $3)
        ORDER BY NOT starts_with(id, $1), created DESC LIMIT $2
    """,
    "use_case": """
        SELECT DISTINCT name FROM use_cases WHERE contains(name, $1) ORDER BY NOT starts_with(name, $1), name LIMIT $2
    """,
    "dataset": """
        SELECT DISTINCT name FROM dataset_versions WHERE contains(name, $1)
        ORDER BY NOT starts_with(name, $1), name LIMIT $2
    """,
    "model": """
        SELECT DISTINCT name FROM model_versions WHERE contains(name, $1)
        ORDER BY NOT starts_with(name, $1), name LIMIT $2
    """,
}
"""Noun -> the names that hold a text, the likeliest first."""
_NUMBERS = {
    "dataset": "SELECT 'v' || version FROM dataset_versions WHERE name = ? ORDER BY version DESC",
    "model": "SELECT 'v' || version FROM model_versions WHERE name = ? ORDER BY version DESC",
    "use_case": "SELECT number FROM episodes WHERE use_case = ? ORDER BY number DESC",
}
"""Noun -> the versions of a name, the newest first; of a use case its episodes."""
_NOUNS = {
    "datasets": "dataset",
    "models": "model",
    "use-cases": "use_case",
    "evaluations": "evaluation",
    "jobs": "job",
}
"""The first part of a resource's address -> the noun that its `name` or `id` names."""
_LIKE = {"data": "dataset"}
"""Arguments of prompts that may name a thing under another word."""
_REFS: dict[str, tuple[str, ...]] = {"base_model": ("pkg:", "hf:", "timm:", "torchvision:"), "api": ("api:",)}
"""Argument -> what the refs begin with that it takes."""


def complete(
    workspace: Workspace,
    address: str,
    argument: str,
    typed: str,
    given: Mapping[str, str],
    function: Callable[..., Any] | None = None,
) -> list[str]:
    """Up to 101 values, so that a caller sees whether there are more than 100.

    `address` is the resource's template, empty for prompts; `function` is what reads it. `given` are the arguments that
    were chosen before.
    """
    folder = address.removeprefix("speciate://").partition("/")[0]
    if folder == "docs":
        return _beginning(guides(), typed)
    if argument in ("version", "number"):
        sql = _NUMBERS.get(_NOUNS.get(folder, ""))
        rows = workspace.database.read(sql, [given.get("name", "")]) if sql else []
        return _beginning((str(row[0]) for row in rows), typed)
    if argument in _REFS and not address:
        refs = sorted(ref for ref in known_models.models(workspace).refs() if ref.startswith(_REFS[argument]))
        return _holding(refs, typed)
    noun = _NOUNS.get(folder, argument) if argument in ("name", "id") else _LIKE.get(argument, argument)
    if noun in _NAMES:
        more = [given.get("use_case", "")] if noun == "evaluation" else []
        return [row[0] for row in workspace.database.read(_NAMES[noun], [typed, MOST + 1, *more])]
    return _beginning(_choices(function, argument), typed) if function else []


def _beginning(values: Iterable[str], typed: str) -> list[str]:
    return [each for each in values if each.startswith(typed)][: MOST + 1]


def _holding(values: Iterable[str], typed: str) -> list[str]:
    """Values that begin with the text, then those that hold it, whatever the case."""
    low = typed.lower()
    found = [each for each in values if low in each.lower()]
    return sorted(found, key=lambda each: not each.lower().startswith(low))[: MOST + 1]


def _choices(function: Callable[..., Any], argument: str) -> tuple[str, ...]:
    parameter = inspect.signature(function, eval_str=True).parameters.get(argument)
    return get_args(parameter.annotation) if parameter and get_origin(parameter.annotation) is Literal else ()

"""Names that fit what somebody began to type, for the arguments of resources and prompts."""

from __future__ import annotations

from speciate.workspace.database import Database

MOST = 100
"""So many values the protocol allows in one answer."""

# What is named -> the names that begin with a prefix, the likeliest first.
_NAMES = {
    "job": "SELECT id FROM jobs WHERE starts_with(id, ?) ORDER BY created DESC LIMIT ?",
    "evaluation": "SELECT id FROM evaluations WHERE starts_with(id, ?) ORDER BY created DESC LIMIT ?",
    "use_case": "SELECT DISTINCT name FROM use_cases WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
    "dataset": "SELECT DISTINCT name FROM dataset_versions WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
    "model": "SELECT DISTINCT name FROM model_versions WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
}
_VERSIONS = {
    "dataset": """
        SELECT 'v' || version FROM dataset_versions WHERE name = ? AND starts_with('v' || version, ?)
        ORDER BY version DESC LIMIT ?
    """,
    "model": """
        SELECT 'v' || version FROM model_versions WHERE name = ? AND starts_with('v' || version, ?)
        ORDER BY version DESC LIMIT ?
    """,
}
# The first part of a resource's address -> what its `name` or `id` names.
_SHELVES = {
    "datasets": "dataset",
    "models": "model",
    "use-cases": "use_case",
    "evaluations": "evaluation",
    "jobs": "job",
}


def complete(database: Database, address: str, argument: str, prefix: str, name: str = "") -> list[str]:
    """Up to 101 values, so that a caller sees whether there are more than 100.

    `address` is the resource's template, empty for prompts; `name` is what was chosen before a version.
    """
    shelf = address.removeprefix("speciate://").partition("/")[0]
    noun = _SHELVES.get(shelf, argument) if argument in ("name", "id", "version") else argument
    if argument == "version":
        rows = database.read(_VERSIONS[noun], [name, prefix, MOST + 1]) if noun in _VERSIONS else []
    else:
        rows = database.read(_NAMES[noun], [prefix, MOST + 1]) if noun in _NAMES else []
    return [row[0] for row in rows]

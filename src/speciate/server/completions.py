"""Names that fit what somebody began to type, for the arguments of resources and prompts."""

from __future__ import annotations

from speciate.workspace.database import Database

MOST = 100
"""So many values the protocol allows in one answer."""

# Argument -> the names that begin with a prefix, the likeliest first.
_NAMES = {
    "job": "SELECT id FROM jobs WHERE starts_with(id, ?) ORDER BY created DESC LIMIT ?",
    "id": "SELECT id FROM evaluations WHERE starts_with(id, ?) ORDER BY created DESC LIMIT ?",
    "use_case": "SELECT DISTINCT name FROM use_cases WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
    "dataset": "SELECT DISTINCT name FROM dataset_versions WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
    "name": "SELECT DISTINCT name FROM dataset_versions WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
    "model": "SELECT DISTINCT name FROM model_versions WHERE starts_with(name, ?) ORDER BY name LIMIT ?",
}
_VERSIONS = """
SELECT 'v' || version FROM dataset_versions WHERE name = ? AND starts_with('v' || version, ?)
ORDER BY version DESC LIMIT ?
"""


def complete(database: Database, argument: str, prefix: str, name: str | None = None) -> list[str]:
    """Up to 101 values, so that a caller sees whether there are more than 100. `name` is the dataset of a version."""
    if argument == "version":
        rows = database.read(_VERSIONS, [name or "", prefix, MOST + 1])
    elif argument in _NAMES:
        rows = database.read(_NAMES[argument], [prefix, MOST + 1])
    else:
        rows = []
    return [row[0] for row in rows]

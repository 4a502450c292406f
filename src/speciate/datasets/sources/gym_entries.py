"""Entries of reasoning-gym as texts: JSON that keeps tuples apart from lists, which some of its scorers compare."""

from __future__ import annotations

import json
from typing import Any

_TUPLE = "__tuple__"


def written(entry: dict[str, Any]) -> str:
    """What is neither JSON nor a tuple of it, such as a fraction among what is said of the entry, as its text."""
    return json.dumps(_apart(entry), ensure_ascii=False, default=str)


def read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text, object_hook=_joined)
    return found


def _apart(value: Any) -> Any:
    if isinstance(value, tuple):
        return {_TUPLE: [_apart(each) for each in value]}
    if isinstance(value, list):
        return [_apart(each) for each in value]
    if isinstance(value, dict):
        return {key: _apart(each) for key, each in value.items()}
    return value.item() if hasattr(value, "item") else value


def _joined(value: dict[str, Any]) -> Any:
    return tuple(value[_TUPLE]) if value.keys() == {_TUPLE} else value

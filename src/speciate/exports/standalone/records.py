"""A stand-in for the part of pydantic that models use to answer: records with defaults, built from JSON."""

from __future__ import annotations

from typing import Any, Self


class BaseModel:
    def __init__(self, **values: Any) -> None:
        for kind in reversed(type(self).__mro__):
            for name in vars(kind).get("__annotations__", {}):
                if name in values:
                    setattr(self, name, _frozen(values[name]))

    @classmethod
    def model_validate(cls, values: Any) -> Self:
        return cls(**values)

    def model_copy(self, *, update: Any) -> Self:
        return type(self)(**{**vars(self), **update})


def ConfigDict(**settings: Any) -> dict[str, Any]:  # noqa: N802 - as pydantic has it
    return settings


def Field(default: Any = None, **facts: Any) -> Any:  # noqa: N802 - as pydantic has it
    return default


def _frozen(value: Any) -> Any:
    """Lists of JSON as the tuples that the records have."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value

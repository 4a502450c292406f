"""The rule of `json_schema`: whether a text is JSON that fits, and where asked for whether it is that of the target.

In a cage, for patterns of a schema may take time without end. JSON in a fenced block counts as the block.
"""

from __future__ import annotations

import json
import re
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.training.language.rewards.rules_cage import Rule

_FENCED = re.compile(r"\A\s*```[^\n`]*\n(.*?)```\s*\Z", re.DOTALL)
_NONE = object()


def rule(spec: dict[str, Any]) -> Rule:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(spec["json_schema"])

    def value(answer: str, truth: str | None, cell: Any) -> Any:
        found = _read(answer)
        if found is _NONE:
            return 0.0
        if not validator.is_valid(found):
            return spec["partial"]
        if not spec["equal"]:
            return 1.0
        if truth is None:
            return None
        wanted = _read(truth)
        if wanted is _NONE:
            return {"failure": "not_a_number", "detail": f"the target is no JSON: {truth:.60}"}
        return 1.0 if _same(found, wanted) else spec["partial"]

    return value


def check(schema: Any) -> None:
    """INVALID where it is no schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise SpeciateError(
            Code.INVALID,
            f"json_schema of a reward is no JSON schema: {error.message[:200]}.",
            "Mend it, as https://json-schema.org describes draft 2020-12, then call again.",
        ) from error


def _read(text: str) -> Any:
    """NaN and infinities are no JSON."""
    fenced = _FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except ValueError:
        return _NONE


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _same(one: Any, other: Any) -> bool:
    """Python takes True for 1; JSON does not. 1 and 1.0 are the same number, wherever they stand."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(each, other[name]) for name, each in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)

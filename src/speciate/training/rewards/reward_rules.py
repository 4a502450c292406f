"""The rules of `regex`, `json_schema`, `math` and `gym`: each reads a result and its target, and gives a number.

They run in the sandboxed process (reward_rules_sandbox.py): a pattern or an expression may take time without end."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers.gym_scores import of_entry
from speciate.training.rewards.reward_rules_sandbox import Rule


def regex_rule(spec: Mapping[str, Any]) -> Rule:
    wanted = re.compile(spec["pattern"])
    return lambda answer, reference, cell: float(wanted.fullmatch(answer) is not None)


_FENCED = re.compile(r"\A\s*```[^\n`]*\n(.*?)```\s*\Z", re.DOTALL)
_NONE = object()


def json_schema_rule(spec: Mapping[str, Any]) -> Rule:
    """Whether an answer is JSON that fits a schema, and with `equal` whether it is the reference's.

    JSON in a fenced block counts as the block.
    """
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(spec["json_schema"])

    def value(answer: str, reference: str | None, cell: Any) -> Any:
        found = _read_json(answer)
        if found is _NONE:
            return 0.0
        if not validator.is_valid(found):
            return spec["partial"]
        if not spec["equal"]:
            return 1.0
        if reference is None:
            return None
        wanted = _read_json(reference)
        if wanted is _NONE:
            return {"failure": "not_a_number", "detail": f"the target is no JSON: {reference:.60}"}
        return 1.0 if _same_json(found, wanted) else spec["partial"]

    return value


def check_schema(schema: Any) -> None:
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


def _read_json(text: str) -> Any:
    """NaN and infinities are no JSON."""
    fenced = _FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except ValueError:
        return _NONE


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _same_json(one: Any, other: Any) -> bool:
    """Python takes True for 1; JSON does not. 1 and 1.0 are the same number, wherever they stand."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(each, other[name]) for name, each in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_LONGEST_ANSWER = 20_000
"""Characters of an answer that are read, from its end."""


def math_rule(spec: Mapping[str, Any]) -> Rule:
    """Whether two expressions have the same value, by the library math-verify.

    It parses foreign text with SymPy, and may take long and much memory: the alarm of reward_rules_sandbox.py ends it.
    """
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    @lru_cache(maxsize=4096)
    def read(text: str) -> Any:
        """As it stands, else as LaTeX: a target is often written without dollars."""
        return math_verify.parse(text, parsing_timeout=None) or math_verify.parse(f"${text}$", parsing_timeout=None)

    def value(answer: str, reference: str | None, cell: Any) -> Any:
        if reference is None:
            return None
        wanted = read(reference)
        if not wanted:
            return {"failure": "not_a_number", "detail": f"the target is no maths: {reference:.60}"}
        found = math_verify.parse(answer[-_LONGEST_ANSWER:], parsing_timeout=None)
        return float(math_verify.verify(wanted, found, timeout_seconds=None))

    return value


def gym_rule(spec: Mapping[str, Any]) -> Rule:
    """The score by the reasoning-gym task that made the example (evaluation/scorers)."""
    import reasoning_gym  # noqa: F401 - it takes a while, and the time of an answer is short

    def value(answer: str, reference: str | None, cell: Any) -> Any:
        if not isinstance(cell, str):
            return {"failure": "no_column", "detail": f"there is no text in the column {spec['column']!r}"}
        return of_entry(answer, cell)

    return value

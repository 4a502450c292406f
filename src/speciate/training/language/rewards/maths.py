"""The rule of `math`: whether two expressions are worth the same, by the library math-verify, in a cage.

It parses foreign text with SymPy, and so may take long and much memory; its own clock is the alarm of `rules_cage`.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from speciate.training.language.rewards.rules_cage import Rule

_LONGEST = 20_000
"""Characters of an answer that are read, from its end."""


def rule(spec: dict[str, Any]) -> Rule:
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    @lru_cache(maxsize=4096)
    def read(text: str) -> Any:
        """As it stands, else as LaTeX: a target is often written without dollars."""
        return math_verify.parse(text, parsing_timeout=None) or math_verify.parse(f"${text}$", parsing_timeout=None)

    def value(answer: str, truth: str | None, cell: Any) -> Any:
        if truth is None:
            return None
        wanted = read(truth)
        if not wanted:
            return {"failure": "not_a_number", "detail": f"the target is no maths: {truth:.60}"}
        found = math_verify.parse(answer[-_LONGEST:], parsing_timeout=None)
        return float(math_verify.verify(wanted, found, timeout_seconds=None))

    return value

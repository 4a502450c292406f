"""The rule of `gym`: the scorer of the task of reasoning-gym that made the example (evaluation/gym_scores.py)."""

from __future__ import annotations

from typing import Any

from speciate.evaluation.gym_scores import of_entry
from speciate.training.language.rewards.rules_cage import Rule


def rule(spec: dict[str, Any]) -> Rule:
    import reasoning_gym  # noqa: F401 - it takes a while, and the time of an answer is short

    def value(answer: str, truth: str | None, cell: Any) -> Any:
        if not isinstance(cell, str):
            return {"failure": "no_column", "detail": f"there is no text in the column {spec['column']!r}"}
        return of_entry(answer, cell)

    return value

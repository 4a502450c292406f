"""The rule of `gym`: the scorer of the reasoning-gym task that made the example, in a cage.

Nine of its scorers run what an answer holds, as an expression of Python. One that raises on an answer that it cannot
read gives it 0, where it does not raise on the entry's own answer as well.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from speciate.datasets.sources.gym_entries import read
from speciate.training.language.rewards.rules_cage import Rule


def rule(spec: dict[str, Any]) -> Rule:
    from reasoning_gym import get_score_answer_fn

    scorer: Any = cache(get_score_answer_fn)

    def value(answer: str, truth: str | None, cell: Any) -> Any:
        if not isinstance(cell, str):
            return {"failure": "no_column", "detail": f"there is no text in the column {spec['column']!r}"}
        entry = read(cell)
        score = scorer(entry["metadata"]["source_dataset"])
        try:
            return float(score(answer, entry))
        except Exception:  # noqa: BLE001 - of each task another
            score(entry["answer"], entry)
            return 0.0

    return value

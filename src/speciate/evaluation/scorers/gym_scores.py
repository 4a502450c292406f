"""Scores of reasoning-gym's tasks for answers to their questions. For a sandboxed process: nine of the package's
scorers run the answer as an expression of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from speciate.datasets.sources.reasoning_gym import decode_entry

COLUMN = "entry"
"""Column of an example that `gym:TASK` made, with the data of the task's scorer."""


def score(example: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """0 to 1, for what stands in <answer> tags, else for all of the answer; 0 where there is none."""
    from reasoning_gym.utils import extract_answer

    output = prediction.get("output")
    if not isinstance(output, str):
        return 0.0
    return of_entry(extract_answer(output) or output.strip(), example[COLUMN])


def of_entry(answer: str, cell: str) -> float:
    """Where the scorer raises on the answer it is one that cannot be read, unless it raises on the entry's own as well:
    then that is raised."""
    from reasoning_gym import get_score_answer_fn

    entry = decode_entry(cell)
    scorer = _scorer(get_score_answer_fn, entry["metadata"]["source_dataset"])
    try:
        return float(scorer(answer, entry))
    except Exception:  # noqa: BLE001 - of each task another
        scorer(entry["answer"], entry)
        return 0.0


@cache
def _scorer(make: Any, task: str) -> Any:
    return make(task)

"""The reward `code`: whether the program in an answer passes the tests of its example (evaluation/code_scorer.py).

Each program has a process of its own, as many at once as there are cores. Answers of a call that are the same, as many
to one question are, are run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from speciate.environment import cores
from speciate.evaluation import code_scorer
from speciate.evaluation.own_scorer import ScorerError
from speciate.sandbox import CagePolicy
from speciate.training.language.rewards.reward import Asked, Missed, Value
from speciate.training.language.rewards.specs import CodeReward


class _Run(NamedTuple):
    answer: str
    tests: str | None


class CodeMarker:
    def __init__(self, spec: CodeReward, folder: Path, policy: CagePolicy) -> None:
        self._spec, self._folder, self._policy = spec, folder, policy
        self._pool = ThreadPoolExecutor(max(1, cores()), thread_name_prefix="programs")

    def mark(self, asked: Sequence[Asked]) -> list[Value]:
        runs = [_Run(each.answer, _text(each.columns.get(self._spec.column))) for each in asked]
        different = list(dict.fromkeys(runs))
        values = dict(zip(different, self._pool.map(self._value, different), strict=True))
        return [values[run] for run in runs]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _value(self, run: _Run) -> Value:
        row = {"example": {code_scorer.TESTS: run.tests}, "prediction": {"output": run.answer}}
        (scored,) = code_scorer.score_all(self._folder, [row], policy=self._policy, seconds=self._spec.seconds)
        if isinstance(scored, ScorerError):
            return Missed("no_column", f"there is no text in the column {self._spec.column!r}")
        return scored[code_scorer.NAME]


def _text(cell: Any) -> str | None:
    return cell if isinstance(cell, str) else None

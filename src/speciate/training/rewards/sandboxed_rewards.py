"""Rewards that run in a sandbox: rules (`regex`, `json_schema`, `math`, `gym`), `code`, and a user's own `python`.

A batch of answers is one call of a process that is kept over the run. A batch that takes too long or ends its process
says nothing of its answers, so each of them is asked about again, alone: one bad answer costs only itself. Once several
processes were lost in one call, the rest of it is not tried."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_args

from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError
from speciate.sandbox import SandboxPolicy, user_code
from speciate.sandbox.client import NoAnswer, RestartingClient, SandboxClient
from speciate.sandbox.user_code import FileBinding, load_code
from speciate.training.rewards.plain_rewards import find_result
from speciate.training.rewards.reward import AnswerScorer, MissingValue, RewardFailure, RewardRequest, RewardValue
from speciate.training.rewards.reward_rules_sandbox import RuleQuestion
from speciate.training.rewards.reward_spec import (
    CodeReward,
    GymReward,
    MathReward,
    PythonReward,
    RegexReward,
    SchemaReward,
)

_MOST_LOST = 3
"""Processes of one call, beside that of the whole batch; what is left of it is then not tried."""
_SHOWN = 300


class SandboxedBatches:
    """`ask` as a question for answers; `one`: how many seconds an answer may take when it is asked about alone."""

    def __init__(
        self,
        load: Callable[[], SandboxClient],
        ask: Callable[[Sequence[RewardRequest]], Any],
        seconds: float,
        one: float | None = None,
    ) -> None:
        self._kept, self._ask = RestartingClient(load, "answers"), ask
        self._seconds, self._one = seconds, seconds if one is None else one

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        if not requests:
            return []
        answer = self._kept.ask(self._ask(requests), self._seconds, sys.maxsize)
        if isinstance(answer, NoAnswer) and answer.why != "raised" and len(requests) > 1:
            return self._one_by_one(requests)
        return self._values(answer, len(requests), self._seconds)

    def close(self) -> None:
        self._kept.end()

    def _one_by_one(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        most, found = self._kept.lost + _MOST_LOST, list[RewardValue]()
        for each in requests:
            found += self._values(self._kept.ask(self._ask([each]), self._one, most), 1, self._one)
        return found

    def _values(self, answer: Any, count: int, seconds: float) -> list[RewardValue]:
        """In the words of whoever wrote the reward: `seconds` is what can be raised."""
        if not isinstance(answer, NoAnswer):
            return check_values(answer, count)
        own_limit = answer.why == "too_slow" and seconds == self._seconds
        detail = f"it took longer than its 'seconds', {seconds:g}" if own_limit else answer.detail
        return [MissingValue(answer.why, detail)] * count


def check_values(values: Any, count: int) -> list[RewardValue]:
    """The values of so many answers, from a process that may answer anything."""
    if count == 1 and not isinstance(values, list):
        values = [values]
    if not isinstance(values, list):
        return [MissingValue("not_a_number", f"{values!r:.60} in place of a list of {count} values")] * count
    if len(values) != count:
        return [MissingValue("wrong_number", f"{len(values)} values of {count} answers")] * count
    return [_check_value(each) for each in values]


def _check_value(value: Any) -> RewardValue:
    if value is None:
        return None
    if isinstance(value, dict) and value.get("failure") in get_args(RewardFailure):  # of a kind of our own
        return MissingValue(value["failure"], str(value.get("detail"))[:_SHOWN])
    if not isinstance(value, int | float):
        return MissingValue("not_a_number", f"{value!r:.60}")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return MissingValue("not_a_number", "a number with hundreds of digits")
    return float(value) if math.isfinite(value) else MissingValue("nan", f"it returned {value}")


RuleReward = RegexReward | SchemaReward | MathReward | GymReward
_SANDBOX = "speciate.training.rewards.reward_rules_sandbox"
INSTALL = "pip install 'speciate[rewards]'"
_SECONDS_ALONE = 10.0
_LIBRARIES = {"math": "math_verify", "gym": "reasoning_gym", "json_schema": "jsonschema"}


def open_rule_reward(spec: RuleReward, folder: Path, policy: SandboxPolicy) -> AnswerScorer:
    """A reward by a rule of ours (pattern, schema, maths, reasoning-gym) in a sandbox.

    MISSING_EXTRA where its library is not installed.
    """
    check_library(spec)
    loading = {"kind": spec.kind, "spec": spec.model_dump(mode="json")}

    def load() -> SandboxClient:
        return load_code(SandboxClient(_SANDBOX, folder, policy), loading, f"The reward {spec.kind!r}")

    def ask(requests: Sequence[RewardRequest]) -> RuleQuestion:
        return {
            "answers": [find_result(each.answer, spec.where, spec.marker) for each in requests],
            "references": [each.reference for each in requests],
            "cells": [_read_cell(spec, each) for each in requests],
        }

    return SandboxedBatches(load, ask, spec.seconds, min(spec.seconds, _SECONDS_ALONE))


def check_library(spec: RuleReward) -> None:
    if lacks_library(spec.kind):
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The reward {spec.kind!r} needs the library {_LIBRARIES[spec.kind]!r}, which is not installed.",
            f"Run: {INSTALL}",
        )


def lacks_library(kind: str) -> bool:
    """Whether a kind of reward needs a library that is not installed."""
    return kind in _LIBRARIES and importlib.util.find_spec(_LIBRARIES[kind]) is None


def _read_cell(spec: RuleReward, request: RewardRequest) -> str | None:
    cell = request.columns.get(spec.column) if isinstance(spec, GymReward) else None
    return cell if isinstance(cell, str) else None


class _ProgramRun(NamedTuple):
    answer: str
    tests: str | None


class CodeRewardScorer:
    """Whether the program in an answer passes the tests of its example.

    Each program has a process of its own, as many at once as there are cores. Equal answers of a call are run once.
    """

    def __init__(self, spec: CodeReward, folder: Path, policy: SandboxPolicy) -> None:
        self._spec, self._folder, self._policy = spec, folder, policy
        self._pool = ThreadPoolExecutor(max(1, cores()), thread_name_prefix="programs")

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        runs = [_ProgramRun(each.answer, _text_or_none(each.columns.get(self._spec.column))) for each in requests]
        different = list(dict.fromkeys(runs))
        values = dict(zip(different, self._pool.map(self._value, different), strict=True))
        return [values[run] for run in runs]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _value(self, run: _ProgramRun) -> RewardValue:
        row = {"example": {sandboxed_scorers.TESTS: run.tests}, "prediction": {"output": run.answer}}
        (scored,) = sandboxed_scorers.score_programs(
            self._folder, [row], policy=self._policy, seconds=self._spec.seconds
        )
        if isinstance(scored, ScorerError):
            return MissingValue("no_column", f"there is no text in the column {self._spec.column!r}")
        return scored[sandboxed_scorers.CODE_PASSES]


def _text_or_none(cell: Any) -> str | None:
    return cell if isinstance(cell, str) else None


_NAME_A_FILE = "Name a file that is there: {'kind': 'python', 'file': 'path/to/file.py:FUNCTION'}."
_AGAIN = "Call train_model again: it is another reward now."


def open_python_reward(spec: PythonReward, folder: Path, policy: SandboxPolicy) -> AnswerScorer:
    """A user's own reward: one function in one file, in a sandbox that is kept over the run.

        def reward(questions, answers, truths, columns) -> list[float | None]

    All four are lists of one length: messages `{"role", "content"}` of each question, the answers' texts, the
    references as texts, and the example's columns as a dict. None says that the reward does not apply to an answer.
    Where a batch was lost, its answers are asked about one by one. CONFLICT where the file has changed since it was
    bound.
    """
    path, function = split_reference(spec.file)
    agreed = FileBinding(spec.sha256, "the training", _AGAIN if spec.sha256 else _NAME_A_FILE)
    load = user_code.client_factory(folder, path, function, agreed, policy, "reward")
    return SandboxedBatches(load, _call, spec.seconds)


def bind_python_reward(spec: PythonReward) -> PythonReward:
    """With the file's absolute path and the sha256 of its bytes. NOT_FOUND, INVALID, or CONFLICT where it was bound to
    other bytes before."""
    path, function = split_reference(spec.file)
    found = user_code.describe_function(path.absolute(), function, _NAME_A_FILE)
    if spec.sha256 not in (None, found.sha256):
        raise SpeciateError(
            Code.CONFLICT,
            f"{path.name} has other bytes than those of sha256 {spec.sha256}.",
            "Leave sha256 out to take the file as it is now.",
        )
    return spec.model_copy(update={"file": f"{found.file}:{function}", "sha256": found.sha256})


def split_reference(ref: str) -> tuple[Path, str]:
    path, _, function = ref.rpartition(":")
    if not path or not function.isidentifier():
        raise SpeciateError(Code.INVALID, f"{ref!r} names no function of a file.", _NAME_A_FILE)
    return Path(path), function


def _call(requests: Sequence[RewardRequest]) -> list[Any]:
    questions = [[message.shown() for message in each.question] for each in requests]
    columns = [json.loads(json.dumps(dict(each.columns), default=str)) for each in requests]
    return [questions, [each.answer for each in requests], [each.reference for each in requests], columns]

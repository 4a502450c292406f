"""The tasks of `evals/agents`: each one's own solution reaches its end, within what the task allows."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace

import anyio
import pytest

from evals.agents import play
from evals.agents.play import Starts, attempt, start_key
from evals.agents.tasks import Check, Task, filled, load_tasks, look_up
from tests import forks

ALIKE = Counter(map(start_key, load_tasks()))
TASKS = sorted(load_tasks(), key=lambda task: (ALIKE[start_key(task)] > 1, start_key(task)))
"""Those that begin alike are neighbours, which one process plays."""
LONG = {
    "why-is-it-worse", "model-for-elsewhere", "all-of-a-file", "is-the-new-base-worth-it", "roll-back", "like-this-one",
    "ten-labels", "is-it-better-than-nothing", "text-that-gives-orders", "go-on", "compare-two", "wrong-labels",
    "count-in-many", "evidence-for-an-auditor", "watch-it", "should-i-approve", "which-slice",
}  # fmt: skip
"""Played by `make agents` and in the slow suite: each takes three seconds or more."""


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands around a task."""

    def run(command: list[str], *, check: bool, capture_output: bool) -> None:
        done = forks.run(command)
        assert not check or done.returncode == 0, done.stderr

    monkeypatch.setattr(play, "subprocess", SimpleNamespace(run=run))


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    return Starts(tmp_path_factory.mktemp("starts"))


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(
            task, id=task.name, marks=[pytest.mark.slow(reason="trains or answers much")] if task.name in LONG else []
        )
        for task in TASKS
    ],
)
def test_a_reference_reaches_the_end_of_its_task(task: Task, starts: Starts) -> None:
    done = anyio.run(partial(attempt, task, starts, keep=ALIKE[start_key(task)] > 1))
    assert (done.missed, done.forbidden) == ((), ())


def test_there_are_thirty_tasks_and_some_with_what_must_never_happen() -> None:
    assert len({task.name for task in TASKS}) >= 30
    assert sum(bool(task.forbidden) for task in TASKS) >= 5


def test_a_state_that_does_not_hold_is_missed_and_says_what_is_there() -> None:
    check = Check(tool="list_jobs", at="jobs.0.state", **{"is": "succeeded"})
    assert check.miss(lambda tool, arguments: {"jobs": [{"state": "succeeded"}]}, {}) == ""
    assert "'failed', not 'succeeded'" in check.miss(lambda tool, arguments: {"jobs": [{"state": "failed"}]}, {})
    assert "is None, not 'succeeded'" in check.miss(lambda tool, arguments: {"jobs": []}, {})


def test_answers_of_earlier_calls_are_filled_in() -> None:
    answers = {"made": {"jobs": [{"job": "job-1"}, {"job": "job-2"}], "n": 3}}
    assert filled({"job": "$made.jobs.1.job", "said": "$made.n of them"}, answers) == {
        "job": "job-2",
        "said": "3 of them",
    }
    assert look_up(answers, "made.jobs.*.job") == ["job-1", "job-2"]
    assert look_up(answers, "made.nothing.0") is None

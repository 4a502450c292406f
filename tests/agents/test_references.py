"""The tasks of `evals/agents`: each one's own solution reaches its end, within what the task allows."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest

from evals.agents import play
from evals.agents.play import attempt
from evals.agents.tasks import Check, Task, filled, load_tasks, look_up
from tests import forks

TASKS = load_tasks()


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands around a task."""

    def run(command: list[str], *, check: bool, capture_output: bool) -> None:
        done = forks.run(command)
        assert not check or done.returncode == 0, done.stderr

    monkeypatch.setattr(play, "subprocess", SimpleNamespace(run=run))


@pytest.mark.parametrize(
    "task", [pytest.param(task, id=task.name, marks=() if task.quick else pytest.mark.slow) for task in TASKS]
)
def test_a_reference_reaches_the_end_of_its_task(task: Task) -> None:
    done = anyio.run(attempt, task)
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

"""An answer that takes longer than one call goes on in the pool, and the same call again gets it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool, PoolProcessEnded
from speciate.predictions import answer_lookup, reading
from speciate.serving import pending_answers, preloading
from speciate.serving import predict as predicting
from speciate.serving.predict import Answer, Input, predict
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.serving.world import USE_CASE, move, trained

SAME = [Input(text="a fine film", id="mine"), Input(text="a dull film")]
CALL_SECONDS = 0.2


class SlowAnswers(Pool):
    """Loads at once; answers when it is told to, or is ended where that takes longer than it was given."""

    def __init__(self) -> None:
        self._size = 2
        self.given: list[float] = []
        self.done = threading.Event()
        self.failure: SpeciateError | None = None

    def ask(
        self, service: str, payload: dict[str, Any], timeout: float = 20.0, *,
        readable: frozenset[Path] = frozenset(), patience: float = 0.0, family: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        if service == preloading.LOAD:
            return {}
        self.given.append(timeout)
        if not self.done.wait(min(timeout, 30)):
            raise PoolProcessEnded(Code.UNAVAILABLE, "It was stopped.", "Ask for less.")
        if self.failure:
            raise self.failure
        one = {"output": "good", "confidence": 1.0, "error": None}
        return {"predictions": [{"id": item["id"], **one} for item in payload["items"]]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path_factory.mktemp("slow") / "workspace", settings=Settings(policy="auto"))
    move(workspace, trained(workspace).ref)
    yield workspace
    answer_lookup.logs_of(workspace).close()
    workspace.close()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowAnswers]:
    monkeypatch.setattr(predicting, "CALL_SECONDS", CALL_SECONDS)
    pool = SlowAnswers()
    yield pool
    pool.done.set()


def _ask(workspace: Workspace, pool: Pool, inputs: list[Input] = SAME) -> Answer:
    return predict(workspace, pool, f"{USE_CASE}@production", inputs)


def _refused(workspace: Workspace, pool: Pool, inputs: list[Input] = SAME) -> SpeciateError:
    with pytest.raises(SpeciateError) as refusal:
        _ask(workspace, pool, inputs)
    assert refusal.value.code is Code.UNAVAILABLE
    return refusal.value


def _logged(workspace: Workspace) -> list[str]:
    return list(reading.answers(answer_lookup.logs_of(workspace).of(USE_CASE).folder)["id"].to_pylist())


def test_the_same_call_again_gets_the_answer_that_its_first_one_could_not_wait_for(
    served: Workspace, pool: SlowAnswers
) -> None:
    before = _logged(served)
    for _ in range(2):  # a repeat that is too early neither asks anew nor loses what was begun
        refusal = _refused(served, pool)
        assert "is still answering" in refusal.message
        assert f"predict(use_case='{USE_CASE}', inputs=[the same])" in refusal.recovery
    assert _logged(served) == before  # nobody was answered
    pool.done.set()
    answer = _ask(served, pool)
    assert [(one.id, one.output) for one in answer.predictions] == [("mine", "good"), ("1", "good")]
    assert answer.latency_ms > 1000 * CALL_SECONDS  # of the answer, not of the call that picked it up
    assert len(pool.given) == 1
    assert sorted(_logged(served)) == sorted([*before, *(one.prediction for one in answer.predictions)])
    _ask(served, pool)
    assert len(pool.given) == 2  # an answer is given once; the next call is another question


def test_other_inputs_are_another_question_and_one_alone_outlives_its_call(
    served: Workspace, pool: SlowAnswers
) -> None:
    """The pool has two processes: the other one stays free for what everybody else asks."""
    _refused(served, pool)
    refusal = _refused(served, pool, SAME[:1])
    assert "gave no answer" in refusal.message
    assert "repeat the call" in refusal.recovery
    assert pool.given[0] > 200
    assert pool.given[1] <= 1.0


def test_what_ended_an_answer_is_told_to_the_repeated_call_and_the_one_after_asks_anew(
    served: Workspace, pool: SlowAnswers
) -> None:
    pool.failure = PoolProcessEnded(Code.UNAVAILABLE, "The process ran out of memory.", "Ask for less.")
    _refused(served, pool)
    pool.done.set()
    assert "The process ran out of memory." in _refused(served, pool).message
    pool.failure = None
    assert _ask(served, pool).predictions[0].output == "good"


def test_an_answer_that_nobody_asks_for_again_is_forgotten(
    served: Workspace, pool: SlowAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_answers, "_KEPT_SECONDS", 0.0)
    _refused(served, pool)
    [question] = pending_answers.pending_questions(pool).left
    pool.done.set()
    question.join(30)
    assert pending_answers.pending_questions(pool).left == ()

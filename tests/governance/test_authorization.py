"""Questions and answers in the daemon: for two minutes by either clock, and never more of them than fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import authorization
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.governance.people import Signer, ask, do, enroll, perform

ANN = Signer("ann")


@pytest.fixture
def signed(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    enroll(workspace, ANN)
    return workspace


@pytest.mark.parametrize(("seconds", "counts"), [(119, True), (120, False), (100_000, False)])
def test_an_answer_counts_for_two_minutes(
    signed: Workspace, clock: ManualClock, seconds: float, *, counts: bool
) -> None:
    answer = ANN.answer(ask(signed, "policy", policy="person"))
    clock.advance(seconds)
    if counts:
        perform(signed, "policy", policy="person", signed=answer)
    else:
        with pytest.raises(SpeciateError, match="answers no open question") as caught:
            perform(signed, "policy", policy="person", signed=answer)
        assert caught.value.code is Code.REFUSED


def test_a_wall_clock_that_is_set_back_gives_no_more_time(signed: Workspace, clock: ManualClock) -> None:
    answer = ANN.answer(ask(signed, "policy", policy="person"))
    signed.clock = _Set(clock, monotonic=200, wall=-5_000)
    with pytest.raises(SpeciateError, match="answers no open question"):
        perform(signed, "policy", policy="person", signed=answer)


class _Set:
    """Somebody set the wall clock, and time went on."""

    def __init__(self, clock: ManualClock, monotonic: float, wall: float) -> None:
        self._clock, self._monotonic, self._wall = clock, monotonic, wall

    def now(self) -> float:
        return self._clock.now() + self._wall

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._monotonic


def test_a_flood_of_questions_takes_no_memory_and_the_newest_counts(
    signed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorization, "_MOST_OPEN", 5)
    first = ask(signed, "policy", policy="person")
    last = [ask(signed, "policy", policy="person") for _ in range(5)][-1]
    assert len(authorization.authority_of(signed)._open) == 5
    with pytest.raises(SpeciateError, match="answers no open question"):
        perform(signed, "policy", policy="person", signed=ANN.answer(first))
    perform(signed, "policy", policy="person", signed=ANN.answer(last))


def test_what_changed_since_it_was_shown_is_asked_again(signed: Workspace) -> None:
    """Two keys are to be enrolled at once; the second answer is about a list of keys that is no more so."""
    bob, eve = Signer("bob"), Signer("eve")
    first, second = (ask(signed, "key enroll", **new.enrollment) for new in (bob, eve))
    perform(signed, "key enroll", **bob.enrollment, signed=ANN.answer(first))
    with pytest.raises(SpeciateError, match="not what would be decided") as caught:
        perform(signed, "key enroll", **eve.enrollment, signed=ANN.answer(second))
    assert caught.value.code is Code.CONFLICT


@pytest.mark.parametrize("about", [None, 5, {}, {"action": "nonsense"}, {"action": "status"}, {"action": ["policy"]}])
def test_a_question_about_nothing_is_refused(signed: Workspace, about: object) -> None:
    with pytest.raises(SpeciateError):
        perform(signed, "question", about=about)


def test_a_key_with_the_name_of_none_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="cannot name a key"):
        do(workspace, Signer("a/../b"), "key enroll", **Signer("a/../b").enrollment)

"""A version that serves: batches, deadlines, a process that dies, and an end that forgets nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.serving.batching import Batching, pause
from speciate.serving.deployment import Deployment, Full, Overloaded, Retired
from tests.serving.fakes import POISON, SLOW, FakeProcess, target

Made = Callable[..., Deployment]


@pytest.fixture
def make() -> Iterator[Made]:
    made: list[Deployment] = []

    def deployment(process: FakeProcess, **more: Any) -> Deployment:
        settings: dict[str, Any] = {
            "restart": lambda: FakeProcess(process.target), "batching": Batching(4, 0.0), "queue": 100,
            "told": lambda inputs, seconds: None,
        }  # fmt: skip
        made.append(Deployment(process, **(settings | more)))
        return made[-1]

    yield deployment
    for each in made:
        each.retire(10)


def ask(deployment: Deployment, *texts: str, seconds: float = 30.0) -> list[Future[dict[str, Any]]]:
    return deployment.submit([{"text": text} for text in texts], time.monotonic() + seconds)


@pytest.mark.parametrize(
    ("waiting", "age", "expected"),
    [(1, 0.0, 0.02), (1, 0.015, 0.005), (1, 0.02, 0.0), (3, 0.0, 0.02), (4, 0.0, 0.0), (9, 0.0, 0.0)],
)
def test_a_batch_goes_when_it_is_full_or_its_oldest_input_has_waited(waiting: int, age: float, expected: float) -> None:
    assert pause(waiting, age, Batching(4, 0.02), last=2) == pytest.approx(expected)


def test_who_asks_alone_is_not_held_up_for_others() -> None:
    assert pause(1, 0.0, Batching(4, 0.02), last=1) == 0.0
    assert pause(2, 0.0, Batching(4, 0.02), last=1) == 0.02


def test_what_comes_while_the_model_is_busy_is_answered_together(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process)
    first = ask(deployment, "a")
    assert process.busy.wait(30)
    rest = [future for text in "bcdefg" for future in ask(deployment, text)]
    gate.set()
    assert [future.result(30)["output"] for future in first + rest] == ["words@v1"] * 7
    assert process.batches == [1, 4, 2]


def test_an_input_waits_for_others_up_to_its_patience(make: Made) -> None:
    process = FakeProcess(target(1))
    deployment = make(process, batching=Batching(3, 20.0))
    futures = ask(deployment, "a", "b")
    assert not futures[0].done()
    futures += ask(deployment, "c")  # full: nobody waits for the 20 s to pass
    assert all(future.result(10) for future in futures)
    assert process.batches == [3]


def test_what_nobody_answered_in_time_is_dropped_unasked(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process)
    first = ask(deployment, "a")
    assert process.busy.wait(30)
    [late] = ask(deployment, "b", seconds=0.01)
    time.sleep(0.05)
    gate.set()
    assert first[0].result(30)
    with pytest.raises(Overloaded):
        late.result(30)
    assert process.batches == [1]


def test_what_its_client_withdrew_before_its_turn_is_asked_of_nobody(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process)
    [first] = ask(deployment, "a")
    assert process.busy.wait(30)
    [withdrawn, kept] = ask(deployment, "b", "c")
    assert not first.cancel(), "the model has it"
    assert withdrawn.cancel()
    gate.set()
    assert kept.result(30)
    assert process.batches == [1, 1]


def test_however_long_an_input_waited_the_model_has_a_whole_requests_time_for_it(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process)
    ask(deployment, "a", seconds=30)
    assert process.busy.wait(30)
    [waited] = ask(deployment, "b", seconds=20)
    time.sleep(0.1)
    gate.set()
    assert waited.result(30)
    assert process.given == pytest.approx([30, 20], abs=0.05), "not what was left of it: that would end a busy process"


def test_more_than_the_queue_holds_is_turned_away_whole(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process, queue=3)
    kept = ask(deployment, "a")
    assert process.busy.wait(30)
    kept += ask(deployment, "b", "c")
    with pytest.raises(Full):
        ask(deployment, "d", "e")
    kept += ask(deployment, "f")
    gate.set()
    assert all(future.result(30) for future in kept)


def test_inputs_whose_time_has_passed_take_no_room_from_others(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process, queue=2)
    ask(deployment, "a")
    assert process.busy.wait(30)
    withdrawn, late = ask(deployment, "b", "c", seconds=0.01)
    assert withdrawn.cancel()
    time.sleep(0.05)
    kept = ask(deployment, "d", "e")
    assert isinstance(late.exception(0), Overloaded)
    gate.set()
    assert all(future.result(30) for future in kept)


def test_a_request_larger_than_the_queue_is_answered_where_nobody_waits(make: Made) -> None:
    deployment = make(FakeProcess(target(1)), queue=3)
    assert all(future.result(30) for future in ask(deployment, *"abcdefgh"))


def test_an_input_that_ends_the_process_spoils_only_itself(make: Made) -> None:
    gate, heard = threading.Event(), []
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process, told=lambda inputs, seconds: heard.append(inputs))
    first = ask(deployment, "a")
    assert process.busy.wait(30)
    together = ask(deployment, "b", POISON, "c")
    gate.set()
    assert first[0].result(30)
    assert [future.exception(30) is None for future in together] == [True, False, True]
    assert isinstance(together[1].exception(30), SpeciateError)
    assert process.ended
    assert heard.count(0) == 2, "started again after the batch, and after the input that was to blame"
    assert ask(deployment, "d")[0].result(30)["output"] == "words@v1"


def test_an_input_that_takes_too_long_is_a_timeout_and_the_next_one_is_answered(make: Made) -> None:
    deployment = make(FakeProcess(target(1)))
    with pytest.raises(TimeoutError):
        ask(deployment, SLOW)[0].result(30)
    assert ask(deployment, "a")[0].result(30)


def test_a_retired_version_answers_what_it_took_and_takes_nothing_more(make: Made) -> None:
    gate = threading.Event()
    process = FakeProcess(target(1), gate=gate)
    deployment = make(process, queue=100_000)
    futures = ask(deployment, "a")
    assert process.busy.wait(30)
    futures += ask(deployment, "b", "c")
    retiring = threading.Thread(target=deployment.retire, args=(30,))
    retiring.start()
    while (taken := _taken(deployment)) is not None:  # until the thread has got so far
        futures += taken
        time.sleep(0.001)
    assert not process.ended
    gate.set()
    retiring.join(30)
    assert all(future.result(1)["output"] == "words@v1" for future in futures)
    assert process.ended


def test_a_version_that_does_not_end_is_ended(make: Made) -> None:
    process = FakeProcess(target(1), gate=threading.Event())
    deployment = make(process)
    [open_one] = ask(deployment, "a")
    assert process.busy.wait(30)
    assert deployment.retire(0.05) is False
    assert process.interrupted
    with pytest.raises(TimeoutError):
        open_one.result(1)


def _taken(deployment: Deployment) -> list[Future[dict[str, Any]]] | None:
    try:
        return ask(deployment, "x")
    except Retired:
        return None

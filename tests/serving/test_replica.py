"""A version that serves: batches, deadlines, a process that dies, and an end that forgets nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.models.registry import ModelVersion
from speciate.sandbox.client import AnswerTimeout, ProcessDied
from speciate.serving import replica
from speciate.serving.deployment_folder import Target
from speciate.serving.replica import (
    Batching,
    Full,
    Overloaded,
    Replica,
    Retired,
    Runner,
    TrialFailed,
    pause,
    try_version,
)
from speciate.workspace.workspace import Workspace
from tests.serving.fakes import POISON, SLOW, FakeProcess, target
from tests.serving.world import scaled, spoil, trained, version

Made = Callable[..., Replica]


@pytest.fixture
def make() -> Iterator[Made]:
    made: list[Replica] = []

    def deployment(process: FakeProcess, **more: Any) -> Replica:
        settings: dict[str, Any] = {
            "launch": lambda: FakeProcess(process.target), "load_seconds": 60, "batching": Batching(4, 0.0),
            "queue": 100, "heard": lambda inputs, seconds: None,
        }  # fmt: skip
        made.append(Replica(process, **(settings | more)))
        return made[-1]

    yield deployment
    for each in made:
        each.retire(10)


def ask(deployment: Replica, *texts: str, seconds: float = 30.0) -> list[Future[dict[str, Any]]]:
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
    deployment = make(process, heard=lambda inputs, seconds: heard.append(inputs))
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


class Heard:
    """A listener; `fails`: its client's connection is gone, and it did not notice."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails, self.texts, self.gone = fails, list[str](), False

    def hear(self, text: str) -> None:
        if self._fails:
            raise RuntimeError("Event loop is closed")
        self.texts.append(text)


def test_a_listener_that_fails_ends_its_own_answer_alone(make: Made) -> None:
    gate, beside, lost = threading.Event(), Heard(), Heard(fails=True)
    process = FakeProcess(target(1), gate=gate)
    process.words = ("Yes", ".")
    deployment = make(process)
    ask(deployment, "a")
    assert process.busy.wait(30)
    until = time.monotonic() + 30
    one, other = (
        deployment.submit([{"text": text}], until, listener)[0] for text, listener in [("b", lost), ("c", beside)]
    )
    gate.set()
    assert other.result(30)["output"] == "Yes."
    assert beside.texts == ["Yes", "."]
    assert one.result(30)["usage"]["finished"] is False
    assert not process.ended


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


def test_a_batch_whose_process_died_as_the_version_was_retired_is_told_so(make: Made) -> None:
    def retired_meanwhile() -> FakeProcess:
        threading.Thread(target=deployment.retire, args=(30,)).start()
        while not deployment._retired:
            time.sleep(0.001)
        raise OSError("no process is left")

    deployment = make(FakeProcess(target(1)), launch=retired_meanwhile)
    for each in ask(deployment, "a", POISON):
        with pytest.raises(SpeciateError, match="process ended"):
            each.result(30)


class Loading(FakeProcess):
    """Loads until it is interrupted."""

    def load(self, seconds: float) -> None:
        assert self._gate
        self.busy.set()
        self.given.append(seconds)
        assert self._gate.wait(60)
        raise ProcessDied


def test_a_process_that_cannot_be_loaded_again_is_ended_before_the_next_attempt(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_RESTART_SECONDS", (0.0, 0.0))
    launched, alive = list[FakeProcess](), list[bool]()

    def launch() -> FakeProcess:
        alive.extend(not each.ended for each in launched[-1:])
        launched.append(FakeProcess(target(1), failure="Its files are gone." if len(launched) < 3 else None))
        return launched[-1]

    deployment = make(FakeProcess(target(1)), launch=launch)
    assert ask(deployment, POISON)[0].exception(30)
    assert ask(deployment, "a")[0].result(30)["output"] == "words@v1"
    assert alive == [False] * 3


def test_a_version_that_is_retired_while_its_process_is_loaded_again_ends(make: Made) -> None:
    again = Loading(target(1), gate=threading.Event())
    deployment = make(FakeProcess(target(1)), launch=lambda: again, load_seconds=77)
    ask(deployment, POISON)
    assert again.busy.wait(30)
    [waits] = ask(deployment, "a")
    retiring = threading.Thread(target=deployment.retire, args=(0,), daemon=True)
    retiring.start()
    retiring.join(20)
    assert not retiring.is_alive()
    assert (again.interrupted, again.ended, again.given) == (True, True, [77])
    with pytest.raises(Overloaded):
        waits.result(1)


def test_a_version_that_is_retired_as_its_process_is_started_again_leaves_none(make: Made) -> None:
    """Whether the one that died or the new one is interrupted."""
    launched, begun = list[FakeProcess](), threading.Event()
    retiring = threading.Thread(target=lambda: deployment.retire(0), daemon=True)

    def launch() -> FakeProcess:
        retiring.start()
        begun.set()
        while not deployment._abandoned:
            time.sleep(0.001)
        launched.append(Loading(target(1), gate=threading.Event()))
        return launched[-1]

    deployment = make(FakeProcess(target(1)), launch=launch)
    [failed] = ask(deployment, POISON)
    assert failed.exception(30)
    assert begun.wait(30)
    retiring.join(20)
    assert not retiring.is_alive()
    assert [each.ended for each in launched] == [True]


def test_a_version_that_is_retired_between_two_attempts_to_start_ends(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_RESTART_SECONDS", (60.0, 60.0))
    tried = threading.Event()

    def fails() -> FakeProcess:
        tried.set()
        raise OSError("no process is left")

    deployment = make(FakeProcess(target(1)), launch=fails)
    ask(deployment, POISON)
    assert tried.wait(30)
    [waits] = ask(deployment, "a")
    retiring = threading.Thread(target=deployment.retire, args=(0.1,), daemon=True)
    retiring.start()
    retiring.join(20)
    assert not retiring.is_alive()
    with pytest.raises(Overloaded):
        waits.result(1)


def test_a_version_that_does_not_end_is_ended(make: Made) -> None:
    process = FakeProcess(target(1), gate=threading.Event())
    deployment = make(process)
    [open_one] = ask(deployment, "a")
    assert process.busy.wait(30)
    assert deployment.retire(0.05) is False
    assert process.interrupted
    with pytest.raises(TimeoutError):
        open_one.result(1)


def _taken(deployment: Replica) -> list[Future[dict[str, Any]]] | None:
    try:
        return ask(deployment, "x")
    except Retired:
        return None


# What a version must do before it gets traffic, and which noise does not count against it.


ITEMS = [{"text": text} for text in "abcdefgh"]


class Timed(FakeProcess):
    """By a clock of its own, which each answer moves by what is told."""

    def __init__(self, seconds: Sequence[float], monkeypatch: pytest.MonkeyPatch, limit: float | None) -> None:
        super().__init__(target(1, slowest_ms=limit))
        self._all, self.now, self.asked = list(seconds), 0.0, 0
        monkeypatch.setattr(replica.time, "monotonic", lambda: self.now)

    def answer(self, items: Sequence[dict[str, Any]], seconds: float, heard: Any = None) -> list[dict[str, Any]]:
        self.now += self._all[min(self.asked, len(self._all) - 1)]
        self.asked += 1
        return [{"id": "0", "output": "a", "confidence": 0.9, "error": None}]


def test_the_quickest_answer_of_each_example_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = [0.9] * 8 + [0.01] * 8 + [0.5] * 8
    tried = try_version(Timed(noisy, monkeypatch, 20.0), ITEMS, 300)
    assert (tried.examples, tried.median_ms) == (8, pytest.approx(10.0))


def test_half_of_the_answers_above_the_limit_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrialFailed, match="half of its answers take 30 ms or more, and the limit is 20 ms"):
        try_version(Timed([0.03], monkeypatch, 20.0), ITEMS, 300)
    assert try_version(Timed([0.03], monkeypatch, None), ITEMS, 300).median_ms == pytest.approx(30.0)


def test_a_busy_machine_does_not_count_against_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that waited for the processor most of the time."""
    waiting = Timed([0.5], monkeypatch, 20.0)
    monkeypatch.setattr(waiting, "cpu_seconds", lambda: 0.01 * waiting.now)
    assert try_version(waiting, ITEMS, 300).median_ms == pytest.approx(5.0)


def test_a_hopeless_version_is_not_asked_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = Timed([6.0], monkeypatch, 20.0)
    with pytest.raises(TrialFailed, match="too slow"):
        try_version(hopeless, ITEMS, 300)
    assert hopeless.asked == 3


def test_without_examples_loading_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_version(FakeProcess(target(1, slowest_ms=0.001)), [], 300).median_ms is None


@pytest.mark.parametrize(
    ("process", "items", "why"),
    [
        (FakeProcess(target(1), failure="Its files have changed."), ITEMS, "could not be loaded: Its files"),
        (FakeProcess(target(1)), [{"text": POISON}], "ended while it was loaded or tried"),
        (FakeProcess(target(1)), [{"text": SLOW}], "not loaded and tried within 7 s"),
        (FakeProcess(target(1), nan=True), ITEMS, "NaN or infinite"),
    ],
)
def test_what_fails_is_said(process: FakeProcess, items: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(TrialFailed, match=why):
        try_version(process, items, 7)


def test_an_example_that_cannot_be_answered_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeProcess(target(1))
    refused = {"id": "0", "output": None, "confidence": None, "error": "No 'x1'."}
    monkeypatch.setattr(process, "answer", lambda items, seconds: [refused])
    with pytest.raises(TrialFailed, match="cannot answer an example that it was trained on") as caught:
        try_version(process, ITEMS, 7)
    assert "No 'x1'" not in str(caught.value)
    assert caught.value.detail == "No 'x1'."


# Real versions in real sandboxes: what is tried, what is refused, and what a damaged one does.


Run = Callable[[str], Runner]


@pytest.fixture
def films(workspace: Workspace) -> ModelVersion:
    return trained(workspace)


@pytest.fixture
def run(workspace: Workspace) -> Iterator[Run]:
    made: list[Runner] = []

    def start(ref: str) -> Runner:
        found = registry.resolve(workspace.database, workspace.folders, ref)
        wanted = Target(
            generation=1, model=ref, path=str(found.path), task="text-classification", modality="text",
            inputs=("text",),
        )  # fmt: skip
        root = workspace.folders.root
        made.append(Runner(root, root / "cache" / "pool", wanted, 4096, workspace.settings.cage))
        return made[-1]

    yield start
    for each in made:
        each.end()


RUNNER_ITEMS = [{"row": {"text": "a good film"}}, {"row": {"text": "a bad film"}}]


def test_a_version_is_loaded_tried_and_asked_and_its_folder_is_gone_with_it(
    workspace: Workspace, films: ModelVersion, run: Run
) -> None:
    runner = run(films.ref)
    tried = try_version(runner, RUNNER_ITEMS, 120)
    assert tried.examples == 2
    assert tried.median_ms
    used = runner.cpu_seconds()
    runner.answer(RUNNER_ITEMS * 20, 60)
    assert (runner.cpu_seconds() or 0) > (used or 0) > 0
    answers = runner.answer([*RUNNER_ITEMS, {"text": "  "}], 60)
    assert [one["output"] for one in answers] == ["good", "bad", None]
    with pytest.raises(AnswerTimeout):
        runner.answer(RUNNER_ITEMS * 500, 0.0)
    with pytest.raises(ProcessDied):
        runner.answer(RUNNER_ITEMS, 60)
    runner.end()
    assert list((workspace.folders.cache / "pool").iterdir()) == []


@pytest.mark.slow
def test_a_version_that_answers_with_numbers_that_are_none_is_unfit(
    workspace: Workspace, films: ModelVersion, run: Run
) -> None:
    ref = version(workspace, films, scaled(float("nan")), "nan")
    with pytest.raises(TrialFailed, match="NaN"):
        try_version(run(ref), RUNNER_ITEMS, 120)


@pytest.mark.slow
def test_a_version_of_which_a_byte_was_changed_is_unfit(workspace: Workspace, films: ModelVersion, run: Run) -> None:
    ref = version(workspace, films, scaled(2.0), "spoiled")
    spoil(workspace, ref)
    with pytest.raises(TrialFailed, match="is not what was sealed"):
        try_version(run(ref), RUNNER_ITEMS, 120)


@pytest.mark.slow
def test_a_version_reads_no_other_file_of_the_workspace(workspace: Workspace, films: ModelVersion, run: Run) -> None:
    """Nor the other versions of its own model."""
    other = version(workspace, films, scaled(2.0), "other")
    runner = run(films.ref)
    there = registry.resolve(workspace.database, workspace.folders, other).path
    runner._about["model"] = str(there)  # as somebody who took the process over would
    with pytest.raises(TrialFailed, match="PermissionError"):
        try_version(runner, RUNNER_ITEMS, 120)


def test_requests_do_not_hurry_the_next_attempt_to_start(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "_RESTART_SECONDS", (60.0, 60.0))
    tried = threading.Semaphore(0)

    def fails() -> FakeProcess:
        tried.release()
        raise ProcessDied

    deployment = make(FakeProcess(target(1)), launch=fails)
    (first,) = ask(deployment, POISON)
    assert tried.acquire(timeout=30)
    for _ in range(20):
        ask(deployment, "hello", seconds=0.0)
    assert not tried.acquire(timeout=0.5)
    deployment.retire(0)
    assert first.exception(30)

"""A version that serves: its sandboxed process (`Runner`), its trial before it gets traffic (`try_version`), and the
queue and thread that hand it inputs in batches (`Replica`).

If a process dies under a batch, it is started again and the inputs of that batch are asked one by one: the input that
ended it fails alone, and all others are answered, later.

Whose fault is a missing answer? An input whose time passed in the queue never reached the model (Overloaded). Once
handed over, an input has as long as a request may take, however long it waited. Only a model that needs more is too
slow (TimeoutError), and its process is ended; a busy queue ends no process.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from speciate.errors import Code, SpeciateError
from speciate.finite import NOT_FINITE, is_finite
from speciate.jobs.pool import SERVICE_MODULE, ServiceAnswer, ask_service
from speciate.sandbox import Limits, SandboxPolicy
from speciate.sandbox.client import Access, AnswerTimeout, OnPart, ProcessDied, SandboxClient
from speciate.serving.deployment_folder import Target
from speciate.serving.items import AnswerPayload, AnswerWord, Item, ItemPrediction, ModelInputs

_RESTART_SECONDS = 1.0, 30.0
"""Seconds between two attempts to start a process that died: at first, and at most."""
_PASSES = 3
_TRIAL_SECONDS, _FEWEST = 10.0, 3
"""A trial ends after so many seconds, once it has tried so many examples."""
_MOST_SHOWN = 300  # characters
LOAD, ANSWER = "speciate.serving.predict_worker:load", "speciate.serving.predict_worker:answer"
_STREAM_SHARE = 0.9
"""Share of the time that a request may take, for the tokens of an answer that leaves while it is written."""
_LONGEST_ANSWER = 256 * 1024 * 1024  # bytes, of a whole batch
_MB = 1024 * 1024
_log = logging.getLogger(__name__)


OnTexts = Callable[[Mapping[int, str]], Collection[int]]
"""Hears what was written of answers since the call before: place of an item -> text, which may be empty. Returns the
places of answers that nobody wants any more."""


class Listener(Protocol):
    """Who waits for one answer and hears it while it is written. Called by the thread of a version."""

    @property
    def gone(self) -> bool:
        """Whether nobody wants the answer any more: then it ends as it is."""
        ...

    def hear(self, text: str) -> None:
        """What was written since the call before; never empty."""
        ...


class LoadableModel(Protocol):
    """As Runner."""

    target: Target

    def load(self, seconds: float) -> None: ...

    def answer(self, items: Sequence[Item], seconds: float, heard: OnTexts | None = None) -> list[ItemPrediction]: ...

    def cpu_seconds(self) -> float | None:
        """Processor seconds that its process has used; None where nobody can tell."""
        ...


class Process(LoadableModel, Protocol):
    """As Runner."""

    def interrupt(self) -> None: ...

    def end(self) -> None: ...


class Full(Exception):
    """Too many inputs wait."""


class Overloaded(Exception):
    """The input's time passed while it waited for its turn: the model never saw it."""


class Retired(Exception):
    """This version serves no more; another does."""


class _Waiting(NamedTuple):
    item: Item
    since: float
    deadline: float
    future: Future[ItemPrediction]
    """Pending while it waits, so that who asked may cancel it; running once the model has it."""
    listener: _ListenerNote | None = None

    @property
    def seconds(self) -> float:
        """Seconds that the model may take for it."""
        return max(0.001, self.deadline - self.since)


class Replica:
    """Thread-safe. `process`: loaded. `launch`: another one of the same version, which is loaded here.
    `heard`: is told of each batch (inputs, seconds) and of each restart of the process (0, seconds that it took).
    `heard_beside`: is told instead of batches in which a request names its own sampling, such as a longer answer: their
    time says nothing of the version.
    """

    def __init__(
        self,
        process: Process,
        launch: Callable[[], Process],
        load_seconds: float,
        batching: Batching,
        queue: int,
        heard: Callable[[int, float], None],
        heard_beside: Callable[[int, float], None] | None = None,
    ) -> None:
        self._process, self._launch, self._load_seconds, self._heard = process, launch, load_seconds, heard
        self._heard_beside = heard_beside or heard
        self._batching, self._most = batching, queue
        self._change = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._answering, self._last = 0, batching.most
        self._retired = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"serve {process.target.model}", daemon=True)
        self._thread.start()

    @property
    def target(self) -> Target:
        return self._process.target

    @property
    def open(self) -> int:
        """Inputs that wait or are being answered."""
        return len(self._waiting) + self._answering

    def submit(
        self, items: Sequence[Item], deadline: float, listener: Listener | None = None
    ) -> list[Future[ItemPrediction]]:
        """A prediction for each, later. In the future may be Overloaded, where `deadline` (monotonic) passes before
        its turn comes, or TimeoutError, where the model had it for as long as there was from now to `deadline`: so that
        may be known only after it. A future that is cancelled before its turn is asked of nobody. `listener`: of the
        only item.

        All of them or none: raises Full or Retired.
        """
        now = time.monotonic()
        note = _ListenerNote(listener) if listener is not None else None
        requests = [_Waiting(item, now, deadline, Future(), note) for item in items]
        with self._change:
            if self._retired:
                raise Retired
            self._drop_late()  # who gave up while the model was busy takes nobody's room
            if len(self._waiting) + len(requests) > self._most and self._waiting:
                raise Full
            self._waiting.extend(requests)
            self._change.notify_all()
        return [one.future for one in requests]

    def retire(self, seconds: float) -> bool:
        """Take nothing more, answer what is open, and free the process. Whether all was answered in time."""
        with self._change:
            self._retired = True
            self._change.notify_all()
        self._thread.join(seconds)
        drained = not self._thread.is_alive()
        if not drained:
            with self._change:
                self._abandoned = True
                self._process.interrupt()
                self._change.notify_all()
            self._thread.join()
        self._process.end()
        return drained

    # The thread

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._answer(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait hear of it and the thread lives
                _log.exception("a batch failed")
                _fail(batch, error)
            with self._change:
                self._answering = 0

    def _next(self) -> list[_Waiting]:
        """The next batch; empty once this version is retired and all is answered."""
        with self._change:
            while True:
                self._drop_late()
                if not self._waiting:
                    if self._retired:
                        return []
                    self._change.wait()
                    continue
                age = time.monotonic() - self._waiting[0].since
                waiting = len(self._waiting)
                rest = 0.0 if self._retired else pause(waiting, age, self._batching, self._last)
                if rest > 0:
                    self._change.wait(rest)
                    continue
                count = min(self._batching.most, len(self._waiting))
                next_ones = [self._waiting.popleft() for _ in range(count)]
                batch = [one for one in next_ones if one.future.set_running_or_notify_cancel()]
                if not batch:
                    continue  # nobody waits for these any more
                self._answering = self._last = len(batch)
                return batch

    def _drop_late(self) -> None:
        now = time.monotonic()
        while self._waiting and (self._waiting[0].deadline <= now or self._abandoned):
            late = self._waiting.popleft().future
            if late.set_running_or_notify_cancel():
                late.set_exception(Overloaded())

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        heard = (partial(_pass_on, batch),) if any(one.listener for one in batch) else ()
        try:
            answers = self._process.answer([one.item for one in batch], max(one.seconds for one in batch), *heard)
        except (ProcessDied, AnswerTimeout) as error:
            self._recover(batch, error)
            return
        except SpeciateError as error:
            _fail(batch, error)
            return
        own = any(one.item.get("generation") for one in batch)
        (self._heard_beside if own else self._heard)(len(batch), time.monotonic() - began)
        for one, answer in zip(batch, answers, strict=True):
            _settle(one, answer)

    def _recover(self, batch: Sequence[_Waiting], error: Exception) -> None:
        if self._abandoned:
            _fail(batch, TimeoutError())
            return
        _log.warning("the process of %s ended under %d inputs: %r", self.target.model, len(batch), error)
        if len(batch) == 1:
            _settle(batch[0], TimeoutError() if isinstance(error, AnswerTimeout) else _process_ended_error())
        restarted = self._start_again()
        if len(batch) > 1:
            for one in batch:
                if not restarted or (one.listener is not None and one.listener.begun):
                    _settle(one, _process_ended_error())  # nobody can be asked, or half of another answer was heard
                elif one.deadline > time.monotonic() and not self._abandoned:
                    self._answer([one])
                else:
                    _settle(one, TimeoutError())

    def _start_again(self) -> bool:
        """Starts the process until it succeeds; False where this version is retired before and nobody waits."""
        began, (gap, longest) = time.monotonic(), _RESTART_SECONDS
        self._process.end()
        while True:
            try:
                process = self._launch()
                with self._change:
                    self._process = process  # `retire` interrupts it from here on
                    if self._abandoned:
                        return False
                process.load(self._load_seconds)
            except Exception:  # noqa: BLE001 - the next attempt may succeed
                _log.exception("%s could not be started again", self.target.model)
                self._process.end()
                if not self._rest(gap):
                    return False
                gap = min(2 * gap, longest)
            else:
                self._heard(0, time.monotonic() - began)
                return True

    def _rest(self, seconds: float) -> bool:
        """Whether the next attempt is due, after so long: what is submitted meanwhile wakes nobody sooner. False: it is
        not wanted any more."""
        due = time.monotonic() + seconds
        with self._change:
            while True:
                self._drop_late()
                if self._abandoned or (self._retired and not self._waiting):
                    return False
                if (left := due - time.monotonic()) <= 0:
                    return True
                self._change.wait(left)


class _ListenerNote:
    """A listener, and whether it has heard something."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self.begun = listener, False

    @property
    def gone(self) -> bool:
        return self._listener.gone

    def hear(self, text: str) -> None:
        self.begun = True
        self._listener.hear(text)


def _pass_on(batch: Sequence[_Waiting], texts: Mapping[int, str]) -> set[int]:
    gone = set()
    for place, text in texts.items():
        listener = batch[place].listener
        if listener is not None and listener.gone:
            gone.add(place)
        elif listener is not None and text:
            try:
                listener.hear(text)
            except Exception:  # noqa: BLE001 - who asks beside it, and the process, must not suffer
                _log.exception("an answer cannot be passed on")
                gone.add(place)
    return gone


def _settle(one: _Waiting, answer: ItemPrediction | Exception) -> None:
    """Gives one that was handed over its answer, or the error."""
    if isinstance(answer, Exception):
        one.future.set_exception(answer)
    else:
        one.future.set_result(answer)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.future.done():
            _settle(one, error)


def _process_ended_error() -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        "The model's process ended on this input: it needed too much memory, or it crashed.",
        "Send a smaller input.",
    )


class Batching(NamedTuple):
    most: int
    """Inputs of one batch."""
    wait: float
    """Seconds that the oldest input waits for a full batch."""


def pause(waiting: int, oldest_age: float, batching: Batching, last: int) -> float:
    """Seconds until a batch should go, if nothing more comes; 0: now. Pure.

    `waiting` inputs, 1 at least; `last`: how many the batch before had. Inputs that came while the model was busy go
    together at once: under load batches form by themselves. An input that finds the model idle waits for others only if
    the last batch had several: a client that sends one request after another is never delayed.
    """
    if waiting >= batching.most or (waiting == last == 1):
        return 0.0
    return max(0.0, batching.wait - oldest_age)


class TrialFailed(Exception):
    """The version gets no traffic; the text says why. `detail` may quote an example: for the log alone, which a purge
    empties."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.detail = detail


class TrialResult(NamedTuple):
    load_seconds: float
    examples: int
    median_ms: float | None
    """None where there were no examples."""


def warmup_examples(folder: Path, target: Target) -> list[Item]:
    """What it is tried on; none where they are gone."""
    if target.warmup is None:
        return []
    try:
        items: list[Item] = json.loads((folder / target.warmup).read_bytes())
    except (OSError, ValueError):
        return []
    return items


def try_version(runner: LoadableModel, items: Sequence[Item], seconds: float) -> TrialResult:
    """Load the version and try it on `items`, one at a time as clients will ask, all within so many seconds.

    Raises TrialFailed if it cannot be loaded, fails an example, answers NaN or infinity, or is slower than its use case
    allows. Other work on the machine only adds to a measured time. So an answer takes the lesser of clock and processor
    time, an example the fastest of its answers, and the median of these must keep the limit. Finer judgements are
    evaluation's.
    """
    began = time.monotonic()
    try:
        runner.load(seconds)
        loaded = time.monotonic() - began
        quickest = _fastest_answers(runner, items, began + seconds)
    except SpeciateError as error:
        raise TrialFailed(_clip(f"it could not be loaded: {error}")) from error
    except ProcessDied:
        raise TrialFailed(
            "its process ended while it was loaded or tried: it crashed, or needed too much memory"
        ) from None
    except AnswerTimeout:
        raise TrialFailed(f"it was not loaded and tried within {seconds:g} s") from None
    median = statistics.median(quickest.values()) if quickest else None
    limit = runner.target.slowest_ms
    if median is not None and limit is not None and median > limit:
        raise TrialFailed(
            f"it is too slow: half of its answers take {median:.3g} ms or more, and the limit is {limit:g} ms"
        )
    return TrialResult(loaded, len(quickest), median)


def _fastest_answers(runner: LoadableModel, items: Sequence[Item], deadline: float) -> dict[int, float]:
    """Place of an example -> milliseconds of its quickest answer; not all of them where that takes too long."""
    quickest: dict[int, float] = {}
    enough = time.monotonic() + _TRIAL_SECONDS
    for _ in range(_PASSES):
        for place, item in enumerate(items):
            at, used = time.monotonic(), runner.cpu_seconds()
            if at > enough and len(quickest) >= min(_FEWEST, len(items)):
                return quickest
            [answer] = runner.answer([item], max(0.0, deadline - at))
            took = 1000 * min(time.monotonic() - at, _since(used, runner.cpu_seconds()))
            quickest[place] = min(took, quickest.get(place, took))
            _check_answer(answer)
    return quickest


def _since(before: float | None, after: float | None) -> float:
    """Infinite where it is not known: what a thread used that has ended is in no sum any more."""
    return after - before if before is not None and after is not None and after >= before else math.inf


def _check_answer(answer: ItemPrediction) -> None:
    numbers = is_finite(answer.get("output")) and is_finite(answer.get("confidence"))
    if answer.get("error") == NOT_FINITE or not numbers:
        raise TrialFailed("it answers with NaN or infinite numbers")
    if error := answer.get("error"):
        raise TrialFailed(
            "it cannot answer an example that it was trained on; the deployment's log says why", _clip(error)
        )


def _clip(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class Runner:
    """One version in a sandboxed process of its own, which decodes the inputs and runs the model.

    Call `load` before `answer`, and `end` in any case. The process reads the version's folder and installed packages,
    has no network and no other file of the workspace, and dies with the deployment. Its end frees the version's memory.
    It speaks the protocol of the service pool. Not thread-safe: one question at a time.
    """

    def __init__(self, root: Path, scratch: Path, target: Target, memory_mb: int, policy: SandboxPolicy) -> None:
        self.target = target
        limits = Limits(memory_mb=memory_mb + 2 * target.bytes // _MB, file_mb=768)
        folder = root / target.path
        access = Access((folder,), limits, code=False, longest_answer=_LONGEST_ANSWER)
        self._client = SandboxClient(SERVICE_MODULE, scratch, policy, access, str(root))
        self._about: ModelInputs = {
            "model": str(folder),
            "modality": target.modality,
            "inputs": list(target.inputs),
            "parts": list(target.parts),
            "ignored_parts": list(target.ignored_parts),
        }

    @property
    def pid(self) -> int:
        return self._client.pid

    def load(self, seconds: float) -> None:
        """Raises what loading raised, ProcessDied or AnswerTimeout."""
        self._ask(LOAD, {"model": self._about["model"]}, seconds)

    def answer(self, items: Sequence[Item], seconds: float, heard: OnTexts | None = None) -> list[ItemPrediction]:
        """Predictions of these items in their order. Raises ProcessDied or AnswerTimeout. `heard`: hears the answers of
        chats while they are written; those that leave so end a little before their time does.

        NaN or infinity spoils its item: JSON has no such numbers.
        """
        numbered: list[Item] = [{**item, "id": str(place)} for place, item in enumerate(items)]
        payload: AnswerPayload = {**self._about, "items": numbered}  # type: ignore[typeddict-item]  # `seconds` may miss
        if heard is not None:
            payload["seconds"] = seconds * _STREAM_SHARE
        answer, odd = self._ask(ANSWER, payload, seconds, partial(_on_part, heard, len(items)) if heard else None)
        found: list[ItemPrediction] = answer["predictions"]
        if len(found) != len(items):
            raise ProcessDied
        return [_check_prediction(one) for one in found] if odd else found

    def cpu_seconds(self) -> float | None:
        """Processor seconds that all of its threads have used, by the scheduler's count in nanoseconds (Linux)."""
        try:
            threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
            return sum(int(one.read_text().split()[0]) for one in threads) / 1e9 or None
        except (OSError, ValueError, IndexError):  # a thread that ended meanwhile, too
            return None

    def interrupt(self) -> None:
        """Kill the process under whoever waits for its answer, from any thread; `end` must follow."""
        self._client.interrupt()

    def end(self) -> None:
        self._client.end()

    def _ask(
        self, service: str, payload: Mapping[str, object], seconds: float, on_part: OnPart | None = None
    ) -> tuple[ServiceAnswer, bool]:
        """The answer, and whether there is a NaN or infinite number in it."""
        odd: list[str] = []

        def constant(name: str) -> float:
            odd.append(name)
            return float(name)

        return ask_service(self._client, service, payload, seconds, constant, on_part), bool(odd)


def _on_part(heard: OnTexts, items: int, part: Any) -> AnswerWord | None:
    """Raises ProcessDied for what is no part: it comes from a process that met foreign bytes."""
    texts = part.get("texts") if isinstance(part, dict) else None
    if not isinstance(texts, list) or not all(_is_piece(each, items) for each in texts):
        raise ProcessDied
    gone = heard(dict(texts))
    return {"stop": sorted(gone)} if gone else None


def _is_piece(value: Any, items: int) -> bool:
    match value:
        case [int(place), str()]:
            return 0 <= place < items
        case _:
            return False


def _check_prediction(prediction: ItemPrediction) -> ItemPrediction:
    if is_finite(prediction.get("output")) and is_finite(prediction.get("confidence")):
        return prediction
    return {**prediction, "output": None, "confidence": None, "error": NOT_FINITE}

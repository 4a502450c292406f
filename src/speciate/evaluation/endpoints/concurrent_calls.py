"""Many calls of one endpoint: as many at once as it bears, each repeated while that may help, none beyond the budget.

    requests -> begun (budget, pace) -> attempt -> answered: recorded
                                                -> rate limit, fault: waits, then another attempt
                                                -> an error for every request: the calls end

One coroutine decides and records; attempts only talk. So every reply is recorded before the next call begins, and a
kill loses at most the calls that are in flight.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import anyio

from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints import concurrency
from speciate.evaluation.endpoints.chat_client import Chat, Dialect, Outcome, Reply, Request, Timeouts
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.pricing import Price, Usage, at_most, price_of
from speciate.jobs.egress import Permit
from speciate.models.endpoints import Endpoint
from speciate.workspace.clock import Clock, SystemClock

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


_POLL_S = 0.1
"""How often `stopping` is asked."""
_GRACE_S = 0.7
"""How long calls in flight may take to end after a stop."""


class Limits(NamedTuple):
    """How many calls an endpoint gets, and how persistent they are. None of it changes an answer."""

    bounds: Bounds = Bounds()
    timeouts: Timeouts = Timeouts()
    attempts: int = 6
    """Most attempts at one request; one that a rate limit refused does not count."""
    backoff_s: float = 1.0
    """Seconds before the second attempt, on average; they double with each."""
    longest_backoff_s: float = 30.0
    patience_s: float = 600.0
    """If nothing was answered for so long and a rate limit still stands, the calls end."""
    first_faults: int = 12
    """Faults before any answer that end the calls."""
    failures_in_a_row: int = 20
    """Requests in a row without an answer that end the calls."""


class Budget(NamedTuple):
    """`usd` None: no cap. `spent`: what counts against it already."""

    usd: float | None = None
    spent: float = 0.0


_USUAL, _NO_CAP = Limits(), Budget()


class CallSummary(NamedTuple):
    """Counts and costs of all calls; JSON-able."""

    answered: int
    failed: int
    """Recorded with an error."""
    unanswered: int
    """Requests that are not recorded, since the calls were stopped."""
    calls: int
    retries: int
    rate_limits: int
    usd: float | None
    """Cost in US dollars of the calls whose cost is known; None without a price."""
    usd_at_most: float | None
    """US dollars with the worst case of calls that may have cost something without reporting it."""
    served_models: dict[str, int]
    """How many answers each gave, by the name that the endpoint gave it, the first one seen first."""

    @property
    def changed(self) -> bool:
        """Whether more than one model served."""
        return len(self.served_models) > 1


class BudgetSpent(SpeciateError):
    """REFUSED: the next call could exceed the budget. Recorded replies stay."""


def ask_all(
    endpoint: Endpoint,
    requests: Sequence[Request],
    *,
    key: str | None,
    record: Callable[[int, Reply], None],
    begin: Callable[[int, float], None] = lambda place, worst: None,
    stopping: Callable[[], bool] = lambda: False,
    spending: Callable[[float], None] = lambda usd: None,
    budget: Budget = _NO_CAP,
    limits: Limits = _USUAL,
    seed: int = 0,
    clock: Clock | None = None,
    private_hosts: Collection[str] = (),
    permit: Permit | None = None,
) -> CallSummary:
    """Send all requests, and `record(place, reply)` each reply as soon as it arrives, one at a time, in this thread.

    `begin(place, worst)` is called before a request is first sent, with what an attempt costs at most: a request that
    was begun and never recorded was lost to a kill. `spending(usd)` is called before each attempt and after it, with
    the USD of these calls so far, calls in flight at their worst case.
    `requests[place]` is read when its turn comes, so a sequence may make its requests then. Ends within a second
    once `stopping()`: requests unanswered then are not recorded. An exception of `record` ends it, and is raised.

    `permit`: `run.permit(endpoint.host)`. Raises SpeciateError where it lacks for a host that is not this machine, if
    the key or the model is wrong, if the endpoint answers nobody, if it is on this machine or
    at a private address and not among `private_hosts`, or if there is a budget and the price is unknown; BudgetSpent if
    the budget is spent. Recorded replies stay.
    """
    price = price_of(endpoint)
    if budget.usd is not None and price is None and not endpoint.is_local:
        raise SpeciateError(
            Code.INVALID,
            f"budget_usd is set, but what {endpoint.model!r} at {endpoint.host} costs is not known.",
            "Register it with usd_per_1m_input and usd_per_1m_output, or install the published prices: "
            "pip install 'speciate[endpoints]'.",
        )
    loop = _CallLoop(
        endpoint,
        requests,
        begin,
        record,
        stopping,
        _BudgetCounter(budget, price, spending),
        limits,
        seed,
        clock or SystemClock(),
        private_hosts,
        permit,
    )
    try:
        anyio.run(loop.run, key)
    except BaseExceptionGroup as group:  # of `record` or `requests`, or a request to stop that came in between
        raise _first(group) from None
    if loop.end is not None:
        raise loop.end
    return loop.summary()


def _first(group: BaseExceptionGroup) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _BudgetCounter:
    """The USD that were spent, and that calls in flight may yet cost. `spending` is told of each change."""

    def __init__(self, budget: Budget, price: Price | None, spending: Callable[[float], None]) -> None:
        self._cap, self._before = budget.usd, budget.spent
        self._price, self._spending = price, spending
        self.known_usd = self.doubtful_usd = self._reserved = 0.0

    @property
    def has_price(self) -> bool:
        return self._price is not None

    @property
    def spent(self) -> float:
        return self._before + self.known_usd + self.doubtful_usd

    def worst(self, request: Request) -> float:
        return self._price.usd(at_most(request)) if self._price else 0.0

    def reserve(self, worst: float) -> bool:
        """Whether there is money for it."""
        if self._cap is not None and self.spent + self._reserved + worst > self._cap:
            return False
        self._reserved += worst
        self._spending(self.known_usd + self.doubtful_usd + self._reserved)
        return True

    def settle(self, worst: float, outcome: Outcome) -> float | None:
        """What the attempt cost, as far as it is known."""
        usd = self._settle(worst, outcome)
        self._spending(self.known_usd + self.doubtful_usd + self._reserved)
        return usd

    def _settle(self, worst: float, outcome: Outcome) -> float | None:
        self._reserved -= worst
        reply = outcome.reply
        if self._price is None:
            return None
        if reply.input_tokens is not None and reply.output_tokens is not None:
            cached = min(reply.cached_tokens or 0, reply.input_tokens)
            usd = self._price.usd(Usage(reply.input_tokens, reply.output_tokens, cached))
            self.known_usd += usd
            return usd
        if outcome.may_cost or outcome.kind in ("answer", "unusable"):
            self.doubtful_usd += worst
        return None

    def lose(self, worst: float) -> None:
        """The attempt was given up, so its cost stays unknown."""
        self._reserved -= worst
        self.doubtful_usd += worst


class _PendingCall:
    """A request that was begun and is not recorded yet."""

    def __init__(self, place: int, request: Request, worst: float) -> None:
        self.place, self.request, self.worst = place, request, worst
        self.attempts = 0
        self.faults = 0
        self.usd: float | None = None
        """Cost in US dollars of all its attempts so far, as far as it is known."""
        self.doubtful_usd = 0.0
        """The worst case of the others."""
        self.dialect: Dialect | None = None
        """The request's own dialect while it finds out what the endpoint knows; None: that of all calls."""
        self.used = Dialect()
        self.sent = 0.0


class _CallLoop:
    def __init__(
        self,
        endpoint: Endpoint,
        requests: Sequence[Request],
        begin: Callable[[int, float], None],
        record: Callable[[int, Reply], None],
        stopping: Callable[[], bool],
        budget: _BudgetCounter,
        limits: Limits,
        seed: int,
        clock: Clock,
        private_hosts: Collection[str],
        permit: Permit | None,
    ) -> None:
        self._endpoint, self._requests, self._stopping = endpoint, requests, stopping
        self._begin, self._record = begin, record
        self._budget, self._limits, self._clock = budget, limits, clock
        self._private_hosts, self._permit = private_hosts, permit
        self._random = random.Random(seed)
        self._pace = concurrency.first_pace(limits.bounds)
        self._next = 0
        self._waiting: list[tuple[float, int, _PendingCall]] = []
        """A heap: when its next attempt is due."""
        self._flying: dict[int, _PendingCall] = {}
        self._landed: deque[tuple[_PendingCall, Outcome]] = deque()
        self._dialect, self._is_understood = Dialect(), False
        self._in_a_row = self._faults = 0
        self._answered_at = self._clock.monotonic()
        self._answered = self._failed = self._calls = self._retries = self._rate_limits = 0
        self._served: Counter[str] = Counter()
        self.end: SpeciateError | None = None

    def summary(self) -> CallSummary:
        known = self._budget.has_price
        return CallSummary(
            answered=self._answered,
            failed=self._failed,
            unanswered=len(self._requests) - self._answered - self._failed,
            calls=self._calls,
            retries=self._retries,
            rate_limits=self._rate_limits,
            usd=self._budget.known_usd if known else None,
            usd_at_most=self._budget.known_usd + self._budget.doubtful_usd if known else None,
            served_models=dict(self._served),
        )

    async def run(self, key: str | None) -> None:
        self._woken = anyio.Event()
        limits = self._limits
        async with (
            Chat(
                self._endpoint, key, limits.timeouts, limits.bounds.most, self._clock, self._private_hosts, self._permit
            ) as chat,
            anyio.create_task_group() as group,
        ):
            await self._drive(chat, group)
            group.cancel_scope.cancel()
        self._land()  # what came in while the others were cancelled
        for work in self._flying.values():
            self._budget.lose(work.worst)

    async def _drive(self, chat: Chat, group: TaskGroup) -> None:
        looked = -math.inf
        while True:
            self._land()
            now = self._clock.monotonic()
            if now - looked >= _POLL_S:
                looked = now
                if self._stopping():
                    return await self._finish()
            if self.end is not None:
                return await self._finish()
            due = self._launch(chat, group, now)
            if due is None:
                return None
            await self._wait(min(due, looked + _POLL_S) - self._clock.monotonic())

    def _launch(self, chat: Chat, group: TaskGroup, now: float) -> float | None:
        """Begin calls. Returns when to look again even if nothing landed; None: all requests are recorded."""
        if now < self._pace.held_until:
            return self._pace.held_until
        while len(self._flying) < self._pace.limit:
            if self._waiting and self._waiting[0][0] <= now:
                work = self._waiting[0][2]
                if not self._budget.reserve(work.worst):
                    break
                heapq.heappop(self._waiting)
                self._retries += 1
            elif self._next < len(self._requests) and len(self._flying) + len(self._waiting) < self._pace.limit:
                request = self._requests[self._next]
                work = _PendingCall(self._next, request, self._budget.worst(request))
                if not self._budget.reserve(work.worst):
                    break
                self._begin(self._next, work.worst)
                self._next += 1
            else:
                return self._idle()
            self._calls += 1
            work.attempts += 1
            work.sent = now
            work.used = work.dialect or self._dialect
            self._flying[work.place] = work
            group.start_soon(self._attempt, chat, work)
        else:
            return math.inf
        if self._flying:  # they may cost less than was reserved for them
            return math.inf
        if self._waiting and self._waiting[0][0] > now:
            return self._waiting[0][0]
        self.end = self._spent()
        return now

    def _idle(self) -> float | None:
        """When there will be something to do; None: never again."""
        if self._waiting:
            return self._waiting[0][0]
        return math.inf if self._flying or self._landed else None

    async def _attempt(self, chat: Chat, work: _PendingCall) -> None:
        outcome = await chat.ask(work.request, work.used)
        self._landed.append((work, outcome))
        self._woken.set()

    async def _wait(self, seconds: float) -> None:
        if self._landed:
            return
        self._woken = anyio.Event()
        with anyio.move_on_after(max(0.0, seconds)):
            await self._woken.wait()

    async def _finish(self) -> None:
        """Calls in flight may end; they are paid for."""
        until = self._clock.monotonic() + _GRACE_S
        while self._flying and (left := until - self._clock.monotonic()) > 0:
            await self._wait(left)
            self._land()

    def _land(self) -> None:
        in_flight = len(self._flying)
        while self._landed:
            work, outcome = self._landed.popleft()
            del self._flying[work.place]
            doubtful = self._budget.doubtful_usd
            usd = self._budget.settle(work.worst, outcome)
            work.doubtful_usd += self._budget.doubtful_usd - doubtful
            if usd is not None:
                work.usd = (work.usd or 0.0) + usd
            self._handle(work, outcome, in_flight, self._clock.monotonic())

    def _handle(self, work: _PendingCall, outcome: Outcome, in_flight: int, now: float) -> None:
        bounds = self._limits.bounds
        match outcome.kind:
            case "answer" | "unusable":
                self._pace = concurrency.after_answer(self._pace, bounds, in_flight=in_flight, now=now)
                self._answered_at = now
                if not self._is_understood:
                    self._dialect, self._is_understood = work.used, True
                self._keep(work, outcome.reply)
            case "rate_limit":
                self._rate_limits += 1
                after = outcome.retry_after_s
                self._pace = concurrency.after_rate_limit(
                    self._pace, bounds, sent=work.sent, now=now, retry_after_s=after
                )
                # Not all of them in the same instant.
                self._again(work, self._pace.held_until + self._random.random() * self._limits.backoff_s)
                if now - self._answered_at > self._limits.patience_s:
                    self.end = self.end or _rate_limit_error(self._endpoint, now - self._answered_at)
            case "transient":
                self._pace = concurrency.after_failure(self._pace, bounds, now=now)
                work.faults += 1
                self._faults += 1
                if not self._answered and self._faults >= self._limits.first_faults:
                    self.end = self.end or _no_answers_error(self._endpoint, self._faults, outcome.reply)
                if work.faults >= self._limits.attempts:
                    self._keep(work, outcome.reply)
                else:
                    self._again(work, now + self._backoff(work.faults))
            case "refused":
                work.dialect = self._simpler(work, outcome.blamed)
                if work.dialect:
                    self._again(work, now)
                else:
                    self._keep(work, outcome.reply)
            case "forbidden" if self._answered:  # the key is good: it is about this prompt
                self._keep(work, outcome.reply)
            case "forbidden" | "fatal":
                self.end = self.end or _fatal_error(self._endpoint, outcome.reply)

    def _simpler(self, work: _PendingCall, blamed: str | None) -> Dialect | None:
        """The dialect to try next. After the first answer it is settled."""
        if not self._is_understood:
            return work.used.simpler(work.request, blamed)
        return self._dialect if work.used != self._dialect else None

    def _keep(self, work: _PendingCall, reply: Reply) -> None:
        at_most = (work.usd or 0.0) + work.doubtful_usd if self._budget.has_price else None
        reply = reply._replace(attempts=work.attempts, usd=work.usd, usd_at_most=at_most)
        self._record(work.place, reply)
        if reply.error is None:
            self._answered += 1
        else:
            self._failed += 1
        if reply.served_model is not None and reply.status == 200:
            self._served[reply.served_model] += 1
        self._in_a_row = self._in_a_row + 1 if reply.status != 200 or reply.retryable else 0
        if self._in_a_row >= self._limits.failures_in_a_row:
            self.end = self.end or _no_answers_error(self._endpoint, self._in_a_row, reply)

    def _again(self, work: _PendingCall, due: float) -> None:
        heapq.heappush(self._waiting, (due, work.place, work))

    def _backoff(self, faults: int) -> float:
        """Exponential, with jitter around its mean so that calls that failed together do not come back together."""
        mean = min(self._limits.backoff_s * 2.0 ** (faults - 1), self._limits.longest_backoff_s)
        return mean * (0.5 + self._random.random())

    def _spent(self) -> SpeciateError:
        left = len(self._requests) - self._answered - self._failed
        return BudgetSpent(
            Code.REFUSED,
            f"The budget is spent: ${self._budget.spent:.4f} so far, and the next call to {self._endpoint.model!r} "
            f"could exceed it. {left} of {len(self._requests)} are still unanswered.",
            "Call again with a greater budget_usd: recorded answers are kept and not asked again.",
        )


def _fatal_error(endpoint: Endpoint, reply: Reply) -> SpeciateError:
    where = f"{endpoint.model!r} at {endpoint.host}"
    status = reply.status or 0
    if status in (401, 403):
        named = f"the key {endpoint.secret!r}" if endpoint.secret else "being asked without a key"
        store = f"speciate secret set {endpoint.secret or 'NAME'} --host {endpoint.host}"
        return SpeciateError(
            Code.REFUSED,
            f"{where} refuses {named} (HTTP {status}).",
            f"A person stores a valid one: `{store}`. Then call again: recorded answers are kept and not asked again.",
        )
    if status == 404:
        return SpeciateError(
            Code.NOT_FOUND,
            f"There is no model {where} (HTTP 404).",
            "Call register_model again with the model's name as its provider writes it, and a base_url that ends "
            "before /chat/completions.",
        )
    if status < 400:
        return SpeciateError(
            Code.INVALID,
            f"{endpoint.host} answers with a redirect (HTTP {status}), which is not followed: a key must not travel.",
            "Call register_model again with the base_url of the host that answers.",
        )
    return SpeciateError(
        Code.REFUSED,
        f"{where} has no credit left for this key (HTTP {status}).",
        "Add credit with the provider, then call again: recorded answers are kept and not asked again.",
    )


def _no_answers_error(endpoint: Endpoint, count: int, reply: Reply) -> SpeciateError:
    """What an endpoint says is foreign text: it is in the recorded replies, not here."""
    why = reply.error if reply.status in (None, 200) else f"HTTP {reply.status}"
    where = f"{endpoint.model!r} at {endpoint.host}"
    if reply.retryable:
        return SpeciateError(
            Code.UNAVAILABLE,
            f"{where} gave no answer to {count} requests in a row; to the last: {why}.",
            "Call again when it is up: recorded answers are kept and not asked again.",
        )
    return SpeciateError(
        Code.INVALID,
        f"{where} refused {count} requests in a row; the last with {why}.",
        "Its words are with the recorded answers. Change what it refuses and call again: some models take no "
        "prompt.temperature (set it to null), no images, no audio, or fewer max_tokens.",
    )


def _rate_limit_error(endpoint: Endpoint, seconds: float) -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        f"{endpoint.model!r} at {endpoint.host} has answered nothing but rate limits for {seconds:.0f} s.",
        "Call again later, or raise the limit with the provider: recorded answers are kept and not asked again.",
    )

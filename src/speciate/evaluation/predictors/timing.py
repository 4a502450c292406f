"""What an answer costs: latency one example at a time on a warm model, and processor time in a batch.

Cost is processor time times a price per core-hour. On a busy machine even processor time drifts, by a factor of two
within minutes, so models are measured by turns: each turn measures all of them, in an order that alternates, and two
are compared within turns. Turns end early once no decision could change by more of them. Latency is wall time, so it
says which device it was measured on and is never compared across devices. Between timings a piece of reference work is
timed by both clocks: how often it waited for the processor says how many timings other work delayed, and so whether a
p95 is that of a free machine.

Nothing is read from the feature cache here: production has not seen its examples before either.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.environment import cores, processor
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.cost_difference import DEARER, LEAST_TURNS, LEAST_USD, interval_of_turns
from speciate.evaluation.endpoints.pricing import usd_for
from speciate.evaluation.payload import UNLIMITED, CostLimits
from speciate.evaluation.statistics import quantile_interval
from speciate.tasks.task import Prediction

_WARM_UP, _SECONDS, _BATCH = 3, 10.0, 64
_TIMINGS = 72
"""The fewest that bound a p95 from above, where no limit of it may decide."""
_FIRST_TIMINGS, _ALL_TIMINGS = 76, 132
"""Beside a limit: if none of the first takes longer, the p95 is within it; else all of these are made. A p95 at the
limit passes in 2.5 of 100 measurements at most, both looks together."""
_MOST_TURNS, _TURN_SECONDS = 15, 0.02
"""Processor seconds of a turn, at least: what the clock can tell."""
_CLOSE, _CLOSE_TURNS, _KNOWN_LEVEL = 1.05, 5, 0.999
"""What lies at a bound is measured to this factor, in so many turns at least. The level is stricter than that of the
reported intervals: looking after each turn finds a narrow one by luck."""
_SLOW_BATCH, _SLOW_TURNS = 0.5, 4.0
"""Processor seconds beyond which a batch is cut, and of all turns of a model beyond which fewer are made."""
_REFERENCE = 25_000
"""Additions: about a millisecond."""
_WAITED = 1.2
"""Wall over processor time of reference work from which on it waited."""


class TimedModel(NamedTuple):
    """A loaded model with the examples that it answers without an error.

    `usd_per_core_hour` None: it runs in another process, whose processor time is not known.
    """

    ask: Callable[[Sequence[Example]], Sequence[Prediction]]
    examples: Sequence[Example]
    usd_per_core_hour: float | None


def measure_by_turns(
    models: Sequence[TimedModel], *, latency: bool, limits: CostLimits = UNLIMITED, seed: int = 0
) -> list[Cost]:
    """Costs of all models, each measured once in every turn, as closely as decisions need: cost_difference.py and the
    limits. Latency: 72 times a model, beside a limit 76 or 132 times, 10 seconds a model at most."""
    drawn = [_draw(model.examples, seed) for model in models]
    for model, examples in zip(models, drawn, strict=True):
        for example in examples[:_WARM_UP]:
            model.ask([example])
    usd = _usd_by_turns(models, drawn, limits.usd_per_1k)
    times, waits = _latencies(models, drawn, limits.p95_ms) if latency else ([[]] * len(models), [])
    return [_cost(turns, timings, waits) for turns, timings in zip(usd, times, strict=True)]


class ReferenceTime(NamedTuple):
    """Seconds by either clock."""

    wall: float
    processor: float


def delayed_share(milliseconds: float, waits: Sequence[ReferenceTime]) -> float | None:
    """The share of answers of this length that other work delays, by how often it delayed the reference work: a piece k
    times as long waits k times as often. None where nothing was measured."""
    worked = 1000 * float(np.median([each.processor for each in waits])) if waits else 0.0
    if worked <= 0:
        return None
    share = sum(each.wall > _WAITED * each.processor for each in waits) / len(waits)
    return float(1 - (1 - share) ** max(1.0, milliseconds / worked))


def _cost(turns: Sequence[float], times: Sequence[float], waits: Sequence[ReferenceTime]) -> Cost:
    usd = float(np.median(turns)) if turns else None
    return Cost(
        usd,
        float(np.median(times)) if times else None,
        quantile_interval(times, 0.95) if times else None,
        device(),
        usd_turns=tuple(turns),
        usd_interval=interval_of_turns(turns),
        busy=delayed_share(float(np.median(times)), waits) if times else None,
    )


def _draw(examples: Sequence[Example], seed: int) -> list[Example]:
    places = np.random.default_rng(seed).permutation(len(examples))[: max(_ALL_TIMINGS, _BATCH)]
    return [examples[place] for place in places]


def device() -> str:
    """The processor's name and the number of its cores that this process may use."""
    return f"{_processor()}, {cores()} cores"


class _Batch(NamedTuple):
    examples: Sequence[Example]
    times: int
    """How often it is asked in a turn."""
    seconds: float
    """Processor time of the batch in a turn, as far as the first time that it was asked tells."""
    is_turn: bool
    """Whether that first time was a turn: it is asked once in each, with all of its examples."""


def _usd_by_turns(
    models: Sequence[TimedModel], drawn: Sequence[Sequence[Example]], most: float | None
) -> list[list[float]]:
    """USD per 1,000 answers of each model in each turn; none where its processor time is not known."""
    batches = {
        place: _batch(model, examples[:_BATCH])
        for place, (model, examples) in enumerate(zip(models, drawn, strict=True))
        if model.usd_per_core_hour is not None
    }
    found: list[list[float]] = [[] for _ in models]
    longest = max((batch.seconds for batch in batches.values()), default=0.0)
    turns = min(_MOST_TURNS, max(LEAST_TURNS, int(_SLOW_TURNS / longest))) if longest else 0
    for turn in range(turns):
        for place in sorted(batches, reverse=turn % 2 == 1):
            model, batch = models[place], batches[place]
            seconds = batch.seconds if batch.is_turn and not turn else _ask_batch(model, batch.examples, batch.times)
            each = seconds / (batch.times * len(batch.examples))
            found[place].append(1000 * usd_for(each, model.usd_per_core_hour or 0.0))
        if turn + 1 >= LEAST_TURNS and are_known([found[place] for place in batches], most):
            break
    return found


def are_known(costs: Sequence[Sequence[float]], most: float | None = None) -> bool:
    """Whether more turns would change no decision. `costs`: of each model by turn; `most`: what a use case allows.

    The interval of each cost that is reported is a quarter wide at most, and on which side of `most` it lies is known;
    of each two it is known whether either is dearer (cost_difference.py). What stays in doubt at 5 % is near the bound,
    and is left so.
    """
    if not any(map(any, costs)):
        return True  # this machine's time costs nothing
    return all(_is_known(turns, most) for turns in costs) and all(
        _is_dearer_known(*pair) and _is_dearer_known(*pair[::-1]) for pair in combinations(costs, 2)
    )


def _is_known(turns: Sequence[float], most: float | None) -> bool:
    shown, surely = interval_of_turns(turns), interval_of_turns(turns, _KNOWN_LEVEL)
    if shown is None or surely is None or shown[1] > DEARER**2 * shown[0]:
        return False
    in_doubt = most is not None and surely[0] <= most < surely[1]
    return not in_doubt or (len(turns) >= _CLOSE_TURNS and surely[1] <= _CLOSE**2 * surely[0])


def _is_dearer_known(turns: Sequence[float], others: Sequence[float]) -> bool:
    mine, theirs = interval_of_turns(turns, _KNOWN_LEVEL), interval_of_turns(others, _KNOWN_LEVEL)
    ratio = interval_of_turns([a / b for a, b in zip(turns, others, strict=True)], _KNOWN_LEVEL)
    if mine is None or theirs is None or ratio is None:
        return False
    if ratio[1] <= DEARER or mine[1] - theirs[0] <= LEAST_USD:
        return True  # it is not
    if ratio[0] > DEARER and mine[0] - theirs[1] > LEAST_USD:
        return True  # it is
    return len(turns) >= _CLOSE_TURNS and ratio[1] <= _CLOSE**2 * ratio[0]


def _batch(model: TimedModel, examples: Sequence[Example]) -> _Batch:
    seconds, is_whole = max(_ask_batch(model, examples, 1), 1e-6), True
    if seconds > _SLOW_BATCH:
        kept = max(1, int(len(examples) * _SLOW_BATCH / seconds))
        examples, seconds, is_whole = examples[:kept], seconds * kept / len(examples), kept == len(examples)
    times = max(1, min(1000, math.ceil(_TURN_SECONDS / seconds)))
    return _Batch(examples, times, seconds * times, is_whole and times == 1)


def _ask_batch(model: TimedModel, examples: Sequence[Example], times: int) -> float:
    """Processor seconds."""
    begin = time.process_time()
    for _ in range(times):
        model.ask(examples)
    return time.process_time() - begin


def _latencies(
    models: Sequence[TimedModel], drawn: Sequence[Sequence[Example]], most: float | None
) -> tuple[list[list[float]], list[ReferenceTime]]:
    """Milliseconds per example of each model, and the times of the reference work between them. `most`: the limit of
    the p95.

    Few examples are asked again, so that small test sets have a p95, too.
    """
    times: list[list[float]] = [[] for _ in models]
    waits: list[ReferenceTime] = []
    begin, seconds = time.perf_counter(), _SECONDS * len(models)
    while _lacks_timings(times, most) and (not times[-1] or time.perf_counter() - begin < seconds):
        waits.append(_reference_work())
        for place, (model, examples) in enumerate(zip(models, drawn, strict=True)):
            example = examples[len(times[place]) % len(examples)]
            start = time.perf_counter()
            model.ask([example])
            times[place].append(1000 * (time.perf_counter() - start))
    return times, waits


def _lacks_timings(times: Sequence[Sequence[float]], most: float | None) -> bool:
    count = len(times[-1])
    if most is None:
        return count < _TIMINGS
    return count < _FIRST_TIMINGS or (count < _ALL_TIMINGS and max(map(max, times)) > most)


def _reference_work() -> ReferenceTime:
    """Work that is always the same, on this thread."""
    start, begin = time.perf_counter(), time.thread_time()
    total = 0
    for number in range(_REFERENCE):
        total += number
    return ReferenceTime(time.perf_counter() - start, time.thread_time() - begin)


def _processor() -> str:
    lines = processor().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())

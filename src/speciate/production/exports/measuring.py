"""An export beside its parent on the same real examples: how far their scores lie apart, and how fast each answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.evaluation.statistics import quantile_interval
from speciate.evaluation.timing import device
from speciate.production.exports.gates import Pace, Parity, Speed
from speciate.tasks.contract import Prediction

Scores = Sequence[npt.NDArray[Any]]
Ask = Callable[[Sequence[Example]], Sequence[Prediction]]
_WARM_UP, _FEWEST, _MOST, _SECONDS = 3, 20, 120, 20.0
_NEAR = 0.01
"""Of the spread of the parent's answers: numbers nearer than that are alike."""


def parity(parent: Scores, export: Scores, answers: Sequence[Prediction], others: Sequence[Prediction]) -> Parity:
    """`answers`: the parent's to the same examples; `others`: the export's."""
    alike = all(one.shape == other.shape for one, other in zip(parent, export, strict=True))
    first = np.concatenate([np.ravel(each) for each in parent]).astype(np.float64)
    second = np.concatenate([np.ravel(each) for each in export]).astype(np.float64) if alike else np.zeros_like(first)
    known = np.isfinite(first)
    if not alike or not np.isfinite(second[known]).all():  # NaN where the parent has numbers is no likeness
        return Parity(n=len(parent), max_difference=1e300, spread=float(first[known].std()),
                      cosine=-1.0, agreement=_agreement(answers, others))  # fmt: skip
    first, second = first[known], second[known]
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    cosine = float(first @ second) / lengths if lengths else float(np.array_equal(first, second))
    return Parity(
        n=len(parent), max_difference=float(np.abs(first - second).max(initial=0.0)), spread=float(first.std()),
        cosine=min(1.0, cosine), agreement=_agreement(answers, others),
    )  # fmt: skip


def _agreement(answers: Sequence[Prediction], others: Sequence[Prediction]) -> float | None:
    pairs = [(one.output, other.output) for one, other in zip(answers, others, strict=True)]
    if all(isinstance(each, str) for pair in pairs for each in pair):
        return float(np.mean([one == other for one, other in pairs]))
    if all(isinstance(each, int | float) for pair in pairs for each in pair):
        first, second = np.array(pairs, float).T
        return float(np.mean(np.abs(first - second) <= _NEAR * max(float(first.std()), 1e-12)))
    return None


def alike(here: Scores, there: Scores) -> bool:
    """Whether two processes computed the same; another order of threads may round otherwise."""
    return len(here) == len(there) and all(
        one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
        for one, other in zip(here, there, strict=True)
    )


def speed(
    parent: Ask, export: Ask, examples: Sequence[Example], memory_mb: tuple[float | None, float | None],
    seed: int = 0, clock: Callable[[], float] = time.perf_counter,
) -> Speed:  # fmt: skip
    """Pairs, each of one example that both answer, first one then the other in a drawn order: whatever else the machine
    does meanwhile slows both. At most 120 pairs or 20 seconds, at least 20 pairs."""
    chance = np.random.default_rng(seed)
    drawn = [examples[place] for place in chance.permutation(len(examples))]
    for example in drawn[:_WARM_UP]:
        parent([example])
        export([example])
    times = np.zeros((0, 2))
    begin = clock()
    while len(times) < _MOST and (len(times) < _FEWEST or clock() - begin < _SECONDS):
        example, pair = drawn[len(times) % len(drawn)], [0.0, 0.0]
        for place in chance.permutation(2):
            start = clock()
            (parent, export)[place]([example])
            pair[place] = 1000 * (clock() - start)
        times = np.vstack([times, pair])
    ratio = quantile_interval(times[:, 1] / times[:, 0], 0.5)
    paces = [
        Pace(p50_ms=float(np.median(column)), p95_ms=float(np.quantile(column, 0.95)), memory_mb=memory)
        for column, memory in zip(times.T, memory_mb, strict=True)
    ]
    return Speed(
        parent=paces[0], export=paces[1], ratio=ratio.value, low=ratio.low, high=ratio.high, pairs=len(times),
        device=device(),
    )  # fmt: skip

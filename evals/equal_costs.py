"""Two trainings of one recipe on a loaded machine: how often their costs are told apart.

Noise: each turn's processor time is slowed by a load that both models share (it wanders between 1 and 2, as the
recorded 5.3e-7 to 8.7e-7 USD do) and by noise of its own, with a spike now and then. Costs are such that the least
difference that counts (0.0001 USD) is exceeded by noise alone. Real: small text classifiers, trained twice on two
halves of the same sentences, are measured by turns while other processes keep every core busy twice over.

    python evals/equal_costs.py [--pairs 100] [--real 20] [--seed 0]

`compare_models` and `gates` use the same functions. Exits with 1 where a pair is told apart.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from speciate.datasets.loading.loader import Example
from speciate.environment import cores
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.cost_difference import is_dearer, ratio
from speciate.evaluation.gates import Evidence, judge
from speciate.evaluation.predictors.timing import TimedModel, measure_by_turns
from speciate.evaluation.reports.report import Control, Row
from speciate.tasks.task import Prediction
from speciate.use_cases import Gate, UseCaseLimits

TURNS, USD = 15, 0.002
"""Of a model that takes 144 ms of one core: 25 % of it are well above the least difference."""


class Measured(NamedTuple):
    """What `cost_difference` looks at."""

    usd_per_1k: float | None
    usd_interval: tuple[float, float] | None = None
    usd_turns: tuple[float, ...] = ()
    recipe: str | None = None
    parameters: int | None = None

    @property
    def alone(self) -> Measured:
        """As it was before: one figure, whenever it was measured."""
        return Measured(self.usd_per_1k)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--real", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    simulated = [simulate(random) for _ in range(arguments.pairs)]
    with busy_machine():
        real = [measure_pair(random) for _ in range(arguments.real)]
    apart = 0
    print("| pairs | told apart by turns | by one figure each | largest ratio of two figures |")
    print("|---|---|---|---|")
    for name, pairs in (("simulated", simulated), ("real", real)):
        by_turns = sum(is_dearer(*pair) or is_dearer(*pair[::-1]) for pair in pairs)
        by_figure = sum(is_dearer(a.alone, b.alone) or is_dearer(b.alone, a.alone) for a, b in pairs)
        most = max(max(a.usd_per_1k / b.usd_per_1k, b.usd_per_1k / a.usd_per_1k) for a, b in pairs)
        print(f"| {len(pairs)} {name} | {by_turns} | {by_figure} | {most:.2f} |")
        apart += by_turns
    found = [simulate(random, dearer=2.0) for _ in range(arguments.pairs)]
    seen = sum(is_dearer(b, a) for a, b in found)
    print(f"\nA model of twice the cost is told apart in {seen} of {arguments.pairs} pairs.")
    spans = [known for a, b in real if (known := ratio(a, b))]
    if spans:
        print(f"Real ratios, 95 %: from {min(low for low, _ in spans):.2f} to {max(high for _, high in spans):.2f}.")
    quiet = latency()
    with busy_machine():
        loaded = latency()
    for name, (cost, most) in {"as it is": quiet, "with two more processes a core": loaded}.items():
        print(f"Latency, {name}: p95 {cost.p95.value:.2f} ms, {cost.busy:.0%} delayed; at most {most:g} ms: ", end="")
        print(limit(cost, most))
    return 1 if apart else 0


def latency() -> tuple[Cost, float]:
    """Of a model that computes for about a millisecond, and a limit that only a busy machine exceeds."""

    def ask(few: list[Example]) -> list[Prediction]:
        for _ in few:
            sum(range(60_000))
        return [Prediction("a", None, None)] * len(few)

    examples = [Example(str(place), "text", None, "", "test", {}) for place in range(200)]
    (cost,) = measure_by_turns([TimedModel(ask, examples, None)], latency=True)
    return cost, 4.0


def limit(cost: Cost, most: float) -> str:
    """The gate's answer."""
    row = Row(
        model="model", served_model="model", metric="accuracy", value=1.0, interval=None, n=1, errors=0, coverage=1.0,
        usd_per_1k=None, p95_ms=cost.p95.value, p95_interval=(cost.p95.low, cost.p95.high), busy=cost.busy,
        device=cost.device, control=Control(weights_owned=True, offline=True, pinned=True),
    )  # fmt: skip
    return judge(
        Gate(rule="at_most", metric="p95_latency_ms", value=most),
        Evidence("accuracy", row, row, {}, UseCaseLimits()),
    ).outcome


def simulate(random: np.random.Generator, dearer: float = 1.0) -> tuple[Measured, Measured]:
    """The second model costs `dearer` times as much. Each figure alone is of one turn, at another time."""
    load = np.exp(np.cumsum(random.normal(0, 0.15, TURNS)) % 0.7)
    turns = []
    for factor in (1.0, dearer):
        own = np.exp(random.normal(0, 0.12, TURNS)) * np.where(random.random(TURNS) < 0.05, 2.0, 1.0)
        turns.append(tuple(float(each) for each in USD * factor * load * own))
    first, second = turns
    return Measured(first[0], None, first), Measured(second[-1], None, second)


def measure_pair(random: np.random.Generator) -> tuple[Measured, Measured]:
    words = np.array([f"word{number}" for number in range(400)])
    texts = [" ".join(random.choice(words, 60)) for _ in range(400)]
    labels = random.integers(0, 2, len(texts))
    models = [make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts[k::2], labels[k::2]) for k in (0, 1)]
    examples = [Example(str(place), text, None, "", "test", {}) for place, text in enumerate(texts[:128])]

    def timed(model: object) -> TimedModel:
        def ask(few: list[Example]) -> list[Prediction]:
            return [Prediction(str(label), None, None) for label in model.predict([one.media for one in few])]

        return TimedModel(ask, examples, 100.0)  # a price at which hundredths of a millisecond count

    costs = measure_by_turns([timed(model) for model in models], latency=False)
    first, second = (Measured(cost.usd_per_1k, cost.usd_interval, cost.usd_turns) for cost in costs)
    return first, second


@contextmanager
def busy_machine() -> Iterator[None]:
    """Two spinning processes for each core."""
    others = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(2 * cores())]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def _spin() -> None:
    while True:
        sorted(range(100_000), key=lambda number: -number)


if __name__ == "__main__":
    sys.exit(main())

"""Which of several candidates goes forward: three rules on drawn candidates, judged by the product's own gates.

Three candidates, each dearer than the one before, 300 test rows. Of the first two 300 rows out of fold say how good
they are. Of the third 60 rows do, on which the best of four alike networks was chosen: it is optimistic, as a learning
rate is that one small split chose. All answer alike: rows that are hard for one are hard for the others. Reports, gates
and the choice are `compare_models.build`.

    python evals/fixed_order.py [--repeats 1000] [--seed 0]

cheapest                 the cheapest that passes, unless a dearer one surely beats it (aim pass)
fixed order              the first that passes in the order of validation values (aim best)
  without the error      the same, with no standard error less for values that few rows say
best on the test rows    the one with the best value on the test rows among those that pass

Prints Markdown. False: a candidate that is no better than the system in use, or misses the target by half a point, is
promoted. Kind: the value on the test rows of what goes forward, less its true value. Exits with 1 where a false
promotion is likelier than 2.5 %, beyond what the number of repeats explains.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from speciate.evaluation.candidate_order import fixed_order
from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics import Answers, label_answers
from speciate.evaluation.reports.report import Report, ValidationEvidence
from speciate.use_cases import Gate, Objective, UseCase
from speciate.vocabulary import find_metric

TEST, MANY, FEW, MEMBERS, ALIKE, TARGET, BASE = 300, 300, 60, 4, 0.7, 0.8, 0.8
COSTS = (1.0, 3.0, 10.0)
NAMES = ("classical", "tabm", "network")
ACCURACY = find_metric("accuracy")
Rng = np.random.Generator


class World(NamedTuple):
    name: str
    draw: Callable[[Rng], Sequence[float]]
    """True values of the candidates."""
    target: float | None
    gates: tuple[Gate, ...]
    false: Callable[[float], bool]
    """Whether a promotion of a candidate of this true value is false."""


WORLDS = (
    World("none is better", lambda _: (BASE,) * 3, None, (Gate(rule="better"),), lambda true: true <= BASE),
    World("each misses the target", lambda _: (TARGET - 0.005,) * 3, TARGET, (), lambda true: true < TARGET),
    World("alike, all far better", lambda _: (0.9,) * 3, None, (Gate(rule="better"),), lambda true: true <= BASE),
    World(
        "dearer ones are often better",
        lambda rng: np.cumsum([0.86, rng.uniform(-0.01, 0.04), rng.uniform(-0.03, 0.03)]).tolist(),
        None,
        (Gate(rule="better"),),
        lambda true: true <= BASE,
    ),
)


class End(NamedTuple):
    promoted: bool
    false: bool
    true: float
    kindness: float
    behind: float
    """By how much the best of the three is better than what goes forward."""


class Drawn(NamedTuple):
    true: Sequence[float]
    entries: list[ModelEntry]
    evidence: list[ValidationEvidence]
    measured: dict[str, float]
    """By name: the value on the test rows."""


def draw(rng: Rng, true: Sequence[float]) -> Drawn:
    count = MANY + TEST
    hard = rng.normal(size=count)

    def right(value: float) -> np.ndarray:
        own = rng.normal(size=count)
        return np.asarray(ALIKE**0.5 * hard + (1 - ALIKE) ** 0.5 * own < NormalDist().inv_cdf(value))

    entries = [_entry("in use", right(BASE)[MANY:], 1.0)]
    evidence, measured = list[ValidationEvidence](), dict[str, float]()
    for name, value, usd in zip(NAMES, true, COSTS, strict=True):
        rows = FEW if name == "network" else MANY
        tried = [right(value) for _ in range(MEMBERS if name == "network" else 1)]
        best = max(tried, key=lambda each: each[:rows].mean())
        share = float(best[:rows].mean())
        error = max((share * (1 - share) / rows) ** 0.5, 1e-3)
        evidence.append(ValidationEvidence(model=name, value=share, standard_error=error, n=rows, how="out-of-fold"))
        entries.append(_entry(name, best[MANY:], usd))
        measured[name] = float(best[MANY:].mean())
    return Drawn(true, entries, evidence, measured)


def _entry(name: str, right: np.ndarray, usd: float) -> ModelEntry:
    model = EvaluatedModel(name=name, source="model", identity=name, license="MIT")
    return ModelEntry(model, (_answers(right),), 0, Cost(usd_per_1k=usd), certain=True)


def _answers(right: np.ndarray) -> Answers:
    references = ["a" if place % 2 else "b" for place in range(len(right))]
    given = [each if fine else ("b" if each == "a" else "a") for each, fine in zip(references, right, strict=True)]
    return label_answers(references, given, [None] * len(right), ("a", "b"))


def _by_test_rows(drawn: Drawn) -> tuple[ValidationEvidence, ...]:
    told = [
        ValidationEvidence(model=name, value=value, standard_error=0.0, n=TEST, how="test")
        for name, value in drawn.measured.items()
    ]
    return fixed_order(told, ACCURACY)


RULES: dict[str, Callable[[Drawn], tuple[ValidationEvidence, ...]]] = {
    "cheapest": lambda drawn: (),
    "fixed order": lambda drawn: fixed_order(drawn.evidence, ACCURACY),
    "  without the error": lambda drawn: fixed_order(
        [one.model_copy(update={"n": MANY}) for one in drawn.evidence], ACCURACY
    ),
    "best on the test rows": _by_test_rows,
}


def judge(world: World, drawn: Drawn, order: tuple[ValidationEvidence, ...]) -> Report:
    use_case = UseCase(
        name="u", task="text-classification", objective=Objective(metric="accuracy", target=world.target),
        gates=world.gates, version=1, created=0.0,
    )  # fmt: skip
    question = Question("d@v1:test", (ACCURACY,), "in use", None, use_case, order=order)
    return build(question, drawn.entries, np.arange(TEST))


def end_of(world: World, drawn: Drawn, order: tuple[ValidationEvidence, ...]) -> End:
    report = judge(world, drawn, order)
    true = drawn.true[NAMES.index(report.candidate)]
    promoted = report.decision is not None and report.decision.verdict == "promote"
    kindness = drawn.measured[report.candidate] - true
    return End(promoted, promoted and world.false(true), true, kindness, max(drawn.true) - true)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    allowed = 0.025 + 2 * (0.025 * 0.975 / asked.repeats) ** 0.5
    kept = True
    print(
        "| world | rule | promoted | of them false | true value, mean | behind the best of the three | kind by |\n"
        "|---|---|---|---|---|---|---|"
    )
    for world in WORLDS:
        ends: dict[str, list[End]] = {rule: [] for rule in RULES}
        for repeat in range(asked.repeats):
            rng = np.random.default_rng([asked.seed, repeat])
            drawn = draw(rng, world.draw(rng))
            for rule, order in RULES.items():
                ends[rule].append(end_of(world, drawn, order(drawn)))
        for rule, found in ends.items():
            false = float(np.mean([one.false for one in found]))
            kept &= false <= allowed
            told = [one for one in found if one.promoted]
            true, behind, kind = (
                float(np.mean([getattr(one, name) for one in told])) if told else float("nan")
                for name in ("true", "behind", "kindness")
            )
            promoted = f"{len(told) / len(found):.1%} | {false:.2%}"
            print(f"| {world.name} | {rule} | {promoted} | {true:.4f} | {behind:.4f} | {kind:+.4f} |", flush=True)
    print("\nrequirements met" if kept else "\na requirement is missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

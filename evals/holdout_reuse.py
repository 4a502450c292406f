"""A loop that asks one test split again and again: how often luck is promoted, and whether a real gain still is.

Each loop has 600 test rows, 40 rounds and three candidates a round. All models are right with probability 0.90. A
candidate gives half of production's answers again; the other half is drawn anew. Reports, gates, the choice among
candidates and the rule for reuse are the product's own (`compare_models.build`). A promoted candidate is production in
the next round, and the first one was chosen on these rows, too. In the last loops one candidate of one round has a real
gain of twice the detectable effect. Measured gain: the measured accuracy of production at the end less that at the
start; nothing was gained.

    python evals/holdout_reuse.py [--repeats 200] [--rounds 40] [--seed 0]

Prints Markdown. The figures in evals/LOG.md are of seed 0. Exits with 1 where a requirement is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import numpy as np

from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.metrics import Answers
from speciate.use_cases import Gate, Objective, UseCase
from speciate.vocabulary import find_metric

N, RIGHT, CANDIDATES, REDRAWN = 600, 0.90, 3, 0.5
SPREAD = REDRAWN * 2 * RIGHT * (1 - RIGHT)
"""Share of the rows on which a candidate and production differ, both being equally good."""
DETECTABLE = 2.8016 * (SPREAD / N) ** 0.5
"""The smallest true gain that one look finds, at 95 % and with 80 % power."""
GAIN = min(2 * DETECTABLE, 1 - RIGHT)


class Policy(NamedTuple):
    name: str
    target: float | None
    gates: tuple[Gate, ...]


POLICIES = (
    Policy("usual gates", None, ()),
    Policy("usual gates, target = true accuracy", RIGHT, ()),
    Policy("usual gates, target surely reached", 0.80, ()),
    Policy("better", None, (Gate(rule="better"),)),
    Policy("not worse by 0.05", None, (Gate(rule="not_worse", value=0.05),)),
    Policy("not worse by 0.1", None, (Gate(rule="not_worse", value=0.1),)),
)


class Loop(NamedTuple):
    promotions: int
    better: bool
    """Whether a model that is no better was promoted on an interval of its gain above zero."""
    reached: bool
    """Whether a target that is no less than the true value was passed."""
    inflation: float
    """Measured accuracy of production at the end, less that at the start."""
    found: bool
    """Whether the model with a real gain was promoted in its round."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ignore-reuse", action="store_true", help="as it was before the rule, to compare")
    arguments = parser.parse_args()
    print(f"{arguments.repeats} loops of {arguments.rounds} rounds, {CANDIDATES} candidates each, n {N}")
    print("| gates | promotions a loop | false 'better' | false target pass | measured gain, points |")
    print("|---|---|---|---|---|")
    kept = True
    for policy in POLICIES:
        begin = time.process_time()
        found = [loop(policy, arguments, repeat) for repeat in range(arguments.repeats)]
        better, reached = (float(np.mean([getattr(one, name) for one in found])) for name in ("better", "reached"))
        inflation = 100 * float(np.mean([one.inflation for one in found]))
        promotions = float(np.mean([one.promotions for one in found]))
        kept &= better <= 0.05 and reached <= 0.05 and inflation <= 0.3
        print(
            f"| {policy.name} | {promotions:.2f} | {100 * better:.1f} % | {100 * reached:.1f} % | {inflation:+.2f} |"
            f" <!-- {time.process_time() - begin:.0f} s -->",
            flush=True,
        )
    for policy in () if arguments.ignore_reuse else POLICIES[:4]:
        for when in (arguments.rounds // 2, arguments.rounds - 1):
            shown = [loop(policy, arguments, repeat, when) for repeat in range(arguments.repeats)]
            share = float(np.mean([one.found for one in shown]))
            kept &= share >= 0.9
            said = f"- {policy.name}, real gain of {GAIN:.3f} in round {when + 1}"
            print(f"{said}: promoted in {100 * share:.1f} %", flush=True)
    print("all requirements are met" if kept else "a requirement is missed")
    return 0 if kept else 1


def loop(policy: Policy, arguments: argparse.Namespace, repeat: int, gain_at: int | None = None) -> Loop:
    """One loop; the one with a gain ends with the round in which it comes."""
    random = np.random.default_rng([arguments.seed, repeat])
    production = random.random(N) < RIGHT
    measured = float(production.mean())
    promotions, better, reached = 0, False, False
    rounds = arguments.rounds if gain_at is None else gain_at + 1
    for turn in range(rounds):
        gains = [GAIN if turn == gain_at and place == 0 else 0.0 for place in range(CANDIDATES)]
        drawn = [answers(random, production, gain) for gain in gains]
        others = turn * CANDIDATES - (promotions > 0)  # production itself is judged now
        looks = LooksOnRows(candidates=others, evaluations=1 + turn, promotions=1 + promotions)
        asked = LooksOnRows() if arguments.ignore_reuse else looks
        report = judged(policy, production, drawn, asked, repeat)
        decision = report.decision
        if decision is None or decision.verdict != "promote":
            continue
        chosen = int(decision.candidate.removeprefix("candidate-"))
        if turn == gain_at:
            return Loop(promotions, better, reached, 0.0, chosen == 0)
        compared = report.compare("production", decision.candidate)
        better |= bool(compared and compared.improvement() and decision.interval and decision.interval[0] > 0)
        reached |= policy.target is not None and policy.target >= RIGHT
        production, promotions = drawn[chosen], promotions + 1
    return Loop(promotions, better, reached, float(production.mean()) - measured, False)


def answers(random: np.random.Generator, production: np.ndarray, gain: float) -> np.ndarray:
    """Whether each answer of a candidate is right: half of production's again, the others drawn anew. A gain makes
    answers right that were not."""
    drawn = np.where(random.random(N) < REDRAWN, random.random(N) < RIGHT, production)
    return drawn | (random.random(N) < gain / (1 - RIGHT))


def judged(policy: Policy, production: np.ndarray, drawn: list[np.ndarray], looks: LooksOnRows, seed: int):
    use_case = UseCase(
        name="loop", task="text-classification", objective=Objective(metric="accuracy", target=policy.target),
        gates=policy.gates, version=1, created=0.0,
    )  # fmt: skip
    names = ["production", *(f"candidate-{place}" for place in range(len(drawn)))]
    entries = [entry(name, right) for name, right in zip(names, [production, *drawn], strict=True)]
    question = Question(
        "loop@v1:test", (find_metric("accuracy"),), "production", None, use_case, seed=seed, looks=looks
    )
    return build(question, entries, np.arange(N))


def entry(name: str, right: np.ndarray) -> ModelEntry:
    references = np.zeros(N, np.int64)
    given = Answers(references, np.where(right, 0, 1).astype(np.int64), ("yes", "no"))
    model = EvaluatedModel(name=name, source="model", identity=name, parameters=1, license="mit")
    return ModelEntry(model, (given,), 0, Cost(usd_per_1k=1.0))


if __name__ == "__main__":
    sys.exit(main())

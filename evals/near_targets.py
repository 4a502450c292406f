"""Searches whose verdict is near: how many end inconclusive with budget left, and what would have avoided it.

Each line of `near_targets.jsonl` is a table on which every method was trained once and judged on the test rows: values
on validation examples with their errors, seconds, and values on the test rows. Targets are drawn that the best of them
reaches by 1 to 3 standard errors. The search is the product's own (`specialize.next_step`). A training or an evaluation
takes the seconds and gives the values that were recorded, and the gate `reaches` is asked at the level of
`holdout_reuse.level_for`, by the recorded standard error.

    python evals/near_targets.py [--aim best] [--targets 2] [--budget 6] [--seed 0]

Prints Markdown: a line for each search that ended without a promotion though budget was left. Exits with 1 where one of
them was avoidable: by a method that was not tried, or another look at one that was not judged.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.jobs.kinds import Child, Finished
from speciate.sample_size import LEVEL
from speciate.training.cascade.candidates import SpecializeSpec, step_name
from speciate.training.specialize import next_step
from speciate.training.train_spec import Candidate
from speciate.use_cases import Aim
from speciate.vocabulary import find_metric

RECORDED = Path(__file__).with_suffix(".jsonl")
EVALUATION_SECONDS = 15.0


class Method(NamedTuple):
    candidate: Candidate
    seconds: float
    validation: Mapping[str, Any]
    test: float
    error: float
    """Standard error on the test rows."""

    @property
    def step(self) -> str:
        return step_name(self.candidate)

    def reaches(self, target: float, sign: int, level: float) -> bool:
        return sign * (self.test - target) >= NormalDist().inv_cdf((1 + level) / 2) * self.error


class Table(NamedTuple):
    name: str
    metric: str
    test_rows: int
    methods: Mapping[str, Method]

    @property
    def sign(self) -> int:
        return find_metric(self.metric).sign


class End(NamedTuple):
    verdict: str
    why: str
    left: float
    """Seconds of the budget."""
    judged: list[list[str]]
    tried: list[str]


def tables() -> list[Table]:
    return [_table(json.loads(line)) for line in RECORDED.read_text().splitlines()]


def _table(said: Mapping[str, Any]) -> Table:
    methods = [
        Method(
            Candidate.model_validate(each["candidate"]), each["seconds"],
            {name: each[name] for name in ("value", "standard_error", "n", "how")}, each["test"],
            (each["test_interval"][1] - each["test_interval"][0]) / 2 / NormalDist().inv_cdf((1 + LEVEL) / 2),
        )
        for each in said["methods"]
    ]  # fmt: skip
    return Table(said["table"], said["metric"], said["test_rows"], {each.step: each for each in methods})


def search(table: Table, target: float, minutes: float, aim: Aim) -> End:
    spec = SpecializeSpec(
        use_case="u", dataset="d@v1", budget_minutes=minutes, test_examples=table.test_rows, aim=aim,
        ways=tuple(each.candidate for each in table.methods.values()),
    )  # fmt: skip
    children: list[Child] = []
    judged: list[list[str]] = []
    while True:
        asked = next_step(spec, children, 0.0)
        if isinstance(asked, Finished):
            result: Any = asked.result
            spent = sum(child.run_seconds for child in children)
            tried = [child.step for child in children if child.kind == "train"]
            return End(result["decision"]["verdict"], result["ended"]["reason"], 60 * minutes - spent, judged, tried)
        (request,) = asked
        if request.kind == "train":
            method = table.methods[request.step]
            seconds, answer = method.seconds, _trained(table, method, target)
        elif request.kind == "evaluate":
            models = [str(each) for each in request.spec["models"]]
            first = [str(each["model"]) for each in request.spec.get("order", ()) if each["model"] in models]
            seconds, answer = EVALUATION_SECONDS, _judged(table, models, first or models, judged, target)
        else:
            seconds, answer = 0.0, {"state": "applied"}
        children.append(
            Child(id=request.step, step=request.step, kind=request.kind, spec=request.spec, state="succeeded",
                  result=answer, error=None, run_seconds=seconds)
        )  # fmt: skip


def _trained(table: Table, method: Method, target: float) -> dict[str, Any]:
    tabm = {"tabm": True} if method.candidate.tabm else {}
    report = {
        "dataset": "d@v1", "method": method.candidate.method, "base_model": method.candidate.base_model,
        "metric": table.metric, "target": target, "seconds": method.seconds, "dearer": [], "cost": tabm,
        "validation": {**method.validation, "interval": [0.0, 0.0]},
    }  # fmt: skip
    return {"model": method.step, "report": report}


def _judged(
    table: Table, models: Sequence[str], order: Sequence[str], judged: list[list[str]], target: float
) -> dict[str, Any]:
    level = _level(models, judged)
    judged.append(list(models))
    passing = [each for each in order if table.methods[each].reaches(target, table.sign, level)]
    chosen = passing[0] if passing else max(models, key=lambda each: table.sign * table.methods[each].test)
    beyond = table.methods[chosen]
    short = table.sign * (target - beyond.test) > NormalDist().inv_cdf((1 + level) / 2) * beyond.error
    verdict = "promote" if passing else "hold" if short else "inconclusive"
    rows = [{"model": each, "value": table.methods[each].test, "interval": [0.0, 0.0]} for each in models]
    return {
        "evaluation": "e", "decision": {"id": "1", "verdict": verdict, "reasons": []},
        "unmet": [] if passing else ["reaches"],
        "report": {"candidate": chosen, "baseline": "constant:", "leaderboard": rows},
    }  # fmt: skip


def _level(models: Sequence[str], judged: Sequence[Sequence[str]]) -> float:
    before = len({each for look in judged for each in look} - set(models))
    return min(level_for(len(models)), 1.0) if not before else level_for(len(models), LooksOnRows(candidates=before))


_HINDSIGHT = "to judge another one first"
"""At the full level it passes. Validation examples had said another one."""


def avoidable(table: Table, target: float, end: End) -> str:
    """What would have ended in a promotion; empty where nothing of what was recorded would."""
    able = {step for step, each in table.methods.items() if each.reaches(target, table.sign, LEVEL)}
    seen = {step for look in end.judged for step in look}
    if able - set(end.tried):
        return "a method that was not tried"
    unseen = able - seen
    level = level_for(1, LooksOnRows(candidates=len(seen)))
    if any(table.methods[each].reaches(target, table.sign, level) for each in unseen):
        return "another look"
    return _HINDSIGHT if able else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--budget", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aim", choices=("pass", "best"), default="best")
    asked = parser.parse_args()
    chance, ends, avoided = random.Random(asked.seed), Counter[str](), Counter[str]()
    print("| table | target | verdict | ended | s left | looks | judged | not judged | would have avoided it |")
    print("|---|---|---|---|---|---|---|---|---|")
    for table in tables():
        best = max(table.methods.values(), key=lambda each: table.sign * each.test)
        for _ in range(asked.targets):
            target = best.test - table.sign * chance.uniform(1.0, 3.0) * best.error
            end = search(table, target, asked.budget, asked.aim)
            ends[end.verdict] += 1
            if end.verdict == "promote" or end.left < 60:
                continue
            how = avoidable(table, target, end)
            avoided[how or "nothing that was recorded"] += 1
            judged = sorted({step.removeprefix("train/") for look in end.judged for step in look})
            others = sorted({step.removeprefix("train/") for step in table.methods} - set(judged))
            print(
                f"| {table.name} | {target:.4g} | {end.verdict} | {end.why} | {end.left:.0f} | {len(end.judged)} "
                f"| {', '.join(judged)} | {', '.join(others)} | {how or 'more test rows'} |"
            )
    print(f"\n{sum(ends.values())} searches: {dict(ends)}; without a promotion and with budget left: {dict(avoided)}")
    return int(bool(set(avoided) - {"nothing that was recorded", _HINDSIGHT}))


if __name__ == "__main__":
    sys.exit(main())
